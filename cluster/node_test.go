package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quinto/fsm"
)

func TestLoneNodeLeadsAtOnceAndKeepsItsState(t *testing.T) {
	c := testConfig(t, "solo")
	// Much longer than a start may take, on whatever machine.
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLease = time.Minute, time.Minute, time.Minute
	begin := time.Now()
	n, err := tryNode(t, c)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, n)
	t.Logf("first start to ready: %s", time.Since(begin))
	r := mustPut(t, n, "a")
	n.stop(t)
	begin = time.Now()
	n = startNode(t, c)
	ready(t, n)
	took := time.Since(begin)
	t.Logf("restart to ready: %s", took)
	if took > 15*time.Second {
		t.Errorf("a lone voter waited %s, as if for a heartbeat", took)
	}
	if !has(t, n, "a") || n.fsm.Revision() < r {
		t.Error("the write is gone")
	}
}

func TestMemoryNodeServesAndIsSingleOnly(t *testing.T) {
	c := testConfig(t, "mem")
	c.Memory, c.DataDir = true, ""
	n := startNode(t, c)
	ready(t, n)
	mustPut(t, n, "a")
	if !has(t, n, "a") {
		t.Error("write not read")
	}
	c.Expect, c.GossipAddr = 3, freeAddr(t)
	if _, err := tryNode(t, c); !errors.Is(err, ErrConfig) {
		t.Errorf("three memory nodes: %v", err)
	}
}

func TestThreeNodesFormWriteReadAndReport(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	for i := range 20 {
		id := fmt.Sprint("b", i)
		mustPut(t, l, id)
		if n := nodes[i%3]; !has(t, n, id) {
			t.Fatalf("%s: an acknowledged write is not read on %s", id, n.cfg.Name)
		}
	}
	ctx := context.Background()
	f := others(l, nodes)[0]
	if _, err := f.Propose(ctx, put("no")); !errors.Is(err, fsm.ErrNotLeader) {
		t.Errorf("follower proposes: %v", err)
	}
	if _, _, err := f.LeaderView(); !errors.Is(err, fsm.ErrNotLeader) {
		t.Errorf("leader view of a follower: %v", err)
	}
	answer, err := f.Forward(ctx, []byte("hi"))
	if err != nil || string(answer) != l.cfg.Name+":hi" {
		t.Errorf("forward: %q %v", answer, err)
	}
	for _, n := range nodes { // a follower hears of the last commit a while later
		if !has(t, n, "b19") {
			t.Errorf("%s has not the last write", n.cfg.Name)
		}
	}
	members, err := f.Members(ctx)
	if err != nil || len(members) != 3 {
		t.Fatalf("members %v %v", members, err)
	}
	leaders := 0
	for _, m := range members {
		if m.Role == roleLeader {
			leaders++
		}
		if !m.Ready || m.Suffrage != voter || m.HTTP == "" || m.Revision == 0 || m.Lag > 1 {
			t.Errorf("member %+v", m)
		}
	}
	if got, ok := f.Leader(); leaders != 1 || !ok || got.Name != l.cfg.Name || got.HTTP == "" {
		t.Errorf("%d leaders, leader %+v", leaders, got)
	}
	v, err := l.View(ctx, fsm.Freshness{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, n := range nodes {
		if id, _ := v.Setting(nodeSetting + n.cfg.Name); string(id) != n.ident.get().ID {
			t.Errorf("setting of %s is %q", n.cfg.Name, id)
		}
	}
	if v.FeatureLevel() != fsm.FeatureLevel1 {
		t.Errorf("feature level %d", v.FeatureLevel())
	}
	sameState(t, nodes...)
}

func TestLeaderDiesAnotherTakesOverAndTheOldCatchesUp(t *testing.T) {
	t.Parallel()
	nodes := trio(t, func(c *Config) {
		c.SnapshotEntries, c.TrailingEntries = 40, 64
		c.SnapshotInterval = 100 * time.Millisecond
	})
	l := leaderOf(t, nodes...)
	mustPut(t, l, "before")
	dead := l.cfg
	rest := others(l, nodes)
	begin := time.Now()
	l.crash(t)
	next := leaderOf(t, rest...)
	mustPut(t, next, "after")
	t.Logf("from crash to the next acknowledged write: %s", time.Since(begin))
	for i := range 300 { // beyond what trails a snapshot
		mustPut(t, next, fmt.Sprint("x", i))
	}
	waitFor(t, "truncation", func() bool {
		first, err := next.logs.FirstIndex()
		return err == nil && first > 100
	})
	back := startNode(t, dead)
	know(append(rest, back))
	ready(t, back)
	for _, id := range []string{"before", "after", "x0", "x299"} {
		if !has(t, back, id) {
			t.Errorf("%s is missing", id)
		}
	}
	if meta, ok := back.store.SnapshotMeta(); !ok || meta.Index < 100 {
		t.Errorf("not caught up by a snapshot: %v %d", ok, meta.Index)
	}
	sameState(t, append(rest, back)...)
}

func TestPartitionedLeaderConfirmsNothing(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	_, term, err := leaderView(l)
	if err != nil {
		t.Fatal(err)
	}
	rest := others(l, nodes)
	isolate(l, rest, true)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := l.Confirm(ctx, term); err == nil {
		t.Error("a cut-off leader confirmed its leadership")
	}
	if v, err := l.View(ctx, fsm.Freshness{}); err == nil {
		v.Close()
		t.Error("a cut-off leader gave a linearizable view")
	}
	if v, err := l.View(t.Context(), fsm.Freshness{Level: fsm.Stale}); err != nil {
		t.Errorf("stale read: %v", err)
	} else {
		v.Close()
	}
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := l.Propose(ctx, put("lost")); err == nil {
		t.Error("a cut-off leader acknowledged a write")
	}
	next := leaderOf(t, rest...)
	mustPut(t, next, "b")
	waitFor(t, "the old leader to age", func() bool { return l.Staleness() > 0 && !l.IsLeader() })
	isolate(l, rest, false)
	ready(t, l)
	if !has(t, l, "b") {
		t.Error("healed node lacks a write")
	}
	sameState(t, nodes...)
}

func leaderView(n *testNode) (fsm.Revision, uint64, error) {
	v, term, err := n.LeaderView()
	if err != nil {
		return 0, 0, err
	}
	defer v.Close()
	return v.Revision(), term, nil
}

func TestTransferOnShutdownLosesNothing(t *testing.T) {
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	rest := others(l, nodes)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 100 {
			if _, err := rest[i%2].Forward(ctx, []byte("x")); err != nil && !errors.Is(err, fsm.ErrUnknownOutcome) {
				t.Errorf("forward %d: %v", i, err)
			}
		}
	})
	begin := time.Now()
	l.stop(t)
	t.Logf("shutdown of a leader took %s", time.Since(begin))
	wg.Wait()
	mustPut(t, leaderOf(t, rest...), "z")
}

func TestFourthNodeJoinsAndIsPromoted(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	c := testConfig(t, "n3")
	c.GossipAddr, c.Join = freeAddr(t), []string{nodes[1].cfg.GossipAddr}
	n := startNode(t, c)
	ready(t, n)
	if !has(t, n, "a") {
		t.Error("the new node lacks a write")
	}
	waitFor(t, "promotion", func() bool { return l.voters() == 4 })
	if raceDetector {
		return
	}
	// It comes back under another address.
	n.stop(t)
	c.ClusterAddr, c.GossipAddr = freeAddr(t), freeAddr(t)
	n = startNode(t, c)
	ready(t, n)
	waitFor(t, "the new address", func() bool {
		for _, s := range l.servers() {
			if string(s.ID) == "n3" && string(s.Address) == c.ClusterAddr {
				return true
			}
		}
		return false
	})
	mustPut(t, l, "b")
	if !has(t, n, "b") {
		t.Error("the moved node lacks a write")
	}
}

func TestLostDiskUnderAKnownNameIsRefused(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	victim := others(l, nodes)[0]
	waitFor(t, "the ids in the state", func() bool {
		v, err := l.fsm.View()
		if err != nil {
			return false
		}
		defer v.Close()
		id, _ := v.Setting(nodeSetting + victim.cfg.Name)
		return id != nil
	})
	victim.stop(t)
	if err := os.RemoveAll(victim.cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	n, err := tryNode(t, victim.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.WaitReady(ctx); !errors.Is(err, ErrNameTaken) {
		t.Errorf("wiped node: %v", err)
	}
	if n.raft.CurrentTerm() != 0 {
		t.Error("the wiped node took part in Raft")
	}
	mustPut(t, leaderOf(t, nodes...), "b")
}

func TestDamagedDirectoriesAreRefused(t *testing.T) {
	for _, library := range []string{LogBolt, LogWAL} {
		t.Run(library, func(t *testing.T) { damageLog(t, library) })
	}
}

// logPath is the file of dir that has the newest entries.
func logPath(t *testing.T, dir, library string) string {
	t.Helper()
	if library == LogBolt {
		return filepath.Join(dir, logFile)
	}
	segments, err := filepath.Glob(filepath.Join(dir, logFolder, "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	return segments[len(segments)-1]
}

func damageLog(t *testing.T, library string) {
	c := testConfig(t, "solo")
	c.LogStore = library
	n, err := tryNode(t, c)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, n)
	mustPut(t, n, "a")
	n.stop(t)
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(c.DataDir)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		damage func(dir string) error
		want   error
	}{
		{"another name", func(string) error { return nil }, ErrOtherNode},
		{"another log store", func(string) error { return nil }, ErrLogStore},
		{"log gone", func(d string) error { return os.Remove(logPath(t, d, library)) }, ErrDamaged},
		{"identity gone", func(d string) error { return os.Remove(filepath.Join(d, identityFile)) }, ErrDamaged},
		{"identity altered", func(d string) error { return flip(filepath.Join(d, identityFile), `"stage":"member"`, 'X') }, ErrDamaged},
		{"record altered", func(d string) error { return flip(logPath(t, d, library), `{"x":1}`, 'y') }, ErrDamaged},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := c
			d.DataDir = t.TempDir()
			if err := os.CopyFS(d.DataDir, os.DirFS(backup)); err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(d.DataDir); err != nil {
				t.Fatal(err)
			}
			if errors.Is(tc.want, ErrOtherNode) {
				d.Name = "other"
			}
			if errors.Is(tc.want, ErrLogStore) {
				d.LogStore = map[string]string{LogBolt: LogWAL, LogWAL: LogBolt}[library]
			}
			n, err := tryNode(t, d)
			if err == nil {
				n.stop(t)
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("started: %v", err)
			}
		})
	}
}

// flip changes one byte of every occurrence of text in a file.
func flip(path, text string, to byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Contains(b, []byte(text)) {
		return fmt.Errorf("%q not in %s", text, path)
	}
	changed := []byte(text)
	changed[2] = to
	return os.WriteFile(path, bytes.ReplaceAll(b, []byte(text), changed), 0o600)
}

func TestAddressesOffLoopbackAreRefused(t *testing.T) {
	for _, tc := range []struct {
		change func(*Config)
		want   error
	}{
		{func(c *Config) { c.ClusterAddr = "0.0.0.0:7000" }, ErrPlaintext},
		{func(c *Config) { c.ClusterAddr = ":7000" }, ErrPlaintext},
		{func(c *Config) { c.GossipAddr = "10.0.0.1:7000" }, ErrPlaintext},
		{func(c *Config) { c.Join, c.GossipAddr = []string{"example.org:7000"}, "127.0.0.1:7000" }, ErrPlaintext},
		{func(c *Config) { c.Name = "a b" }, ErrConfig},
		{func(c *Config) { c.Name = strings.Repeat("a", 64) }, ErrConfig},
		{func(c *Config) { c.Expect = 3 }, ErrConfig},
		{func(c *Config) { c.DataDir = "" }, ErrConfig},
		{func(c *Config) { c.ClusterAddr = "nowhere" }, ErrConfig},
	} {
		c := testConfig(t, "n")
		tc.change(&c)
		if _, err := Open(c, nil, nil); !errors.Is(err, tc.want) {
			t.Errorf("%+v: %v", c.ClusterAddr, err)
		}
	}
}

func TestNodeThatNeverStartedGivesItsFilesFree(t *testing.T) {
	c := testConfig(t, "solo")
	blocker, err := net.Listen("tcp", freeAddr(t)) // nobody takes the port once it is free again
	if err != nil {
		t.Fatal(err)
	}
	c.GossipAddr = blocker.Addr().String()
	if _, err := tryNode(t, c); err == nil {
		t.Fatal("started on a gossip port in use")
	}
	if err := blocker.Close(); err != nil {
		t.Fatal(err)
	}
	ready(t, startNode(t, c))
}
