package cluster

import (
	"context"
	"io"
	"path/filepath"
	"testing"
	"time"

	"quinto/fsm"
	"quinto/fsm/store"
)

// installAhead gives the stopped node what a leader streams, and ends there, as a crash
// would: the state is ahead of its snapshot, and both are ahead of the node's log.
func installAhead(t *testing.T, from *testNode, c *Config) {
	t.Helper()
	list, err := from.store.Snapshots().List()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	meta, rc, err := from.store.Snapshots().Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	st, err := store.Open(store.Options{Dir: filepath.Join(c.DataDir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	sink, err := st.Snapshots().Create(1, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(sink, rc); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	_, received, err := st.Snapshots().Open(sink.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Install(received, func(*store.Handle) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if st.Applied() <= meta.Index {
		t.Fatalf("the state at %d is not ahead of its snapshot at %d", st.Applied(), meta.Index)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// behind returns a cluster whose node was away while others wrote, and has since
// installed what the leader sent.
func behind(t *testing.T, library string) (l, away, other *testNode) {
	t.Helper()
	nodes := trio(t, func(c *Config) { c.LogStore = library })
	l = leaderOf(t, nodes...)
	rest := others(l, nodes)
	away, other = rest[0], rest[1]
	mustPut(t, l, "before")
	ready(t, away)
	away.stop(t)
	for range 20 {
		mustPut(t, l, "snapshot")
	}
	if err := l.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		mustPut(t, l, "flushed")
	}
	if err := l.store.Flush(); err != nil {
		t.Fatal(err)
	}
	installAhead(t, l, &away.cfg)
	return l, away, other
}

// A node that ends right behind the installation of a snapshot starts again, whatever
// its log has, and catches up. Found by scripts/sim.
func TestNodeStartsWithAStateAheadOfItsLog(t *testing.T) {
	for _, library := range []string{LogBolt, LogWAL} {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			l, away, _ := behind(t, library)
			again := startNode(t, away.cfg)
			ready(t, again)
			mustPut(t, l, "after")
			sameState(t, l, again)
		})
	}
}

// The only survivor is a node whose state is ahead of its log: what is written after the
// recovery is not taken for what the state already has.
func TestRecoveryWithAStateAheadOfItsLog(t *testing.T) {
	for _, library := range []string{LogBolt, LogWAL} {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			l, away, other := behind(t, library)
			l.stop(t)
			other.stop(t)
			c := away.cfg
			c.Recover, c.Join, c.Expect, c.GossipAddr = true, nil, 0, ""
			n, err := openNode(&c)
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Recover(); err != nil {
				t.Fatal(err)
			}
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { n.stop(t) })
			ready(t, n)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if _, err := n.EndRecovery(ctx); err != nil {
				t.Fatal(err)
			}
			before := n.fsm.Revision()
			if r := mustPut(t, n, "after"); r <= before || !has(t, n, "after") {
				t.Errorf("revision %d after %d", r, before)
			}
			if v, err := n.View(ctx, fsm.Freshness{}); err != nil || v.Revision() <= before {
				t.Error(err)
			} else {
				v.Close()
			}
		})
	}
}
