package dispatch

import (
	"fmt"
	"slices"

	"quinto/fsm"
)

// tie is what a lane waits for before its head is sent: another lane, up to a revision.
//
// A group of Kinto's may have objects of several lanes, as when one request creates two
// collections. It is one delivery, in the place of its first object, and has a place in
// the order of each of its lanes: the first object's lane waits until the others are
// through with all before the group, and theirs wait until the group is delivered. A lane
// waits for smaller revisions only, so no lanes can wait for each other in a circle.
type tie struct {
	key  string
	upTo fsm.Revision
}

// tiedError is how a worker says that it has sent nothing, since a lane has to wait.
type tiedError struct{ ties []tie }

// Error implements error.
func (e *tiedError) Error() string { return fmt.Sprintf("dispatch: waits for %d lanes", len(e.ties)) }

// tie has l wait; what it waits for may fail, so it takes no more memory than one that does.
func (r *runner) tie(l *lane, ties []tie) {
	r.keepHead(l)
	l.ties, l.state = ties, laneTied
	r.tied = append(r.tied, l)
}

// release lets the lanes go on that need not wait any more.
func (r *runner) release() {
	r.tied = slices.DeleteFunc(r.tied, func(l *lane) bool {
		for _, t := range l.ties {
			at := r.frontier
			if other := r.lanes[t.key]; other != nil {
				at = other.position(r.frontier)
			}
			if at < t.upTo {
				return false
			}
		}
		l.free, l.ties, l.state = l.queue[0].Revision, nil, laneReady
		if l.failures > 0 {
			r.retry = append(r.retry, l)
		} else {
			r.ready = append(r.ready, l)
		}
		return true
	})
}
