package dispatch

import (
	"errors"
	"fmt"

	"quinto/fsm"
	"quinto/plugins"
)

// group is what a Grouping notifier gets for e: all objects of its group, e's
// first; nil when e is in the group of an event before it. It is found out from the
// log alone, where a transaction stands whole and for ever: every leader makes the
// same groups, wherever it goes on from. Errors: those of bodies.
func (r *runner) group(e *fsm.Event) ([]plugins.Impacted, error) {
	v, err := r.d.view(r.term)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFenced, err)
	}
	defer v.Close()
	// Each operation of a transaction has one revision at most.
	from := e.Revision - min(e.Revision, fsm.Revision(min(e.Position, plugins.MaxImpacted))+1)
	var all []plugins.Impacted
	var failed error
	err = v.Events(max(from, v.EventFloor()), func(other *fsm.Event) bool {
		switch {
		case other.Revision > e.Revision && string(other.RequestID) != string(e.RequestID):
			return false
		case other.Revision != e.Revision && !plugins.SameGroup(other, e), !r.n.Match(other), r.n.Lane(other) != r.n.Lane(e):
			return true // in another lane, another order would count
		case other.Revision < e.Revision:
			return false // the group is not e's
		}
		one := plugins.Impacted{Event: other}
		if one.Old, one.New, failed = bodiesOf(v, other); failed == nil {
			all = append(all, one)
		}
		return failed == nil
	})
	if errors.Is(err, fsm.ErrTrimmed) || e.Revision <= v.EventFloor() {
		return nil, errGone
	}
	return all, errors.Join(err, failed)
}
