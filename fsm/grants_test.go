package fsm

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// TestGranted: after any writes, deletions, cascades and a flush the rows say of
// each principal what a look at every object says, and there are no others.
func TestGranted(t *testing.T) {
	n := newNode(t)
	r := rand.New(rand.NewPCG(1, 2))
	people := []string{"a", "ab", "account:é", "/buckets/b1/groups/g"}
	path := func() Path {
		p := fmt.Sprintf("/buckets/b%d", r.IntN(3))
		if r.IntN(3) > 0 {
			p += fmt.Sprintf("/collections/c%d", r.IntN(3))
			if r.IntN(2) > 0 {
				p += fmt.Sprintf("/records/r%d", r.IntN(4))
			}
		}
		return Path(p)
	}
	acl := func() ACL {
		m := map[string][]string{}
		for _, name := range []string{"read", "write", "record:create"} {
			for _, who := range people {
				if r.IntN(4) == 0 {
					m[name] = append(m[name], who)
				}
			}
		}
		return NewACL(m)
	}
	for i := range 400 {
		op := Op{Type: OpPut, Path: path(), Data: []byte(`{}`), ACL: acl()}
		if old, err := n.view().Get(op.Path); err != nil {
			t.Fatal(err)
		} else if r.IntN(2) == 0 {
			op.ACL = old.ACL // a change of data alone
		}
		switch r.IntN(8) {
		case 0:
			op = Op{Type: OpDelete, Path: op.Path}
		case 1:
			op = Op{Type: OpDeleteTree, Path: op.Path}
		}
		n.apply(Txn{Now: Timestamp(1000 + i), Ops: []Op{op}})
		if i%20 == 0 {
			checkGranted(t, n, n.view(), people)
		}
	}
	over := NewOverlay(n.view(), 5000)
	for range 10 {
		for _, op := range []Op{{Type: OpPut, Path: path(), Data: []byte(`{}`), ACL: acl()}, {Type: OpDeleteTree, Path: path()}, {Type: OpDelete, Path: path()}} {
			if _, err := over.Stage(op); err != nil {
				t.Fatal(err)
			}
			checkGranted(t, n, over, people)
		}
	}
	n.apply(Txn{Now: 9000, Ops: []Op{{Type: OpFlush}}})
	if rows := n.rows(spaceGrant); rows != 0 {
		t.Errorf("%d rows after a flush", rows)
	}
}

func checkGranted(t *testing.T, n *node, v Reader, people []string) {
	t.Helper()
	rows := 0
	for _, who := range people {
		want, got := map[Path]string{}, map[Path]string{}
		err := v.Lists(func(list Path, _ ListInfo) bool {
			return v.Scan(list, ScanOptions{}, func(o *Object) bool {
				for _, g := range o.ACL.grantees() {
					if g.principal == who {
						want[o.Path] = strings.ReplaceAll(g.permissions, "\x00", " ")
					}
				}
				return true
			}) == nil
		})
		if err != nil {
			t.Fatal(err)
		}
		err = v.Granted([]string{who, "nobody"}, func(p Path, permissions []string) bool {
			got[p] = strings.Join(permissions, " ")
			return true
		})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: %v, want %v (%v)", who, got, want, err)
		}
		rows += len(want)
	}
	if _, view := v.(*View); view && n.rows(spaceGrant) != rows {
		t.Fatalf("%d rows, want %d", n.rows(spaceGrant), rows)
	}
}

// TestGrantedStops: the walk ends when its caller has enough.
func TestGrantedStops(t *testing.T) {
	n := newNode(t)
	acl := NewACL(map[string][]string{"read": {"a"}})
	for i := range 5 {
		n.apply(Txn{Now: 1, Ops: []Op{{Type: OpPut, Path: Path(fmt.Sprintf("/buckets/b%d", i)), ACL: acl}}})
	}
	seen := 0
	if err := n.view().Granted([]string{"a"}, func(Path, []string) bool { seen++; return seen < 3 }); err != nil || seen != 3 {
		t.Errorf("%d, %v", seen, err)
	}
}
