package fsm

import (
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"
)

// TestBump is Kinto's rule for times, row by row (rows 3.2, 3.4 of the protocol).
func TestBump(t *testing.T) {
	for _, c := range []struct {
		name            string
		list, now, wish Timestamp
		has, exact      bool
		object, newList Timestamp
	}{
		{"clock ahead of the list", 10, 20, 0, false, false, 20, 20},
		{"list ahead of the clock", 30, 20, 0, false, false, 31, 31},
		{"past wish kept, list alone", 30, 20, 5, true, false, 5, 30},
		{"equal wish bumped", 30, 20, 30, true, false, 31, 31},
		{"future wish becomes the list's", 30, 20, 99, true, false, 99, 99},
		{"zero and negative are times", 30, 20, -4, true, false, -4, 30},
		{"exact keeps an equal wish", 30, 20, 30, true, true, 30, 30},
	} {
		if o, l := Bump(c.list, c.now, c.wish, c.has, c.exact); o != c.object || l != c.newList {
			t.Errorf("%s: got %d, %d want %d, %d", c.name, o, l, c.object, c.newList)
		}
	}
}

func TestPutUpdateDeleteRecreate(t *testing.T) {
	n := newNode(t)
	const p = Path("/buckets/b")
	n.apply(put(p, 100, `{"a":1}`))
	n.apply(put(p, 100, `{"a":2}`))
	r := n.apply(Txn{Now: 100, Ops: []Op{{Type: OpDelete, Path: p}}})[0]
	if o := r.Objects[0]; !o.Deleted || o.LastModified != 102 || o.Revision != 3 {
		t.Fatalf("tombstone %+v", o)
	}
	v := n.view()
	if l, _ := v.List("/buckets"); l != (ListInfo{Timestamp: 102, Revision: 3, Tombstones: 1}) {
		t.Fatalf("list %+v", l)
	}
	if o, _ := v.Get(p); !o.Deleted || o.Exists() {
		t.Fatalf("get %+v", o)
	}
	if r := n.apply(Txn{Now: 100, Ops: []Op{{Type: OpDelete, Path: p}}})[0]; r.Revision != 3 {
		t.Fatalf("deleting a tombstone made revision %d", r.Revision)
	}
	n.apply(put(p, 500, `{"a":3}`))
	v = n.view()
	if l, _ := v.List("/buckets"); l != (ListInfo{Timestamp: 500, Revision: 4, Count: 1}) {
		t.Fatalf("list %+v", l)
	}
	var actions []string
	_ = v.Events(0, func(e *Event) bool {
		actions = append(actions, fmt.Sprint(e.Revision, e.Action, e.OldRevision))
		return true
	})
	if want := []string{"1 create 0", "2 update 1", "3 delete 2", "4 create 0"}; !reflect.DeepEqual(actions, want) {
		t.Fatalf("events %q", actions)
	}
	for rev, want := range map[Revision]string{1: `{"a":1}`, 2: `{"a":2}`, 4: `{"a":3}`} {
		if o, err := v.Version(p, rev); err != nil || string(o.Data) != want {
			t.Errorf("version %d: %s %v", rev, o.Data, err)
		}
	}
}

// TestCascadeOfAnySize: real Kinto on PostgreSQL leaves orphans beyond 10,000
// rows (row 4.6); here a tree vanishes whole, in one revision.
func TestCascadeOfAnySize(t *testing.T) {
	n := newNode(t)
	const b, c = Path("/buckets/b"), Path("/buckets/b/collections/c")
	n.apply(put(b, 1, `{}`), put(c, 1, `{}`), put("/buckets/bb", 1, `{}`), put("/buckets/bb/collections/c", 1, `{}`))
	n.apply(Txn{Now: 1, Ops: []Op{{Type: OpPut, Path: "/buckets/b/groups/g", Members: []string{"alice"}}}})
	for i := 0; i < 12_000; i += 1000 {
		var ops []Op
		for j := i; j < i+1000; j++ {
			ops = append(ops, Op{Type: OpPut, Path: c.Child("records").Child(fmt.Sprint(j)), Data: []byte(`{}`)})
		}
		n.apply(Txn{Now: 2, Ops: ops})
	}
	before := n.Revision()
	n.apply(Txn{Now: 3, Ops: []Op{{Type: OpDeleteTree, Path: b}}})
	if n.Revision() != before+1 {
		t.Fatalf("a cascade took %d revisions", n.Revision()-before)
	}
	n.apply(put(b, 4, `{}`), put(c, 4, `{}`))
	v := n.view()
	_ = v.Scan(c.Child("records"), ScanOptions{Tombstones: true}, func(o *Object) bool { t.Fatalf("orphan %s", o.Path); return false })
	if l, _ := v.List(c.Child("records")); l != (ListInfo{}) {
		t.Fatalf("list of the deleted tree: %+v", l)
	}
	if o, _ := v.Get("/buckets/bb/collections/c"); !o.Exists() {
		t.Fatal("a neighbour with a common prefix was deleted")
	}
	if g, _ := v.Groups("alice"); len(g) != 0 {
		t.Fatalf("memberships left: %v", g)
	}
	var last *Event
	_ = v.Events(before, func(e *Event) bool { last = e; return false })
	if last.Action != ActionDeleteTree || last.Path != b {
		t.Fatalf("event %+v", last)
	}
}

func TestComparesOfOneEntrySeeEarlierEffects(t *testing.T) {
	n := newNode(t)
	absent := []Compare{{Kind: CompareObject, Key: "/buckets/b", Revision: 0}}
	one, two := put("/buckets/b", 1, `{"n":1}`), put("/buckets/b", 1, `{"n":2}`)
	one.Compares, two.Compares = absent, absent
	r := n.apply(one, two)
	if r[0].Conflict != nil || r[1].Conflict == nil || r[1].Conflict.Key != "/buckets/b" {
		t.Fatalf("results %+v", r)
	}
	list := put("/buckets/c", 1, `{}`)
	list.Compares = []Compare{{Kind: CompareList, Key: "/buckets", Revision: 1}}
	other := put("/buckets/d", 1, `{}`)
	other.Compares = []Compare{{Kind: CompareObject, Key: "/buckets/d", Revision: 0}}
	r = n.apply(list, other, list)
	if r[0].Conflict != nil || r[1].Conflict != nil || r[2].Conflict == nil {
		t.Fatalf("a list compare must see writes to the list, an object compare must not: %+v", r)
	}
	group := Txn{Now: 1, Ops: []Op{{Type: OpPut, Path: "/buckets/b/groups/g", Members: []string{"alice"}}}}
	group.Compares = []Compare{{Kind: CompareMember, Key: "alice", Revision: 0}}
	if r = n.apply(group, group); r[0].Conflict != nil || r[1].Conflict == nil {
		t.Fatalf("membership compare: %+v", r)
	}
}

func TestRepeatedRequestHasOneEffect(t *testing.T) {
	n := newNode(t)
	w := put("/buckets/b", 1, `{"n":1}`)
	w.RequestID, w.RequestHash, w.Reply = []byte("id"), []byte("hash"), []byte("201")
	first := n.apply(w)[0]
	n.apply(put("/buckets/b", 2, `{"n":2}`))
	again := n.apply(w)[0]
	if again.Replayed == nil || string(again.Replayed.Reply) != "201" || again.Replayed.Revision != first.Revision {
		t.Fatalf("replayed %+v", again.Replayed)
	}
	ref := again.Replayed.Refs[0]
	if o, err := n.view().Version(ref.Path, ref.Revision); err != nil || string(o.Data) != `{"n":1}` {
		t.Fatalf("the body of the first answer: %s %v", o.Data, err)
	}
	conflict := put("/buckets/x", 1, `{}`)
	conflict.RequestID, conflict.Compares = []byte("c"), []Compare{{Kind: CompareObject, Key: "/buckets/b", Revision: 0}}
	n.apply(conflict)
	if r, _ := n.view().Request([]byte("c")); r != nil {
		t.Fatal("a conflict was remembered")
	}
}

// TestRequestWindow: kept for at least the window and the count, then evicted
// by the clock of the entries.
func TestRequestWindow(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 requests take minutes with the race detector; the plain run has them")
	}
	n := newNode(t)
	write := func(from, to int, now Timestamp) {
		for i := from; i < to; i += 1000 {
			txns := make([]Txn, 1000)
			for j := range txns {
				txns[j] = Txn{RequestID: []byte(fmt.Sprint(i + j)), Now: now, Ops: []Op{{Type: OpSetSetting, Name: "x", Value: []byte("v")}}}
			}
			n.apply(txns...)
		}
	}
	known := func(id int) bool { r, _ := n.view().Request([]byte(fmt.Sprint(id))); return r != nil }
	write(0, RequestCount+2000, 1000)
	if !known(0) {
		t.Fatal("evicted within the window")
	}
	write(RequestCount+2000, RequestCount+3000, 1000+RequestWindow+1)
	if known(0) || !known(RequestCount) {
		t.Fatalf("after the window: first known %v, recent known %v", known(0), known(RequestCount))
	}
}

// TestTrimKeepsWhatEventsReferTo: after any trim, each retained event finds its
// new and its old body.
func TestTrimKeepsWhatEventsReferTo(t *testing.T) {
	r := rand.New(rand.NewSource(7))
	n := newNode(t)
	for i := Timestamp(1); i < 400; i++ {
		op := Op{Type: OpPut, Path: Path(fmt.Sprintf("/buckets/b%d/collections/c%d", r.Intn(2), r.Intn(4))), Data: []byte(`{}`)}
		switch r.Intn(12) {
		case 0:
			op.Type = OpDelete
		case 1:
			op = Op{Type: OpDeleteTree, Path: op.Path.Parent()}
		case 2:
			op = Op{Type: OpPut, Path: op.Path.Parent(), Data: []byte(`{}`)}
		}
		if i%97 == 0 {
			op = Op{Type: OpFlush}
		}
		n.apply(Txn{Now: i, Ops: []Op{op}})
		if r.Intn(9) == 0 {
			n.apply(Txn{Now: i, Ops: []Op{{Type: OpTrimEvents, Revision: n.Revision() - Revision(min(int(n.Revision()), r.Intn(30)))}}})
		}
		checkBodies(t, n)
	}
	n.apply(Txn{Now: 500, Ops: []Op{{Type: OpTrimEvents, Revision: n.Revision()}}})
	v, left := n.view(), 0
	_ = v.each([]byte{spaceVersion}, []byte{spaceVersion + 1}, func(_, _ []byte) (bool, error) { left++; return true, nil })
	if left != 0 || v.EventCount() != 0 {
		t.Fatalf("%d versions and %d events left after trimming all", left, v.EventCount())
	}
	if err := v.Events(v.EventFloor()-1, nil); !errors.Is(err, ErrTrimmed) {
		t.Fatalf("a reader below the floor got %v", err)
	}
}

func checkBodies(t *testing.T, n *node) {
	t.Helper()
	v, err := n.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	err = v.Events(v.EventFloor(), func(e *Event) bool {
		if e.OldRevision != 0 {
			if _, err := v.Version(e.Path, e.OldRevision); err != nil {
				t.Fatalf("event %d (%v %s): old body: %v", e.Revision, e.Action, e.Path, err)
			}
		}
		if e.Action <= ActionUpdate {
			if _, err := v.Version(e.Path, e.Revision); err != nil {
				t.Fatalf("event %d (%v %s): new body: %v", e.Revision, e.Action, e.Path, err)
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPurgeRaisesTheFloor(t *testing.T) {
	n := newNode(t)
	for i := Timestamp(1); i <= 4; i++ {
		p := Path(fmt.Sprint("/buckets/b", i))
		n.apply(put(p, i*10, `{}`))
		n.apply(Txn{Now: i*10 + 5, Ops: []Op{{Type: OpDelete, Path: p}}})
	}
	n.apply(Txn{Now: 99, Ops: []Op{{Type: OpPurgeTombstones, Path: "/buckets", LastModified: 25, HasTime: true}}})
	v := n.view()
	var left []Timestamp
	_ = v.Scan("/buckets", ScanOptions{Tombstones: true}, func(o *Object) bool { left = append(left, o.LastModified); return true })
	l, _ := v.List("/buckets")
	if !reflect.DeepEqual(left, []Timestamp{35, 45}) || l.Tombstones != 2 || l.Floor != 25 {
		t.Fatalf("left %v list %+v", left, l)
	}
}

func TestScanBoundsAndOrder(t *testing.T) {
	n := newNode(t)
	for _, o := range []struct {
		id string
		t  Timestamp
	}{{"c", -5}, {"a", 10}, {"b", 10}, {"d", 20}} {
		n.apply(Txn{Now: 1, Ops: []Op{{Type: OpPut, Path: Path("/buckets").Child(o.id), LastModified: o.t, HasTime: true, Exact: true}}})
	}
	v := n.view()
	for _, c := range []struct {
		opt  ScanOptions
		want string
	}{
		{ScanOptions{}, "cabd"},
		{ScanOptions{Reverse: true}, "dbac"},
		{ScanOptions{Start: &Position{LastModified: 11}}, "d"},
		{ScanOptions{Start: &Position{10, "b"}}, "bd"},
		{ScanOptions{End: &Position{10, "b"}, Reverse: true}, "ac"},
		{ScanOptions{Start: &Position{30, ""}, End: &Position{10, ""}}, ""},
	} {
		got := ""
		if err := v.Scan("/buckets", c.opt, func(o *Object) bool { got += o.Path.ID(); return true }); err != nil || got != c.want {
			t.Errorf("%+v: %q want %q %v", c.opt, got, c.want, err)
		}
	}
}

// TestOverlayPredictsApply: what an overlay says of a batch is what Apply does.
func TestOverlayPredictsApply(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	n := newNode(t)
	for round := Timestamp(1); round < 300; round++ {
		v := n.view()
		now := round * 3
		o := NewOverlay(v, now)
		tx := Txn{Now: now}
		for k := 1 + r.Intn(6); k > 0; k-- {
			op := randomOp(r, now)
			if r.Intn(12) == 0 {
				op = Op{Type: OpFlush}
			}
			if op.Type > OpDeleteTree && op.Type != OpFlush && op.Type != OpPutEntry && op.Type != OpDropEntries {
				continue
			}
			tx.Ops = append(tx.Ops, op)
			if _, err := o.Stage(op); err != nil {
				t.Fatal(err)
			}
		}
		n.apply(tx)
		after := n.view()
		for _, op := range tx.Ops {
			if op.Type == OpDropEntries {
				op.Path = op.Path.Child(op.Members[0])
			}
			if op.Type != OpFlush {
				compareReaders(t, o, after, op.Path)
			}
		}
		if got, want := listsOf(t, o), listsOf(t, after); !reflect.DeepEqual(got, want) {
			t.Fatalf("lists: overlay %+v, applied %+v", got, want)
		}
	}
}

// listsOf gives the lists of a Reader without their revisions, which an overlay
// does not predict; one that it knows nothing of counts as none.
func listsOf(t *testing.T, r Reader) map[Path]ListInfo {
	t.Helper()
	all := map[Path]ListInfo{}
	err := r.Lists(func(p Path, l ListInfo) bool {
		if l.Revision = 0; l != (ListInfo{}) {
			all[p] = l
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func compareReaders(t *testing.T, o, after Reader, p Path) {
	t.Helper()
	got, _ := o.Get(p)
	want, _ := after.Get(p)
	got.Revision, want.Revision, want.grantsAt = 0, 0, 0
	got.Path, want.Path = p, p
	compareTargets(t, o, after, got.Of, want.Of)
	got.Of, want.Of = nil, nil
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Fatalf("overlay %+v, applied %+v", got, want)
	}
	lg, _ := o.List(p.List())
	lw, _ := after.List(p.List())
	lg.Revision, lw.Revision = 0, 0
	if lg != lw {
		t.Fatalf("list %s: overlay %+v, applied %+v", p.List(), lg, lw)
	}
	scan := func(r Reader) (s string) {
		_ = r.Scan(p.List(), ScanOptions{Tombstones: true, Reverse: true}, func(x *Object) bool {
			s += fmt.Sprint(x.Path.ID(), x.LastModified, x.Deleted, string(x.Data), ";")
			return true
		})
		return s
	}
	if g, w := scan(o), scan(after); g != w {
		t.Fatalf("scan %s:\noverlay %s\napplied %s", p.List(), g, w)
	}
	for _, m := range []string{"a", "m0", "m1", "m2", "m3"} {
		g, _ := o.Groups(m)
		w, _ := after.Groups(m)
		if fmt.Sprint(g) != fmt.Sprint(w) {
			t.Fatalf("groups of %s: overlay %v, applied %v", m, g, w)
		}
	}
}

// compareTargets checks that two references show the same.
func compareTargets(t *testing.T, o, after Reader, got, want *Ref) {
	t.Helper()
	show := func(r Reader, of *Ref) string {
		if of == nil || !of.holds() {
			return fmt.Sprintf("%v", of)
		}
		v, err := r.Version(of.Path, of.Revision)
		return fmt.Sprint(v.Path, v.LastModified, string(v.Data), v.ACL.Map(), err)
	}
	if got != nil && want != nil && !got.holds() && !want.holds() {
		got.Revision, want.Revision = 0, 0
	}
	if g, w := show(o, got), show(after, want); g != w {
		t.Fatalf("overlay refers to %s, applied to %s", g, w)
	}
}

func TestSkippedEntryOfHigherTermHalts(t *testing.T) {
	n := newNode(t)
	n.apply(put("/buckets/b", 1, `{}`))
	l := entry(1, put("/buckets/b", 1, `{}`))
	l.Term = 9
	if err, _ := n.ApplyBatch([]*raft.Log{l})[0].(error); !errors.Is(err, ErrHalted) {
		t.Fatalf("got %v", err)
	}
}

// TestCursorNeverGoesBack: an older leader's cursor may be committed late; its
// table of lanes is then older than the one that is stored.
func TestCursorNeverGoesBack(t *testing.T) {
	n := newNode(t)
	n.apply(Txn{Ops: []Op{{Type: OpRegisterNotifier, Name: "n", Value: []byte("h")}}})
	for i := Timestamp(1); i <= 9; i++ {
		n.apply(put("/buckets/b", i, `{}`))
	}
	advance := func(r Revision, lane string) {
		n.apply(Txn{Ops: []Op{{Type: OpAdvanceCursor, Name: "n", Revision: r, Lanes: []Lane{{Key: lane, Revision: 1}}}}})
	}
	advance(7, "new")
	advance(5, "old")
	got, err := n.view().Notifiers()
	if err != nil || len(got) != 1 || got[0].Cursor != 7 || got[0].Lanes[0].Key != "new" {
		t.Fatalf("%+v %v", got, err)
	}
}

// TestTrimSavesWhatStaysNeeded: the body of a trimmed event is kept only for an
// event that stays.
func TestTrimSavesWhatStaysNeeded(t *testing.T) {
	n := newNode(t)
	trim := func(floor Revision, versions int) {
		t.Helper()
		n.apply(Txn{Now: 9, Ops: []Op{{Type: OpTrimEvents, Revision: floor}}})
		checkBodies(t, n)
		if got := n.rows(spaceVersion); got != versions || n.view().EventFloor() != floor {
			t.Fatalf("%d versions with the floor %d, want %d with %d", got, n.view().EventFloor(), versions, floor)
		}
	}
	n.apply(put("/buckets/b", 1, `{"n":1}`), put("/buckets/b", 2, `{"n":2}`), put("/buckets/b/groups/g", 3, `{"n":3}`), put("/buckets/b", 4, `{"n":4}`))
	trim(1, 1) // replaced by 2
	trim(3, 1) // 1 is not needed any more; 2 is replaced by 4, and 3 is live
	n.apply(put("/buckets/b/groups/h", 5, `{"n":5}`), Txn{Now: 6, Ops: []Op{{Type: OpDeleteTree, Path: "/buckets/b"}}}, put("/buckets/c", 7, `{}`))
	if o, err := n.view().Version("/buckets/b", 4); err != nil || string(o.Data) != `{"n":4}` {
		t.Fatal(o, err)
	}
	trim(4, 1) // 4 is what the cascade replaced
	trim(6, 0) // 5 went with its bucket, and so does the cascade's event
	trim(7, 0)
}
