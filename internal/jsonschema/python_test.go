package jsonschema

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quinto/internal/canon"
)

// pythonCase is a schema and an object with what Kinto's Python answers, as
// testdata/python.py wrote it.
type pythonCase struct {
	Schema, Data json.RawMessage
	Definition   *string         // check_schema of draft 7; null: fine
	Outcome      string          // "valid", "invalid", "unresolvable", "refused" (the schema), "crash"
	Field        json.RawMessage // null where Kinto's own code crashes
	Message      string
}

// TestPython asks every case that Python was asked. A crash there (a 500 of Kinto)
// has to be some answer here.
func TestPython(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []pythonCase
		if err := json.Unmarshal(text, &cases); err != nil {
			t.Fatal(file, err)
		}
		for i := range cases {
			cases[i].check(t)
		}
		t.Logf("%s: %d cases", file, len(cases))
	}
}

func (c *pythonCase) check(t *testing.T) {
	t.Helper()
	schema, err := canon.Canonical(c.Schema, canon.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := canon.Canonical(c.Data, canon.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	definition, err := CheckDefinition(schema, false)
	if want := c.Definition; err != nil || want == nil && definition != "" || want != nil && definition != shorten(*want) {
		t.Errorf("definition of %s: %q %v, Python says %v", schema, definition, err, show(want))
	}
	outcome, field, message := judge(schema, data)
	switch {
	case c.Outcome == "crash":
	case outcome != c.Outcome, c.Message != "" && message != shorten(c.Message), string(c.Field) != "null" && string(c.Field) != "" && !canon.Equal(field, compact(c.Field)):
		t.Errorf("%s\n of %s\n is  %s %s %q,\n was %s %s %q", data, schema, outcome, field, message, c.Outcome, c.Field, c.Message)
	}
}

func judge(schema, data canon.Value) (outcome string, field canon.Value, message string) {
	s, err := Compile(schema)
	if err != nil {
		return "refused", nil, ""
	}
	f, err := s.Validate(data)
	var lost *Unresolvable
	switch {
	case errors.As(err, &lost):
		return "unresolvable", nil, err.Error()
	case err != nil:
		return "unusable: " + err.Error(), nil, ""
	case f == nil:
		return "valid", nil, ""
	}
	return "invalid", f.Field, f.Message
}

func compact(v json.RawMessage) canon.Value {
	c, _ := canon.Canonical(v, canon.Limits{})
	return c
}

func show(s *string) string {
	if s == nil {
		return "nothing"
	}
	return strings.Clone(*s)
}
