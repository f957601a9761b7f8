package fsm

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"quinto/fsm/store"
)

// reborn restores a backup of n into a new store.
func reborn(t *testing.T, n *node, r Rebirth) *node {
	t.Helper()
	size, rc, err := n.st.OpenBackup()
	if err != nil {
		t.Fatal(err)
	}
	fs := vfs.NewMem()
	st, err := store.Open(store.Options{FS: fs, Dir: "state", Prepare: func(db *pebble.DB, _ store.Kind, _, _ uint64) error {
		_, err := r.Apply(db)
		return err
	}})
	if err == nil {
		err = st.Restore(rc, size, raft.SnapshotMeta{Version: 1, ID: "restored", Index: r.Index, Term: r.Term})
	}
	if err = errors.Join(err, rc.Close()); err != nil {
		t.Fatal(err)
	}
	m, err := Open(st)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return &node{t: t, fs: fs, st: st, FSM: m}
}

// A restored state has another cluster, a place in the log that starts again,
// revisions a life away, and lists above every time that was shown.
func TestRebirth(t *testing.T) {
	n := newNode(t)
	for i := range 300 {
		n.apply(put(Path("/buckets/b"+string(rune('a'+i%7))), Timestamp(1000+i), `{"n":1}`))
	}
	old := n.view()
	r := Rebirth{ClusterID: "new", Index: 1, Term: 1, Raise: 5000, At: 6000, Forget: []string{"node/"}}
	m := reborn(t, n, r)
	v := m.view()
	if v.ClusterID() != "new" || v.Revision() != LifeStep || v.Applied() != 1 || m.Applied() != 1 {
		t.Fatal(v.ClusterID(), v.Revision(), v.Applied())
	}
	if v.StateHash() == old.StateHash() {
		t.Error("the rolling hash goes on as if nothing had happened")
	}
	l, err := v.List("/buckets")
	if err != nil || l.Timestamp != 5001 || l.Count != 7 {
		t.Errorf("%+v %v", l, err)
	}
	o, err := v.Get("/buckets/ba")
	was, err2 := old.Get("/buckets/ba")
	if err != nil || err2 != nil || o.LastModified != was.LastModified || o.Revision != was.Revision {
		t.Errorf("%+v %+v %v %v", o, was, err, err2)
	}
	lives, err := v.Lives()
	if err != nil || len(lives) != 1 || lives[0] != (Life{Last: 300, Next: LifeStep, From: testCluster, At: 6000}) {
		t.Fatalf("%+v %v", lives, err)
	}
	h := m.st.Acquire()
	rows, err := CheckRows(h.DB())
	h.Release()
	if err != nil || rows == 0 {
		t.Error(rows, err)
	}
	if _, err := v.Hash(); err != nil {
		t.Error(err)
	}
	// Entries of the new log are applied from its second one on; those of the old
	// cluster halt.
	enc := EncodeTxn(&Txn{Now: 7000, Ops: []Op{{Type: OpPut, Path: "/buckets/z", Data: []byte("{}")}}})
	out := m.ApplyBatch([]*raft.Log{{Index: 2, Term: 2, Type: raft.LogCommand, Data: EncodeGroup("new", [][]byte{enc})}})
	if res, ok := out[0].([]Result); !ok || res[0].Revision != LifeStep+1 {
		t.Fatalf("%+v", out)
	}
	if err, ok := m.ApplyBatch([]*raft.Log{{Index: 3, Term: 2, Type: raft.LogCommand, Data: EncodeGroup(testCluster, [][]byte{enc})}})[0].(error); !ok || !errors.Is(err, ErrHalted) {
		t.Error(err)
	}
}

func TestRebirthKeepsListsOfTheLastState(t *testing.T) {
	n := newNode(t)
	n.apply(put("/buckets/a", 1000, `{}`))
	first := reborn(t, n, Rebirth{ClusterID: "x", Index: 1, Term: 1})
	second := reborn(t, first, Rebirth{ClusterID: "y", Index: 1, Term: 1, Above: 5*LifeStep + 3})
	v := second.view()
	if l, err := v.List("/buckets"); err != nil || l.Timestamp != 1000 {
		t.Errorf("%+v %v", l, err)
	}
	lives, err := v.Lives()
	if err != nil || len(lives) != 2 || v.Revision() != 6*LifeStep || lives[1].Last != LifeStep {
		t.Errorf("%d %+v %v", v.Revision(), lives, err)
	}
}

func TestLives(t *testing.T) {
	lives := Lives{{Last: 100, Next: LifeStep}, {Last: LifeStep + 10, Next: 2 * LifeStep}}
	for r, want := range map[Revision]bool{
		1: false, 100: false, 101: true, LifeStep - 1: true, LifeStep: false, LifeStep + 10: false,
		LifeStep + 11: true, 2 * LifeStep: false, 2*LifeStep + 7: false,
	} {
		if lives.Lost(r) != want {
			t.Errorf("Lost(%d) is not %v", r, want)
		}
	}
	for _, c := range []struct {
		from Revision
		n    uint64
		want Revision
	}{
		{50, 7, 43}, {50, 70, 0}, {LifeStep + 5, 3, LifeStep + 2}, {LifeStep + 5, 5, LifeStep}, {LifeStep + 5, 6, 99},
		{2*LifeStep + 5, 16, 99}, {2 * LifeStep, 1000, 0},
	} {
		if got := lives.Back(c.from, c.n); got != c.want {
			t.Errorf("Back(%d, %d) = %d, want %d", c.from, c.n, got, c.want)
		}
	}
	for _, c := range []struct {
		from Revision
		n    uint64
		want Revision
	}{
		{50, 7, 57}, {50, 70, 100}, {100, 1, LifeStep}, {LifeStep + 3, 100, LifeStep + 10}, {LifeStep + 10, 1, 2 * LifeStep}, {2 * LifeStep, 3, 2*LifeStep + 3},
	} {
		if got := lives.Forward(c.from, c.n); got != c.want {
			t.Errorf("Forward(%d, %d) = %d, want %d", c.from, c.n, got, c.want)
		}
	}
	goldenFile(t, "life.hex", encodeLife(&Life{Last: 300, Next: LifeStep, From: testCluster, At: 6000}))
}
