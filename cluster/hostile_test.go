package cluster

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"quinto/internal/certs"
)

// What strangers do to the ports between nodes (reliability notes 4.6 and 5): on
// plaintext ports, where they may say what a node says, and on protected ones, where
// nothing of theirs is read. The node serves on, and gives no memory away.

// maxGrowth is what one attack may make a process allocate, its own work included.
const maxGrowth = 64 << 20

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// giantFrame is the head of a call with a payload of n bytes that never come.
func giantFrame(n uint32) []byte {
	b := make([]byte, frameHead)
	binary.BigEndian.PutUint32(b, n)
	b[4] = byte(callForward)
	binary.BigEndian.PutUint32(b[20:], crc32.Checksum(b[:20], castagnoli))
	return b
}

// hostileStreams are what is sent on one connection, by name.
func hostileStreams(h *hello) map[string][]byte {
	raft, rpc := encodePreamble(channelRaft, h), encodePreamble(channelRPC, h)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	streams := map[string][]byte{
		"http on raft":          []byte("POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"),
		"http after preamble":   join(raft, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
		"preamble of 64 KiB":    []byte("QNTO\x01\x01\xff\xff"),
		"preamble twice":        join(rpc, rpc),
		"half a frame":          join(rpc, giantFrame(100)[:10]),
		"frame of 4 GiB":        join(rpc, giantFrame(1<<32-1)),
		"frame never sent":      join(rpc, giantFrame(MaxCallBytes)),
		"frame beyond limit":    join(rpc, giantFrame(MaxCallBytes+1)),
		"unknown call":          join(rpc, encodeFrame(&frame{kind: 250, id: 1, deadline: 1, payload: []byte("x")})),
		"answer as a call":      join(rpc, encodeFrame(&frame{kind: callStatus, status: statusFailed, id: 1})),
		"garbage calls":         rpc,
		"raft: unknown command": join(raft, []byte{0xff, 1, 2, 3}),
		// msgpack: a map that says it has 2^32-1 members, bytes and text of 4 GiB.
		"raft: giant map":   join(raft, []byte{0, 0xdf, 0xff, 0xff, 0xff, 0xff}),
		"raft: giant bytes": join(raft, []byte{0, 0x81, 0xa4}, []byte("Term"), []byte{0xc6, 0xff, 0xff, 0xff, 0xff}),
		"raft: giant text":  join(raft, []byte{1, 0xdb, 0xff, 0xff, 0xff, 0xff}),
		"raft: giant list":  join(raft, []byte{0, 0x81, 0xa7}, []byte("Entries"), []byte{0xdd, 0xff, 0xff, 0xff, 0xff}),
		"raft: deep":        join(raft, []byte{0}, bytes.Repeat([]byte{0x91}, 100_000)),
		"raft: snapshot":    join(raft, []byte{2, 0x81, 0xa4}, []byte("Size"), []byte{0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
	}
	for kind := callType(0); kind < 20; kind++ {
		streams["garbage calls"] = append(streams["garbage calls"], encodeFrame(&frame{kind: kind, id: uint64(kind), deadline: 100, payload: noise(uint64(kind), 500)})...)
	}
	for i := range uint64(10) {
		streams[fmt.Sprintf("noise %d", i)] = noise(i, 4096)
		streams[fmt.Sprintf("noise in raft %d", i)] = join(raft, []byte{byte(i % 5)}, noise(i, 4096))
		streams[fmt.Sprintf("noise in rpc %d", i)] = join(rpc, noise(i, 4096))
	}
	return streams
}

// assault sends b and closes its half, then reads to the end.
func assault(t *testing.T, addr string, b []byte, secure *tls.Config) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if secure != nil {
		c := tls.Client(conn, secure)
		_, _ = c.Write(b)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		return
	}
	_, _ = conn.Write(b) // may be cut
	_ = conn.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, conn)
}

// allocated returns what the process has allocated in all.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestHostileBytesOnTheClusterPort(t *testing.T) {
	for name, secure := range map[string]bool{"plaintext": false, "TLS": true, "TLS of a member": true} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t, "solo")
			var dial *tls.Config
			if secure {
				s := newSecret(t)
				s.protect(t, &c, io.Discard)
				if name != "TLS" { // then all that follows is really read
					pair, err := tls.LoadX509KeyPair(s.path("solo.pem"), s.path("solo.key"))
					if err != nil {
						t.Fatal(err)
					}
					dial = &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{wireProtocol}}
				}
			}
			n := startNode(t, c)
			ready(t, n)
			term := n.raft.CurrentTerm()
			before := allocated()
			h := &hello{Cluster: n.clusterID(), From: "solo", ID: "x", To: "solo"}
			for what, b := range hostileStreams(h) {
				total := allocated()
				assault(t, n.ClusterAddr(), b, dial)
				if grown := allocated() - total; grown > maxGrowth {
					t.Errorf("%s: %d MiB allocated", what, grown>>20)
				}
			}
			t.Logf("%d MiB allocated in all", (allocated()-before)>>20)
			mustPut(t, n, "still")
			if secure && dial == nil && n.raft.CurrentTerm() != term {
				t.Error("a stranger has moved the term")
			}
			waitFor(t, "the connections to be closed", func() bool {
				n.mux.mu.Lock()
				defer n.mux.mu.Unlock()
				return n.mux.inbound <= 1 && len(n.mux.greeting) == 0 // its own
			})
		})
	}
}

// Many calls on one connection, answered in any order; one that is half closed is
// answered what it has asked before.
func TestPipelinedCallsAndHalfClose(t *testing.T) {
	n := startNode(t, testConfig(t, "solo"))
	ready(t, n)
	conn, err := net.Dial("tcp", n.ClusterAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	b := encodePreamble(channelRPC, &hello{Cluster: n.clusterID(), From: "solo", ID: "x", To: "solo"})
	const calls = 200
	for i := range calls {
		b = append(b, encodeFrame(&frame{kind: callStatus, id: uint64(i), deadline: 5000})...)
	}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	got, want := 0, 1+calls*len(encodeFrame(&frame{payload: n.status().encode()}))
	buffer := make([]byte, 64<<10)
	for got < want-calls { // numbers inside may take a byte more or less
		k, err := conn.Read(buffer)
		if err != nil {
			t.Fatalf("%d of about %d bytes: %v", got, want, err)
		}
		got += k
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("after the half-close: %v", err)
	}
}

func gossipPackets() map[string][]byte {
	packets := map[string][]byte{
		"empty":      {},
		"http":       []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"label":      append([]byte{244, 255}, bytes.Repeat([]byte("x"), 300)...),
		"nested":     bytes.Repeat([]byte{7, 1, 0, 200}, 200), // compound in compound
		"compressed": append([]byte{9}, noise(1, 1000)...),
		"crc":        append([]byte{12}, noise(2, 1000)...),
		// An encrypted stream of 4 GiB; a push/pull that says it has 2^31 nodes.
		"giant": append([]byte{10, 0xff, 0xff, 0xff, 0xff}, noise(3, 1000)...),
		"nodes": append([]byte{6, 0x83, 0xa5}, "Nodes\xce\x7f\xff\xff\xff\xacUserStateLen\xce\x7f\xff\xff\xff\xa4Join\xc3"...),
		"user":  append([]byte{8, 0x81, 0xac}, "UserMsgLen00\xce\x7f\xff\xff\xff"...),
	}
	for kind := range 20 {
		packets[fmt.Sprintf("type %d", kind)] = append([]byte{byte(kind)}, noise(uint64(kind), 800)...)
	}
	return packets
}

func TestHostileBytesOnTheGossipPort(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plaintext": false, "encrypted": true} {
		t.Run(name, func(t *testing.T) {
			var s *secret
			if secure {
				s = newSecret(t)
			}
			nodes := trio(t, func(c *Config) {
				if secure {
					s.protect(t, c, io.Discard)
				}
			})
			n := nodes[0]
			udp, err := net.Dial("udp", n.cfg.GossipAddr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = udp.Close() }()
			for what, b := range gossipPackets() {
				total := allocated()
				assault(t, n.cfg.GossipAddr, b, nil)
				for range 5 {
					_, _ = udp.Write(b)
				}
				if grown := allocated() - total; grown > maxGrowth {
					t.Errorf("%s: %d MiB allocated", what, grown>>20)
				}
			}
			// Connections that say nothing.
			for range 300 {
				c, err := net.Dial("tcp", n.cfg.GossipAddr)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
			}
			mustPut(t, leaderOf(t, nodes...), "still")
			n.gossip.join([]string{nodes[1].cfg.GossipAddr})
			waitFor(t, "all to see each other", func() bool { return len(n.gossip.peers()) == 2 && len(nodes[1].gossip.peers()) == 2 })
		})
	}
}

// Whoever has no key, an old key or another label learns of nobody and is known to nobody.
func TestGossipWithoutTheKey(t *testing.T) {
	t.Parallel()
	s, foreign := newSecret(t), newSecret(t)
	log := &lines{}
	member := testConfig(t, "member")
	member.GossipAddr, member.Expect = freeAddr(t), 2
	s.protect(t, &member, log)
	n := startNode(t, member)
	for name, change := range map[string]func(c *Config){
		"no key":        func(c *Config) { s.protect(t, c, log); c.GossipKeys = nil },
		"another key":   func(c *Config) { s.protect(t, c, log); foreign.protect(t, c, log) },
		"another label": func(c *Config) { s.protect(t, c, log); c.GossipLabel = "else" },
	} {
		c := testConfig(t, strings.ReplaceAll(name, " ", "-"))
		c.GossipAddr, c.Join, c.Expect = freeAddr(t), []string{member.GossipAddr}, 2
		change(&c)
		g, err := tryNode(t, c)
		if err != nil {
			t.Fatal(err)
		}
		g.gossip.join(c.Join)
		n.gossip.join([]string{c.GossipAddr})
		if a, b := g.gossip.peers(), n.gossip.peers(); len(a) > 0 || len(b) > 0 {
			t.Errorf("%s: it sees %v, the member sees %v", name, a, b)
		}
		g.stop(t)
	}
	c := testConfig(t, "friend") // the same with the key
	c.GossipAddr, c.Join, c.Expect = freeAddr(t), []string{member.GossipAddr}, 2
	s.protect(t, &c, log)
	friend := startNode(t, c)
	ready(t, n, friend)
}

// Keys are rotated in any order, also by several at a time, and none that is not in
// the file stays.
func TestKeysOfTheRing(t *testing.T) {
	c := testConfig(t, "solo")
	c.GossipAddr = freeAddr(t)
	newSecret(t).protect(t, &c, io.Discard)
	n := startNode(t, c)
	key := func(b byte) []byte { return bytes.Repeat([]byte{b}, certs.GossipKeyBytes) }
	for _, keys := range [][][]byte{{key(1)}, {key(1), key(2)}, {key(2), key(1)}, {key(3), key(2), key(1)}, {key(3), key(1)}, {key(4)}, {key(1), key(2), key(3), key(4)}, {key(4), key(1)}} {
		n.gossip.setKeys(keys)
		got := n.gossip.ring.GetKeys()
		if len(got) != len(keys) {
			t.Fatalf("%d keys, want %d", len(got), len(keys))
		}
		for i := range keys {
			if !bytes.Equal(got[i], keys[i]) {
				t.Errorf("key %d: %x, want %x", i, got[i][0], keys[i][0])
			}
		}
	}
}
