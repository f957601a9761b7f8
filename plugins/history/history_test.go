package history

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/internal/canon"
	"quinto/plugins"
)

// house is the plugin over a real state machine in memory.
type house struct {
	t       testing.TB
	h       *History
	machine *fsm.FSM
	now     fsm.Timestamp
}

func open(t testing.TB, settings map[string]string) (*History, error) {
	t.Helper()
	h := new(History)
	return h, h.Provision(context.Background(), plugins.Settings{Log: slog.New(slog.DiscardHandler),
		Lookup: func(name string) (string, bool) { v, ok := settings[name]; return v, ok }})
}

func newHouse(t testing.TB, settings map[string]string) *house {
	t.Helper()
	h, err := open(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "state", MemTableBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	m, err := fsm.Open(st)
	if err != nil {
		t.Fatal(err)
	}
	return &house{t: t, h: h, machine: m, now: 1_795_000_000_000}
}

func (x *house) view() *fsm.View {
	x.t.Helper()
	v, err := x.machine.View()
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(v.Close)
	return v
}

// write does one request: ops with the user's ACL, each asked of the plugin as
// api/resource does, on an overlay of the state.
func (x *house) write(user string, ops ...fsm.Op) {
	x.t.Helper()
	x.now++
	over, memo := fsm.NewOverlay(x.view(), x.now), map[string]any{}
	var all, also []fsm.Op
	for _, op := range ops {
		old, err := over.Get(op.Path)
		if err != nil {
			x.t.Fatal(err)
		}
		c := &plugins.Change{Kind: plugins.KindName(op.Path), Action: fsm.ActionCreate, Path: op.Path, UserID: user, View: over, Now: x.now,
			Memo: memo, Also: func(op fsm.Op) { also = append(also, op) }}
		switch {
		case op.Type != fsm.OpPut:
			c.Action = fsm.ActionDelete
		case old.Exists():
			c.Action = fsm.ActionUpdate
			fallthrough
		default:
			c.New = &fsm.Object{Path: op.Path, Data: op.Data, ACL: op.ACL}
		}
		if err := x.h.BeforeCommit(context.Background(), c); err != nil {
			x.t.Fatal(err)
		}
		all = append(all, op)
	}
	all = append(all, also...)
	for _, op := range all {
		if _, err := over.Stage(op); err != nil {
			x.t.Fatal(err)
		}
	}
	txn := fsm.EncodeTxn(&fsm.Txn{Now: x.now, UserID: user, Ops: all})
	out := x.machine.ApplyBatch([]*raft.Log{{Index: x.machine.Applied() + 1, Term: 1, Type: raft.LogCommand, Data: fsm.EncodeGroup("test", [][]byte{txn})}})
	if err, failed := out[0].(error); failed {
		x.t.Fatal(err)
	}
}

func put(path fsm.Path, data string, readers ...string) fsm.Op {
	return fsm.Op{Type: fsm.OpPut, Path: path, Data: []byte(data), ACL: fsm.NewACL(map[string][]string{"write": {"u"}, "read": readers})}
}

// list shows the entries of a bucket, newest first.
func (x *house) list(bucket fsm.Path) (out []string, objects []fsm.Object) {
	x.t.Helper()
	v := x.view()
	err := v.Scan(bucket.Child(plural), fsm.ScanOptions{Reverse: true}, func(o *fsm.Object) bool {
		data, err := show(v, o, true)
		if err != nil {
			x.t.Fatal(err)
		}
		if canonical, err := canon.Canonical(data, canon.Limits{}); err != nil || string(canonical) != string(data) {
			x.t.Fatalf("%s is not canonical: %v", data, err)
		}
		out, objects = append(out, string(data)), append(objects, *o)
		return true
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return out, objects
}

const rec fsm.Path = "/buckets/b/collections/c/records/r"

func TestEntries(t *testing.T) {
	x := newHouse(t, nil)
	x.write("u", put("/buckets/b", `{}`, "reader"))
	x.write("", put("/buckets/b/collections/c", `{}`))
	x.write("u", put(rec, `{"n":1}`, "friend"))
	x.write("u", fsm.Op{Type: fsm.OpDelete, Path: rec})
	got, objects := x.list("/buckets/b")
	want := []string{
		`{"date":"2026-11-18T11:06:40.004000+00:00","target":{"data":{"deleted":true,"id":"r","last_modified":1795000000004},"permissions":{}},` +
			`"action":"delete","uri":"/buckets/b/collections/c/records/r","user_id":"u","resource_name":"record","collection_id":"c","record_id":"r"}`,
		`{"date":"2026-11-18T11:06:40.003000+00:00","target":{"data":{"n":1,"id":"r","last_modified":1795000000003},"permissions":{"read":["friend"],"write":["u"]}},` +
			`"action":"create","uri":"/buckets/b/collections/c/records/r","user_id":"u","resource_name":"record","collection_id":"c","record_id":"r"}`,
		`{"date":"2026-11-18T11:06:40.002000+00:00","target":{"data":{"id":"c","last_modified":1795000000002},"permissions":{"write":["u"]}},` +
			`"action":"create","uri":"/buckets/b/collections/c","user_id":null,"resource_name":"collection","collection_id":"c"}`,
		`{"date":"2026-11-18T11:06:40.001000+00:00","target":{"data":{"id":"b","last_modified":1795000000001},"permissions":{"read":["reader"],"write":["u"]}},` +
			`"action":"create","uri":"/buckets/b","user_id":"u","resource_name":"bucket","bucket_id":"b"}`,
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for i, readers := range []string{"[reader u]", "[friend reader u]", "[reader u]", "[reader u]"} {
		if acl := objects[i].ACL.Map(); fmt.Sprint(acl["read"]) != readers || len(acl) != 1 {
			t.Errorf("entry %d is readable by %v, want %s", i, acl, readers)
		}
		if len(objects[i].Data) > 80 {
			t.Errorf("the row of entry %d holds %s", i, objects[i].Data)
		}
	}
	half, err := show(x.view(), &objects[1], false)
	if err != nil || strings.Contains(string(half), target) {
		t.Errorf("%s, %v", half, err)
	}
	x.write("u", fsm.Op{Type: fsm.OpDeleteTree, Path: "/buckets/b"})
	if got, _ := x.list("/buckets/b"); len(got) != 0 {
		t.Errorf("the history of a deleted bucket: %s", got)
	}
}

// TestImportedEntries: an entry that refers to nothing is shown as it is kept.
func TestImportedEntries(t *testing.T) {
	x := newHouse(t, nil)
	x.write("u", put("/buckets/b", `{}`), put("/buckets/b/collections/c", `{}`))
	const entry = `{"action":"create","uri":"/buckets/b/collections/c/records/r","resource_name":"record","collection_id":"c","record_id":"r","user_id":"x",` +
		`"date":"2020-01-01T00:00:00.000000+00:00","target":{"data":{"n":1,"id":"r","last_modified":5},"permissions":{}}}`
	x.write("u", fsm.Op{Type: fsm.OpPutEntry, Path: "/buckets/b/history/old", Data: []byte(entry), LastModified: 7, HasTime: true, Exact: true})
	x.write("u", put(rec, `{"n":2}`))
	if got, _ := x.list("/buckets/b"); got[len(got)-1] != entry {
		t.Fatalf("%s", got)
	}
	was, err := recordsAt(x.view(), "/buckets/b", rec.List(), 6)
	if err != nil || len(was) != 1 || string(was[0].data) != `{"n":1,"id":"r","last_modified":5}` {
		t.Fatalf("%+v %v", was, err)
	}
}

func TestSettings(t *testing.T) {
	h, err := open(t, map[string]string{"history.exclude_resources": "/buckets/a /buckets/b/collections/c\n/buckets/b/groups/g " + string(rec),
		"history.auto_trim_max_count": "5", "history.auto_trim_user_ids": "u v"})
	const want = `{"description":"Track changes on data.","url":"http://kinto.readthedocs.io/en/latest/api/1.x/history.html","auto_trim_max_count":5,` +
		`"auto_trim_user_ids":["u","v"],"excluded_resources":[{"bucket":"a"},{"bucket":"b","collection":"c"},{"bucket":"b","group":"g"},` +
		`{"bucket":"b","collection":"c","record":"r"}]}`
	if got := h.Capabilities(); err != nil || got[0].Body != want {
		t.Errorf("%v %s\nwant %s", err, got, want)
	}
	for name, value := range map[string]string{"history.exclude_resources": "/buckets", "history.auto_trim_max_count": "many",
		"history.auto_trim_threshold": "-1", "explicit_permissions": "maybe"} {
		if _, err := open(t, map[string]string{name: value}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s = %s: %v", name, value, err)
		}
	}
}

func TestExclusions(t *testing.T) {
	x := newHouse(t, map[string]string{"history.exclude_resources": "/buckets/b/collections/c /buckets/no", "history.exclude_user_ids": "robot", "explicit_permissions": "false"})
	x.write("u", put("/buckets/b", `{}`), put("/buckets/b/collections/c", `{}`), put(rec, `{}`), put("/buckets/no", `{}`))
	x.write("robot", put("/buckets/b/groups/g", `{}`))
	got, objects := x.list("/buckets/b")
	if len(got) != 1 || len(objects[0].ACL) != 0 {
		t.Errorf("%s %v", got, objects)
	}
	if l, err := x.view().List("/buckets/no/history"); err != nil || l.Count != 0 || l.Timestamp == 0 {
		t.Errorf("an excluded bucket: %+v %v", l, err)
	}
}

// TestTrim follows Kinto's rule write by write, in requests of one and of many
// changes, and through deletions by others, which make the memory of the plugin wrong.
func TestTrim(t *testing.T) {
	x := newHouse(t, map[string]string{"history.auto_trim_max_count": "3", "history.auto_trim_threshold": "2", "history.auto_trim_user_ids": "u"})
	x.write("v", put("/buckets/b", `{}`), put("/buckets/b/collections/c", `{}`))
	count := 0
	expect := func(n int, forced ...int) {
		t.Helper()
		for range n {
			if count++; count > 5 {
				count = 3
			}
		}
		if forced != nil {
			count = forced[0]
		}
		mine := 0
		got, _ := x.list("/buckets/b")
		for _, e := range got {
			if strings.Contains(e, `"user_id":"u"`) {
				mine++
			}
		}
		if mine != count || len(got) != count+2 {
			t.Fatalf("%d entries of u, want %d; %d in all", mine, count, len(got))
		}
	}
	for i := range 12 {
		x.write("u", put(rec, fmt.Sprintf(`{"n":%d}`, i)))
		expect(1)
	}
	var many []fsm.Op
	for i := range 20 {
		many = append(many, put(rec.List().Child(fmt.Sprint("r", i)), `{}`))
	}
	x.write("u", many...)
	expect(20)
	_, objects := x.list("/buckets/b")
	x.write("v", fsm.Op{Type: fsm.OpDelete, Path: objects[0].Path}, fsm.Op{Type: fsm.OpDelete, Path: objects[1].Path})
	expect(0, count-2)
	for range 9 {
		x.write("u", put(rec, `{}`))
		expect(1)
	}
	if l, _ := x.view().List("/buckets/b/history"); l.Tombstones != 2 {
		t.Errorf("trimming left tombstones: %+v", l)
	}
}

func TestSnapshotTimes(t *testing.T) {
	for text, want := range map[string]int64{"5": 5, "+15": 15, "1_5": 15, "-3": -3, " 7": 7, "99999999999999999999": 1<<63 - 1, "-0": 0} {
		if got, ok := pythonInt(text); !ok || got != want {
			t.Errorf("%q: %d %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "x", "1.5", "1e3", "_1", "1_", "1__2", "+-1", "0x1", "--1", "+"} {
		if got, ok := pythonInt(text); ok {
			t.Errorf("%q: %d", text, got)
		}
	}
	for text, want := range map[string]string{"c@5": "c|5", "a@b@5": "a@b|5", "a@b@": "a|b@", "@5": "", "c@": "", "c": "", "": "", "@@": ""} {
		id, at, ok := splitAt(text)
		if got := id + "|" + at; ok != (want != "") || ok && got != want {
			t.Errorf("%q: %s %v", text, got, ok)
		}
	}
}

func FuzzSnapshotPath(f *testing.F) {
	for _, seed := range []string{"c@5", "\xf8/@0", "\xf8@0", "c@\xf8"} {
		f.Add(seed)
	}
	x := newHouse(f, nil)
	x.write("u", put("/buckets/b", `{}`), put("/buckets/b/collections/c", `{}`), put(rec, `{}`))
	f.Fuzz(func(t *testing.T, at string) {
		v, err := x.machine.View()
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		r := snapshot(context.Background(), &plugins.RouteRequest{Params: map[string]string{"bucket": "b", "at": at}, Principals: []string{"u"}, View: v})
		if _, err := canon.Canonical(r.Body, canon.Limits{}); err != nil || r.Err != nil {
			t.Fatalf("%q: %s %v", at, r.Body, r.Err)
		}
	})
}
