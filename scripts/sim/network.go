package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// network joins the simulated nodes. Connections are queues of what was written, each
// piece with the time at which it arrives, so a link that is cut holds what is under
// way and gives it when it is whole again, as TCP does.
type network struct {
	mu      sync.Mutex
	rand    *rand.Rand
	base    time.Duration // of every link
	names   map[string]string
	ports   map[string]*listener
	conns   map[*conn]struct{}
	rules   map[int]rule
	next    int
	frozen  map[string]bool
	changed chan struct{} // closed at each change of what may pass
}

// sendBuffer bounds what is under way on a connection.
const sendBuffer = 1 << 20

// resend is how much later a piece arrives that was lost once.
const resend = 150 * time.Millisecond

// route is one direction of a link, of Raft and calls or of gossip.
type route struct {
	from, to string
	gossip   bool
}

// effect is what a rule does to a route.
type effect struct {
	cut   bool
	delay time.Duration // mean, of each piece
	loss  float64       // chance of a piece to be lost, and a tenth of it: of the connection
}

type rule func(route) effect

func newNetwork(seed uint64, base time.Duration) *network {
	return &network{rand: rand.New(rand.NewPCG(seed, 21)), base: base, names: map[string]string{}, ports: map[string]*listener{},
		conns: map[*conn]struct{}{}, rules: map[int]rule{}, frozen: map[string]bool{}, changed: make(chan struct{})}
}

// name says whose an address is, for ever.
func (n *network) name(addr, node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[addr] = node
}

// impose puts a rule in force; the result ends it.
func (n *network) impose(r rule) (lift func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	id := n.next
	n.rules[id] = r
	n.stir()
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.rules, id)
		n.stir()
	}
}

// freeze stops everything that a node sends or takes, until it is called with false.
func (n *network) freeze(node string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen[node] = on
	n.stir()
}

// stir wakes all who wait for something to pass; under mu.
func (n *network) stir() {
	close(n.changed)
	n.changed = make(chan struct{})
	for c := range n.conns {
		wake(c.readable)
		wake(c.writable)
	}
}

// at sums up the rules for a route; under mu.
func (n *network) at(r route) effect {
	all := effect{delay: n.base}
	for _, rule := range n.rules {
		e := rule(r)
		all.cut = all.cut || e.cut
		all.delay += e.delay
		all.loss = max(all.loss, e.loss)
	}
	return all
}

// open reports whether what was sent on r arrives now; under mu.
func (n *network) open(r route) bool {
	if n.frozen[r.to] {
		return false
	}
	for _, rule := range n.rules {
		if rule(r).cut {
			return false
		}
	}
	return true
}

// delay draws how long a piece takes, and whether it breaks the connection; under mu.
func (n *network) delay(r route) (d time.Duration, breaks bool) {
	e := n.at(r)
	if e.delay > 0 {
		d = e.delay/2 + time.Duration(n.rand.Int64N(int64(e.delay)))
	}
	if e.loss > 0 && n.rand.Float64() < e.loss {
		d += resend
	}
	return d, e.loss > 0 && n.rand.Float64() < e.loss/10
}

// fell cuts a node off for good as the end of its process does: its ports close, and
// its peers see the ends of their connections.
func (n *network) fell(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr, l := range n.ports {
		if n.names[addr] == node {
			delete(n.ports, addr)
			l.shut()
		}
	}
	for c := range n.conns {
		if c.from == node {
			c.shut()
		}
	}
	n.frozen[node] = false
	n.stir()
}

// breakAll resets the connections that match.
func (n *network) breakAll(match func(route) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if match(c.route) {
			c.broken, c.peer.broken = true, true
		}
	}
	n.stir()
}

type listener struct {
	n     *network
	addr  string
	queue chan *conn
	end   chan struct{}
	once  sync.Once

	packets chan *memberlist.Packet // of gossip; nil: none
}

func (n *network) listen(addr string) (*listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[addr] != nil {
		return nil, fmt.Errorf("%s: %w", addr, syscall.EADDRINUSE)
	}
	l := &listener{n: n, addr: addr, queue: make(chan *conn, 64), end: make(chan struct{})}
	n.ports[addr] = l
	return l, nil
}

// Accept is net.Listener's.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.end:
		return nil, net.ErrClosed
	}
}

func (l *listener) shut() { l.once.Do(func() { close(l.end) }) }

// Close is net.Listener's.
func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.n.ports[l.addr] == l {
		delete(l.n.ports, l.addr)
	}
	l.shut()
	return nil
}

// Addr is net.Listener's.
func (l *listener) Addr() net.Addr { return address(l.addr) }

type address string

// Network is net.Addr's.
func (address) Network() string { return "tcp" }

// String is net.Addr's.
func (a address) String() string { return string(a) }

// dial connects a node to addr. It waits while the link is cut.
func (n *network) dial(ctx context.Context, from, addr string, gossip bool) (net.Conn, error) {
	for {
		n.mu.Lock()
		to := n.names[addr]
		there, back := route{from, to, gossip}, route{to, from, gossip}
		// Who is frozen does not accept, but his system does.
		cut := n.frozen[from] || n.at(there).cut || n.at(back).cut
		if !cut {
			c, err := n.connect(there, addr)
			n.mu.Unlock()
			if err != nil {
				return nil, err
			}
			return c, nil
		}
		changed := n.changed
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
		}
	}
}

func (n *network) connect(r route, addr string) (*conn, error) {
	l := n.ports[addr]
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	a := newConn(n, r, address(r.from), l.Addr())
	b := newConn(n, route{r.to, r.from, r.gossip}, l.Addr(), address(r.from))
	a.peer, b.peer = b, a
	select {
	case l.queue <- b:
		n.conns[a], n.conns[b] = struct{}{}, struct{}{}
		return a, nil
	default:
		return nil, fmt.Errorf("dial %s: backlog full: %w", addr, syscall.ECONNREFUSED)
	}
}

// piece is what one Write sent; empty: the end.
type piece struct {
	at   time.Time
	data []byte
}

// conn is one end of a connection. Its fields are under the network's mu.
type conn struct {
	route         // from: who holds this end
	n             *network
	peer          *conn
	local, remote net.Addr
	in            []piece // on its way here
	size          int
	closed        bool // by its holder
	broken        bool
	readBy        time.Time
	writeBy       time.Time
	readable      chan struct{} // one token: look again
	writable      chan struct{}
}

func newConn(n *network, r route, local, remote net.Addr) *conn {
	return &conn{route: r, n: n, local: local, remote: remote, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits for a token, d at most unless it is negative.
func await(c chan struct{}, d time.Duration) {
	if d < 0 {
		<-c
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
	case <-t.C:
	}
}

// check returns why nothing more can be done with this end, and else how long that may
// be waited for: negative for ever; under mu.
func (c *conn) check(by time.Time) (time.Duration, error) {
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.broken:
		return 0, syscall.ECONNRESET
	case by.IsZero():
		return -1, nil
	}
	left := time.Until(by)
	if left <= 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return left, nil
}

// Read is net.Conn's.
func (c *conn) Read(b []byte) (int, error) {
	for {
		n, wait, err := c.take(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		await(c.readable, wait)
	}
}

func (c *conn) take(b []byte) (int, time.Duration, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	left, err := c.check(c.readBy)
	if err != nil || len(c.in) == 0 || !c.n.open(c.peer.route) {
		return 0, left, err
	}
	p := &c.in[0]
	if d := time.Until(p.at); d > 0 {
		if left < 0 {
			left = d
		}
		return 0, min(left, d), nil
	}
	if len(p.data) == 0 {
		return 0, 0, io.EOF
	}
	n := copy(b, p.data)
	p.data = p.data[n:]
	c.size -= n
	if len(p.data) == 0 {
		c.in = c.in[1:]
	}
	wake(c.peer.writable)
	return n, 0, nil
}

// Write is net.Conn's.
func (c *conn) Write(b []byte) (int, error) {
	for {
		ok, wait, err := c.put(b)
		if ok || err != nil {
			return len(b), err
		}
		await(c.writable, wait)
	}
}

func (c *conn) put(b []byte) (bool, time.Duration, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	left, err := c.check(c.writeBy)
	if err != nil {
		return false, 0, err
	}
	if c.n.frozen[c.from] || c.peer.size > sendBuffer {
		return false, left, nil
	}
	if c.peer.closed && c.n.open(c.route) {
		return false, 0, syscall.EPIPE
	}
	if len(b) == 0 {
		return true, 0, nil
	}
	d, breaks := c.n.delay(c.route)
	if breaks {
		c.broken, c.peer.broken = true, true
		wake(c.peer.readable)
		return false, 0, syscall.ECONNRESET
	}
	c.peer.push(piece{time.Now().Add(d), append([]byte(nil), b...)})
	return true, 0, nil
}

// push appends what comes not before what is there; under mu.
func (c *conn) push(p piece) {
	if k := len(c.in); k > 0 && c.in[k-1].at.After(p.at) {
		p.at = c.in[k-1].at
	}
	c.in = append(c.in, p)
	c.size += len(p.data)
	wake(c.readable)
}

// shut ends this end; the other one reads what is under way first; under mu.
func (c *conn) shut() {
	if c.closed {
		return
	}
	c.closed = true
	d, _ := c.n.delay(c.route)
	c.peer.push(piece{at: time.Now().Add(d)})
	wake(c.readable)
	wake(c.writable)
	wake(c.peer.writable)
	if c.peer.closed {
		delete(c.n.conns, c)
		delete(c.n.conns, c.peer)
	}
}

// Close is net.Conn's.
func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.shut()
	return nil
}

// LocalAddr is net.Conn's.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is net.Conn's.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is net.Conn's.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t) // neither fails
	return c.SetWriteDeadline(t)
}

// SetReadDeadline is net.Conn's.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.readBy = t
	wake(c.readable)
	return nil
}

// SetWriteDeadline is net.Conn's.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.writeBy = t
	wake(c.writable)
	return nil
}
