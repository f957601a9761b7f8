package dispatch

import (
	"errors"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// observe tells the observers of every change that this node applies from now
// on, in order, as long as the dispatcher runs. After a gap in the retention,
// as on a node that got a snapshot, it goes on from the state's revision.
func (d *Dispatcher) observe() {
	var at fsm.Revision
	for begun := false; ; {
		var pause <-chan time.Time
		v, err := d.o.State.View()
		switch {
		case err != nil:
			pause = time.After(errorPause)
		case !begun:
			at, begun = v.Revision(), true
			v.Close()
		default:
			at = d.tell(v, at)
			v.Close()
		}
		changed := d.o.State.Changed(at)
		if pause != nil {
			changed = nil
		}
		select {
		case <-changed:
		case <-pause:
		case <-d.closing:
			return
		}
	}
}

// tell passes on the events above from and returns where it stands then.
func (d *Dispatcher) tell(v *fsm.View, from fsm.Revision) fsm.Revision {
	err := v.Events(from, func(e *fsm.Event) bool {
		for _, o := range d.o.Observers {
			d.tellOne(o, e)
		}
		return true
	})
	if err != nil && !errors.Is(err, fsm.ErrTrimmed) {
		d.log.Warn("events could not be read for the observers", "error", err)
	}
	return v.Revision()
}

func (d *Dispatcher) tellOne(o plugins.Observer, e *fsm.Event) {
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("an observer panicked", "observer", o, "panic", p)
		}
	}()
	o.Observe(e)
}
