package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quinto/api/resource"
	"quinto/fsm"
	"quinto/internal/canon"
)

// state is a Reader over a few objects; a plan asks for nothing else.
type state struct {
	fsm.Reader
	objects map[fsm.Path]fsm.Object
}

func (s state) Get(p fsm.Path) (fsm.Object, error) { return s.objects[p], nil }
func (s state) List(fsm.Path) (fsm.ListInfo, error) {
	return fsm.ListInfo{Timestamp: 50, Revision: 1}, nil
}

func planner() *Planner { return &Planner{Kinds: resource.Kinds(), RecordBytes: 100} }

func TestPlan(t *testing.T) {
	here := state{objects: map[fsm.Path]fsm.Object{
		"/buckets/b": {Path: "/buckets/b", Revision: 1, LastModified: 10, Data: []byte(`{"a":1}`), ACL: fsm.NewACL(map[string][]string{"read": {"x"}})},
		"/buckets/d": {Path: "/buckets/d", Revision: 2, LastModified: 20, Deleted: true},
	}}
	read := map[string][]string{"read": {"x"}}
	tests := []struct {
		name string
		item Item
		op   fsm.OpType // 0: none
		why  string     // part of a refusal
	}{
		{"the same", Item{Path: "/buckets/b", LastModified: 10, Data: []byte(`{ "id":"b", "a":1, "last_modified":10 }`), Permissions: read}, 0, ""},
		{"other data", Item{Path: "/buckets/b", LastModified: 10, Data: []byte(`{"a":2}`), Permissions: read}, fsm.OpPut, ""},
		{"other permissions", Item{Path: "/buckets/b", LastModified: 10, Data: []byte(`{"a":1}`)}, fsm.OpPut, ""},
		{"newer", Item{Path: "/buckets/b", LastModified: 11, Data: []byte(`{}`)}, fsm.OpPut, ""},
		{"older", Item{Path: "/buckets/b", LastModified: 9, Data: []byte(`{}`)}, 0, NewerHere},
		{"tombstone", Item{Path: "/buckets/b", LastModified: 12, Deleted: true}, fsm.OpPutTombstone, ""},
		{"the same tombstone", Item{Path: "/buckets/d", LastModified: 20, Deleted: true}, 0, ""},
		{"record of nothing", Item{Path: "/buckets/b/collections/c/records/r", Data: []byte(`{}`)}, 0, "does not exist"},
		{"bad id", Item{Path: "/buckets/a b", Data: []byte(`{}`)}, 0, "cannot be the id"},
		{"no kind", Item{Path: "/things/a", Data: []byte(`{}`)}, 0, "kinto.includes"},
		{"no path", Item{Path: "/buckets", Data: []byte(`{}`)}, 0, "no path"},
		{"no object", Item{Path: "/buckets/x", Data: []byte(`[]`)}, 0, "not a JSON object"},
		{"bad JSON", Item{Path: "/buckets/x", Data: []byte(`{`)}, 0, "Invalid JSON"},
		{"too large", Item{Path: "/buckets/x", Data: []byte(`{"x":"` + strings.Repeat("x", 100) + `"}`)}, 0, "quinto.limit_record_bytes"},
		{"no such permission", Item{Path: "/buckets/x", Data: []byte(`{}`), Permissions: map[string][]string{"fly": {"x"}}}, 0, "no permission"},
		{"older list", Item{Path: "/buckets", List: true, LastModified: 40}, 0, ""},
		{"newer list", Item{Path: "/buckets", List: true, LastModified: 60}, fsm.OpSetListTimestamp, ""},
	}
	for _, test := range tests {
		ops, done, err := planner().Plan(here, []Item{test.item}, false)
		switch {
		case err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.why != "":
			if len(ops) != 0 || len(done.Refused) != 1 || !strings.Contains(done.Refused[0].Reason, test.why) {
				t.Errorf("%s: %v %+v", test.name, ops, done)
			}
		case test.op == 0 && (len(ops) != 0 || done.Unchanged != 1), test.op != 0 && (len(ops) != 1 || ops[0].Type != test.op || done.Written != 1):
			t.Errorf("%s: %v %+v", test.name, ops, done)
		}
	}
	// An object may lie in one of the same batch; the list of one that is not there has no timestamp.
	_, done, err := planner().Plan(here, []Item{
		{Path: "/buckets/n", Data: []byte(`{}`)}, {Path: "/buckets/n/groups/g", Data: []byte(`{"members":["m"]}`)},
		{Path: "/buckets/gone/groups", List: true, LastModified: 70},
	}, false)
	if err != nil || done.Written != 2 || len(done.Ignored) != 1 || done.Ignored[0] != 2 {
		t.Errorf("%+v %v", done, err)
	}
}

// memory is a Target that keeps what it is given.
type memory struct {
	items map[fsm.Path]Item
	fail  int // calls until an error
	wrong bool
}

func (m *memory) Plurals(context.Context) ([]string, error) { return nil, nil }

func (m *memory) Take(_ context.Context, items []Item, dry bool) (Done, error) {
	if m.fail--; m.fail == 0 {
		return Done{}, io.ErrUnexpectedEOF
	}
	for _, i := range items {
		key := i.Path
		if i.List {
			key += "/"
		}
		if !dry {
			m.items[key] = i
		}
	}
	return Done{Written: len(items)}, nil
}

func (m *memory) Export(_ context.Context, _ Selection, read func(io.Reader) error) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	_ = e.Encode(exportHead{Format: FormatVersion})
	var n int64
	for _, i := range m.items {
		if m.wrong && strings.HasSuffix(string(i.Path), "/r7") {
			i.LastModified++
		}
		_ = e.Encode(i)
		n++
	}
	_ = e.Encode(exportEnd{true, n})
	return read(&b)
}

// writeFile makes a file of an export with n records.
func writeFile(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export.ndjson")
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	_ = e.Encode(exportHead{Format: FormatVersion, Cluster: "c", Revision: 1})
	add := func(i Item) { _ = e.Encode(i) }
	add(Item{Path: "/buckets/b", LastModified: 1, Data: []byte(`{}`)})
	add(Item{Path: "/buckets", List: true, LastModified: 1})
	add(Item{Path: "/buckets/b/collections/c", LastModified: 1, Data: []byte(`{}`)})
	add(Item{Path: "/buckets/b/collections", List: true, LastModified: 1})
	for i := range n {
		add(Item{Path: fsm.Path("/buckets/b/collections/c/records").Child("r" + string(rune('0'+i%10)) + strings.Repeat("x", i/10)), LastModified: fsm.Timestamp(100 + i), Deleted: i%3 == 0, Data: data(i)})
	}
	add(Item{Path: "/buckets/b/collections/c/records", List: true, LastModified: 10000})
	_ = e.Encode(exportEnd{true, int64(n + 5)})
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func data(i int) json.RawMessage {
	if i%3 == 0 {
		return nil
	}
	return []byte(`{"n":1}`)
}

func TestRunGoesOnWhereItWasAndCompares(t *testing.T) {
	ctx := context.Background()
	file := writeFile(t, 3*batchItems)
	mark := filepath.Join(t.TempDir(), "mark")
	target := &memory{items: map[fsm.Path]Item{}, fail: 3}
	run := func() (*Report, error) {
		source, err := Open(ctx, From{Address: file})
		if err != nil {
			t.Fatal(err)
		}
		c, err := OpenCheckpoint(mark, "job")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(ctx, Options{Source: source, Target: target, Checkpoint: c})
		if err := c.Close(err == nil); err != nil {
			t.Fatal(err)
		}
		return r, err
	}
	if _, err := run(); err == nil {
		t.Fatal("the target's error is lost")
	}
	r, err := run()
	if err != nil || !r.Whole() || r.Equal != 3 {
		t.Fatalf("%+v %v", r, err)
	}
	if c := r.Kinds["records"]; c.Earlier == 0 || c.Earlier+c.Objects+c.Tombstones != 3*batchItems {
		t.Errorf("%+v", c)
	}
	if _, err := os.Stat(mark); !os.IsNotExist(err) {
		t.Errorf("a finished import leaves its checkpoint: %v", err)
	}
	target.wrong = true
	if r, err = run(); err != nil || r.Whole() || len(r.Differ) != 1 || r.Differ[0].List != "/buckets/b/collections/c/records" {
		t.Errorf("a changed record is not found: %+v %v", r, err)
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil || !strings.Contains(out.String(), "differs: /buckets/b/collections/c/records") {
		t.Errorf("%s %v", out.String(), err)
	}
}

func TestFilesThatAreNone(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no export": "{}\n", "another version": `{"quinto_export":99}` + "\n",
		"cut off":   `{"quinto_export":1}` + "\n" + `{"path":"/buckets/b"}` + "\n",
		"wrong sum": `{"quinto_export":1}` + "\n" + `{"end":true,"items":3}` + "\n",
		"garbage":   `{"quinto_export":1}` + "\nx\n",
	} {
		if err := readExport(strings.NewReader(text), func(*Item) error { return nil }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Open(context.Background(), From{Address: "ftp://x"}); err == nil {
		t.Error("ftp is a source")
	}
}

func TestDigestDoesNotDependOnTheOrder(t *testing.T) {
	a, b := Item{Path: "/buckets/a", LastModified: 1, Data: []byte(`{"x": 1}`)}, Item{Path: "/buckets/b", LastModified: 2, Deleted: true}
	var one, two, other Digest
	for _, i := range []*Item{&a, &b} {
		one.addItem(i, canon.Limits{})
	}
	for _, i := range []*Item{&b, &a} {
		two.addItem(i, canon.Limits{})
	}
	a.Permissions = map[string][]string{"read": {"x"}}
	for _, i := range []*Item{&a, &b} {
		other.addItem(i, canon.Limits{})
	}
	if one != two || one == other {
		t.Errorf("%v %v %v", one, two, other)
	}
}

func TestSelection(t *testing.T) {
	s := Selection{"b"}
	for path, want := range map[fsm.Path]bool{"/buckets/b": true, "/buckets/b/groups/g": true, "/buckets/bb": false, "/buckets": false, "/accounts/b": false} {
		if s.wants(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}
