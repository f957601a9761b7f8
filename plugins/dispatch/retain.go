package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"quinto/fsm"
)

// Lagged is the value of the replicated setting LaggedName: the notifier has
// missed events that retention could not keep any longer.
type Lagged struct {
	From fsm.Revision  `json:"from"` // delivered up to
	To   fsm.Revision  `json:"to"`   // trimmed up to
	Time fsm.Timestamp `json:"time"` // ms
	Told bool          `json:"told"` // the receiver knows
}

// LaggedName is the replicated setting that marks a notifier as lagged.
func LaggedName(notifier string) string { return "lagged/" + notifier }

// retain trims the events that retention lets go, as long as the term lasts.
func (d *Dispatcher) retain(ctx context.Context, term uint64) {
	tick := time.NewTicker(d.o.Retention.Every)
	defer tick.Stop()
	for {
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = d.trim(ctx, term); err != nil && ctx.Err() == nil && !errors.Is(err, fsm.ErrNotLeader) {
				d.log.Warn("events could not be trimmed", "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-d.closing:
			return
		case <-ctx.Done():
			return
		}
	}
}

// trim logs one step of trimming, if there is enough to trim, and reports
// whether another one may follow.
func (d *Dispatcher) trim(ctx context.Context, term uint64) (more bool, err error) {
	d.marks.Lock()
	defer d.marks.Unlock()
	v, err := d.view(term)
	if err != nil {
		return false, err
	}
	defer v.Close()
	target, lagging, err := d.target(v)
	if err != nil {
		return false, err
	}
	lives, err := v.Lives()
	if err != nil {
		return false, err
	}
	floor, step := v.EventFloor(), d.o.Retention.Step
	if target < lives.Forward(floor, max(1, min(step, d.o.Retention.Keep/100))) {
		return false, nil
	}
	next := min(target, lives.Forward(floor, step))
	t := fsm.Txn{Now: d.o.Leader.Now(), Ops: []fsm.Op{{Type: fsm.OpTrimEvents, Revision: next}}}
	for _, n := range lagging {
		if at := slowest(n); at < next {
			mark, err := loss(v, n.Name, at, next, t.Now)
			if err != nil {
				return false, err
			}
			t.Ops = append(t.Ops, fsm.Op{Type: fsm.OpSetSetting, Name: LaggedName(n.Name), Value: mark})
			d.log.Error("a notifier lags beyond the retention: it loses events", "notifier", n.Name, "delivered", at, "trimmed", next)
		}
	}
	_, err = d.propose(ctx, term, t)
	return err == nil && next < target, err
}

// loss is the mark of a notifier that loses what is above at, up to next, with what an
// older mark says that nobody was told of yet.
func loss(v *fsm.View, name string, at, next fsm.Revision, now fsm.Timestamp) ([]byte, error) {
	value, err := v.Setting(LaggedName(name))
	if err != nil {
		return nil, err
	}
	mark, old := Lagged{From: at, To: next, Time: now}, Lagged{}
	if value != nil && json.Unmarshal(value, &old) == nil && !old.Told {
		mark.From = min(mark.From, old.From)
	}
	return json.Marshal(mark)
}

// target returns the revision up to which events may go, and the notifiers
// that have not delivered all of them.
func (d *Dispatcher) target(v *fsm.View) (fsm.Revision, []fsm.Notifier, error) {
	keep := d.o.Retention
	registered, err := v.Notifiers()
	if err != nil {
		return 0, nil, err
	}
	limit, err := v.TrimLimit()
	if err != nil {
		return 0, nil, err
	}
	lives, err := v.Lives()
	if err != nil {
		return 0, nil, err
	}
	target := lives.Back(v.Revision(), keep.Keep)
	if keep.Age > 0 {
		old, err := d.aged(v, d.o.Leader.Now()-fsm.Timestamp(keep.Age.Milliseconds()))
		if err != nil {
			return 0, nil, err
		}
		target = max(target, old)
	}
	hard := lives.Back(v.Revision(), keep.HardCap)
	var lagging []fsm.Notifier
	for _, n := range registered {
		at := slowest(n)
		if at < hard {
			lagging = append(lagging, n)
		}
		target = min(target, max(at, hard))
	}
	// What the table of remembered requests holds cannot go yet: asking for it
	// would be an entry without an effect.
	return min(target, limit), lagging, nil
}

// slowest is the revision up to which everything of n is delivered.
func slowest(n fsm.Notifier) fsm.Revision {
	at := n.Cursor
	for _, l := range n.Lanes {
		at = min(at, l.Revision)
	}
	return at
}

// aged finds, by bisection, the highest revision whose event is older than
// limit; times of events rise with the revision, but for steps of the clock.
func (d *Dispatcher) aged(v *fsm.View, limit fsm.Timestamp) (fsm.Revision, error) {
	low, high := v.EventFloor(), v.Revision()
	for low < high {
		middle := low + (high-low)/2
		at, found, young := fsm.Revision(0), false, true
		err := v.Events(middle, func(e *fsm.Event) bool {
			at, found, young = e.Revision, true, e.Time >= limit
			return false
		})
		switch {
		case err != nil:
			return 0, err
		case !found || young:
			high = middle
		default:
			low = at
		}
	}
	return low, nil
}
