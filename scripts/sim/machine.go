package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"quinto/api/auth"
	"quinto/api/resource"
	"quinto/cluster"
	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/internal/clients"
	"quinto/internal/config"
	"quinto/plugins"
	"quinto/plugins/dispatch"
)

// Times of the nodes, a fifth or less of those that are shipped.
const (
	heartbeat   = 250 * time.Millisecond
	stopWait    = 3 * time.Second
	memTable    = 256 << 10
	cacheBytes  = 2 << 20
	snapshotAt  = 60 // entries
	trailing    = 30
	identityDir = "node"
)

// machine is a simulated computer: it has a disk, a clock and addresses, and runs a
// node, or none.
type machine struct {
	w       *world
	name    string
	addr    string
	gossip  string
	disk    *disk
	factor  float64      // how slow its timers are
	skew    atomic.Int64 // of its clock, nanoseconds
	drift   float64      // of its clock
	joining bool         // came after the cluster was founded

	mu      sync.Mutex
	boots   int
	process *process      // nil: down
	thawed  chan struct{} // not nil: frozen, until it is closed
	removed bool          // no member any more, by the operator's wish
	busy    bool          // a fault is at work on it
	crashAt string        // point of the store
}

// process is one life of a node.
type process struct {
	m          *machine
	dead       chan struct{} // closed: nothing of it may be seen any more
	node       *cluster.Node
	state      *fsm.FSM
	store      *store.Store
	service    *resource.Service
	dispatcher *dispatch.Dispatcher
}

// now is the machine's clock.
func (m *machine) now() time.Time {
	gone := time.Since(m.w.start)
	return time.Now().Add(time.Duration(m.skew.Load()) + time.Duration(float64(gone)*m.drift))
}

// running is the present process, or nil.
func (m *machine) running() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process
}

func (m *machine) dir() string { return filepath.Join(m.w.dir, fmt.Sprintf("%s.%d", m.name, m.boots)) }

// boot starts a node on what the disk holds.
func (m *machine) boot() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil || m.removed {
		return nil
	}
	p := &process{m: m, dead: make(chan struct{})}
	if err := p.open(); err != nil {
		return fmt.Errorf("%s does not start: %w", m.name, err)
	}
	m.process = p
	go m.supervise(p)
	return nil
}

func (p *process) open() (err error) {
	m, events := p.m, new(cluster.StoreEvents)
	p.store, err = store.Open(store.Options{FS: m.disk.files(p.dead), Dir: "db", CacheBytes: cacheBytes, MemTableBytes: memTable, FlushTimeout: 2 * time.Second,
		OnEvent: events.On, Prepare: fsm.CheckReceived, Crash: p.crashPoint})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.store.Close())
		}
	}()
	if p.state, err = fsm.Open(p.store); err != nil {
		return err
	}
	c, err := m.config(p, events)
	if err != nil {
		return err
	}
	if p.node, err = cluster.Open(c, p.state, p.store); err != nil {
		return err
	}
	if err = p.wire(); err != nil {
		return errors.Join(err, p.node.Shutdown(context.Background()))
	}
	if err = p.node.Start(); err != nil {
		return err
	}
	p.dispatcher.Start()
	return nil
}

func (m *machine) config(p *process, events *cluster.StoreEvents) (cluster.Config, error) {
	gossip, err := m.w.net.gossip(m.name, m.gossip, p.dead)
	if err != nil {
		return cluster.Config{}, err
	}
	slow := func(d time.Duration) time.Duration { return time.Duration(float64(d) * m.factor) }
	f := m.disk.log
	c := cluster.Config{
		Name: m.name, DataDir: m.dir(), ClusterAddr: m.addr, GossipAddr: m.gossip, Join: m.w.seeds(), Expect: m.w.plan.Nodes,
		HeartbeatTimeout: slow(heartbeat), ElectionTimeout: slow(heartbeat), LeaderLease: slow(heartbeat), RaftTimeout: time.Second,
		ForwardTimeout: 4 * time.Second, ApplyTimeout: 3 * time.Second, PromoteAfter: 200 * time.Millisecond,
		StallTimeout: time.Second, ExchangeInterval: 300 * time.Millisecond, StuckAfter: 3 * time.Second,
		SnapshotInterval: 100 * time.Millisecond, SnapshotEntries: snapshotAt, TrailingEntries: trailing,
		FreeBytes: m.disk.free, Events: events, Now: m.now, GossipTransport: gossip,
		Logger: hclog.New(&hclog.LoggerOptions{Name: m.name, Level: hclog.Info, Output: m.w.log, TimeFormat: "05.000"}),
		OpenLog: func() (raft.LogStore, raft.StableStore, func() error, error) {
			l := raftLog{m.disk, f}
			return l, l, func() error { return nil }, nil
		},
		Listen: func(addr string) (net.Listener, error) { return m.w.net.listen(addr) },
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			select {
			case <-p.dead:
				return nil, errDead
			default:
				return m.w.net.dial(ctx, m.name, addr, false)
			}
		},
	}
	if m.joining {
		c.Expect = 0
	}
	return c, nil
}

// wire makes what stands above the cluster.
func (p *process) wire() error {
	c, err := config.Load(config.Options{})
	if err != nil {
		return err
	}
	p.service, err = resource.New(resource.Options{Config: c, Node: p.node, Authenticators: []plugins.Authenticator{auth.NewBasic("basicauth", "secret of the simulation")}})
	if err != nil {
		return err
	}
	p.node.Handle(p.service.Serve)
	p.dispatcher, err = dispatch.New(dispatch.Options{Leader: p.node, State: p.state, Notifiers: []plugins.Notifier{&hook{p}},
		CursorInterval: 200 * time.Millisecond, Grace: 200 * time.Millisecond,
		HandOver: func(reason string) error { return p.node.TransferLeadership(reason) }})
	return err
}

// crashPoint ends the process at a point that a fault has named.
func (p *process) crashPoint(point string) {
	m := p.m
	m.mu.Lock()
	meant := m.process == p && m.crashAt == point
	if meant {
		m.crashAt = ""
		m.w.say("%s crashes at %s", m.name, point)
		m.die(p)
	}
	m.mu.Unlock()
}

// supervise restarts a node that gave up, as a service manager does.
func (m *machine) supervise(p *process) {
	var err error
	select {
	case <-p.dead:
		return
	case <-p.node.Failed():
		err = p.node.Err()
	case <-p.state.Halted():
		err = p.state.HaltError()
	}
	m.w.say("%s is out of service: %v", m.name, err)
	if (errors.Is(err, cluster.ErrRemoved) || errors.Is(err, cluster.ErrNameTaken)) && m.w.mayLose(m.name) {
		m.retire()
		return
	}
	if !m.w.plan.disks() {
		m.w.fail(fmt.Errorf("%s is out of service: %w", m.name, err))
	}
	m.crash()
	if !m.w.wait(300 * time.Millisecond) {
		return
	}
	if err := m.boot(); err != nil {
		m.w.fail(err)
	}
}

// crash ends the process and loses what was not synced.
func (m *machine) crash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil {
		m.die(m.process)
	}
}

// die ends process p in the sight of all others at once; what is left of it is cleaned
// up aside. Under mu.
func (m *machine) die(p *process) {
	m.process = nil
	m.w.net.fell(m.name)
	close(p.dead)
	m.disk.crash()
	m.thaw()
	m.nextDir()
	go p.end()
}

// nextDir gives the next boot a copy of the identity, which the old process may still
// write to; the file is synced and renamed, so it is whole.
func (m *machine) nextDir() {
	old := m.dir()
	m.boots++
	raw, err := os.ReadFile(filepath.Join(old, identityDir))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		err = os.MkdirAll(m.dir(), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir(), identityDir), raw, 0o600)
	}
	if err != nil {
		m.w.fail(err)
	}
}

// end frees what a process held. Nobody sees it any more, so how it goes is all one.
func (p *process) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	p.dispatcher.Close()
	_ = p.node.Shutdown(ctx)
	_ = p.store.Close()
}

// stop ends the node in order, as SIGTERM does: nothing is lost. Not under mu: what
// ends asks for it.
func (m *machine) stop() error {
	p := m.running()
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	p.dispatcher.Close()
	err := p.node.Shutdown(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != p { // it gave up meanwhile
		return err
	}
	m.process = nil
	close(p.dead)
	m.w.net.fell(m.name)
	return errors.Join(err, p.store.Flush(), p.store.Close())
}

// wipe gives the machine, which is down, a new disk.
func (m *machine) wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disk = newDisk(m.w.plan.Seed, uint64(len(m.name)+1000*m.boots), m.w.plan.Sync)
	m.boots++
}

// retire ends a node that was removed from the cluster.
func (m *machine) retire() {
	m.mu.Lock()
	m.removed = true
	m.mu.Unlock()
	m.crash()
}

// freeze stops a node as SIGSTOP does, as far as that can be had in one process: it
// neither sends nor takes anything, its disk takes nothing, and no client hears of it.
func (m *machine) freeze() (thaw func()) {
	release := m.disk.hangs()
	m.w.net.freeze(m.name, true)
	m.mu.Lock()
	m.thawed = make(chan struct{})
	m.mu.Unlock()
	return func() {
		release()
		m.w.net.freeze(m.name, false)
		m.mu.Lock()
		m.thaw()
		m.mu.Unlock()
	}
}

// thaw lets clients go on; under mu.
func (m *machine) thaw() {
	if m.thawed != nil {
		close(m.thawed)
		m.thawed = nil
	}
}

// awake waits while the machine is frozen; an error when its process has ended or the
// client waits no longer.
func (p *process) awake(ctx context.Context) error {
	p.m.mu.Lock()
	thawed := p.m.thawed
	p.m.mu.Unlock()
	if thawed == nil {
		thawed = closed
	}
	select {
	case <-p.dead:
		return errDead
	default:
	}
	select {
	case <-thawed:
		return nil
	case <-p.dead:
		return errDead
	case <-ctx.Done():
		return ctx.Err()
	}
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Name implements clients.Node.
func (m *machine) Name() string { return m.name }

// Send implements clients.Node. The HTTP port is left out: the request goes to what
// decides it, with what the port would have made of it.
func (m *machine) Send(ctx context.Context, r *clients.Request) clients.Answer {
	p := m.running()
	if p == nil {
		return clients.Answer{Err: syscall.ECONNREFUSED}
	}
	if err := p.awake(ctx); err != nil {
		return clients.Answer{Err: err, Sent: true}
	}
	path, query, _ := strings.Cut(r.Path, "?")
	q := &resource.Request{ID: make([]byte, 16), Method: r.Method, Path: path, Query: query, Body: r.Body, Scheme: "http", Host: m.name, Prefix: "/v1", Client: "127.0.0.1",
		Header: resource.Header{"authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(r.User+":"+r.User))}}
	rand.Read(q.ID) // never fails
	if len(r.Body) > 0 {
		q.Header["content-type"] = "application/json"
	}
	for k, v := range r.Header {
		q.Header[strings.ToLower(k)] = v
	}
	done := make(chan *resource.Response, 1)
	go func() {
		// The port does not notice that a client has gone.
		ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
		defer cancel()
		done <- p.service.Do(ctx, q)
	}()
	select {
	case resp := <-done:
		if err := p.awake(ctx); err != nil {
			return clients.Answer{Err: err, Sent: true}
		}
		return clients.NewAnswer(resp.Status, resp.Get, resp.Body)
	case <-p.dead:
		return clients.Answer{Err: errDead, Sent: true}
	case <-ctx.Done():
		return clients.Answer{Err: ctx.Err(), Sent: true}
	}
}

const requestLimit = 10 * time.Second
