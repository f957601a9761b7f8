package resource

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"quinto/api/auth"
	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/internal/config"
	"quinto/plugins"
)

// loneNode is a node that always leads, over a real state machine in memory.
// Its hooks let a test come between a plan and its proposal.
type loneNode struct {
	machine *fsm.FSM
	mu      sync.Mutex
	clock   func() fsm.Timestamp

	beforePropose func()            // called before each Propose, outside the lock
	confirm       func()            // called by each Confirm
	answer        func(error) error // replaces Propose's error after the effect
	leads         func() bool       // nil: always
	forward       func([]byte) ([]byte, error)
	proposed      int
	exclusive     int
}

func (n *loneNode) View(ctx context.Context, f fsm.Freshness) (*fsm.View, error) {
	if f.Level == fsm.Session {
		if err := n.machine.Wait(ctx, f.Revision); err != nil {
			return nil, err
		}
	}
	return n.machine.View()
}

func (n *loneNode) Staleness() time.Duration { return 0 }
func (n *loneNode) IsLeader() bool           { return n.leads == nil || n.leads() }
func (n *loneNode) Now() fsm.Timestamp       { return n.clock() }

func (n *loneNode) LeaderView() (*fsm.View, uint64, error) {
	if !n.IsLeader() {
		return nil, 0, fsm.ErrNotLeader
	}
	v, err := n.machine.View()
	return v, 1, err
}

func (n *loneNode) Confirm(context.Context, uint64) error {
	if n.confirm != nil {
		n.confirm()
	}
	return nil
}

func (n *loneNode) Propose(_ context.Context, t fsm.Txn) (fsm.Result, error) {
	if n.beforePropose != nil {
		n.beforePropose()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.apply(t)
}

func (n *loneNode) apply(t fsm.Txn) (fsm.Result, error) {
	n.proposed++
	enc := fsm.EncodeTxn(&t)
	if _, err := fsm.DecodeTxn(enc); err != nil {
		panic("a plan made a transaction that does not decode: " + err.Error())
	}
	out := n.machine.ApplyBatch([]*raft.Log{{Index: n.machine.Applied() + 1, Term: 1, Type: raft.LogCommand,
		Data: fsm.EncodeGroup("test", [][]byte{enc})}})
	if err, ok := out[0].(error); ok {
		return fsm.Result{}, err
	}
	var err error
	if n.answer != nil {
		err = n.answer(nil)
	}
	return out[0].([]fsm.Result)[0], err
}

func (n *loneNode) ProposeExclusive(_ context.Context, plan func(*fsm.View) (fsm.Txn, error)) (fsm.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exclusive++
	v, err := n.machine.View()
	if err != nil {
		return fsm.Result{}, err
	}
	t, err := plan(v)
	v.Close()
	if err != nil || !t.Changes() {
		return fsm.Result{}, err
	}
	return n.apply(t)
}

func (n *loneNode) Forward(_ context.Context, request []byte) ([]byte, error) {
	if n.forward == nil {
		return nil, fsm.ErrNoLeader
	}
	return n.forward(request)
}

func newNode(t testing.TB) *loneNode {
	t.Helper()
	st, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "state", MemTableBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	m, err := fsm.Open(st)
	if err != nil {
		t.Fatal(err)
	}
	return &loneNode{machine: m, clock: func() fsm.Timestamp { return fsm.Timestamp(time.Now().UnixMilli()) }}
}

func testConfig(t testing.TB, flags map[string]string) *config.Config {
	t.Helper()
	all := map[string]string{"userid_hmac_secret": "s3cr3t", "multiauth.policies": "basicauth",
		"multiauth.policy.basicauth.use": config.BasicAuthPolicy}
	for k, v := range flags {
		all[k] = v
	}
	c, err := config.Load(config.Options{Flags: all})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newService(t testing.TB, n Node, flags map[string]string, hooks ...plugins.BeforeCommit) *Service {
	t.Helper()
	c := testConfig(t, flags)
	return newServiceOf(t, Options{Config: c, Node: n, Hooks: hooks})
}

func newServiceOf(t testing.TB, o Options) *Service {
	t.Helper()
	if o.Config == nil {
		o.Config = testConfig(t, nil)
	}
	for _, p := range o.Config.Auth.Policies {
		o.Authenticators = append(o.Authenticators, auth.NewBasic(p.Name, o.Config.Auth.UserIDSecret))
	}
	o.Version = "test"
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
