package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quinto/fsm"
)

const (
	clientQueue = 1024            // frames waiting for the writer of a connection
	silentLimit = 3 * time.Second // without an answer while calls time out: the connection is dead
)

// redialPause keeps a peer that is down from being dialled for every call.
const redialPause = 50 * time.Millisecond

// client makes calls to peers: one connection each, many calls in flight.
type client struct {
	dial   func(ctx context.Context, name, addr string) (net.Conn, error)
	ctx    context.Context
	cancel context.CancelFunc

	wg     sync.WaitGroup
	mu     sync.Mutex
	peers  map[string]*peer
	closed bool
}

func newClient(dial func(ctx context.Context, name, addr string) (net.Conn, error)) *client {
	c := &client{dial: dial, peers: map[string]*peer{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// peer holds the connection to one node.
type peer struct {
	mu      sync.Mutex
	conn    *clientConn
	attempt *attempt // under way; nil: none
	failed  error    // of the last attempt
	retryAt time.Time
}

// attempt is one try to connect, for all calls that wait for it. It outlives
// them: a call with little time left must not end it.
type attempt struct {
	addr string
	done chan struct{}
	conn *clientConn
	err  error
}

// clientConn is a live connection and the calls that wait on it.
type clientConn struct {
	net.Conn
	addr     string
	out      chan []byte
	done     chan struct{} // closed when the connection is dead
	lastRead atomic.Int64  // unix nanoseconds

	mu    sync.Mutex
	calls map[uint64]chan *frame // nil once dead
	next  uint64
}

// call sends one call and waits for its answer. errUnsent: nothing was sent;
// any other error: the peer may have done what was asked.
func (c *client) call(ctx context.Context, name, addr string, kind callType, payload []byte) (*frame, error) {
	if len(payload) > MaxCallBytes {
		return nil, fmt.Errorf("%w: %d bytes", errUnsent, len(payload))
	}
	conn, err := c.conn(ctx, name, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnsent, err)
	}
	id, answer := conn.register()
	if answer == nil {
		return nil, fmt.Errorf("%w: %w", errUnsent, conn.refusal())
	}
	defer conn.forget(id)
	f := encodeFrame(&frame{kind: kind, id: id, deadline: remaining(ctx), payload: payload})
	select {
	case conn.out <- f:
	case <-conn.done:
		return nil, fmt.Errorf("%w: %w", errUnsent, errBroken)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errUnsent, ctx.Err())
	}
	select {
	case a := <-answer:
		return a, nil
	case <-conn.done:
		return conn.lastAnswer(answer)
	case <-ctx.Done():
		conn.checkSilence()
		return nil, ctx.Err()
	}
}

// lastAnswer looks once more: the answer may have come just before the end.
func (c *clientConn) lastAnswer(answer chan *frame) (*frame, error) {
	select {
	case a := <-answer:
		return a, nil
	default:
		return nil, errBroken
	}
}

// remaining is the time that ctx leaves, in ms, at least 1.
func remaining(ctx context.Context) uint32 {
	d, ok := ctx.Deadline()
	if !ok {
		return uint32(callTimeout / time.Millisecond)
	}
	return uint32(max(time.Until(d)/time.Millisecond, 1))
}

func (c *client) peer(name string) (*peer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	p := c.peers[name]
	if p == nil {
		p = &peer{}
		c.peers[name] = p
	}
	return p, nil
}

// conn returns the live connection to name at addr, or dials: one at a time.
func (c *client) conn(ctx context.Context, name, addr string) (*clientConn, error) {
	p, err := c.peer(name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	if conn := p.live(addr); conn != nil {
		p.mu.Unlock()
		return conn, nil
	}
	a := p.attempt
	if a == nil && time.Now().Before(p.retryAt) {
		err := p.failed
		p.mu.Unlock()
		return nil, err
	}
	if a == nil {
		a = &attempt{addr: addr, done: make(chan struct{})}
		p.attempt = a
		if !c.goRun(func() { c.connect(p, a, name) }) {
			p.attempt = nil
			p.mu.Unlock()
			return nil, net.ErrClosed
		}
	}
	p.mu.Unlock()
	select {
	case <-a.done:
		return a.conn, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// connect makes the attempt a.
func (c *client) connect(p *peer, a *attempt, name string) {
	raw, err := c.dial(c.ctx, name, a.addr)
	if err == nil {
		conn := &clientConn{
			Conn: raw, addr: a.addr, out: make(chan []byte, clientQueue),
			done: make(chan struct{}), calls: map[uint64]chan *frame{},
		}
		conn.lastRead.Store(time.Now().UnixNano())
		if c.start(conn) {
			a.conn = conn
		} else {
			err = errors.Join(net.ErrClosed, raw.Close())
		}
	}
	a.err = err
	p.mu.Lock()
	p.attempt, p.conn, p.failed = nil, a.conn, err
	if err != nil {
		p.retryAt = time.Now().Add(redialPause)
	}
	p.mu.Unlock()
	close(a.done)
}

func (c *client) goRun(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Go(f)
	}
	return !c.closed
}

func (c *client) start(conn *clientConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(conn.read)
	c.wg.Go(func() { writeFrames(conn, conn.out, conn.done) })
	return true
}

// live returns the connection if it is alive and goes to addr; one to an older
// address is closed. The caller holds p.mu.
func (p *peer) live(addr string) *clientConn {
	if p.conn == nil {
		return nil
	}
	select {
	case <-p.conn.done:
		p.conn = nil
		return nil
	default:
	}
	if p.conn.addr != addr {
		_ = p.conn.Close() // its reader fails what is pending
		p.conn = nil
	}
	return p.conn
}

// drop closes the connection to name: calls pending there fail.
func (c *client) drop(name string) {
	c.mu.Lock()
	p := c.peers[name]
	c.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil && p.conn.pending() {
		_ = p.conn.Close()
		p.conn = nil
	}
}

// known returns the peers of now, to be visited without the client's lock.
func (c *client) known() []*peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.peers))
}

// reset closes all connections: this node has become another to its peers.
func (c *client) reset() {
	for _, p := range c.known() {
		p.mu.Lock()
		if p.conn != nil {
			_ = p.conn.Close()
			p.conn = nil
		}
		p.mu.Unlock()
	}
}

// retire takes all connections out of use and closes each once no call waits on it:
// the next call dials anew, with new certificates.
func (c *client) retire() {
	for _, p := range c.known() {
		p.mu.Lock()
		old := p.conn
		p.conn = nil
		p.mu.Unlock()
		if old != nil && !c.goRun(func() { c.closeIdle(old) }) {
			_ = old.Close()
		}
	}
}

// closeIdle closes conn when nothing is pending there, or when that takes too long.
func (c *client) closeIdle(conn *clientConn) {
	defer func() { _ = conn.Close() }() // its reader fails what is left
	ctx, cancel := context.WithTimeout(c.ctx, retireLimit)
	defer cancel()
	pause(ctx, retireGrace)
	for ctx.Err() == nil && conn.pending() {
		pause(ctx, retireTick)
	}
}

func (c *client) close() {
	c.mu.Lock()
	c.closed = true
	peers := c.peers // nobody adds to it any more
	c.mu.Unlock()
	c.cancel()
	for _, p := range peers {
		p.mu.Lock()
		if p.conn != nil {
			_ = p.conn.Close()
		}
		p.mu.Unlock()
	}
	c.wg.Wait()
}

func (c *clientConn) register() (uint64, chan *frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil || len(c.calls) >= MaxPendingCalls {
		return 0, nil
	}
	c.next++
	answer := make(chan *frame, 1)
	c.calls[c.next] = answer
	return c.next, answer
}

// refusal is why register gave no id.
func (c *clientConn) refusal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		return errBroken
	}
	return fmt.Errorf("%w: %d calls wait for this peer", fsm.ErrOverloaded, len(c.calls))
}

func (c *clientConn) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
}

func (c *clientConn) pending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls) > 0
}

func (c *clientConn) read() {
	r := bufio.NewReaderSize(c, 64<<10)
	for {
		f, err := readFrame(r, c)
		if err != nil {
			break
		}
		c.lastRead.Store(time.Now().UnixNano())
		c.mu.Lock()
		answer := c.calls[f.id]
		delete(c.calls, f.id)
		c.mu.Unlock()
		if answer != nil {
			answer <- f // buffered, and each id is answered once
		}
	}
	_ = c.Close() // whatever ended it, the connection is of no more use
	c.mu.Lock()
	c.calls = nil
	c.mu.Unlock()
	close(c.done)
}

// checkSilence closes a connection that has not answered anything for long, so
// that the next call dials again.
func (c *clientConn) checkSilence() {
	if time.Since(time.Unix(0, c.lastRead.Load())) > silentLimit {
		_ = c.Close()
	}
}
