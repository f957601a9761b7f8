package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"quinto/internal/clients"
	"quinto/internal/testcluster"
)

const (
	gaugeWriters = 8
	gaugePause   = 5 * time.Millisecond
	gaugeTimeout = time.Second             // a client that waits longer measures its own patience
	gaugeSettle  = 1500 * time.Millisecond // after this an event has had its effect
	gaugeFlow    = 200 * time.Millisecond  // since the newest acknowledgement: writes flow
	staleEvery   = 20 * time.Millisecond
	staleTimeout = time.Second
	hungTimes    = 3
	plannedTimes = 20

	// The bars of the figures.
	barKill    = 3 * time.Second // p99
	barHung    = 10 * time.Second
	barPlanned = 300 * time.Millisecond // p99
)

// gauge writes without pause and notes when writes were acknowledged, and reads
// `stale` from every node.
type gauge struct {
	w    *world
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	acks     []time.Time
	down     map[string]bool // nodes that are ended, or about to be
	stale    int
	failed   []string
	longest  time.Duration
	lastRead map[string]time.Time
}

func (w *world) measure() *gauge {
	g := &gauge{w: w, stop: make(chan struct{}), down: map[string]bool{}, lastRead: map[string]time.Time{}}
	for i := range gaugeWriters {
		g.wg.Go(func() { g.write(rand.New(rand.NewPCG(w.seed, uint64(i))), i) })
	}
	for _, n := range w.cluster.Nodes {
		g.wg.Go(func() { g.read(n) })
	}
	return g
}

func (g *gauge) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-g.stop:
		return false
	}
}

func (g *gauge) end() {
	close(g.stop)
	g.wg.Wait()
}

func (g *gauge) write(r *rand.Rand, worker int) {
	nodes := g.w.cluster.Nodes
	node := worker % len(nodes)
	for i := 0; g.wait(gaugePause); i++ {
		req := &clients.Request{Method: http.MethodPut, Path: fmt.Sprintf("%s/w%d-%d", clients.RecordsPath, worker, i%100), User: clients.Owner,
			Body: fmt.Appendf(nil, `{"data":{"v":"%d"}}`, i), Header: map[string]string{"Idempotency-Key": fmt.Sprintf("%d-%d", worker, i)}}
		for {
			a := send(nodes[node], req, gaugeTimeout)
			if a.Decided() {
				break
			}
			node = (node + 1 + r.IntN(len(nodes)-1)) % len(nodes)
			if !g.wait(gaugePause) {
				return
			}
		}
		g.mu.Lock()
		g.acks = append(g.acks, time.Now())
		g.mu.Unlock()
	}
}

func (g *gauge) read(n *testcluster.Node) {
	req := &clients.Request{Method: http.MethodGet, Path: clients.CollectionPath, User: clients.Owner, Header: map[string]string{"Quinto-Consistency": "stale"}}
	for g.wait(staleEvery) {
		g.mu.Lock()
		down := g.down[n.Name]
		if down {
			g.lastRead[n.Name] = time.Time{}
		}
		g.mu.Unlock()
		if down {
			continue
		}
		a := send(n, req, staleTimeout)
		now := time.Now()
		g.mu.Lock()
		switch {
		case g.down[n.Name]:
		case !a.Decided(): // a 404 is an answer: a node that has just started shows an older state
			g.failed = append(g.failed, fmt.Sprintf("%s: %d %v %.100s", n.Name, a.Status, a.Err, a.Body))
		default:
			if last := g.lastRead[n.Name]; !last.IsZero() {
				g.longest = max(g.longest, now.Sub(last))
			}
			g.lastRead[n.Name] = now
			g.stale++
		}
		g.mu.Unlock()
	}
}

func (g *gauge) setDown(n *testcluster.Node, down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down[n.Name] = down
}

// gap is the longest time without an acknowledgement around a moment; it waits until
// writes are acknowledged again.
func (g *gauge) gap(ctx context.Context, from time.Time) (time.Duration, error) {
	for {
		g.mu.Lock()
		acks := slices.Clone(g.acks)
		g.mu.Unlock()
		i, _ := slices.BinarySearchFunc(acks, from, time.Time.Compare)
		flows := i < len(acks) && time.Since(acks[len(acks)-1]) < gaugeFlow
		if flows && time.Since(from) > gaugeSettle {
			last, longest := from, time.Duration(0)
			if i > 0 {
				last = acks[i-1]
			}
			for _, a := range acks[i:] {
				longest, last = max(longest, a.Sub(last)), a
			}
			return longest, nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return 0, fmt.Errorf("no write was acknowledged any more: %w", err)
		}
	}
}

// gaps are the figures of one kind of change of leader.
type gaps struct {
	name   string
	bar    time.Duration
	all    []time.Duration
	note   string
	failed []string // changes after which the cluster did not serve again in time
}

// percentile is the nearest rank: of a hundred gaps, 99 are not above p99.
func (s *gaps) percentile(p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s.all))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

func (s *gaps) missed() error {
	var err error
	if p := s.percentile(0.99); len(s.all) > 0 && p > s.bar {
		err = fmt.Errorf("%s: p99 is %s, the bar %s", s.name, p, s.bar)
	}
	for _, f := range s.failed {
		err = errors.Join(err, fmt.Errorf("%s: %s", s.name, f))
	}
	return err
}

// once does one change of leader and returns the gap.
func (g *gauge) once(ctx context.Context, change func(leader *testcluster.Node) (back func() error, err error)) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := pause(ctx, time.Second+time.Duration(g.w.rand.IntN(500))*time.Millisecond); err != nil {
		return 0, err
	}
	leader, err := g.w.cluster.Leader(ctx)
	if err != nil {
		return 0, err
	}
	g.setDown(leader, true)
	from := time.Now()
	back, err := change(leader)
	if err != nil {
		return 0, err
	}
	gap, err := g.gap(ctx, from)
	if err == nil {
		err = back()
	}
	if err == nil {
		err = leader.WaitReady(ctx)
	}
	g.setDown(leader, false)
	return gap, err
}

// series does so many changes. One that fails is noted, and the cluster made whole
// for the next; two in a row end the series.
func (g *gauge) series(ctx context.Context, s *gaps, times int, change func(*testcluster.Node) (func() error, error)) {
	inRow := 0
	for i := range times {
		gap, err := g.once(ctx, change)
		if err == nil {
			inRow = 0
			s.all = append(s.all, gap)
			g.w.o.say("%s %d of %d: %s without an acknowledged write", s.name, i+1, times, gap.Round(time.Millisecond))
			continue
		}
		g.w.o.say("%s %d of %d FAILED: %s", s.name, i+1, times, oneLine(err))
		s.failed = append(s.failed, fmt.Sprintf("number %d: %s", i+1, oneLine(err)))
		if inRow++; inRow == 2 || ctx.Err() != nil || g.mend(ctx) != nil {
			s.failed = append(s.failed, fmt.Sprintf("%d of %d were left out", times-i-1, times))
			return
		}
	}
}

// mend makes all nodes serve again.
func (g *gauge) mend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var errs []error
	for _, d := range g.w.disks {
		errs = append(errs, d.thaw())
	}
	errs = append(errs, startAll(g.w.cluster.Nodes), g.w.cluster.WaitReady(ctx, g.w.cluster.Nodes...))
	for _, n := range g.w.cluster.Nodes {
		g.setDown(n, false)
	}
	return errors.Join(errs...)
}

func (o *options) runFailover(ctx context.Context) error {
	if err := o.needBinary(ctx); err != nil {
		return err
	}
	w := &world{o: o, harm: &harm{name: "failover", disks: o.disks}, seed: o.seed, rand: rand.New(rand.NewPCG(o.seed, 7)), dir: filepath.Join(o.keep, "failover")}
	if err := w.open(ctx, 3, w.dir+".jsonl"); err != nil {
		return errors.Join(err, w.close())
	}
	g := w.measure()
	kills, planned := &gaps{name: "SIGKILL of the leader", bar: barKill}, &gaps{name: "planned stop of the leader", bar: barPlanned}
	hung := &gaps{name: "the leader's disk hangs", bar: barHung, note: o.noDisks}
	g.series(ctx, kills, o.kills, func(n *testcluster.Node) (func() error, error) {
		return func() error { return n.Start() }, n.Kill()
	})
	g.series(ctx, planned, min(plannedTimes, o.kills), func(n *testcluster.Node) (func() error, error) {
		return func() error { return n.Start() }, n.Stop()
	})
	if o.disks {
		g.series(ctx, hung, min(hungTimes, o.kills), func(n *testcluster.Node) (func() error, error) {
			d := w.disk(n)
			return func() error { return errors.Join(d.thaw(), startAll([]*testcluster.Node{n})) }, d.freeze()
		})
	}
	g.end()
	page, missed := g.page([]*gaps{kills, planned, hung})
	fmt.Println(page)
	if o.out != "" {
		missed = errors.Join(missed, os.WriteFile(o.out, []byte(page), 0o644))
	}
	return errors.Join(missed, w.close())
}

// page renders the figures; the error names the bars that were missed.
func (g *gauge) page(all []*gaps) (string, error) {
	var b strings.Builder
	var missed error
	fmt.Fprintf(&b, "# Failover\n\nMade by `make failover`: three nodes at the shipped time-outs, %d writers that turn to another node when one does not answer, and a reader of\n`stale` at each node. The figure is the longest time without an acknowledged write around the event.\n\n", gaugeWriters)
	b.WriteString("| event | times | p50 | p95 | p99 | longest | bar (p99) |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, s := range all {
		if len(s.all) == 0 {
			s.note = cmp.Or(s.note, "none was seen through")
			fmt.Fprintf(&b, "| %s | skipped: %s | | | | | %s |\n", s.name, s.note, s.bar)
			continue
		}
		p := func(v float64) string { return fmt.Sprintf("%d ms", s.percentile(v).Milliseconds()) }
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %s | %s |\n", s.name, len(s.all), p(0.5), p(0.95), p(0.99), p(1), s.bar)
	}
	for _, s := range all {
		missed = errors.Join(missed, s.missed())
	}
	if missed != nil {
		fmt.Fprintf(&b, "\nNot as it should be:\n\n- %s\n", strings.ReplaceAll(missed.Error(), "\n", "\n- "))
	}
	fmt.Fprintf(&b, "\nReads at `stale` from nodes that lived: %d answered, %d not; the longest pause between two answers of one node was %d ms.\n", g.stale, len(g.failed), g.longest.Milliseconds())
	for _, f := range g.failed[:min(5, len(g.failed))] {
		fmt.Fprintf(&b, "- not answered: %s\n", f)
	}
	if len(g.failed) > 0 {
		missed = errors.Join(missed, fmt.Errorf("%d reads at stale were not answered, the first: %s", len(g.failed), g.failed[0]))
	}
	return b.String(), missed
}
