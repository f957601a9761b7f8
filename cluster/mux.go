package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
	"quinto/internal/certs"
)

// A connection on the cluster port begins with: magic (4), version (1), channel
// (1), length of the hello (2), hello, CRC-32C of all before (4). The other side
// answers one byte, welcome or why not, before anything else is read.
const (
	preambleMagic   = "QNTO"
	preambleVersion = 1
	preambleHead    = 4 + 1 + 1 + 2
	maxHelloBytes   = 1024
)

// channel says what a connection carries. Numbers are for ever.
type channel byte

const (
	channelRaft channel = 1
	channelRPC  channel = 2
)

// Answers to a preamble. Numbers are for ever.
const (
	welcome          byte = 0
	refuseVersion    byte = 1
	refuseCluster    byte = 2 // foreign cluster or bootstrap configuration
	refuseMisrouted  byte = 3 // the address belongs to another node now
	refuseNotMember  byte = 4 // the receiver takes part in no cluster yet
	refuseOutService byte = 5
	refuseName       byte = 6 // the certificate is of another node than the hello says
	refuseStranger   byte = 7 // a good certificate, but no member's
	refuseRemoved    byte = 8 // the dialler was removed from the cluster
)

// MaxGreeting bounds the accepted connections that have not said yet who they are.
// Beyond it the oldest goes: strangers who say nothing never keep a member out.
const MaxGreeting = 2048

var refusals = map[byte]error{
	refuseVersion:    errors.New("peer speaks another version"),
	refuseCluster:    ErrForeignCluster,
	refuseMisrouted:  errors.New("address belongs to another node"),
	refuseNotMember:  errors.New("peer has not joined yet"),
	refuseOutService: errors.New("peer is out of service"),
	refuseName:       errors.New("certificate of another node"),
	refuseStranger:   errors.New("not a member"),
	refuseRemoved:    ErrRemoved,
}

// hello is who a connection comes from and goes to.
type hello struct {
	Cluster  string // "" until known
	Founders uint64 // hash of the bootstrap configuration; 0: none
	From, ID string // name and node id of the dialler
	To       string // name of the node meant
	Proven   bool   // a certificate says that it is From; not in the encoding
}

// errTooMany: MaxConns that have said who they are.
var errTooMany = errors.New("too many connections")

// errSpeaksTLS: a handshake came where a preamble should.
var errSpeaksTLS = errors.New("the other side speaks TLS")

// tlsRecord is the first byte of a TLS handshake.
const tlsRecord = 0x16

func encodePreamble(ch channel, h *hello) []byte {
	body := appendString(nil, h.Cluster)
	body = binary.AppendUvarint(body, h.Founders)
	body = appendString(appendString(appendString(body, h.From), h.ID), h.To)
	b := append([]byte(preambleMagic), preambleVersion, byte(ch))
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readPreamble reads no byte beyond the preamble. The magic is looked at before
// more is read: HTTP, TLS and noise end there.
func readPreamble(r io.Reader) (channel, *hello, error) {
	head := make([]byte, preambleHead, preambleHead+maxHelloBytes+4)
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return 0, nil, err
	}
	if head[0] == tlsRecord {
		return 0, nil, errSpeaksTLS
	}
	if string(head[:4]) != preambleMagic {
		return 0, nil, fmt.Errorf("%w: no preamble", fsm.ErrCorrupt)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[6:]))
	if n > maxHelloBytes {
		return 0, nil, fmt.Errorf("%w: preamble of %d bytes", fsm.ErrCorrupt, n)
	}
	all := head[:preambleHead+n+4]
	if _, err := io.ReadFull(r, all[preambleHead:]); err != nil {
		return 0, nil, err
	}
	body := all[:len(all)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(all[len(body):]) {
		return 0, nil, fmt.Errorf("%w: checksum of a preamble", fsm.ErrCorrupt)
	}
	if all[4] != preambleVersion {
		return 0, nil, fmt.Errorf("%w: preamble %d", fsm.ErrUnknownType, all[4])
	}
	d := decoder{b: body[preambleHead:]}
	h := &hello{Cluster: d.string(), Founders: d.uint(), From: d.string(), ID: d.string(), To: d.string()}
	return channel(all[5]), h, d.err
}

// mux is the one TCP port: it makes, accepts and checks connections, and can
// cut them all at once.
type mux struct {
	cfg   *Config
	self  func(to string) *hello           // what this node says of itself
	admit func(ch channel, h *hello) byte  // welcome or a refusal
	serve func(conn net.Conn, peer *hello) // the rpc channel
	gone  func(peer string)                // a peer says that this node was removed; nil: ignored
	ln    net.Listener
	raft  chan net.Conn // accepted on the raft channel

	wg     sync.WaitGroup
	closed chan struct{}

	gate        *certs.Gate // of handshakes
	refused     refusalLog
	maxGreeting int

	mu       sync.Mutex
	conns    map[*muxConn]struct{}
	greeting []*muxConn // accepted, have not said yet who they are; the oldest first
	inbound  int        // accepted, and have said it
	severed  bool
	shutdown bool
}

// muxConn is a connection that the mux can cut.
type muxConn struct {
	net.Conn
	raw     net.Conn // below TLS
	m       *mux
	inbound bool
	counted bool                       // in m.inbound
	peer    atomic.Pointer[provenPeer] // once it has been greeted under TLS
	peerID  string                     // id of the dialler, once greeted; under m.mu
	once    sync.Once
}

// Close closes the connection once. It does not say goodbye in TLS, which could
// block: messages carry their lengths, so none is taken for whole that was cut.
func (c *muxConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		c.m.mu.Lock()
		delete(c.m.conns, c)
		if c.counted {
			c.m.inbound--
		}
		c.m.mu.Unlock()
		err = c.raw.Close()
	})
	return err
}

func newMux(cfg *Config) (*mux, error) {
	ln, err := cfg.Listen(cfg.ClusterAddr)
	if err != nil {
		return nil, fmt.Errorf("cluster: listen on %q: %w", cfg.ClusterAddr, err)
	}
	return &mux{cfg: cfg, ln: ln, gate: certs.NewGate(), maxGreeting: MaxGreeting, raft: make(chan net.Conn), closed: make(chan struct{}), conns: map[*muxConn]struct{}{}}, nil
}

// start begins to accept; self, admit and serve must be set.
func (m *mux) start() {
	m.wg.Go(m.acceptLoop)
}

func (m *mux) acceptLoop() {
	for {
		conn, err := m.ln.Accept()
		if err != nil {
			select {
			case <-m.closed:
				return
			case <-time.After(retryMax): // out of descriptors, as a rule
				continue
			}
		}
		if c := m.track(conn, m.serverSide(conn), true); c != nil {
			m.wg.Go(func() { m.greet(c) })
		}
	}
}

// track registers a connection, or closes it when the node is cut off or full.
func (m *mux) track(raw, conn net.Conn, inbound bool) *muxConn {
	c := &muxConn{Conn: conn, raw: raw, m: m, inbound: inbound}
	var oldest *muxConn
	m.mu.Lock()
	ok := !m.severed && !m.shutdown
	if ok {
		m.conns[c] = struct{}{}
		if inbound {
			if m.greeting = append(m.greeting, c); len(m.greeting) > m.maxGreeting {
				oldest = m.greeting[0]
				m.greeting = m.greeting[1:]
			}
		}
	}
	m.mu.Unlock()
	if oldest != nil {
		m.refused.say(m.cfg.Logger, "too many that say nothing", oldest.RemoteAddr(), "", nil)
		_ = oldest.Close()
	}
	if !ok {
		_ = raw.Close() // refused: nobody reads an error
		return nil
	}
	return c
}

// greeted takes c from those that have not said who they are. If it is known now, it
// has to be among the MaxConns.
func (m *mux) greeted(c *muxConn, known bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.greeting, c); i >= 0 {
		m.greeting = slices.Delete(m.greeting, i, i+1)
	}
	if _, open := m.conns[c]; !known || !open {
		return nil // closed meanwhile, or soon
	}
	if m.inbound >= MaxConns {
		return errTooMany
	}
	m.inbound++
	c.counted = true
	return nil
}

// greet checks certificate and preamble of an accepted connection and hands it on.
func (m *mux) greet(c *muxConn) {
	_ = c.SetDeadline(time.Now().Add(preambleTimeout)) // a dead connection shows in the read
	ch, h, err := m.introduce(c)
	if full := m.greeted(c, err == nil); err == nil {
		err = full
	}
	if err != nil {
		if kind := whyRefused(err, m.cfg.TLS != nil); kind != "" {
			m.refused.say(m.cfg.Logger, kind, c.RemoteAddr(), "", err)
		}
		_ = c.Close()
		return
	}
	m.mu.Lock()
	c.peerID = h.ID
	m.mu.Unlock()
	answer := refuseName
	if m.cfg.TLS == nil || h.Proven {
		answer = m.admit(ch, h)
	}
	if _, err := c.Write([]byte{answer}); err != nil || answer != welcome {
		if answer == refuseName || answer == refuseStranger {
			m.refused.say(m.cfg.Logger, refusals[answer].Error(), c.RemoteAddr(), h.From, nil)
		}
		m.cfg.Logger.Debug("peer refused", "peer", h.From, "why", refusals[answer])
		_ = c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	if ch == channelRPC {
		m.serve(c, h)
		return
	}
	select {
	case m.raft <- c:
	case <-m.closed:
		_ = c.Close()
	}
}

// introduce makes the handshake, if there is TLS, and reads the preamble. Nothing
// of the other side's is read before its certificate is found good.
func (m *mux) introduce(c *muxConn) (channel, *hello, error) {
	ctx, cancel := context.WithTimeout(context.Background(), preambleTimeout)
	defer cancel()
	chain, err := prove(ctx, c.Conn)
	if err != nil {
		return 0, nil, err
	}
	ch, h, err := readPreamble(c)
	if err == nil && chain != nil && slices.Contains(certs.NodeNames(chain[0]), h.From) {
		h.Proven = true
		c.peer.Store(&provenPeer{name: h.From, channel: ch, chain: chain})
	}
	return ch, h, err
}

// dial connects to the node name at addr. Every error means that nothing was sent.
func (m *mux) dial(ctx context.Context, ch channel, name, addr string) (net.Conn, error) {
	if err := m.cfg.checkAddr(addr); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := m.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := m.track(conn, m.clientSide(conn, name), false)
	if c == nil {
		return nil, refusals[refuseOutService]
	}
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var answer [1]byte
	if _, err = prove(ctx, c.Conn); err == nil {
		_, err = c.Write(encodePreamble(ch, m.self(name)))
	}
	if err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	if err == nil && answer[0] == refuseRemoved && m.gone != nil {
		m.gone(name)
	}
	if err == nil && answer[0] != welcome {
		if err = refusals[answer[0]]; err == nil {
			err = ErrRefused
		}
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("node %q at %s: %w", name, addr, err)
	}
	if !stop() {
		_ = c.Close()
		return nil, ctx.Err()
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// sever cuts all connections and makes no new ones until it is called with
// false: a leader whose disk hangs still sends heartbeats, and only silence
// lets the others elect.
func (m *mux) sever(cut bool) {
	m.mu.Lock()
	m.severed = cut
	m.mu.Unlock()
	if cut {
		m.closeConns()
	}
}

// cutPeers closes the connections that come from nodes whose id is gone: admit is
// asked at their beginning only.
func (m *mux) cutPeers(gone func(id string) bool) {
	m.mu.Lock()
	ids := map[string]bool{}
	for c := range m.conns {
		ids[c.peerID] = false
	}
	m.mu.Unlock()
	for id := range ids {
		ids[id] = id != "" && gone(id)
	}
	m.mu.Lock()
	var cut []*muxConn
	for c := range m.conns {
		if ids[c.peerID] {
			cut = append(cut, c)
		}
	}
	m.mu.Unlock()
	for _, c := range cut {
		_ = c.Close()
	}
}

// cut reports whether the node has cut itself off.
func (m *mux) cut() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.severed
}

func (m *mux) closeConns() {
	m.mu.Lock()
	conns := make([]*muxConn, 0, len(m.conns))
	for c := range m.conns {
		conns = append(conns, c)
	}
	m.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// close ends the port and all connections and waits for its goroutines.
func (m *mux) close() error {
	m.mu.Lock()
	done := m.shutdown
	m.shutdown = true
	m.mu.Unlock()
	if done {
		return nil
	}
	close(m.closed)
	err := m.ln.Close()
	m.closeConns()
	m.wg.Wait()
	return err
}

// raftLayer is the raft channel as raft.StreamLayer. Its addresses are
// "name@host:port", so that the preamble can say which node is meant.
type raftLayer struct {
	m    *mux
	addr string
}

func raftAddress(name, addr string) raft.ServerAddress { return raft.ServerAddress(name + "@" + addr) }

// Accept is net.Listener's.
func (l *raftLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.m.raft:
		return c, nil
	case <-l.m.closed:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener's; the port outlives Raft and is closed by the node.
func (l *raftLayer) Close() error { return nil }

// Addr is net.Listener's.
func (l *raftLayer) Addr() net.Addr { return textAddr(l.addr) }

// Dial is raft.StreamLayer's.
func (l *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	name, addr, ok := strings.Cut(string(address), "@")
	if !ok {
		name, addr = "", string(address)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.m.dial(ctx, channelRaft, name, addr)
}

type textAddr string

// Network is net.Addr's.
func (textAddr) Network() string { return "tcp" }

// String is net.Addr's.
func (a textAddr) String() string { return string(a) }
