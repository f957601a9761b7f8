package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// ErrCompacted: the log of this node begins behind the entries that were asked for.
var ErrCompacted = errors.New("cluster: the log begins later")

// Entries calls f with the entries of this node's log from one index to another, in
// their order, until it returns false. The caller has seen to it that the state has
// applied the last of them: they are committed then, on every node the same. An entry
// is shared and must not be changed. It reads beside Raft and holds nothing up.
// Errors: ErrCompacted, fsm.ErrCorrupt, or the disk's.
func (n *Node) Entries(from, to uint64, f func(*raft.Log) bool) error {
	first, err := n.logs.FirstIndex()
	if err != nil {
		return err
	}
	if from <= to && (first == 0 || from < first) {
		return fmt.Errorf("%w: at %d, not at %d", ErrCompacted, first, from)
	}
	for i := from; i <= to; i++ {
		var l raft.Log
		err := n.logs.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) { // cut meanwhile, or an installed snapshot left a hole
			return fmt.Errorf("%w: it has no entry %d", ErrCompacted, i)
		}
		if err != nil {
			return err
		}
		if !f(&l) {
			return nil
		}
	}
	return nil
}

// Archived says that the log is archived up to an index: what follows is kept for the
// archive, within Config.ArchiveHoldBytes. The other nodes hear it in the exchange, so
// that each of them can go on if this one ends.
func (n *Node) Archived(index uint64) { n.archived.Store(index) }

// heldForArchive is how many entries at the end of the log the archive still needs, as
// far as their bytes, with so many in the mean, may be held for it. Raft counts from the
// end that the log has when the snapshot is done: it may have grown by as many as since
// the last one.
func (n *Node) heldForArchive(mean int64, grown uint64) uint64 {
	at := n.archived.Load()
	if n.cfg.ArchiveHoldBytes <= 0 || at == 0 {
		return 0
	}
	last := n.raft.LastIndex()
	return min(max(last, at)-at+grown, uint64(n.cfg.ArchiveHoldBytes/mean))
}
