package resource

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/internal/jsonschema"
)

// TestSchemaCacheBound: Kinto keeps every schema that it ever saw for ever.
func TestSchemaCacheBound(t *testing.T) {
	var cache schemaCache
	for i := range 3000 {
		text := canon.Value(fmt.Sprintf(`{"properties":{"a%d":{"enum":[%s1]}}}`, i, strings.Repeat("1,", 300)))
		at := schemaPlace{fsm.Path(fmt.Sprintf("/buckets/b/collections/c%d", i)), "schema"}
		for range 2 {
			if _, err := cache.get(at, text, nil); err != nil {
				t.Fatal(err)
			}
		}
		if cache.size > maxSchemaValues {
			t.Fatalf("%d values of %d schemas", cache.size, len(cache.kept))
		}
	}
	if len(cache.kept) < 100 {
		t.Errorf("%d schemas are kept", len(cache.kept))
	}
	size := 0
	for _, c := range cache.kept {
		size += c.size
	}
	if size != cache.size {
		t.Errorf("counted %d, kept %d", cache.size, size)
	}
}

// TestSchemaCacheIsNeverStale: a place that holds another text has another schema.
func TestSchemaCacheIsNeverStale(t *testing.T) {
	var cache schemaCache
	at := schemaPlace{"/buckets/b/collections/c", "schema"}
	for _, want := range []string{"a", "b", "a"} {
		s, err := cache.get(at, canon.Value(`{"required":["`+want+`"]}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.Validate(canon.Value(`{}`))
		if err != nil || f == nil || string(f.Field) != `"`+want+`"` {
			t.Error(f, err)
		}
	}
	var unusable *jsonschema.Unusable
	if _, err := cache.get(at, canon.Value(`{"$schema":"http://json-schema.org/draft-03/schema#"}`), nil); !errors.As(err, &unusable) {
		t.Error(err)
	}
}

func TestWithoutRequired(t *testing.T) {
	for schema, want := range map[string]string{
		`{"required":["a"],"x":1}`:           `{"required":["a"],"x":1}`,
		`{"required":["id","a","id"],"x":1}`: `{"required":["a"],"x":1}`,
		`{"required":["id"],"x":1}`:          `{"x":1}`,
		`{"required":[],"x":1}`:              `{"x":1}`,
		`{"x":1}`:                            `{"x":1}`,
	} {
		if got := withoutRequired(canon.Value(schema), []string{"id"}); string(got) != want {
			t.Errorf("%s: %s, want %s", schema, got, want)
		}
	}
}

// TestSchemaStampUnderContention: a batch that makes a collection with a schema and
// a record in it stamps the record with the time that the collection gets, though
// its list moves between plan and proposal.
func TestSchemaStampUnderContention(t *testing.T) {
	flags := map[string]string{"experimental_collection_schema_validation": "true"}
	c, n := newClient(t, flags)
	c.want(201, "", "alice", "PUT /buckets/x", "")
	other := newService(t, n, flags)
	busy, moved := false, 0
	n.beforePropose = func() {
		if busy {
			return
		}
		busy = true
		defer func() { busy = false }()
		moved++
		r := other.Do(context.Background(), request("alice", fmt.Sprintf("PUT /buckets/x/collections/other%d", moved), `{}`))
		if r.Status != 201 {
			t.Errorf("other: %d %s", r.Status, r.Body)
		}
	}
	c.want(200, `"status":201`, "alice", "POST /batch", `{"requests":[
		{"method":"PUT","path":"/buckets/x/collections/c","body":{"data":{"schema":{"required":["n"]}}}},
		{"method":"PUT","path":"/buckets/x/collections/c/records/r","body":{"data":{"n":1}}},
		{"method":"PUT","path":"/buckets/x/collections/c/records/bad","body":{"data":{}}}]}`)
	n.beforePropose = nil
	if moved == 0 {
		t.Error("the list did not move")
	}
	collection := canon.Value(c.want(200, "", "alice", "GET /buckets/x/collections/c", "").Body)
	record := canon.Value(c.want(200, "", "alice", "GET /buckets/x/collections/c/records/r", "").Body)
	c.want(404, "", "alice", "GET /buckets/x/collections/c/records/bad", "")
	want, _ := collection.GetPath("data", "last_modified")
	if got, _ := record.GetPath("data", "schema"); string(got) != string(want) || len(got) == 0 {
		t.Errorf("stamp %s, collection %s", got, want)
	}
}
