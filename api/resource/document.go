package resource

import (
	"encoding/json"
	"net/http"
	"strings"

	"quinto/api/openapi"
	"quinto/plugins"
)

// The data of the core's kinds, for the API document.
const (
	bucketProperties = `{"collection:schema":{"additionalProperties":{},"type":"object"},"group:schema":{"additionalProperties":{},"type":"object"},` +
		`"record:schema":{"additionalProperties":{},"type":"object"}}`
	groupProperties      = `{"members":{"default":[],"items":{"type":"string"},"title":"Members","type":"array"}}`
	collectionProperties = `{"cache_expires":{"title":"Cache Expires","type":"integer"},"schema":{"additionalProperties":{},"title":"Schema","type":"object"}}`
)

// permissionsProperties are Kinto's, which leaves out an entry's permissions; its id
// and last_modified are there too.
const permissionsProperties = `{"bucket_id":{"title":"Bucket Id","type":"string"},"collection_id":{"title":"Collection Id","type":"string"},` +
	`"group_id":{"title":"Group Id","type":"string"},"record_id":{"title":"Record Id","type":"string"},` +
	`"resource_name":{"title":"Resource Name","type":"string"},"uri":{"title":"Uri","type":"string"}}`

// batchRequest is one request of a batch, or the defaults of all.
const batchRequest = `{"body":{"additionalProperties":{},"title":"Body","type":"object"},"headers":{"additionalProperties":{},"title":"Headers","type":"object"},` +
	`"method":{"enum":["GET","HEAD","DELETE","TRACE","POST","PUT","PATCH"],"title":"Method","type":"string"},"path":{"pattern":"^/","title":"Path","type":"string"}}`

const batchBody = `{"in":"body","name":"BatchPayloadSchema","required":true,"schema":{"title":"BatchPayloadSchema","type":"object","required":["requests"],"properties":{` +
	`"defaults":{"title":"Defaults","type":"object","properties":` + batchRequest + `},` +
	`"requests":{"title":"Requests","type":"array","items":{"type":"object","required":["path"],"properties":` + batchRequest + `}}}}}`

const batchAnswer = `{"title":"BatchResponseBodySchema","type":"object","required":["responses"],"properties":{"responses":{"title":"Responses","type":"array","items":{` +
	`"type":"object","required":["status","path"],"properties":{"body":{"additionalProperties":{},"title":"Body","type":"object"},` +
	`"headers":{"additionalProperties":{},"title":"Headers","type":"object"},"path":{"title":"Path","type":"string"},"status":{"title":"Status","type":"integer"}}}}}}`

// Document describes what this service answers: the kinds, the batch, the hello
// view and the routes of plugins that describe themselves.
func (s *Service) Document() openapi.Document {
	d := openapi.Document{Title: s.cfg.Project.Name, Version: APIVersion, BasePath: "/v1", Security: map[string]json.RawMessage{}}
	for _, p := range s.policies {
		if x, ok := p.(plugins.Secured); ok {
			if definition := x.Security(); definition != "" {
				d.Security[p.Name()] = json.RawMessage(definition)
			}
		}
	}
	for _, e := range s.endpoints {
		for i := range e.routes {
			if r := &e.routes[i]; r.Doc != nil {
				d.Operations = append(d.Operations, describeRoute(r))
			}
		}
	}
	failure, err := json.Marshal(openapi.ErrorSchema())
	if err != nil {
		failure = []byte("{}") // not of a schema that is always the same
	}
	d.Operations = append(d.Operations, openapi.Operation{Method: http.MethodPost, Path: batchPath, ID: "batch", Tag: "Batch", Open: true,
		Consumes: []string{jsonType}, Parameters: []json.RawMessage{[]byte(batchBody)},
		Responses: json.RawMessage(`{"200":{"description":"Return a list of operation responses.","schema":` + batchAnswer + `},` +
			`"400":{"description":"The request was badly formatted.","schema":` + string(failure) + `},` +
			`"default":{"description":"an unknown error occurred.","schema":` + string(failure) + `}}`)},
		openapi.Operation{Method: http.MethodGet, Path: "/", ID: "server_info", Tag: openapi.Utilities, Open: true,
			Responses: openapi.AnyObject("Return information about the running Instance.")})
	for _, k := range s.table.kinds {
		d.Resources = append(d.Resources, s.table.describe(k))
	}
	return d
}

func describeRoute(r *plugins.Route) openapi.Operation {
	o := openapi.Operation{Method: r.Method, Path: r.Doc.Path, ID: r.Doc.ID, Tag: r.Doc.Tag, Open: r.Doc.Open, Consumes: r.Doc.Consumes,
		Responses: openapi.Refusals(json.RawMessage(r.Doc.Responses))}
	for _, p := range r.Doc.Parameters {
		o.Parameters = append(o.Parameters, json.RawMessage(p))
	}
	if o.Path == "" {
		var path strings.Builder
		for _, segment := range strings.Split(r.Path[1:], "/") {
			if name := strings.TrimLeft(segment, ":*"); name != segment {
				segment = "{" + name + "}"
			}
			path.WriteString("/" + segment)
		}
		o.Path = path.String()
	}
	if o.Tag == "" && r.Name != "" {
		o.Tag = strings.ToUpper(r.Name[:1]) + r.Name[1:]
	}
	if o.ID == "" {
		verb, renamed := map[string]string{http.MethodPost: "create", http.MethodPut: "update"}[r.Method]
		if !renamed {
			verb = strings.ToLower(r.Method)
		}
		o.ID = verb + "_" + r.Name
	}
	return o
}

// describe is a kind as a row of the document.
func (t *table) describe(k *Kind) openapi.Resource {
	r := openapi.Resource{Name: k.Name, Plural: k.Plural, Path: "/" + k.Plural, Permissions: k.Permissions, Properties: json.RawMessage(k.Doc.Properties),
		Required: k.Doc.Required, Closed: k.Doc.Closed, Label: k.Doc.Label, Param: k.Doc.Param,
		ListMethods: t.offered[offer{k, false}].names, ObjectMethods: t.offered[offer{k, true}].names}
	if k.Name == userDataKind {
		r.Permissions = []string{"read", "write"} // Kinto's document has them, though no answer does
	}
	for parent := k.Parent; parent != ""; {
		for _, p := range t.kinds {
			if p.Name == parent {
				r.Path = "/" + p.Plural + "/{" + p.Name + "_id}" + r.Path
				parent = p.Parent
				break
			}
		}
	}
	return r
}
