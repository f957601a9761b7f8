package dispatch

import (
	"time"

	"quinto/fsm"
)

// laneState says where a lane's head stands.
type laneState uint8

const (
	laneEmpty   laneState = iota // nothing in memory to send
	laneReady                    // in runner.ready or runner.retry
	laneSending                  // with a worker
	laneWaiting                  // in runner.waiting until due
	laneTied                     // in runner.tied until other lanes have come far enough
)

// lane is an order of events that are not delivered yet. The runner forgets a
// lane as soon as it is empty and not behind.
type lane struct {
	key   string
	queue []*fsm.Event // in order; the head stays until it is delivered
	state laneState

	// behind: events of the lane above tail are in the store only. Otherwise
	// all its events up to the runner's frontier are, or were, in queue.
	behind bool
	tail   fsm.Revision
	pass   uint64 // the catch-up pass that the lane takes part in

	failures int // in a row
	since    time.Time
	due      time.Time
	lastErr  error
	bury     bool // the head is given up and to be recorded
	rewound  bool // with a worker while a replay asked for it: it begins behind back again
	back     fsm.Revision
	needs    bool // is in runner.needy

	ties []tie        // what it waits for
	free fsm.Revision // of a head that has waited for its ties
}

// position is the revision up to which everything of the lane is delivered.
func (l *lane) position(frontier fsm.Revision) fsm.Revision {
	switch {
	case l.rewound:
		return min(l.back, l.queue[0].Revision-1)
	case len(l.queue) > 0:
		return l.queue[0].Revision - 1
	case l.behind:
		return l.tail
	default:
		return frontier
	}
}

// waiting is a heap of lanes by due (container/heap).
type waiting []*lane

func (w waiting) Len() int           { return len(w) }
func (w waiting) Less(i, j int) bool { return w[i].due.Before(w[j].due) }
func (w waiting) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }

// Push implements heap.Interface.
func (w *waiting) Push(x any) { *w = append(*w, x.(*lane)) }

// Pop implements heap.Interface.
func (w *waiting) Pop() any {
	old := *w
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	return l
}
