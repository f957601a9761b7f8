package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"quinto/fsm"
	"quinto/internal/checker"
	"quinto/internal/clients"
)

// Limits of a run. They are for a machine that is slow and has much else to do.
const (
	formLimit    = 30 * time.Second
	recoverLimit = 20 * time.Second // from the end of the last fault to an acknowledged write
	restLimit    = 30 * time.Second
	logLimit     = 4 << 20 // of the nodes' log lines that are kept
)

// world is one cluster with its clients and its history.
type world struct {
	plan  *plan
	net   *network
	dir   string
	start time.Time
	load  *clients.Load
	log   *tail
	ended chan struct{} // closed when the run is over, or has failed
	once  sync.Once

	mu       sync.Mutex
	machines []*machine
	spare    *machine // joins when a fault says so
	losing   string   // whose removal was asked for
	history  checker.History
	events   []string
	errs     []error
	revision uint64 // highest delivered
	acked    int64  // time of the last acknowledged write
}

// outcome is what a run came to.
type outcome struct {
	Seed    uint64
	Nodes   int
	Error   string
	Report  *checker.Report
	Events  []string
	Seconds float64
}

func (o *outcome) bad() bool { return o.Error != "" || o.Report == nil || !o.Report.OK() }

// play runs a seed in this process. The folder dir gets small files only.
func play(p *plan, dir string) (*outcome, *world) {
	w := &world{plan: p, dir: dir, start: time.Now(), log: &tail{}, ended: make(chan struct{}), net: newNetwork(p.Seed, p.Latency)}
	err := w.run()
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	o := &outcome{Seed: p.Seed, Nodes: p.Nodes, Events: w.events}
	if err = errors.Join(append(w.errs, err)...); err != nil {
		o.Error = err.Error()
	}
	if len(w.errs) == 0 { // else it was broken off
		o.Report = checker.Check(&w.history)
	}
	o.Seconds = time.Since(w.start).Seconds()
	return o, w
}

func (w *world) run() error {
	w.add(&checker.Line{Run: &checker.Run{Name: "simulated", Seed: w.plan.Seed, Nodes: w.plan.Nodes, RecoverWithin: int64(recoverLimit), Start: w.start.UnixMilli()}})
	w.load = clients.New(clients.Options{Seed: w.plan.Seed, Start: w.start, Add: w.add, Writers: 6, Pollers: 3, Hot: 8, Cold: 60, PageEntries: 12,
		Pause: 10 * time.Millisecond, RetryPause: 20 * time.Millisecond, PollPause: 80 * time.Millisecond, KeyedLimit: 8 * time.Second,
		Impatient: 400 * time.Millisecond, Patient: 2 * time.Second})
	if err := w.form(); err != nil {
		return err
	}
	w.use()
	w.load.Run()
	pollers := w.load.NewPollers()
	w.load.Follow(pollers)
	w.harm()
	w.await(recoverLimit, func() bool { return w.lastAck() > w.healed() })
	w.wait(calmAfter)
	w.load.End()
	return w.rest(pollers)
}

// form makes the machines and waits until they are a cluster.
func (w *world) form() error {
	for i := range w.plan.Nodes + 1 {
		m := &machine{w: w, name: fmt.Sprint("n", i+1), addr: fmt.Sprint("127.0.0.1:", 1001+i), gossip: fmt.Sprint("127.0.0.1:", 2001+i),
			disk: newDisk(w.plan.Seed, uint64(i), w.plan.Sync), factor: w.plan.Slow[i], drift: w.plan.Drift[i], joining: i == w.plan.Nodes}
		m.skew.Store(int64(w.plan.Skew[i]))
		w.net.name(m.addr, m.name)
		w.net.name(m.gossip, m.name)
		if m.joining {
			w.spare = m
		} else {
			w.machines = append(w.machines, m)
		}
	}
	for _, m := range w.machines {
		if err := m.boot(); err != nil {
			return err
		}
	}
	ctx, cancel := w.within(formLimit)
	defer cancel()
	if err := w.ready(ctx); err != nil {
		return err
	}
	for _, path := range []string{clients.BucketPath, clients.CollectionPath} {
		put := &clients.Request{Method: http.MethodPut, Path: path, User: clients.Owner}
		a := w.machines[0].Send(ctx, put)
		for ; a.Status == http.StatusServiceUnavailable && ctx.Err() == nil; a = w.machines[0].Send(ctx, put) { // an election, on a busy machine
			w.wait(100 * time.Millisecond)
		}
		if a.Err != nil || a.Status >= 300 {
			return fmt.Errorf("PUT %s: %d %s: %w", path, a.Status, a.Body, errors.Join(a.Err, errNotMade))
		}
	}
	return nil
}

var errNotMade = errors.New("the collection of the load was not made")

// ready waits until all members serve.
func (w *world) ready(ctx context.Context) error {
	for _, m := range w.members() {
		for {
			p := m.running()
			if p == nil { // it gave up, and comes again
				w.boot(m)
				continue
			}
			err := p.node.WaitReady(ctx)
			if err == nil {
				break
			}
			m.mu.Lock()
			removed := m.removed
			m.mu.Unlock()
			if removed {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s does not become ready: %w", m.name, err)
			}
			w.wait(20 * time.Millisecond)
		}
	}
	return nil
}

// harm lets the faults happen at their times, and ends them.
func (w *world) harm() {
	begin := time.Now()
	f := &checker.Fault{Name: "the faults of the plan", Begin: w.load.Now() + int64(calmBefore)}
	var under sync.WaitGroup
	for i := range w.plan.Events {
		e := &w.plan.Events[i]
		if !w.wait(time.Until(begin.Add(e.At))) {
			break
		}
		under.Go(func() { w.strike(e) })
	}
	under.Wait()
	for _, m := range w.members() {
		w.boot(m)
	}
	f.Healed = w.load.Now()
	w.add(&checker.Line{Fault: f})
	w.say("all faults are over")
}

func (w *world) strike(e *event) {
	s := &strike{w: w, e: e, rand: rand.New(rand.NewPCG(e.Chance, 5))}
	defer s.release()
	whom, heal := kindNamed(e.Kind).do(s)
	if whom == "" {
		w.say("%s finds nobody", e.Kind)
		return
	}
	w.say("%s: %s", e.Kind, whom)
	w.wait(e.Hold)
	if heal != nil {
		heal()
		w.say("%s: over", e.Kind)
	}
}

// rest waits until all nodes are at rest with one state, and writes it down. A write
// whose client gave it up may still come, behind what was looked at first: it is looked
// again then.
func (w *world) rest(pollers []*clients.Poller) error {
	ctx, cancel := w.within(restLimit)
	defer cancel()
	if err := w.ready(ctx); err != nil {
		return err
	}
	w.use()
	var hashes []*checker.Hash
	var finals []*checker.Final
	for late := true; late; late = ctx.Err() == nil && finals[len(finals)-1].Revision > hashes[0].Revision {
		var err error
		if hashes, err = w.hashes(ctx); err != nil {
			return err
		}
		for _, p := range pollers {
			for !p.Poll() {
				if ctx.Err() != nil {
					return errors.New("a poller comes to no end")
				}
			}
		}
		if finals, err = w.finals(ctx); err != nil {
			return err
		}
	}
	for _, h := range hashes {
		w.add(&checker.Line{Hash: h})
	}
	for _, f := range finals {
		w.add(&checker.Line{Final: f})
	}
	highest := finals[len(finals)-1].Revision
	w.await(10*time.Second, func() bool { return w.delivered() >= highest }) // what is missing then is for the checker
	return nil
}

// finals reads the whole collection through each member.
func (w *world) finals(ctx context.Context) (all []*checker.Final, err error) {
	for _, m := range w.members() {
		f, err := w.load.Final(m)
		for ; err != nil && ctx.Err() == nil; f, err = w.load.Final(m) { // an election, on a busy machine
			w.wait(100 * time.Millisecond)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// hashes returns the states of all nodes once they have applied the same entry.
func (w *world) hashes(ctx context.Context) ([]*checker.Hash, error) {
	for {
		all, err := w.look()
		if err != nil {
			return nil, err
		}
		same := true
		for _, h := range all {
			same = same && h.Applied == all[0].Applied
		}
		if same {
			return all, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("the nodes are not at the same entry in time: %s", show(all))
		}
		w.wait(30 * time.Millisecond)
	}
}

func show(all []*checker.Hash) (s string) {
	for _, h := range all {
		s += fmt.Sprintf("%+v ", *h)
	}
	return s
}

func (w *world) look() ([]*checker.Hash, error) {
	var all []*checker.Hash
	for _, m := range w.members() {
		p := m.running()
		if p == nil {
			return nil, fmt.Errorf("%s does not run", m.name)
		}
		h, err := p.hash()
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

func (p *process) hash() (*checker.Hash, error) {
	v, err := p.node.View(context.Background(), fsm.Freshness{Level: fsm.Stale})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	full, err := v.Hash()
	if err != nil {
		return nil, err
	}
	state := v.StateHash()
	return &checker.Hash{Node: p.m.name, Applied: v.Applied(), Revision: uint64(v.Revision()), State: hex.EncodeToString(state[:]), Full: hex.EncodeToString(full[:])}, nil
}

// add takes a line of the history.
func (w *world) add(l *checker.Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history.Add(l)
	if o := l.Op; o != nil && o.Acked() {
		w.acked = max(w.acked, o.Return)
	}
}

func (w *world) lastAck() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked
}

func (w *world) healed() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.history.Faults[0].Healed
}

func (w *world) noteRevision(r uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revision = max(w.revision, r)
}

func (w *world) delivered() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.revision
}

// say notes what happens.
func (w *world) say(format string, args ...any) {
	line := fmt.Sprintf("%7.3f s  %s", time.Since(w.start).Seconds(), fmt.Sprintf(format, args...))
	w.mu.Lock()
	w.events = append(w.events, line)
	w.mu.Unlock()
	_, _ = w.log.Write([]byte("--- " + line + "\n"))
}

// fail makes the run a failed one.
func (w *world) fail(err error) {
	w.say("FAILED: %v", err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs = append(w.errs, err)
	w.end()
}

// end makes all who wait go on.
func (w *world) end() { w.once.Do(func() { close(w.ended) }) }

// within is a context that ends with the run, too.
func (w *world) within(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	go func() {
		select {
		case <-w.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// boot starts a machine that is down.
func (w *world) boot(m *machine) {
	if err := m.boot(); err != nil {
		w.fail(err)
		m.retire() // not again
	}
}

// wait returns false when the run is over.
func (w *world) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.ended:
		return false
	}
}

// await waits until ok, but no longer than d.
func (w *world) await(d time.Duration, ok func() bool) {
	for end := time.Now().Add(d); !ok() && time.Now().Before(end) && w.wait(10*time.Millisecond); {
	}
}

// members are the machines that belong to the cluster, as far as is known.
func (w *world) members() []*machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*machine
	for _, m := range w.machines {
		m.mu.Lock()
		if !m.removed {
			all = append(all, m)
		}
		m.mu.Unlock()
	}
	return all
}

// use tells the clients of the present members.
func (w *world) use() {
	var all []clients.Node
	for _, m := range w.members() {
		all = append(all, m)
	}
	w.load.Use(all)
}

// seeds are the gossip addresses of the founders.
func (w *world) seeds() []string {
	var all []string
	for i := range w.plan.Nodes {
		all = append(all, fmt.Sprint("127.0.0.1:", 2001+i))
	}
	return all
}

// leader is who believes to lead, in the newest term; nil: nobody.
func (w *world) leader() *machine {
	var leader *machine
	var term uint64
	for _, m := range w.members() {
		p := m.running()
		if p == nil || !p.node.IsLeader() {
			continue
		}
		if t := p.node.Term(); t > term {
			leader, term = m, t
		}
	}
	return leader
}

// committed is the last entry that some node has applied.
func (w *world) committed() (index uint64) {
	for _, m := range w.members() {
		if p := m.running(); p != nil {
			index = max(index, p.state.Applied())
		}
	}
	return index
}

// newcomer is the machine that may join, once.
func (w *world) newcomer() *machine {
	w.mu.Lock()
	m := w.spare
	w.spare = nil
	if m != nil {
		w.machines = append(w.machines, m)
	}
	w.mu.Unlock()
	if m != nil {
		w.use()
	}
	return m
}

// lose notes that the removal of a node is asked for; false when one was before.
func (w *world) lose(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.losing != "" {
		return false
	}
	w.losing = name
	return true
}

func (w *world) mayLose(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.losing == name
}

// keep writes down all that is known of a run.
func (w *world) keep(o *outcome, dir string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	rec, err := checker.NewRecorder(filepath.Join(dir, "history.jsonl"))
	if err != nil {
		return err
	}
	for _, l := range w.history.Lines() {
		rec.Add(l)
	}
	text := w.plan.String() + "\n" + o.String()
	return errors.Join(rec.Close(), os.WriteFile(filepath.Join(dir, "run.txt"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, "nodes.log"), w.log.bytes(), 0o644))
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write is io.Writer's.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b.Len() > logLimit {
		t.b.Next(t.b.Len() / 2)
	}
	return t.b.Write(p)
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.b.Bytes())
}
