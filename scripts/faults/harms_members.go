package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"quinto/internal/testcluster"
)

// Exit codes of quinto.
const (
	exitFailure = 1 // it ran, and could not go on
	exitRefused = 2 // the start was refused
	exitUnknown = 4 // of `quinto cluster …`: nobody knows whether the change was made, ask again
)

// memberHarms change the members with the product's own commands while clients write.
func memberHarms() []*harm {
	return []*harm{
		{name: "remove-follower", do: removeOf(false), weight: 1},
		{name: "remove-leader", do: removeOf(true), weight: 2},
		{name: "remove-dead-and-replace", do: removeDead, weight: 2},
		{name: "add-and-promote", do: addAndPromote, weight: 1},
		{name: "demote-and-promote", do: demoteAndPromote, weight: 1},
		{name: "transfer", do: transferTo, times: 4, hold: time.Second, weight: 2},
		{name: "transfer-while-joining", do: transferWhileJoining, weight: 1},
	}
}

// change runs `quinto cluster ACTION NAME` where a node runs, until the outcome is
// known; with retry also until it is not refused any more.
func (w *world) change(ctx context.Context, at *testcluster.Node, retry bool, action, name string) error {
	ctx, cancel := w.within(ctx)
	defer cancel()
	for {
		c := exec.CommandContext(ctx, w.o.binary, "cluster", action, name, "--data", at.Dir, "--ini", w.cluster.INI)
		out, err := c.CombinedOutput()
		if err == nil {
			return nil
		}
		err = fmt.Errorf("cluster %s %s at %s: %w: %s", action, name, at.Name, err, out)
		if c.ProcessState == nil || c.ProcessState.ExitCode() != exitUnknown && !retry {
			return err
		}
		if pause(ctx, 200*time.Millisecond) != nil {
			return err
		}
	}
}

// remove takes a member out through another one. Its process, if it runs, has to end
// by itself, and to be refused when it is started again.
func (w *world) remove(ctx context.Context, n, through *testcluster.Node) error {
	runs := n.Running()
	if err := w.change(ctx, through, false, "remove", n.Name); err != nil || !runs {
		return err
	}
	if err := w.ends(ctx, n, exitFailure); err != nil {
		return err
	}
	return errors.Join(n.Start(), w.ends(ctx, n, exitRefused))
}

// ends waits until a removed node's process has ended as it should.
func (w *world) ends(ctx context.Context, n *testcluster.Node, want int) error {
	ctx, cancel := w.within(ctx)
	defer cancel()
	for n.Running() {
		if pause(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("%s was removed and runs on", n.Name)
		}
	}
	if code := n.ExitCode(); code != want {
		return fmt.Errorf("%s was removed and ends with exit code %d", n.Name, code)
	}
	return nil
}

// fresh joins a node under a name that nobody had.
func (w *world) fresh(ctx context.Context) error {
	return w.join(ctx, fmt.Sprintf("fresh%d", len(w.cluster.Nodes)))
}

// removeOf takes the leader, or a follower, out; another one takes its place.
func removeOf(leads bool) func(context.Context, *world) (string, func() error, error) {
	return func(ctx context.Context, w *world) (string, func() error, error) {
		leader, others, err := w.roles(ctx)
		if err != nil {
			return "", nil, err
		}
		n, through := others[0], leader
		if leads {
			n, through = leader, others[0]
		}
		return n.Name, func() error { return w.fresh(ctx) }, w.remove(ctx, n, through)
	}
}

// removeDead: a node dies for good, is taken out, and another one takes its place.
func removeDead(ctx context.Context, w *world) (string, func() error, error) {
	_, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	if err := others[0].Kill(); err != nil {
		return "", nil, err
	}
	return others[0].Name, func() error {
		return errors.Join(w.remove(ctx, others[0], others[1]), w.fresh(ctx))
	}, nil
}

// addAndPromote: a node joins and is given its vote at once, then the oldest goes.
func addAndPromote(ctx context.Context, w *world) (string, func() error, error) {
	_, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	n, err := w.launch("late")
	if err == nil {
		err = w.change(ctx, others[0], true, "promote", n.Name) // refused until it has caught up
	}
	if err != nil {
		return "late", nil, err
	}
	limit, cancel := w.within(ctx)
	defer cancel()
	return "late, " + others[1].Name, func() error { return w.remove(ctx, others[1], n) }, w.cluster.WaitVoter(limit, n.Name)
}

// demoteAndPromote takes a follower's vote and gives it back.
func demoteAndPromote(ctx context.Context, w *world) (string, func() error, error) {
	_, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	n := others[0]
	return n.Name, func() error { return w.change(ctx, n, true, "promote", n.Name) }, w.change(ctx, n, false, "demote", n.Name)
}

// transferTo hands leadership to a follower, which must then lead.
func transferTo(ctx context.Context, w *world) (string, func() error, error) {
	leader, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	if err := w.change(ctx, leader, false, "transfer", others[0].Name); err != nil {
		return "", nil, err
	}
	now, err := w.leader(ctx)
	if err == nil && now != others[0] {
		err = fmt.Errorf("%s leads, leadership was handed to %s", now.Name, others[0].Name)
	}
	return leader.Name + " to " + others[0].Name, nil, err
}

// transferWhileJoining hands leadership around while a node joins.
func transferWhileJoining(ctx context.Context, w *world) (string, func() error, error) {
	_, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	n, err := w.launch("late")
	for i := range 6 {
		if err != nil {
			return "late", nil, err
		}
		// Refused while another change is under way, and to who leads already.
		err = errors.Join(w.change(ctx, others[i%2], true, "transfer", others[i%2].Name), pause(ctx, 500*time.Millisecond))
	}
	return "late", func() error {
		limit, cancel := w.within(ctx)
		defer cancel()
		return w.cluster.WaitVoter(limit, n.Name)
	}, err
}
