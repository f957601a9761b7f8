package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

func change(t testing.TB, n *testNode, action Action, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done, err := n.ChangeMember(ctx, Change{Action: action, Name: name}, nil)
	if err != nil {
		t.Fatalf("%s %s through %s: %v", action, name, n.cfg.Name, err)
	}
	return done
}

func memberList(n *testNode) string { return memberNames(n.servers()) }

// expectFailed waits until n is out of service for good, because of want.
func expectFailed(t testing.TB, n *testNode, want error) {
	t.Helper()
	select {
	case <-n.Failed():
	case <-time.After(time.Minute):
		t.Fatalf("%s is still in service", n.cfg.Name)
	}
	if !errors.Is(n.Err(), want) || n.Ready() == nil {
		t.Errorf("%s: %v, ready %v", n.cfg.Name, n.Err(), n.Ready())
	}
}

// A member is removed while it lives, through any node; it ends, its directory never
// comes back, and its name only when it is forgotten.
func TestRemovedMemberEndsAndStaysOut(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	rest := others(l, nodes)
	gone, other := rest[0], rest[1]
	if done := change(t, other, ActionRemove, gone.cfg.Name); !strings.Contains(done, "2 votes are left") {
		t.Error(done)
	}
	expectFailed(t, gone, ErrRemoved)
	waitFor(t, "two members", func() bool { return len(l.servers()) == 2 })
	waitFor(t, "its note", func() bool { return gone.ident.get().Removed })
	change(t, other, ActionRemove, gone.cfg.Name) // again: it is done
	mustPut(t, leaderOf(t, l, other), "b")
	gone.stop(t)
	if _, err := tryNode(t, gone.cfg); !errors.Is(err, ErrRemoved) {
		t.Fatalf("the removed directory opens: %v", err)
	}
	// Its name on an empty disk: refused until it is forgotten.
	if err := os.RemoveAll(gone.cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	wiped, err := tryNode(t, gone.cfg)
	if err != nil {
		t.Fatal(err)
	}
	expectFailed(t, wiped, ErrNameTaken)
	wiped.stop(t)
	if _, former, err := other.KnownNodes(); err != nil || len(former) != 1 || former[0].Name != gone.cfg.Name {
		t.Errorf("former members: %v %v", former, err)
	}
	change(t, other, ActionForget, gone.cfg.Name)
	c := gone.cfg
	c.Expect = 0
	if err := os.RemoveAll(c.DataDir); err != nil {
		t.Fatal(err)
	}
	back := startNode(t, c)
	ready(t, back)
	if !has(t, back, "b") {
		t.Error("the new node lacks a write")
	}
}

// A node that was away while it was removed hears of it when it comes back.
func TestNodeRemovedWhileAwayIsToldSo(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	away := others(l, nodes)[0]
	away.stop(t)
	change(t, l, ActionRemove, away.cfg.Name)
	n, err := tryNode(t, away.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop(t)
	expectFailed(t, n, ErrRemoved)
	mustPut(t, leaderOf(t, others(away, nodes)...), "b")
}

func TestRemovingTheLeaderHandsOverFirst(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	rest := others(l, nodes)
	change(t, l, ActionRemove, l.cfg.Name)
	expectFailed(t, l, ErrRemoved)
	next := leaderOf(t, rest...)
	mustPut(t, next, "b")
	if got := memberList(next); strings.Contains(got, l.cfg.Name) {
		t.Errorf("members %s", got)
	}
}

func TestRemovalThatBreaksTheQuorumIsRefused(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	rest := others(l, nodes)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rest[0].crash(t)
	// Of the two votes that would be left, only one answers.
	_, err := l.ChangeMember(ctx, Change{Action: ActionRemove, Name: rest[1].cfg.Name}, nil)
	if !errors.Is(err, ErrQuorum) {
		t.Errorf("removal of a living node beside a dead one: %v", err)
	}
	if _, err = rest[1].ChangeMember(ctx, Change{Action: ActionDemote, Name: rest[1].cfg.Name}, nil); !errors.Is(err, ErrQuorum) {
		t.Errorf("through a follower: %v", err)
	}
	if _, err = l.ChangeMember(ctx, Change{Action: ActionRemove, Name: "nobody"}, nil); !errors.Is(err, ErrNoMember) || !strings.Contains(err.Error(), "n0, n1, n2") {
		t.Errorf("removal of a stranger: %v", err)
	}
	if _, err = rest[1].ChangeMember(ctx, Change{Action: "dance", Name: "n1"}, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("an unknown action: %v", err)
	}
	mustPut(t, l, "b")
	// The dead one may go, by the way.
	change(t, rest[1], ActionRemove, rest[0].cfg.Name)
	// And then all but one.
	change(t, leaderOf(t, l, rest[1]), ActionRemove, rest[1].cfg.Name)
	waitFor(t, "a single member", func() bool { return memberList(l) == l.cfg.Name })
	if _, err = l.ChangeMember(ctx, Change{Action: ActionRemove, Name: l.cfg.Name, Force: true}, nil); !errors.Is(err, ErrQuorum) {
		t.Errorf("removal of the last voter: %v", err)
	}
	mustPut(t, l, "c")
}

// A dead node is replaced by one of another name; then two of three may answer again.
func TestDeadNodeIsReplaced(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	dead := others(l, nodes)[0]
	dead.crash(t)
	c := testConfig(t, "n3")
	c.GossipAddr, c.Join = freeAddr(t), []string{l.cfg.GossipAddr}
	n := startNode(t, c)
	ready(t, n)
	waitFor(t, "promotion", func() bool { return l.voters() == 4 })
	change(t, n, ActionRemove, dead.cfg.Name)
	waitFor(t, "three members", func() bool { return l.voters() == 3 && !strings.Contains(memberList(l), dead.cfg.Name) })
	last := others(l, nodes)[1]
	last.crash(t) // a second one may go now
	mustPut(t, leaderOf(t, l, n), "b")
	if !has(t, n, "b") {
		t.Error("the new node lacks a write")
	}
}

func TestDemotedNodeKeepsNoVoteUntilItIsPromoted(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	f := others(l, nodes)[0]
	change(t, f, ActionDemote, f.cfg.Name)
	waitFor(t, "its own configuration to follow", func() bool { role, _ := f.Standing(); return role == nonvoter })
	time.Sleep(3 * l.cfg.PromoteAfter) // not promoted by itself
	if l.voters() != 2 {
		t.Errorf("%d voters", l.voters())
	}
	members, _, err := l.KnownNodes()
	if err != nil || !slices.ContainsFunc(members, func(m KnownNode) bool { return m.Name == f.cfg.Name && m.Held && m.Suffrage == nonvoter }) {
		t.Errorf("%+v %v", members, err)
	}
	change(t, l, ActionPromote, f.cfg.Name)
	waitFor(t, "three voters", func() bool { return l.voters() == 3 })
	ready(t, f)
	mustPut(t, l, "b")
	if !has(t, f, "b") {
		t.Error("a write is missing")
	}
}

func TestTransferGoesWhereItIsSent(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	for _, to := range others(l, nodes) {
		begin := time.Now()
		if done := change(t, l, ActionTransfer, to.cfg.Name); !strings.HasPrefix(done, to.cfg.Name+" leads") {
			t.Error(done)
		}
		waitFor(t, "the new leader", to.IsLeader)
		t.Logf("transfer took %s", time.Since(begin))
		mustPut(t, to, "b-"+to.cfg.Name)
	}
	change(t, l, ActionTransfer, "")
}

// Who leads alone has nobody to hand over to: that is said, and nobody waits for a leader.
func TestTransferOfTheOnlyVoteIsRefused(t *testing.T) {
	t.Parallel()
	n := startNode(t, testConfig(t, "solo"))
	ready(t, n)
	var steps []string
	_, err := n.ChangeMember(t.Context(), Change{Action: ActionTransfer}, func(s string) { steps = append(steps, s) })
	if !errors.Is(err, ErrRefused) || !strings.Contains(fmt.Sprint(err), "only vote") || len(steps) != 1 {
		t.Errorf("%v, steps %q", err, steps)
	}
	mustPut(t, n, "a")
}

// A removal that its leader only noted is ended by the next one.
func TestNotedRemovalIsEnded(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	dead := others(l, nodes)[0]
	waitFor(t, "its id", func() bool { id, _ := l.knownID(dead.cfg.Name); return id != "" })
	dead.crash(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.setSettings(ctx, setting(removedSetting+dead.ident.get().ID, dead.cfg.Name)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the removal", func() bool { return !strings.Contains(memberList(l), dead.cfg.Name) })
}

func TestAutopilotRemovesNothingUnlessAsked(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		remove  bool
		members int // that join the three
		want    string
	}{
		{"not asked", false, 1, "n0, n1, n2, n3"},
		{"three voters are the least", true, 0, "n0, n1, n2"},
		{"asked", true, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			pilotOf(t, tc.remove, tc.members, tc.want)
		})
	}
}

func pilotOf(t *testing.T, remove bool, more int, want string) {
	set := func(c *Config) {
		c.RemoveDead, c.DeadAfter, c.ExchangeInterval = remove, 1500*time.Millisecond, 100*time.Millisecond
	}
	nodes := trio(t, set)
	l := leaderOf(t, nodes...)
	for i := range more {
		c := testConfig(t, fmt.Sprint("n", 3+i))
		c.GossipAddr, c.Join = freeAddr(t), []string{l.cfg.GossipAddr}
		set(&c)
		nodes = append(nodes, startNode(t, c))
	}
	know(nodes)
	ready(t, nodes...)
	waitFor(t, "all votes", func() bool { return leaderOf(t, nodes...).voters() == 3+more })
	l = leaderOf(t, nodes...)
	mustPut(t, l, "a")
	dead := others(l, nodes)[0]
	dead.crash(t)
	left := others(dead, nodes)
	if want != "" {
		time.Sleep(3 * time.Second) // twice as long as it takes
		if got := memberList(leaderOf(t, left...)); got != want {
			t.Errorf("members %s", got)
		}
		return
	}
	waitFor(t, "the removal", func() bool { return !strings.Contains(memberList(leaderOf(t, left...)), dead.cfg.Name) })
	mustPut(t, leaderOf(t, left...), "b")
}

// A node whose gossip is dead, but not its Raft, is nobody's business.
func TestAutopilotDoesNotGoByGossip(t *testing.T) {
	t.Parallel()
	nodes := trio(t, func(c *Config) {
		c.RemoveDead, c.DeadAfter, c.ExchangeInterval = true, time.Second, 100*time.Millisecond
	})
	l := leaderOf(t, nodes...)
	c := testConfig(t, "n3")
	c.GossipAddr, c.Join = freeAddr(t), []string{l.cfg.GossipAddr}
	n := startNode(t, c)
	ready(t, n)
	waitFor(t, "promotion", func() bool { return l.voters() == 4 })
	for _, o := range nodes { // as if its gossip were cut off
		o.gossip.mu.Lock()
		delete(o.gossip.alive, "n3")
		o.gossip.mu.Unlock()
	}
	time.Sleep(2500 * time.Millisecond)
	if got := memberList(l); got != "n0, n1, n2, n3" {
		t.Errorf("members %s", got)
	}
}

func TestLostQuorumIsRecoveredOnOneSurvivor(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	for i := range 20 {
		mustPut(t, l, fmt.Sprint("w", i))
	}
	sameState(t, nodes...)
	survivor := others(l, nodes)[0]
	second := others(l, nodes)[1]
	for _, n := range nodes {
		n.stop(t)
	}
	c := survivor.cfg
	c.Join, c.Expect, c.GossipAddr, c.Recover = nil, 0, "", true
	n := openOnly(t, c)
	about, err := n.Survivor()
	if err != nil || about.Index == 0 || about.Term == 0 || strings.Join(about.Members, " ") != "n0 n1 n2" {
		t.Fatalf("%+v %v", about, err)
	}
	if err := n.Recover(); err != nil {
		t.Fatal(err)
	}
	n.stop(t) // a crash here: nothing but another recovery opens it
	plain := c
	plain.Recover = false
	if _, err := tryNode(t, plain); !errors.Is(err, ErrRecovering) {
		t.Fatalf("half a recovery opens: %v", err)
	}
	n, last := recoverNode(t, c)
	// What the lost nodes gave out beyond this one's state is of a lost life.
	v, err := n.fsm.View()
	if err != nil {
		t.Fatal(err)
	}
	lives, err := v.Lives()
	v.Close()
	if err != nil || len(lives) != 1 || lives.Lost(last) || !lives.Lost(last+1) || lives.Lost(fsm.LifeStep) || n.fsm.Revision() != fsm.LifeStep {
		t.Fatalf("%+v %v, revision %d behind %d", lives, err, n.fsm.Revision(), last)
	}
	n.stop(t)
	// It serves alone, with all it had.
	c = survivor.cfg
	n = startNode(t, c)
	ready(t, n)
	for i := range 20 {
		if !has(t, n, fmt.Sprint("w", i)) {
			t.Errorf("write %d is lost", i)
		}
	}
	mustPut(t, n, "after")
	// An old one comes back with its state: refused. Another is rebuilt under a new name.
	old, err := tryNode(t, second.cfg)
	if err != nil {
		t.Fatal(err)
	}
	expectFailed(t, old, ErrRemoved)
	old.stop(t)
	fresh := testConfig(t, "n9")
	fresh.GossipAddr, fresh.Join = freeAddr(t), []string{c.GossipAddr}
	m := startNode(t, fresh)
	ready(t, m)
	if !has(t, m, "after") || !has(t, m, "w7") {
		t.Error("the new node lacks a write")
	}
	sameState(t, n, m)
}

// A survivor that lacked acknowledged writes gives none of their revisions out again:
// a token of such a write is told to be of a lost life, also by a node that joins later.
func TestRecoveryGivesNoRevisionOutTwice(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	survivor := others(l, nodes)[0]
	shared := mustPut(t, l, "shared")
	sameState(t, nodes...)
	survivor.stop(t)
	lost := mustPut(t, l, "lost")
	for _, n := range others(survivor, nodes) {
		n.stop(t)
	}
	c := survivor.cfg
	c.Join, c.Expect, c.GossipAddr, c.Recover = nil, 0, "", true
	n, _ := recoverNode(t, c)
	n.stop(t)
	n = startNode(t, survivor.cfg)
	ready(t, n)
	if r := mustPut(t, n, "new"); r <= fsm.LifeStep || has(t, n, "lost") {
		t.Errorf("the first write of the new life has revision %d", r)
	}
	fresh := testConfig(t, "n9")
	fresh.GossipAddr, fresh.Join = freeAddr(t), []string{survivor.cfg.GossipAddr}
	m := startNode(t, fresh)
	ready(t, m)
	sameState(t, n, m)
	for _, o := range []*testNode{n, m} {
		v, err := o.fsm.View()
		if err != nil {
			t.Fatal(err)
		}
		lives, err := v.Lives()
		v.Close()
		if err != nil || lives.Lost(shared) || !lives.Lost(lost) {
			t.Errorf("%s: %+v %v: shared %d, lost %d", o.cfg.Name, lives, err, shared, lost)
		}
	}
}

// recoverNode makes the survivor of three the only member, as the command does. last is
// the revision that it had.
func recoverNode(t testing.TB, c Config) (n *testNode, last fsm.Revision) {
	t.Helper()
	n = openOnly(t, c)
	if err := n.Recover(); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	ready(t, n)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	last = n.fsm.Revision()
	if gone, err := n.EndRecovery(ctx); err != nil || len(gone) != 2 {
		t.Fatalf("%v %v", gone, err)
	}
	return n, last
}

// openOnly opens a node and does not start it.
func openOnly(t testing.TB, c Config) *testNode {
	t.Helper()
	n, err := openNode(&c)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNothingToRecover(t *testing.T) {
	t.Parallel()
	c := testConfig(t, "solo")
	n := openOnly(t, c)
	defer n.stop(t)
	if err := n.Recover(); !errors.Is(err, ErrRefused) {
		t.Errorf("an empty folder is recovered: %v", err)
	}
}

// A node that knows no living seed finds its cluster's gossip through Raft's addresses.
func TestGossipHealsThroughTheClusterPort(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	f := others(l, nodes)[0]
	f.stop(t)
	for _, o := range others(f, nodes) { // and they have forgotten it
		o.gossip.mu.Lock()
		delete(o.gossip.seen, f.cfg.Name)
		delete(o.gossip.alive, f.cfg.Name)
		o.gossip.mu.Unlock()
		o.Node.cfg.Join = nil
	}
	c := f.cfg
	c.Join, c.GossipAddr, c.Expect = []string{freeAddr(t)}, freeAddr(t), 0
	n := startNode(t, c)
	ready(t, n)
	waitFor(t, "gossip", func() bool { _, ok := l.gossip.peer(c.Name); return ok && len(n.gossip.peers()) == 2 })
}

// clock is a clock that a test sets.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

func TestLeaderWithAWrongClockHandsOver(t *testing.T) {
	t.Parallel()
	clocks := map[string]*clock{}
	nodes := trio(t, func(c *Config) {
		clocks[c.Name] = new(clock)
		c.Now, c.ExchangeInterval = clocks[c.Name].now, 100*time.Millisecond
	})
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	rest := others(l, nodes)
	// A follower's clock is the follower's trouble: shown, and that is all.
	clocks[rest[0].cfg.Name].offset.Store(int64(10 * time.Second))
	waitFor(t, "an alarm", func() bool { return hasAlarm(t, l, rest[0].cfg.Name, "clock differs") })
	if !l.IsLeader() && l.clockError() != nil {
		t.Error("the leader is blamed for a follower's clock")
	}
	clocks[rest[0].cfg.Name].offset.Store(0)
	clocks[l.cfg.Name].offset.Store(int64(time.Hour))
	next := leaderOf(t, rest...)
	mustPut(t, next, "b")
	if l.IsLeader() {
		t.Error("it still leads")
	}
	waitFor(t, "its alarm", func() bool { return hasAlarm(t, next, l.cfg.Name, "this node's clock differs") })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := l.Propose(ctx, put("late")); !errors.Is(err, fsm.ErrNotLeader) {
		t.Errorf("a write by the wrong clock: %v", err)
	}
	clocks[l.cfg.Name].offset.Store(0)
	waitFor(t, "the clock to be right", func() bool { return l.clockError() == nil })
	change(t, next, ActionTransfer, l.cfg.Name)
	waitFor(t, "its lead", l.IsLeader)
}

func hasAlarm(t testing.TB, n *testNode, name, text string) bool {
	t.Helper()
	members, err := n.Members(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(members, func(m fsm.Member) bool {
		return m.Name == name && strings.Contains(strings.Join(m.Alarms, "\n"), text)
	})
}

// A follower that answers, has Raft's heartbeats, and stores nothing.
func TestStuckReplicationIsNoticed(t *testing.T) {
	t.Parallel()
	logs := map[string]*hangingLog{}
	nodes := trio(t, func(c *Config) {
		c.StuckAfter, c.ExchangeInterval, c.StallTimeout = 700*time.Millisecond, 100*time.Millisecond, time.Minute
		c.RaftTimeout = 20 * time.Second
		c.WrapLog = func(s raft.LogStore) raft.LogStore {
			logs[c.Name] = &hangingLog{LogStore: s}
			return logs[c.Name]
		}
	})
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	f := others(l, nodes)[0]
	stuck := make(chan struct{})
	logs[f.cfg.Name].hang.Store(&stuck)
	mustPut(t, l, "b")
	waitFor(t, "an alarm", func() bool { return hasAlarm(t, others(l, nodes)[1], f.cfg.Name, "replication is stuck") })
	if got := leaderOf(t, nodes...).Figures(); got.StuckFollowers != 1 {
		t.Errorf("figure %d", got.StuckFollowers)
	}
	logs[f.cfg.Name].hang.Store(nil)
	close(stuck)
	waitFor(t, "the end of the alarm", func() bool { return !hasAlarm(t, l, f.cfg.Name, "replication is stuck") })
	ready(t, f)
	if !has(t, f, "b") {
		t.Error("a write is missing")
	}
}

// A leader without room hands over to a node that has some; without a majority that
// has room, writes are refused before they hang.
func TestFullDisksMoveTheLeadAndThenRefuse(t *testing.T) {
	t.Parallel()
	free := map[string]*atomic.Uint64{}
	nodes := trio(t, func(c *Config) {
		room := new(atomic.Uint64)
		room.Store(1 << 40)
		free[c.Name] = room
		c.FreeBytes = func() (uint64, error) { return room.Load(), nil }
		c.ExchangeInterval = 100 * time.Millisecond
	})
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	rest := others(l, nodes)
	full := func(n *testNode, on bool) {
		if on {
			free[n.cfg.Name].Store(1 << 20)
		} else {
			free[n.cfg.Name].Store(1 << 40)
		}
	}
	full(rest[0], true)
	waitFor(t, "the leader to know", func() bool { st := l.table.status(rest[0].cfg.Name, time.Minute); return st != nil && !st.Writable })
	full(l, true)
	waitFor(t, "the one with room to lead", rest[1].IsLeader)
	waitFor(t, "writes to be refused: one voter of three has room", func() bool { return errors.Is(rest[1].WriteError(), fsm.ErrNoSpace) })
	full(rest[0], false)
	waitFor(t, "writes to be taken again", func() bool { return rest[1].WriteError() == nil })
	mustPut(t, rest[1], "b")
	if !rest[1].IsLeader() {
		t.Error("the lead went on")
	}
}

// A disk that hangs for good ends the node; it never says meanwhile that it leads.
func TestDiskThatStaysHungEndsTheNode(t *testing.T) {
	t.Parallel()
	logs := map[string]*hangingLog{}
	nodes := trio(t, func(c *Config) {
		c.StallTimeout, c.StallExit = 400*time.Millisecond, 1200*time.Millisecond
		c.WrapLog = func(s raft.LogStore) raft.LogStore {
			logs[c.Name] = &hangingLog{LogStore: s}
			return logs[c.Name]
		}
	})
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	stuck := make(chan struct{})
	logs[l.cfg.Name].hang.Store(&stuck)
	defer close(stuck)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, _ = l.Propose(ctx, put("stuck")) // unknown, as the other test says
	waitFor(t, "the watchdog", func() bool { return l.Err() != nil })
	waitFor(t, "its lead to end", func() bool { return !l.IsLeader() })
	if m, ok := l.Leader(); ok && m.Name == l.cfg.Name {
		t.Errorf("it says that it leads: %+v", m)
	}
	mustPut(t, leaderOf(t, others(l, nodes)...), "b")
	select {
	case <-l.Failed():
	case <-time.After(time.Minute):
		t.Error("the node goes on")
	}
}

func TestQueuesAreBounded(t *testing.T) {
	t.Parallel()
	c := &clientConn{calls: map[uint64]chan *frame{}}
	for range MaxPendingCalls {
		if _, answer := c.register(); answer == nil {
			t.Fatal("refused too early")
		}
	}
	if _, answer := c.register(); answer != nil || !errors.Is(c.refusal(), fsm.ErrOverloaded) {
		t.Errorf("one more call: %v", c.refusal())
	}
	r := rounds[int]{run: func() (int, error) { return 0, nil }, waiting: MaxWaitingReads}
	if _, err := r.do(t.Context()); !errors.Is(err, fsm.ErrOverloaded) {
		t.Errorf("one more read: %v", err)
	}
	r.waiting--
	if _, err := r.do(t.Context()); err != nil || r.waiting != MaxWaitingReads-1 {
		t.Errorf("the last read: %v, %d wait", err, r.waiting)
	}
	r.close()
}

// A host name stays one in the configuration, so that it is resolved again at each
// connection.
func TestHostNamesAreKept(t *testing.T) {
	t.Parallel()
	nodes := trio(t, func(c *Config) { c.ClusterAddr = strings.Replace(c.ClusterAddr, "127.0.0.1", "localhost", 1) })
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	for _, s := range l.servers() {
		if !strings.HasPrefix(string(s.Address), "localhost:") {
			t.Errorf("address %s", s.Address)
		}
	}
	sameState(t, nodes...)
}
