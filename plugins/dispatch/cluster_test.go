package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/plugins"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const clusterID = "7d6f-test"

// cluster is a log, one state that stands for all equal ones, and a leader by
// decree.
type cluster struct {
	t   testing.TB
	fsm *fsm.FSM

	apply sync.Mutex // one entry at a time
	index uint64

	mu      sync.Mutex
	term    uint64
	leader  *node
	lost    chan struct{}
	changed chan struct{}
	cursors int   // entries that moved a cursor
	refuse  error // of every proposal
}

// node is what a dispatcher sees of the cluster.
type node struct{ *cluster }

func newCluster(t testing.TB) *cluster {
	st, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	f, err := fsm.Open(st)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, fsm: f, changed: make(chan struct{}), lost: make(chan struct{})}
	c.log() // the empty command of the term
	return c
}

func (c *cluster) log(txns ...fsm.Txn) ([]fsm.Result, error) {
	encoded := make([][]byte, len(txns))
	for i := range txns {
		encoded[i] = fsm.EncodeTxn(&txns[i])
	}
	c.apply.Lock()
	defer c.apply.Unlock()
	c.index++
	out := c.fsm.ApplyBatch([]*raft.Log{{Index: c.index, Term: 1, Type: raft.LogCommand, Data: fsm.EncodeGroup(clusterID, encoded)}})
	switch r := out[0].(type) {
	case []fsm.Result:
		return r, nil
	case error:
		return nil, r
	}
	return nil, errors.New("no result")
}

// lead makes n the leader of a new term; nil: nobody.
func (c *cluster) lead(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.term++
	c.leader = n
	close(c.lost)
	close(c.changed)
	c.lost, c.changed = make(chan struct{}), make(chan struct{})
}

func (n *node) Leading() (uint64, <-chan struct{}, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.term, n.lost, n.leader == n
}

func (n *node) LeadershipChanged() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func (n *node) LeaderView() (*fsm.View, uint64, error) {
	term, _, ok := n.Leading()
	if !ok {
		return nil, 0, fsm.ErrNotLeader
	}
	v, err := n.fsm.View()
	return v, term, err
}

func (n *node) Propose(_ context.Context, t fsm.Txn) (fsm.Result, error) {
	n.mu.Lock()
	leads, refuse := n.leader == n, n.refuse
	for _, op := range t.Ops {
		if op.Type == fsm.OpAdvanceCursor && leads && refuse == nil {
			n.cursors++
		}
	}
	n.mu.Unlock()
	if !leads {
		return fsm.Result{}, fsm.ErrNotLeader
	}
	if refuse != nil {
		return fsm.Result{}, refuse
	}
	r, err := n.log(t)
	if err != nil {
		return fsm.Result{}, err
	}
	return r[0], nil
}

func (n *node) Now() fsm.Timestamp { return fsm.Timestamp(time.Now().UnixMilli()) }

func record(coll, id int) fsm.Path {
	return fsm.Path(fmt.Sprintf("/buckets/b/collections/c%d/records/r%d", coll, id))
}

func put(p fsm.Path, data string) fsm.Op {
	return fsm.Op{Type: fsm.OpPut, Path: p, Data: []byte(data)}
}

// write logs one transaction with ops.
func (c *cluster) write(ops ...fsm.Op) {
	c.t.Helper()
	if _, err := c.log(fsm.Txn{UserID: "basicauth:x", Now: fsm.Timestamp(time.Now().UnixMilli()), Ops: ops}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) view() *fsm.View {
	c.t.Helper()
	v, err := c.fsm.View()
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

func (c *cluster) notifier(name string) fsm.Notifier {
	c.t.Helper()
	v := c.view()
	defer v.Close()
	list, err := v.Notifiers()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range list {
		if n.Name == name {
			return n
		}
	}
	return fsm.Notifier{}
}

// receiver is a notifier that keeps what it got, and fails as it is told.
type receiver struct {
	name, hash string
	skip       func(*fsm.Event) bool

	mu    sync.Mutex
	fail  func(plugins.Delivery) error
	got   []plugins.Delivery // taken
	calls int
}

func (r *receiver) Name() string             { return r.name }
func (r *receiver) FilterHash() []byte       { return []byte("hash" + r.hash) }
func (r *receiver) Match(e *fsm.Event) bool  { return r.skip == nil || !r.skip(e) }
func (r *receiver) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

func (r *receiver) Deliver(ctx context.Context, d plugins.Delivery) error {
	r.mu.Lock()
	fail := r.fail
	r.calls++
	r.mu.Unlock()
	if fail != nil {
		if err := fail(d); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, d)
	return nil
}

func (r *receiver) failWith(f func(plugins.Delivery) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = f
}

func (r *receiver) taken() []plugins.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]plugins.Delivery(nil), r.got...)
}

// firsts returns the revisions in the order of their first delivery, per lane,
// and the number of repeated deliveries.
func firsts(t testing.TB, got []plugins.Delivery) (byLane map[string][]fsm.Revision, repeated int) {
	t.Helper()
	byLane, seen := map[string][]fsm.Revision{}, map[fsm.Revision]string{}
	for _, d := range got {
		if id, ok := seen[d.Event.Revision]; ok {
			if id != d.ID {
				t.Errorf("revision %d came as %s and %s", d.Event.Revision, id, d.ID)
			}
			repeated++
			continue
		}
		seen[d.Event.Revision] = d.ID
		lane := plugins.CollectionLane(d.Event)
		byLane[lane] = append(byLane[lane], d.Event.Revision)
	}
	for lane, list := range byLane {
		for i := 1; i < len(list); i++ {
			if list[i] <= list[i-1] {
				t.Errorf("lane %s: revision %d first came after %d", lane, list[i], list[i-1])
			}
		}
	}
	return byLane, repeated
}

// quick are options whose pauses suit a test.
func quick(n *node, notifiers ...plugins.Notifier) Options {
	ms := time.Millisecond
	return Options{Leader: n, State: n.fsm, Notifiers: notifiers, CursorInterval: 30 * ms, Grace: 300 * ms, DeliverTimeout: time.Second,
		Retry: Retry{First: []time.Duration{5 * ms, 10 * ms}, Max: 40 * ms, Patience: 50 * ms, GiveUp: time.Hour, Bury: ms}}
}

func start(t testing.TB, o Options) *Dispatcher {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d.Start()
	t.Cleanup(d.Close)
	return d
}

// until waits for cond, at most a minute: the machine may be busy.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
