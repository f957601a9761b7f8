package fsm

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
)

// replayLog is a log of entries with several transactions each, some of which conflict,
// repeat a request, or write more than one object, and what the state was behind each
// transaction.
func replayLog(t *testing.T) (log []*raft.Log, txns []Txn, after []Revision) {
	one := newNode(t)
	n := 0
	for i := range 12 {
		var group []Txn
		for j := range 1 + i%5 {
			n++
			x := put(Path(fmt.Sprintf("/buckets/b%d", n)), Timestamp(1000+10*n), `{"n":1}`)
			switch j {
			case 1:
				x.Compares = []Compare{{Kind: CompareObject, Key: "/buckets/none", Revision: 7}}
			case 2:
				x.Ops = append(x.Ops, Op{Type: OpPut, Path: Path(fmt.Sprintf("/buckets/b%d/collections/c", n)), Data: []byte(`{}`)})
			case 3:
				x.RequestID = []byte("the same")
			}
			group = append(group, x)
		}
		l := entry(uint64(i+1), group...)
		results, ok := one.ApplyBatch([]*raft.Log{l})[0].([]Result)
		if !ok {
			t.Fatal("the log does not apply")
		}
		for _, r := range results {
			after = append(after, r.Revision)
		}
		log, txns = append(log, l), append(txns, group...)
	}
	return log, txns, after
}

// A replay ends exactly behind the last transaction before its point: the state is the
// one of those transactions alone, whatever entry they were in.
func TestReplay(t *testing.T) {
	log, txns, after := replayLog(t)
	check := func(name string, to Bound, count int) {
		t.Helper()
		n, want := newNode(t), newNode(t)
		past := false
		for _, l := range log {
			var err error
			if past, err = n.Replay(l, to); err != nil {
				t.Fatal(name, err)
			}
			if past {
				break
			}
		}
		for i := range count {
			want.apply(txns[i])
		}
		if past != (count < len(txns)) || objectsOf(t, n) != objectsOf(t, want) || n.Revision() != want.Revision() {
			t.Fatalf("%s: past %v, revision %d, want %d (%d transactions)", name, past, n.Revision(), want.Revision(), count)
		}
	}
	for at := Revision(1); at <= after[len(after)-1]+1; at++ {
		count := 0
		for count < len(after) && after[count] <= at {
			count++
		}
		check(fmt.Sprintf("revision %d", at), Bound{Revision: at}, count)
	}
	for ms := 1000; ms <= 1000+10*len(txns)+10; ms += 5 {
		check(fmt.Sprintf("time %d", ms), Bound{Time: Timestamp(ms)}, min(max((ms-1000)/10, 0), len(txns)))
	}
	check("everything", Bound{}, len(txns))
	n := newNode(t)
	if _, err := n.Replay(&raft.Log{Index: 1, Term: 1, Type: raft.LogCommand, Data: []byte("no entry")}, Bound{}); !errors.Is(err, ErrUnknownType) && !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if at := n.Position(); at.Index != 0 || at.Revision != 0 {
		t.Errorf("%+v", at)
	}
}

// objectsOf are the objects of a state with their revisions and times.
func objectsOf(t *testing.T, n *node) string {
	t.Helper()
	v, out := n.view(), ""
	if err := v.Lists(func(list Path, l ListInfo) bool {
		out += fmt.Sprintf("%s %+v\n", list, l)
		if err := v.Scan(list, ScanOptions{Tombstones: true}, func(o *Object) bool {
			out += fmt.Sprintf("%s %d %d %s\n", o.Path, o.Revision, o.LastModified, o.Data)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// A life that begins in the middle of a log leaves a gap in the revisions: nothing of
// it is given out again, and lists and objects stay as they are.
func TestBeginLife(t *testing.T) {
	n, same := newNode(t), newNode(t)
	n.apply(put("/buckets/a", 1, `{}`), put("/buckets/b", 2, `{}`))
	before := objectsOf(t, n)
	n.apply(lifeTxn)
	if objectsOf(t, n) != before || n.Revision() != LifeStep {
		t.Fatalf("revision %d", n.Revision())
	}
	r := n.apply(put("/buckets/c", 3, `{}`))
	n.apply(lifeTxn)
	if r[0].Revision != LifeStep+1 || n.Revision() != 2*LifeStep {
		t.Errorf("revisions %d, %d", r[0].Revision, n.Revision())
	}
	lives, err := n.view().Lives()
	if err != nil || len(lives) != 2 || lives.Lost(2) || !lives.Lost(3) || lives.Lost(LifeStep+1) || !lives.Lost(LifeStep+2) {
		t.Errorf("%+v, %v", lives, err)
	}
	// All of it in one batch is the same, and a replay up to a revision stops before it.
	same.ApplyBatch([]*raft.Log{entry(1, put("/buckets/a", 1, `{}`), put("/buckets/b", 2, `{}`)), entry(2, lifeTxn), entry(3, put("/buckets/c", 3, `{}`)), entry(4, lifeTxn)})
	if hashOf(t, n) != hashOf(t, same) {
		t.Error("the batch makes another state")
	}
	if past, err := n.Replay(entry(5, lifeTxn), Bound{Revision: 3*LifeStep - 1}); !past || err != nil || n.Revision() != 2*LifeStep {
		t.Errorf("%v %v, revision %d", past, err, n.Revision())
	}
}
