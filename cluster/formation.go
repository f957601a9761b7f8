package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// How a node without Raft state becomes a member.
//
// Alone (no Join, no Expect) it bootstraps itself. With Expect N it bootstraps
// together with N−1 others, once all N have been seen empty and all of them tell
// by gossip that they would bootstrap with the same founders (names, node ids
// and addresses). Two different sets cannot both be complete in one node's eyes
// and in all of its founders'; and should an old rumour make one node believe
// it, it stands alone: founders talk Raft only to those of the same set until
// the cluster has an id. A node that missed the moment adopts the founders from
// a peer whose founders name its node id.
//
// Whenever a peer is not empty there is a cluster, and the node asks to join it.

// form makes this node a member and returns; nil also when the node is closed.
// An error is final: the node must not take part.
func (n *Node) form() error {
	if n.cfg.alone() {
		return n.bootstrap([]founder{n.founder()})
	}
	tick := time.NewTicker(formTick)
	defer tick.Stop()
	defer n.waits.Store(nil)
	var w waiting
	for {
		done, err := n.tryForm()
		if done {
			return err
		}
		w.tell(n, err)
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return nil
		}
	}
}

func (n *Node) founder() founder {
	d := n.ident.get()
	return founder{Name: d.Name, ID: d.ID, Addr: n.addr}
}

// tryForm makes one attempt; done says that there will be no other.
func (n *Node) tryForm() (done bool, err error) {
	if other := n.gossip.nameConflict(); other != "" {
		return true, fmt.Errorf("cluster: %w: %q is used by the node at %s", ErrNameTaken, n.cfg.Name, other)
	}
	peers := n.gossip.peers()
	for _, p := range peers {
		if p.Empty {
			continue
		}
		if err = n.joinThrough(p); err == nil {
			return true, nil
		}
		if errors.Is(err, ErrNameTaken) || errors.Is(err, ErrForeignCluster) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrRemoved) {
			return true, err
		}
	}
	if err != nil || n.cfg.Expect <= 1 {
		return false, err
	}
	founders, agreed, err := n.founders(peers)
	if err != nil || founders == nil {
		return false, err
	}
	n.gossip.announce(func(m *peerMeta) { m.Proposal = foundersHash(founders) })
	if !agreed {
		return false, nil
	}
	return true, n.bootstrap(founders)
}

// founders returns the set that this node sees, once it is complete, and
// whether every other one proposes the same.
func (n *Node) founders(peers []peerMeta) (set []founder, agreed bool, err error) {
	if got := len(peers) + 1; got != n.cfg.Expect {
		return nil, false, fmt.Errorf("%d of %d expected nodes seen", got, n.cfg.Expect)
	}
	set = append(set, n.founder())
	for _, p := range peers {
		if p.Expect != uint64(n.cfg.Expect) {
			return nil, false, fmt.Errorf("node %q expects %d nodes, this one %d", p.Name, p.Expect, n.cfg.Expect)
		}
		set = append(set, founder{Name: p.Name, ID: p.ID, Addr: p.Addr})
	}
	slices.SortFunc(set, func(a, b founder) int { return cmp.Compare(a.Name, b.Name) })
	agreed = true
	for _, p := range peers {
		agreed = agreed && p.Proposal == foundersHash(set)
	}
	return set, agreed, nil
}

// bootstrap writes founders to the identity, then to the log. A crash between
// the two does the second half again, with the same founders.
func (n *Node) bootstrap(founders []founder) error {
	err := n.ident.update(func(d *identityData) { d.Stage, d.Bootstrap = stageBootstrap, founders })
	if err != nil {
		return err
	}
	var c raft.Configuration
	for _, f := range founders {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(f.Name), Address: raft.ServerAddress(f.Addr)})
	}
	if err := n.raft.BootstrapCluster(c).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("cluster: bootstrap: %w", err)
	}
	n.log.Info("cluster founded", "nodes", len(founders))
	return n.becomeMember()
}

// becomeMember opens the raft channel: from now on a lost log is a lost vote.
func (n *Node) becomeMember() error {
	err := n.ident.update(func(d *identityData) { d.Stage = stageMember })
	n.client.reset()
	n.gossip.announce(func(m *peerMeta) { m.Empty, m.Proposal, m.Cluster = false, 0, n.clusterID() })
	return err
}

// hurry makes a lone voter stand for election at once: nobody competes, so there
// is no heartbeat to wait for.
func (n *Node) hurry() {
	s := n.servers()
	if len(s) != 1 || string(s[0].ID) != n.cfg.Name || n.raft.State() == raft.Leader {
		return
	}
	var answer raft.TimeoutNowResponse
	request := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.cfg.Name), Addr: []byte(n.addr),
	}}
	if err := n.trans.TimeoutNow(s[0].ID, raft.ServerAddress(n.addr), &request, &answer); err != nil {
		n.log.Debug("waiting for the election timeout", "error", err)
	}
}

// joinThrough asks p, or the leader that p names, for admission.
func (n *Node) joinThrough(p peerMeta) error {
	name, addr := p.Name, p.Addr
	for range 2 {
		a, err := n.callJoin(name, addr)
		if err != nil {
			return err
		}
		switch {
		case slices.Contains(a.Founders, n.founder()):
			return n.bootstrap(a.Founders)
		case a.Cluster != "":
			return n.admitted(a.Cluster)
		case a.Leader == "" || a.Leader == name:
			return fmt.Errorf("%w: node %q knows no leader", fsm.ErrNoLeader, name)
		}
		name, addr = a.Leader, a.LeaderAddr
	}
	return fsm.ErrNoLeader
}

func (n *Node) admitted(cluster string) error {
	err := n.ident.update(func(d *identityData) { d.Stage, d.Cluster = stageAdmitted, cluster })
	if err == nil {
		n.log.Info("admitted", "cluster", cluster)
		n.client.reset() // as a stranger it could only ask to join
		n.gossip.announce(func(m *peerMeta) { m.Empty, m.Cluster = false, cluster })
	}
	return err
}

func (n *Node) callJoin(name, addr string) (*joinAnswer, error) {
	d := n.ident.get()
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	r := joinRequest{
		Name: d.Name, ID: d.ID, Addr: n.addr, Cluster: n.clusterID(), Level: uint64(fsm.FeatureCurrent),
		Empty: d.Stage == stageNew,
	}
	f, err := n.client.call(ctx, name, addr, callJoin, r.encode())
	if err != nil {
		return nil, err
	}
	switch f.status {
	case statusOK, statusNotLeader:
		return decodeJoinAnswer(f.payload)
	case statusNameTaken:
		return nil, fmt.Errorf("cluster: %w: %s", ErrNameTaken, f.payload)
	case statusForeign:
		return nil, fmt.Errorf("cluster: %w: %s", ErrForeignCluster, f.payload)
	case statusRemoved:
		return nil, fmt.Errorf("cluster: %w: %s", ErrRemoved, f.payload)
	default:
		return nil, fmt.Errorf("%w: %s", ErrRefused, f.payload)
	}
}

// checkOwnEntry asks the leader to note a new address of this node; true when
// there is nothing to do.
func (n *Node) checkOwnEntry() bool {
	for _, s := range n.servers() {
		if string(s.ID) != n.cfg.Name || string(s.Address) == n.addr {
			continue
		}
		if l, ok := n.currentLeader(); ok && !l.self {
			if _, err := n.callJoin(l.name, l.addr); err != nil {
				n.log.Warn("the leader does not take the new address", "error", err)
			}
		}
		return false
	}
	return true
}
