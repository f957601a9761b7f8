package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"quinto/fsm"
)

func TestProposeAnywhere(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	ctx := context.Background()
	for i, n := range nodes {
		id := fmt.Sprint("any", i)
		out, err := n.ProposeAnywhere(ctx, put(id))
		if err != nil || out.Conflict || n.fsm.Revision() < out.Revision || !has(t, n, id) {
			t.Fatalf("%s: %+v %v", n.cfg.Name, out, err)
		}
		wrong := put(id)
		wrong.Compares = []fsm.Compare{{Kind: fsm.CompareObject, Key: "/buckets/" + id, Revision: 999}}
		if out, err := n.ProposeAnywhere(ctx, wrong); err != nil || !out.Conflict {
			t.Errorf("%s: a compare that does not hold: %+v %v", n.cfg.Name, out, err)
		}
		if _, err := n.ProposeAnywhere(ctx, fsm.Txn{Ops: make([]fsm.Op, fsm.MaxOps+1)}); !errors.Is(err, fsm.ErrTooLarge) {
			t.Errorf("%s: too large: %v", n.cfg.Name, err)
		}
	}
	if status, _ := nodes[0].servePropose(ctx, []byte("x")); status != statusRefused {
		t.Errorf("bytes that are no transaction: status %d", status)
	}
	if members, err := nodes[1].StoredMembers(); err != nil || len(members) != 3 || !slices.Contains(members, nodes[0].cfg.Name) {
		t.Errorf("members as stored: %v %v", members, err)
	}
}
