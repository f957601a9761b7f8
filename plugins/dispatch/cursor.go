package dispatch

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"quinto/fsm"
)

// progress is what the log knows of a notifier.
type progress struct {
	cursor fsm.Revision
	lanes  []fsm.Lane
}

func (p progress) equal(o progress) bool {
	return p.cursor == o.cursor && slices.Equal(p.lanes, o.lanes)
}

// progress returns the highest cursor that the table of lanes allows: the lanes
// that are furthest behind go into the table, and where it ends the cursor
// waits for the first that has no place in it. Apply never lowers a cursor, so a
// lane that lags behind one ever proposed keeps its place, also when another
// leader's table was longer.
func (r *runner) progress() progress {
	p := progress{cursor: r.frontier}
	for _, l := range r.lanes {
		if at := l.position(r.frontier); at < r.frontier {
			p.lanes = append(p.lanes, fsm.Lane{Key: l.key, Revision: at})
		}
	}
	slices.SortFunc(p.lanes, func(a, b fsm.Lane) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Key, b.Key))
	})
	most := r.d.o.Lanes
	for most < len(p.lanes) && p.lanes[most].Revision < r.proposed {
		most++
	}
	if len(p.lanes) > most {
		p.cursor = p.lanes[most].Revision
		p.lanes = p.lanes[:most]
		for len(p.lanes) > 0 && p.lanes[len(p.lanes)-1].Revision >= p.cursor {
			p.lanes = p.lanes[:len(p.lanes)-1]
		}
	}
	return p
}

// saveRest logs the progress as soon as all is delivered that can be, once in an interval:
// what comes seldom is noted at once, and a leader that reigns for less than an interval
// leaves something behind too.
func (r *runner) saveRest(ctx context.Context) {
	if r.unsaved && r.busy == 0 && len(r.ready) == 0 && time.Since(r.looked) >= r.d.o.CursorInterval {
		r.save(ctx)
	}
}

// save begins to log the progress, unless it is logged or an entry is under way.
func (r *runner) save(ctx context.Context) {
	if r.saving {
		return
	}
	r.unsaved, r.looked = false, time.Now()
	p := r.progress()
	if p.equal(r.logged) || r.ahead != nil && !r.moved && time.Since(r.idle) < declaredSave {
		return
	}
	r.moved, r.idle = false, time.Now()
	r.saving, r.pending, r.proposed = true, p, p.cursor
	go func() { r.saved <- r.logProgress(ctx, p) }()
}

func (r *runner) logProgress(ctx context.Context, p progress) error {
	_, err := r.d.propose(ctx, r.term, fsm.Txn{Now: r.d.o.Leader.Now(), Ops: []fsm.Op{
		{Type: fsm.OpAdvanceCursor, Name: r.name, Revision: p.cursor, Lanes: p.lanes},
	}})
	return err
}

func (r *runner) noteSaved(err error) {
	r.saving = false
	if err == nil {
		r.logged = r.pending
		return
	}
	r.moved = true // not yet written down
	if !errors.Is(err, fsm.ErrNotLeader) && !errors.Is(err, context.Canceled) {
		r.log.Warn("the cursor could not be logged; it is tried again", "error", err)
	}
}

// saveNow logs the progress and waits for it.
func (r *runner) saveNow(ctx context.Context) error {
	p := r.progress()
	if p.equal(r.logged) {
		return nil
	}
	r.saving, r.pending, r.proposed = true, p, p.cursor
	err := r.logProgress(ctx, p)
	r.noteSaved(err)
	return err
}

// flush stops sending for a while, lets what is under way end, and logs the
// progress.
func (r *runner) flush(ctx context.Context) error {
	r.paused = time.Now().Add(flushPause)
	grace := time.NewTimer(r.d.o.Grace)
	defer grace.Stop()
	for waiting := true; r.busy > 0 && waiting; {
		select {
		case res := <-r.results:
			r.settle(res)
		case <-grace.C:
			waiting = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if r.saving {
		r.noteSaved(<-r.saved)
	}
	return r.saveNow(ctx)
}
