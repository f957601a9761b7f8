package fsm

import (
	"errors"
	"fmt"
	"math/rand"
	"testing"
)

// recorded is a write followed by its entry.
func recorded(now Timestamp, op Op, entry string) Txn {
	b := op.Path
	for b.Depth() > 2 {
		b = b.Parent()
	}
	return Txn{Now: now, Ops: []Op{op, {Type: OpPutEntry, Path: b.Child("history").Child(entry), Target: op.Path, Data: []byte(`{}`)}}}
}

// rows counts those of a key space.
func (n *node) rows(space byte) (count int) {
	v, err := n.View()
	if err != nil {
		n.t.Fatal(err)
	}
	defer v.Close()
	_ = v.each([]byte{space}, []byte{space + 1}, func(_, _ []byte) (bool, error) { count++; return true, nil })
	return count
}

// TestEntriesHoldVersions: whatever is written, cascaded, trimmed and taken away,
// an entry finds the body that it was made for; and when neither entries nor events
// are left, no version is.
func TestEntriesHoldVersions(t *testing.T) {
	for seed := int64(1); seed <= 8; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { entriesHoldVersions(t, rand.New(rand.NewSource(seed))) })
	}
}

func entriesHoldVersions(t *testing.T, r *rand.Rand) {
	n := newNode(t)
	bodies := map[string]string{} // of entries by id
	for i := 1; i < 600; i++ {
		now := Timestamp(i)
		b := Path(fmt.Sprint("/buckets/b", r.Intn(2)))
		c := b.Child("collections").Child(fmt.Sprint("c", r.Intn(2)))
		op := Op{Type: OpPut, Path: c.Child("records").Child(fmt.Sprint("r", r.Intn(5))), Data: []byte(fmt.Sprintf(`{"n":%d}`, i))}
		id := fmt.Sprint("h", i)
		switch k := r.Intn(40); {
		case k < 4:
			op.Type, op.Data = OpDelete, nil
		case k < 5:
			op = Op{Type: OpDeleteTree, Path: c}
		case k < 8:
			op.Path = []Path{b, c}[r.Intn(2)]
		case k < 9:
			n.apply(Txn{Now: now, Ops: []Op{{Type: OpDeleteTree, Path: b}}})
			if r.Intn(3) == 0 {
				n.apply(Txn{Now: now, Ops: []Op{{Type: OpFlush}}})
			}
			continue
		case k < 14:
			list := b.Child("history")
			gone := fmt.Sprint("h", i-r.Intn(min(i, 60)))
			n.apply(Txn{Now: now, Ops: []Op{{Type: OpDelete, Path: list.Child(gone)}, {Type: OpDropEntries, Path: list, Members: []string{fmt.Sprint("h", i-r.Intn(min(i, 60)))}}}})
			continue
		case k < 20:
			n.apply(Txn{Now: now, Ops: []Op{{Type: OpTrimEvents, Revision: n.Revision() - Revision(min(int(n.Revision()), r.Intn(30)))}}})
			checkEntries(t, n, bodies)
			continue
		case k < 22:
			n.apply(Txn{Now: now, Ops: []Op{op}}) // a write that is not recorded
			continue
		}
		bodies[id] = string(op.Data)
		n.apply(recorded(now, op, id))
	}
	checkBodies(t, n)
	checkEntries(t, n, bodies)
	var drop []Op
	for _, b := range []Path{"/buckets/b0", "/buckets/b1"} {
		var ids []string
		_ = n.view().Scan(b.Child("history"), ScanOptions{}, func(o *Object) bool { ids = append(ids, o.Path.ID()); return true })
		drop = append(drop, Op{Type: OpDropEntries, Path: b.Child("history"), Members: ids})
	}
	n.apply(Txn{Now: 1000, Ops: append(drop, Op{Type: OpTrimEvents, Revision: n.Revision() + 9})})
	n.apply(Txn{Now: 1001, Ops: []Op{{Type: OpTrimEvents, Revision: n.Revision()}}})
	if versions, holds := n.rows(spaceVersion), n.rows(spaceHold); versions != 0 || holds != 0 {
		t.Fatalf("%d versions and %d holds are left", versions, holds)
	}
}

// checkEntries checks that all entries show what they were made for.
func checkEntries(t *testing.T, n *node, bodies map[string]string) {
	t.Helper()
	v, err := n.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, b := range []Path{"/buckets/b0", "/buckets/b1"} {
		l, _ := v.List(b.Child("history"))
		live, dead := int64(0), int64(0)
		err := v.Scan(b.Child("history"), ScanOptions{Tombstones: true}, func(o *Object) bool {
			if o.Deleted {
				dead++
				return true
			}
			live++
			want := bodies[o.Path.ID()]
			if !o.Of.holds() {
				if want != "" {
					t.Fatalf("%s refers to %+v, want %s", o.Path, o.Of, want)
				}
				return true
			}
			got, err := v.Version(o.Of.Path, o.Of.Revision)
			if err != nil || string(got.Data) != want || got.Revision != o.Revision {
				t.Fatalf("%s shows %s of %d, %v, want %s of %d", o.Path, got.Data, got.Revision, err, want, o.Revision)
			}
			return true
		})
		if err != nil || l.Count != live || l.Tombstones != dead {
			t.Fatalf("%v; list %+v, live %d, tombstones %d", err, l, live, dead)
		}
	}
}

// TestAnEntryIsNoEvent: neither feeds nor the numbers of revisions see entries.
func TestAnEntryIsNoEvent(t *testing.T) {
	n := newNode(t)
	n.apply(recorded(1, Op{Type: OpPut, Path: "/buckets/b", Data: []byte(`{"n":1}`)}, "one"))
	n.apply(recorded(2, Op{Type: OpPut, Path: "/buckets/b", Data: []byte(`{"n":2}`)}, "two"))
	n.apply(Txn{Now: 3, Ops: []Op{{Type: OpDelete, Path: "/buckets/b/history/one"}}})
	v := n.view()
	if v.Revision() != 3 || v.EventCount() != 2 || n.rows(spaceVersion) != 0 || n.rows(spaceHold) != 1 { // the bodies stand in the events
		t.Fatalf("revision %d, %d events, %d versions, %d holds", v.Revision(), v.EventCount(), n.rows(spaceVersion), n.rows(spaceHold))
	}
	// An object where an entry would go stays what it is; one put over an entry is one from then on.
	n.apply(put("/buckets/b/history/x", 4, `{"own":1}`))
	n.apply(recorded(5, Op{Type: OpPut, Path: "/buckets/b", Data: []byte(`{"n":3}`)}, "x"))
	n.apply(put("/buckets/b/history/two", 6, `{"own":2}`))
	n.apply(Txn{Now: 7, Ops: []Op{{Type: OpDropEntries, Path: "/buckets/b/history", Members: []string{"x", "two", "none"}}}})
	for id, want := range map[string]string{"x": `{"own":1}`, "two": `{"own":2}`} {
		o, err := n.view().Get(Path("/buckets/b/history").Child(id))
		if err != nil || o.Of != nil || string(o.Data) != want {
			t.Fatalf("%+v %v", o, err)
		}
	}
	checkBodies(t, n)
	if n.rows(spaceHold) != 0 {
		t.Fatal("a hold without an entry")
	}
}

// TestEntryOfImport: an entry without a target keeps its body and its time.
func TestEntryOfImport(t *testing.T) {
	n := newNode(t)
	n.apply(Txn{Now: 9, Ops: []Op{{Type: OpPutEntry, Path: "/buckets/b/history/h", Data: []byte(`{"target":{}}`), LastModified: 5, HasTime: true, Exact: true}}})
	o, err := n.view().Get("/buckets/b/history/h")
	if err != nil || o.Of == nil || *o.Of != (Ref{}) || o.LastModified != 5 || string(o.Data) != `{"target":{}}` {
		t.Fatalf("%+v %v", o, err)
	}
	if _, err := NewOverlay(n.view(), 9).Version("/buckets/b", StagedRevision); !errors.Is(err, ErrTrimmed) {
		t.Fatal(err)
	}
}
