package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// scout follows the event log for all declared notifiers at once, in one term: it
// tells each where its events are, starts those that are declared and ends those that
// are no more. So hundreds of notifiers that have nothing to do cost no reading.
type scout struct {
	d       *Dispatcher
	log     interface{ Warn(string, ...any) }
	term    uint64
	cluster string

	at      fsm.Revision  // events up to it are sorted
	sorted  atomic.Uint64 // the same, for the runners
	stale   bool          // what is declared has changed
	again   bool          // something waits for another look at it
	synced  fsm.Revision  // what was declared then is known
	running map[string]*declaredRunner
	scopes  map[fsm.Path][]*runner
	wg      sync.WaitGroup
}

type declaredRunner struct {
	*runner
	end context.CancelFunc
}

// ahead is what the scout has told one runner.
type ahead struct {
	scout *scout
	wake  chan struct{} // has one when there is news

	mu          sync.Mutex
	first, last fsm.Revision // of the events found since take; 0: none
}

// note tells of an event.
func (a *ahead) note(r fsm.Revision) {
	a.mu.Lock()
	if a.first == 0 {
		a.first = r
	}
	a.last = r
	a.mu.Unlock()
}

func (a *ahead) ring() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// take returns where events are that note told of, and up to where there are no
// others.
func (a *ahead) take() (first, last, sorted fsm.Revision) {
	sorted = fsm.Revision(a.scout.sorted.Load()) // before the others: what is up to it was noted
	a.mu.Lock()
	defer a.mu.Unlock()
	first, last = a.first, a.last
	a.first, a.last = 0, 0
	return first, last, sorted
}

// skip moves the frontier of a declared notifier over what is not for it, once all
// that it was told of is read.
func (r *runner) skip() {
	if r.ahead == nil || r.frontier < r.readTo {
		return
	}
	first, last, sorted := r.ahead.take()
	if last <= r.frontier {
		r.frontier = max(r.frontier, sorted)
		return
	}
	r.frontier, r.readTo = max(r.frontier, first-1), last
}

// declares tells whether a name belongs to a Declaring plugin.
func (d *Dispatcher) declares(name string) bool {
	return slices.ContainsFunc(d.o.Declaring, func(p plugins.Declaring) bool { return strings.HasPrefix(name, p.Prefix()) })
}

// declared returns the declared notifiers of v by name, and the operations that tidy up.
func (d *Dispatcher) declared(v *fsm.View) (map[string]plugins.Scoped, []fsm.Op, error) {
	all := map[string]plugins.Scoped{}
	var tidy []fsm.Op
	for _, p := range d.o.Declaring {
		list, stale, err := p.Declared(v)
		if err != nil {
			return nil, nil, err
		}
		tidy = append(tidy, stale...)
		for _, n := range list {
			all[n.Name()] = n
		}
	}
	return all, tidy, nil
}

// follow runs a scout until ctx ends or the dispatcher closes.
func (d *Dispatcher) follow(ctx context.Context, term uint64, cluster string) {
	s := &scout{d: d, log: d.log, term: term, cluster: cluster, stale: true, running: map[string]*declaredRunner{}, scopes: map[fsm.Path][]*runner{}}
	defer s.wg.Wait()
	retry := time.NewTicker(errorPause)
	defer retry.Stop()
	for ctx.Err() == nil {
		changed := (<-chan struct{})(nil)
		more, err := s.look(ctx)
		switch {
		case err != nil && ctx.Err() == nil && !errors.Is(err, fsm.ErrNotLeader):
			s.log.Warn("declared notifiers: the state could not be read", "error", err)
		case err == nil && more:
			changed = always
		case err == nil:
			changed = d.o.State.Changed(s.at)
		}
		select {
		case <-changed:
		case <-retry.C:
		case <-d.closing:
			return
		case <-ctx.Done():
			return
		}
	}
}

// look sorts a piece of the log, and looks at what is declared when that may have
// changed. more: there is more to sort now.
func (s *scout) look(ctx context.Context) (more bool, err error) {
	v, err := s.d.view(s.term)
	if err != nil {
		return false, err
	}
	defer v.Close()
	if s.stale || s.again {
		if err := s.sync(ctx, v); err != nil {
			return false, err
		}
	}
	if err := s.sort(v); err != nil {
		return false, err
	}
	// What this piece has changed is looked at before the next one is sorted.
	return s.at < v.Revision() || s.stale, nil
}

// sort tells the runners of a piece of the log. It ends behind a change of what is
// declared: the events after that may be for somebody new.
func (s *scout) sort(v *fsm.View) error {
	end, read := v.Revision(), 0
	found := map[*runner]bool{}
	err := v.Events(max(s.at, v.EventFloor()), func(e *fsm.Event) bool {
		if read++; read > catchUpEvents || s.stale {
			end = e.Revision - 1
			return false
		}
		s.spot(e, found)
		s.stale = e.Revision > s.synced && slices.ContainsFunc(s.d.o.Declaring, func(p plugins.Declaring) bool { return p.Changes(e) })
		return true
	})
	if err != nil {
		return err
	}
	s.at = max(s.at, end)
	s.sorted.Store(uint64(s.at))
	for r := range found {
		r.ahead.ring()
	}
	return nil
}

// spot notes e for the runners that it is for.
func (s *scout) spot(e *fsm.Event, found map[*runner]bool) {
	at := fsm.Path("")
	plugins.Segments(e.Path, func(plural, id string) bool {
		at = at.Child(plural).Child(id)
		for _, r := range s.scopes[at] {
			if r.matches(e) {
				r.ahead.note(e.Revision)
				found[r] = true
			}
		}
		return at.Depth() < 4
	})
}

// sync makes the runners those that v declares.
func (s *scout) sync(ctx context.Context, v *fsm.View) error {
	v.Record() // what tidies up holds for what was read
	wanted, tidy, err := s.d.declared(v)
	if err != nil {
		return err
	}
	reads := v.Reads()
	registered, err := v.Notifiers()
	if err != nil {
		return err
	}
	s.stale, s.again, s.synced = false, false, v.Revision()
	if s.sorted.Load() == 0 {
		s.at = v.Revision() // start lowers it
	}
	known := map[string]fsm.Notifier{}
	forget := fsm.Txn{}
	for _, n := range registered {
		known[n.Name] = n
		if _, ok := wanted[n.Name]; ok || !s.d.declares(n.Name) {
			continue
		}
		if !s.ended(n.Name) {
			continue // it may write something down yet
		}
		ops, err := forgetOps(v, n.Name)
		if err != nil {
			return err
		}
		forget.Ops = append(forget.Ops, ops...)
	}
	var register fsm.Txn
	for name, n := range wanted {
		from, ok := known[name]
		if !ok { // somebody has forgotten it
			register.Ops = append(register.Ops, fsm.Op{Type: fsm.OpRegisterNotifier, Name: name, Value: n.FilterHash()})
			s.again = true
			continue
		}
		s.start(ctx, n, from)
	}
	for name := range s.running {
		if _, ok := wanted[name]; !ok {
			s.ended(name)
		}
	}
	s.index()
	for _, t := range []fsm.Txn{forget, register, {Ops: tidy, Compares: reads}} {
		if len(t.Ops) == 0 {
			continue
		}
		t.Now = s.d.o.Leader.Now()
		if res, err := s.d.propose(ctx, s.term, t); err != nil {
			s.again = true
			return fmt.Errorf("tidying up: %w", err)
		} else if res.Conflict != nil {
			s.again = true
		}
	}
	return nil
}

// start begins to deliver to n, unless that is so already.
func (s *scout) start(ctx context.Context, n plugins.Scoped, from fsm.Notifier) {
	if s.running[n.Name()] != nil {
		return
	}
	if s.sorted.Load() == 0 { // it begins with whoever is furthest behind
		s.at = min(s.at, from.Cursor)
	}
	r := newBoundedRunner(s.d, n, s.term, s.cluster, from, bounds{min(declaredWorkers, s.d.o.Workers), min(declaredEvents, s.d.o.QueueEvents), declaredLanes})
	r.metric = "listeners.declared.seconds" // one for all: names come and go
	r.ahead = &ahead{scout: s, wake: make(chan struct{}, 1)}
	r.idle = time.Now().Add(-rand.N(declaredSave)) // not all in one moment
	r.readTo = fsm.Revision(s.sorted.Load())       // what was sorted before it was there it reads itself
	r.ahead.ring()
	inner, end := context.WithCancel(ctx)
	s.running[n.Name()] = &declaredRunner{r, end}
	s.d.addRunner(r)
	s.wg.Go(func() {
		defer end()
		r.run(inner)
		s.d.dropRunner(r)
	})
}

// ended ends a runner, and reports whether it has.
func (s *scout) ended(name string) bool {
	r := s.running[name]
	if r == nil {
		return true
	}
	r.end()
	select {
	case <-r.done:
		delete(s.running, name)
		return true
	default:
		s.again = true
		return false
	}
}

func (s *scout) index() {
	clear(s.scopes)
	for _, r := range s.running {
		if n, ok := r.n.(plugins.Scoped); ok {
			s.scopes[n.Scope()] = append(s.scopes[n.Scope()], r.runner)
		}
	}
}

func (d *Dispatcher) addRunner(r *runner) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runners = append(slices.Clone(d.runners), r)
}

func (d *Dispatcher) dropRunner(r *runner) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runners = slices.DeleteFunc(slices.Clone(d.runners), func(x *runner) bool { return x == r })
}
