package cluster

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"quinto/internal/certs"
)

// Limits of what a node keeps or accepts; passing one is an error with a name,
// never unbounded memory.
const (
	MaxMembers       = 16       // nodes of one cluster
	MaxNameBytes     = 63       // of a node's name, as in DNS labels
	MaxAddrBytes     = 128      // of an address, so that gossip metadata fits
	MaxConns         = 512      // inbound connections on the cluster port
	MaxCallBytes     = 8 << 20  // one call or answer between nodes
	MaxCalls         = 4096     // calls served at a time
	MaxCallsBytes    = 96 << 20 // of the requests of calls served at a time
	MaxQueued        = 8192     // transactions waiting for the proposer, unless configured
	MaxQueuedBytes   = 64 << 20
	MaxPendingCalls  = 8192     // calls of this node that wait for one peer's answer
	MaxWaitingReads  = 16384    // reads of this node that wait for the leader's word
	MaxAppendEntries = 32       // × the largest group (512 KiB) = 16 MiB per Raft message
	LogCacheBytes    = 32 << 20 // entries kept in memory for followers
)

// Times that are not settings.
const (
	leaderWait      = 2 * time.Second        // how long reads and forwards wait for a leader
	preambleTimeout = 5 * time.Second        // a connection must say who it is
	frameTimeout    = 30 * time.Second       // from the first byte of a frame to its last
	dialTimeout     = 2 * time.Second        // TCP and preamble
	statusTimeout   = time.Second            // one member's answer to a status call
	quorumPatience  = 3 * time.Second        // for a majority to answer before a vote is taken away
	callTimeout     = 5 * time.Second        // read index, join
	enqueueTimeout  = 2 * time.Second        // Raft must take a proposal
	retryMin        = 10 * time.Millisecond  // first pause before another try at the leader
	retryMax        = 150 * time.Millisecond // longest
	formTick        = 150 * time.Millisecond // pace of bootstrap and join
	rejoinInterval  = 5 * time.Second        // gossip seeds are joined again: memberlist does not heal
	leaveTimeout    = 500 * time.Millisecond
	spaceInterval   = time.Second      // free space is looked at
	changeTimeout   = 30 * time.Second // a change of membership, with a handover before it
)

// Config says who a node is and how it works. The zero value of everything but
// Name and, unless Memory, DataDir is usable.
type Config struct {
	// Name identifies the node in the cluster, for ever.
	Name string
	// DataDir holds the node's identity and its Raft log.
	DataDir string
	// Memory keeps the log in memory: for a single node only.
	Memory bool
	// LogStore is the library that keeps the log, LogBolt or LogWAL; empty: LogBolt.
	// A directory keeps the one it was made with.
	LogStore string
	// ClusterAddr is host:port of the cluster port; empty: any free loopback
	// port, which only a single node can do with.
	ClusterAddr string
	// GossipAddr is host:port of gossip (UDP and TCP); empty: no gossip.
	GossipAddr string
	// HTTPAddr is host:port of the public API, as others show it.
	HTTPAddr string
	// Join lists gossip addresses of nodes to find the cluster through.
	Join []string
	// Expect is how many empty nodes form a new cluster. Without Expect and Join
	// the node bootstraps itself alone.
	Expect int

	// TLS is what the node proves itself with on the cluster port, where all others
	// must then do the same; nil: plaintext. Its certificate has to be Name's.
	TLS *certs.Store
	// GossipKeys encrypt gossip; nil: plaintext.
	GossipKeys *certs.KeyStore
	// GossipLabel keeps the gossip of several clusters apart; the same on all nodes.
	GossipLabel string
	// SettingMarks returns a mark of each setting that changes answers, by its name,
	// keyed by the cluster id, to compare with the leader's under TLS; nil: nothing is compared.
	SettingMarks func(key []byte) map[string][]byte
	// InsecurePlaintext lets addresses lie off loopback without TLS and GossipKeys.
	InsecurePlaintext bool
	// Listen and Dial make connections below TLS; nil: plain TCP.
	Listen func(addr string) (net.Listener, error)
	Dial   func(ctx context.Context, addr string) (net.Conn, error)

	// Raft's times; see raft.Config. CommitTimeout bounds, twice over, how late a
	// follower learns of a commit when nothing else is written.
	HeartbeatTimeout, ElectionTimeout, LeaderLease, CommitTimeout time.Duration
	// RaftTimeout bounds one Raft message, unless it is a snapshot.
	RaftTimeout time.Duration
	// ForwardTimeout bounds a forwarded request, ApplyTimeout a proposal.
	ForwardTimeout, ApplyTimeout time.Duration
	// PromoteAfter is how long a new node must keep up before it may vote.
	PromoteAfter time.Duration
	// CompareInterval is how often the state is compared with the other voters'; 0:
	// DefaultCompareInterval.
	CompareInterval time.Duration
	// StallTimeout is how long a log append or commit may be pending on the
	// leader before it gives up its peers, so that they elect another. StallExit is
	// how long it may be pending before the node is out of service for good.
	StallTimeout, StallExit time.Duration

	// ExchangeInterval is how often nodes ask each other how they are.
	ExchangeInterval time.Duration
	// StuckAfter is how long a follower that answers may get no entry of the log
	// that it lacks before the leader raises an alarm and connects anew.
	StuckAfter time.Duration
	// ClockWarn is the difference of two clocks that is logged and shown. A node
	// whose clock is further than ClockMax from those of a majority does not lead.
	ClockWarn, ClockMax time.Duration
	// RemoveDead lets the leader remove members by itself: one at a time, that have
	// not answered for DeadAfter, as long as MinVoters voters are left.
	RemoveDead bool
	DeadAfter  time.Duration
	MinVoters  int
	// Recover opens a data directory whose recovery was begun; see Node.Recover.
	Recover bool

	// A snapshot is taken after SnapshotBytes or SnapshotEntries of log. Behind
	// it at most TrailingEntries, about TrailingBytes, are kept for followers.
	SnapshotBytes, TrailingBytes     int64
	SnapshotEntries, TrailingEntries uint64
	SnapshotInterval                 time.Duration // how often that is looked at

	// ArchiveHoldBytes is about how much of the log stays for an archive that lags; 0:
	// the log is not archived.
	ArchiveHoldBytes int64

	// PendingWrites bounds the transactions that wait for the log; one more is
	// fsm.ErrOverloaded. MaxQueued when 0.
	PendingWrites int
	// InFlight is how many proposals may be under way at a time.
	InFlight int
	// MinFreeBytes of disk must stay free, else writes are refused; negative: off.
	MinFreeBytes int64
	// FreeBytes measures free space; nil: the file system of DataDir.
	FreeBytes func() (uint64, error)
	// Events carries the store's events to the node's watchdog; nil: none.
	Events *StoreEvents

	// Now is the clock of entries; nil: time.Now.
	Now func() time.Time
	// Logger; nil: silent.
	Logger hclog.Logger
	// WrapLog lets a test put faults under the log; nil: none.
	WrapLog func(raft.LogStore) raft.LogStore
	// OpenLog gives a simulation's log and stable store, and what closes them, in place
	// of files in DataDir; nil: those.
	OpenLog func() (raft.LogStore, raft.StableStore, func() error, error)
	// GossipTransport carries gossip in a simulation; nil: the network.
	GossipTransport memberlist.Transport
}

func orDuration(v *time.Duration, d time.Duration) {
	if *v == 0 {
		*v = d
	}
}

func (c Config) withDefaults() Config {
	orDuration(&c.HeartbeatTimeout, 750*time.Millisecond)
	orDuration(&c.ElectionTimeout, c.HeartbeatTimeout)
	orDuration(&c.LeaderLease, c.HeartbeatTimeout/2)
	orDuration(&c.CommitTimeout, 10*time.Millisecond)
	orDuration(&c.RaftTimeout, 5*time.Second)
	orDuration(&c.ForwardTimeout, 10*time.Second)
	orDuration(&c.ApplyTimeout, 8*time.Second)
	orDuration(&c.PromoteAfter, 5*time.Second)
	orDuration(&c.StallTimeout, 4*time.Second) // and a tick, and the others' election
	orDuration(&c.StallExit, time.Minute)
	orDuration(&c.ExchangeInterval, time.Second)
	orDuration(&c.StuckAfter, 10*time.Second)
	orDuration(&c.ClockWarn, 5*time.Second)
	orDuration(&c.ClockMax, time.Minute)
	orDuration(&c.DeadAfter, 24*time.Hour)
	c.MinVoters = max(c.MinVoters, leastVoters)
	orDuration(&c.CompareInterval, DefaultCompareInterval)
	orDuration(&c.SnapshotInterval, time.Second)
	c.SnapshotBytes = max(c.SnapshotBytes, 0)
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 16 << 20
	}
	if c.TrailingBytes == 0 {
		c.TrailingBytes = 96 << 20
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 32768
	}
	if c.TrailingEntries == 0 {
		c.TrailingEntries = 16384
	}
	if c.MinFreeBytes == 0 {
		c.MinFreeBytes = 64 << 20
	}
	c.InFlight = max(c.InFlight, 1)
	if c.PendingWrites == 0 {
		c.PendingWrites = MaxQueued
	}
	return c.withFunctions()
}

func (c Config) withFunctions() Config {
	if c.Listen == nil {
		c.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	if c.Dial == nil {
		var d net.Dialer
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Events == nil {
		c.Events = new(StoreEvents)
	}
	if c.WrapLog == nil {
		c.WrapLog = func(s raft.LogStore) raft.LogStore { return s }
	}
	if c.ClusterAddr == "" {
		c.ClusterAddr = "127.0.0.1:0"
	}
	return c
}

// No "@" or "/": names stand in addresses of the transport and in settings.
var nameFormat = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// alone reports whether the node bootstraps itself without asking anybody.
func (c *Config) alone() bool { return len(c.Join) == 0 && c.Expect <= 1 }

func (c *Config) validate() error {
	if !nameFormat.MatchString(c.Name) || len(c.Name) > MaxNameBytes {
		return fmt.Errorf("%w: node name %q: letters, digits, '.', '_' and '-', at most %d", ErrConfig, c.Name, MaxNameBytes)
	}
	if c.Expect > MaxMembers || c.Expect < 0 {
		return fmt.Errorf("%w: expect %d: at most %d nodes", ErrConfig, c.Expect, MaxMembers)
	}
	if c.Memory && !c.alone() {
		return fmt.Errorf("%w: the memory backend is for a single node: it forgets its vote when it restarts", ErrConfig)
	}
	if c.LogStore != "" && c.LogStore != LogBolt && c.LogStore != LogWAL {
		return fmt.Errorf("%w: log store %q: %s or %s", ErrConfig, c.LogStore, LogBolt, LogWAL)
	}
	if !c.Memory && c.DataDir == "" {
		return fmt.Errorf("%w: no data directory", ErrConfig)
	}
	if !c.alone() && c.GossipAddr == "" {
		return fmt.Errorf("%w: join and expect need a gossip address", ErrConfig)
	}
	for _, a := range append([]string{c.ClusterAddr, c.GossipAddr}, c.Join...) {
		if a == "" {
			continue
		}
		if err := c.checkAddr(a); err != nil {
			return err
		}
	}
	if len(c.HTTPAddr) > MaxAddrBytes {
		return fmt.Errorf("%w: address of %d bytes", ErrConfig, len(c.HTTPAddr))
	}
	return nil
}

// checkAddr refuses what is no host:port that others can reach and, unless the wires
// are secure, what lies off loopback: the ports then trust whoever can reach them.
func (c *Config) checkAddr(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || len(addr) > MaxAddrBytes {
		return fmt.Errorf("%w: address %q is not host:port", ErrConfig, addr)
	}
	ip := net.ParseIP(host)
	if host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	if !c.InsecurePlaintext && (c.TLS == nil || c.GossipAddr != "" && c.GossipKeys == nil) {
		return fmt.Errorf("%w: %q", ErrPlaintext, addr)
	}
	if host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%w: address %q: other nodes need one that they can reach", ErrConfig, addr)
	}
	return nil
}
