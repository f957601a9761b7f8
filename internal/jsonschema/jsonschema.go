// Package jsonschema validates JSON against JSON Schemas of the drafts 4, 6, 7,
// 2019-09 and 2020-12 as Python's jsonschema does, which Kinto uses: the same
// fault of several is named, in the same words. What Python leaves open is
// bounded here: no reference is ever fetched, patterns are RE2, and a validation
// takes a bounded number of steps. docs/adr says why it is not a library.
package jsonschema

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"quinto/internal/canon"
)

// Bounds of one schema and of one validation.
const (
	// MaxValues bounds the values of a schema, and of what it is asked about.
	MaxValues = 200_000
	// MaxDepth bounds how deep schemas apply inside each other, references included.
	MaxDepth = 1500
	// MaxSteps bounds the work of a validation, in units of some 100 ns.
	MaxSteps = 1_000_000
	// stepsPerValue is what the size of schema or instance adds to MaxSteps.
	stepsPerValue = 100
	// MaxPatternSize bounds the patterns of a schema together, in RE2 instructions.
	MaxPatternSize = 50_000
	// MaxMessageBytes bounds what a message shows.
	MaxMessageBytes = 8 << 10
)

// Unresolvable is the error of a reference that leads nowhere in the schema. Its
// text is that of Python's referencing.
type Unresolvable struct{ text string }

// Error implements error.
func (u *Unresolvable) Error() string { return shorten(u.text) }

// Unusable is the error of a schema with which nothing can be validated: it is
// none by the rules of its draft, needs what RE2 lacks, or exceeds a bound.
type Unusable struct{ text string }

// Error implements error.
func (u *Unusable) Error() string { return shorten(u.text) }

// Fault is why a value is not valid: the first fault that Python finds.
type Fault struct {
	// Field is what Kinto names: the last step to the value at fault, else the last
	// of what the keyword demands, else the keyword. A JSON value.
	Field canon.Value
	// Message is Python's.
	Message string
}

// Schema is a schema ready to validate. It is safe for concurrent use.
type Schema struct {
	root     *node
	size     int
	at       place
	registry *registry
	patterns map[string]*pattern
}

// Size is how many values the schema has: a measure of its memory.
func (s *Schema) Size() int { return s.size }

// CheckDefinition says what is wrong with a schema by the meta-schema of draft 7,
// or "": the last step to the value at fault and Python's message, as Kinto's 400
// does. With usable, a pattern that RE2 does not know is at fault too. v must be an
// object. The error is *Unusable.
func CheckDefinition(v canon.Value, usable bool) (string, error) {
	root, size, err := tree(v)
	if err != nil {
		return "", &Unusable{"The schema has " + err.Error()}
	}
	f, err := checkAgainst(draft07, root, size, usable)
	if f == nil || err != nil {
		return "", err
	}
	at := f.step
	text := at.name
	if at.index {
		text = strconv.Itoa(at.n)
	}
	return shorten(text + f.message), nil
}

// checkAgainst validates a schema by the meta-schema of a draft.
func checkAgainst(d *draft, root *node, size int, usable bool) (*fault, error) {
	metas, err := metaSchemas()
	if err != nil {
		return nil, err
	}
	r := &run{registry: metas, steps: MaxSteps + size*stepsPerValue, formats: true, usable: usable}
	f := r.descend(root, metas.resource(d.uri), place{base: d.uri, draft: d}, step{}, step{})
	if r.stop != nil {
		return nil, r.stop
	}
	return f, nil
}

// Compile prepares a schema, of the draft that $schema names, else of 2020-12 as
// Python's jsonschema takes it. The error is *Unusable.
func Compile(v canon.Value) (*Schema, error) {
	root, size, err := tree(v)
	if err != nil {
		return nil, &Unusable{"The schema has " + err.Error()}
	}
	if name := root.get("$schema"); name.is(canon.String) && strings.TrimSuffix(name.text, "#") == draft03 {
		return nil, &Unusable{"JSON Schema draft 3 is not supported"}
	}
	d := draftOf(root, draft2020)
	f, err := checkAgainst(d, root, size, false)
	if err != nil {
		return nil, err
	}
	if f != nil {
		return nil, &Unusable{"The schema is not valid by " + d.uri + ": " + f.message}
	}
	metas, err := metaSchemas()
	if err != nil {
		return nil, err
	}
	s := &Schema{root: root, size: size, registry: newRegistry(metas), patterns: map[string]*pattern{}}
	s.at = place{base: s.registry.add(root, d), draft: d}
	left := MaxPatternSize
	s.collect(root, &left)
	return s, nil
}

// Validate says why v is not valid; nil when it is. The error is *Unresolvable or
// *Unusable: nothing is known of v then.
func (s *Schema) Validate(v canon.Value) (*Fault, error) {
	instance, size, err := tree(v)
	if err != nil {
		return nil, &Unusable{"The object has " + err.Error()}
	}
	r := &run{registry: s.registry, patterns: s.patterns, steps: MaxSteps + size*stepsPerValue}
	f := r.apply(instance, s.root, s.at, step{}, step{})
	if r.stop != nil {
		return nil, r.stop
	}
	if f == nil {
		return nil, nil
	}
	return &Fault{Field: f.field(), Message: shorten(f.message)}, nil
}

func shorten(s string) string {
	if len(s) <= MaxMessageBytes {
		return s
	}
	return strings.ToValidUTF8(s[:MaxMessageBytes], "") + "…"
}

// run is one validation.
type run struct {
	registry *registry
	patterns map[string]*pattern // of the schema; nil: made on the way
	steps    int                 // that are left
	depth    int
	quiet    int   // above 0 only whether there is a fault counts, not which
	formats  bool  // "regex" is checked: the meta-schemas' own rule
	usable   bool  // with formats: RE2 must know the pattern
	stop     error // ends the run without a verdict
}

// spend takes n steps, or stops the run.
func (r *run) spend(n int) bool {
	if r.steps -= n; r.steps < 0 && r.stop == nil {
		r.stop = &Unusable{fmt.Sprintf("The validation takes more than %d steps", MaxSteps)}
	}
	return r.stop == nil
}

// halt stops the run for err, which must be *Unresolvable or *Unusable.
func (r *run) halt(err error) *fault {
	if r.stop == nil {
		r.stop = err
	}
	return nil
}

// fail makes a fault, with a text only if it may be shown.
func (r *run) fail(message func() string) *fault {
	if r.quiet > 0 {
		return &fault{}
	}
	return &fault{message: message()}
}

// fails is fail for a value and what it does.
func (r *run) fails(v *node, does string) *fault {
	return r.fail(func() string { return v.repr() + " " + does })
}

// step is one step of a path: a member or an index. The zero step is none.
type step struct {
	set, index bool
	name       string
	n          int
}

func member(name string) step { return step{set: true, name: name} }
func element(n int) step      { return step{set: true, index: true, n: n} }

func (s step) value() canon.Value {
	if s.index {
		return strconv.AppendInt(nil, int64(s.n), 10)
	}
	return canon.AppendString(nil, s.name)
}

// fault is a Fault on its way up.
type fault struct {
	message string
	known   bool  // keyword and demand are
	demand  *node // of the keyword; nil for a schema that is false
	step    step  // deepest step into the instance
	rule    step  // deepest step into the schema
}

// field is the name that Kinto gives a fault (validate_schema). Where it would
// take the last of a number or of an object and fail with a 500, the keyword.
func (f *fault) field() canon.Value {
	if f.step.set {
		return f.step.value()
	}
	if f.demand.truthy() {
		switch f.demand.kind {
		case canon.String:
			letters := []rune(f.demand.text)
			return canon.AppendString(nil, string(letters[len(letters)-1]))
		case canon.Array:
			return f.demand.elems[len(f.demand.elems)-1].val
		}
	}
	if f.rule.set {
		return f.rule.value()
	}
	return canon.Value(`"schema"`)
}

// valid reports whether instance is valid, without a word.
func (r *run) valid(instance, schema *node, at place) bool {
	r.quiet++
	f := r.descend(instance, schema, at, step{}, step{})
	r.quiet--
	return f == nil
}

// descend applies a schema that stands inside the one at place at.
func (r *run) descend(instance, schema *node, at place, to, rule step) *fault {
	if schema.is(canon.Object) {
		at = at.into(schema)
	}
	return r.apply(instance, schema, at, to, rule)
}

// errNoSchema is about a reference to something that is no schema.
var errNoSchema = errors.New("a reference leads to a value that is no schema")

// apply applies schema, at its place, to instance; to and rule are the steps that
// led to both.
func (r *run) apply(instance, schema *node, at place, to, rule step) *fault {
	switch {
	case schema.isTrue(), !r.spend(1):
		return nil
	case schema.isFalse():
		f := r.fail(func() string { return "False schema does not allow " + instance.repr() })
		f.known = true
		return f
	case !schema.is(canon.Object):
		return r.halt(&Unusable{errNoSchema.Error()})
	case r.depth >= MaxDepth:
		return r.halt(&Unusable{fmt.Sprintf("Schemas apply inside each other to a depth of more than %d", MaxDepth)})
	}
	r.depth++
	defer func() { r.depth-- }()
	keys := schema.keys
	if ref := schema.get("$ref"); ref != nil && at.draft.legacy && ref.kind != canon.Null {
		keys = []string{"$ref"}
	}
	for _, key := range keys {
		apply := at.draft.keywords[key]
		if apply == nil {
			continue
		}
		demand := schema.members[key]
		f := apply(r, demand, instance, schema, at)
		if r.stop != nil {
			return nil
		}
		if f == nil {
			continue
		}
		if !f.known {
			f.known, f.demand = true, demand
		}
		if key != "if" && key != "$ref" && !f.rule.set {
			f.rule = member(key)
		}
		if !f.step.set {
			f.step = to
		}
		if !f.rule.set {
			f.rule = rule
		}
		return f
	}
	return nil
}
