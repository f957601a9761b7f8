package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"quinto/fsm"
	"quinto/fsm/store"
)

const (
	shutdownWait  = 10 * time.Second // Shutdown without a deadline
	closeWait     = 10 * time.Second // Raft and its log, beyond that deadline: a disk may hang
	raftPoolConns = 3                // idle connections per peer on the raft channel
	identityTick  = 200 * time.Millisecond
)

// Node is this process's part in the cluster. Its methods may be called from
// any goroutine after Start.
type Node struct {
	cfg   Config
	log   hclog.Logger
	fsm   *fsm.FSM
	store *store.Store
	ident *identity
	addr  string // of the cluster port, as others reach it

	logs     *logStore
	stable   *stableStore
	closeLog func() error
	mux      *mux
	client   *client
	server   *server
	trans    *transport
	raft     *raft.Raft
	raftMade atomic.Pointer[raft.Raft] // the same, for Raft's own goroutines
	gossip   *gossip

	lead     *leadership
	prop     *proposer
	table    *peerTable
	pilot    pilot
	reads    rounds[uint64]
	confirms rounds[confirmed]
	health   *health
	handler  Handler
	joinMu   sync.Mutex
	differ   differences
	renewed  chan struct{} // new certificates are in force
	caughtUp atomic.Bool
	archived atomic.Uint64          // see Archived
	archives atomic.Bool            // this node does it
	helper   atomic.Pointer[string] // who had entries for the archive last
	waits    atomic.Pointer[string] // why this node is no member yet; nil: it need not wait
	started  time.Time

	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	runMu     sync.Mutex
	closed    bool
	closeOnce sync.Once
	closeErr  error
}

// Open takes the data directory, checks that it is whole, and listens on the
// cluster port; nothing runs before Start. The state machine and its store stay
// the caller's, who closes them after Shutdown. Errors: ErrConfig, ErrPlaintext,
// ErrOtherNode, ErrLogStore, ErrDamaged, or the system's.
func Open(cfg Config, f *fsm.FSM, st *store.Store) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Logger.Named("cluster"), fsm: f, store: st, lead: newLeadership(), health: newHealth(), table: newPeerTable(), renewed: make(chan struct{}, 1)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.prop = newProposer(n)
	n.reads.run, n.confirms.run = n.readRound, n.confirmRound
	var err error
	if n.ident, err = openIdentity(&n.cfg); err != nil {
		return nil, err
	}
	if n.logs, n.stable, n.closeLog, err = openLog(&n.cfg); err != nil {
		return nil, err
	}
	if n.cfg.ArchiveHoldBytes > 0 {
		n.logs.needed, n.logs.sizes.limit = n.neededByArchive, n.cfg.ArchiveHoldBytes
	}
	if err := n.checkState(); err != nil {
		return nil, errors.Join(err, n.closeLog())
	}
	if n.mux, err = newMux(&n.cfg); err != nil {
		return nil, errors.Join(err, n.closeLog())
	}
	n.addr = n.mux.ln.Addr().String()
	if !strings.HasSuffix(cfg.ClusterAddr, ":0") {
		n.addr = cfg.ClusterAddr // a name, perhaps, that outlives the address
	}
	return n, nil
}

// checkState refuses a directory whose parts do not belong together: each of
// them can be lost or put back alone, and Raft would not notice.
func (n *Node) checkState() error {
	meta, _ := n.store.SnapshotMeta()
	if err := n.logs.verify(meta.Index); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	existing, err := raft.HasExistingState(n.logs, n.stable, n.store.Snapshots())
	if err != nil {
		return fmt.Errorf("cluster: %w: %w", ErrDamaged, err)
	}
	d := n.ident.get()
	if d.Damaged != "" {
		return fmt.Errorf("cluster: %w: %s; `quinto cluster rebuild` gets it from the others", ErrDamaged, d.Damaged)
	}
	if !existing && d.Stage == stageMember {
		return fmt.Errorf("cluster: %w: the Raft log of a member is gone; empty the directory and join under a new name", ErrDamaged)
	}
	if err := n.checkTerm(&d); err != nil {
		return err
	}
	if err := n.logs.dropStale(meta); err != nil {
		return fmt.Errorf("cluster: %w: %w", ErrDamaged, err)
	}
	if d.Removed || n.removed(d.ID) {
		return fmt.Errorf("cluster: %w; empty the folder and join under a new name", ErrRemoved)
	}
	if d.Recovering && !n.cfg.Recover {
		return fmt.Errorf("cluster: %w: run `quinto cluster recover` again", ErrRecovering)
	}
	last, err := n.logs.LastIndex()
	if err != nil {
		return err
	}
	received, err := n.store.ReceivedUpTo()
	if err != nil {
		return fmt.Errorf("cluster: %w: %w", ErrDamaged, err)
	}
	// What came with a snapshot is committed, whether this node's log has it or not.
	if applied := n.store.Applied(); applied > max(last, meta.Index, received) {
		return fmt.Errorf("cluster: %w: the state is at entry %d, the Raft log ends at %d", ErrDamaged, applied, last)
	}
	if existing && d.Stage == stageNew {
		return fmt.Errorf("cluster: %w: a Raft log without an identity", ErrDamaged)
	}
	logged, err := n.logs.clusterID()
	if err != nil {
		return fmt.Errorf("cluster: %w: %w", ErrDamaged, err)
	}
	for _, id := range []string{n.fsm.ClusterID(), logged} {
		if id == "" || id == d.Cluster {
			continue
		}
		if d.Cluster != "" {
			return fmt.Errorf("cluster: %w: identity of %s, state or log of %s", ErrForeignCluster, d.Cluster, id)
		}
		d.Cluster = id
	}
	if existing {
		d.Stage = stageMember
	}
	if now := n.ident.get(); now.Stage == d.Stage && now.Cluster == d.Cluster {
		return nil
	}
	return n.ident.update(func(now *identityData) { *now = d })
}

// checkTerm refuses a member that does not know its term: it has forgotten its votes
// too, and the end of its log perhaps, even where its newest snapshot hides that.
func (n *Node) checkTerm(d *identityData) error {
	if d.Stage != stageMember || n.cfg.Memory {
		return nil
	}
	_, err := n.stable.GetUint64([]byte(raftTermKey))
	if errors.Is(err, errKeyNotFound) || err != nil && err.Error() == errKeyNotFound.Error() {
		err = errors.New("the Raft log of a member has no term; empty the directory and join under a new name")
	}
	if err != nil {
		return fmt.Errorf("cluster: %w: %w", ErrDamaged, err)
	}
	return nil
}

// Start runs Raft, gossip and the loops of the node. What takes time, such as
// finding the others, goes on in the background: see WaitReady and Failed.
func (n *Node) Start() error {
	n.started = time.Now()
	n.server = &server{ctx: n.ctx, member: n.isPeer, next: make(chan func()), handlers: map[callType]callHandler{
		callForward: n.serveForward, callReadIndex: n.serveReadIndex,
		callJoin: n.serveJoin, callStatus: n.serveStatus, callTerm: n.serveTerm,
		callPropose: n.servePropose, callSettings: n.serveSettings, callMember: n.serveChange, callMarks: n.serveMarks,
		callEntries: n.serveEntries,
	}}
	n.client = newClient(func(ctx context.Context, name, addr string) (net.Conn, error) {
		return n.mux.dial(ctx, channelRPC, name, addr)
	})
	d := n.ident.get()
	var err error
	n.gossip, err = openGossip(&n.cfg, peerMeta{
		ID: d.ID, Addr: n.addr, HTTP: n.cfg.HTTPAddr, Cluster: d.Cluster,
		Expect: uint64(n.cfg.Expect), Empty: d.Stage == stageNew,
	})
	if err != nil {
		return errors.Join(err, n.abandon())
	}
	// Raft dials as soon as it is made.
	n.mux.self, n.mux.admit, n.mux.serve, n.mux.gone = n.hello, n.admitPeer, n.server.serve, n.toldRemoved
	notify := make(chan bool, 16)
	if err := n.startRaft(notify); err != nil {
		return errors.Join(err, n.gossip.leave(), n.abandon())
	}
	n.mux.start()
	n.followFiles()
	n.watchLeadership(notify)
	for _, loop := range []func(){
		n.prop.run, n.observeLeader, n.leaderChores, n.snapshotLoop, n.watch, n.gossipLoop, n.identityLoop, n.catchUp, n.compareSettings,
		n.exchangeLoop, n.watchHeartbeats, n.compareLoop,
		func() { n.join(d.Stage) },
	} {
		n.goRun(loop)
	}
	return nil
}

// abandon undoes Open after a failed Start.
func (n *Node) abandon() error {
	n.cancel()
	n.closeOnce.Do(func() { n.closeErr = errors.Join(n.mux.close(), n.closeLog()) })
	return n.closeErr
}

func (n *Node) startRaft(notify chan<- bool) error {
	logger := raftLogger{n.cfg.Logger.Named("raft")}
	n.trans = &transport{NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                &raftLayer{m: n.mux, addr: n.addr},
		ServerAddressProvider: addressProvider{n},
		MaxPool:               raftPoolConns,
		// 1 turns pipelining off, which can wedge: a follower that hears
		// heartbeats and never gets an entry again.
		MaxRPCsInFlight: 1,
		Timeout:         n.cfg.RaftTimeout,
		Logger:          logger,
	})}
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.cfg.Name)
	c.HeartbeatTimeout, c.ElectionTimeout = n.cfg.HeartbeatTimeout, n.cfg.ElectionTimeout
	c.LeaderLeaseTimeout, c.CommitTimeout = n.cfg.LeaderLease, n.cfg.CommitTimeout
	c.MaxAppendEntries = MaxAppendEntries
	c.SnapshotThreshold, c.TrailingLogs = n.cfg.SnapshotEntries, n.cfg.TrailingEntries
	c.NoSnapshotRestoreOnStart = true // the store is the newest snapshot, and proves it
	c.NoLegacyTelemetry = true
	c.NotifyCh = notify
	c.Logger = logger
	r, err := raft.NewRaft(c, n.fsm, n.logs, n.stable, n.store.Snapshots(), n.muted())
	if err != nil {
		return errors.Join(fmt.Errorf("cluster: raft: %w", err), n.trans.Close())
	}
	n.raft = r
	n.raftMade.Store(r)
	return nil
}

// addressProvider gives Raft the present address of a name.
type addressProvider struct{ n *Node }

// ServerAddr is raft.ServerAddressProvider's.
func (p addressProvider) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	addr := ""
	if r := p.n.raftMade.Load(); r != nil && string(id) != p.n.cfg.Name {
		for _, s := range r.GetConfiguration().Configuration().Servers {
			if s.ID == id {
				addr = string(s.Address)
			}
		}
	}
	if addr = p.n.peerAddr(string(id), addr); addr == "" {
		return "", fmt.Errorf("cluster: no address of %q", id)
	}
	return raftAddress(string(id), addr), nil
}

// peerAddr returns the address of the cluster port of name: what gossip hears
// now, else fallback, which may carry a name before an "@".
func (n *Node) peerAddr(name, fallback string) string {
	if name == n.cfg.Name {
		return n.addr
	}
	if p, ok := n.gossip.peer(name); ok {
		return p.Addr
	}
	_, addr, ok := strings.Cut(fallback, "@")
	if !ok {
		addr = fallback
	}
	return addr
}

// goRun runs f in a goroutine that Shutdown waits for.
func (n *Node) goRun(f func()) {
	n.runMu.Lock()
	defer n.runMu.Unlock()
	if !n.closed {
		n.wg.Go(f)
	}
}

// Name returns the node's name.
func (n *Node) Name() string { return n.cfg.Name }

// ClusterAddr returns host:port of the cluster port.
func (n *Node) ClusterAddr() string { return n.addr }

// GossipAddr returns host:port to join through, "" without gossip.
func (n *Node) GossipAddr() string { return n.gossip.addr }

// Now returns the clock that entries carry, in ms.
func (n *Node) Now() fsm.Timestamp { return fsm.Timestamp(n.cfg.Now().UnixMilli()) }

func (n *Node) clusterID() string {
	if id := n.fsm.ClusterID(); id != "" {
		return id
	}
	return n.ident.get().Cluster
}

func (n *Node) servers() []raft.Server { return n.raft.GetConfiguration().Configuration().Servers }

func (n *Node) isMember(name string) bool {
	for _, s := range n.servers() {
		if string(s.ID) == name {
			return true
		}
	}
	return false
}

func (n *Node) voters() int {
	count := 0
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			count++
		}
	}
	return count
}

// WaitReady returns when this node serves linearizable reads, with ctx's error,
// or with the reason why it never will (ErrNameTaken, ErrForeignCluster…).
func (n *Node) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(retryMin)
	defer tick.Stop()
	for {
		err := n.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-n.health.failed:
			return n.health.fault()
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// Shutdown hands leadership over, lets calls end, leaves gossip and stops; ctx
// bounds the friendly part. Store and state machine are then the caller's to
// close. A second call returns what the first did. A node that was never started
// only gives its files and port free.
func (n *Node) Shutdown(ctx context.Context) error {
	if n.raft == nil {
		return n.abandon()
	}
	n.closeOnce.Do(func() { n.closeErr = n.shutdown(ctx) })
	return n.closeErr
}

func (n *Node) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownWait)
	defer cancel()
	if err := n.TransferLeadership("shutdown"); err != nil && !errors.Is(err, fsm.ErrNotLeader) && !errors.Is(err, fsm.ErrNoLeader) {
		n.log.Warn("stopping as leader", "error", err)
	}
	n.prop.close()
	n.server.drain(ctx)
	errs := []error{n.gossip.leave()}
	n.runMu.Lock()
	n.closed = true
	n.runMu.Unlock()
	n.cancel()
	n.client.close()
	n.mux.sever(true) // Raft's own goroutines wait on these connections
	// Before Raft stops: it leaves some futures without an answer when it does.
	n.await(ctx, func() {
		n.wg.Wait()
		n.prop.wg.Wait()
		n.reads.close()
		n.confirms.close()
	})
	stopped := make(chan error, 1)
	closing, end := context.WithTimeout(context.Background(), closeWait)
	defer end()
	n.await(closing, func() {
		errs := []error{n.raft.Shutdown().Error(), n.mux.close()}
		n.server.wg.Wait()
		n.trans.refuseHeartbeats()
		stopped <- errors.Join(append(errs, n.closeLog())...)
	})
	select {
	case err := <-stopped:
		errs = append(errs, err)
	default: // a hung disk: the end of the process closes the rest
		errs = append(errs, errHung)
	}
	return errors.Join(errs...)
}

var errHung = errors.New("cluster: stopped without closing the log: the disk does not answer")

// await runs f, but not beyond ctx: a hung disk must not hang the exit.
func (n *Node) await(ctx context.Context, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		n.log.Warn("stopped without waiting for all work")
	}
}
