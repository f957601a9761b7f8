package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quinto/internal/testcluster"
)

// clockFolder of a run has a file for each node with what its clock is off by, as
// the binary built with -tags faults reads it.
const (
	clockFolder   = "clocks"
	clockVariable = "QUINTO_FAULTS_CLOCK"
)

func (w *world) environment() []string {
	return []string{clockVariable + "=" + filepath.Join(w.dir, clockFolder)}
}

// skew sets a node's clock off by d.
func (w *world) skew(n *testcluster.Node, d time.Duration) error {
	dir := filepath.Join(w.dir, clockFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp := filepath.Join(dir, n.Name+".new")
	if err := os.WriteFile(temp, []byte(d.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, n.Name))
}

func clockHarms() []*harm {
	all := []*harm{
		{name: "clock-ahead-then-failover", do: clockThenKill(time.Hour), weight: 1},
		{name: "clock-behind-then-failover", do: clockThenKill(-time.Hour), weight: 1},
		{name: "clock-jumps", do: clockJumps, weight: 1},
	}
	for _, h := range all {
		h.binary = true
	}
	return all
}

// clockThenKill sets the leader's clock wrong and, when it has written for a while,
// makes another one lead, whose clock is right.
func clockThenKill(d time.Duration) func(context.Context, *world) (string, func() error, error) {
	return func(ctx context.Context, w *world) (string, func() error, error) {
		leader, err := w.leader(ctx)
		if err != nil {
			return "", nil, err
		}
		if err := errors.Join(w.skew(leader, d), pause(ctx, 2*time.Second)); err != nil {
			return "", nil, err
		}
		target, heal, err := kill(leader)
		return target, func() error { return errors.Join(w.skew(leader, 0), heal()) }, err
	}
}

// clockJumps sets the leader's clock to and fro.
func clockJumps(ctx context.Context, w *world) (string, func() error, error) {
	leader, err := w.leader(ctx)
	if err != nil {
		return "", nil, err
	}
	for i := range 6 {
		d := time.Duration(w.rand.IntN(60)) * time.Second
		if i%2 == 1 {
			d = -d
		}
		if err := errors.Join(w.skew(leader, d), pause(ctx, 400*time.Millisecond)); err != nil {
			return "", nil, err
		}
	}
	return leader.Name, func() error { return w.skew(leader, 0) }, nil
}

// killWhen ends a node at the moment when a name in its store's folder begins so.
func killWhen(ctx context.Context, n *testcluster.Node, prefix string, limit time.Duration) error {
	dir := filepath.Join(n.Dir, "db")
	for end := time.Now().Add(limit); time.Now().Before(end); {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		found, err := f.Readdirnames(-1)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		for _, name := range found {
			if strings.HasPrefix(name, prefix) {
				return n.Kill()
			}
		}
		if err := pause(ctx, 200*time.Microsecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s made nothing that begins with %q in %s", n.Name, prefix, limit)
}

// crashInSnapshot kills a node while it commits a snapshot of its own.
func crashInSnapshot(ctx context.Context, w *world) (string, func() error, error) {
	n := w.cluster.Nodes[w.rand.IntN(len(w.cluster.Nodes))]
	err := killWhen(ctx, n, "CURRENT.tmp", 20*time.Second)
	return n.Name, func() error { return startAll([]*testcluster.Node{n}) }, err
}

// crashInRestore kills a follower twice while it unpacks the snapshot that it was
// sent, and lets it come through the third time.
func crashInRestore(ctx context.Context, w *world) (string, func() error, error) {
	_, others, err := w.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	n := others[0]
	if err := n.Kill(); err != nil {
		return "", nil, err
	}
	if err := pause(ctx, 10*time.Second); err != nil { // until the log is cut behind it
		return "", nil, err
	}
	for range 2 {
		if err := errors.Join(n.Start(), killWhen(ctx, n, "incoming-", 20*time.Second)); err != nil {
			return n.Name, nil, err
		}
	}
	return n.Name, func() error { return startAll([]*testcluster.Node{n}) }, nil
}
