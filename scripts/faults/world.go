package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"quinto/internal/checker"
	"quinto/internal/clients"
	"quinto/internal/testcluster"
)

const (
	startLimit = 60 * time.Second // for a cluster to serve
	playLimit  = 5 * time.Minute  // for a harm with all that belongs to it
	calmLimit  = 90 * time.Second // for all nodes to be whole again and at rest after a run
)

// world is one cluster under one harm, with its clients and its history.
type world struct {
	o       *options
	harm    *harm
	seed    uint64
	rand    *rand.Rand
	dir     string
	cluster *testcluster.Cluster
	network *testcluster.Network // nil: loopback
	disks   []*disk              // of the nodes; nil: the folder's own
	load    *clients.Load
	hooks   *receiver
	rec     *checker.Recorder
	start   time.Time
}

// outcome is what a run came to.
type outcome struct {
	harm    *harm
	nodes   int
	seed    uint64
	history string // path of the file
	report  *checker.Report
	plot    *plot
	err     error // the run itself failed
	skipped string
}

// play runs one harm on a new cluster.
func play(ctx context.Context, o *options, h *harm, nodes int, seed uint64) *outcome {
	out := &outcome{harm: h, nodes: nodes, seed: seed}
	if out.skipped = h.missing(o); out.skipped != "" {
		return out
	}
	w := &world{o: o, harm: h, seed: seed, rand: rand.New(rand.NewPCG(seed, 7))}
	w.dir = filepath.Join(o.keep, fmt.Sprintf("%s-%d-%d", h.name, nodes, seed))
	out.history = w.dir + ".jsonl"
	out.err = errors.Join(w.play(ctx, nodes, out.history), w.close())
	recorded, err := checker.LoadFile(out.history)
	if err != nil {
		out.err = errors.Join(out.err, err)
		return out
	}
	out.report, out.plot = checker.Check(recorded), newPlot(recorded)
	if !out.bad() {
		_ = os.RemoveAll(w.dir)
		if !o.keepAll {
			_ = os.Remove(out.history)
		}
	}
	return out
}

func (w *world) play(ctx context.Context, nodes int, history string) error {
	if err := w.open(ctx, nodes, history); err != nil {
		return err
	}
	w.load.Run()
	all := w.load.NewPollers()
	w.load.Follow(all)
	err := w.harmed(ctx)
	w.load.End()
	return errors.Join(err, w.calm(ctx, all))
}

// open starts cluster, receiver and history.
func (w *world) open(ctx context.Context, nodes int, history string) error {
	if err := os.RemoveAll(w.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	var err error
	if w.rec, err = checker.NewRecorder(history); err != nil {
		return err
	}
	w.start = time.Now()
	w.rec.Add(&checker.Line{Run: &checker.Run{Name: w.harm.name, Seed: w.seed, Nodes: nodes, RecoverWithin: int64(w.o.recover), Start: w.start.UnixMilli()}})
	w.load = clients.New(loadOptions(w.seed, w.start, w.rec))
	w.hooks = &receiver{Load: w.load}
	hook := fmt.Sprintf("http://127.0.0.1:%d%s", hookPort, hookPath)
	if w.o.network {
		if w.network, err = testcluster.NewNetwork(w.seed); err != nil {
			return err
		}
	} else if hook, err = w.hooks.listen(&testcluster.Node{}, 0); err != nil {
		return err
	}
	w.cluster, err = testcluster.New(testcluster.Options{Binary: w.o.binary, Dir: w.dir, Nodes: nodes, Network: w.network,
		Settings: append(settings(hook), w.harm.settings...), Env: w.environment()})
	if err != nil {
		return err
	}
	for _, n := range w.cluster.Nodes {
		if err := w.furnish(n); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := w.cluster.Start(ctx); err != nil {
		return err
	}
	w.load.Use(httpNodes(w.cluster.Nodes))
	return w.prepare(ctx)
}

// furnish gives a node its disk and its receiver before it starts.
func (w *world) furnish(n *testcluster.Node) error {
	if w.network != nil {
		if _, err := w.hooks.listen(n, hookPort); err != nil {
			return err
		}
	}
	if !w.harm.disks {
		return nil
	}
	d, err := newDisk(w.dir, n)
	if err == nil {
		w.disks = append(w.disks, d)
	}
	return err
}

// prepare makes what the load writes into.
func (w *world) prepare(ctx context.Context) error {
	for _, r := range []clients.Request{
		{Method: http.MethodPut, Path: clients.BucketPath, User: clients.Owner},
		{Method: http.MethodPut, Path: clients.CollectionPath, User: clients.Owner},
	} {
		a := send(w.cluster.Nodes[0], &r, 10*time.Second)
		if a.Err != nil || a.Status >= 300 {
			return fmt.Errorf("PUT %s: %d %s %w", r.Path, a.Status, a.Body, a.Err)
		}
	}
	return ctx.Err()
}

// harmed lets the load run, harms, heals, and lets it run on.
func (w *world) harmed(ctx context.Context) error {
	if err := pause(ctx, w.o.before); err != nil {
		return err
	}
	for range max(w.harm.times, 1) {
		f := checker.Fault{Name: w.harm.name, Begin: w.load.Now()}
		target, heal, err := w.harm.do(ctx, w)
		f.Target = target
		if err != nil {
			return fmt.Errorf("%s: %w", w.harm.name, err)
		}
		if err := pause(ctx, w.harm.holds(w.o)); err != nil {
			return err
		}
		if heal != nil {
			if err := heal(); err != nil {
				return fmt.Errorf("%s: healing: %w", w.harm.name, err)
			}
		}
		f.Healed = w.load.Now()
		w.rec.Add(&checker.Line{Fault: &f})
		if err := pause(ctx, w.o.after); err != nil {
			return err
		}
	}
	return nil
}

// calm waits until all nodes are at rest with one state and writes it down.
func (w *world) calm(ctx context.Context, all []*clients.Poller) error {
	ctx, cancel := context.WithTimeout(ctx, calmLimit)
	defer cancel()
	live, notReady := w.ready(ctx)
	if len(live) == 0 {
		return notReady
	}
	return errors.Join(notReady, w.rest(ctx, live, all))
}

// ready waits for the nodes that run; what is wrong with one must not hide what the
// others have lost.
func (w *world) ready(ctx context.Context) (live []*testcluster.Node, err error) {
	ctx, cancel := context.WithTimeout(ctx, calmLimit/2)
	defer cancel()
	for _, n := range w.cluster.Nodes {
		if !n.Running() {
			continue
		}
		if e := n.WaitReady(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("%s does not become ready: %w", n.Name, e))
			continue
		}
		live = append(live, n)
	}
	return live, err
}

// restLooks bounds how often it is looked again for a write that came late.
const restLooks = 20

// rest writes down what the nodes hold at rest. A write whose client gave it up may
// still come, behind what was looked at first: it is looked again then.
func (w *world) rest(ctx context.Context, live []*testcluster.Node, all []*clients.Poller) error {
	w.load.Use(httpNodes(live))
	var hashes []testcluster.Hash
	var finals []*checker.Final
	var unequal error
	for looks := 0; looks == 0 || looks < restLooks && late(hashes, finals); looks++ {
		short, cancel := context.WithTimeout(ctx, calmLimit/3)
		hashes, unequal = w.cluster.SameHashes(short)
		cancel()
		for _, p := range all {
			for tries := 0; !p.Poll() && tries < 200; tries++ {
				if err := ctx.Err(); err != nil {
					return errors.Join(unequal, fmt.Errorf("a poller comes to no end: %w", err))
				}
			}
		}
		finals = nil
		for _, n := range live {
			f, err := w.load.Final(httpNode{n})
			if err != nil {
				return errors.Join(unequal, err)
			}
			finals = append(finals, f)
		}
	}
	for _, h := range hashes {
		w.rec.Add(&checker.Line{Hash: &checker.Hash{Node: h.Name, Applied: h.Applied, Revision: h.Revision, State: h.State, Full: h.Full}})
	}
	for _, f := range finals {
		w.rec.Add(&checker.Line{Final: f})
	}
	if err := w.hooks.caughtUp(ctx, finals[len(finals)-1].Revision); err != nil {
		w.o.say("  %v", err) // what is missing is a violation, which the checker finds
	}
	if len(hashes) >= 2 {
		unequal = nil // differing states are for the checker
	}
	return errors.Join(unequal, w.panics())
}

// late reports whether the state has gone on since the nodes were compared.
func late(hashes []testcluster.Hash, finals []*checker.Final) bool {
	return len(hashes) > 0 && finals[len(finals)-1].Revision > hashes[0].Revision
}

func (w *world) panics() error {
	for _, n := range w.cluster.Nodes {
		if line := firstPanic(n.Log()); line != "" {
			return fmt.Errorf("%s: %s", n.Name, line)
		}
	}
	return nil
}

func (w *world) close() error {
	var errs []error
	if w.network != nil {
		w.network.Heal()
	}
	for _, d := range w.disks {
		errs = append(errs, d.thaw())
	}
	if w.cluster != nil {
		errs = append(errs, w.cluster.Close())
	}
	for _, d := range w.disks {
		errs = append(errs, d.close())
	}
	if w.hooks != nil {
		w.hooks.close()
	}
	if w.network != nil {
		errs = append(errs, w.network.Close())
	}
	if w.rec != nil {
		errs = append(errs, w.rec.Close())
	}
	return errors.Join(errs...)
}

// within bounds a step of a harm.
func (w *world) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, startLimit)
}

func (w *world) leader(ctx context.Context) (*testcluster.Node, error) {
	ctx, cancel := w.within(ctx)
	defer cancel()
	return w.cluster.Leader(ctx)
}

// roles returns the leader and the others.
func (w *world) roles(ctx context.Context) (leader *testcluster.Node, others []*testcluster.Node, err error) {
	if leader, err = w.leader(ctx); err != nil {
		return nil, nil, err
	}
	for _, n := range w.cluster.Nodes {
		if n != leader && n.Running() {
			others = append(others, n)
		}
	}
	w.rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	return leader, others, nil
}
