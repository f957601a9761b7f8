package jsonschema

import (
	"slices"

	"quinto/internal/canon"
)

// What counts as evaluated is what Python's jsonschema takes for it, with its
// differences between 2019-09 and 2020-12.

func unevaluatedItems(r *run, demand, instance, schema *node, at place) *fault {
	if !instance.is(canon.Array) {
		return nil
	}
	seen := make([]bool, len(instance.elems))
	r.evaluatedItems(instance, schema, at, seen)
	var left []*node
	for i, e := range instance.elems {
		if !seen[i] {
			left = append(left, e)
		}
	}
	if len(left) == 0 || r.stop != nil {
		return nil
	}
	return r.fail(func() string {
		return "Unevaluated items are not allowed (" + wasWere(listed(left), len(left)) + " unexpected)"
	})
}

func mark(seen []bool, n int) {
	for i := range seen[:min(n, len(seen))] {
		seen[i] = true
	}
}

// evaluatedItems marks the elements that schema evaluates.
func (r *run) evaluatedItems(instance, schema *node, at place, seen []bool) {
	if !schema.is(canon.Object) || !r.enter(len(seen)) {
		return
	}
	defer r.leave()
	r.references(schema, at, func(s *node, there place) { r.evaluatedItems(instance, s, there, seen) })
	if all := schema.get("items"); all != nil {
		if at.draft == draft2020 || schema.get("additionalItems") != nil || all.is(canon.Object) {
			mark(seen, len(seen))
			return
		}
		mark(seen, len(all.elems))
	}
	if p := schema.get("prefixItems"); p != nil && at.draft == draft2020 {
		mark(seen, len(p.elems))
	}
	for _, key := range []string{"contains", "unevaluatedItems"} {
		if s := schema.get(key); s != nil {
			for i, e := range instance.elems {
				seen[i] = seen[i] || r.valid(e, s, at)
			}
		}
	}
	r.branches(instance, schema, at, func(s *node) { r.evaluatedItems(instance, s, at, seen) })
}

func unevaluatedProperties(r *run, demand, instance, schema *node, at place) *fault {
	if !instance.is(canon.Object) {
		return nil
	}
	seen := map[string]bool{}
	r.evaluatedProperties(instance, schema, at, seen)
	var left []string
	for _, name := range instance.keys {
		if !seen[name] && !r.valid(instance.members[name], demand, at) {
			left = append(left, name)
		}
	}
	if len(left) == 0 || r.stop != nil {
		return nil
	}
	return r.fail(func() string {
		if demand.isFalse() {
			slices.Sort(left)
			return "Unevaluated properties are not allowed (" + wasWere(reprs(left), len(left)) + " unexpected)"
		}
		return "Unevaluated properties are not valid under the given schema (" + wasWere(reprs(left), len(left)) + " unevaluated and invalid)"
	})
}

// evaluatedProperties collects the names that schema evaluates.
func (r *run) evaluatedProperties(instance, schema *node, at place, seen map[string]bool) {
	if !schema.is(canon.Object) || !r.enter(len(instance.keys)) {
		return
	}
	defer r.leave()
	deeper := func(s *node) { r.evaluatedProperties(instance, s, at, seen) }
	r.references(schema, at, func(s *node, there place) { r.evaluatedProperties(instance, s, there, seen) })
	for _, key := range []string{"properties", "additionalProperties", "unevaluatedProperties"} {
		s := schema.get(key)
		for _, name := range instance.keys {
			switch {
			case s == nil:
			case key == "properties" || at.draft == draft2019 && s.is(canon.Object):
				seen[name] = seen[name] || s.get(name) != nil
			case at.draft == draft2019:
				seen[name] = seen[name] || s.isTrue()
			default:
				seen[name] = seen[name] || r.valid(instance.members[name], s, at)
			}
		}
	}
	if patterns := schema.get("patternProperties"); patterns != nil {
		for _, name := range instance.keys {
			seen[name] = seen[name] || slices.ContainsFunc(patterns.keys, func(p string) bool { return r.matches(p, name) })
		}
	}
	if dependent := schema.get("dependentSchemas"); dependent != nil {
		for _, name := range dependent.keys {
			if instance.members[name] != nil {
				deeper(dependent.members[name])
			}
		}
	}
	r.branches(instance, schema, at, deeper)
}

// enter and leave bound the recursion of what is evaluated.
func (r *run) enter(cost int) bool {
	if !r.spend(1 + cost/8) {
		return false
	}
	if r.depth >= MaxDepth {
		r.halt(&Unusable{"References of the schema lead in a circle"})
		return false
	}
	r.depth++
	return true
}

func (r *run) leave() { r.depth-- }

// references calls f for what the references of a schema lead to.
func (r *run) references(schema *node, at place, f func(*node, place)) {
	names := []string{"$ref", "$dynamicRef"}
	if at.draft == draft2019 {
		names = []string{"$ref", "$recursiveRef"}
	}
	for _, key := range names {
		ref := schema.get(key)
		if !ref.is(canon.String) {
			continue
		}
		found, there, err := r.registry.lookup(ref.text, at)
		if key == "$recursiveRef" {
			found, there, err = r.registry.recursive(at)
		}
		if err != nil {
			r.halt(err)
			return
		}
		f(found, there)
	}
}

// branches calls f for the parts of a schema that hold for instance.
func (r *run) branches(instance, schema *node, at place, f func(*node)) {
	for _, key := range []string{"allOf", "oneOf", "anyOf"} {
		if all := schema.get(key); all != nil {
			for _, s := range all.elems {
				if r.valid(instance, s, at) {
					f(s)
				}
			}
		}
	}
	condition := schema.get("if")
	if condition == nil {
		return
	}
	branch := "else"
	if r.valid(instance, condition, at) {
		f(condition)
		branch = "then"
	}
	f(schema.get(branch))
}
