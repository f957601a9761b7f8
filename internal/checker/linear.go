package checker

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// linearTimeout bounds porcupine's search over all objects; passing it fails the run.
const linearTimeout = 2 * time.Minute

// state of an object in the model. Modified is anyTime after a write of unknown
// outcome that nobody saw.
type state struct {
	exists   bool
	v, p     string
	modified int64
}

const anyTime = -1

type output struct {
	status  int // 0: unknown
	seen    *Value
	guarded bool
}

// linearizable gives the history of each object to porcupine: there is an order of
// all requests, in agreement with real time, in which every answer is right.
func (c *check) linearizable() {
	times := c.observedTimes()
	histories := map[string][]porcupine.Operation{}
	for i, o := range c.h.Ops {
		if o.Stale || o.refused() && !o.Unsure || o.reads() && (o.Unknown || o.Status >= 500) {
			continue
		}
		for j := range o.Parts {
			p := &o.Parts[j]
			if p.Object == "" { // a POST that nobody saw the id of: webhooks tell whether it was done, and how often
				continue
			}
			out := output{status: p.Status, seen: p.Seen, guarded: p.Kind == GuardedRead}
			end := o.Return
			switch {
			case o.Unknown || o.Unsure && o.Status >= 400:
				out, end = output{}, math.MaxInt64
			case o.Status >= 400 && len(o.Parts) > 1:
				// A batch that was undone: the part that failed says why, the
				// others nothing.
				if p.Status == 424 || p.Status == 0 {
					continue
				}
			}
			histories[p.Object] = append(histories[p.Object], porcupine.Operation{ClientId: i, Input: input{*p, times[p.Object+"="+p.V+p.P]}, Call: o.Call, Output: out, Return: end})
		}
	}
	var all [][]porcupine.Operation
	for _, h := range histories {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b []porcupine.Operation) int {
		return strings.Compare(a[0].Input.(input).Object, b[0].Input.(input).Object)
	})
	deadline := time.Now().Add(linearTimeout)
	for _, h := range all {
		object := h[0].Input.(input).Object
		switch porcupine.CheckOperationsTimeout(model, h, max(time.Until(deadline), time.Millisecond)) {
		case porcupine.Illegal:
			c.violated(Linearizable, "porcupine finds no order of the %d requests for %s", len(h), object)
		case porcupine.Unknown:
			c.violated(Linearizable, "porcupine did not end in %s with %d requests for %s", linearTimeout, len(h), object)
		}
	}
}

type input struct {
	Part
	time int64 // last_modified that this write got, if anybody saw it
}

// observedTimes finds the time of each value that anybody saw.
func (c *check) observedTimes() map[string]int64 {
	times := map[string]int64{}
	note := func(v Value) {
		// A patch's value is seen beside others, but first by itself.
		for _, text := range []string{v.V, v.P} {
			key := v.Object + "=" + text
			if old, ok := times[key]; text != "" && (!ok || v.Modified < old) {
				times[key] = v.Modified
			}
		}
	}
	if c.log.whole { // exact: the revision that wrote it
		for _, h := range c.h.Hooks {
			note(h.Value)
		}
	}
	return times
}

var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) { return step(s.(state), in.(input), out.(output)) },
	DescribeOperation: func(in, out any) string {
		return fmt.Sprintf("%+v → %+v", in.(input).Part, out.(output))
	},
}

func step(s state, in input, out output) (bool, any) {
	switch in.Kind {
	case Read, GuardedRead:
		return readStep(s, out), s
	}
	matches, certain := s.matches(in)
	next := in.apply(s, out)
	switch {
	case out.status == 0: // may have been done, if its condition held
		if !matches {
			return true, s
		}
		return true, next
	case out.status < 300:
		return matches && seenIs(next, out.seen, in.Kind == Delete), next
	default:
		return !matches || !certain, s
	}
}

// matches says whether the write is done in this state, and whether that is certain.
func (s state) matches(in input) (matches, certain bool) {
	switch in.Kind {
	case Create, Post:
		return !s.exists, true
	case Patch, Delete:
		if !s.exists {
			return false, true
		}
	}
	if in.IfMatch == 0 {
		return true, true
	}
	if s.exists && s.modified == anyTime {
		return true, false
	}
	return s.exists && s.modified == in.IfMatch, true
}

func (in input) apply(s state, out output) state {
	if in.Kind == Delete {
		return state{}
	}
	next := state{exists: true, v: in.V, modified: anyTime}
	if in.Kind == Patch {
		next.v, next.p = s.v, in.P
	}
	if in.time > 0 {
		next.modified = in.time
	}
	if out.seen != nil {
		next.modified = out.seen.Modified
	}
	return next
}

func seenIs(s state, seen *Value, deleted bool) bool {
	if seen == nil || deleted {
		return true
	}
	return seen.V == s.v && seen.P == s.p && (s.modified == anyTime || s.modified == seen.Modified)
}

func readStep(s state, out output) bool {
	if out.guarded {
		return (out.status == 200) == (s.exists && strings.HasPrefix(s.v, Granted))
	}
	switch out.status {
	case 200:
		return s.exists && out.seen != nil && seenIs(s, out.seen, false)
	case 404:
		return !s.exists
	}
	return true
}
