package resource

import "quinto/internal/canon"

// patch decides PATCH of an object. The Content-Type says how the changes are
// laid over what is stored; application/json is a shallow merge (Kinto 4.4).
func (c *call) patch(problems []problem) (*outline, error) {
	problems = append(problems, c.checkBehavior()...)
	pl, err := c.payload(problems)
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
	data := canon.Value(c.current.Data)
	if pl.hasData {
		data = canon.Merge(data, pl.data)
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
		c.narrow(out, &pl, data, behavior == "diff")
	}
	return out, err
}

// narrow makes the answer what Response-Behavior asks for (Kinto 4.5): of the
// fields that were sent, those that changed; for diff, those of them that did
// not become what was sent.
func (c *call) narrow(out *outline, pl *payload, data canon.Value, diff bool) {
	before, after := members(c.current.Data), members(data)
	shown := objectBuilder{}
	pl.data.Each(func(key string, sent canon.Value) bool {
		now, ok := after[key]
		if ok && !canon.Equal(before[key], now) && (!diff || !canon.Equal(sent, now)) {
			shown.add(key, now)
		}
		return true
	})
	out.parts = nil
	out.literal(append(append([]byte(`{"data":`), shown.value()...), '}'))
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
