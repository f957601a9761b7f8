package jsonschema

import (
	"slices"
	"strconv"
	"strings"

	"quinto/internal/canon"
)

// lookupSteps is what following a reference costs.
const lookupSteps = 6

func reference(r *run, demand, instance, _ *node, at place) *fault {
	r.spend(lookupSteps)
	found, there, err := r.registry.lookup(demand.text, at)
	if err != nil {
		return r.halt(err)
	}
	return r.apply(instance, found, there, step{}, step{})
}

func recursiveReference(r *run, _, instance, _ *node, at place) *fault {
	found, there, err := r.registry.recursive(at)
	if err != nil {
		return r.halt(err)
	}
	return r.apply(instance, found, there, step{}, step{})
}

func properties(r *run, demand, instance, _ *node, at place) *fault {
	if !instance.is(canon.Object) || !r.spend(len(demand.keys)/8) {
		return nil
	}
	for _, name := range demand.keys {
		if v := instance.members[name]; v != nil {
			if f := r.descend(v, demand.members[name], at, member(name), member(name)); f != nil || r.stop != nil {
				return f
			}
		}
	}
	return nil
}

func patternProperties(r *run, demand, instance, _ *node, at place) *fault {
	if !instance.is(canon.Object) {
		return nil
	}
	for _, expression := range demand.keys {
		for _, name := range instance.keys {
			if !r.matches(expression, name) {
				continue
			}
			if f := r.descend(instance.members[name], demand.members[expression], at, member(name), member(expression)); f != nil || r.stop != nil {
				return f
			}
		}
	}
	return nil
}

func propertyNames(r *run, demand, instance, _ *node, at place) *fault {
	for _, name := range instance.keys {
		n := &node{val: canon.AppendString(nil, name), kind: canon.String, text: name}
		if f := r.descend(n, demand, at, step{}, step{}); f != nil || r.stop != nil {
			return f
		}
	}
	return nil
}

// additional gives the names in instance that schema knows neither by name nor by
// pattern.
func (r *run) additional(instance, schema *node) (names []string) {
	known, patterns := schema.get("properties"), schema.get("patternProperties")
	for _, name := range instance.keys {
		if known.get(name) != nil || patterns != nil && slices.ContainsFunc(patterns.keys, func(p string) bool { return r.matches(p, name) }) {
			continue
		}
		names = append(names, name)
	}
	return names
}

func additionalProperties(r *run, demand, instance, schema *node, at place) *fault {
	if !instance.is(canon.Object) || !r.spend(len(instance.keys)/8) {
		return nil
	}
	extras := r.additional(instance, schema)
	if demand.is(canon.Object) {
		for _, name := range extras {
			if f := r.descend(instance.members[name], demand, at, member(name), step{}); f != nil || r.stop != nil {
				return f
			}
		}
		return nil
	}
	if demand.truthy() || len(extras) == 0 || r.stop != nil {
		return nil
	}
	return r.fail(func() string {
		slices.Sort(extras)
		patterns := schema.get("patternProperties")
		if patterns == nil {
			return "Additional properties are not allowed (" + wasWere(reprs(extras), len(extras)) + " unexpected)"
		}
		verb := "do"
		if len(extras) == 1 {
			verb = "does"
		}
		return reprs(extras) + " " + verb + " not match any of the regexes: " + reprs(slices.Sorted(slices.Values(patterns.keys)))
	})
}

// eachItem applies schema to the elements from the given one on.
func (r *run) eachItem(instance, schema *node, from int, at place) *fault {
	for i := from; i < len(instance.elems); i++ {
		if f := r.descend(instance.elems[i], schema, at, element(i), step{}); f != nil || r.stop != nil {
			return f
		}
	}
	return nil
}

// pairItems applies the n-th schema to the n-th element.
func (r *run) pairItems(instance *node, schemas []*node, at place) *fault {
	for i, s := range schemas[:min(len(schemas), len(instance.elems))] {
		if f := r.descend(instance.elems[i], s, at, element(i), element(i)); f != nil || r.stop != nil {
			return f
		}
	}
	return nil
}

func itemsOld(r *run, demand, instance, _ *node, at place) *fault {
	switch {
	case !instance.is(canon.Array):
		return nil
	case demand.is(canon.Array):
		return r.pairItems(instance, demand.elems, at)
	}
	return r.eachItem(instance, demand, 0, at)
}

func additionalItems(r *run, demand, instance, schema *node, at place) *fault {
	all := schema.get("items")
	if !instance.is(canon.Array) || !all.is(canon.Array) { // without "items" everything is an item
		return nil
	}
	n := len(all.elems)
	switch {
	case demand.is(canon.Object):
		return r.eachItem(instance, demand, n, at)
	case demand.truthy() || len(instance.elems) <= n:
		return nil
	}
	return r.fail(func() string {
		extras := instance.elems[n:]
		return "Additional items are not allowed (" + wasWere(listed(extras), len(extras)) + " unexpected)"
	})
}

func listed(nodes []*node) string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.repr()
	}
	return strings.Join(out, ", ")
}

func prefixItems(r *run, demand, instance, _ *node, at place) *fault {
	if !instance.is(canon.Array) {
		return nil
	}
	return r.pairItems(instance, demand.elems, at)
}

func items(r *run, demand, instance, schema *node, at place) *fault {
	if !instance.is(canon.Array) {
		return nil
	}
	prefix := 0
	if p := schema.get("prefixItems"); p != nil {
		prefix = len(p.elems)
	}
	extra := len(instance.elems) - prefix
	if extra <= 0 {
		return nil
	}
	if !demand.isFalse() {
		return r.eachItem(instance, demand, prefix, at)
	}
	return r.fail(func() string {
		rest, noun := "["+listed(instance.elems[prefix:])+"]", "items"
		if extra == 1 {
			rest = instance.elems[prefix].repr()
		}
		if prefix == 1 {
			noun = "item"
		}
		return "Expected at most " + strconv.Itoa(prefix) + " " + noun + " but found " + strconv.Itoa(extra) + " extra: " + rest
	})
}

func allOf(r *run, demand, instance, _ *node, at place) *fault {
	for i, s := range demand.elems {
		if f := r.descend(instance, s, at, step{}, element(i)); f != nil || r.stop != nil {
			return f
		}
	}
	return nil
}

func anyOf(r *run, demand, instance, _ *node, at place) *fault {
	for _, s := range demand.elems {
		if r.valid(instance, s, at) {
			return nil
		}
	}
	return r.fails(instance, "is not valid under any of the given schemas")
}

func oneOf(r *run, demand, instance, _ *node, at place) *fault {
	first := slices.IndexFunc(demand.elems, func(s *node) bool { return r.valid(instance, s, at) })
	if first < 0 {
		return r.fails(instance, "is not valid under any of the given schemas")
	}
	var more []*node
	for _, s := range demand.elems[first+1:] {
		if r.valid(instance, s, at) {
			more = append(more, s)
		}
	}
	if len(more) == 0 || r.stop != nil {
		return nil
	}
	return r.fail(func() string {
		return instance.repr() + " is valid under each of " + listed(append(more, demand.elems[first]))
	})
}

func not(r *run, demand, instance, _ *node, at place) *fault {
	if !r.valid(instance, demand, at) || r.stop != nil {
		return nil
	}
	return r.fails(instance, "should not be valid under "+r.shown(demand))
}

func ifThenElse(r *run, demand, instance, schema *node, at place) *fault {
	branch := "else"
	if r.valid(instance, demand, at) {
		branch = "then"
	}
	if s := schema.get(branch); s != nil && r.stop == nil {
		return r.descend(instance, s, at, step{}, member(branch))
	}
	return nil
}

func dependentSchemas(r *run, demand, instance, _ *node, at place) *fault {
	for _, name := range demand.keys {
		if instance.get(name) == nil {
			continue
		}
		if f := r.descend(instance, demand.members[name], at, step{}, member(name)); f != nil || r.stop != nil {
			return f
		}
	}
	return nil
}
