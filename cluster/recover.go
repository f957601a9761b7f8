package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// Recovery from a lost quorum, on the data directory of one survivor, offline.
//
// What raft.RecoverCluster does, done in place: it would write the state a second
// time. A configuration with this node alone goes to the end of the log, in a term
// above all that the directory knows, so that no entry of a lost leader can be taken
// for one of ours. The only voter then commits its whole log. Whatever the others had
// acknowledged and this node never received is lost; nobody can know whether there
// was any. The directories of all others are noted as removed: when one comes back it
// is refused, and ends.

// Survivor is what a data directory has, to compare those that are left.
type Survivor struct {
	Name     string       `json:"name"`
	Cluster  string       `json:"cluster_id"`
	Term     uint64       `json:"term"`       // of the last entry of its log
	Index    uint64       `json:"last_index"` // of its log: more is better, after the term
	Applied  uint64       `json:"applied"`
	Revision fsm.Revision `json:"revision"` // of its state; the log may have more
	Members  []string     `json:"members"`
}

// Survivor describes this data directory. Call it between Open and Start.
func (n *Node) Survivor() (Survivor, error) {
	members, err := n.StoredMembers()
	if err != nil {
		return Survivor{}, err
	}
	slices.Sort(members)
	s := Survivor{Name: n.cfg.Name, Cluster: n.clusterID(), Applied: n.fsm.Applied(), Revision: n.fsm.Revision(), Members: members}
	s.Index, s.Term, err = n.logEnd()
	return s, err
}

// logEnd is the index and term of the last entry, in the log or in the snapshot.
func (n *Node) logEnd() (index, term uint64, err error) {
	if index, err = n.logs.LastIndex(); err != nil {
		return 0, 0, err
	}
	if meta, ok := n.store.SnapshotMeta(); ok && meta.Index >= index {
		return meta.Index, meta.Term, nil
	}
	if index == 0 {
		return 0, 0, nil
	}
	var l raft.Log
	err = n.logs.GetLog(index, &l)
	return index, l.Term, err
}

// Recover makes this node the only voter of its cluster. Call it between Open, with
// Config.Recover, and Start of a node that is started alone; then EndRecovery. A crash
// in between leaves a directory that only another recovery opens (ErrRecovering).
// ErrRefused when there is nothing to recover.
func (n *Node) Recover() error {
	d := n.ident.get()
	if d.Stage != stageMember || n.clusterID() == "" {
		return fmt.Errorf("cluster: %w: the folder has never been a member of a cluster with data", ErrRefused)
	}
	if err := n.ident.update(func(d *identityData) { d.Recovering = true }); err != nil {
		return err
	}
	index, term, err := n.logEnd()
	if err != nil {
		return err
	}
	current, err := n.stable.GetUint64([]byte(termKey))
	if err != nil && !errors.Is(err, errKeyNotFound) && err.Error() != errKeyNotFound.Error() {
		return err
	}
	term = max(term, current) + 1
	if err := n.stable.SetUint64([]byte(termKey), term); err != nil {
		return err
	}
	var logs []*raft.Log
	// A state that came from another node may be ahead of the log: entries that it has
	// would be skipped.
	for ; index < n.store.Applied(); index++ {
		logs = append(logs, &raft.Log{Index: index + 1, Term: term, Type: raft.LogNoop})
	}
	only := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(n.cfg.Name), Address: raft.ServerAddress(n.addr)}}}
	logs = append(logs, &raft.Log{Index: index + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(only)})
	if err := n.dropOldLog(logs[0].Index); err != nil {
		return err
	}
	return n.logs.StoreLogs(logs)
}

// dropOldLog removes entries that end before what the snapshot covers: Raft does the
// same once it has installed one.
func (n *Node) dropOldLog(next uint64) error {
	first, err := n.logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := n.logs.LastIndex()
	if err != nil || last == 0 || last+1 >= next {
		return err
	}
	return n.logs.DeleteRange(first, last)
}

// termKey is Raft's key of the current term in its stable store.
const termKey = "CurrentTerm"

// EndRecovery begins a new life of revisions, notes the directories of all other nodes
// as removed and returns their names. Call it once the recovered node leads.
func (n *Node) EndRecovery(ctx context.Context) ([]string, error) {
	if err := n.beginLife(ctx); err != nil {
		return nil, err
	}
	v, err := n.fsm.View()
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, f := range n.ident.get().Bootstrap {
		ids[f.Name] = f.ID
	}
	err = v.Settings(nodeSetting, func(name string, id []byte) bool {
		ids[name[len(nodeSetting):]] = string(id)
		return true
	})
	v.Close()
	if err != nil {
		return nil, err
	}
	delete(ids, n.cfg.Name)
	var gone []string
	var ops []fsm.Op
	for name, id := range ids {
		if n.removed(id) { // long ago; its name may be forgotten
			continue
		}
		gone = append(gone, name)
		ops = append(ops, setting(removedSetting+id, name), setting(nodeSetting+name, id))
	}
	slices.Sort(gone)
	for len(ops) > 0 {
		count := min(len(ops), recoverOps)
		if err := n.setSettings(ctx, ops[:count]...); err != nil {
			return nil, err
		}
		ops = ops[count:]
	}
	return gone, n.ident.update(func(d *identityData) { d.Recovering = false })
}

// beginLife makes the revisions go on at the next multiple of fsm.LifeStep: those that
// the lost nodes gave out and this one never received are recognised by it, and nobody
// gets them again. This node is alone, so it may raise the feature level that the
// operation needs. A recovery that is repeated begins one more life.
func (n *Node) beginLife(ctx context.Context) error {
	for _, op := range []fsm.Op{{Type: fsm.OpSetFeatureLevel, Level: fsm.FeatureLevel2}, {Type: fsm.OpBeginLife}} {
		if _, err := n.Propose(ctx, fsm.Txn{Now: n.Now(), Ops: []fsm.Op{op}}); err != nil {
			return err
		}
	}
	return nil
}

// recoverOps bounds the operations of one transaction of EndRecovery.
const recoverOps = 1000
