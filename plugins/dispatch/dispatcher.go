package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// ErrBadNotifier is returned by New for a notifier whose name cannot be stored.
var ErrBadNotifier = errors.New("dispatch: bad notifier")

// Dispatcher delivers to all notifiers of a node while that node leads.
type Dispatcher struct {
	o       Options
	log     *slog.Logger
	closing chan struct{}
	done    chan struct{}
	once    sync.Once
	started atomic.Bool
	handed  string // names for which leadership was handed over

	marks sync.Mutex // of what notifiers have lost: who writes one has read it under the lock

	mu      sync.Mutex
	runners []*runner // of the current term

	missing atomic.Pointer[[]fsm.Notifier]
}

// New makes a dispatcher. ErrBadNotifier: a name is empty, too long, used
// twice, or has other characters than letters, digits, dot, dash, underscore.
func New(o Options) (*Dispatcher, error) {
	if len(o.Notifiers) > MaxNotifiers {
		return nil, fmt.Errorf("%w: %d of them, at most %d", ErrBadNotifier, len(o.Notifiers), MaxNotifiers)
	}
	seen := map[string]bool{}
	for _, n := range o.Notifiers {
		name := n.Name()
		if name == "" || len(name) > MaxNameBytes || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
			return nil, fmt.Errorf("%w: name %q", ErrBadNotifier, name)
		}
		if seen[name] || (&Dispatcher{o: o}).declares(name) {
			return nil, fmt.Errorf("%w: %q is used twice", ErrBadNotifier, name)
		}
		seen[name] = true
	}
	o = o.withDefaults()
	return &Dispatcher{o: o, log: o.Log, closing: make(chan struct{}), done: make(chan struct{})}, nil
}

// Start begins to follow leadership, and to tell the observers; call it once.
// Close ends it.
func (d *Dispatcher) Start() {
	d.started.Store(true)
	go d.run()
}

// Close lets the deliveries under way end (bounded by Options.Grace), logs the
// cursors if this node still leads, and returns when all goroutines have
// ended. Close it before the cluster node and after Start.
func (d *Dispatcher) Close() {
	d.once.Do(func() { close(d.closing) })
	if d.started.Load() {
		<-d.done
	}
}

// Flush pauses the deliveries for a few seconds and logs the cursors as they
// are: to be called before leadership is transferred, so that the next leader
// repeats nothing. It does nothing on a node that does not lead.
func (d *Dispatcher) Flush(ctx context.Context) error {
	d.mu.Lock()
	runners := slices.Clone(d.runners)
	d.mu.Unlock()
	replies := make([]chan error, len(runners))
	for i, r := range runners {
		replies[i] = make(chan error, 1)
		select {
		case r.flushes <- replies[i]:
		case <-r.done:
			replies[i] <- nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var errs []error
	for i, r := range runners {
		select {
		case err := <-replies[i]:
			errs = append(errs, err)
		case <-r.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

func (d *Dispatcher) run() {
	defer close(d.done)
	var observing sync.WaitGroup
	if len(d.o.Observers) > 0 {
		observing.Go(d.observe)
	}
	defer observing.Wait()
	for {
		changed := d.o.Leader.LeadershipChanged()
		if term, lost, ok := d.o.Leader.Leading(); ok {
			d.lead(term, lost)
		}
		select {
		case <-changed:
		case <-d.closing:
			return
		}
	}
}

// lead delivers for one term. It returns when the term is lost or the
// dispatcher closes.
func (d *Dispatcher) lead(term uint64, lost <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { d.guard(ctx, cancel, lost) })
	registered, cluster, err := d.prepare(ctx, term)
	if err != nil {
		cancel()
		wg.Wait()
		return
	}
	runners := make([]*runner, 0, len(d.o.Notifiers))
	for _, n := range d.o.Notifiers {
		r := newRunner(d, n, term, cluster, registered[n.Name()])
		runners = append(runners, r)
	}
	d.setRunners(runners)
	defer d.setRunners(nil)
	var running sync.WaitGroup
	for _, r := range runners {
		running.Go(func() { r.run(ctx) })
	}
	if len(d.o.Declaring) > 0 {
		running.Go(func() { d.follow(ctx, term, cluster) })
	}
	wg.Go(func() { d.retain(ctx, term) })
	running.Wait()
	if len(runners) == 0 && len(d.o.Declaring) == 0 {
		select {
		case <-ctx.Done():
		case <-d.closing:
		}
	}
	cancel()
	wg.Wait()
}

// guard ends the term's context when leadership is lost, or when the grace of
// Close is over.
func (d *Dispatcher) guard(ctx context.Context, cancel context.CancelFunc, lost <-chan struct{}) {
	defer cancel()
	select {
	case <-lost:
		return
	case <-ctx.Done():
		return
	case <-d.closing:
	}
	grace := time.NewTimer(d.o.Grace)
	defer grace.Stop()
	select {
	case <-lost:
	case <-ctx.Done():
	case <-grace.C:
	}
}

func (d *Dispatcher) setRunners(r []*runner) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runners = r
}

// view returns a leader's view of this very term: the fence of everything the
// dispatcher does.
func (d *Dispatcher) view(term uint64) (*fsm.View, error) {
	v, now, err := d.o.Leader.LeaderView()
	if err != nil {
		return nil, err
	}
	if now != term {
		v.Close()
		return nil, fmt.Errorf("%w: of term %d", fsm.ErrNotLeader, term)
	}
	return v, nil
}

// prepare waits until this leader may decide, registers what the log does not
// know yet, and returns all registered notifiers by name with the cluster id.
// It tries until it succeeds, the term ends or the dispatcher closes.
func (d *Dispatcher) prepare(ctx context.Context, term uint64) (map[string]fsm.Notifier, string, error) {
	const first, longest = 10 * time.Millisecond, time.Second
	for pause := first; ; pause = min(2*pause, longest) {
		registered, cluster, err := d.register(ctx, term)
		if err == nil {
			return registered, cluster, nil
		}
		if pause == longest {
			d.log.Error("notifiers cannot be prepared; nothing is delivered", "term", term, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, "", ctx.Err()
		case <-d.closing:
			return nil, "", fsm.ErrClosed
		case <-time.After(pause):
		}
	}
}

// register logs what is new among the notifiers. A new one starts at the revision of its
// registration. One whose filter changed goes on from its cursor: from there on
// its events are chosen by this leader's filter, which is said in the log, as
// nodes with different files would otherwise differ in silence.
func (d *Dispatcher) register(ctx context.Context, term uint64) (map[string]fsm.Notifier, string, error) {
	known, cluster, err := d.registered(term)
	if err != nil {
		return nil, "", err
	}
	t := fsm.Txn{Now: d.o.Leader.Now()}
	for _, n := range d.o.Notifiers {
		old, ok := known[n.Name()]
		if ok && bytes.Equal(old.Hash, n.FilterHash()) {
			continue
		}
		if ok {
			d.log.Warn("the filter of a notifier changed; events after the cursor are chosen by the new one",
				"notifier", n.Name(), "cursor", old.Cursor, "old", fmt.Sprintf("%x", old.Hash), "new", fmt.Sprintf("%x", n.FilterHash()))
		}
		t.Ops = append(t.Ops, fsm.Op{Type: fsm.OpRegisterNotifier, Name: n.Name(), Value: n.FilterHash()})
	}
	d.reportMissing(known)
	if len(t.Ops) == 0 {
		return known, cluster, nil
	}
	if _, err := d.propose(ctx, term, t); err != nil {
		return nil, "", err
	}
	return d.registered(term)
}

func (d *Dispatcher) registered(term uint64) (known map[string]fsm.Notifier, cluster string, err error) {
	v, err := d.view(term)
	if err != nil {
		return nil, "", err
	}
	defer v.Close()
	list, err := v.Notifiers()
	known = make(map[string]fsm.Notifier, len(list))
	for _, n := range list {
		known[n.Name] = n
	}
	return known, v.ClusterID(), err
}

// reportMissing says which registered notifiers this leader is not configured
// with. Nobody delivers for them while it leads, and their cursors hold the
// events up to the hard cap.
func (d *Dispatcher) reportMissing(known map[string]fsm.Notifier) {
	var missing []fsm.Notifier
	var names []string
	for name, n := range known {
		if !d.declares(name) && !slices.ContainsFunc(d.o.Notifiers, func(c plugins.Notifier) bool { return c.Name() == name }) {
			missing = append(missing, n)
			names = append(names, name)
		}
	}
	slices.SortFunc(missing, func(a, b fsm.Notifier) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(names)
	d.missing.Store(&missing)
	if len(names) == 0 {
		return
	}
	list := strings.Join(names, " ")
	d.log.Error("registered notifiers are not configured on this leader; nothing is delivered to them", "notifiers", list)
	if d.o.HandOver == nil || d.handed == list {
		return
	}
	d.handed = list
	if err := d.o.HandOver("notifiers not configured here: " + list); err != nil {
		d.log.Warn("leadership could not be handed over", "error", err)
	}
}

// propose logs a transaction of the dispatcher, within proposeTimeout, in this
// very term: what an earlier one meant to log would be out of date.
func (d *Dispatcher) propose(ctx context.Context, term uint64, t fsm.Txn) (fsm.Result, error) {
	if now, _, ok := d.o.Leader.Leading(); !ok || now != term || ctx.Err() != nil {
		return fsm.Result{}, fmt.Errorf("%w: in term %d", fsm.ErrNotLeader, term)
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	return d.o.Leader.Propose(ctx, t)
}
