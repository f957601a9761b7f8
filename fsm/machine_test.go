package fsm

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"quinto/fsm/store"
)

const testCluster = "0b7fd5a6-cluster"

// node is one state machine over a store in memory, fed with a log by hand.
type node struct {
	t  testing.TB
	fs *vfs.MemFS
	st *store.Store
	*FSM
}

func openNode(t testing.TB, fs *vfs.MemFS) *node {
	t.Helper()
	return openNodeWith(t, fs, 1<<20) // small, so that tests flush and compact
}

func openNodeWith(t testing.TB, fs *vfs.MemFS, memTable uint64) *node {
	t.Helper()
	st, err := store.Open(store.Options{FS: fs, Dir: "state", MemTableBytes: memTable, Prepare: CheckReceived})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(st)
	if err != nil {
		t.Fatal(err)
	}
	return &node{t: t, fs: fs, st: st, FSM: m}
}

func newNode(t testing.TB) *node {
	n := openNode(t, vfs.NewMem())
	t.Cleanup(func() { _ = n.st.Close() })
	return n
}

func entry(index uint64, txns ...Txn) *raft.Log {
	enc := make([][]byte, len(txns))
	for i := range txns {
		enc[i] = EncodeTxn(&txns[i])
	}
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: EncodeGroup(testCluster, enc)}
}

// apply applies one entry after the last and returns its results.
func (n *node) apply(txns ...Txn) []Result {
	n.t.Helper()
	out := n.ApplyBatch([]*raft.Log{entry(n.Applied()+1, txns...)})
	r, ok := out[0].([]Result)
	if !ok {
		n.t.Fatalf("apply: %v", out[0])
	}
	return r
}

func (n *node) view() *View {
	n.t.Helper()
	v, err := n.View()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(v.Close)
	return v
}

func (n *node) snapshot(index uint64) {
	n.t.Helper()
	s, err := n.Snapshot()
	if err != nil {
		n.t.Fatal(err)
	}
	defer s.Release()
	sink, err := n.st.Snapshots().Create(1, index, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := s.Persist(sink); err != nil {
		n.t.Fatal(err)
	}
}

// installFrom sends from's newest snapshot to n, as raft would.
func (n *node) installFrom(from *node) {
	n.t.Helper()
	list, err := from.st.Snapshots().List()
	if err != nil || len(list) != 1 {
		n.t.Fatal(list, err)
	}
	meta, rc, err := from.st.Snapshots().Open(list[0].ID)
	if err != nil {
		n.t.Fatal(err)
	}
	defer rc.Close()
	sink, err := n.st.Snapshots().Create(meta.Version, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := io.Copy(sink, rc); err != nil {
		n.t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		n.t.Fatal(err)
	}
	_, in, err := n.st.Snapshots().Open(sink.ID())
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.Restore(in); err != nil {
		n.t.Fatal(err)
	}
}

func put(p Path, now Timestamp, data string) Txn {
	return Txn{Now: now, UserID: "u", Ops: []Op{{Type: OpPut, Path: p, Data: []byte(data)}}}
}

func hashOf(t testing.TB, n *node) string {
	t.Helper()
	v, err := n.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	h, err := v.Hash()
	if err != nil {
		t.Fatal(err)
	}
	r := v.StateHash()
	return fmt.Sprintf("%d %s %s", v.Revision(), hex.EncodeToString(r[:6]), hex.EncodeToString(h[:6]))
}

// randomTxn makes a transaction of any kind; it also makes ones that conflict,
// repeat a request id or have no effect.
func randomTxn(r *rand.Rand, now Timestamp) Txn {
	t := Txn{Now: now + Timestamp(r.Intn(5)-2), UserID: "basicauth:" + string(rune('a'+r.Intn(3)))}
	if r.Intn(3) == 0 {
		t.RequestID, t.RequestHash, t.Reply = []byte(fmt.Sprint("id", r.Intn(500))), []byte("h"), []byte("reply")
	}
	if r.Intn(6) == 0 {
		kind := 1 + r.Intn(3)
		t.Compares = []Compare{{Kind: CompareKind(kind), Key: []string{"", "/buckets/b0", "/buckets", "a"}[kind], Revision: Revision(r.Intn(20))}}
	}
	for n := 1 + r.Intn(3); n > 0; n-- {
		t.Ops = append(t.Ops, randomOp(r, now))
	}
	return t
}

func randomLog(r *rand.Rand, entries uint64) []*raft.Log {
	var log []*raft.Log
	for i := uint64(1); i <= entries; i++ {
		var txns []Txn
		for n := r.Intn(4); n > 0; n-- {
			txns = append(txns, randomTxn(r, Timestamp(1_000_000+i)))
		}
		log = append(log, entry(i, txns...))
	}
	return log
}

func randomOp(r *rand.Rand, now Timestamp) Op {
	b := Path(fmt.Sprintf("/buckets/b%d", r.Intn(3)))
	rec := b.Child("collections").Child(fmt.Sprint("c", r.Intn(3))).Child("records").Child(fmt.Sprint("r", r.Intn(20)))
	op := Op{Path: rec, Data: []byte(fmt.Sprintf(`{"n":%d}`, r.Int())), ACL: NewACL(map[string][]string{"write": {"u"}}), Inherited: []string{"x"}}
	if r.Intn(4) == 0 {
		op.HasTime, op.LastModified = true, now+Timestamp(r.Intn(2000)-1000)
	}
	if r.Intn(250) == 0 {
		return Op{Type: OpFlush, Members: []string{"s1"}}
	}
	switch k := r.Intn(48); {
	case k < 17:
		op.Type = OpPut
	case k < 20:
		op.Type, op.Fresh, op.Path = OpPut, true, rec.List().Child(fmt.Sprintf("f%016x", r.Uint64()))
	case k < 23:
		op.Type, op.Path, op.Members = OpPut, b.Child("groups").Child(fmt.Sprint("g", r.Intn(3))), []string{"a", fmt.Sprint("m", r.Intn(4))}
	case k < 25:
		op.Type, op.Path = OpPut, b
	case k < 30:
		op.Type = OpDelete
	case k < 32:
		op.Type, op.Path = OpDeleteTree, []Path{b, rec.Parent()}[r.Intn(2)]
	case k < 33:
		op.Type = OpPutTombstone
	case k < 34:
		op.Type, op.Path = OpSetListTimestamp, rec.List()
	case k < 35:
		op = Op{Type: OpPurgeTombstones, Path: rec.List(), LastModified: now - 500, HasTime: true}
	case k < 36:
		op = Op{Type: OpTrimEvents, Revision: Revision(r.Intn(int(now%1e6) + 1))}
	case k < 37:
		op = Op{Type: OpRegisterNotifier, Name: fmt.Sprint("n", r.Intn(2)), Value: []byte("h")}
	case k < 38:
		op = Op{Type: OpAdvanceCursor, Name: "n0", Revision: Revision(r.Intn(1000)), Lanes: []Lane{{Key: "l", Revision: 3}}}
	case k < 39:
		op = Op{Type: OpSetSetting, Name: fmt.Sprint("s", r.Intn(3)), Value: []byte("v")}
	case k < 40:
		op = Op{Type: OpForgetNotifier, Name: "n1"}
	default:
		op = randomEntryOp(r, b, op)
	}
	return op
}

// randomEntryOp writes, deletes or drops an entry of b's history; it refers to
// what stands at op's path, or to the bucket.
func randomEntryOp(r *rand.Rand, b Path, op Op) Op {
	list := b.Child("history")
	id := func() string { return fmt.Sprint("h", r.Intn(30)) }
	op.Path = list.Child(id())
	switch k := r.Intn(8); {
	case k < 5:
		targets := []Path{"", b, b.Child("collections").Child("c1").Child("records").Child(fmt.Sprint("r", r.Intn(20)))}
		op.Type, op.Target = OpPutEntry, targets[r.Intn(len(targets))]
	case k < 6:
		op.Type = OpDelete
	case k < 7:
		op = Op{Type: OpDropEntries, Path: list, Members: []string{id(), id()}}
	default:
		op.Type = OpPut // an ordinary object where entries are
	}
	return op
}

// TestSameLogSameState is the metamorphic test of determinism: one random log,
// machines that batch, restart, and are restored from each other at random
// points, and one hash for all at the end of every stretch.
func TestSameLogSameState(t *testing.T) {
	seed := time.Now().UnixNano()
	if s := os.Getenv("QUINTO_SEED"); s != "" {
		_, _ = fmt.Sscan(s, &seed)
	}
	t.Logf("QUINTO_SEED=%d", seed)
	r := rand.New(rand.NewSource(seed))
	log := randomLog(r, 1500)
	one := newNode(t) // one entry at a time, never restarted
	nodes := []*node{openNode(t, vfs.NewMem()), openNode(t, vfs.NewMem()), openNode(t, vfs.NewMem())}
	defer func() {
		for _, n := range nodes {
			_ = n.st.Close()
		}
	}()
	for at := 0; at < len(log); at += 100 {
		for _, l := range log[at : at+100] {
			one.ApplyBatch([]*raft.Log{l})
		}
		one.snapshot(one.Applied())
		want := hashOf(t, one)
		for i, n := range nodes {
			nodes[i] = replay(t, r, n, one, log[:at+100])
			if got := hashOf(t, nodes[i]); got != want {
				t.Fatalf("node %d after entry %d: %s, want %s (QUINTO_SEED=%d)", i, at+100, got, want, seed)
			}
		}
	}
}

// replay brings n to the end of log in random batches, some of which overlap
// what it has, or lets it catch up by a snapshot.
func replay(t *testing.T, r *rand.Rand, n, from *node, log []*raft.Log) *node {
	switch how := r.Intn(4); {
	case how == 0:
		n.installFrom(from)
	case how == 1 && n.Applied() > 0:
		n.snapshot(n.Applied())
		_ = n.st.Close()
		n = openNode(t, n.fs)
	}
	for at := max(0, int(n.Applied())-r.Intn(50)); at < len(log); {
		end := min(len(log), at+1+r.Intn(40))
		n.ApplyBatch(log[at:end])
		at = end
	}
	return n
}

func TestUnknownEntryHalts(t *testing.T) {
	for name, data := range map[string][]byte{
		"newer type":   {1, 99, 0, 0, 0, 0},
		"flipped bit":  func() []byte { d := entry(1, put("/buckets/b", 1, `{}`)).Data; d[9] ^= 1; return d }(),
		"nothing":      {},
		"other format": {2, 1, 0, 0, 0, 0},
		"foreign":      EncodeGroup("another", nil),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.apply(put("/buckets/a", 1, `{}`))
			before := hashOf(t, n)
			v := n.view()
			out := n.ApplyBatch([]*raft.Log{{Index: 2, Term: 1, Type: raft.LogCommand, Data: data}, entry(3, put("/buckets/c", 1, `{}`))})
			for _, o := range out {
				if err, _ := o.(error); !errors.Is(err, ErrHalted) {
					t.Fatalf("answer %v, want ErrHalted", o)
				}
			}
			if _, err := n.View(); !errors.Is(err, ErrHalted) {
				t.Fatalf("View: %v, want ErrHalted", err)
			}
			if _, err := n.Snapshot(); !errors.Is(err, ErrHalted) {
				t.Fatalf("Snapshot: %v, want ErrHalted", err)
			}
			if n.Applied() != 1 || v.Revision() != 1 {
				t.Fatalf("applied %d revision %d after halt, was %s", n.Applied(), v.Revision(), before)
			}
		})
	}
}

func TestWaitAndChanged(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := n.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait on an empty state: %v", err)
	}
	if len(n.waiters) != 0 {
		t.Fatal("a waiter whose context ended is kept")
	}
	changed := n.Changed(0)
	n.apply(put("/buckets/b", 1, `{}`))
	<-changed
	if err := n.Wait(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
}

func goldenFile(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	text := hex.EncodeToString(got) + "\n"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != text {
		t.Fatalf("%s: the encoding of released data changed (%v)\n got %s\nwant %s", file, err, text, want)
	}
}

// TestFlushBeforeClose: a node that stopped in order starts with the state it
// had, although its memtable is gone and nobody replays the log to it.
func TestFlushBeforeClose(t *testing.T) {
	n := openNode(t, vfs.NewMem())
	n.apply(put("/buckets/b", 1, `{}`))
	if err := n.st.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := n.st.Close(); err != nil {
		t.Fatal(err)
	}
	again := openNode(t, n.fs)
	defer func() { _ = again.st.Close() }()
	if again.Revision() != 1 || again.Applied() != 1 {
		t.Fatalf("revision %d, applied %d", again.Revision(), again.Applied())
	}
}
