package flush

import (
	"context"
	"slices"
	"testing"

	"quinto/fsm"
	"quinto/plugins"
)

// One operation, and with it the replicated rows that stand for Kinto's cache, and those of what objects declare;
// never a prefix under which the cluster keeps what it needs.
func TestPlan(t *testing.T) {
	route := plugin{}.Routes()[0]
	plan, err := route.Plan(context.Background(), &plugins.RouteRequest{Body: []byte("not read")})
	if err != nil || plan.Response.Status != 202 || string(plan.Response.Body) != "{}" || len(plan.Ops) != 1 {
		t.Fatalf("%+v %v", plan, err)
	}
	op := plan.Ops[0]
	if op.Type != fsm.OpFlush || !slices.Equal(op.Members, []string{plugins.CachePrefix, plugins.NoncePrefix, plugins.DeclaredPrefix}) {
		t.Errorf("%+v", op)
	}
	if _, err := fsm.DecodeTxn(fsm.EncodeTxn(&fsm.Txn{Ops: plan.Ops})); err != nil {
		t.Errorf("the log refuses it: %v", err)
	}
}
