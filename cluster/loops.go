package cluster

import (
	"context"
	"time"

	"quinto/fsm"
)

// hello is what this node says at the start of a connection to the node to.
func (n *Node) hello(to string) *hello {
	d := n.ident.get()
	return &hello{Cluster: n.clusterID(), Founders: foundersHash(d.Bootstrap), From: d.Name, ID: d.ID, To: to}
}

// admitPeer decides on a connection by its hello. On the raft channel both
// sides must be of one cluster; while the receiver does not know its id yet, of
// one set of founders. A node that belongs to nothing yet takes no Raft message
// at all: were its disk lost, it would vote again.
func (n *Node) admitPeer(ch channel, h *hello) byte {
	d := n.ident.get()
	own := n.clusterID()
	switch {
	case h.To != "" && h.To != d.Name:
		return refuseMisrouted
	case h.Cluster != "" && own != "" && h.Cluster != own:
		return refuseCluster
	case n.removed(h.ID):
		return refuseRemoved
	case ch == channelRPC:
		return welcome
	case ch != channelRaft:
		return refuseVersion
	case n.health.out() && n.IsLeader():
		return refuseOutService
	case d.Stage == stageNew:
		return refuseNotMember
	case h.Proven && !n.knows(h.From):
		return refuseStranger
	case h.Cluster == own && own != "":
		return welcome
	case own != "": // the sender has no cluster id
		return refuseCluster
	case h.Founders != 0 && h.Founders != foundersHash(d.Bootstrap):
		return refuseCluster
	default:
		return welcome
	}
}

// isPeer reports whether a peer on the rpc channel is of this cluster; one
// without a cluster id may be of the same founders. Under TLS it has to be a member.
func (n *Node) isPeer(h *hello) bool {
	if h.Proven && !n.knows(h.From) {
		n.mux.refused.say(n.log, "calls of no member", textAddr(""), h.From, nil)
		return false
	}
	own := n.clusterID()
	return own == "" || h.Cluster == own || (h.Founders != 0 && h.Founders == foundersHash(n.ident.get().Bootstrap))
}

// join makes a new node a member, and afterwards keeps its address right.
func (n *Node) join(stage string) {
	var err error
	switch stage {
	case stageNew:
		err = n.form()
	case stageBootstrap:
		err = n.bootstrap(n.ident.get().Bootstrap)
	}
	if err != nil {
		n.log.Error("cannot take part", "error", err)
		n.health.fail(err)
		return
	}
	n.hurry()
	for n.ctx.Err() == nil {
		if n.checkOwnEntry() {
			pause(n.ctx, rejoinInterval)
		} else {
			pause(n.ctx, formTick)
		}
	}
}

// gossipLoop joins the seeds again and again: memberlist forgets the dead and
// does not heal a partition by itself.
func (n *Node) gossipLoop() {
	tick := time.NewTicker(rejoinInterval)
	defer tick.Stop()
	quick := time.NewTicker(formTick)
	defer quick.Stop()
	foreign := ""
	for {
		foreign = n.noteForeigners(foreign)
		if len(n.gossip.peers())+1 < max(n.cfg.Expect, min(len(n.cfg.Join)+1, 2)) || n.gossipLacks() {
			n.gossip.join(append(n.table.gossipAddrs(), n.cfg.Join...))
		}
		next := tick.C
		if n.ident.get().Stage == stageNew {
			next = quick.C // still looking for the others
		}
		select {
		case <-next:
		case <-n.ctx.Done():
			return
		}
	}
}

// gossipLacks reports whether gossip does not hear of a member. Its gossip address
// may still be known: members tell it on the cluster port too.
func (n *Node) gossipLacks() bool {
	for _, s := range n.servers() {
		if _, ok := n.gossip.peer(string(s.ID)); !ok && string(s.ID) != n.cfg.Name {
			return true
		}
	}
	return false
}

// noteCluster keeps the cluster id in the identity and in gossip.
func (n *Node) noteCluster(id string) {
	if n.ident.get().Cluster != id {
		if err := n.ident.update(func(d *identityData) { d.Cluster = id }); err != nil {
			n.log.Error("cannot note the cluster id", "error", err)
			return
		}
	}
	n.gossip.announce(func(m *peerMeta) { m.Cluster, m.Empty = id, false })
}

// identityLoop follows the cluster id as it arrives by the log, and notes when
// an admitted node has got a log that it must not lose.
func (n *Node) identityLoop() {
	tick := time.NewTicker(identityTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		d := n.ident.get()
		id := n.fsm.ClusterID()
		if id != "" && d.Cluster == "" {
			n.noteCluster(id)
		}
		if d.Stage == stageAdmitted && n.raft.LastIndex() > 0 {
			if err := n.becomeMember(); err != nil {
				n.log.Error("cannot note the membership", "error", err)
			}
		}
		if d.Stage == stageMember && d.Cluster != "" {
			return
		}
	}
}

// catchUp ends when this node has once had everything that the leader had
// committed after its start; until then it is not ready.
func (n *Node) catchUp() {
	for n.ctx.Err() == nil {
		v, err := n.View(n.ctx, fsm.Freshness{Level: fsm.Linearizable})
		if err == nil {
			v.Close()
			n.caughtUp.Store(true)
			return
		}
		pause(n.ctx, retryMin)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
