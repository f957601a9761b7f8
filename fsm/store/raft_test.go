package store

import (
	"encoding/binary"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// chainFSM is the smallest state machine that shows a skipped, doubled or
// reordered entry: each command changes a hash of all before it.
type chainFSM struct {
	t testing.TB
	s *Store
}

var chainKey = []byte("chain")

func (f *chainFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *chainFSM) ApplyBatch(logs []*raft.Log) []any {
	h := f.s.Acquire()
	defer h.Release()
	b := h.DB().NewIndexedBatch()
	defer b.Close()
	applied := f.s.Applied()
	for _, l := range logs {
		if l.Index <= applied {
			continue
		}
		applied = l.Index
		if l.Type == raft.LogCommand {
			if err := b.Set(chainKey, chain(f.t, b, l.Data), nil); err != nil {
				panic(err)
			}
		}
	}
	if err := b.Set(f.s.AppliedKey(), binary.BigEndian.AppendUint64(nil, applied), nil); err != nil {
		panic(err)
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		panic(err)
	}
	f.s.NoteApplied(applied)
	return make([]any, len(logs))
}

func chain(t testing.TB, r pebble.Reader, data []byte) []byte {
	v, closer, err := r.Get(chainKey)
	d := xxhash.New()
	if err == nil {
		_, _ = d.Write(v)
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
	}
	_, _ = d.Write(data)
	return d.Sum(nil)
}

func (f *chainFSM) Snapshot() (raft.FSMSnapshot, error) {
	return &chainSnapshot{f.s, f.s.Acquire()}, nil
}

func (f *chainFSM) Restore(rc io.ReadCloser) error {
	return f.s.Install(rc, func(*Handle) error { return nil })
}

type chainSnapshot struct {
	s *Store
	h *Handle
}

func (c *chainSnapshot) Persist(sink raft.SnapshotSink) error { return c.s.Persist(c.h, sink) }
func (c *chainSnapshot) Release()                             { c.h.Release() }

type node struct {
	id    raft.ServerID
	fs    *vfs.MemFS
	logs  *raft.InmemStore
	trans *raft.InmemTransport
	store *Store
	raft  *raft.Raft
}

func (n *node) start(t *testing.T) {
	t.Helper()
	s, err := Open(testOptions(n.fs, testDir))
	check(t, err)
	n.store = s
	c := raft.DefaultConfig()
	c.LocalID = n.id
	c.Logger = hclog.NewNullLogger()
	c.HeartbeatTimeout, c.ElectionTimeout = time.Second, time.Second // patient: tests run on busy machines
	c.LeaderLeaseTimeout, c.CommitTimeout = time.Second, 5*time.Millisecond
	c.SnapshotInterval, c.SnapshotThreshold = time.Hour, 1<<40 // by hand only
	c.TrailingLogs = 20
	c.NoSnapshotRestoreOnStart = true
	n.raft, err = raft.NewRaft(c, &chainFSM{t, s}, n.logs, n.logs, s.Snapshots(), n.trans)
	check(t, err)
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	check(t, n.raft.Shutdown().Error())
	check(t, n.store.Close())
}

func (n *node) hash(t *testing.T) string {
	t.Helper()
	h := n.store.Acquire()
	defer h.Release()
	v, closer, err := h.DB().Get(chainKey)
	if err != nil {
		return err.Error()
	}
	defer closer.Close()
	return fmt.Sprintf("%x", v)
}

func cluster(t *testing.T) []*node {
	t.Helper()
	var nodes []*node
	var servers []raft.Server
	for i := range 3 {
		addr, trans := raft.NewInmemTransport("")
		n := &node{id: raft.ServerID(fmt.Sprint("n", i)), fs: vfs.NewMem(), logs: raft.NewInmemStore(), trans: trans}
		nodes = append(nodes, n)
		servers = append(servers, raft.Server{ID: n.id, Address: addr})
	}
	for _, n := range nodes {
		n.start(t)
	}
	check(t, nodes[0].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error())
	join(nodes, nodes...)
	return nodes
}

// join connects some nodes with all of nodes.
func join(nodes []*node, some ...*node) {
	for _, a := range some {
		for _, b := range nodes {
			if a != b {
				a.trans.Connect(b.trans.LocalAddr(), b.trans)
				b.trans.Connect(a.trans.LocalAddr(), a.trans)
			}
		}
	}
}

func leaderOf(t *testing.T, nodes []*node) *node {
	t.Helper()
	for range 3000 {
		for _, n := range nodes {
			if n.raft.State() == raft.Leader && n.raft.VerifyLeader().Error() == nil {
				return n
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no leader")
	return nil
}

// propose commits count commands, again if the leader changes meanwhile.
func propose(t *testing.T, nodes []*node, count int) {
	t.Helper()
	for range 10 {
		leader := leaderOf(t, nodes)
		var last raft.ApplyFuture
		for i := range count {
			last = leader.raft.Apply(fmt.Appendf(nil, "command %d", i), 5*time.Second)
		}
		if last.Error() == nil {
			return
		}
	}
	t.Fatal("nothing is committed")
}

func converge(t *testing.T, nodes []*node) {
	t.Helper()
	var hashes []string
	for range 6000 {
		hashes = hashes[:0]
		for _, n := range nodes {
			hashes = append(hashes, n.hash(t))
		}
		if hashes[0] == hashes[1] && hashes[1] == hashes[2] {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("states differ: %v", hashes)
}

// TestRaftCluster: a follower that lags behind a truncated log catches up by a
// stream, also after all nodes restarted and while the leader writes on; a
// backup of a longer log can be restored; no entry is skipped or doubled.
func TestRaftCluster(t *testing.T) {
	nodes := cluster(t)
	defer func() {
		for _, n := range nodes {
			n.stop(t)
		}
	}()
	propose(t, nodes, 100)
	lagging := nodes[0]
	if lagging == leaderOf(t, nodes) {
		lagging = nodes[1]
	}
	lagging.stop(t)
	for range 3 {
		propose(t, nodes, 200)
		for _, n := range nodes {
			if n != lagging {
				check(t, n.raft.Snapshot().Error())
			}
		}
	}
	if first, err := leaderOf(t, nodes).logs.FirstIndex(); err != nil || first < 500 {
		t.Fatalf("the log was not truncated: first index %d, %v", first, err)
	}
	propose(t, nodes, 50)
	lagging.start(t)
	join(nodes, lagging) // a shutdown cuts the connections
	for range 10 {
		propose(t, nodes, 50)
	}
	converge(t, nodes)
	if meta, ok := lagging.store.SnapshotMeta(); !ok || meta.Index < 500 {
		t.Fatal("caught up without the stream", meta.Index)
	}
	for _, n := range nodes {
		n.stop(t)
	}
	for _, n := range nodes {
		n.start(t)
	}
	join(nodes, nodes...)
	propose(t, nodes, 10)
	converge(t, nodes)
	restoreBackup(t, nodes)
}

func restoreBackup(t *testing.T, nodes []*node) {
	t.Helper()
	const longer = 5_000 // entries: a far longer log
	src := mustOpen(t, testOptions(vfs.NewMem(), testDir))
	apply(t, src, 1, longer, "b")
	var leader *node
	for i := range 5 { // a busy machine may lose its leader meanwhile
		size, rc, err := src.OpenBackup()
		check(t, err)
		leader = leaderOf(t, nodes)
		meta := &raft.SnapshotMeta{Version: 1, Index: 1, Term: 1, Size: size}
		err = leader.raft.Restore(meta, rc, 30*time.Second)
		check(t, rc.Close())
		if err == nil {
			break
		}
		if i == 4 {
			t.Fatal(err)
		}
	}
	before := leader.hash(t)
	propose(t, nodes, 100)
	if leader.hash(t) == before {
		t.Fatal("acknowledged writes were skipped")
	}
	converge(t, nodes)
	for _, n := range nodes {
		h := n.store.Acquire()
		_, closer, err := h.DB().Get(entryKey(longer))
		check(t, err)
		check(t, closer.Close())
		h.Release()
	}
}
