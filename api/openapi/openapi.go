// Package openapi describes the API in the form of Kinto's document (Swagger 2.0)
// and of OpenAPI 3.1, both made from the same rows: the kinds of resources, the
// utility endpoints, the routes of plugins.
package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// object is a JSON object.
type object = map[string]any

// Resource is a kind of objects with its two URLs.
type Resource struct {
	Name, Plural string // "bucket", "buckets"
	// Path is the template of the list: "/buckets/{bucket_id}/groups".
	Path        string
	Permissions []string
	// Properties of the data, as JSON Schema; empty: none is told. Required are those
	// that a client must give.
	Properties json.RawMessage
	Required   []string
	// Closed says that the data has no other properties.
	Closed bool
	// Label is what tags and operations are called after; empty: Plural. Param is the
	// name of the object's id in the path; empty: "id".
	Label, Param string
	// ListMethods and ObjectMethods are those that exist; HEAD and OPTIONS are not shown.
	ListMethods, ObjectMethods []string
}

// Operation is an endpoint outside the table of resources.
type Operation struct {
	Method, Path string // the path as a template, "/openid/{provider}/login"
	ID, Tag      string
	// Open needs no user.
	Open bool
	// Consumes are the media types of the body; nil: it has none.
	Consumes []string
	// Parameters and Responses are those of Swagger 2.0; PathParameters are made from
	// the path.
	Parameters []json.RawMessage
	Responses  json.RawMessage
}

// Document is all that is described.
type Document struct {
	Title, Version, BasePath string
	Resources                []Resource
	Operations               []Operation
	// Security are the definitions of Swagger 2.0 by name.
	Security map[string]json.RawMessage
}

// Swagger renders Kinto's document for a server that its client calls scheme and
// host.
func (d *Document) Swagger(scheme, host string) ([]byte, error) {
	doc, err := d.swagger(scheme, host)
	if err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

// OpenAPI renders the document in OpenAPI 3.1.
func (d *Document) OpenAPI(scheme, host string) ([]byte, error) {
	doc, err := d.swagger(scheme, host)
	if err != nil {
		return nil, err
	}
	// A copy without shared parts, to be changed in place.
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var copied object
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&copied); err != nil {
		return nil, err
	}
	return json.Marshal(upgrade(copied))
}

func (d *Document) swagger(scheme, host string) (object, error) {
	paths, tags, seen := object{}, []any{}, map[string]bool{}
	security := []any{}
	definitions := object{}
	for _, name := range slices.Sorted(maps.Keys(d.Security)) {
		definitions[name] = d.Security[name]
		security = append(security, object{name: []any{}})
	}
	add := func(path, method, tag string, op object) error {
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			if parameters := pathParameters(path); len(parameters) > 0 {
				item["parameters"] = parameters
			}
			paths[path] = item
		}
		method = strings.ToLower(method)
		if item[method] != nil {
			return fmt.Errorf("openapi: %s %s is described twice", method, path)
		}
		op["tags"] = []any{tag}
		item[method] = op
		if !seen[tag] {
			seen[tag] = true
			tags = append(tags, object{"name": tag})
		}
		return nil
	}
	for i := range d.Operations {
		o := &d.Operations[i]
		if err := add(o.Path, o.Method, o.Tag, o.render(security)); err != nil {
			return nil, err
		}
	}
	for i := range d.Resources {
		if err := d.Resources[i].each(security, add); err != nil {
			return nil, err
		}
	}
	return object{
		"swagger": "2.0", "info": object{"title": d.Title, "version": d.Version}, "basePath": d.BasePath, "host": host, "schemes": []any{scheme},
		"securityDefinitions": definitions, "tags": tags, "paths": paths,
	}, nil
}

// pathParameters are the names in braces of a path.
func pathParameters(path string) (all []any) {
	for rest := path; ; {
		_, after, found := strings.Cut(rest, "{")
		name, tail, closed := strings.Cut(after, "}")
		if !found || !closed {
			return all
		}
		all = append(all, object{"in": "path", "name": name, "required": true, "type": "string"})
		rest = tail
	}
}

func (o *Operation) render(security []any) object {
	op := object{"operationId": o.ID, "produces": []any{"application/json"}, "security": security}
	if o.Open {
		op["security"] = []any{}
	}
	if o.Consumes != nil {
		op["consumes"] = o.Consumes
	}
	if len(o.Parameters) > 0 {
		op["parameters"] = o.Parameters
	}
	op["responses"] = o.Responses
	if len(o.Responses) == 0 {
		op["responses"] = object{"default": object{"description": "UNDOCUMENTED RESPONSE"}}
	}
	return op
}

// Utilities is the tag of the endpoints that tell of the server.
const Utilities = "Utilities"

// AnyObject is the responses of an endpoint that answers 200 with an object.
func AnyObject(description string) json.RawMessage {
	text, err := json.Marshal(object{"200": object{"description": description, "schema": anyObject()}})
	if err != nil {
		panic(err) // not of texts
	}
	return text
}

func anyObject() object {
	return object{"title": "SchemaNode", "type": "object", "additionalProperties": object{}}
}
