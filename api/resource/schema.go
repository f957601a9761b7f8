package resource

import (
	"slices"
	"strconv"

	"quinto/internal/canon"
)

// A collection's schema must be a JSON Schema of draft 7, even while records
// are not validated against it (Kinto 4.2). What is checked here is what the
// meta-schema says; the texts are those of Python's jsonschema, which Kinto
// shows: the last step of the path to the fault, then the complaint.

// checkSchema says what is wrong with a schema that is an object, or "".
func checkSchema(v canon.Value) string { return isSchema("", v) }

// schemaRule says what is wrong with the value that stands at the step at.
type schemaRule func(at string, v canon.Value) string

func keywordRule(keyword string) schemaRule {
	switch keyword {
	case "$id", "$schema", "$ref", "$comment", "title", "description", "pattern", "format", "contentMediaType", "contentEncoding":
		return isOf("string", canon.String)
	case "readOnly", "uniqueItems":
		return isOf("boolean", canon.Bool)
	case "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum":
		return isOf("number", canon.Number)
	case "examples", "enum":
		return isOf("array", canon.Array)
	case "multipleOf":
		return isPositive
	case "maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties":
		return isCount
	case "required":
		return isStrings
	case "type":
		return isType
	case "additionalItems", "contains", "additionalProperties", "propertyNames", "if", "then", "else", "not":
		return isSchema
	case "definitions", "properties", "patternProperties":
		return isMapOf(isSchema)
	case "allOf", "anyOf", "oneOf":
		return isSchemaList
	case "items":
		return either(isSchemaList)
	case "dependencies":
		return isMapOf(either(isStrings))
	}
	return nil
}

// isSchema prefers a plain complaint to one about "type", which only says that
// none of several forms fits: that is the order in which Kinto picks.
func isSchema(at string, v canon.Value) string {
	switch v.Kind() {
	case canon.Bool:
		return ""
	case canon.Object:
	default:
		return at + canon.Python(v) + " is not of type 'object', 'boolean'"
	}
	plain, form := "", ""
	v.Each(func(key string, val canon.Value) bool {
		rule := keywordRule(key)
		if rule == nil {
			return true
		}
		why := rule(key, val)
		if key == "type" {
			form = why
		} else {
			plain = why
		}
		return plain == ""
	})
	if plain != "" {
		return plain
	}
	return form
}

func isOf(name string, kind canon.Kind) schemaRule {
	return func(at string, v canon.Value) string {
		if v.Kind() == kind {
			return ""
		}
		return at + canon.Python(v) + " is not of type '" + name + "'"
	}
}

func isPositive(at string, v canon.Value) string {
	f, ok := v.Float()
	switch {
	case !ok:
		return at + canon.Python(v) + " is not of type 'number'"
	case f <= 0:
		return at + canon.Python(v) + " is less than or equal to the minimum of 0"
	}
	return ""
}

func isCount(at string, v canon.Value) string {
	f, ok := v.Float()
	switch {
	case !ok || f != float64(int64(f)):
		return at + canon.Python(v) + " is not of type 'integer'"
	case f < 0:
		return at + canon.Python(v) + " is less than the minimum of 0"
	}
	return ""
}

func isStrings(at string, v canon.Value) string {
	seen := map[string]bool{}
	return eachElement(at, v, func(index string, e canon.Value) string {
		switch {
		case e.Kind() != canon.String:
			return index + canon.Python(e) + " is not of type 'string'"
		case seen[string(e)]:
			return at + canon.Python(v) + " has non-unique elements"
		}
		seen[string(e)] = true
		return ""
	})
}

func isType(at string, v canon.Value) string {
	named := func(e canon.Value) bool {
		s, ok := e.String()
		return ok && slices.Contains([]string{"array", "boolean", "integer", "null", "number", "object", "string"}, s)
	}
	ok := named(v)
	if v.Kind() == canon.Array {
		ok = v.Len() > 0 && isStrings(at, v) == ""
		v.Elements(func(e canon.Value) bool { ok = ok && named(e); return ok })
	}
	if ok {
		return ""
	}
	return at + canon.Python(v) + " is not valid under any of the given schemas"
}

func isSchemaList(at string, v canon.Value) string {
	if v.Kind() == canon.Array && v.Len() == 0 {
		return at + "[] should be non-empty"
	}
	return eachElement(at, v, isSchema)
}

// either accepts a schema, or an array that passes the rule for lists.
func either(list schemaRule) schemaRule {
	return func(at string, v canon.Value) string {
		if v.Kind() == canon.Array {
			return list(at, v)
		}
		return isSchema(at, v)
	}
}

func eachElement(at string, v canon.Value, rule schemaRule) (why string) {
	if v.Kind() != canon.Array {
		return at + canon.Python(v) + " is not of type 'array'"
	}
	i := 0
	v.Elements(func(e canon.Value) bool {
		why = rule(strconv.Itoa(i), e)
		i++
		return why == ""
	})
	return why
}

func isMapOf(rule schemaRule) schemaRule {
	return func(at string, v canon.Value) (why string) {
		if v.Kind() != canon.Object {
			return at + canon.Python(v) + " is not of type 'object'"
		}
		v.Each(func(key string, val canon.Value) bool { why = rule(key, val); return why == "" })
		return why
	}
}
