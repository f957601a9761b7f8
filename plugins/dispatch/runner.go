package dispatch

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// Pauses of a runner.
const (
	errorPause = time.Second     // after a read that failed
	flushPause = 3 * time.Second // of deliveries after Flush
)

// runner delivers to one notifier in one term. One goroutine owns everything
// in it but the channels and status.
type runner struct {
	d       *Dispatcher
	n       plugins.Notifier
	name    string
	metric  string // of its deliveries' time
	log     *slog.Logger
	term    uint64
	cluster string

	bounds bounds
	ahead  *ahead       // where the events of a declared notifier are; nil: it reads all
	readTo fsm.Revision // of a declared notifier: below the frontier nothing is to be read
	moved  bool         // something was delivered, or failed, since the last cursor entry
	idle   time.Time    // of the last cursor entry

	frontier fsm.Revision // events up to it are in lanes, delivered, or of lanes that are behind
	lanes    map[string]*lane
	queued   int     // events in all queues
	ready    []*lane // heads never tried
	retry    []*lane // heads that failed, due now
	needy    []*lane // behind, with room in the queue
	waiting  waiting
	tied     []*lane // waiting for other lanes
	passes   uint64
	catchUp  bool // whose turn it is to read, when both have something

	busy, retrying int // lanes with workers
	jobs           chan job
	results        chan result
	flushes        chan chan error
	done           chan struct{}

	logged   progress     // what the last cursor entry said
	saved    chan error   // of the cursor entry under way
	saving   bool         // one is under way
	pending  progress     // what it says
	proposed fsm.Revision // highest cursor that an entry said
	unsaved  bool         // something was settled since the last look at the progress
	looked   time.Time    // when that was
	paused   time.Time    // no deliveries before
	broken   time.Time    // no reading before: the last one failed
	counts   counts       // for Status
	status   atomic.Pointer[Status]
	changed  <-chan struct{}
	stopped  bool // closing: nothing new is sent

	held    bool           // paused by the operator, or by a receiver that is gone
	gone    string         // what it said, until that is written down
	side    sync.WaitGroup // dead letters that are sent again
	letters atomic.Bool    // they are

	telling      atomic.Bool  // of a loss
	lossDue      atomic.Int64 // not before, in ns
	lossFailures int          // of the one that is telling
	history      []Attempt    // the newest last
	recent       atomic.Pointer[[]Attempt]
}

type counts struct{ delivered, failed, dead, lost uint64 }

// bounds are those of one notifier's deliveries.
type bounds struct{ workers, events, lanes int }

func newRunner(d *Dispatcher, n plugins.Notifier, term uint64, cluster string, from fsm.Notifier) *runner {
	return newBoundedRunner(d, n, term, cluster, from, bounds{d.o.Workers, d.o.QueueEvents, MaxActiveLanes})
}

func newBoundedRunner(d *Dispatcher, n plugins.Notifier, term uint64, cluster string, from fsm.Notifier, most bounds) *runner {
	r := &runner{
		d: d, n: n, name: n.Name(), bounds: most, metric: "listeners." + n.Name() + ".seconds", log: d.log.With("notifier", n.Name()), term: term, cluster: cluster,
		frontier: from.Cursor, lanes: map[string]*lane{},
		jobs: make(chan job, most.workers), results: make(chan result, most.workers),
		flushes: make(chan chan error), done: make(chan struct{}), saved: make(chan error, 1),
	}
	r.logged, r.proposed = progress{cursor: from.Cursor, lanes: from.Lanes}, from.Cursor
	// The newest first: their few events are found at once, while a lane that
	// lags far behind takes long to read.
	lagging := slices.SortedFunc(slices.Values(from.Lanes), func(a, b fsm.Lane) int { return cmp.Compare(b.Revision, a.Revision) })
	for _, l := range lagging {
		if l.Revision < from.Cursor {
			r.want(r.add(l.Key, &lane{behind: true, tail: l.Revision}))
		}
	}
	r.publish()
	return r
}

func (r *runner) add(key string, l *lane) *lane {
	l.key = key
	r.lanes[key] = l
	return l
}

// run delivers until ctx ends or the dispatcher closes.
func (r *runner) run(ctx context.Context) {
	defer close(r.done)
	side, endSide := context.WithCancel(ctx)
	defer r.side.Wait()
	defer endSide()
	ended := r.startWorkers(ctx)
	r.control(side)
	tick := time.NewTicker(r.d.o.CursorInterval)
	defer tick.Stop()
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for ctx.Err() == nil {
		more := r.work()
		if r.stopped && r.busy == 0 {
			break
		}
		if !more {
			r.saveRest(ctx)
		}
		alarm.Reset(r.nextAlarm())
		if !r.await(ctx, side, tick.C, alarm.C, more) {
			break
		}
	}
	r.finish(ctx, ended)
}

// work does what can be done without waiting and reports whether there may be
// more of it.
func (r *runner) work() bool {
	if r.stopped {
		return false
	}
	r.wake(time.Now())
	more := false
	if time.Now().After(r.broken) {
		more = r.read()
	}
	r.release()
	if time.Now().After(r.paused) && !r.held {
		r.assign()
	}
	return more
}

// take settles the results that are there, without waiting.
func (r *runner) take() {
	for {
		select {
		case res := <-r.results:
			r.settle(res)
		default:
			return
		}
	}
}

// await waits for something to do, or with more only looks; false ends the
// runner.
func (r *runner) await(ctx, side context.Context, tick, alarm <-chan time.Time, more bool) bool {
	closing, goOn := r.d.closing, (<-chan struct{})(nil)
	if r.stopped {
		closing = nil
	}
	if more {
		goOn = always
	}
	select {
	case res := <-r.results:
		r.settle(res)
		r.take()
	case <-r.news():
		r.changed = nil
	case <-goOn:
		r.take()
	case <-alarm:
	case <-tick:
		r.control(side)
		if time.Since(r.looked) >= r.d.o.CursorInterval/2 { // else saveRest was here just now
			r.save(ctx)
		}
		r.publish()
	case err := <-r.saved:
		r.noteSaved(err)
	case reply := <-r.flushes:
		reply <- r.flush(ctx)
	case <-closing:
		r.stopped = true
	case <-ctx.Done():
		return false
	}
	return true
}

// always is closed: a select with it does not wait.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// news is closed when there are events beyond the frontier. While the memory is
// full nothing is read, and what frees it is a result.
func (r *runner) news() <-chan struct{} {
	if r.full() || r.stopped || time.Now().Before(r.broken) {
		return nil
	}
	if r.ahead != nil {
		return r.ahead.wake
	}
	if r.changed == nil {
		r.changed = r.d.o.State.Changed(r.frontier)
	}
	return r.changed
}

func (r *runner) nextAlarm() time.Duration {
	next := time.Hour
	now := time.Now()
	if len(r.waiting) > 0 {
		next = min(next, r.waiting[0].due.Sub(now))
	}
	for _, t := range []time.Time{r.paused, r.broken} {
		if t.After(now) {
			next = min(next, t.Sub(now))
		}
	}
	return max(next, time.Millisecond)
}

// wake moves the lanes whose backoff is over to the retries.
func (r *runner) wake(now time.Time) {
	for len(r.waiting) > 0 && !r.waiting[0].due.After(now) {
		l := heap.Pop(&r.waiting).(*lane)
		l.state = laneReady
		r.retry = append(r.retry, l)
	}
}

// assign hands heads to idle workers. Retries get half of the workers at most,
// so that a receiver that hangs in some lanes leaves room for the others.
func (r *runner) assign() {
	for r.busy < r.bounds.workers {
		switch {
		case len(r.ready) > 0:
			r.send(pop(&r.ready), false)
		case len(r.retry) > 0 && r.retrying < max(1, r.bounds.workers/2):
			r.send(pop(&r.retry), true)
		default:
			return
		}
	}
}

func pop(list *[]*lane) *lane {
	l := (*list)[0]
	(*list)[0] = nil
	*list = (*list)[1:]
	return l
}

func (r *runner) send(l *lane, again bool) {
	l.state = laneSending
	r.busy++
	if again {
		r.retrying++
	}
	r.jobs <- job{lane: l, event: l.queue[0], attempt: l.failures + 1, again: again, free: l.free == l.queue[0].Revision, bury: l.bury, cause: l.lastErr}
}

// settle takes the outcome of one job.
func (r *runner) settle(res result) {
	l := res.lane
	r.unsaved = true
	r.busy--
	r.moved = true
	if res.again {
		r.retrying--
	}
	r.note(&res)
	var tied *tiedError
	switch {
	case l.rewound:
		r.restart(l, min(l.back, l.queue[0].Revision-1))
	case errors.As(res.err, &tied):
		r.tie(l, tied.ties)
	case errors.Is(res.err, errFenced):
		// Not delivered, and nothing of the receiver's fault: the term ends, or
		// the state could not be read for a moment.
		r.delay(l, errorPause/10)
	case errors.Is(res.err, errGone):
		r.counts.lost++
		r.log.Error("an event was trimmed before it was delivered", "revision", res.event.Revision, "path", res.event.Path)
		r.advance(l)
	case res.bury && res.err != nil:
		r.log.Warn("a dead letter could not be recorded yet", "revision", res.event.Revision, "error", res.err)
		r.delay(l, errorPause)
	case res.bury:
		r.buried(l, res)
	case res.err == nil:
		r.counts.delivered++
		l.failures, l.lastErr = 0, nil
		r.advance(l)
	default:
		r.failed(l, res)
	}
}

// advance drops the head, which is done with, and makes the next one ready.
func (r *runner) advance(l *lane) {
	l.queue[0] = nil
	l.queue = l.queue[1:]
	r.queued--
	l.state = laneEmpty
	if len(l.queue) > 0 {
		l.state = laneReady
		r.ready = append(r.ready, l)
	}
	if l.behind {
		if len(l.queue) <= r.room(l)/2 {
			r.want(l)
		}
	} else if len(l.queue) == 0 {
		delete(r.lanes, l.key)
	}
}

// failed keeps the head for another attempt and leaves the rest of the lane to
// the store.
func (r *runner) failed(l *lane, res result) {
	now := time.Now()
	r.counts.failed++
	if l.failures == 0 {
		l.since = now
	}
	l.failures++
	l.lastErr = res.err
	r.keepHead(l)
	retry := r.d.o.Retry
	age := time.Duration(r.d.o.Leader.Now()-res.event.Time) * time.Millisecond
	if plugins.IsPermanent(res.err) || age >= retry.GiveUp && now.Sub(l.since) >= retry.Patience {
		l.bury = true
		l.state = laneReady
		r.retry = append(r.retry, l)
		return
	}
	if plugins.IsGone(res.err) && !r.held {
		r.held, r.gone = true, shorten(res.err)
		r.log.Error("the receiver wants no more: deliveries are paused until they are resumed (quinto hooks resume)", "error", res.err)
	}
	pause := retry.pause(l.failures)
	var after *plugins.RetryAfter
	if errors.As(res.err, &after) {
		pause = max(pause, min(after.After, retry.Max))
	}
	if l.failures == 1 {
		r.log.Warn("a delivery failed and is tried again", "lane", l.key, "revision", res.event.Revision, "pause", pause, "error", res.err)
	}
	r.delay(l, pause)
}

// keepHead leaves all but the head of a lane that waits to the store.
func (r *runner) keepHead(l *lane) {
	if len(l.queue) > 1 {
		l.behind, l.tail = true, l.queue[0].Revision
		r.queued -= len(l.queue) - 1
		l.queue = []*fsm.Event{l.queue[0]}
	}
}

// buried goes on after a dead letter.
func (r *runner) buried(l *lane, res result) {
	r.counts.dead++
	r.log.Error("a change was given up and recorded as a dead letter", "lane", l.key, "revision", res.event.Revision, "path", res.event.Path, "error", l.lastErr)
	l.bury = false
	if plugins.IsPermanent(l.lastErr) {
		l.failures, l.lastErr = 0, nil
	}
	r.advance(l)
}

func (r *runner) delay(l *lane, pause time.Duration) {
	l.state = laneWaiting
	l.due = time.Now().Add(pause)
	heap.Push(&r.waiting, l)
}
