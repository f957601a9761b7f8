package resource

import (
	"strconv"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
)

// condition is the value of If-Match or If-None-Match.
type condition struct {
	given bool
	any   bool // "*"
	never bool // an integer beyond any timestamp: equal to none
	time  fsm.Timestamp
}

const conditionProblem = "The value should be integer between double quotes."

// parseCondition reads `"<digits>"` or `*`; ok is false for anything else. An
// empty value counts as absent.
func parseCondition(value string) (c condition, ok bool) {
	value = strings.TrimSpace(value)
	if value == "" {
		return c, true
	}
	c.given = true
	if value == "*" {
		c.any = true
		return c, true
	}
	digits, ok := strings.CutPrefix(value, `"`)
	digits, closed := strings.CutSuffix(digits, `"`)
	if !ok || !closed || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return c, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	c.never, c.time = err != nil, fsm.Timestamp(n)
	c.given = n != 0 // Kinto takes 0 as no precondition
	return c, true
}

// is reports whether the condition names exactly t.
func (c *condition) is(t fsm.Timestamp) bool { return c.given && !c.any && !c.never && c.time == t }

// parseConditions reads the preconditions of a request and says what is wrong
// with them.
func (c *call) parseConditions() (problems []problem) {
	parse := func(header, name string) (cond condition) {
		value, sent := c.r.Header[header]
		if !sent {
			return cond
		}
		cond, ok := parseCondition(value)
		if !ok {
			problems = append(problems, problem{location: "header", name: name, description: conditionProblem})
		}
		return cond
	}
	c.ifMatch, c.ifNoneMatch = parse("if-match", "If-Match"), parse("if-none-match", "If-None-Match")
	return problems
}

// unmodified is the 304 of a GET whose If-None-Match names exactly the current
// time (Kinto 3.10), or nil.
func (c *call) unmodified(current fsm.Timestamp) *outline {
	if !c.ifNoneMatch.is(current) {
		return nil
	}
	return &outline{status: 304, fields: stampFields(current), raised: true}
}

// target is what a precondition is tested on.
type target struct {
	object *fsm.Object // nil: a list, or a missing object
	exists bool        // lists always exist
}

// precondition is Kinto's _raise_412_if_modified (rules 3.11 to 3.16).
func (c *call) precondition(t target) error {
	var failed bool
	switch {
	case c.ifNoneMatch.any && t.exists:
		failed = true
	case c.ifMatch.given && !t.exists:
		failed = true
	case c.ifMatch.given && !c.ifMatch.any:
		now, err := c.targetTime(t)
		if err != nil {
			return err
		}
		failed = !c.ifMatch.is(now)
	}
	if !failed {
		return nil
	}
	now, err := c.targetTime(t)
	if err != nil {
		return err
	}
	f := &Failure{Status: 412, Errno: ErrnoModifiedMeanwhile, Message: "Resource was modified meanwhile", Header: stampFields(now)}
	if t.object != nil {
		// Whoever may only create must not learn the content of what exists.
		ok, err := c.mayRead()
		if err != nil {
			return err
		}
		if ok {
			existing := c.s.visible(*t.object)
			b := appendObject([]byte(`{"existing":`), &existing)
			f.Details = append(b, '}')
		}
	}
	return f
}

func (c *call) targetTime(t target) (fsm.Timestamp, error) {
	if t.object != nil {
		return t.object.LastModified, nil
	}
	l, err := c.state.List(c.route.list)
	if err != nil {
		return 0, err
	}
	return c.scopedTime(l.Timestamp)
}

// objectTarget is the target of the addressed object, or of none.
func objectTarget(o *fsm.Object) target {
	if o.Exists() {
		return target{o, true}
	}
	return target{}
}

// appendObject appends an object or tombstone as answers show it.
func appendObject(b []byte, o *fsm.Object) []byte {
	if o.Deleted {
		b = canon.AppendString(append(b, `{"id":`...), o.Path.ID())
		b = strconv.AppendInt(append(b, `,"last_modified":`...), int64(o.LastModified), 10)
		return append(b, `,"deleted":true}`...)
	}
	return canon.Splice(b, o.Path.ID(), int64(o.LastModified), o.Data)
}
