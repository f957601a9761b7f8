package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"quinto/fsm"
)

// BenchmarkCheckTxn is the price of reading each transaction back before it is
// proposed.
func BenchmarkCheckTxn(b *testing.B) {
	t := put("some-bucket/collections/c/records/0123456789abcdef")
	t.Ops[0].Data = append(append([]byte(`{"x":"`), make([]byte, 300)...), `"}`...)
	t.Compares = []fsm.Compare{{Kind: fsm.CompareObject, Key: "/buckets/b"}, {Kind: fsm.CompareObject, Key: "/buckets/b/collections/c"}}
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			fsm.EncodeTxn(&t)
		}
	})
	b.Run("encode and check", func(b *testing.B) {
		for b.Loop() {
			if _, err := encodeTxn(&t, fsm.FeatureCurrent); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkTrio measures three nodes in one process: linearizable views on a
// follower and on the leader, and writes.
func BenchmarkTrio(b *testing.B) {
	nodes := trio(b, nil)
	l := leaderOf(b, nodes...)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	view := func(n *testNode) func(*testing.B) {
		return func(b *testing.B) {
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					v, err := n.View(ctx, fsm.Freshness{})
					if err != nil {
						b.Error(err)
						return
					}
					v.Close()
				}
			})
		}
	}
	b.Run("view on a follower/64", view(others(l, nodes)[0]))
	b.Run("view on the leader/64", view(l))
	for _, writers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("write/%d", writers), func(b *testing.B) {
			b.SetParallelism((writers + 1) / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := l.Propose(ctx, put("b")); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
