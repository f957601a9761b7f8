package dispatch

import (
	"errors"
	"time"

	"quinto/fsm"
)

// read fills the lanes from the event log, a bounded piece at a time, and
// reports whether there is more to read now.
func (r *runner) read() bool {
	if r.skip(); !r.beyond(r.readTo) && len(r.needy) == 0 && r.ahead != nil {
		return false
	}
	v, err := r.d.view(r.term)
	if err != nil {
		r.readFailed(err)
		return false
	}
	defer v.Close()
	beyond := r.beyond(v.Revision())
	if len(r.needy) > 0 && (r.catchUp || !beyond) {
		r.catchUp = false
		err = r.refill(v)
	} else if beyond {
		r.catchUp = true
		err = r.forward(v)
	}
	if err != nil {
		r.readFailed(err)
		return false
	}
	return r.beyond(v.Revision()) || len(r.needy) > 0
}

// beyond reports whether there may be events to read above the frontier, in a log that
// ends at end, and room for them.
func (r *runner) beyond(end fsm.Revision) bool {
	if r.ahead != nil {
		end = min(end, r.readTo)
	}
	return r.frontier < end && !r.full()
}

func (r *runner) readFailed(err error) {
	r.broken = time.Now().Add(errorPause / 10)
	if !errors.Is(err, fsm.ErrNotLeader) {
		r.log.Error("events could not be read", "error", err)
		r.broken = time.Now().Add(errorPause)
	}
}

// full reports whether reading beyond the frontier has to wait for memory.
func (r *runner) full() bool {
	return r.queued >= r.bounds.events || len(r.lanes) >= r.bounds.lanes
}

// room is how many events a lane may hold: one that fails or is tied only its head, and
// every one only its head while the memory is full, so that failing lanes can
// fill it and not stop the others.
func (r *runner) room(l *lane) int {
	if l.failures > 0 || l.state == laneTied || r.queued >= r.bounds.events {
		return 1
	}
	return r.d.o.LaneEvents
}

// want notes that l is behind and has room.
func (r *runner) want(l *lane) {
	if !l.needs {
		l.needs = true
		r.needy = append(r.needy, l)
	}
}

// forward reads beyond the frontier.
func (r *runner) forward(v *fsm.View) error {
	if r.frontier < v.EventFloor() {
		r.lose(r.frontier, v.EventFloor())
		r.frontier = v.EventFloor()
	}
	end, read := v.Revision(), 0
	if r.ahead != nil {
		end = min(end, r.readTo)
	}
	last := end
	err := v.Events(r.frontier, func(e *fsm.Event) bool {
		if e.Revision > last {
			return false
		}
		if read++; read > frontierEvents || r.full() {
			end = e.Revision - 1
			return false
		}
		if r.matches(e) {
			r.place(e)
		}
		return true
	})
	if err == nil {
		r.frontier = end
		r.changed = nil
	}
	return err
}

// matches tells whether the notifier is told of e.
func (r *runner) matches(e *fsm.Event) bool { return !e.Quiet && r.n.Match(e) }

// place puts an event from beyond the frontier into its lane.
func (r *runner) place(e *fsm.Event) {
	key := r.n.Lane(e)
	l := r.lanes[key]
	switch {
	case l == nil:
		r.push(r.add(key, &lane{}), e)
	case l.behind:
	case len(l.queue) >= r.room(l):
		l.behind, l.tail = true, e.Revision-1
	default:
		r.push(l, e)
	}
}

func (r *runner) push(l *lane, e *fsm.Event) {
	l.queue = append(l.queue, e)
	r.queued++
	switch {
	case l.state != laneEmpty:
	case l.failures > 0: // after a dead letter: the receiver is not asked faster because changes are given up
		r.delay(l, r.d.o.Retry.Bury)
	default:
		l.state = laneReady
		r.ready = append(r.ready, l)
	}
}

// refill reads again what lanes that are behind had no room for. One pass
// serves every lane whose tail is at or above its start.
func (r *runner) refill(v *fsm.View) error {
	from := r.passStart()
	if floor := v.EventFloor(); from < floor {
		r.lose(from, floor)
		from = floor
	}
	r.passes++
	open := 0
	for _, l := range r.lanes {
		if !l.behind || len(l.queue) >= r.room(l) {
			continue
		}
		if l.tail = max(l.tail, v.EventFloor()); l.tail >= from {
			l.pass = r.passes
			open++
		}
	}
	end, read := r.frontier, 0
	err := v.Events(from, func(e *fsm.Event) bool {
		if e.Revision > r.frontier {
			return false
		}
		if read++; read > catchUpEvents || open == 0 {
			end = e.Revision - 1
			return false
		}
		if r.matches(e) && !r.again(e) {
			open--
		}
		return true
	})
	if err != nil {
		return err
	}
	r.endPass(end)
	return nil
}

// passStart takes the lane that has waited longest, and goes back a little if
// that lets the pass serve others too.
func (r *runner) passStart() fsm.Revision {
	first := r.needy[0].tail
	from := first
	for _, l := range r.needy[1:] {
		if l.tail < from && first-l.tail <= catchUpEvents/2 {
			from = l.tail
		}
	}
	return from
}

// again puts an event that is read once more into its lane, if that takes part
// in the pass and lacks it. It returns false when the lane has no more room.
func (r *runner) again(e *fsm.Event) bool {
	l := r.lanes[r.n.Lane(e)]
	if l == nil || l.pass != r.passes || e.Revision <= l.tail {
		return true
	}
	if len(l.queue) >= r.room(l) {
		l.pass, l.tail = 0, e.Revision-1
		return false
	}
	l.tail = e.Revision
	r.push(l, e)
	return true
}

// endPass notes that the lanes of the pass have everything up to end, and
// keeps those needy that are still behind and have room.
func (r *runner) endPass(end fsm.Revision) {
	for _, l := range r.lanes {
		if l.pass != r.passes {
			continue
		}
		if l.tail = max(l.tail, end); l.tail >= r.frontier {
			l.behind = false
			if len(l.queue) == 0 && l.state == laneEmpty {
				delete(r.lanes, l.key)
			}
		}
	}
	old := r.needy
	r.needy = r.needy[:0:0]
	for _, l := range old {
		l.needs = false
		if l.behind && len(l.queue) <= r.room(l)/2 {
			r.want(l)
		}
	}
	// The one that was served goes to the end of the line.
	if len(r.needy) > 1 && r.needy[0] == old[0] {
		r.needy = append(r.needy[1:], old[0])
	}
}

// lose says that events were trimmed before this notifier could have them.
func (r *runner) lose(from, floor fsm.Revision) {
	r.counts.lost++
	r.log.Error("events were trimmed before they were delivered: the notifier lagged beyond the retention", "after", from, "up_to", floor)
}
