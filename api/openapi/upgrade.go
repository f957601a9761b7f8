package openapi

import "strings"

// upgrade makes OpenAPI 3.1 of a Swagger 2.0 document, in place, and says what that
// one has no words for: JSON patches, and that an answer may lack what a request
// must have.
func upgrade(doc object) object {
	scheme := doc["schemes"].([]any)[0].(string)
	schemes := object{}
	for name, definition := range doc["securityDefinitions"].(object) {
		schemes[name] = securityScheme(definition.(object))
	}
	paths := doc["paths"].(object)
	for _, item := range paths {
		for method, entry := range item.(object) {
			if method == "parameters" {
				upgradeParameters(entry.([]any))
			} else {
				upgradeOperation(entry.(object))
			}
		}
	}
	return object{
		"openapi": "3.1.0", "info": doc["info"], "tags": doc["tags"], "paths": paths,
		"servers":    []any{object{"url": scheme + "://" + doc["host"].(string) + doc["basePath"].(string)}},
		"components": object{"securitySchemes": schemes, "schemas": object{"Error": ErrorSchema()}},
	}
}

func securityScheme(definition object) object {
	switch definition["type"] {
	case "basic":
		return object{"type": "http", "scheme": "basic"}
	case "oauth2": // Kinto's gives no flow: what the client sends is a token
		return object{"type": "http", "scheme": "bearer"}
	}
	return definition
}

func upgradeOperation(op object) {
	consumes, _ := op["consumes"].([]any)
	delete(op, "consumes")
	delete(op, "produces")
	var kept []any
	parameters, _ := op["parameters"].([]any)
	for _, p := range parameters {
		parameter := p.(object)
		if parameter["in"] != "body" {
			kept = append(kept, parameter)
			continue
		}
		content := object{}
		for _, media := range consumes {
			content[media.(string)] = object{"schema": parameter["schema"]}
		}
		if content[mediaMerge] != nil {
			content[mediaPatch] = object{"schema": jsonPatch()}
		}
		op["requestBody"] = object{"required": parameter["required"], "content": content}
	}
	delete(op, "parameters")
	if kept != nil {
		upgradeParameters(kept)
		op["parameters"] = kept
	}
	responses := op["responses"].(object)
	for status, r := range responses {
		upgradeResponse(r.(object), strings.HasPrefix(status, "2"))
	}
	if responses["default"] == nil { // limits, a missing leader, a client that sends no HTTP
		responses["default"] = failedWith(textUnexpected)
	}
}

// upgradeParameters moves the type into a schema of its own.
func upgradeParameters(parameters []any) {
	for _, p := range parameters {
		parameter, schema := p.(object), object{}
		for key, value := range parameter {
			switch key {
			case "in", "name", "required", "description", "schema":
			default:
				schema[key] = value
				delete(parameter, key)
			}
		}
		if parameter["schema"] == nil {
			parameter["schema"] = schema
		}
		if schema["type"] == "array" { // "a,b"
			parameter["style"], parameter["explode"] = "form", false
		}
	}
}

func upgradeResponse(r object, answer bool) {
	if headers, ok := r["headers"].(object); ok {
		for name, h := range headers {
			headers[name] = object{"schema": h}
		}
	}
	schema, ok := r["schema"].(object)
	delete(r, "schema")
	if !ok {
		return
	}
	if schema["title"] == "ErrorSchema" {
		schema = object{"$ref": "#/components/schemas/Error"}
	} else if answer {
		loosen(schema)
	}
	r["content"] = object{mediaJSON: object{"schema": schema}}
}

func failedWith(text string) object {
	return object{"description": text, "content": object{mediaJSON: object{"schema": object{"$ref": "#/components/schemas/Error"}}}}
}

// loosen takes out of a schema what only holds of requests: _fields leaves members
// out, a tombstone has none, and secrets are never shown.
func loosen(schema any) {
	switch s := schema.(type) {
	case object:
		if s["title"] == "Data" || s["title"] == "ObjectSchema" {
			delete(s, "required")
		}
		for _, child := range s {
			loosen(child)
		}
	case []any:
		for _, child := range s {
			loosen(child)
		}
	}
}

// jsonPatch is the schema of RFC 6902.
func jsonPatch() object {
	return object{"type": "array", "items": object{"type": "object", "required": []any{"op", "path"}, "properties": object{
		"op": object{"enum": []any{"add", "remove", "replace", "move", "copy", "test"}}, "path": object{"type": "string"},
		"from": object{"type": "string"}, "value": object{}}}}
}
