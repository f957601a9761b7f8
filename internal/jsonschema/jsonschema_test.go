package jsonschema

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"quinto/internal/canon"
)

func value(t testing.TB, text string) canon.Value {
	t.Helper()
	v, err := canon.Canonical([]byte(text), canon.Limits{Members: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// hostile are schemas and objects that would cost a validator without bounds its
// memory, its stack or its day.
func hostile() map[string][2]string {
	doubling := `{"$defs":{`
	for i := range 64 {
		doubling += fmt.Sprintf(`"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
	}
	doubling += `"d64":{}},"properties":{"a":{"$ref":"#/$defs/d0"}}}`
	numbers := strings.TrimSuffix(strings.Repeat("1,", 100_000), ",")
	deep := strings.Repeat(`{"a":`, 90) + "1" + strings.Repeat("}", 90)
	patterns := ""
	for i := range 200 {
		patterns += fmt.Sprintf(`"p%d":{"pattern":"(((a{10}){10}){10})%d"},`, i, i)
	}
	return map[string][2]string{
		"doubling references":  {doubling, `{"a":1}`},
		"a circle":             {`{"$ref":"#"}`, `{}`},
		"a circle of two":      {`{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"properties":{"a":{"$ref":"#/$defs/a"}}}`, `{"a":1}`},
		"a circle unevaluated": {`{"$defs":{"a":{"$ref":"#/$defs/a"}},"properties":{"a":{"$ref":"#/$defs/a","unevaluatedProperties":false}}}`, `{"a":{"b":1}}`},
		"doubling with depth":  {`{"allOf":[{"properties":{"a":{"$ref":"#"}}},{"properties":{"a":{"$ref":"#"}}}]}`, deep},
		"enum times items":     {`{"properties":{"a":{"items":{"enum":[` + strings.ReplaceAll(numbers, "1", `"x"`) + `,"y"]}}}}`, `{"a":[` + strings.ReplaceAll(numbers[:9999], "1", `"y"`) + `]}`},
		"exploding pattern":    {`{"properties":{"a":{"pattern":"^(([a-z])+.){100}[A-Z]([a-z])+$"}}}`, `{"a":"` + strings.Repeat("a", 500_000) + `"}`},
		"large pattern":        {`{"properties":{"a":{"pattern":"((a{0,30}){0,30})$"}}}`, `{"a":"` + strings.Repeat("a", 500_000) + `b"}`},
		"many patterns":        {`{"properties":{` + patterns + `"a":{}}}`, `{"p199":"b"}`},
		"beyond RE2":           {`{"properties":{"a":{"pattern":"^(?=a)"}}}`, `{"a":"b"}`},
		"draft 3":              {`{"$schema":"http://json-schema.org/draft-03/schema#"}`, `{}`},
		"too many values":      {`{"enum":[` + numbers + "," + numbers + `,1]}`, `{}`},
		"no schema there":      {`{"x":3,"properties":{"a":{"$ref":"#/x"}}}`, `{"a":1}`},
		"remote":               {`{"properties":{"a":{"$ref":"http://127.0.0.1:1/x.json"}}}`, `{"a":1}`},
		"file":                 {`{"properties":{"a":{"$ref":"file:///etc/passwd"}}}`, `{"a":1}`},
	}
}

// TestHostile: a hostile schema comes to an end, and is answered with a reason, not
// with a verdict.
func TestHostile(t *testing.T) {
	for name, c := range hostile() {
		t.Run(name, func(t *testing.T) {
			schema, data := value(t, c[0]), value(t, c[1])
			start := time.Now()
			_, _ = CheckDefinition(schema, true)
			s, err := Compile(schema)
			if err == nil {
				_, err = s.Validate(data)
			}
			if err == nil || len(err.Error()) > MaxMessageBytes+8 {
				t.Errorf("error %v", err)
			}
			t.Log(time.Since(start), err)
		})
	}
}

// TestLarge: large is not hostile.
func TestLarge(t *testing.T) {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, "%d,", i)
	}
	s, err := Compile(value(t, `{"properties":{"a":{"items":{"enum":[`+b.String()+`"x"]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := s.Validate(value(t, `{"a":["x",7,99999]}`)); f != nil || err != nil {
		t.Error(f, err)
	}
	f, err := s.Validate(value(t, `{"a":["y"]}`))
	if err != nil || f == nil || len(f.Message) > MaxMessageBytes+8 {
		t.Error(f, err)
	}
}

// TestUsable: what RE2 lacks is at fault where it is asked for.
func TestUsable(t *testing.T) {
	for pattern, want := range map[string][2]string{
		`^a+$`:        {"", ""},
		`^(?=a)b`:     {"", "pattern'^(?=a)b' is not a 'regex' that RE2 knows"},
		`(a)\\1`:      {"", `pattern'(a)\\1' is not a 'regex' that RE2 knows`},
		`a{1,5000}`:   {"", "pattern'a{1,5000}' is not a 'regex' that RE2 knows"},
		`[`:           {"pattern'[' is not a 'regex'", "pattern'[' is not a 'regex'"},
		`a\\Z`:        {"", ""},
		`^\\u4e00$`:   {"", ""},
		`\\\\u\\\\Zx`: {"", ""},
	} {
		for i, usable := range []bool{false, true} {
			got, err := CheckDefinition(value(t, `{"pattern":"`+pattern+`"}`), usable)
			if err != nil || got != want[i] {
				t.Errorf("%s, usable %v: %q %v, want %q", pattern, usable, got, err, want[i])
			}
		}
	}
}

// TestLinear: a pattern that makes others go back and forth for ever is a matter
// of milliseconds.
func TestLinear(t *testing.T) {
	s, err := Compile(value(t, `{"properties":{"a":{"pattern":"^(([a-z])+.)+[A-Z]([a-z])+$"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := s.Validate(value(t, `{"a":"`+strings.Repeat("a", 500_000)+`"}`)); f == nil || err != nil {
		t.Error(f, err)
	}
}

func FuzzValidate(f *testing.F) {
	for _, c := range hostile() {
		if len(c[0])+len(c[1]) < 10_000 {
			f.Add(c[0], c[1])
		}
	}
	f.Add(`{"$dynamicRef":"#a","$defs":{"x":{"$dynamicAnchor":"a","items":[1]}}}`, `{"a":[1]}`)
	f.Fuzz(func(t *testing.T, schema, data string) {
		limits := canon.Limits{Depth: 64, Members: 10_000}
		s, err := canon.Canonical([]byte(schema), limits)
		if err != nil || canon.Value(s).Kind() != canon.Object {
			return
		}
		d, err := canon.Canonical([]byte(data), limits)
		if err != nil {
			return
		}
		_, _ = CheckDefinition(s, true)
		if c, err := Compile(s); err == nil {
			if fault, err := c.Validate(d); err == nil && fault != nil && fault.Field.Kind() == canon.Missing {
				t.Error("a fault without a field")
			}
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	s, err := Compile(value(b, `{"type":"object","properties":{"title":{"type":"string","maxLength":100},"done":{"type":"boolean"},
		"tags":{"type":"array","items":{"type":"string","pattern":"^[a-z]+$"}},"n":{"type":"integer","minimum":0}},"required":["title"]}`))
	if err != nil {
		b.Fatal(err)
	}
	v := value(b, `{"title":"Buy milk","done":false,"tags":["home","shop"],"n":3}`)
	for b.Loop() {
		if f, err := s.Validate(v); f != nil || err != nil {
			b.Fatal(f, err)
		}
	}
}
