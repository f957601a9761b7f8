package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"quinto/fsm/store"
)

// A restored state stands for this place in the log of its new cluster: an entry
// that nobody has, of a term that is over.
const (
	RestoredIndex uint64 = 1
	RestoredTerm  uint64 = 1
)

// MembershipSettings begin the names of the replicated settings that tie names to
// nodes: who has which folder, who was removed, who has no vote. A restored cluster
// has other nodes, so it forgets them.
func MembershipSettings() []string { return []string{nodeSetting, removedSetting, noVoteSetting} }

// RestoredMeta is the snapshot that a restored state is in a cluster whose only
// member is name. addr is its cluster address; the node corrects it at its start.
func RestoredMeta(name, addr string) raft.SnapshotMeta {
	return raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: "restored", Index: RestoredIndex, Term: RestoredTerm, ConfigurationIndex: RestoredIndex,
		Configuration: raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(name), Address: raft.ServerAddress(addr)}}},
	}
}

// FoundRestored completes a data directory whose store was restored with
// RestoredMeta: an empty log, and an identity as the founder of cluster. The
// identity comes last: without it the directory does not start. Of cfg it needs
// Name, DataDir and LogStore.
func FoundRestored(cfg Config, cluster string, st *store.Store) error {
	cfg = cfg.withDefaults()
	if meta, ok := st.SnapshotMeta(); !ok || meta.Index != RestoredIndex {
		return errors.New("cluster: the store was not restored")
	}
	_, stable, closeLog, err := openLog(&cfg)
	if err != nil {
		return err
	}
	// Else the first election would be of the term that the snapshot is of.
	err = stable.SetUint64([]byte(raftTermKey), RestoredTerm)
	if err = errors.Join(err, closeLog()); err != nil {
		return err
	}
	id, err := openIdentity(&cfg)
	if err != nil {
		return err
	}
	return id.update(func(d *identityData) { d.Stage, d.Cluster = stageMember, cluster })
}

// StoredName returns the name of the node that a data directory belongs to, "" when
// it belongs to none yet. ErrDamaged when its identity does not decode.
func StoredName(dir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cluster: identity: %w", err)
	}
	d, err := decodeIdentity(raw)
	return d.Name, err
}
