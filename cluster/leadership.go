package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"quinto/fsm"
)

const leaderTick = 200 * time.Millisecond // leadership is looked at, even without a signal

// term is a term in which this node leads and has applied an empty command of
// its own: until then it may not know what its predecessors committed.
type term struct {
	number  uint64
	cluster string
	lost    chan struct{} // closed when the term is over
	handed  atomic.Bool   // leadership was given up once because a follower is stuck
}

// leadership is the level, not the edge: what raft's channels signal is only a
// reason to look.
type leadership struct {
	now  atomic.Pointer[term] // nil: not leading
	wake chan struct{}

	won       atomic.Uint64 // terms led
	elections atomic.Uint64 // new leaders heard of

	mu      sync.Mutex
	changed chan struct{}
}

func newLeadership() *leadership {
	return &leadership{wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

func (l *leadership) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// set replaces the current term, ends the old one and tells who waits.
func (l *leadership) set(t *term) {
	old := l.now.Swap(t)
	if old != nil {
		close(old.lost)
	}
	l.announce()
}

func (l *leadership) announce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

// LeadershipChanged returns a channel that is closed when this node next gains
// or loses leadership, or learns of another leader.
func (n *Node) LeadershipChanged() <-chan struct{} {
	n.lead.mu.Lock()
	defer n.lead.mu.Unlock()
	return n.lead.changed
}

// Leading returns the term in which this node leads, ready to decide, and a
// channel that is closed when that ends; false when it does not lead.
func (n *Node) Leading() (number uint64, lost <-chan struct{}, ok bool) {
	t := n.lead.now.Load()
	if t == nil {
		return 0, nil, false
	}
	return t.number, t.lost, true
}

// IsLeader reports whether this node leads and may decide.
func (n *Node) IsLeader() bool { return n.lead.now.Load() != nil }

// Term returns Raft's current term.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// watchLeadership keeps the level. raft blocks until notify is read.
func (n *Node) watchLeadership(notify <-chan bool) {
	n.goRun(func() {
		for {
			select {
			case <-notify:
				n.lead.poke()
			case <-n.ctx.Done():
				n.lead.poke()
				return
			}
		}
	})
	n.goRun(func() {
		tick := time.NewTicker(leaderTick)
		defer tick.Stop()
		for n.ctx.Err() == nil {
			n.checkLeadership()
			select {
			case <-n.lead.wake:
			case <-tick.C:
			case <-n.ctx.Done():
			}
		}
		if n.lead.now.Load() != nil {
			n.lead.set(nil)
		}
	})
}

func (n *Node) checkLeadership() {
	t := n.lead.now.Load()
	leads := n.raft.State() == raft.Leader && !n.health.out() && n.clockError() == nil
	if t != nil && (!leads || n.raft.CurrentTerm() != t.number) {
		n.log.Info("leadership lost", "term", t.number)
		n.lead.set(nil)
		t = nil
	}
	if n.raft.State() == raft.Leader && !leads && !n.mux.cut() {
		fault := n.health.fault()
		n.giveUp("out of service", errors.Join(fault, n.clockError()))
		if fault != nil && n.voters() > 1 && n.raft.State() == raft.Leader {
			n.mux.sever(true) // nobody took over: silence lets them elect
		}
	}
	if t != nil || !leads {
		return
	}
	if err := n.establish(); err != nil {
		n.log.Warn("not ready to lead yet", "error", err)
	}
}

// establish applies an empty command in a new term and then opens the term. On
// a fresh cluster that command carries the id of the cluster.
func (n *Node) establish() error {
	number := n.raft.CurrentTerm()
	if !n.heardMajority() { // its clock may be wrong
		n.exchange()
		if err := n.clockError(); err != nil {
			return err
		}
	}
	id, err := n.leaderClusterID()
	if err != nil {
		return err
	}
	f := n.raft.Apply(fsm.EncodeGroup(id, nil), enqueueTimeout)
	if err := f.Error(); err != nil {
		return err
	}
	if err, failed := f.Response().(error); failed {
		n.giveUp("cannot apply its own commands", err)
		return err
	}
	if n.raft.State() != raft.Leader || n.raft.CurrentTerm() != number {
		return fsm.ErrNotLeader
	}
	n.lead.won.Add(1)
	n.lead.set(&term{number: number, cluster: id, lost: make(chan struct{})})
	n.log.Info("leading", "term", number, "cluster", id)
	n.noteCluster(id)
	return nil
}

// leaderClusterID is the state's, the identity's, that of a command which is in
// the log but not applied yet, or, when there never was one, a new id.
func (n *Node) leaderClusterID() (string, error) {
	if id := n.clusterID(); id != "" {
		return id, nil
	}
	id, err := n.logs.clusterID()
	if err != nil || id != "" {
		return id, err
	}
	return uuid.NewString(), nil
}

// giveUp hands leadership on because this node cannot use it.
func (n *Node) giveUp(why string, err error) {
	n.log.Error("giving up leadership", "why", why, "error", err)
	if n.voters() < 2 {
		return
	}
	if err := n.handOver(); err != nil {
		n.log.Warn("leadership transfer failed", "error", err)
	}
}

// handOver hands leadership to the best voter that is known to be well, else to
// the one that Raft knows to be furthest.
func (n *Node) handOver() error {
	if s, ok := n.successor(); ok {
		if err := n.handTo(s); err == nil || n.raft.State() != raft.Leader {
			return err
		}
	}
	return n.raft.LeadershipTransfer().Error()
}

// handTo hands leadership to s.
func (n *Node) handTo(s raft.Server) error {
	n.log.Info("handing leadership over", "to", s.ID)
	err := n.raft.LeadershipTransferToServer(s.ID, s.Address).Error()
	n.lead.poke()
	return err
}

// TransferLeadership hands leadership to the best follower, tried
// twice: under load the first try may time out. fsm.ErrNotLeader when this node
// does not lead. A single voter keeps it and returns an error.
func (n *Node) TransferLeadership(reason string) error {
	if n.raft.State() != raft.Leader {
		return fsm.ErrNotLeader
	}
	if n.voters() < 2 {
		return fmt.Errorf("cluster: %w: no other voter", fsm.ErrNoLeader)
	}
	n.log.Info("handing leadership over", "reason", reason)
	err := n.handOver()
	if err != nil && n.raft.State() == raft.Leader {
		err = n.raft.LeadershipTransfer().Error()
	}
	n.lead.poke()
	if err != nil {
		return fmt.Errorf("cluster: leadership transfer: %w", err)
	}
	return nil
}

// leaderChores keeps what only a leader may: the ids behind the names, the
// feature level, its own address, new nodes on their way to a vote.
func (n *Node) leaderChores() {
	tick := time.NewTicker(leaderTick)
	defer tick.Stop()
	kept := map[string]time.Time{} // non-voter → since when it keeps up
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		n.checkRemoved()
		t := n.lead.now.Load()
		if t == nil {
			clear(kept)
			continue
		}
		if err := n.recordFacts(); err != nil {
			n.log.Debug("leader chores", "error", err)
			continue
		}
		n.promote(kept)
		n.autopilot()
	}
}

// recordFacts proposes the settings that a leader must see in the state.
func (n *Node) recordFacts() error {
	v, err := n.fsm.View()
	if err != nil {
		return err
	}
	defer v.Close()
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	if err := n.endRemovals(ctx, v); err != nil {
		return err
	}
	var ops []fsm.Op
	if v.FeatureLevel() == 0 {
		ops = append(ops, fsm.Op{Type: fsm.OpSetFeatureLevel, Level: fsm.FeatureLevel1})
	}
	d := n.ident.get()
	for _, f := range append([]founder{{Name: d.Name, ID: d.ID}}, d.Bootstrap...) {
		have, err := v.Setting(nodeSetting + f.Name)
		if err != nil {
			return err
		}
		if have == nil && n.isMember(f.Name) {
			ops = append(ops, fsm.Op{Type: fsm.OpSetSetting, Name: nodeSetting + f.Name, Value: []byte(f.ID)})
		}
	}
	if err := n.checkOwnAddress(); err != nil || len(ops) == 0 {
		return err
	}
	_, err = n.Propose(ctx, fsm.Txn{Now: n.Now(), Ops: ops})
	return err
}

// checkOwnAddress corrects the configuration when the leader itself has moved.
func (n *Node) checkOwnAddress() error {
	for _, s := range n.servers() {
		if string(s.ID) == n.cfg.Name && string(s.Address) != n.addr && s.Suffrage == raft.Voter {
			return n.raft.AddVoter(s.ID, raft.ServerAddress(n.addr), 0, callTimeout).Error()
		}
	}
	return nil
}
