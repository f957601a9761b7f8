package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// promoteLag is how many log entries a new node may be behind and still count
// as keeping up.
const promoteLag = 64

// joinRequest asks for admission, or tells a new address.
type joinRequest struct {
	Name, ID, Addr string
	Cluster        string // that the node belongs to; "" when new
	Level          uint64 // highest feature level it knows
	Empty          bool   // has no Raft state
}

func (r *joinRequest) encode() []byte {
	b := appendString(appendString(appendString(appendString(nil, r.Name), r.ID), r.Addr), r.Cluster)
	return appendBool(binary.AppendUvarint(b, r.Level), r.Empty)
}

func decodeJoinRequest(b []byte) (*joinRequest, error) {
	d := decoder{b: b}
	r := &joinRequest{Name: d.string(), ID: d.string(), Addr: d.string(), Cluster: d.string()}
	r.Level, r.Empty = d.uint(), d.bool()
	return r, d.err
}

// joinAnswer admits (Cluster), shows the founders to one of them, or names the
// leader to ask.
type joinAnswer struct {
	Cluster            string
	Leader, LeaderAddr string
	Founders           []founder
}

func (a *joinAnswer) encode() []byte {
	b := appendString(appendString(appendString(nil, a.Cluster), a.Leader), a.LeaderAddr)
	b = binary.AppendUvarint(b, uint64(len(a.Founders)))
	for _, f := range a.Founders {
		b = appendString(appendString(appendString(b, f.Name), f.ID), f.Addr)
	}
	return b
}

func decodeJoinAnswer(b []byte) (*joinAnswer, error) {
	d := decoder{b: b}
	a := &joinAnswer{Cluster: d.string(), Leader: d.string(), LeaderAddr: d.string()}
	n := d.uint()
	if n > MaxMembers {
		return nil, fmt.Errorf("%w: %d founders", fsm.ErrCorrupt, n)
	}
	for range n {
		a.Founders = append(a.Founders, founder{Name: d.string(), ID: d.string(), Addr: d.string()})
	}
	return a, d.err
}

// serveJoin is the other end of a join. Only the leader admits.
func (n *Node) serveJoin(ctx context.Context, payload []byte) (callStatusCode, []byte) {
	r, err := decodeJoinRequest(payload)
	if err == nil {
		err = errors.Join(checkCaller(ctx, r.Name), n.checkJoin(r))
	}
	if err != nil {
		return joinStatus(err)
	}
	d := n.ident.get()
	if r.Empty && slices.ContainsFunc(d.Bootstrap, func(f founder) bool { return f.Name == r.Name && f.ID == r.ID }) {
		return statusOK, (&joinAnswer{Founders: d.Bootstrap}).encode()
	}
	if !n.IsLeader() {
		l, _ := n.currentLeader()
		return statusNotLeader, (&joinAnswer{Leader: l.name, LeaderAddr: l.addr}).encode()
	}
	n.joinMu.Lock()
	defer n.joinMu.Unlock()
	if err := n.admitNode(ctx, r); err != nil {
		n.log.Warn("join refused", "node", r.Name, "error", err)
		return joinStatus(err)
	}
	return statusOK, (&joinAnswer{Cluster: n.clusterID()}).encode()
}

func joinStatus(err error) (callStatusCode, []byte) {
	// The status says what kind of error it is, the text only the rest of it.
	text := func(kind error) []byte { return []byte(strings.TrimPrefix(err.Error(), kind.Error()+": ")) }
	switch {
	case errors.Is(err, ErrNameTaken):
		return statusNameTaken, text(ErrNameTaken)
	case errors.Is(err, ErrForeignCluster):
		return statusForeign, text(ErrForeignCluster)
	case errors.Is(err, ErrRemoved):
		return statusRemoved, text(ErrRemoved)
	default:
		return statusRefused, text(ErrRefused)
	}
}

// checkJoin refuses what no leader would admit.
func (n *Node) checkJoin(r *joinRequest) error {
	if !nameFormat.MatchString(r.Name) || len(r.Name) > MaxNameBytes || r.ID == "" || len(r.ID) > MaxNameBytes {
		return fmt.Errorf("%w: name or id of a joining node", fsm.ErrCorrupt)
	}
	if err := n.cfg.checkAddr(r.Addr); err != nil {
		return err
	}
	if n.removed(r.ID) {
		return fmt.Errorf("%w: empty the folder and join under a new name", ErrRemoved)
	}
	if own := n.clusterID(); r.Cluster != "" && own != "" && r.Cluster != own {
		return fmt.Errorf("%w: it is of cluster %s, this is %s", ErrForeignCluster, r.Cluster, own)
	}
	return nil
}

// admitNode adds a node without a vote, or corrects a known node's address. The
// id of a name is replicated before the node is added: a disk that was lost
// under a known name is then refused by every later leader, because a voter
// that forgot its vote could vote twice.
func (n *Node) admitNode(ctx context.Context, r *joinRequest) error {
	v, err := n.fsm.View()
	if err != nil {
		return err
	}
	known, err := v.Setting(nodeSetting + r.Name)
	// A new cluster's first leader writes the level a moment after it leads.
	level := max(v.FeatureLevel(), fsm.FeatureLevel1)
	v.Close()
	if err != nil {
		return err
	}
	switch {
	case r.Level < uint64(level):
		return fmt.Errorf("%w: it knows feature level %d, the cluster is at %d", ErrRefused, r.Level, level)
	case known != nil && string(known) != r.ID:
		return fmt.Errorf("%w: the cluster knows %q with another data directory; use a new name", ErrNameTaken, r.Name)
	case known == nil && n.isMember(r.Name):
		return fmt.Errorf("%w: the id behind %q is not known yet, try again", ErrRefused, r.Name)
	case known == nil && !r.Empty:
		return fmt.Errorf("%w: %q brings a state of its own", ErrForeignCluster, r.Name)
	case len(n.servers()) >= MaxMembers && !n.isMember(r.Name):
		return fmt.Errorf("%w: the cluster has %d members", ErrRefused, MaxMembers)
	}
	if known == nil {
		op := fsm.Op{Type: fsm.OpSetSetting, Name: nodeSetting + r.Name, Value: []byte(r.ID)}
		if _, err := n.Propose(ctx, fsm.Txn{Now: n.Now(), Ops: []fsm.Op{op}}); err != nil {
			return err
		}
	}
	return n.addServer(r)
}

// addServer returns nil once a configuration with the node is committed. One that has
// it already may never be: the leader that made it was cut off, or could not store it.
// So it is written again, which is rare: only a node that got no answer asks twice.
func (n *Node) addServer(r *joinRequest) error {
	id, addr := raft.ServerID(r.Name), raft.ServerAddress(r.Addr)
	for _, s := range n.servers() {
		if s.ID == id && s.Suffrage == raft.Voter {
			return n.raft.AddVoter(id, addr, 0, callTimeout).Error()
		}
	}
	n.log.Info("admitting", "node", r.Name, "address", r.Addr)
	return n.raft.AddNonvoter(id, addr, 0, callTimeout).Error()
}
