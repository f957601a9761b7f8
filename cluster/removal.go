package cluster

import (
	"context"
	"fmt"

	"quinto/fsm"
)

// removed reports whether the data directory of that id was removed from this
// cluster, as far as this node has applied. It never becomes false again.
func (n *Node) removed(id string) bool {
	if id == "" {
		return false
	}
	v, err := n.fsm.View()
	if err != nil {
		return false
	}
	defer v.Close()
	name, err := v.Setting(removedSetting + id)
	return err == nil && name != nil
}

// checkRemoved takes this node out of service once it has heard that it was removed.
func (n *Node) checkRemoved() {
	if n.removed(n.ident.get().ID) {
		n.leaveForGood("its own state says so")
	}
}

// toldRemoved is called when a peer of this cluster refuses this node as removed.
func (n *Node) toldRemoved(peer string) {
	if n.clusterID() != "" {
		n.leaveForGood(fmt.Sprintf("%q says so", peer))
	}
}

func (n *Node) leaveForGood(why string) {
	err := fmt.Errorf("%w: %s; to use this machine again, empty the folder and join under a new name", ErrRemoved, why)
	if !n.health.fail(err) {
		return
	}
	n.log.Error("out of service", "error", err)
	n.lead.poke()
	// The state that says so may not be flushed, and the log not be kept.
	if err := n.ident.update(func(d *identityData) { d.Removed = true }); err != nil {
		n.log.Error("cannot note the removal", "error", err)
	}
}

// KnownNode is a name with the id that the cluster has tied to it.
type KnownNode struct {
	Name string `json:"name"`
	ID   string `json:"id"` // of the data directory; "" when not known yet
	// Suffrage is "voter" or "nonvoter"; of a node that is no member "".
	Suffrage string `json:"suffrage"`
	Cluster  string `json:"cluster"` // HOST:PORT of the cluster port, as configured
	// Held says that the node is not promoted by itself, since it was demoted.
	Held bool `json:"held,omitempty"`
}

// KnownNodes returns the members as Raft has them, and the names that are taken by
// nodes that are no members: they were removed, and not forgotten. It asks nobody.
func (n *Node) KnownNodes() (members, former []KnownNode, err error) {
	v, err := n.fsm.View()
	if err != nil {
		return nil, nil, err
	}
	defer v.Close()
	members, former = []KnownNode{}, []KnownNode{}
	for _, s := range n.servers() {
		name := string(s.ID)
		id, err := v.Setting(nodeSetting + name)
		if err != nil {
			return nil, nil, err
		}
		held, err := v.Setting(noVoteSetting + name)
		if err != nil {
			return nil, nil, err
		}
		members = append(members, KnownNode{Name: name, ID: string(id), Suffrage: suffrage(s), Cluster: string(s.Address), Held: held != nil})
	}
	err = v.Settings(nodeSetting, func(name string, id []byte) bool {
		if name = name[len(nodeSetting):]; !n.isMember(name) {
			former = append(former, KnownNode{Name: name, ID: string(id)})
		}
		return len(former) < maxKnownNodes
	})
	return members, former, err
}

// maxKnownNodes bounds the former members that are shown.
const maxKnownNodes = 1000

// endRemovals takes nodes out of Raft's configuration whose removal was noted by a
// leader that did not get further.
func (n *Node) endRemovals(ctx context.Context, v *fsm.View) error {
	for _, s := range n.servers() {
		id, err := v.Setting(nodeSetting + string(s.ID))
		if err != nil || id == nil || string(s.ID) == n.cfg.Name {
			continue
		}
		gone, err := v.Setting(removedSetting + string(id))
		if err != nil || gone == nil {
			continue
		}
		n.joinMu.Lock()
		err = n.dropServer(ctx, s.ID)
		n.joinMu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
