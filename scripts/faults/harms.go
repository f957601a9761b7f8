package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"quinto/internal/testcluster"
)

// harm is one way to do damage.
type harm struct {
	name string
	// do begins it and returns whom it hit and how it ends; nil: it ended by itself.
	do func(ctx context.Context, w *world) (target string, heal func() error, err error)
	// times it is done in a run; 1 when 0. hold is how long it lasts, o.hold when 0.
	times int
	hold  time.Duration
	// What it needs of the machine.
	network, disks, binary bool
	settings               []string
	weight                 int // of the small selection: 0 is rarely taken
}

func (h *harm) holds(o *options) time.Duration {
	if h.hold != 0 {
		return h.hold
	}
	return o.hold
}

// missing says why the harm cannot be done here; empty: it can.
func (h *harm) missing(o *options) string {
	switch {
	case h.network && !o.network:
		return "needs network namespaces: " + o.noNetwork
	case h.disks && !o.disks:
		return "needs file systems of its own: " + o.noDisks
	case h.binary && !o.faultsBuild:
		return "needs a binary built with -tags faults"
	}
	return ""
}

// harms is the table; reliability's 24 and what the issue adds.
func harms() []*harm {
	all := []*harm{
		{name: "kill-leader", do: killOf(1, true), times: 2, weight: 3},
		{name: "kill-follower", do: killOf(1, false), weight: 1},
		{name: "kill-majority", do: killMajority, weight: 2},
		{name: "kill-all", do: killAll, weight: 2},
		{name: "pause-leader", do: pauseOf(true), times: 2, weight: 3},
		{name: "pause-follower", do: pauseOf(false), weight: 1},
		{name: "pause-majority", do: pauseMajority, weight: 1},
		{name: "stop-leader", do: stopLeader, times: 2, weight: 1},
		{name: "restart-all-in-turn", do: restartInTurn, weight: 1},
		{name: "wiped-disk-same-name", do: wipedDisk, weight: 1},
		{name: "new-node-replaces-dead-one", do: replaceNode, weight: 1},
		{name: "add-voter", do: addVoter, weight: 1},
		{name: "address-change", do: addressChange, weight: 1},
		{name: "crash-in-snapshot", do: crashInSnapshot, times: 2, weight: 1},
		{name: "crash-in-restore", do: crashInRestore, hold: time.Second, weight: 1},
		{name: "webhook-down", do: receiverFails(http.StatusInternalServerError, 0, killOf(1, true)), weight: 1},
		{name: "webhook-slow", do: receiverFails(0, 300*time.Millisecond, killOf(1, true)), weight: 1},
	}
	all = append(all, memberHarms()...)
	all = append(all, clockHarms()...)
	all = append(all, networkHarms()...)
	return append(all, diskHarms()...)
}

func names(nodes []*testcluster.Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return strings.Join(out, ", ")
}

// kill ends nodes at once; healing starts them again.
func kill(nodes ...*testcluster.Node) (string, func() error, error) {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.Kill())
	}
	return names(nodes), func() error { return startAll(nodes) }, errors.Join(errs...)
}

func startAll(nodes []*testcluster.Node) error {
	var errs []error
	for _, n := range nodes {
		if !n.Running() {
			errs = append(errs, n.Start())
		}
	}
	return errors.Join(errs...)
}

func killOf(count int, leads bool) func(context.Context, *world) (string, func() error, error) {
	return func(ctx context.Context, w *world) (string, func() error, error) {
		leader, others, err := w.roles(ctx)
		if err != nil {
			return "", nil, err
		}
		if leads {
			return kill(leader)
		}
		return kill(others[:count]...)
	}
}

// majority with the leader.
func (w *world) majority(ctx context.Context) ([]*testcluster.Node, error) {
	leader, others, err := w.roles(ctx)
	if err != nil {
		return nil, err
	}
	return append([]*testcluster.Node{leader}, others[:len(w.cluster.Nodes)/2]...), nil
}

func killMajority(ctx context.Context, w *world) (string, func() error, error) {
	nodes, err := w.majority(ctx)
	if err != nil {
		return "", nil, err
	}
	return kill(nodes...)
}

func killAll(_ context.Context, w *world) (string, func() error, error) {
	return kill(w.cluster.Nodes...)
}

func freeze(nodes ...*testcluster.Node) (string, func() error, error) {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.Pause())
	}
	return names(nodes), func() error {
		var errs []error
		for _, n := range nodes {
			errs = append(errs, n.Resume())
		}
		return errors.Join(errs...)
	}, errors.Join(errs...)
}

func pauseOf(leads bool) func(context.Context, *world) (string, func() error, error) {
	return func(ctx context.Context, w *world) (string, func() error, error) {
		leader, others, err := w.roles(ctx)
		if err != nil {
			return "", nil, err
		}
		if leads {
			return freeze(leader)
		}
		return freeze(others[0])
	}
}

func pauseMajority(ctx context.Context, w *world) (string, func() error, error) {
	nodes, err := w.majority(ctx)
	if err != nil {
		return "", nil, err
	}
	return freeze(nodes...)
}

// stopLeader ends the leader as an operator does.
func stopLeader(ctx context.Context, w *world) (string, func() error, error) {
	leader, err := w.leader(ctx)
	if err != nil {
		return "", nil, err
	}
	return leader.Name, func() error { return leader.Start() }, leader.Stop()
}

func restartInTurn(ctx context.Context, w *world) (string, func() error, error) {
	ctx, cancel := w.within(ctx)
	defer cancel()
	for _, n := range w.cluster.Nodes {
		if err := errors.Join(n.Stop(), n.Start(), n.WaitReady(ctx)); err != nil {
			return n.Name, nil, err
		}
	}
	return "each", nil, nil
}

// wipedDisk starts a node with an empty folder under its old name, which must be
// refused, and then gives it its folder back.
func wipedDisk(ctx context.Context, w *world) (string, func() error, error) {
	_, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	n, kept := others[0], others[0].Dir+".kept"
	if err := errors.Join(n.Kill(), os.Rename(n.Dir, kept), os.MkdirAll(n.Dir, 0o700), n.Start()); err != nil {
		return n.Name, nil, err
	}
	return n.Name, func() error {
		ready, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if n.Running() && n.WaitReady(ready) == nil {
			return fmt.Errorf("%s serves with a wiped disk under its old name", n.Name)
		}
		return errors.Join(n.Kill(), os.RemoveAll(n.Dir), os.Rename(kept, n.Dir), n.Start())
	}, nil
}

// launch starts one more node, which clients call from then on.
func (w *world) launch(name string) (*testcluster.Node, error) {
	n, err := w.cluster.Add(name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(w.furnish(n), n.Start()); err != nil {
		return nil, err
	}
	w.load.Use(httpNodes(w.cluster.Nodes))
	return n, nil
}

// join starts one more node and waits until it votes.
func (w *world) join(ctx context.Context, name string) error {
	if _, err := w.launch(name); err != nil {
		return err
	}
	ctx, cancel := w.within(ctx)
	defer cancel()
	return w.cluster.WaitVoter(ctx, name)
}

func addVoter(ctx context.Context, w *world) (string, func() error, error) {
	return "late", nil, w.join(ctx, "late")
}

// replaceNode: a node dies for good and an empty one comes under another name. The
// dead one stays a member, as nothing is removed by itself.
func replaceNode(ctx context.Context, w *world) (string, func() error, error) {
	_, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	return others[0].Name, nil, errors.Join(others[0].Kill(), w.join(ctx, "fresh"))
}

// addressChange: a node comes back under another IP, with its folder.
func addressChange(ctx context.Context, w *world) (string, func() error, error) {
	_, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	n := others[0]
	return n.Name, func() error {
		if err := n.Move(); err != nil {
			return err
		}
		if w.network != nil {
			if _, err := w.hooks.listen(n, hookPort); err != nil {
				return err
			}
		}
		return n.Start()
	}, n.Kill()
}

// receiverFails: the webhook's receiver is away across another harm.
func receiverFails(code int32, slow time.Duration, do func(context.Context, *world) (string, func() error, error)) func(context.Context, *world) (string, func() error, error) {
	return func(ctx context.Context, w *world) (string, func() error, error) {
		w.hooks.broken.Store(code)
		w.hooks.slow.Store(int64(slow))
		target, heal, err := do(ctx, w)
		return target, func() error {
			w.hooks.broken.Store(0)
			w.hooks.slow.Store(0)
			return heal()
		}, err
	}
}
