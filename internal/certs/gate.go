package certs

import (
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

// GateWait is how long a handshake waits for others before it is given up.
const GateWait = 5 * time.Second

// errBusy: too many others shake hands.
var errBusy = errors.New("certs: too many handshakes at once")

// Gate bounds the handshakes that compute at the same time, each some tenths of a
// millisecond: thousands of connections that are made at once would else take all
// processors until the last is done, and every request would wait behind them. A
// handshake that waits for its other side is not among them. Put Conn below TLS and the
// server's configuration through Config.
type Gate struct {
	slots chan struct{}
	wait  time.Duration
}

// NewGate lets half of the processors make handshakes, at least one.
func NewGate() *Gate {
	return &Gate{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), wait: GateWait}
}

// Config returns c for the server side of connections that Conn, or Listener, has made.
// c has no GetConfigForClient.
func (g *Gate) Config(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { return nil, g.enter(h.Conn) }
	pick := c.GetCertificate
	if pick == nil {
		pick = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil } // of c.Certificates
	}
	c.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if err := g.enter(h.Conn); err != nil { // a second time, if the client had to be asked again
			return nil, err
		}
		return pick(h)
	}
	return c
}

// Conn returns c so that Config knows when its handshake computes no more.
func (g *Gate) Conn(c net.Conn) net.Conn { return &gateConn{Conn: c} }

// Listener does it for what ln accepts.
func (g *Gate) Listener(ln net.Listener) net.Listener { return gateListener{ln, g} }

type gateListener struct {
	net.Listener
	g *Gate
}

// Accept is net.Listener's.
func (l gateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.g.Conn(c), nil
}

// enter waits for a slot for c, which holds it until it reads, writes or closes.
func (g *Gate) enter(c net.Conn) error {
	for {
		if gated, ok := c.(*gateConn); ok {
			return gated.enter(g)
		}
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil // not ours: not bounded
		}
		c = wrapped.NetConn()
	}
}

// gateConn is a connection below TLS.
type gateConn struct {
	net.Conn
	mu     sync.Mutex
	held   *Gate // whose slot it has; nil: none
	closed bool
}

// enter is called by the one goroutine that makes the handshake.
func (c *gateConn) enter(g *Gate) error {
	c.mu.Lock()
	held := c.held != nil
	c.mu.Unlock()
	if held {
		return nil
	}
	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	select {
	case g.slots <- struct{}{}:
	case <-timer.C:
		return errBusy
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		<-g.slots
		return net.ErrClosed
	}
	c.held = g
	return nil
}

// leave gives the slot back.
func (c *gateConn) leave(closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = c.closed || closed
	if c.held != nil {
		<-c.held.slots
		c.held = nil
	}
}

// NetConn is the connection below.
func (c *gateConn) NetConn() net.Conn { return c.Conn }

// Read is net.Conn's.
func (c *gateConn) Read(p []byte) (int, error) {
	c.leave(false)
	return c.Conn.Read(p)
}

// Write is net.Conn's.
func (c *gateConn) Write(p []byte) (int, error) {
	c.leave(false)
	return c.Conn.Write(p)
}

// CloseWrite is that of the connection below, if it has one.
func (c *gateConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close is net.Conn's.
func (c *gateConn) Close() error {
	c.leave(true)
	return c.Conn.Close()
}
