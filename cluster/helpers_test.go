package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/internal/freeport"
)

func TestMain(m *testing.M) {
	// memberlist's Shutdown does not wait for a probe under way, which ends by its timeout.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// testNode is a node with its state, as main wires them.
type testNode struct {
	*Node
	store *store.Store
	fsm   *fsm.FSM
	cfg   Config
	net   *faultNet
	peers []*testNode // all of its cluster
}

// know tells nodes that they are one cluster.
func know(nodes []*testNode) {
	for _, n := range nodes {
		n.peers = nodes
	}
}

// freeAddr returns a loopback address on which nobody listens.
func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func testConfig(t testing.TB, name string) Config {
	c := Config{
		Name: name, DataDir: filepath.Join(t.TempDir(), name), LogStore: os.Getenv("QUINTO_LOG_STORE"),
		ClusterAddr: freeAddr(t), HTTPAddr: "127.0.0.1:1",
		HeartbeatTimeout: 500 * time.Millisecond, ElectionTimeout: 500 * time.Millisecond, LeaderLease: 400 * time.Millisecond,
		RaftTimeout: time.Second, PromoteAfter: 200 * time.Millisecond,
	}
	if os.Getenv("CLUSTER_TEST_LOG") != "" {
		c.Logger = hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.Debug, Output: os.Stderr})
	}
	return c
}

// tryNode opens and starts a node; the handler echoes.
func tryNode(t testing.TB, c Config) (*testNode, error) {
	n, err := openNode(&c)
	if err != nil {
		return nil, err
	}
	if err = n.Start(); err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	return n, nil
}

// openNode is tryNode without the start.
func openNode(c *Config) (*testNode, error) {
	n := &testNode{cfg: *c, net: newFaultNet()}
	c.Dial = n.net.dial
	c.Events = new(StoreEvents)
	o := store.Options{Dir: filepath.Join(c.DataDir, "state"), OnEvent: c.Events.On}
	if c.Memory {
		o.FS, o.Dir = vfs.NewMem(), "state"
	}
	var err error
	if n.store, err = store.Open(o); err != nil {
		return nil, err
	}
	if n.fsm, err = fsm.Open(n.store); err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	if n.Node, err = Open(*c, n.fsm, n.store); err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	n.Handle(func(_ context.Context, request []byte) []byte {
		return append([]byte(n.cfg.Name+":"), request...)
	})
	return n, nil
}

func startNode(t testing.TB, c Config) *testNode {
	t.Helper()
	n, err := tryNode(t, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop(t) })
	return n
}

func (n *testNode) stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.Shutdown(ctx); err != nil {
		t.Errorf("shutdown of %s: %v", n.cfg.Name, err)
	}
	if err := n.store.Close(); err != nil {
		t.Errorf("store of %s: %v", n.cfg.Name, err)
	}
}

// crash ends the node as a SIGKILL would look to its peers: no transfer, no
// goodbye.
func (n *testNode) crash(t testing.TB) {
	t.Helper()
	n.mux.sever(true)
	waitFor(t, "deposed", func() bool { return !n.IsLeader() })
	n.stop(t)
}

func ready(t testing.TB, nodes ...*testNode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range nodes {
		if err := n.WaitReady(ctx); err != nil {
			t.Fatalf("node %s: %v", n.cfg.Name, err)
		}
	}
}

// trio forms a cluster of three by gossip and waits until all are ready.
func trio(t testing.TB, change func(*Config)) []*testNode {
	t.Helper()
	var seeds []string
	configs := make([]Config, 3)
	for i := range configs {
		configs[i] = testConfig(t, fmt.Sprintf("n%d", i))
		configs[i].GossipAddr = freeAddr(t)
		seeds = append(seeds, configs[i].GossipAddr)
	}
	nodes := make([]*testNode, 3)
	for i, c := range configs {
		c.Join, c.Expect = seeds, 3
		if change != nil {
			change(&c)
		}
		nodes[i] = startNode(t, c)
	}
	know(nodes)
	ready(t, nodes...)
	return nodes
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func leaderOf(t testing.TB, nodes ...*testNode) *testNode {
	t.Helper()
	var l *testNode
	waitFor(t, "a leader", func() bool {
		for _, n := range nodes {
			if n.IsLeader() {
				l = n
				return true
			}
		}
		return false
	})
	return l
}

func others(l *testNode, nodes []*testNode) []*testNode {
	var out []*testNode
	for _, n := range nodes {
		if n != l {
			out = append(out, n)
		}
	}
	return out
}

func put(id string) fsm.Txn {
	return fsm.Txn{Now: fsm.Timestamp(time.Now().UnixMilli()), Ops: []fsm.Op{{
		Type: fsm.OpPut, Path: fsm.Path("/buckets/" + id), Data: []byte(`{"x":1}`),
	}}}
}

// mustPut writes through n, or through the leader that has followed it: on a
// busy machine leadership may move at any time.
func mustPut(t testing.TB, n *testNode, id string) fsm.Revision {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		r, err := n.Propose(ctx, put(id))
		if err == nil {
			return r.Revision
		}
		if ctx.Err() != nil || !errors.Is(err, fsm.ErrNotLeader) && !errors.Is(err, fsm.ErrUnknownOutcome) {
			t.Fatalf("propose %s: %v", id, err)
		}
		time.Sleep(10 * time.Millisecond)
		for _, p := range n.peers {
			if p.IsLeader() {
				n = p
			}
		}
	}
}

// has reads id from n, linearizably.
func has(t testing.TB, n *testNode, id string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	v, err := n.View(ctx, fsm.Freshness{})
	if err != nil {
		t.Fatalf("view of %s: %v", n.cfg.Name, err)
	}
	defer v.Close()
	o, err := v.Get(fsm.Path("/buckets/" + id))
	if err != nil {
		t.Fatal(err)
	}
	return o.Exists()
}

// sameState compares the nodes' states, again while the leader still adds what
// it alone writes.
func sameState(t testing.TB, nodes ...*testNode) {
	t.Helper()
	waitFor(t, "equal states", func() bool {
		first := stateHash(t, nodes[0])
		for _, n := range nodes[1:] {
			if stateHash(t, n) != first {
				return false
			}
		}
		return true
	})
}

func stateHash(t testing.TB, n *testNode) [32]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	v, err := n.View(ctx, fsm.Freshness{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	h, err := v.Hash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// faultNet is a dialler whose connections can be made to swallow everything.
type faultNet struct {
	mu      sync.Mutex
	blocked map[string]bool // addresses not to be reached
	conns   map[*faultConn]struct{}
}

func newFaultNet() *faultNet {
	return &faultNet{blocked: map[string]bool{}, conns: map[*faultConn]struct{}{}}
}

type faultConn struct {
	net.Conn
	f    *faultNet
	addr string
}

func (f *faultNet) isBlocked(addr string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blocked[addr]
}

// Write pretends to send while the address is blocked.
func (c *faultConn) Write(b []byte) (int, error) {
	if c.f.isBlocked(c.addr) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *faultConn) Close() error {
	c.f.mu.Lock()
	delete(c.f.conns, c)
	c.f.mu.Unlock()
	return c.Conn.Close()
}

func (f *faultNet) dial(ctx context.Context, addr string) (net.Conn, error) {
	if f.isBlocked(addr) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
			return nil, errors.New("blocked")
		}
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &faultConn{Conn: conn, f: f, addr: addr}
	f.mu.Lock()
	f.conns[c] = struct{}{}
	f.mu.Unlock()
	return c, nil
}

// block makes addr unreachable, or reachable again with fresh connections.
func (f *faultNet) block(addr string, on bool) {
	f.mu.Lock()
	f.blocked[addr] = on
	var cut []*faultConn
	for c := range f.conns {
		if c.addr == addr && !on {
			cut = append(cut, c) // it has lost bytes
		}
	}
	f.mu.Unlock()
	for _, c := range cut {
		_ = c.Conn.Close()
	}
}

// isolate cuts n off from all others, in both directions.
func isolate(n *testNode, rest []*testNode, on bool) {
	for _, o := range rest {
		n.net.block(o.ClusterAddr(), on)
		o.net.block(n.ClusterAddr(), on)
	}
}
