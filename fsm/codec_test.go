package fsm

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

var sampleTxn = Txn{
	RequestID: []byte("request-id"), RequestHash: []byte("hash"), UserID: "basicauth:abc", Now: 1795308102077, Reply: []byte{1, 2},
	Compares: []Compare{{CompareObject, "/buckets/b", 7}, {CompareList, "/buckets", 8}, {CompareMember, "basicauth:abc", 0}},
	Ops: []Op{
		{Type: OpPut, Path: "/buckets/b/groups/g", Data: []byte(`{"members":["x"]}`), ACL: NewACL(map[string][]string{"write": {"b", "a", "a"}, "read": {"c"}, "none": {}}), Members: []string{"x"}, LastModified: -3, HasTime: true, Exact: true, Inherited: []string{"a"}},
		{Type: OpPutTombstone, Path: "/buckets/t", LastModified: 5, HasTime: true},
		{Type: OpDelete, Path: "/buckets/d"}, {Type: OpDeleteTree, Path: "/buckets/e"},
		{Type: OpSetListTimestamp, Path: "/buckets", LastModified: 9, HasTime: true, IfAbsent: true},
		{Type: OpPurgeTombstones, Path: "/buckets", LastModified: 4, HasTime: true},
		{Type: OpTrimEvents, Revision: 3}, {Type: OpRegisterNotifier, Name: "n", Value: []byte("h")}, {Type: OpForgetNotifier, Name: "n"},
		{Type: OpAdvanceCursor, Name: "n", Revision: 4, Lanes: []Lane{{"/buckets/b", 2}}},
		{Type: OpSetFeatureLevel, Level: 1}, {Type: OpSetSetting, Name: "s", Value: []byte("v")},
	},
}

// historyTxn has the operations of histories.
var historyTxn = Txn{Now: 1795308102077, Ops: []Op{
	{Type: OpPutEntry, Path: "/buckets/b/history/h", Target: "/buckets/b/groups/g", Data: []byte(`{"action":"update"}`), ACL: NewACL(map[string][]string{"read": {"a"}})},
	{Type: OpDropEntries, Path: "/buckets/b/history", Members: []string{"h", "i"}},
}}

// flushTxn is apart from sampleTxn: the golden file of that one was released
// before there was a flush.
var flushTxn = Txn{UserID: "account:a", Now: 1795308102078, Ops: []Op{{Type: OpFlush, Members: []string{"cache/", "nonce/"}}}}

// lifeTxn is what a recovery logs.
var lifeTxn = Txn{Now: 1795308102080, Ops: []Op{{Type: OpBeginLife}}}

var freshTxn = Txn{Now: 1795308102079, Ops: []Op{{Type: OpPut, Path: "/buckets/b", Data: []byte(`{}`), Fresh: true}}}

func TestTxnRoundTrip(t *testing.T) {
	for _, want := range []Txn{sampleTxn, flushTxn, historyTxn, freshTxn, lifeTxn} {
		got, err := DecodeTxn(EncodeTxn(&want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n got %+v\nwant %+v", err, got, want)
		}
	}
}

func TestACL(t *testing.T) {
	acl := sampleTxn.Ops[0].ACL
	if want := map[string][]string{"write": {"a", "b"}, "read": {"c"}}; !reflect.DeepEqual(acl.Map(), want) {
		t.Fatalf("%v", acl.Map())
	}
	if !acl.Grants(map[string]bool{"b": true}, "write") || acl.Grants(map[string]bool{"b": true}, "read") || acl.Grants(map[string]bool{"a": true}, "none") {
		t.Fatal("Grants")
	}
	if NewACL(nil) != nil || NewACL(map[string][]string{"read": {}}) != nil {
		t.Fatal("an ACL without principals is none")
	}
}

// TestACLStopsWhereItIsTold: a grant found in an early permission was lost when
// a later permission followed, because only the inner walk ended.
func TestACLStopsWhereItIsTold(t *testing.T) {
	acl := NewACL(map[string][]string{"read": {"a"}, "record:create": {"b"}, "write": {"c"}})
	for permission, principal := range map[string]string{"read": "a", "record:create": "b", "write": "c"} {
		if !acl.Grants(map[string]bool{principal: true}, permission) {
			t.Errorf("%s of %s is not seen", permission, principal)
		}
	}
	calls := 0
	acl.Each(func(_, _ []byte) bool { calls++; return false })
	if calls != 1 {
		t.Fatalf("called %d times after it said stop", calls)
	}
}

// TestReleasedEncodings pins every encoding that reaches the log or the store.
// A failure here means that data written by a released version no longer reads
// the same: change the format byte and keep reading the old one instead.
func TestReleasedEncodings(t *testing.T) {
	o := Object{Path: "/buckets/b", Revision: 9, LastModified: 1795308102077, Data: []byte(`{"a":1}`), ACL: sampleTxn.Ops[0].ACL, Members: []string{"x", "y"}}
	goldenFile(t, "entry.hex", EncodeGroup(testCluster, [][]byte{EncodeTxn(&sampleTxn)}))
	goldenFile(t, "entry-flush.hex", EncodeGroup(testCluster, [][]byte{EncodeTxn(&flushTxn)}))
	goldenFile(t, "event-flush.hex", encodeEvent(&Event{Action: ActionFlush, UserID: "u", Time: 1, LastModified: 2}))
	goldenFile(t, "object.hex", encodeObject(&o))
	goldenFile(t, "version.hex", encodeVersion(&o))
	goldenFile(t, "tombstone.hex", encodeObject(&Object{Revision: 3, Deleted: true}))
	goldenFile(t, "index.hex", encodeIndex(indexEntry{1795308102077, 9, true}))
	goldenFile(t, "list.hex", encodeList(&ListInfo{Timestamp: -1, Revision: 2, Count: 3, Tombstones: 4, Floor: 5}))
	goldenFile(t, "event.hex", encodeEvent(&Event{Action: ActionUpdate, Path: "/buckets/b", Position: 2, RequestID: []byte("id"), UserID: "u", Time: 1, LastModified: 2, OldRevision: 3, OldLastModified: 4, OldACL: o.ACL, NewACL: o.ACL, Inherited: []string{"p"}}))
	goldenFile(t, "request.hex", encodeRequest(&StoredRequest{Hash: []byte("h"), Revision: 5, Now: 6, Reply: []byte("r"), Refs: []Ref{{"/buckets/b", 5, 7, true}}}))
	goldenFile(t, "event_body.hex", encodeEventBody(&Event{Action: ActionCreate, Path: o.Path, Time: 1, LastModified: o.LastModified, NewACL: o.ACL}, &o))
	goldenFile(t, "remembered.hex", encodeRemembered(7, []byte("id"), &StoredRequest{Hash: []byte("h"), Revision: 5}))
	goldenFile(t, "notifier.hex", encodeNotifier(&Notifier{Hash: []byte("h"), Start: 1, Cursor: 2, Lanes: []Lane{{"l", 1}}}))
	goldenFile(t, "meta.hex", encodeMeta(&meta{ClusterID: "c", Revision: 1, FeatureLevel: 1, EventFloor: 2, EventCount: 3, Clock: 4, RequestFirst: 5, RequestNext: 6, RequestBytes: 7}))
	goldenFile(t, "entry_history.hex", EncodeGroup(testCluster, [][]byte{EncodeTxn(&historyTxn)}))
	goldenFile(t, "entry_life.hex", EncodeGroup(testCluster, [][]byte{EncodeTxn(&lifeTxn)}))
	goldenFile(t, "entry_fresh.hex", EncodeGroup(testCluster, [][]byte{EncodeTxn(&freshTxn)}))
	goldenFile(t, "object_of.hex", encodeObject(&Object{Revision: 9, Data: []byte(`{}`), Of: &Ref{"/buckets/b", 9, 0, false}}))
	goldenFile(t, "object_granted.hex", encodeObject(&Object{Revision: 9, ACL: o.ACL, grantsAt: 3}))
	goldenFile(t, "hold.hex", encodeHold(hold{2, true}))
	goldenFile(t, "members.hex", encodeMembers([]string{"a", "b"}))
	keys := [][]byte{objectKey("/buckets", -1, "b"), indexKey("/buckets/b"), key(spaceList, "/buckets"), keyNumber(spaceEvent, 7), versionKey("/buckets/b", 7),
		key(spaceRequest, "id"), keyNumber(spaceRequests, 1), key(spaceNotifier, "n"), key(spaceSetting, "s"), metaKey(), memberKey("m", "/buckets/b"), key(spaceMembers, "/p"), key(spaceMemberAt, "m"), entryKey(), encodeEntry(3, 4)}
	var all []byte
	for _, k := range keys {
		all = append(append(all, k...), 0xff, 0xff)
	}
	goldenFile(t, "keys.hex", all)
	goldenFile(t, "keys_hold.hex", holdKey("/buckets/b", 7))
	goldenFile(t, "keys_grant.hex", grantKey("/buckets/b", "p", 7))
	goldenFile(t, "grantees.hex", []byte(NewACL(map[string][]string{"write": {"a", "b"}, "read": {"a"}}).grantees()[0].permissions))
}

func TestDecodeRefuses(t *testing.T) {
	for name, tx := range map[string]Txn{
		"list path for an object":  {Ops: []Op{{Type: OpPut, Path: "/buckets"}}},
		"object path for a list":   {Ops: []Op{{Type: OpPurgeTombstones, Path: "/buckets/b"}}},
		"NUL in a path":            {Ops: []Op{{Type: OpPut, Path: "/buckets/a\x00b"}}},
		"empty id":                 {Ops: []Op{{Type: OpPut, Path: "/buckets/"}}},
		"unknown op":               {Ops: []Op{{Type: 77, Path: "/buckets/b"}}},
		"op zero":                  {Ops: []Op{{}}},
		"nameless notifier":        {Ops: []Op{{Type: OpRegisterNotifier}}},
		"NUL in a member":          {Ops: []Op{{Type: OpPut, Path: "/buckets/b", Members: []string{"a\x00"}}}},
		"broken ACL":               {Ops: []Op{{Type: OpPut, Path: "/buckets/b", ACL: ACL{1, 2, 3}}}},
		"flush of all settings":    {Ops: []Op{{Type: OpFlush, Members: []string{""}}}},
		"flush with many prefixes": {Ops: []Op{{Type: OpFlush, Members: make([]string, MaxFlushPrefixes+1)}}},
		"unknown compare":          {Compares: []Compare{{Kind: 9, Key: "/buckets/b"}}},
		"long request id":          {RequestID: make([]byte, MaxRequestIDBytes+1)},
		"entry too deep":           {Ops: []Op{{Type: OpPutEntry, Path: "/buckets/b/collections/c/history/h"}}},
		"entry of another bucket":  {Ops: []Op{{Type: OpPutEntry, Path: "/buckets/b/history/h", Target: "/buckets/c"}}},
		"entry of a list":          {Ops: []Op{{Type: OpPutEntry, Path: "/buckets/b/history/h", Target: "/buckets/b/groups"}}},
		"drop with a slash":        {Ops: []Op{{Type: OpDropEntries, Path: "/buckets", Members: []string{"a/b/c"}}}},
	} {
		if _, err := DecodeTxn(EncodeTxn(&tx)); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(EncodeTxn(&sampleTxn))
	for _, op := range slices.Concat(flushTxn.Ops, historyTxn.Ops, sampleTxn.Ops, lifeTxn.Ops) {
		f.Add(EncodeTxn(&Txn{Now: 1, Ops: []Op{op}}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = DecodeGroup(b)
		g, err := DecodeGroup(EncodeGroup(testCluster, [][]byte{b})) // past the checksum
		if err != nil {
			return
		}
		for i := range g.Txns {
			again, err := DecodeTxn(EncodeTxn(&g.Txns[i]))
			if err != nil || len(again.Ops) != len(g.Txns[i].Ops) {
				t.Fatalf("does not round-trip: %v", err)
			}
		}
	})
}

func FuzzDecodeRows(f *testing.F) {
	f.Add(encodeObject(&Object{Revision: 1, Data: []byte("{}")}))
	f.Add(encodeMeta(&meta{ClusterID: "c"}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = decodeObject(b, &Object{})
		_ = decodeVersion(b, &Object{})
		_ = decodeList(b, &ListInfo{})
		_ = decodeEvent(b, &Event{})
		_, _, _ = decodeEventBody(b, 1)
		_, _, _, _ = splitRemembered(b)
		_ = decodeRequest(b, &StoredRequest{})
		_ = decodeNotifier(b, &Notifier{})
		_ = decodeMeta(b, &meta{})
		_ = decodeHold(b, &hold{})
		_, _ = decodeIndex(b)
		_, _ = decodeMembers(b)
		ACL(b).Map()
	})
}

// FuzzApply: nothing that decodes makes Apply panic, and two machines that
// apply it, in one batch and in two, agree.
func FuzzApply(f *testing.F) {
	f.Add(EncodeTxn(&historyTxn), EncodeTxn(&Txn{Now: 3, Ops: []Op{{Type: OpDeleteTree, Path: "/buckets/b"}}}))
	f.Add(EncodeTxn(&sampleTxn), EncodeTxn(&Txn{Now: 3, Ops: []Op{{Type: OpDeleteTree, Path: "/buckets/b"}}}))
	f.Add(EncodeTxn(&sampleTxn), EncodeTxn(&flushTxn))
	f.Add(EncodeTxn(&lifeTxn), EncodeTxn(&sampleTxn))
	one, two := newNode(f), newNode(f)
	f.Fuzz(func(t *testing.T, x, y []byte) {
		a, err := DecodeTxn(x)
		b, err2 := DecodeTxn(y)
		if err != nil || err2 != nil {
			return
		}
		at := one.Applied()
		logs := []*raft.Log{entry(at+1, a), entry(at+2, b)}
		for _, l := range logs {
			if err, ok := one.ApplyBatch([]*raft.Log{l})[0].(error); ok && !errors.Is(err, ErrHalted) {
				t.Fatal(err)
			}
		}
		two.ApplyBatch(logs)
		if one.HaltError() != nil || two.HaltError() != nil {
			t.Fatalf("what decodes must apply: %v %v", one.HaltError(), two.HaltError())
		}
		if g, w := hashOf(t, two), hashOf(t, one); g != w {
			t.Fatalf("%s, %s", g, w)
		}
	})
}
