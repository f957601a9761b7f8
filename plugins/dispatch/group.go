package dispatch

import (
	"errors"
	"fmt"
	"slices"

	"quinto/fsm"
	"quinto/plugins"
)

// group is what a Grouping notifier gets for e: all objects of its group, e's
// first; nil when e is in the group of an event before it. It is found out from the
// log alone, where a transaction stands whole and for ever: every leader makes the
// same groups, wherever it goes on from. ties are what e's lane waits for, when groups
// of the request are of several lanes. Errors: those of bodies.
func (r *runner) group(e *fsm.Event) (all []plugins.Impacted, ties []tie, err error) {
	v, err := r.d.view(r.term)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errFenced, err)
	}
	defer v.Close()
	// Each operation of a transaction has one revision at most.
	from := e.Revision - min(e.Revision, fsm.Revision(min(e.Position, plugins.MaxImpacted))+1)
	own := r.n.Lane(e)
	var firsts []*fsm.Event // of the request's groups
	wait := func(one tie) {
		if one.key != own && !slices.Contains(ties, one) {
			ties = append(ties, one)
		}
	}
	var failed error
	err = v.Events(max(from, v.EventFloor()), func(other *fsm.Event) bool {
		switch {
		case other.Revision > e.Revision && (len(e.RequestID) == 0 || string(other.RequestID) != string(e.RequestID)):
			return false
		case other.Revision != e.Revision && string(other.RequestID) != string(e.RequestID), !r.n.Match(other):
			return true
		}
		lane, first := r.n.Lane(other), other
		if i := slices.IndexFunc(firsts, func(f *fsm.Event) bool { return plugins.SameGroup(f, other) }); i >= 0 {
			first = firsts[i]
		} else {
			firsts = append(firsts, other)
		}
		switch {
		case other.Revision < e.Revision:
			return true
		case first.Revision < e.Revision:
			if other.Revision == e.Revision || lane == own { // the group of another, with a place here
				wait(tie{r.n.Lane(first), first.Revision})
			}
			return other.Revision != e.Revision
		case first.Revision != e.Revision:
			return true
		}
		wait(tie{lane, e.Revision - 1})
		one := plugins.Impacted{Event: other}
		if one.Old, one.New, failed = bodiesOf(v, other); failed == nil {
			all = append(all, one)
		}
		return failed == nil
	})
	if errors.Is(err, fsm.ErrTrimmed) || e.Revision <= v.EventFloor() {
		return nil, nil, errGone
	}
	return all, ties, errors.Join(err, failed)
}
