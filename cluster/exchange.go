package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// The exchange: each node asks every member, on the cluster port, how it is. From
// the answers it knows whose clock differs, who has room on its disk, who gets no
// entries although he answers, and whom it has not heard of for long.

// seen is what this node knows of another.
type seen struct {
	status  *nodeStatus   // newest; nil: it has never answered
	since   time.Time     // this node began to ask
	heard   time.Time     // of the newest answer
	skew    time.Duration // its clock minus this node's, give or take half of rtt
	rtt     time.Duration
	moved   time.Time // its log last got something, or lacked nothing
	warned  bool      // of its clock
	alarmed bool      // that it is stuck
}

// peerTable holds what the exchange has found.
type peerTable struct {
	mu sync.Mutex
	by map[string]*seen
	// failing: Raft's heartbeats to them fail, as their leader sees it.
	failing map[string]bool
	clock   error // why this node's clock cannot be trusted; nil: it can
	stuck   uint64
}

func newPeerTable() *peerTable { return &peerTable{by: map[string]*seen{}, failing: map[string]bool{}} }

// heardMajority reports whether a majority of the voters, this node included, has
// answered of late.
func (n *Node) heardMajority() bool {
	voters, heard := 0, 0
	for _, s := range n.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if string(s.ID) == n.cfg.Name || n.table.status(string(s.ID), n.freshAge()) != nil {
			heard++
		}
	}
	return heard > voters/2
}

// status returns the newest answer of name, at most as old as age; nil: none.
func (p *peerTable) status(name string, age time.Duration) *nodeStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.by[name]; s != nil && s.status != nil && time.Since(s.heard) <= age {
		return s.status
	}
	return nil
}

// gossipAddrs are where members say that they gossip.
func (p *peerTable) gossipAddrs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var addrs []string
	for _, s := range p.by {
		if s.status != nil && s.status.Gossip != "" {
			addrs = append(addrs, s.status.Gossip)
		}
	}
	return addrs
}

// retain forgets who is no member any more.
func (p *peerTable) retain(servers []raft.Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.by {
		if !slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == name }) {
			delete(p.by, name)
			delete(p.failing, name)
		}
	}
}

// freshFor is how many intervals an answer counts as the present.
const freshFor = 5

func (n *Node) freshAge() time.Duration { return freshFor*n.cfg.ExchangeInterval + statusTimeout }

func (n *Node) exchangeLoop() {
	tick := time.NewTicker(n.cfg.ExchangeInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		n.mux.cutPeers(n.removed) // they dial again, and are told
		n.exchange()
	}
}

// exchange asks all members once, at most for statusTimeout, and judges the answers.
func (n *Node) exchange() {
	servers := n.servers()
	n.table.retain(servers)
	var wg sync.WaitGroup
	for _, s := range servers {
		if string(s.ID) != n.cfg.Name {
			wg.Go(func() { n.askPeer(s) })
		}
	}
	wg.Wait()
	n.judgeClocks(servers)
	n.judgeReplication(servers)
}

func (n *Node) askPeer(s raft.Server) {
	name := string(s.ID)
	asked, begin := n.Now(), time.Now()
	st, err := n.askStatus(n.ctx, name, n.peerAddr(name, string(s.Address)))
	rtt := time.Since(begin)
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	p := n.table.by[name]
	if p == nil {
		p = &seen{since: begin, moved: begin}
		n.table.by[name] = p
	}
	if err != nil {
		return
	}
	if old := p.status; old == nil || st.LastIndex != old.LastIndex || st.Received != old.Received || st.Unpacking {
		p.moved = time.Now()
	}
	p.status, p.heard, p.rtt = st, time.Now(), rtt
	_, leader := n.raft.LeaderWithID()
	n.hearArchived(st, string(leader) == name)
	if st.Clock != 0 {
		p.skew = time.Duration(int64(st.Clock)-int64(asked))*time.Millisecond - rtt/2
	}
}

// judgeClocks compares this node's clock with the voters'. A majority of all voters
// has to agree that it is wrong, and in which direction: with one vote against one
// nobody knows whose clock it is.
func (n *Node) judgeClocks(servers []raft.Server) {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	voters, ahead, behind := 0, 0, 0
	var worst time.Duration
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
		p := n.table.by[string(s.ID)]
		if p == nil || p.status == nil || time.Since(p.heard) > n.freshAge() {
			continue
		}
		over := max(p.skew.Abs()-p.rtt/2, 0)
		if warn := over > n.cfg.ClockWarn; warn != p.warned {
			p.warned = warn
			n.log.Warn("clocks differ", "node", s.ID, "by", p.skew.Round(time.Millisecond), "too far", warn)
		}
		if s.Suffrage != raft.Voter || over <= n.cfg.ClockMax {
			continue
		}
		worst = p.skew
		if p.skew < 0 {
			ahead++
		} else {
			behind++
		}
	}
	var wrong error
	if max(ahead, behind) > voters/2 {
		wrong = fmt.Errorf("cluster: this node's clock differs by %s from those of most voters", worst.Abs().Round(time.Second))
	}
	if (wrong != nil) != (n.table.clock != nil) {
		n.log.Error("clock", "may lead", wrong == nil, "error", wrong)
		n.lead.poke()
	}
	n.table.clock = wrong
}

// clockError returns why this node must not lead: its clock would go into entries,
// and times that are too late stay in the lists for ever.
func (n *Node) clockError() error {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	return n.table.clock
}

// judgeReplication looks, on the leader, for followers that answer here and yet get
// no entry that they lack: Raft counts such a follower as well, since its heartbeats
// go through. All connections of Raft are made anew; if that does not help, another
// leader is tried, once a term.
func (n *Node) judgeReplication(servers []raft.Server) {
	t := n.lead.now.Load()
	commit := n.raft.CommitIndex()
	reset, handOver := false, false
	n.table.mu.Lock()
	n.table.stuck = 0
	for _, s := range servers {
		p := n.table.by[string(s.ID)]
		if p == nil {
			continue
		}
		if t == nil || p.status == nil || p.status.LastIndex >= commit || time.Since(p.heard) > n.freshAge() {
			p.moved, p.alarmed = time.Now(), false
			continue
		}
		still := time.Since(p.moved)
		if still < n.cfg.StuckAfter {
			p.alarmed = false
			continue
		}
		n.table.stuck++
		if !p.alarmed {
			p.alarmed, reset = true, true
			n.log.Error("replication is stuck", "node", s.ID, "for", still.Round(time.Second), "at", p.status.LastIndex, "committed", commit)
		}
		handOver = handOver || still > stuckHandOver*n.cfg.StuckAfter
	}
	n.table.mu.Unlock()
	if reset {
		n.trans.CloseStreams()
	}
	if handOver && t.handed.CompareAndSwap(false, true) {
		n.goRun(func() { n.giveUp("replication is stuck", errStuck) })
	}
}

// stuckHandOver times Config.StuckAfter is when another leader is tried.
const stuckHandOver = 3

var errStuck = errors.New("a follower gets no entries")

// alarms is what this node finds wrong with itself and, as the leader, with others.
func (n *Node) alarms() []alarm {
	var out []alarm
	add := func(node, format string, args ...any) {
		if len(out) < maxAlarms {
			out = append(out, alarm{node, fmt.Sprintf(format, args...)})
		}
	}
	for _, err := range []error{n.health.writes(), n.health.fault(), n.clockError()} {
		if err != nil {
			add(n.cfg.Name, "%s", err)
		}
	}
	if why := n.waits.Load(); why != nil {
		add(n.cfg.Name, "not a member of a cluster yet: %s", *why)
	}
	if why := n.foreigners(); why != "" {
		add(n.cfg.Name, "%s", why)
	}
	if n.lead.now.Load() == nil {
		return out
	}
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	for name, p := range n.table.by {
		silent := time.Since(p.lastWord())
		switch {
		case silent > n.freshAge():
			add(name, "silent for %s", silent.Round(time.Second))
		case p.alarmed:
			add(name, "replication is stuck for %s", time.Since(p.moved).Round(time.Second))
		case p.warned:
			add(name, "its clock differs by %s from the leader's", p.skew.Round(time.Millisecond))
		}
	}
	return out
}

// lastWord is when the node last answered, or when it was first asked in vain.
func (p *seen) lastWord() time.Time {
	if p.heard.IsZero() {
		return p.since
	}
	return p.heard
}

// leaderStatus is the leader's newest answer to this node; nil: none.
func (n *Node) leaderStatus() *nodeStatus {
	_, id := n.raft.LeaderWithID()
	return n.table.status(string(id), n.freshAge())
}

// behind is how many entries the leader had applied a moment ago that this node has
// not.
func (n *Node) behind() uint64 {
	st := n.leaderStatus()
	if st == nil {
		return 0
	}
	applied := n.fsm.Applied()
	return max(st.Applied, applied) - applied
}

// roomOfPeers returns fsm.ErrNoSpace on a leader when so many voters have no room on
// their disks that an entry might reach no majority.
func (n *Node) roomOfPeers() error {
	if !n.IsLeader() {
		return nil
	}
	voters, full := 0, 0
	for _, s := range n.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if st := n.table.status(string(s.ID), n.freshAge()); st != nil && st.Clock != 0 && !st.Writable {
			full++
		}
	}
	if voters-full > voters/2 {
		return nil
	}
	return fmt.Errorf("%w: on %d of %d voters", fsm.ErrNoSpace, full, voters)
}

// successor is the voter that should lead next: of those that are well, the one whose
// log is longest.
func (n *Node) successor() (raft.Server, bool) {
	var best raft.Server
	var longest uint64
	for _, s := range n.servers() {
		st := n.table.status(string(s.ID), n.freshAge())
		if s.Suffrage != raft.Voter || string(s.ID) == n.cfg.Name || st == nil || !st.Ready || !st.Writable {
			continue
		}
		if n.table.wrongClock(string(s.ID), n.cfg.ClockMax, n.clockError() != nil) {
			continue
		}
		if st.LastIndex >= longest {
			best, longest = s, st.LastIndex
		}
	}
	return best, best.ID != ""
}

// wrongClock reports whether the clock of name is too far from this node's; if own is
// wrong, that says nothing.
func (p *peerTable) wrongClock(name string, most time.Duration, own bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.by[name]
	return !own && s != nil && s.skew.Abs() > most
}
