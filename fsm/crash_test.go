package fsm

import (
	"math/rand"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"quinto/fsm/store"
)

// TestCrashAtEachStep cuts the power at every step of a local snapshot and of
// the receipt and installation of a remote one: what was not synced is gone.
// The node that comes back holds the old or the new state, catches up, and ends
// with the hash of the others.
func TestCrashAtEachStep(t *testing.T) {
	points := []string{"recv_start", "recv_done", "mid_unpack", "before_swap", "during_swap", "after_swap", "after_restore", "after_flush", "after_meta"}
	log := randomLog(rand.New(rand.NewSource(11)), 900)
	leader := newNode(t)
	for _, l := range log[:800] {
		leader.ApplyBatch([]*raft.Log{l})
	}
	leader.snapshot(800)
	for _, l := range log[800:] {
		leader.ApplyBatch([]*raft.Log{l})
	}
	want := hashOf(t, leader)
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			image := crashImage(t, leader, log, point)
			n := openNode(t, image)
			defer func() { _ = n.st.Close() }()
			if at := n.Applied(); at != 0 && at < 100 {
				t.Fatalf("applied %d: behind the snapshot that was durable before", at)
			}
			if n.Applied() < 800 {
				n.installFrom(leader)
			}
			n.ApplyBatch(log[n.Applied():])
			if got := hashOf(t, n); got != want {
				t.Fatalf("hash %s, want %s", got, want)
			}
		})
	}
}

// crashImage runs a node up to the named point and returns its disk as a power
// cut at that moment would leave it.
func crashImage(t *testing.T, leader *node, log []*raft.Log, point string) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewCrashableMem()
	var image *vfs.MemFS
	armed := false
	st, err := store.Open(store.Options{FS: fs, Dir: "state", MemTableBytes: 1 << 20, Crash: func(at string) {
		if armed && at == point && image == nil {
			image = fs.CrashClone(vfs.CrashCloneCfg{})
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(st)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, fs: fs, st: st, FSM: m}
	defer func() { _ = st.Close() }()
	n.ApplyBatch(slices.Clone(log[:100]))
	n.snapshot(100)
	n.ApplyBatch(slices.Clone(log[100:300]))
	armed = true
	n.snapshot(300)
	n.installFrom(leader)
	if image == nil {
		t.Fatalf("the point %s was never passed", point)
	}
	return image
}
