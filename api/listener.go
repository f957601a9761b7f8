package api

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// refusalTimeout bounds the answer to a connection beyond the limit.
	refusalTimeout = 100 * time.Millisecond
	// addressShare is the part of all connections, 1/addressShare, that one
	// address other than loopback may hold: none can shut the others out.
	addressShare = 2
	// lingerTimeout bounds the wait for a client that still sends after its
	// request was refused; lingerBodies times the largest body what is read of it.
	lingerTimeout = 2 * time.Second
	lingerBodies  = 4
)

// countedListener bounds open connections, in all and by address.
type countedListener struct {
	net.Listener
	most    int
	refusal []byte

	mu   sync.Mutex
	open int
	by   map[string]int // by IP
}

// limitConnections makes ln answer refusal to every connection beyond most.
func limitConnections(ln net.Listener, most int, refusal []byte) net.Listener {
	return &countedListener{Listener: ln, most: most, refusal: refusal, by: map[string]int{}}
}

// Accept returns the next connection within the limits.
func (l *countedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if isTemporary(err) { // out of file descriptors: wait for some to close
				time.Sleep(refusalTimeout)
				continue
			}
			return nil, err
		}
		ip := ""
		if addr, ok := c.RemoteAddr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
			ip = addr.IP.String()
		}
		if l.take(ip) {
			return &countedConn{Conn: c, done: sync.OnceFunc(func() { l.give(ip) })}, nil
		}
		_ = c.SetDeadline(time.Now().Add(refusalTimeout)) // fails only on a closed connection
		_, _ = c.Write(l.refusal)                         // a courtesy
		_ = c.Close()
	}
}

// Close ends Accept. Closing again is no error: Serve, Shutdown and fasthttp each
// close it, in any order.
func (l *countedListener) Close() error {
	if err := l.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func isTemporary(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}

func (l *countedListener) take(ip string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.most || ip != "" && l.by[ip] >= max(l.most/addressShare, 1) {
		return false
	}
	l.open++
	if ip != "" {
		l.by[ip]++
	}
	return true
}

func (l *countedListener) give(ip string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.by[ip]--; l.by[ip] <= 0 {
		delete(l.by, ip)
	}
}

// countedConn tells its listener when it is closed.
type countedConn struct {
	net.Conn
	done   func()
	linger atomic.Int64 // bytes to read before it is closed
}

// lingerOn makes the closing of c wait until the client has sent what it was
// about to, up to so many bytes: closing at once would reset the connection, and
// the client would lose the answer that says why (RFC 9112 §9.6).
func lingerOn(c net.Conn, bytes int) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if c, ok := c.(*countedConn); ok {
		c.linger.Store(int64(bytes))
	}
}

// NetConn is the connection below.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// leave frees the place of a connection that another limit counts from now on.
func (c *countedConn) leave() { c.done() }

// Close closes the connection and frees its place.
func (c *countedConn) Close() error {
	defer c.done()
	if n := c.linger.Swap(0); n > 0 {
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_ = c.Conn.SetReadDeadline(time.Now().Add(lingerTimeout)) // fails only on a closed connection
			_, _ = io.CopyN(io.Discard, c.Conn, n)                    // whatever ends it, the connection is closed
		}
	}
	return c.Conn.Close()
}
