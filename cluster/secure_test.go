package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"quinto/fsm"
	"quinto/internal/certs"
)

const testPoll = 50 * time.Millisecond // files are looked at that often

// secret is a folder with an authority, certificates and a gossip key.
type secret struct {
	dir, gossip string
}

func newSecret(t testing.TB) *secret {
	t.Helper()
	s := &secret{dir: t.TempDir()}
	s.gossip = filepath.Join(s.dir, "gossip.key")
	if _, err := certs.InitCA(s.dir, 1); err != nil {
		t.Fatal(err)
	}
	if err := certs.InitKeys(s.gossip); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *secret) path(name string) string { return filepath.Join(s.dir, name) }

// issue makes or renews the certificate of name.
func (s *secret) issue(t testing.TB, name string) {
	t.Helper()
	if _, err := certs.IssueNode(s.dir, certs.NodeRequest{Name: name, Days: 1, Replace: true}); err != nil {
		t.Fatal(err)
	}
}

// store opens the certificate of name, which is made if it is missing.
func (s *secret) store(t testing.TB, name string, log hclog.Logger) *certs.Store {
	t.Helper()
	if _, err := os.Stat(s.path(name + ".pem")); err != nil {
		s.issue(t, name)
	}
	store, err := certs.Open(certs.Files{CA: s.path(certs.CAFile), Cert: s.path(name + ".pem"), Key: s.path(name + ".key")},
		certs.Options{Name: name, What: "test", Log: log, Poll: testPoll})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// protect gives c certificates and gossip keys; what its node says goes to log too.
func (s *secret) protect(t testing.TB, c *Config, log io.Writer) {
	t.Helper()
	c.Logger = hclog.New(&hclog.LoggerOptions{Name: c.Name, Level: hclog.Info, Output: log})
	c.TLS = s.store(t, c.Name, c.Logger)
	keys, err := certs.OpenKeys(s.gossip, testPoll, c.Logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close() })
	c.GossipKeys, c.GossipLabel = keys, "test"
}

// lines is a log that a test reads.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

func (l *lines) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func secureTrio(t testing.TB, s *secret, log io.Writer) []*testNode {
	t.Helper()
	return trio(t, func(c *Config) { s.protect(t, c, log) })
}

// stranger dials n with the credentials of t and returns what a preamble is answered.
func stranger(t testing.TB, addr string, c *tls.Config, preamble []byte) ([]byte, error) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if c != nil {
		conn = tls.Client(conn, c)
	}
	if _, err := conn.Write(preamble); err != nil {
		return nil, err
	}
	answer := make([]byte, 1)
	n, err := io.ReadFull(conn, answer)
	return answer[:n], err
}

// forge signs a certificate with the authority of s, as none of the commands would.
func (s *secret) forge(t testing.TB, change func(c *x509.Certificate)) tls.Certificate {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(s.path(certs.CAFile), s.path(certs.CAKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "forged"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func nodeURI(name string) []*url.URL {
	u, _ := url.Parse(certs.NodeURI(name))
	return []*url.URL{u}
}

// Whoever is no member gets nothing read of his, on either channel, and the log says why.
func TestStrangersAreRefusedByTheirCertificates(t *testing.T) {
	s, foreign, log := newSecret(t), newSecret(t), &lines{}
	nodes := secureTrio(t, s, log)
	n := others(leaderOf(t, nodes...), nodes)[0]
	own := n.clusterID()
	client := func(c tls.Certificate) *tls.Config {
		// Shown whatever the server asks for.
		show := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
		return &tls.Config{GetClientCertificate: show, InsecureSkipVerify: true, NextProtos: []string{wireProtocol}}
	}
	pair := func(s *secret, name string) tls.Certificate {
		s.issue(t, name)
		c, err := tls.LoadX509KeyPair(s.path(name+".pem"), s.path(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	guest := pair(s, "guest")
	old := client(guest)
	old.MaxVersion = tls.VersionTLS12
	http := client(guest)
	http.NextProtos = []string{"http/1.1"}
	from := func(name string) *hello { return &hello{Cluster: own, From: name, ID: "x", To: n.cfg.Name} }
	for name, tc := range map[string]struct {
		tls    *tls.Config
		hello  *hello
		answer byte // 0: none, the handshake fails
		log    string
	}{
		"plaintext":             {nil, from("n1"), 0, "plaintext on a TLS port"},
		"foreign authority":     {client(pair(foreign, "n1")), from("n1"), 0, "certificate of a foreign authority"},
		"no certificate":        {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{wireProtocol}}, from("n1"), 0, "didn't provide a certificate"},
		"TLS 1.2":               {old, from("n1"), 0, "unsupported versions"},
		"HTTPS with our CA":     {http, from("guest"), 0, "unsupported application protocols"},
		"expired":               {client(s.forge(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute); c.URIs = nodeURI("n1") })), from("n1"), 0, "certificate has expired"},
		"for servers only":      {client(s.forge(t, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:]; c.URIs = nodeURI("n1") })), from("n1"), 0, "not for this use"},
		"another's name":        {client(guest), from("n1"), refuseName, "certificate of another node"},
		"no name":               {client(s.forge(t, func(*x509.Certificate) {})), from("n1"), refuseName, "certificate of another node"},
		"a host called as node": {client(s.forge(t, func(c *x509.Certificate) { c.URIs = nodeURI("guest"); c.DNSNames = []string{"n1"} })), from("n1"), refuseName, "certificate of another node"},
		"no member":             {client(guest), from("guest"), refuseStranger, "not a member"},
	} {
		for _, ch := range []channel{channelRaft, channelRPC} {
			if tc.answer == refuseStranger && ch == channelRPC {
				continue // it may ask to join, see below
			}
			n.mux.refused.mu.Lock()
			clear(n.mux.refused.last) // each is to be told
			n.mux.refused.mu.Unlock()
			log.reset()
			got, err := stranger(t, n.ClusterAddr(), tc.tls, encodePreamble(ch, tc.hello))
			if tc.answer == 0 && (err == nil || len(got) > 0) || tc.answer > 0 && !bytes.Equal(got, []byte{tc.answer}) {
				t.Errorf("%s, channel %d: answered %v, %v", name, ch, got, err)
			}
			waitFor(t, "a line about "+name+": "+tc.log, func() bool { return log.has(tc.log) })
		}
	}
	// A good certificate of no member: only joining may be asked for.
	g := newClient(func(ctx context.Context, name, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		c := tls.Client(conn, client(guest))
		if _, err = c.Write(encodePreamble(channelRPC, from("guest"))); err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return c, err
	})
	defer g.close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, kind := range []callType{callForward, callReadIndex, callStatus, callTerm, callPropose, callSettings, callMember, callMarks, callEntries} {
		if f, err := g.call(ctx, n.cfg.Name, n.ClusterAddr(), kind, []byte("x")); err != nil || f.status != statusUnknown {
			t.Errorf("call %d of no member: %+v %v", kind, f, err)
		}
	}
	r := joinRequest{Name: "n1", ID: "x", Addr: "127.0.0.1:1", Level: 1, Empty: true}
	if f, err := g.call(ctx, n.cfg.Name, n.ClusterAddr(), callJoin, r.encode()); err != nil || f.status != statusRefused || !strings.Contains(string(f.payload), `"guest" speaks for "n1"`) {
		t.Errorf("a join for another: %+v %v", f, err)
	}
	waitFor(t, "a line about calls", func() bool { return log.has("calls of no member") })
	mustPut(t, leaderOf(t, nodes...), "still")
}

// The node that dials looks too: a good certificate of another node is not enough.
func TestDiallerChecksTheNameItMeant(t *testing.T) {
	s := newSecret(t)
	nodes := secureTrio(t, s, io.Discard)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, name := range []string{nodes[2].cfg.Name, "", "nobody"} {
		if c, err := nodes[0].mux.dial(ctx, channelRPC, name, nodes[1].ClusterAddr()); err == nil || !strings.Contains(err.Error(), errWrongName.Error()) {
			t.Errorf("dialled %q, reached %q: %v %v", name, nodes[1].cfg.Name, c, err)
		}
	}
	// A node of another authority is not believed either.
	foreign := newSecret(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	foreign.issue(t, "n1")
	pair, err := tls.LoadX509KeyPair(foreign.path("n1.pem"), foreign.path("n1.key"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{wireProtocol}}).Handshake()
			_ = c.Close()
		}
	}()
	var authority x509.UnknownAuthorityError
	if _, err := nodes[0].mux.dial(ctx, channelRPC, "n1", ln.Addr().String()); !errors.As(err, &authority) {
		t.Errorf("a node of a foreign authority: %v", err)
	}
}

// TLS to a plaintext port, and a plaintext node among TLS nodes: both say so.
func TestTLSOnAPlaintextPort(t *testing.T) {
	log := &lines{}
	c := testConfig(t, "solo")
	c.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: log})
	n := startNode(t, c)
	ready(t, n)
	if got, err := stranger(t, n.ClusterAddr(), &tls.Config{InsecureSkipVerify: true}, []byte("x")); err == nil {
		t.Errorf("answered %v", got)
	}
	waitFor(t, "a line", func() bool { return log.has("TLS on a plaintext port") })
}

// Forwarding, reads on followers and a failover work over TLS as over plaintext.
func TestClusterOverTLS(t *testing.T) {
	t.Parallel()
	s := newSecret(t)
	nodes := secureTrio(t, s, io.Discard)
	l := leaderOf(t, nodes...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i, n := range nodes {
		if _, err := n.Forward(ctx, []byte("x")); err != nil {
			t.Fatal(err)
		}
		mustPut(t, l, fmt.Sprintf("b%d", i))
		if !has(t, n, fmt.Sprintf("b%d", i)) {
			t.Errorf("%s has not b%d", n.cfg.Name, i)
		}
	}
	rest := others(l, nodes)
	l.mux.sever(true) // as if it were gone
	know(rest)
	mustPut(t, leaderOf(t, rest...), "after")
	sameState(t, rest...)
}

// A node with a certificate joins; it gets its vote; a removed one is cut off.
func TestJoinAndRemovalUnderTLS(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long")
	}
	s := newSecret(t)
	log := &lines{}
	nodes := secureTrio(t, s, log)
	c := testConfig(t, "n3")
	c.GossipAddr, c.Join = freeAddr(t), []string{nodes[0].cfg.GossipAddr}
	s.protect(t, &c, log)
	n := startNode(t, c)
	ready(t, n)
	nodes = append(nodes, n)
	waitFor(t, "a vote", func() bool { return leaderOf(t, nodes...).voters() == 4 })
	l := leaderOf(t, nodes...)
	if l == n {
		t.Skip("the new node leads already")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := n.askStatus(ctx, l.cfg.Name, l.ClusterAddr()); err != nil {
		t.Fatal(err)
	}
	if err := l.raft.RemoveServer(raft.ServerID("n3"), 0, 5*time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	// Its connection lives, and is of no more use.
	if st, err := n.askStatus(ctx, l.cfg.Name, l.ClusterAddr()); err == nil {
		t.Errorf("a removed node is answered: %+v", st)
	}
	l.mux.review(l.knows)
	l.mux.mu.Lock()
	for c := range l.mux.conns {
		if p := c.peer.Load(); p != nil && p.channel == channelRaft && p.name == "n3" {
			t.Error("a removed node talks Raft")
		}
	}
	l.mux.mu.Unlock()
}

// Silent strangers, far more than the port takes, keep no member out.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	for name, secure := range map[string]bool{"TLS": true, "plaintext": false} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t, "solo")
			if secure {
				newSecret(t).protect(t, &c, io.Discard)
			}
			n := startNode(t, c)
			ready(t, n)
			const most = 100
			n.mux.mu.Lock()
			n.mux.maxGreeting = most
			n.mux.mu.Unlock()
			for range MaxConns + most {
				conn, err := net.Dial("tcp", n.ClusterAddr())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			conn, err := n.mux.dial(ctx, channelRPC, "solo", n.ClusterAddr())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			n.mux.mu.Lock()
			defer n.mux.mu.Unlock()
			if len(n.mux.greeting) > most {
				t.Errorf("%d connections say nothing", len(n.mux.greeting))
			}
		})
	}
}

// load writes through every node until it is stopped; any error is one too many.
func load(t *testing.T, nodes []*testNode) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done atomic.Int64
	var wg sync.WaitGroup
	for i, n := range nodes {
		n.Handle(nil)
		wg.Go(func() {
			for j := 0; ctx.Err() == nil; j++ {
				// Not ctx: what has begun is to end well.
				if _, err := n.ProposeAnywhere(context.Background(), put(fmt.Sprintf("w%d-%d", i, j%50))); err != nil {
					t.Errorf("write through %s: %v", n.cfg.Name, err)
					return
				}
				done.Add(1)
			}
		})
	}
	return func() int64 { cancel(); wg.Wait(); return done.Load() }
}

// All certificates, the authority by a bundle of two, and the gossip key are
// replaced while writes go on through all nodes, and none fails.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSecret(t)
	log := &lines{}
	nodes := trio(t, func(c *Config) {
		s.protect(t, c, log)
		// Every failed write counts: a machine that is busy must not make another lead.
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLease, c.RaftTimeout = 2*time.Second, 2*time.Second, 1800*time.Millisecond, 4*time.Second
	})
	stop := load(t, nodes)
	serials := func() (all []string) {
		for _, n := range nodes {
			all = append(all, n.cfg.TLS.Current().Leaf.SerialNumber.String())
		}
		return all
	}
	step := func(what string, f func()) {
		before := serials()
		f()
		waitFor(t, what, func() bool {
			return !slices.ContainsFunc(serials(), func(n string) bool { return slices.Contains(before, n) })
		})
	}
	renew := func() {
		for _, n := range nodes {
			s.issue(t, n.cfg.Name)
		}
	}
	step("new certificates", renew)
	// The authority: trust both, then show the new one's, then trust it alone.
	next := &secret{dir: t.TempDir()}
	if _, err := certs.InitCA(next.dir, 1); err != nil {
		t.Fatal(err)
	}
	oldCA, newCA := read(t, s.path(certs.CAFile)), read(t, next.path(certs.CAFile))
	setCA := func(text []byte) {
		was := make([]*x509.CertPool, len(nodes))
		for i, n := range nodes {
			was[i] = n.cfg.TLS.Current().Authorities
		}
		write(t, s.path(certs.CAFile), text)
		waitFor(t, "new authorities", func() bool {
			for i, n := range nodes {
				if n.cfg.TLS.Current().Authorities == was[i] {
					return false
				}
			}
			return true
		})
	}
	setCA(append(newCA, oldCA...))
	write(t, s.path(certs.CAKeyFile), read(t, next.path(certs.CAKeyFile)))
	step("certificates of the new authority", renew)
	setCA(newCA)
	// The key of gossip.
	for _, rotation := range []struct {
		step string
		keys int
	}{{certs.KeysAdd, 2}, {certs.KeysUse, 2}, {certs.KeysDrop, 1}} {
		if err := certs.RotateKeys(s.gossip, rotation.step); err != nil {
			t.Fatal(err)
		}
		want, err := certs.ReadKeys(s.gossip)
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "keys: "+rotation.step, func() bool {
			for _, n := range nodes {
				if got := n.gossip.ring.GetKeys(); len(got) != rotation.keys || !bytes.Equal(got[0], want[0]) {
					return false
				}
			}
			return true
		})
	}
	time.Sleep(retireGrace + 500*time.Millisecond) // old connections end meanwhile
	if n := stop(); n < 50 {
		t.Errorf("%d writes only", n)
	}
	sameState(t, nodes...)
	for _, n := range nodes {
		if got := len(n.gossip.peers()); got != 2 {
			t.Errorf("%s sees %d others", n.cfg.Name, got)
		}
	}
	if log.has("port refused") {
		t.Errorf("a member was refused:\n%s", log)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := certs.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Settings that change answers are compared with the leader's, by mark only.
func TestDifferingSettingsAreNamed(t *testing.T) {
	t.Parallel()
	s := newSecret(t)
	log := &lines{}
	nodes := trio(t, func(c *Config) {
		s.protect(t, c, log)
		name := c.Name
		c.SettingMarks = func(key []byte) map[string][]byte {
			if len(key) == 0 {
				t.Error("marks without the key")
			}
			marks := map[string][]byte{"paginate_by": []byte("1"), "secret": []byte("same")}
			if name == "n2" {
				marks["paginate_by"] = []byte("2")
			}
			return marks
		}
	})
	want := func(n *testNode) bool {
		d := n.SettingsDiffer()
		if leaderOf(t, nodes...).cfg.Name == "n2" { // the others differ from it
			return slices.Equal(d["n0"], []string{"paginate_by"}) && slices.Equal(d["n1"], []string{"paginate_by"})
		}
		return len(d) == 1 && slices.Equal(d["n2"], []string{"paginate_by"})
	}
	waitFor(t, "the leader to know", func() bool { return want(leaderOf(t, nodes...)) })
	if !log.has("settings that change answers are not the leader's") {
		t.Error("no line about it")
	}
	l := leaderOf(t, nodes...)
	for _, n := range others(l, nodes) { // they hear it with their next comparison
		if err := n.tellSettings(); err != nil && !errors.Is(err, fsm.ErrNoLeader) {
			t.Error(err)
		}
		if leaderOf(t, nodes...) == l && !want(n) {
			t.Errorf("%s knows %v", n.cfg.Name, n.SettingsDiffer())
		}
	}
	// Not over plaintext.
	if status, _ := l.serveSettings(t.Context(), encodeMarks(nil)); status != statusRefused {
		t.Errorf("settings of nobody: %d", status)
	}
}

func TestPlaintextStaysOnTheMachine(t *testing.T) {
	s := newSecret(t)
	for name, tc := range map[string]struct {
		change func(c *Config)
		want   error
	}{
		"plaintext":       {func(*Config) {}, ErrPlaintext},
		"without gossip":  {func(c *Config) { c.GossipKeys = nil }, ErrPlaintext},
		"protected":       {func(c *Config) { s.protect(t, c, io.Discard) }, nil},
		"only TLS":        {func(c *Config) { s.protect(t, c, io.Discard); c.GossipKeys = nil }, ErrPlaintext},
		"TLS, no gossip":  {func(c *Config) { s.protect(t, c, io.Discard); c.GossipKeys, c.GossipAddr = nil, "" }, nil},
		"told so":         {func(c *Config) { c.InsecurePlaintext = true }, nil},
		"for all to hear": {func(c *Config) { c.InsecurePlaintext, c.ClusterAddr = true, "0.0.0.0:7000" }, ErrConfig},
	} {
		c := testConfig(t, "n0")
		c.ClusterAddr, c.GossipAddr = "192.0.2.1:7000", "192.0.2.1:7001"
		tc.change(&c)
		if err := c.validate(); !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}
