package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// confirmed is what a confirmed leader had applied: the index of a command or
// configuration, which reaches every node's state machine. A revision would not
// do: settings and cursors change without one.
type confirmed struct {
	index uint64
	term  uint64
}

// View returns the state of this node, as fresh as asked. Linearizable waits
// for the leader's word (fsm.ErrNoLeader after 2 s without one), Session for a
// revision, Stale for nothing. The caller closes the View. Other errors: ctx's,
// fsm.ErrHalted, fsm.ErrClosed.
func (n *Node) View(ctx context.Context, f fsm.Freshness) (*fsm.View, error) {
	if n.ctx.Err() != nil {
		return nil, fsm.ErrClosed
	}
	var err error
	switch f.Level {
	case fsm.Stale:
	case fsm.Session:
		err = n.fsm.Wait(ctx, f.Revision)
	default:
		var index uint64
		if index, err = n.reads.do(ctx); err == nil {
			err = n.fsm.WaitApplied(ctx, index)
		}
	}
	if err != nil {
		return nil, err
	}
	return n.fsm.View()
}

// LeaderView returns the state for a decision and the term it is made in;
// fsm.ErrNotLeader unless this node leads and has applied an empty command of
// its term. Before an answer that no committed entry backs, ask Confirm.
func (n *Node) LeaderView() (*fsm.View, uint64, error) {
	t := n.lead.now.Load()
	if t == nil {
		return nil, 0, fsm.ErrNotLeader
	}
	v, err := n.fsm.View()
	return v, t.number, err
}

// Confirm returns nil when this node still led in that term at some moment after
// the call, and has applied all that was committed then; else fsm.ErrNotLeader or ctx's
// error. A view that was opened before may lack some of that: a leader knows what is
// committed before it applies it, and a follower may show it first.
func (n *Node) Confirm(ctx context.Context, term uint64) error {
	c, err := n.confirms.do(ctx)
	if err == nil && c.term != term {
		err = fsm.ErrNotLeader
	}
	return err
}

// Staleness returns how long ago this node was last in touch with the leader: 0
// on a leader.
func (n *Node) Staleness() time.Duration {
	if n.IsLeader() {
		return 0
	}
	last := n.raft.LastContact()
	if last.IsZero() {
		last = n.started
	}
	return time.Since(last)
}

// confirmRound is one read index on the leader, in this order: the commit index
// first, then the proof of leadership, then the wait until it is applied. The
// term must be the same before and after; an empty command of the term is
// applied already, so the index never stands for an entry that Apply does not
// see.
func (n *Node) confirmRound() (confirmed, error) {
	t := n.lead.now.Load()
	if t == nil {
		return confirmed{}, fsm.ErrNotLeader
	}
	commit := n.raft.CommitIndex()
	if n.raft.CurrentTerm() != t.number {
		return confirmed{}, fsm.ErrNotLeader
	}
	if err := n.proveTerm(t); err != nil {
		n.lead.poke()
		return confirmed{}, fmt.Errorf("%w: %w", fsm.ErrNotLeader, err)
	}
	if n.raft.CurrentTerm() != t.number || n.lead.now.Load() != t {
		return confirmed{}, fsm.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	if err := n.fsm.WaitApplied(ctx, commit); err != nil {
		return confirmed{}, err
	}
	return confirmed{index: n.fsm.Applied(), term: t.number}, nil
}

// proveTerm asks the voters for their term and returns nil once a majority,
// this node included, has answered that it is not above t: then nobody was
// elected in a later term before those answers. raft.VerifyLeader does not prove
// that: it counts the answer of a heartbeat that was sent before it was called,
// which a leader that was paused finds waiting in its socket.
func (n *Node) proveTerm(t *term) error {
	servers := n.servers()
	ctx, cancel := context.WithTimeout(n.ctx, proofTimeout)
	defer cancel() // also ends the calls that are no longer needed
	answers := make(chan bool, len(servers))
	voters, asked, yes := 0, 0, 0
	for _, s := range servers {
		switch {
		case s.Suffrage != raft.Voter:
			continue
		case string(s.ID) == n.cfg.Name:
			yes++
		default:
			asked++
			n.goRun(func() { answers <- n.askTerm(ctx, s) <= t.number })
		}
		voters++
	}
	for ; yes <= voters/2; asked-- {
		if asked == 0 {
			return errNoMajority
		}
		select {
		case ok := <-answers:
			if ok {
				yes++
			}
		case <-t.lost:
			return errNoMajority
		case <-ctx.Done():
			return errNoMajority
		}
	}
	return nil
}

const proofTimeout = 2 * time.Second

var errNoMajority = errors.New("no majority confirms the term")

// askTerm returns the term of a voter; one that does not answer is no support.
func (n *Node) askTerm(ctx context.Context, s raft.Server) uint64 {
	name := string(s.ID)
	f, err := n.client.call(ctx, name, n.peerAddr(name, string(s.Address)), callTerm, nil)
	if err != nil || f.status != statusOK {
		return math.MaxUint64
	}
	d := decoder{b: f.payload}
	if v := d.uint(); d.err == nil && v > 0 {
		return v
	}
	return math.MaxUint64
}

func (n *Node) serveTerm(context.Context, []byte) (callStatusCode, []byte) {
	return statusOK, binary.AppendUvarint(nil, n.raft.CurrentTerm())
}

// readRound returns the index that this node must have applied for a
// linearizable read; on a follower one call to the leader serves all who wait.
func (n *Node) readRound() (uint64, error) {
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	var index uint64
	err := n.askLeader(ctx, func(ctx context.Context, l leader) error {
		if l.self {
			c, err := n.confirms.do(ctx)
			index = c.index
			return err
		}
		f, err := n.client.call(ctx, l.name, l.addr, callReadIndex, nil)
		if err != nil {
			return fmt.Errorf("%w: %w", fsm.ErrNotLeader, err) // a read may be asked again
		}
		switch f.status {
		case statusOK:
			d := decoder{b: f.payload}
			index = d.uint()
			return d.err
		case statusFailed:
			return fmt.Errorf("%w: %s", fsm.ErrNoLeader, f.payload)
		default:
			return fsm.ErrNotLeader
		}
	})
	return index, err
}

func (n *Node) serveReadIndex(ctx context.Context, _ []byte) (callStatusCode, []byte) {
	c, err := n.confirms.do(ctx)
	switch {
	case err == nil:
		return statusOK, binary.AppendUvarint(nil, c.index)
	case errors.Is(err, fsm.ErrNotLeader):
		return statusNotLeader, nil
	default:
		return statusFailed, []byte(err.Error())
	}
}

// leader is who to ask.
type leader struct {
	name, addr string
	self       bool
}

// currentLeader returns the leader as Raft knows it; false during an election.
func (n *Node) currentLeader() (leader, bool) {
	addr, id := n.raft.LeaderWithID()
	if id == "" {
		return leader{}, false
	}
	if string(id) == n.cfg.Name {
		return leader{name: n.cfg.Name, self: true}, n.IsLeader()
	}
	return leader{name: string(id), addr: n.peerAddr(string(id), string(addr))}, true
}

// askLeader calls f with the leader, again after short pauses as long as f says
// fsm.ErrNotLeader (nothing was done), for at most leaderWait; then
// fsm.ErrNoLeader.
func (n *Node) askLeader(ctx context.Context, f func(context.Context, leader) error) error {
	end := time.Now().Add(leaderWait)
	pause := retryMin
	for {
		changed := n.LeadershipChanged()
		err := fsm.ErrNotLeader
		if l, ok := n.currentLeader(); ok {
			if err = f(ctx, l); !errors.Is(err, fsm.ErrNotLeader) {
				return err
			}
		}
		wait := min(pause/2+rand.N(pause), time.Until(end))
		if wait <= 0 {
			return fmt.Errorf("%w: %w", fsm.ErrNoLeader, err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", fsm.ErrNoLeader, ctx.Err())
		}
		timer.Stop()
		pause = min(2*pause, retryMax)
	}
}

// observeLeader notes each new leader: who waits for one looks again, and calls
// that hang at the old one fail soon, so that they can be sent again with their
// request id.
func (n *Node) observeLeader() {
	seen := make(chan raft.Observation, 16)
	o := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(o)
	defer n.raft.DeregisterObserver(o)
	last := ""
	for {
		select {
		case ob := <-seen:
			id := string(ob.Data.(raft.LeaderObservation).LeaderID)
			n.lead.poke()
			n.lead.announce()
			if id != "" && last != "" && id != last && last != n.cfg.Name {
				n.dropLater(last)
			}
			if id != "" {
				last = id
				n.lead.elections.Add(1)
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// oldLeaderGrace is how long an old leader may still answer what it was sent.
const oldLeaderGrace = time.Second

func (n *Node) dropLater(name string) {
	n.goRun(func() {
		timer := time.NewTimer(oldLeaderGrace)
		defer timer.Stop()
		select {
		case <-timer.C:
			n.client.drop(name)
		case <-n.ctx.Done():
		}
	})
}
