package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

var (
	// errFenced: the delivery was not begun, or was cut off by us.
	errFenced = errors.New("dispatch: not delivered by this leader")
	// errGone: the event was trimmed before it could be delivered.
	errGone = errors.New("dispatch: beyond the retention")
)

// job is one head for a worker.
type job struct {
	lane    *lane // for the result; a worker does not look into it
	event   *fsm.Event
	attempt int
	again   bool  // counts as a retry
	free    bool  // it has waited for the other lanes of its group
	bury    bool  // record it as a dead letter
	cause   error // why
}

type result struct {
	job
	err error
}

// startWorkers returns a channel that is closed when all workers have ended:
// after r.jobs was closed.
func (r *runner) startWorkers(ctx context.Context) <-chan struct{} {
	var wg sync.WaitGroup
	var bury sync.Mutex
	for range r.bounds.workers {
		wg.Go(func() {
			for j := range r.jobs {
				res := result{job: j}
				if j.bury {
					bury.Lock()
					res.err = r.buryLetter(ctx, j)
					bury.Unlock()
				} else {
					res.err = r.deliver(ctx, j)
				}
				r.results <- res
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	return ended
}

// deliver sends one event. Leadership and bodies come from one view.
func (r *runner) deliver(ctx context.Context, j job) (err error) {
	if ctx.Err() != nil {
		return errFenced
	}
	d := plugins.Delivery{Notifier: r.name, Cluster: r.cluster, Event: j.event, Attempt: j.attempt,
		ID: plugins.DeliveryID(r.cluster, r.name, j.event.Revision)}
	if g, ok := r.n.(plugins.Grouping); ok && g.Grouped() {
		var ties []tie
		d.Impacted, ties, err = r.group(j.event)
		if err == nil && len(ties) > 0 && !j.free {
			err = &tiedError{ties}
		}
		if err != nil || d.Impacted == nil {
			return err
		}
	} else if d.Old, d.New, err = r.bodies(j.event); err != nil {
		return err
	}
	r.conceal(&d)
	if err = r.look(&d); err != nil {
		return err
	}
	inner, cancel := context.WithTimeout(ctx, r.d.o.DeliverTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("notifier panicked: %v", p)
		}
	}()
	defer r.d.o.Meter.Since(r.d.o.Meter.Now(), r.metric)
	if err = r.n.Deliver(inner, d); err != nil && ctx.Err() != nil {
		return errFenced // cut off by us
	}
	return err
}

// conceal takes out what the kinds of the objects hide.
func (r *runner) conceal(d *plugins.Delivery) {
	without := func(o *fsm.Object) *fsm.Object {
		if o == nil || len(r.d.o.Hidden[o.Path.List().ID()]) == 0 {
			return o
		}
		shown := *o
		for _, field := range r.d.o.Hidden[o.Path.List().ID()] {
			shown.Data = canon.Delete(shown.Data, field)
		}
		return &shown
	}
	for i := range d.Impacted {
		d.Impacted[i].Old, d.Impacted[i].New = without(d.Impacted[i].Old), without(d.Impacted[i].New)
	}
	if d.Impacted != nil {
		d.Old, d.New = d.Impacted[0].Old, d.Impacted[0].New
		return
	}
	d.Old, d.New = without(d.Old), without(d.New)
}

// look lets a Looking notifier read. Errors: errFenced, and its own.
func (r *runner) look(d *plugins.Delivery) (err error) {
	n, ok := r.n.(plugins.Looking)
	if !ok {
		return nil
	}
	v, err := r.d.view(r.term)
	if err != nil {
		return fmt.Errorf("%w: %w", errFenced, err)
	}
	defer v.Close()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("notifier panicked: %v", p)
		}
	}()
	d.Seen, err = n.Look(v, d)
	return err
}

// bodies reads what stood at the event's path before and after it. Errors:
// errFenced, errGone.
func (r *runner) bodies(e *fsm.Event) (before, after *fsm.Object, err error) {
	v, err := r.d.view(r.term)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errFenced, err)
	}
	defer v.Close()
	return bodiesOf(v, e)
}

func bodiesOf(v *fsm.View, e *fsm.Event) (before, after *fsm.Object, err error) {
	get := func(revision fsm.Revision) (*fsm.Object, error) {
		o, err := v.Version(e.Path, revision)
		switch {
		case err == nil:
			return &o, nil
		case errors.Is(err, fsm.ErrTrimmed) && e.Revision <= v.EventFloor():
			return nil, errGone
		case errors.Is(err, fsm.ErrTrimmed):
			return nil, fmt.Errorf("body of %s at revision %d is missing", e.Path, revision)
		default:
			return nil, fmt.Errorf("%w: %w", errFenced, err)
		}
	}
	if e.OldRevision != 0 {
		if before, err = get(e.OldRevision); err != nil {
			return nil, nil, err
		}
	}
	if e.Action == fsm.ActionCreate || e.Action == fsm.ActionUpdate {
		after, err = get(e.Revision)
	}
	return before, after, err
}

// DeadLetter is what is kept of a change that was given up: the value of the
// replicated setting DeadLetterName.
type DeadLetter struct {
	ID       string        `json:"id"` // of the delivery
	Revision fsm.Revision  `json:"revision"`
	Action   string        `json:"action"`
	Path     fsm.Path      `json:"path"`
	Time     fsm.Timestamp `json:"time"` // of the change, ms
	Buried   fsm.Timestamp `json:"buried"`
	Attempts int           `json:"attempts"` // of the last leader
	Error    string        `json:"error"`
}

// DeadLetterPrefix begins the names of a notifier's dead letters.
func DeadLetterPrefix(notifier string) string { return "dead/" + notifier + "/" }

// DeadLetterName is the replicated setting that holds one dead letter; names
// sort by revision.
func DeadLetterName(notifier string, revision fsm.Revision) string {
	return fmt.Sprintf("%s%020d", DeadLetterPrefix(notifier), revision)
}

// buryLetter records j as a dead letter, dropping the oldest ones beyond
// MaxDeadLetters. Called by one goroutine at a time.
func (r *runner) buryLetter(ctx context.Context, j job) error {
	v, err := r.d.view(r.term)
	if err != nil {
		return err
	}
	var names []string
	err = v.Settings(DeadLetterPrefix(r.name), func(name string, _ []byte) bool {
		names = append(names, name)
		return true
	})
	v.Close()
	if err != nil {
		return err
	}
	now := r.d.o.Leader.Now()
	value, err := json.Marshal(DeadLetter{
		ID: plugins.DeliveryID(r.cluster, r.name, j.event.Revision), Revision: j.event.Revision, Action: j.event.Action.String(),
		Path: j.event.Path, Time: j.event.Time, Buried: now, Attempts: j.attempt - 1, Error: shorten(j.cause),
	})
	if err != nil {
		return err
	}
	t := fsm.Txn{Now: now}
	for len(names) >= MaxDeadLetters {
		r.log.Error("the table of dead letters is full; the oldest is forgotten", "name", names[0])
		t.Ops = append(t.Ops, fsm.Op{Type: fsm.OpSetSetting, Name: names[0]})
		names = names[1:]
	}
	t.Ops = append(t.Ops, fsm.Op{Type: fsm.OpSetSetting, Name: DeadLetterName(r.name, j.event.Revision), Value: value})
	_, err = r.d.propose(ctx, r.term, t)
	return err
}

func shorten(err error) string {
	if err == nil {
		return ""
	}
	s := err.Error()
	if len(s) > MaxErrorBytes {
		s = strings.ToValidUTF8(s[:MaxErrorBytes], "")
	}
	return s
}

// finish ends the workers and logs the cursor a last time, if the term goes on.
func (r *runner) finish(ctx context.Context, ended <-chan struct{}) {
	close(r.jobs)
	select {
	case <-ended:
	case <-ctx.Done():
		select {
		case <-ended:
		case <-time.After(abandonAfter):
			r.log.Error("a delivery ignores the end of its context and is left behind", "workers", r.busy)
		}
	}
	r.take()
	if r.saving {
		r.noteSaved(<-r.saved)
	}
	if term, _, ok := r.d.o.Leader.Leading(); ok && term == r.term {
		last, cancel := context.WithTimeout(context.Background(), r.d.o.Grace)
		defer cancel()
		_ = r.saveNow(last) // said in the log by noteSaved; without it the next leader repeats a little
	}
	r.publish()
}
