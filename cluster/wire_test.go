package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// The formats that reach a wire or a disk: a changed line here is a changed
// format, which needs a version.
func TestFormatsDoNotChange(t *testing.T) {
	l := &raft.Log{Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext")}
	stable := &memStable{}
	if err := (&stableStore{inner: stable}).SetUint64([]byte("CurrentTerm"), 5); err != nil {
		t.Fatal(err)
	}
	id, err := encodeIdentity(identityData{Format: 1, Name: "n1", ID: "u1", Cluster: "c1", Stage: stageMember, Bootstrap: []founder{{"n1", "u1", "a1"}}})
	if err != nil {
		t.Fatal(err)
	}
	checksum := make([]byte, 0, 8)
	for s := 56; s >= 0; s -= 8 {
		checksum = append(checksum, byte(logChecksum(l)>>s))
	}
	lines := []struct {
		name string
		b    []byte
	}{
		{"preamble", encodePreamble(channelRPC, &hello{Cluster: "c1", Founders: 9, From: "n1", ID: "u1", To: "n2"})},
		{"frame", encodeFrame(&frame{kind: callForward, status: statusNotLeader, id: 5, deadline: 1000, payload: []byte("hello")})},
		{"metadata", (&peerMeta{ID: "u1", Addr: "a:1", HTTP: "h:1", Cluster: "c1", Expect: 3, Empty: true, Proposal: 9}).encode()},
		{"join", (&joinRequest{Name: "n1", ID: "u1", Addr: "a:1", Cluster: "c1", Level: 1, Empty: true}).encode()},
		{"join answer", (&joinAnswer{Cluster: "c1", Leader: "n1", LeaderAddr: "a:1", Founders: []founder{{"n1", "u1", "a:1"}}}).encode()},
		{"status", (&nodeStatus{Name: "n1", ID: "u1", HTTP: "h:1", Addr: "a:1", Term: 2, Revision: 3, Applied: 4, Ready: true,
			Clock: 5, LastIndex: 6, Received: 7, Unpacking: true, Writable: true, Gossip: "g:1", Alarms: []alarm{{"n2", "stuck"}}}).encode()},
		{"status archived", (&nodeStatus{Name: "n1", Archived: 300}).encode()},
		{"status archives", (&nodeStatus{Name: "n1", Archived: 300, Archives: true}).encode()},
		{"change", (&Change{Action: ActionRemove, Name: "n3", Force: true}).encode()},
		{"entries", encodeEntries([]*raft.Log{{Index: 300, Term: 2, Type: raft.LogCommand, Data: []byte("x")}, {Index: 301, Term: 3, Type: raft.LogNoop}})},
		{"log checksum", checksum},
		{"stable value", stable.v},
		{"identity", id},
	}
	var got strings.Builder
	for _, e := range lines {
		got.WriteString(e.name + " " + hex.EncodeToString(e.b) + "\n")
	}
	golden := filepath.Join("testdata", "formats.golden")
	if os.Getenv("REWRITE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

type memStable struct {
	raft.StableStore
	v []byte
}

func (m *memStable) Set(_, v []byte) error          { m.v = v; return nil }
func (m *memStable) Get(_ []byte) ([]byte, error)   { return m.v, nil }
func (m *memStable) SetUint64([]byte, uint64) error { return errors.New("not used") }

func TestMessagesSurviveTheWire(t *testing.T) {
	j := &joinRequest{Name: "n", ID: "i", Addr: "a", Cluster: "c", Level: 7, Empty: true}
	if got, err := decodeJoinRequest(j.encode()); err != nil || *got != *j {
		t.Errorf("%+v %v", got, err)
	}
	a := &joinAnswer{Cluster: "c", Leader: "l", LeaderAddr: "x", Founders: []founder{{"n", "i", "a"}}}
	if got, err := decodeJoinAnswer(a.encode()); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("%+v %v", got, err)
	}
	s := &nodeStatus{Name: "n", Ready: true, Clock: 5, Gossip: "g", Alarms: []alarm{{"a", "b"}}, Archived: 9}
	if got, err := decodeStatus(s.encode()); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v %v", got, err)
	}
	c := &Change{Action: ActionDemote, Name: "n", Force: true}
	if got, err := decodeChange(c.encode()); err != nil || *got != *c {
		t.Errorf("%+v %v", got, err)
	}
	// An older node sends fewer fields, a newer one more.
	if got, err := decodeJoinRequest(appendString(nil, "n")); err != nil || got.Name != "n" || got.Level != 0 {
		t.Errorf("short: %+v %v", got, err)
	}
	if got, err := decodeJoinRequest(append(j.encode(), 1, 2, 3)); err != nil || *got != *j {
		t.Errorf("long: %+v %v", got, err)
	}
}

func TestGossipMetadataFitsItsLimit(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	p := peerMeta{ID: long(36), Addr: long(MaxAddrBytes), HTTP: long(MaxAddrBytes), Cluster: long(36), Expect: 1 << 40, Proposal: 1<<64 - 1}
	if n := len(p.encode()); n > 512 {
		t.Errorf("%d bytes", n)
	}
}

func TestChecksumsCatchEveryBit(t *testing.T) {
	inner := raft.NewInmemStore()
	s := newLogStore(inner)
	l := &raft.Log{Index: 1, Term: 2, Type: raft.LogCommand, Data: []byte("some data")}
	if err := s.StoreLog(l); err != nil {
		t.Fatal(err)
	}
	s.cache.drop(1)
	var got raft.Log
	if err := s.GetLog(1, &got); err != nil || string(got.Data) != "some data" || got.Extensions != nil {
		t.Fatalf("%+v %v", got, err)
	}
	for name, damage := range map[string]func(l *raft.Log){
		"data":      func(l *raft.Log) { l.Data = []byte("some dbta") },
		"term":      func(l *raft.Log) { l.Term++ },
		"type":      func(l *raft.Log) { l.Type = raft.LogNoop },
		"extension": func(l *raft.Log) { l.Extensions = append([]byte("x"), l.Extensions...) },
		"checksum":  func(l *raft.Log) { l.Extensions = nil },
	} {
		var stored raft.Log
		if err := inner.GetLog(1, &stored); err != nil {
			t.Fatal(err)
		}
		good := stored
		damage(&stored)
		_ = inner.StoreLog(&stored)
		if err := s.GetLog(1, &got); !errors.Is(err, fsm.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.verify(0); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s, at the start: %v", name, err)
		}
		_ = inner.StoreLog(&good)
	}
	m := &memStable{}
	stable := &stableStore{inner: m}
	if err := stable.SetUint64([]byte("k"), 77); err != nil {
		t.Fatal(err)
	}
	if v, err := stable.GetUint64([]byte("k")); err != nil || v != 77 {
		t.Errorf("%d %v", v, err)
	}
	for i := range len(m.v) * 8 {
		m.v[i/8] ^= 1 << (i % 8)
		if _, err := stable.GetUint64([]byte("k")); !errors.Is(err, fsm.ErrCorrupt) {
			t.Errorf("bit %d: %v", i, err)
		}
		m.v[i/8] ^= 1 << (i % 8)
	}
}

func TestLogCacheIsBoundedAndRight(t *testing.T) {
	s := newLogStore(raft.NewInmemStore())
	for i := uint64(1); i <= 40; i++ {
		if err := s.StoreLog(&raft.Log{Index: i, Data: bytes.Repeat([]byte{byte(i)}, 1<<20)}); err != nil {
			t.Fatal(err)
		}
	}
	if s.cache.bytes > LogCacheBytes {
		t.Errorf("%d bytes cached", s.cache.bytes)
	}
	check := func(i uint64, want byte) {
		t.Helper()
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil || l.Index != i || l.Data[0] != want {
			t.Errorf("entry %d: %v %v", i, l.Index, err)
		}
	}
	check(1, 1)
	check(40, 40)
	if err := s.DeleteRange(1, 5); err != nil || len(s.cache.logs) == 0 {
		t.Errorf("a cut before the cache emptied it: %v", err)
	}
	if err := s.DeleteRange(38, 40); err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := s.GetLog(39, &l); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("a deleted entry: %v", err)
	}
	if err := s.StoreLog(&raft.Log{Index: 38, Data: []byte{200}}); err != nil {
		t.Fatal(err)
	}
	check(38, 200)
	check(37, 37)
}

func TestStrangersOnTheClusterPortDoNoHarm(t *testing.T) {
	n := startNode(t, testConfig(t, "solo"))
	ready(t, n)
	own := n.clusterID()
	self := hello{Cluster: own, Founders: 0, From: "x", ID: "x", To: "solo"}
	foreign, misrouted := self, self
	foreign.Cluster, misrouted.To = "other", "else"
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	huge := append(encodePreamble(channelRPC, &self), bytes.Repeat([]byte{0xff}, 100)...)
	badPreamble := encodePreamble(channelRaft, &self)
	badPreamble[len(badPreamble)-1] ^= 1
	for name, tc := range map[string]struct {
		send   []byte
		answer []byte
	}{
		"http":            {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), nil},
		"tls":             {[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), nil},
		"noise":           {noise, nil},
		"half a preamble": {encodePreamble(channelRaft, &self)[:9], nil},
		"bad checksum":    {badPreamble, nil},
		"foreign raft":    {encodePreamble(channelRaft, &foreign), []byte{refuseCluster}},
		"foreign rpc":     {encodePreamble(channelRPC, &foreign), []byte{refuseCluster}},
		"misrouted":       {encodePreamble(channelRPC, &misrouted), []byte{refuseMisrouted}},
		"unknown channel": {encodePreamble(9, &self), []byte{refuseVersion}},
		"noise in rpc":    {huge, []byte{welcome}},
		"noise in raft":   {append(encodePreamble(channelRaft, &self), noise[:1000]...), []byte{welcome}},
	} {
		conn, err := net.Dial("tcp", n.ClusterAddr())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = conn.Write(tc.send)
		_ = conn.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(conn)
		if len(got) > 0 && len(tc.answer) == 0 || len(tc.answer) > 0 && (len(got) == 0 || got[0] != tc.answer[0]) {
			t.Errorf("%s: answered %q", name, got)
		}
		_ = conn.Close()
	}
	mustPut(t, n, "still")
	waitFor(t, "the connections to be closed", func() bool {
		n.mux.mu.Lock()
		defer n.mux.mu.Unlock()
		return n.mux.inbound <= 1 // its own
	})
}

func TestForeignClustersDoNotMix(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	c := testConfig(t, "lone")
	n := startNode(t, c)
	ready(t, n)
	mustPut(t, n, "own")
	n.stop(t)
	// Started again as if it were to join the others.
	c.GossipAddr, c.Join = freeAddr(t), []string{nodes[0].cfg.GossipAddr}
	n = startNode(t, c)
	ready(t, n)
	tellsOf(t, n, "gossip meets nodes of another cluster", "n0, n1, n2")
	tellsOf(t, nodes[0], "gossip meets nodes of another cluster", "lone")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	l := leaderOf(t, nodes...)
	if _, err := n.client.call(ctx, l.cfg.Name, l.ClusterAddr(), callStatus, nil); !errors.Is(err, ErrForeignCluster) {
		t.Errorf("call into a foreign cluster: %v", err)
	}
	r := joinRequest{Name: "lone", ID: "x", Addr: c.ClusterAddr, Cluster: n.clusterID(), Level: 1}
	if status, text := l.serveJoin(ctx, r.encode()); status != statusForeign {
		t.Errorf("join of a foreign node: %d %s", status, text)
	}
	r.Cluster = ""
	if status, text := l.serveJoin(ctx, r.encode()); status != statusForeign {
		t.Errorf("join with a state of its own: %d %s", status, text)
	}
	waitFor(t, "the feature level", func() bool { // the leader raises it when it begins to lead
		v, err := l.fsm.View()
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		return v.FeatureLevel() > 0
	})
	r.Empty, r.Level = true, 0
	if status, text := l.serveJoin(ctx, r.encode()); status != statusRefused {
		t.Errorf("join of an old binary: %d %s", status, text)
	}
	if l.voters() != 3 || len(l.servers()) != 3 {
		t.Errorf("the configuration changed: %v", l.servers())
	}
}

func TestSecondNodeOfANameIsRefused(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	c := nodes[1].cfg
	c.DataDir = filepath.Join(t.TempDir(), "twin")
	c.ClusterAddr, c.GossipAddr = freeAddr(t), freeAddr(t)
	n, err := tryNode(t, c)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.WaitReady(ctx); !errors.Is(err, ErrNameTaken) {
		t.Errorf("twin: %v", err)
	}
	ready(t, nodes...)
	mustPut(t, leaderOf(t, nodes...), "a")
}

func TestOverloadIsAnAnswer(t *testing.T) {
	block := make(chan struct{})
	s := &server{ctx: t.Context()}
	h := func(context.Context, []byte) (callStatusCode, []byte) { <-block; return statusOK, nil }
	out := make(chan []byte, 3*MaxCalls)
	done := make(chan struct{})
	for i := range MaxCalls + 10 {
		s.accept(s.ctx, h, &frame{kind: callForward, id: uint64(i), deadline: 1000}, out, done)
	}
	s.accept(s.ctx, nil, &frame{kind: 77}, out, done)
	refused := 0
	for len(out) > 0 {
		switch b := <-out; callStatusCode(b[5]) {
		case statusOverloaded:
			refused++
		case statusUnknown:
		default:
			t.Errorf("answer %d", b[5])
		}
	}
	if refused != 10 {
		t.Errorf("%d calls refused, want 10", refused)
	}
	close(block)
	s.wg.Wait()
	if s.calls.Load() != 0 || s.bytes.Load() != 0 {
		t.Error("counters leak")
	}
}

func FuzzPreamble(f *testing.F) {
	f.Add(encodePreamble(channelRaft, &hello{Cluster: "c", From: "a", ID: "b", To: "d"}))
	f.Add([]byte("QNTO\x01\x01\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		ch, h, err := readPreamble(r)
		if err != nil {
			return
		}
		read := b[:len(b)-r.Len()]
		if len(read) > preambleHead+maxHelloBytes+4 {
			t.Fatal("read too much")
		}
		if _, h2, err := readPreamble(bytes.NewReader(encodePreamble(ch, h))); err != nil || *h2 != *h {
			t.Fatalf("%+v %+v %v", h, h2, err)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(encodeFrame(&frame{kind: callForward, id: 1, payload: []byte("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		local, remote := net.Pipe()
		defer func() { _ = local.Close(); _ = remote.Close() }()
		got, err := readFrame(bufio.NewReader(bytes.NewReader(b)), local)
		if err == nil && !bytes.Equal(encodeFrame(got)[:6], b[:6]) {
			t.Fatal("not the same frame")
		}
	})
}

func FuzzMessages(f *testing.F) {
	f.Add((&joinAnswer{Cluster: "c", Founders: []founder{{"a", "b", "c"}}}).encode())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeJoinRequest(b)
		_, _ = decodeJoinAnswer(b)
		_, _ = decodeStatus(b)
		_, _ = decodeChange(b)
		_, _ = decodeMeta("n", b)
		_, _ = decodeIdentity(b)
	})
}
