package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// plan is all that a seed fixes: the cluster, and which fault begins when and for how
// long. Whom "the leader" names is known only when it happens.
type plan struct {
	Seed    uint64
	Nodes   int
	Latency time.Duration // of every link, in the mean
	Sync    time.Duration // of every disk, in the mean
	Slow    []float64     // by node: how slow its timers are
	Skew    []time.Duration
	Drift   []float64
	Events  []event
}

// event is one fault.
type event struct {
	At, Hold time.Duration // from the begin of the load
	Kind     string
	Leader   bool   // it strikes the leader; else one that does not lead
	Chance   uint64 // what else is drawn when it happens follows from it
}

const (
	calmBefore = 300 * time.Millisecond // load before the first fault
	calmAfter  = 500 * time.Millisecond // and after the last, at least
	minEvents  = 4
	maxEvents  = 8
)

// newPlan draws the plan of a seed. only, if not empty, names the kinds to choose from.
func newPlan(seed uint64, only []string) *plan {
	r := rand.New(rand.NewPCG(seed, 3))
	p := &plan{Seed: seed, Nodes: 3}
	if r.IntN(3) == 0 {
		p.Nodes = 5
	}
	if r.IntN(2) == 0 {
		p.Latency = time.Duration(r.IntN(3000)) * time.Microsecond
	}
	if r.IntN(2) == 0 {
		p.Sync = time.Duration(r.IntN(3000)) * time.Microsecond
	}
	for range p.Nodes + 1 { // and the one that may join
		slow, skew, drift := 1.0, time.Duration(0), 0.0
		if r.IntN(3) == 0 {
			slow = 1.5 + 3*r.Float64()
		}
		if r.IntN(3) == 0 {
			skew = time.Duration(r.IntN(8000)-4000) * time.Millisecond
		}
		if r.IntN(4) == 0 {
			drift = (r.Float64() - 0.5) / 5
		}
		p.Slow, p.Skew, p.Drift = append(p.Slow, slow), append(p.Skew, skew), append(p.Drift, drift)
	}
	at := calmBefore
	for range minEvents + r.IntN(maxEvents-minEvents+1) {
		k := draw(r, only)
		e := event{At: at, Kind: k.name, Leader: r.IntN(2) == 0, Chance: r.Uint64(), Hold: 150*time.Millisecond + time.Duration(r.Int64N(int64(k.hold)))}
		p.Events = append(p.Events, e)
		at += time.Duration(float64(e.Hold) * (0.2 + r.Float64())) // the next may begin before this one ends
	}
	return p
}

func draw(r *rand.Rand, only []string) *kind {
	var all []*kind
	sum := 0
	for i := range kinds {
		if k := &kinds[i]; len(only) == 0 || contains(only, k.name) {
			all = append(all, k)
			sum += k.weight
		}
	}
	n := r.IntN(sum)
	for _, k := range all {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	return all[0]
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

// disks reports whether a fault of a disk is planned: a node may then give up.
func (p *plan) disks() bool {
	for _, e := range p.Events {
		if strings.HasPrefix(e.Kind, "disk") || e.Kind == "pause" {
			return true
		}
	}
	return false
}

// String is the plan in words.
func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d nodes, links %s, syncs %s, timers × %.1f, clocks %s, drift %.2f\n", p.Seed, p.Nodes, p.Latency, p.Sync, p.Slow, p.Skew, p.Drift)
	for _, e := range p.Events {
		who := "another"
		if e.Leader {
			who = "the leader"
		}
		fmt.Fprintf(&b, "  %5d ms, for %d ms: %s, %s\n", e.At.Milliseconds(), e.Hold.Milliseconds(), e.Kind, who)
	}
	return b.String()
}
