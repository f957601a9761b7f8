package fsm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

func BenchmarkApplyCreates(b *testing.B) {
	for _, group := range []int{1, 64} {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) {
			n := openNodeWith(b, vfs.NewMem(), 0)
			defer n.st.Close()
			user := "basicauth:" + strings.Repeat("a", 64)
			data := []byte(`{"name":"` + strings.Repeat("x", 280) + `"}`)
			acl := NewACL(map[string][]string{"write": {user}})
			n.apply(put("/buckets/b", 1, "{}"), put("/buckets/b/collections/c", 1, "{}"))
			b.ResetTimer()
			for i := 0; i < b.N; i += group {
				txns := make([]Txn, group)
				for j := range txns {
					p := Path(fmt.Sprintf("/buckets/b/collections/c/records/%08d-0000-4000-8000-%012d", (i+j)*7919%b.N, i+j))
					txns[j] = Txn{RequestID: []byte(fmt.Sprintf("%016d", i+j)), RequestHash: make([]byte, 32), UserID: user, Now: Timestamp(1000 + i), Reply: make([]byte, 16),
						Compares: []Compare{{CompareObject, "/buckets/b", 1}, {CompareObject, "/buckets/b/collections/c", 2}, {CompareObject, string(p), 0}, {CompareMember, user, 0}},
						Ops:      []Op{{Type: OpPut, Path: p, Data: data, ACL: acl, Inherited: []string{user}}}}
				}
				n.ApplyBatch([]*raft.Log{entry(n.Applied()+1, txns...)})
			}
		})
	}
}

func BenchmarkViewGetRecord(b *testing.B) {
	n := newNode(b)
	n.apply(put("/buckets/b", 1, "{}"), put("/buckets/b/collections/c", 1, "{}"), put("/buckets/b/collections/c/records/r", 1, "{}"))
	for b.Loop() {
		v, err := n.View()
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range []Path{"/buckets/b", "/buckets/b/collections/c", "/buckets/b/collections/c/records/r"} {
			if _, err := v.Get(p); err != nil {
				b.Fatal(err)
			}
		}
		v.Close()
	}
}
