package jsonschema

import (
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"quinto/internal/canon"
)

// keyword says what is wrong with instance by what schema demands with one
// keyword; nil when nothing is. The texts are those of Python's jsonschema
// (_keywords.py, _legacy_keywords.py).
type keyword func(r *run, demand, instance, schema *node, at place) *fault

// assertions are the keywords that all drafts share.
var assertions = map[string]keyword{
	"$ref": reference, "additionalProperties": additionalProperties, "allOf": allOf, "anyOf": anyOf, "enum": enum, "format": format,
	"maxItems": maxItems, "maxLength": maxLength, "maxProperties": maxProperties, "minItems": minItems, "minLength": minLength,
	"minProperties": minProperties, "multipleOf": multipleOf, "not": not, "oneOf": oneOf, "pattern": patternOf,
	"patternProperties": patternProperties, "properties": properties, "required": required, "type": typeOf, "uniqueItems": uniqueItems,
}

// keywordsOf is the table of a draft.
func keywordsOf(d *draft) map[string]keyword {
	t := maps.Clone(assertions)
	if d.crazy {
		t["items"], t["additionalItems"] = itemsOld, additionalItems
	}
	if d.legacy {
		t["dependencies"] = dependencies
	}
	if d == draft04 {
		t["minimum"], t["maximum"] = bound("minimum", "exclusiveMinimum"), bound("maximum", "exclusiveMaximum")
		return t
	}
	t["minimum"], t["maximum"] = bound("minimum", ""), bound("maximum", "")
	t["exclusiveMinimum"], t["exclusiveMaximum"] = bound("exclusiveMinimum", ""), bound("exclusiveMaximum", "")
	t["const"], t["contains"], t["propertyNames"] = constant, containsOld, propertyNames
	if d == draft06 {
		return t
	}
	t["if"] = ifThenElse
	if d == draft07 {
		return t
	}
	t["contains"], t["dependentRequired"], t["dependentSchemas"] = contains, dependentRequired, dependentSchemas
	t["unevaluatedItems"], t["unevaluatedProperties"] = unevaluatedItems, unevaluatedProperties
	if d == draft2019 {
		t["$recursiveRef"] = recursiveReference
		return t
	}
	t["items"], t["prefixItems"], t["$dynamicRef"] = items, prefixItems, reference
	return t
}

func isInteger(n *node, d *draft) bool {
	if !n.is(canon.Number) {
		return false
	}
	if n.val.IsInt() {
		return true
	}
	f, ok := n.val.Float()
	return ok && !d.strict && f == math.Trunc(f)
}

func isType(n *node, name string, d *draft) bool {
	switch name {
	case "array":
		return n.kind == canon.Array
	case "boolean":
		return n.kind == canon.Bool
	case "integer":
		return isInteger(n, d)
	case "null":
		return n.kind == canon.Null
	case "number":
		return n.kind == canon.Number
	case "object":
		return n.kind == canon.Object
	case "string":
		return n.kind == canon.String
	}
	return false
}

func typeOf(r *run, demand, instance, _ *node, at place) *fault {
	types := demand.elems
	if demand.is(canon.String) {
		types = []*node{demand}
	}
	if slices.ContainsFunc(types, func(t *node) bool { return isType(instance, t.text, at.draft) }) {
		return nil
	}
	return r.fail(func() string {
		names := make([]string, len(types))
		for i, t := range types {
			names[i] = t.repr()
		}
		return instance.repr() + " is not of type " + strings.Join(names, ", ")
	})
}

// equal compares as Python's jsonschema does: 1 is 1.0, true is not 1. It costs
// as many steps as the values are long.
func (r *run) equal(a, b *node) bool {
	if a.kind != b.kind {
		return false
	}
	return r.spend(1+min(len(a.val), len(b.val))/64) && canon.Equal(a.val, b.val)
}

func enum(r *run, demand, instance, _ *node, _ place) *fault {
	if !r.spend(len(demand.elems) / 8) {
		return nil
	}
	for _, e := range demand.elems {
		if r.equal(e, instance) || r.stop != nil {
			return nil
		}
	}
	return r.fails(instance, "is not one of "+r.shown(demand))
}

// shown is repr where a fault may be shown.
func (r *run) shown(n *node) string {
	if r.quiet > 0 {
		return ""
	}
	return n.repr()
}

func constant(r *run, demand, instance, _ *node, _ place) *fault {
	if r.equal(demand, instance) {
		return nil
	}
	return r.fail(func() string { return demand.repr() + " was expected" })
}

// bound makes the keyword of a bound; exclusive is the member that in draft 4 makes
// it one that must not be met.
func bound(name, exclusive string) keyword {
	upper := strings.HasSuffix(name, "aximum")
	word := "minimum"
	if upper {
		word = "maximum"
	}
	return func(r *run, demand, instance, schema *node, _ place) *fault {
		if !instance.is(canon.Number) || !demand.is(canon.Number) {
			return nil
		}
		c := canon.Compare(instance.val, demand.val)
		if upper {
			c = -c
		}
		strict := strings.HasPrefix(name, "exclusive") || exclusive != "" && schema.get(exclusive).truthy()
		if c > 0 || c == 0 && !strict {
			return nil
		}
		than := "less than"
		if upper {
			than = "greater than"
		}
		if strict {
			than += " or equal to"
		}
		return r.fails(instance, "is "+than+" the "+word+" of "+r.shown(demand))
	}
}

func multipleOf(r *run, demand, instance, _ *node, _ place) *fault {
	if !instance.is(canon.Number) || !demand.truthy() || isMultiple(instance.val, demand.val) {
		return nil
	}
	return r.fails(instance, "is not a multiple of "+r.shown(demand))
}

// isMultiple divides as Python does: whole numbers exactly, others as doubles, and
// exactly again where a double overflows.
func isMultiple(v, by canon.Value) bool {
	if v.IsInt() && by.IsInt() {
		a, ok := new(big.Int).SetString(string(v), 10)
		b, ok2 := new(big.Int).SetString(string(by), 10)
		return ok && ok2 && b.Sign() != 0 && new(big.Int).Rem(a, b).Sign() == 0
	}
	a, okA := v.Float()
	b, okB := by.Float()
	if by.IsInt() {
		return okA && okB && math.Mod(a, b) == 0
	}
	q := a / b
	if okA && okB && !math.IsInf(q, 0) {
		return q == math.Trunc(q)
	}
	x, ok := new(big.Rat).SetString(string(v))
	y, ok2 := new(big.Rat).SetString(string(by))
	return ok && ok2 && new(big.Rat).Quo(x, y).IsInt()
}

func minItems(r *run, demand, instance, _ *node, _ place) *fault {
	if !instance.is(canon.Array) || float64(len(instance.elems)) >= demand.number() {
		return nil
	}
	return r.fails(instance, atLeast(demand, "is too short"))
}

func maxItems(r *run, demand, instance, _ *node, _ place) *fault {
	if !instance.is(canon.Array) || float64(len(instance.elems)) <= demand.number() {
		return nil
	}
	return r.fails(instance, atMost(demand, "is too long"))
}

func minLength(r *run, demand, instance, _ *node, _ place) *fault {
	if !instance.is(canon.String) || float64(utf8.RuneCountInString(instance.text)) >= demand.number() {
		return nil
	}
	return r.fails(instance, atLeast(demand, "is too short"))
}

func maxLength(r *run, demand, instance, _ *node, _ place) *fault {
	if !instance.is(canon.String) || float64(utf8.RuneCountInString(instance.text)) <= demand.number() {
		return nil
	}
	return r.fails(instance, atMost(demand, "is too long"))
}

func minProperties(r *run, demand, instance, _ *node, _ place) *fault {
	if !instance.is(canon.Object) || float64(len(instance.keys)) >= demand.number() {
		return nil
	}
	return r.fails(instance, atLeast(demand, "does not have enough properties"))
}

func maxProperties(r *run, demand, instance, _ *node, _ place) *fault {
	if !instance.is(canon.Object) || float64(len(instance.keys)) <= demand.number() {
		return nil
	}
	return r.fails(instance, atMost(demand, "has too many properties"))
}

func atLeast(demand *node, otherwise string) string {
	if demand.number() == 1 {
		return "should be non-empty"
	}
	return otherwise
}

func atMost(demand *node, otherwise string) string {
	if demand.number() == 0 {
		return "is expected to be empty"
	}
	return otherwise
}

func uniqueItems(r *run, demand, instance, _ *node, _ place) *fault {
	if !demand.truthy() || !instance.is(canon.Array) || !r.spend(len(instance.val)/4) {
		return nil
	}
	sorted := make([]canon.Value, len(instance.elems))
	for i, e := range instance.elems {
		sorted[i] = e.val
	}
	slices.SortFunc(sorted, canon.Compare)
	for i := 1; i < len(sorted); i++ {
		if canon.Equal(sorted[i-1], sorted[i]) {
			return r.fails(instance, "has non-unique elements")
		}
	}
	return nil
}

func patternOf(r *run, demand, instance, _ *node, _ place) *fault {
	if !instance.is(canon.String) || r.matches(demand.text, instance.text) {
		return nil
	}
	return r.fails(instance, "does not match "+r.shown(demand))
}

// format asserts nothing, as in Kinto, but that patterns in definitions are some.
func format(r *run, demand, instance, _ *node, _ place) *fault {
	if !r.formats || demand.text != "regex" || !instance.is(canon.String) || r.isRegex(instance.text) {
		return nil
	}
	if r.usable && leftOut(instance.text) {
		return r.fails(instance, "is not a 'regex' that RE2 knows")
	}
	return r.fails(instance, "is not a 'regex'")
}

func required(r *run, demand, instance, _ *node, _ place) *fault {
	if !instance.is(canon.Object) || !r.spend(len(demand.elems)/4) {
		return nil
	}
	for _, name := range demand.elems {
		if instance.members[name.text] == nil {
			return r.fails(name, "is a required property")
		}
	}
	return nil
}

// lacking says which of the names that a dependency demands is missing.
func (r *run) lacking(name string, names, instance *node) *fault {
	if !r.spend(len(names.elems) / 4) {
		return nil
	}
	for _, each := range names.elems {
		if instance.members[each.text] == nil {
			return r.fails(each, "is a dependency of "+repr(name))
		}
	}
	return nil
}

func dependentRequired(r *run, demand, instance, _ *node, _ place) *fault {
	for _, name := range demand.keys {
		if instance.get(name) == nil {
			continue
		}
		if f := r.lacking(name, demand.members[name], instance); f != nil {
			return f
		}
	}
	return nil
}

func dependencies(r *run, demand, instance, _ *node, at place) *fault {
	for _, name := range demand.keys {
		if instance.get(name) == nil {
			continue
		}
		var f *fault
		if dependency := demand.members[name]; dependency.is(canon.Array) {
			f = r.lacking(name, dependency, instance)
		} else {
			f = r.descend(instance, dependency, at, step{}, member(name))
		}
		if f != nil || r.stop != nil {
			return f
		}
	}
	return nil
}

func contains(r *run, demand, instance, schema *node, at place) *fault {
	if !instance.is(canon.Array) {
		return nil
	}
	least, most := 1.0, float64(len(instance.elems))
	if n := schema.get("minContains"); n != nil {
		least = n.number()
	}
	if n := schema.get("maxContains"); n != nil {
		most = n.number()
	}
	matches := 0.0
	for _, e := range instance.elems {
		if !r.valid(e, demand, at) {
			continue
		}
		if matches++; matches > most {
			f := r.fail(func() string {
				return "Too many items match the given schema (expected at most " + schema.get("maxContains").repr() + ")"
			})
			f.known, f.demand = true, schema.get("maxContains")
			return f
		}
	}
	switch {
	case matches >= least || r.stop != nil:
		return nil
	case matches == 0:
		return r.fails(instance, "does not contain items matching the given schema")
	}
	f := r.fail(func() string {
		return "Too few items match the given schema (expected at least " + schema.get("minContains").repr() + " but only " +
			strconv.Itoa(int(matches)) + " matched)"
	})
	f.known, f.demand = true, schema.get("minContains")
	return f
}

func containsOld(r *run, demand, instance, _ *node, at place) *fault {
	if !instance.is(canon.Array) || slices.ContainsFunc(instance.elems, func(e *node) bool { return r.valid(e, demand, at) }) {
		return nil
	}
	return r.fail(func() string { return "None of " + instance.repr() + " are valid under the given schema" })
}
