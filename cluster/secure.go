package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"quinto/internal/certs"
)

// The cluster port under TLS: version 1.3 only, both sides show a certificate of
// the operator's own authority, and its name decides. Who dials checks that it has
// reached the node it meant; who accepts checks that the name is the one that the
// preamble gives, and one that the cluster knows. All of that comes before a byte
// of the stranger's is looked at. No session is resumed: each connection proves itself.

// wireProtocol keeps apart what is meant for other programs with the same authority.
const wireProtocol = "quinto/1"

const (
	reviewInterval = 5 * time.Second        // connections that live are looked at again
	retireGrace    = time.Second            // a call that has got a connection may still begin
	retireLimit    = 30 * time.Second       // then a connection is closed with what is pending
	retireTick     = 100 * time.Millisecond // until then it is looked whether it is idle
	refusalPause   = 5 * time.Second        // between two lines of the log for one kind of refusal
)

// serverSide puts TLS on an accepted connection; the handshake comes with prove.
func (m *mux) serverSide(conn net.Conn) net.Conn {
	if m.cfg.TLS == nil {
		return conn
	}
	now := m.cfg.TLS.Current()
	return tls.Server(m.gate.Conn(conn), m.gate.Config(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{wireProtocol}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{*now.Certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: now.Authorities,
	}))
}

// clientSide puts TLS on a connection to the node name; the handshake comes with prove.
func (m *mux) clientSide(conn net.Conn, name string) net.Conn {
	if m.cfg.TLS == nil {
		return conn
	}
	now := m.cfg.TLS.Current()
	return tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{wireProtocol},
		Certificates: []tls.Certificate{*now.Certificate},
		// Names of nodes are no names of hosts: VerifyConnection does all that is
		// skipped, with the name of the node.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if err := certs.Verify(s.PeerCertificates, now.Authorities, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
				return err
			}
			if names := certs.NodeNames(s.PeerCertificates[0]); name == "" || !slices.Contains(names, name) {
				return fmt.Errorf("%w: %q was meant, the certificate is of %q", errWrongName, name, names)
			}
			return nil
		},
	})
}

// errWrongName: the other side has a good certificate, of another node.
var errWrongName = errors.New("address belongs to another node")

// prove makes the handshake, if there is TLS, and returns the certificates that the
// other side has shown, its own first. The caller has set a deadline.
func prove(ctx context.Context, conn net.Conn) ([]*x509.Certificate, error) {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return nil, nil
	}
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	s := t.ConnectionState()
	if s.NegotiatedProtocol != wireProtocol {
		return nil, fmt.Errorf("TLS for %q, not for a cluster", s.NegotiatedProtocol)
	}
	return s.PeerCertificates, nil
}

// knows reports whether a name that a certificate proves belongs to the cluster, as
// far as this node can tell. A node that hears a leader has the present members. One
// that hears none may have slept while others came, and would shut out the leader
// that could tell it: it trusts the authority, and Raft's own rules.
func (n *Node) knows(name string) bool {
	servers := n.servers()
	for _, s := range servers {
		if string(s.ID) == name {
			return true
		}
	}
	if len(servers) == 0 {
		founders := n.ident.get().Bootstrap
		return len(founders) == 0 || slices.ContainsFunc(founders, func(f founder) bool { return f.Name == name })
	}
	l, ok := n.currentLeader()
	return !n.IsLeader() && (!ok || l.self || n.Staleness() > staleLimit*n.cfg.HeartbeatTimeout)
}

// peerKey is where a call's context has who calls.
type peerKey struct{}

// checkCaller refuses a call that speaks for another node than its certificate.
func checkCaller(ctx context.Context, name string) error {
	if h, ok := ctx.Value(peerKey{}).(*hello); ok && h.Proven && h.From != name {
		return fmt.Errorf("%w: %q speaks for %q", ErrRefused, h.From, name)
	}
	return nil
}

// watchWires follows new certificates and keys, and looks at the connections that
// live: a certificate may end, or a member be removed, while they do.
func (n *Node) watchWires() {
	tick := time.NewTicker(reviewInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.mux.review(n.knows)
		case <-n.renewed:
			n.log.Info("new certificates: connections are made anew")
			n.trans.CloseStreams() // those in use end after their message
			n.client.retire()
			tick.Reset(reviewInterval) // the others, too, have time to take theirs out of use
		case <-n.ctx.Done():
			return
		}
	}
}

// followFiles takes new keys of gossip, and tells watchWires of new certificates.
func (n *Node) followFiles() {
	if n.cfg.GossipKeys != nil {
		n.cfg.GossipKeys.Follow(n.gossip.setKeys)
	}
	if n.cfg.TLS == nil {
		return
	}
	n.cfg.TLS.OnChange(func() {
		select {
		case n.renewed <- struct{}{}:
		default: // it is told already
		}
	})
	n.goRun(n.watchWires)
}

// review cuts the accepted connections whose certificate the authorities of now do
// not vouch for, or has ended, and those of Raft whose node is no member any more.
func (m *mux) review(known func(name string) bool) {
	if m.cfg.TLS == nil {
		return
	}
	m.mu.Lock()
	conns := make([]*muxConn, 0, len(m.conns))
	for c := range m.conns {
		if c.inbound && c.peer.Load() != nil {
			conns = append(conns, c)
		}
	}
	m.mu.Unlock()
	authorities := m.cfg.TLS.Current().Authorities
	for _, c := range conns {
		p := c.peer.Load()
		err := certs.Verify(p.chain, authorities, x509.ExtKeyUsageClientAuth, time.Now())
		if err == nil && p.channel == channelRaft && !known(p.name) {
			err = refusals[refuseStranger]
		}
		if err != nil {
			m.refused.say(m.cfg.Logger, "connection cut", c.RemoteAddr(), p.name, err)
			_ = c.Close()
		}
	}
}

// provenPeer is what an accepted connection has shown.
type provenPeer struct {
	name    string
	channel channel
	chain   []*x509.Certificate
}

// whyRefused puts a failed handshake or preamble in words for the operator.
func whyRefused(err error, secure bool) (kind string) {
	var notTLS tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &notTLS):
		return "plaintext on a TLS port"
	case errors.As(err, &authority):
		return "certificate of a foreign authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "certificate has expired, or is not valid yet"
	case errors.As(err, &invalid):
		return "certificate is not for this use"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "said nothing in time"
	case errors.Is(err, errTooMany):
		return errTooMany.Error()
	case errors.Is(err, errSpeaksTLS):
		return "TLS on a plaintext port"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "" // a probe of the port; or it was us
	case secure:
		return "no handshake"
	}
	return "no preamble"
}

// refusalLog writes a line for a refusal, but one kind not more often than each
// refusalPause: strangers must not fill the disk. Kinds are few, so it is bounded.
type refusalLog struct {
	mu    sync.Mutex
	last  map[string]time.Time
	quiet map[string]int
}

// say warns of kind. Refusals that were left out are counted in the next line.
func (r *refusalLog) say(log hclog.Logger, kind string, remote net.Addr, node string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last, r.quiet = map[string]time.Time{}, map[string]int{}
	}
	if now := time.Now(); now.Sub(r.last[kind]) >= refusalPause {
		log.Warn("connection to the cluster port refused", "why", kind, "remote", remote.String(), "node", node, "error", err, "more", r.quiet[kind])
		r.last[kind], r.quiet[kind] = now, 0
		return
	}
	r.quiet[kind]++
}
