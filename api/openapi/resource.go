package openapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// The texts of Kinto's resources (kinto.core.resource.schema and viewset).
const (
	textInvalid    = "The request is invalid."
	textNoAuth     = "The request is missing authentication headers."
	textForbidden  = "The user is not allowed to perform the operation, or the resource is not accessible."
	textNotFound   = "The object does not exist or was deleted."
	textDeleted    = "The object does not exist or was already deleted."
	textAccept     = "The client doesn't accept supported responses Content-Type."
	textChanged    = "Object was changed or deleted since value in `If-Match` header."
	textMedia      = "The client request was not sent with a correct Content-Type."
	textUnchanged  = "Response has not changed since value in If-None-Match header"
	textList       = "Return a list of matching objects."
	textTarget     = "Return the target object."
	textUnexpected = "Unexpected error."

	etagPattern = `^"([0-9]+?)"$|\*`
	// mostMillis is Kinto's upper bound of numbers in queries, 2^63.
	mostMillis uint64 = 1 << 63
)

const (
	mediaJSON  = "application/json"
	mediaMerge = "application/merge-patch+json"
	mediaPatch = "application/json-patch+json"
)

// ErrorSchema is the body of every error.
func ErrorSchema() map[string]any {
	titled := func(title, kind string) object { return object{"title": title, "type": kind} }
	return object{"title": "ErrorSchema", "type": "object", "required": []any{"code", "errno", "error"}, "properties": object{
		"code": titled("Code", "integer"), "errno": titled("Errno", "integer"), "error": titled("Error", "string"),
		"message": titled("Message", "string"), "info": titled("Info", "string"), "details": object{}}}
}

// Refusals returns a JSON object of responses by status in which those of 400 and
// above have the schema of every error, unless they say another. What is no such
// object comes back as it is.
func Refusals(responses json.RawMessage) json.RawMessage {
	var all map[string]object
	if json.Unmarshal(responses, &all) != nil {
		return responses
	}
	for status, r := range all {
		if status >= "400" && r["schema"] == nil {
			r["schema"] = ErrorSchema()
		}
	}
	out, err := json.Marshal(all)
	if err != nil {
		return responses
	}
	return out
}

func failed(text string) object { return object{"description": text, "schema": ErrorSchema()} }

// stamps are the headers of an answer with a timestamp.
func stamps() object {
	return object{"Etag": object{"type": "string", "pattern": etagPattern}, "Last-Modified": object{"type": "string"}}
}

func good(text string, schema object) object {
	return object{"description": text, "headers": stamps(), "schema": schema}
}

func number(name string) object {
	return object{"in": "query", "name": name, "required": false, "type": "integer", "minimum": 0, "maximum": mostMillis}
}

func words(name string) object {
	return object{"in": "query", "name": name, "required": false, "type": "array", "items": object{"type": "string"}}
}

func text(in, name string) object {
	return object{"in": in, "name": name, "required": false, "type": "string"}
}

func conditions() []any {
	var all []any
	for _, name := range []string{"If-Match", "If-None-Match"} {
		p := text("header", name)
		p["pattern"] = etagPattern
		all = append(all, p)
	}
	return all
}

func listQuery() []any {
	return []any{number("_limit"), words("_sort"), text("query", "_token"), number("_since"), number("_to"), number("_before"),
		text("query", "id"), number("last_modified")}
}

// data is the schema of an object's data: with what the kind says of it, or any.
func (r *Resource) data(typed bool) object {
	schema := object{"title": "Data", "type": "object"}
	if !r.Closed || !typed {
		schema["additionalProperties"] = object{}
	}
	if typed {
		if len(r.Properties) > 0 {
			schema["properties"] = r.Properties
		}
		if len(r.Required) > 0 {
			schema["required"] = r.Required
		}
	}
	return schema
}

// body is the schema of an object with its permissions.
func (r *Resource) body(typed bool) object {
	permissions := object{}
	for _, p := range r.Permissions {
		permissions[p] = object{"title": title(p), "type": "array", "items": object{"type": "string"}}
	}
	schema := object{"title": "ObjectSchema", "type": "object", "properties": object{
		"data": r.data(typed), "permissions": object{"title": "Permissions", "type": "object", "properties": permissions}}}
	if typed && len(r.Required) > 0 {
		schema["required"] = []any{"data"}
	}
	return schema
}

// list is the schema of a list.
func (r *Resource) list(typed bool) object {
	return object{"title": "Schema", "type": "object", "properties": object{
		"data": object{"type": "array", "default": []any{}, "items": r.data(typed)}}}
}

func bodyParameter(schema object) object {
	return object{"in": "body", "name": "ObjectSchema", "required": true, "schema": schema}
}

// title is a name as Kinto's framework makes titles of them: "Collection:Create".
func title(name string) string {
	out, upper := []byte(strings.ReplaceAll(name, "_", " ")), true
	for i, c := range out {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if letter && upper {
			out[i] &^= 0x20
		}
		upper = !letter
	}
	return string(out)
}

// responses are those that every operation of a resource may answer.
func responses(more object) object {
	all := object{"400": failed(textInvalid), "401": failed(textNoAuth), "403": failed(textForbidden), "406": failed(textAccept),
		"412": failed(textChanged), "default": failed(textUnexpected)}
	for status, r := range more {
		all[status] = r
	}
	return all
}

// each calls add with every operation of the resource.
func (r *Resource) each(security []any, add func(path, method, tag string, op object) error) error {
	if r.Label == "" {
		r.Label = r.Plural
	}
	if r.Param == "" {
		r.Param = "id"
	}
	tag := strings.ToUpper(r.Label[:1]) + r.Label[1:]
	for _, o := range r.operations() {
		methods, path := r.ListMethods, r.Path
		if o.object {
			methods, path = r.ObjectMethods, r.Path+"/{"+r.Param+"}"
		}
		if !slices.Contains(methods, o.method) {
			continue
		}
		op := object{"operationId": o.id, "produces": []any{mediaJSON}, "security": security, "parameters": o.parameters, "responses": responses(o.answers)}
		if o.consumes != nil {
			op["consumes"] = o.consumes
		}
		if err := add(path, o.method, tag, op); err != nil {
			return err
		}
	}
	return nil
}

// operation is one row of a resource.
type operation struct {
	object     bool
	method, id string
	consumes   []any
	parameters []any
	answers    object
}

func (r *Resource) operations() []operation {
	unchanged := object{"description": textUnchanged, "headers": stamps()}
	body, target := []any{bodyParameter(r.body(true))}, good(textTarget, r.body(true))
	behavior := text("header", "Response-Behavior")
	behavior["enum"] = []any{"full", "light", "diff"}
	return []operation{
		{false, http.MethodGet, "get_" + r.Label, nil, append(append(listQuery(), words("_fields")), conditions()...),
			object{"200": good(textList, r.list(true)), "304": unchanged}},
		{false, http.MethodPost, "create_" + r.Name, []any{mediaJSON}, append(body, conditions()...),
			object{"200": good("Return an existing object.", r.body(true)), "201": good("Return a created object.", r.body(true)), "415": failed(textMedia)}},
		{false, http.MethodDelete, "delete_" + r.Label, nil, append(listQuery(), conditions()...),
			object{"200": good(textList, r.list(false))}},
		{true, http.MethodGet, "get_" + r.Name, nil, append([]any{words("_fields")}, conditions()...),
			object{"200": target, "304": unchanged, "404": failed(textNotFound)}},
		{true, http.MethodPut, "update_" + r.Name, []any{mediaJSON}, append(slices.Clone(body), conditions()...),
			object{"200": target, "201": good("Return created object.", r.body(true)), "415": failed(textMedia)}},
		{true, http.MethodPatch, "patch_" + r.Name, []any{mediaJSON, mediaMerge}, append(conditions(), behavior, bodyParameter(r.body(false))),
			object{"200": good(textTarget, r.body(false)), "404": failed(textNotFound), "415": failed(textMedia)}},
		{true, http.MethodDelete, "delete_" + r.Name, nil, conditions(),
			object{"200": good(textTarget, r.body(false)), "404": failed(textDeleted)}},
	}
}
