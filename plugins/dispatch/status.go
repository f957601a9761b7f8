package dispatch

import (
	"cmp"
	"slices"
	"time"

	"quinto/fsm"
)

// What a notifier's Status.State says.
const (
	StateDelivering = "delivering" // this node leads and delivers
	StateStandby    = "standby"    // another node leads, or this one has not begun yet
	StatePaused     = "paused"     // by the operator, or by a receiver that wants no more
	StateMissing    = "missing"    // registered, but not configured on this leader: nobody delivers
)

// Status is how a notifier stands, as this node knows it.
type Status struct {
	Name      string       `json:"name"`
	State     string       `json:"state"`
	Cursor    fsm.Revision `json:"cursor"`    // everything up to it is delivered, but for lagging lanes
	Frontier  fsm.Revision `json:"frontier"`  // read up to
	Lanes     int          `json:"lanes"`     // with undelivered changes
	Failing   int          `json:"failing"`   // lanes whose last delivery failed
	Delivered uint64       `json:"delivered"` // counts are of this leader's term
	Failed    uint64       `json:"failed"`
	Dead      uint64       `json:"dead"` // given up and recorded
	Lost      uint64       `json:"lost"` // trimmed before delivery
	Worst     []LaneStatus `json:"worst,omitempty"`
}

// LaneStatus is a failing lane.
type LaneStatus struct {
	Lane     string       `json:"lane"`
	Revision fsm.Revision `json:"revision"` // of the change that fails
	Failures int          `json:"failures"`
	Error    string       `json:"error"`
	Next     time.Time    `json:"next"` // attempt
}

// Status returns how all notifiers stand that are configured here or, on a
// leader, registered; by name. It is at most a second old.
func (d *Dispatcher) Status() []Status {
	d.mu.Lock()
	runners := slices.Clone(d.runners)
	d.mu.Unlock()
	var out []Status
	for _, r := range runners {
		out = append(out, *r.status.Load())
	}
	if len(runners) == 0 {
		for _, n := range d.o.Notifiers {
			out = append(out, Status{Name: n.Name(), State: StateStandby})
		}
	}
	if missing := d.missing.Load(); missing != nil {
		if _, _, leads := d.o.Leader.Leading(); leads {
			for _, n := range *missing {
				out = append(out, Status{Name: n.Name, State: StateMissing, Cursor: n.Cursor, Frontier: n.Cursor})
			}
		}
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// publish makes the runner's state visible to Status.
func (r *runner) publish() {
	s := &Status{Name: r.name, State: StateDelivering, Cursor: r.logged.cursor, Frontier: r.frontier, Lanes: len(r.lanes),
		Delivered: r.counts.delivered, Failed: r.counts.failed, Dead: r.counts.dead, Lost: r.counts.lost}
	for _, l := range r.lanes {
		if l.failures == 0 || len(l.queue) == 0 {
			continue
		}
		s.Failing++
		s.Worst = append(s.Worst, LaneStatus{Lane: l.key, Revision: l.queue[0].Revision, Failures: l.failures, Error: shorten(l.lastErr), Next: l.due})
	}
	if r.held {
		s.State = StatePaused
	}
	recent := slices.Clone(r.history)
	r.recent.Store(&recent)
	slices.SortFunc(s.Worst, func(a, b LaneStatus) int { return cmp.Compare(a.Revision, b.Revision) })
	s.Worst = s.Worst[:min(len(s.Worst), shownFailedLanes)]
	r.status.Store(s)
}
