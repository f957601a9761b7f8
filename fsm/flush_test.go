package fsm

import (
	"fmt"
	"reflect"
	"testing"
)

// TestFlush: what clients see is gone, in one revision with one event, and what
// the cluster needs stays.
func TestFlush(t *testing.T) {
	n := newNode(t)
	n.apply(put("/buckets/b", 10, `{}`), put("/buckets/b/collections/c", 10, `{}`), put("/accounts/a", 10, `{}`), put("/buckets-x/y/z/1", 10, `{}`),
		Txn{Now: 10, Ops: []Op{{Type: OpPut, Path: "/buckets/b/groups/g", Members: []string{"m"}}}},
		Txn{Now: 10, RequestID: []byte("id"), Ops: []Op{{Type: OpPut, Path: "/buckets/b/collections/c/records/r", Data: []byte(`{"n":1}`)}}},
		Txn{Now: 90, Ops: []Op{{Type: OpDelete, Path: "/accounts/gone"}, {Type: OpPutTombstone, Path: "/accounts/gone", LastModified: 95, HasTime: true}}},
		Txn{Now: 10, Ops: []Op{{Type: OpRegisterNotifier, Name: "n", Value: []byte("h")}, {Type: OpSetSetting, Name: "node/1", Value: []byte("id")},
			{Type: OpSetSetting, Name: "cache/x", Value: []byte("v")}, {Type: OpSetSetting, Name: "cachet", Value: []byte("v")}}})
	before := n.view()
	notifiers, _ := before.Notifiers()
	r := n.apply(Txn{Now: 50, UserID: "u", Ops: []Op{{Type: OpFlush, Members: []string{"cache/"}}}})[0]
	if r.Revision != before.Revision()+1 {
		t.Fatalf("revision %d after %d", r.Revision, before.Revision())
	}
	v := n.view()
	for _, p := range []Path{"/buckets/b", "/buckets/b/collections/c", "/buckets/b/collections/c/records/r", "/accounts/a", "/accounts/gone", "/buckets/b/groups/g", "/buckets-x/y/z/1"} {
		if o, err := v.Get(p); err != nil || o.Revision != 0 {
			t.Errorf("%s is still there: %+v %v", p, o, err)
		}
	}
	if groups, err := v.Groups("m"); err != nil || len(groups) != 0 {
		t.Errorf("groups %v %v", groups, err)
	}
	want := map[Path]ListInfo{"/buckets": {Timestamp: 50}, "/accounts": {Timestamp: 96}} // later than all that a client has seen
	if got := listsOf(t, v); !reflect.DeepEqual(got, want) {
		t.Errorf("lists %+v", got)
	}
	for name, kept := range map[string]bool{"node/1": true, "cachet": true, "cache/x": false} {
		if s, _ := v.Setting(name); (s != nil) != kept {
			t.Errorf("setting %s: %q", name, s)
		}
	}
	if now, _ := v.Notifiers(); !reflect.DeepEqual(now, notifiers) {
		t.Errorf("notifiers %+v", now)
	}
	if s, err := v.Request([]byte("id")); err != nil || s == nil {
		t.Errorf("request %v %v", s, err)
	} else if o, err := v.Version(s.Refs[0].Path, s.Refs[0].Revision); err != nil || string(o.Data) != `{"n":1}` {
		t.Errorf("what a repeated request is answered with: %+v %v", o, err)
	}
	var events []Event
	_ = v.Events(before.Revision(), func(e *Event) bool { events = append(events, *e); return true })
	if len(events) != 1 || events[0].Action != ActionFlush || events[0].Path != "" || events[0].UserID != "u" || events[0].LastModified != 50 {
		t.Errorf("events %+v", events)
	}
	if v.ClusterID() != testCluster {
		t.Errorf("cluster %q", v.ClusterID())
	}
}

// TestFlushConflicts: a plan that was made before a flush does not bring back
// what it has read.
func TestFlushConflicts(t *testing.T) {
	n := newNode(t)
	n.apply(put("/buckets/b", 10, `{}`), Txn{Now: 10, Ops: []Op{{Type: OpPut, Path: "/buckets/b/groups/g", Members: []string{"m"}}}})
	v := n.view()
	v.Record()
	_, _ = v.Get("/buckets/b")
	_, _ = v.Groups("m")
	_ = v.RequireList("/buckets")
	n.apply(Txn{Now: 20, Ops: []Op{{Type: OpFlush}}})
	for _, c := range v.Reads() {
		tx := put("/buckets/b/collections/c", 30, `{}`)
		tx.Compares = []Compare{c}
		if r := n.apply(tx)[0]; r.Conflict == nil {
			t.Errorf("%+v still holds", c)
		}
	}
	if len(v.Reads()) != 3 {
		t.Fatalf("reads %v", v.Reads())
	}
}

// TestFlushJumpsOverLists: root lists are found among any number of others,
// whatever sorts between them.
func TestFlushJumpsOverLists(t *testing.T) {
	n := newNode(t)
	for i := range 50 {
		b := Path(fmt.Sprint("/buckets/b", i))
		n.apply(put(b, 10, `{}`), put(b.Child("collections").Child("c"), 10, `{}`), put(Path(fmt.Sprint("/buckets-", i%3)).Child("x"), 10, `{}`))
	}
	n.apply(put("/zoo/z", 10, `{}`))
	n.apply(Txn{Now: 500, Ops: []Op{{Type: OpFlush}}})
	want := map[Path]ListInfo{"/zoo": {Timestamp: 500}, "/buckets": {Timestamp: 500}, "/buckets-0": {Timestamp: 500}, "/buckets-1": {Timestamp: 500}, "/buckets-2": {Timestamp: 500}}
	if got := listsOf(t, n.view()); !reflect.DeepEqual(got, want) {
		t.Errorf("lists %+v", got)
	}
}
