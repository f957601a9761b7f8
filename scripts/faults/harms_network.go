package main

import (
	"context"
	"sync"
	"time"

	"quinto/internal/testcluster"
)

var bothPlanes = []testcluster.Plane{testcluster.RaftPlane, testcluster.GossipPlane}

type wire func(w *world, leader *testcluster.Node, others []*testcluster.Node) (target string)

func networkHarms() []*harm {
	down := testcluster.Link{Down: true}
	all := []*harm{
		{name: "isolate-leader", do: wired(around(true, bothPlanes, down, down)), times: 2, weight: 3},
		{name: "isolate-follower", do: wired(around(false, bothPlanes, down, down)), weight: 1},
		{name: "leader-hears-nobody", do: wired(around(true, bothPlanes, down, testcluster.Link{})), weight: 1},
		{name: "nobody-hears-leader", do: wired(around(true, bothPlanes, testcluster.Link{}, down)), weight: 1},
		{name: "raft-cut-gossip-whole", do: wired(around(true, bothPlanes[:1], down, down)), weight: 1},
		{name: "gossip-cut-raft-whole", do: wired(around(true, bothPlanes[1:], down, down)), weight: 1},
		{name: "bridge", do: wired(bridge), weight: 1},
		{name: "flapping", do: flapping, weight: 1},
		{name: "loss-5", do: wired(everywhere(testcluster.Link{Loss: 0.05})), weight: 1},
		{name: "loss-30", do: wired(everywhere(testcluster.Link{Loss: 0.3})), weight: 1},
		{name: "delay-100", do: wired(everywhere(testcluster.Link{Delay: 100 * time.Millisecond, Jitter: 50 * time.Millisecond})), weight: 1},
	}
	for _, h := range all {
		h.network = true
	}
	return all
}

// wired lays rules over the network until it is healed.
func wired(lay wire) func(context.Context, *world) (string, func() error, error) {
	return func(ctx context.Context, w *world) (string, func() error, error) {
		leader, others, err := w.roles(ctx)
		if err != nil {
			return "", nil, err
		}
		return lay(w, leader, others), func() error { w.network.Heal(); return nil }, nil
	}
}

// around rules what one node hears (in) and what is heard of it (out).
func around(leads bool, planes []testcluster.Plane, in, out testcluster.Link) wire {
	return func(w *world, leader *testcluster.Node, others []*testcluster.Node) string {
		n := leader
		if !leads {
			n = others[0]
		}
		for _, p := range planes {
			for _, o := range w.cluster.Nodes {
				w.network.Set(p, o, n, in)
				w.network.Set(p, n, o, out)
			}
		}
		return n.Name
	}
}

func everywhere(l testcluster.Link) wire {
	return func(w *world, _ *testcluster.Node, _ []*testcluster.Node) string {
		for _, p := range bothPlanes {
			for _, a := range w.cluster.Nodes {
				for _, b := range w.cluster.Nodes {
					w.network.Set(p, a, b, l)
				}
			}
		}
		return "all"
	}
}

// bridge: two halves, of which one node reaches both.
func bridge(w *world, leader *testcluster.Node, others []*testcluster.Node) string {
	half := len(others) / 2
	left, right := append([]*testcluster.Node{leader}, others[:half-1]...), others[half:]
	for _, p := range bothPlanes {
		for _, a := range left {
			for _, b := range right {
				if b != right[0] {
					w.network.Set(p, a, b, testcluster.Link{Down: true})
					w.network.Set(p, b, a, testcluster.Link{Down: true})
				}
			}
		}
	}
	return "between " + names(left) + " and " + names(right[1:]) + ", over " + right[0].Name
}

// flapping isolates the leader for half a second, again and again.
func flapping(ctx context.Context, w *world) (string, func() error, error) {
	leader, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	down := testcluster.Link{Down: true}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for cut := true; ; cut = !cut {
			if cut {
				around(true, bothPlanes, down, down)(w, leader, others)
			} else {
				w.network.Heal()
			}
			if pause(ctx, 500*time.Millisecond) != nil {
				return
			}
		}
	})
	return leader.Name, func() error {
		cancel()
		wg.Wait()
		w.network.Heal()
		return nil
	}, nil
}
