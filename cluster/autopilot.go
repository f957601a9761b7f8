package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// The leader's autopilot: it gives votes to new nodes and, only if a setting asks for
// it, takes out members that have been silent for long. It goes by answers on the
// cluster port and by Raft's own heartbeats, never by gossip.

// leastVoters is the lowest that Config.MinVoters can be: below three no node may
// fail, and nobody should come there without an operator.
const leastVoters = 3

// pilotPause lies between two removals, so that what the first one does is seen.
const pilotPause = time.Minute

// pilot is used by the leader's chores only.
type pilot struct{ removed time.Time }

// promote gives a vote to non-voters that have kept up for PromoteAfter; kept
// remembers since when they do.
func (n *Node) promote(kept map[string]time.Time) {
	for _, s := range n.servers() {
		name := string(s.ID)
		if s.Suffrage == raft.Voter || n.held(name) {
			delete(kept, name)
			continue
		}
		commit := n.raft.CommitIndex()
		st, err := n.askStatus(n.ctx, name, n.peerAddr(name, string(s.Address)))
		if err != nil || st.Applied+promoteLag < commit {
			delete(kept, name)
			continue
		}
		if _, ok := kept[name]; !ok {
			kept[name] = time.Now()
		}
		if time.Since(kept[name]) < n.cfg.PromoteAfter {
			continue
		}
		if err := n.raft.AddVoter(s.ID, s.Address, 0, callTimeout).Error(); err != nil {
			n.log.Warn("cannot promote", "node", name, "error", err)
			continue
		}
		n.log.Info("promoted to voter", "node", name)
		delete(kept, name)
	}
}

// held reports whether an operator has taken the vote of name.
func (n *Node) held(name string) bool {
	v, err := n.fsm.View()
	if err != nil {
		return true
	}
	defer v.Close()
	mark, err := v.Setting(noVoteSetting + name)
	return err != nil || mark != nil
}

// autopilot removes at most one member that is dead.
func (n *Node) autopilot() {
	if !n.cfg.RemoveDead || time.Since(n.pilot.removed) < pilotPause && !n.pilot.removed.IsZero() {
		return
	}
	for _, s := range n.servers() {
		name := string(s.ID)
		if name == n.cfg.Name || !n.dead(name) {
			continue
		}
		if s.Suffrage == raft.Voter && n.voters()-1 < n.cfg.MinVoters {
			continue // too few would be left
		}
		ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
		done, err := n.change(ctx, &Change{Action: ActionRemove, Name: name})
		cancel()
		if err != nil {
			n.log.Warn("a dead member stays", "node", name, "error", err)
			continue
		}
		n.log.Warn("removed by the autopilot", "node", name, "done", done)
		n.pilot.removed = time.Now()
		return
	}
}

// dead reports whether name has neither answered this node for DeadAfter nor gets
// Raft's heartbeats.
func (n *Node) dead(name string) bool {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	p := n.table.by[name]
	return p != nil && time.Since(p.lastWord()) > n.cfg.DeadAfter && n.table.failing[name]
}

// watchHeartbeats keeps whose heartbeats fail while this node leads.
func (n *Node) watchHeartbeats() {
	seen := make(chan raft.Observation, 64)
	o := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	})
	n.raft.RegisterObserver(o)
	defer n.raft.DeregisterObserver(o)
	for {
		select {
		case ob := <-seen:
			n.table.mu.Lock()
			switch d := ob.Data.(type) {
			case raft.FailedHeartbeatObservation:
				n.table.failing[string(d.PeerID)] = true
			case raft.ResumedHeartbeatObservation:
				delete(n.table.failing, string(d.PeerID))
			}
			n.table.mu.Unlock()
		case <-n.ctx.Done():
			return
		}
	}
}
