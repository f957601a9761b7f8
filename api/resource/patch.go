package resource

import (
	"slices"

	"quinto/internal/canon"
)

// The media types of PATCH; each lays what is sent over what is stored in its
// own way (Kinto 4.4).
const (
	mergePatchType = "application/merge-patch+json"
	jsonPatchType  = "application/json-patch+json"
)

// patch decides PATCH of an object.
func (c *call) patch(problems []problem) (*outline, error) {
	problems = append(problems, c.checkBehavior()...)
	media := mediaType(c.r.Header["content-type"])
	var ops []patchOperation
	var pl payload
	var err error
	if media == jsonPatchType {
		ops, err = c.operations(problems)
	} else {
		pl, err = c.payload(problems)
	}
	if err != nil {
		return nil, err
	}
	if err := c.checkID(); err != nil {
		return nil, err
	}
	if !c.current.Exists() {
		return nil, c.missing()
	}
	if err := c.precondition(objectTarget(&c.current)); err != nil {
		return nil, err
	}
	if pl.empty {
		return nil, invalid(problem{location: "body", name: "data", description: "Provide at least one of data or permissions"})
	}
	data, err := c.patched(media, &pl, ops)
	if err != nil {
		return nil, err
	}
	if check := c.route.kind.Check; check != nil {
		var flaws []Flaw
		if data, flaws = check(data); len(flaws) > 0 {
			return nil, invalid(problem{location: "body", name: flaws[0].Name, description: flaws[0].Description})
		}
	}
	if err := c.checkOwnID(&pl); err != nil {
		return nil, err
	}
	out, err := c.write(&pl, data)
	if behavior := c.r.Header["response-behavior"]; err == nil && (behavior == "light" || behavior == "diff") {
		c.narrow(out, &pl, behavior == "diff")
	}
	return out, err
}

// operations validates the body of a JSON patch together with its headers.
func (c *call) operations(problems []problem) ([]patchOperation, error) {
	c.body.parse(c.r.Body, c.s.jsonLimits())
	if c.body.err != nil {
		return nil, c.body.err
	}
	ops, found := c.body.readPatch()
	found = append(slices.Clip(c.foreign), found...)
	if c.body.fault == nil {
		found = append(found, problems...)
	}
	if len(found) > 0 {
		return nil, validation(found...)
	}
	return ops, nil
}

// patched gives the data after the patch, and completes pl.
func (c *call) patched(media string, pl *payload, ops []patchOperation) (canon.Value, error) {
	stored := canon.Value(c.current.Data)
	switch media {
	case jsonPatchType:
		var err error
		*pl, err = c.jsonPatch(ops)
		return c.withHidden(pl.data), err
	case mergePatchType:
		for _, name := range pl.nulls {
			pl.permissions[name] = nil // null takes a permission away
		}
		if pl.id.Kind() == canon.Null {
			pl.id = nil // removed, and set again
		}
		if pl.hasData {
			return mergePatch(stored, pl.data), nil
		}
	default:
		if pl.hasData {
			return canon.Merge(stored, pl.data), nil
		}
	}
	return stored, nil
}

// mergePatch is the algorithm of RFC 7396 for a patch that is an object. Its
// depth is that of the patch, which the parser bounds.
func mergePatch(target, patch canon.Value) canon.Value {
	changes := objectBuilder{}
	var gone []string
	was := members(target)
	patch.Each(func(key string, val canon.Value) bool {
		switch val.Kind() {
		case canon.Null:
			gone = append(gone, key)
		case canon.Object:
			changes.add(key, mergePatch(was[key], val))
		default:
			changes.add(key, val)
		}
		return true
	})
	merged := canon.Merge(target, changes.value())
	if len(gone) == 0 {
		return merged
	}
	drop := make(map[string]bool, len(gone))
	for _, key := range gone {
		drop[key] = true
	}
	out := objectBuilder{}
	merged.Each(func(key string, val canon.Value) bool {
		if !drop[key] {
			out.add(key, val)
		}
		return true
	})
	return out.value()
}

// narrow makes the answer what Response-Behavior asks for (Kinto 4.5): of the
// fields that were sent (of a JSON patch, of all that it leaves), those that
// changed; for diff, those of them that did not become what was sent.
func (c *call) narrow(out *outline, pl *payload, diff bool) {
	op := &c.ops[out.stamp.from]
	before, after := members(c.current.Data), members(op.Data)
	shown := objectBuilder{}
	pl.data.Each(func(key string, sent canon.Value) bool {
		now, ok := after[key]
		if ok && !slices.Contains(c.route.kind.Hidden, key) && !canon.Equal(before[key], now) && (!diff || !canon.Equal(sent, now)) {
			shown.add(key, now)
		}
		return true
	})
	out.parts = nil
	body := append([]byte(`{"data":`), shown.value()...)
	if pl.modified == nil || diff && op.HasTime {
		out.literal(append(body, '}'))
		return
	}
	// A last_modified that was sent always changes; to what, the op will know.
	if body = body[:len(body)-1]; body[len(body)-1] != '{' {
		body = append(body, ',')
	}
	out.literal(append(body, `"last_modified":`...))
	out.parts = append(out.parts, part{ops: out.stamp, time: true}, part{literal: []byte("}}")})
}

func members(v canon.Value) map[string]canon.Value {
	m := map[string]canon.Value{}
	v.Each(func(key string, val canon.Value) bool { m[key] = val; return true })
	return m
}

// checkBehavior validates Response-Behavior.
func (c *call) checkBehavior() []problem {
	switch value := c.r.Header["response-behavior"]; value {
	case "", "full", "light", "diff":
		return nil
	default:
		return []problem{{location: "header", name: "Response-Behavior", description: `"` + value + `" is not one of full, light, diff`}}
	}
}
