package resource

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"sync"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/internal/jsonschema"
)

// Validation by JSON Schema (Kinto 4.9): records by their collection's "schema"
// and by their bucket's "record:schema", collections and groups by their bucket's.

// schemaField is where a collection keeps its schema, and a record the time of the
// one by which it was checked.
const schemaField = "schema"

// checkSchemaField says what is wrong with a schema at its definition, which
// Kinto checks even while it validates nothing by it.
func checkSchemaField(data canon.Value, name string) []Flaw {
	return checkDefinition(data, name, false)
}

func checkDefinition(data canon.Value, name string, usable bool) []Flaw {
	v, ok := data.Get(name)
	if !ok {
		return nil
	}
	if v.Kind() != canon.Object {
		return []Flaw{{Name: name, Description: mapping(v)}}
	}
	why, err := jsonschema.CheckDefinition(v, usable)
	if err != nil {
		why = err.Error()
	}
	if why != "" {
		return []Flaw{{Name: name, Description: why}}
	}
	return nil
}

// maxSchemaValues bounds the values of all compiled schemas that are kept, each
// some 150 bytes.
const maxSchemaValues = 400_000

// schemaCache keeps compiled schemas, one for each place that can hold one. What is
// kept counts only while the place holds the same text, so that it is always the
// schema of the revision that is read, be it only in the batch.
type schemaCache struct {
	backtrack bool // match what RE2 leaves out, see jsonschema.Schema.Backtrack

	mu   sync.Mutex
	size int
	kept map[schemaPlace]*compiledSchema
}

type schemaPlace struct {
	path  fsm.Path
	field string
}

// compiledSchema is what came of compiling text; err is *jsonschema.Unusable.
type compiledSchema struct {
	text   canon.Value
	schema *jsonschema.Schema
	size   int
	err    error
}

// get gives the compiled schema of a place that holds text.
func (s *schemaCache) get(at schemaPlace, text canon.Value, ignored []string) (*jsonschema.Schema, error) {
	s.mu.Lock()
	c := s.kept[at]
	s.mu.Unlock()
	if c == nil || !bytes.Equal(c.text, text) {
		c = &compiledSchema{text: bytes.Clone(text), size: 1 + len(text)/64}
		if c.schema, c.err = jsonschema.Compile(withoutRequired(text, ignored)); c.err == nil {
			if s.backtrack {
				c.schema.Backtrack()
			}
			c.size += c.schema.Size()
		}
		s.keep(at, c)
	}
	return c.schema, c.err
}

func (s *schemaCache) keep(at schemaPlace, c *compiledSchema) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[schemaPlace]*compiledSchema{}
	}
	if old := s.kept[at]; old != nil {
		s.size -= old.size
	}
	s.kept[at] = c
	s.size += c.size
	for other, old := range s.kept { // any: the order of a map is as good as another
		if s.size <= maxSchemaValues {
			return
		}
		s.size -= old.size
		delete(s.kept, other)
	}
}

// withoutRequired is the schema as Kinto uses it: without what it demands of
// members that are not shown to it.
func withoutRequired(schema canon.Value, ignored []string) canon.Value {
	required, ok := schema.Get("required")
	if !ok {
		return schema
	}
	left := []byte{'['}
	required.Elements(func(e canon.Value) bool {
		name, _ := e.String()
		for _, i := range ignored {
			if e.Kind() == canon.String && name == i {
				return true
			}
		}
		if len(left) > 1 {
			left = append(left, ',')
		}
		left = append(left, e...)
		return true
	})
	if len(left) == 1 {
		return canon.Delete(schema, "required")
	}
	return canon.Set(schema, "required", append(left, ']'))
}

// validateSchemas checks data of a write by the schemas that stand above it and
// gives the data to store: a record carries the time of its collection's schema.
func (c *call) validateSchemas(pl *payload, data canon.Value) (canon.Value, error) {
	switch c.route.kind.Name {
	case "record":
		collection, err := c.at(len(c.links) - 2)
		if err != nil {
			return nil, err
		}
		if _, ok := canon.Value(collection.Data).Get(schemaField); ok {
			if err := c.validateBy(collection, schemaField, pl, data); err != nil {
				return nil, err
			}
			data = canon.Set(data, schemaField, strconv.AppendInt(nil, int64(collection.LastModified), 10))
		}
		return data, c.validateByBucket(pl, data)
	case "collection", "group":
		if err := c.validateByBucket(pl, data); err != nil {
			return nil, err
		}
		return data, c.checkUsable(data, schemaField)
	case "bucket":
		return data, c.checkUsable(data, bucketSchemas...)
	}
	return data, nil
}

var bucketSchemas = []string{"collection:schema", "group:schema", "record:schema"}

// checkUsable refuses, while schemas are used, new ones with patterns that RE2
// does not know.
func (c *call) checkUsable(data canon.Value, names ...string) error {
	for _, name := range names {
		v, ok := data.Get(name)
		if was, _ := canon.Value(c.current.Data).Get(name); !ok || bytes.Equal(v, was) {
			continue
		}
		if flaws := checkDefinition(data, name, !c.s.cfg.SchemaBacktracking); len(flaws) > 0 {
			return invalid(problem{location: "body", name: name, description: flaws[0].Description})
		}
	}
	return nil
}

func (c *call) validateByBucket(pl *payload, data canon.Value) error {
	bucket, err := c.at(0)
	if err != nil {
		return err
	}
	if !bucket.Exists() {
		return errNoParent(c.links[0].kind.Name, c.links[0].id)
	}
	return c.validateBy(bucket, c.route.kind.Name+":schema", pl, data)
}

// validateBy checks data by the schema in a field of holder, if there is one.
func (c *call) validateBy(holder *fsm.Object, field string, pl *payload, data canon.Value) error {
	text, ok := canon.Value(holder.Data).Get(field)
	if !ok || text.Kind() != canon.Object {
		return nil
	}
	// Kinto shows the schema neither what it keeps itself nor, unless it asks for
	// it, the id.
	ignored := []string{"last_modified", "__permissions__"}
	if c.route.kind.Name == "record" {
		ignored = append(ignored, schemaField)
	}
	properties, _ := text.Get("properties")
	if _, ok := properties.Get("id"); !ok {
		ignored = append(ignored, "id")
	} else if c.r.Method != http.MethodPost || pl.id != nil {
		data = canon.Set(data, "id", canon.AppendString(nil, c.links[len(c.links)-1].id))
	}
	schema, err := c.s.schemas.get(schemaPlace{holder.Path, field}, text, ignored)
	if err == nil {
		for _, name := range ignored {
			data = canon.Delete(data, name)
		}
		var fault *jsonschema.Fault
		if fault, err = schema.Validate(data); err == nil && fault != nil {
			return invalid(faultProblem(fault))
		}
	}
	var unusable *jsonschema.Unusable
	var lost *jsonschema.Unresolvable
	if errors.As(err, &unusable) || errors.As(err, &lost) {
		return invalid(problem{location: "body", name: schemaField, description: err.Error()})
	}
	return err
}

func faultProblem(f *jsonschema.Fault) problem {
	p := problem{location: "body", name: pythonString(f.Field), description: f.Message}
	if f.Field.Kind() != canon.String {
		p.value = f.Field
	}
	return p
}
