package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"quinto/fsm"
)

func TestFoundersMustAllProposeTheSame(t *testing.T) {
	ident, err := openIdentity(&Config{Name: "a", Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{cfg: Config{Name: "a", Expect: 3}, ident: ident, addr: "a:1"}
	b := peerMeta{Name: "b", ID: "ib", Addr: "b:1", Expect: 3, Empty: true}
	c := peerMeta{Name: "c", ID: "ic", Addr: "c:1", Expect: 3, Empty: true}
	x := peerMeta{Name: "x", ID: "ix", Addr: "x:1", Expect: 3, Empty: true}
	set, agreed, err := n.founders([]peerMeta{c, b})
	if err != nil || agreed || len(set) != 3 || !slices.IsSortedFunc(set, func(p, q founder) int { return cmp.Compare(p.Name, q.Name) }) {
		t.Fatalf("nobody has proposed yet: %v %v %v", set, agreed, err)
	}
	hash := foundersHash(set)
	with := func(p peerMeta, proposal uint64) peerMeta { p.Proposal = proposal; return p }
	other := b
	other.Expect = 5
	for _, tc := range []struct {
		name  string
		peers []peerMeta
		agree bool
		err   string
	}{
		{"all propose it", []peerMeta{with(b, hash), with(c, hash)}, true, ""},
		{"one has not yet", []peerMeta{with(b, hash), c}, false, ""},
		{"one proposes another set", []peerMeta{with(b, hash), with(c, 7)}, false, ""},
		{"another set complete here", []peerMeta{with(b, hash), with(x, hash)}, false, ""},
		{"too few", []peerMeta{with(b, hash)}, false, "2 of 3"},
		{"too many", []peerMeta{with(b, hash), with(c, hash), x}, false, "4 of 3"},
		{"another size", []peerMeta{with(other, hash), with(c, hash)}, false, "expects 5"},
	} {
		_, agreed, err := n.founders(tc.peers)
		if agreed != tc.agree || (tc.err == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %v %v", tc.name, agreed, err)
		}
	}
}

func TestFounderThatMissedTheMomentAdopts(t *testing.T) {
	var nodes []*testNode
	var seeds []string
	for i := range 3 {
		c := testConfig(t, fmt.Sprintf("n%d", i))
		c.GossipAddr = freeAddr(t)
		seeds = append(seeds, c.GossipAddr)
		c.Join, c.Expect = []string{seeds[0]}, 4 // never reached: nobody bootstraps by himself
		nodes = append(nodes, startNode(t, c))
	}
	var set []founder
	for _, n := range nodes {
		set = append(set, n.founder())
	}
	if err := nodes[0].bootstrap(set); err != nil {
		t.Fatal(err)
	}
	ready(t, nodes...)
	mustPut(t, leaderOf(t, nodes...), "a")
	sameState(t, nodes...)
}

func TestClusterRestartsWithAllAddressesChanged(t *testing.T) {
	t.Parallel()
	if raceDetector {
		t.Skip("a race inside raft, see raceDetector")
	}
	nodes := trio(t, nil)
	mustPut(t, leaderOf(t, nodes...), "a")
	configs := make([]Config, 3)
	var seeds []string
	for i, n := range nodes {
		configs[i] = n.cfg
		n.stop(t)
		configs[i].ClusterAddr, configs[i].GossipAddr = freeAddr(t), freeAddr(t)
		seeds = append(seeds, configs[i].GossipAddr)
	}
	for i, c := range configs {
		c.Join = seeds
		nodes[i] = startNode(t, c)
	}
	know(nodes)
	ready(t, nodes...)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "b")
	for _, n := range nodes {
		if !has(t, n, "a") || !has(t, n, "b") {
			t.Errorf("%s lacks a write", n.cfg.Name)
		}
	}
	waitFor(t, "the configuration to follow", func() bool {
		for _, s := range l.servers() {
			if !slices.ContainsFunc(configs, func(c Config) bool { return c.ClusterAddr == string(s.Address) }) {
				return false
			}
		}
		return true
	})
}

func TestHaltedLeaderHandsOver(t *testing.T) {
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	l.halt(fmt.Errorf("%w: for a test", fsm.ErrHalted))
	begin := time.Now()
	next := leaderOf(t, others(l, nodes)...)
	mustPut(t, next, "b")
	t.Logf("handed over after %s", time.Since(begin))
	if l.IsLeader() || l.Ready() == nil {
		t.Error("the halted node is still in service")
	}
	select {
	case <-l.Failed():
	default:
		t.Error("the halted node does not say so")
	}
}
