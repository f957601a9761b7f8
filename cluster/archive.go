package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// ErrCompacted: no log that this node can read has the entries that were asked for.
var ErrCompacted = errors.New("cluster: the log begins later")

// ErrNotAsked comes with ErrCompacted: a member that may have the entries did not answer.
var ErrNotAsked = errors.New("cluster: not every member answers")

// maxEntriesBytes bounds an answer with entries, unless one alone is larger; both fit
// into MaxCallBytes.
const maxEntriesBytes = 1 << 20

// Entries calls f with the entries of the log from one index to another, in their
// order, until it returns false. The caller has seen to it that the state has applied
// the last of them: they are committed then, on every node the same. So what this node
// lacks, as a snapshot was installed here, others are asked for. An entry is shared and
// must not be changed. It reads beside Raft and holds nothing up.
// Errors: ErrCompacted, with ErrNotAsked if it may be otherwise, fsm.ErrCorrupt, ctx's, or
// the disk's.
func (n *Node) Entries(ctx context.Context, from, to uint64, f func(*raft.Log) bool) error {
	for i := from; i <= to; {
		logs, err := n.ownEntries(i, to)
		if errors.Is(err, ErrCompacted) {
			logs, err = n.peerEntries(ctx, i, to, err)
		}
		if err != nil {
			return err
		}
		for _, l := range logs {
			if !f(l) {
				return nil
			}
		}
		i += uint64(len(logs))
	}
	return nil
}

// ownEntries returns entries of this node's own log: as many as an answer may have, at
// least one. Up to where the state came from another node it proves nothing of the log.
func (n *Node) ownEntries(from, to uint64) (logs []*raft.Log, err error) {
	first, err := n.logs.FirstIndex()
	if err != nil {
		return nil, err
	}
	received, err := n.store.ReceivedUpTo()
	if err != nil {
		return nil, err
	}
	if first = max(first, received+1); from < first {
		return nil, fmt.Errorf("%w: at %d, not at %d", ErrCompacted, first, from)
	}
	for i, size := from, 0; i <= to; i++ {
		l := new(raft.Log)
		err := n.logs.GetLog(i, l)
		if errors.Is(err, raft.ErrLogNotFound) { // cut meanwhile
			err = fmt.Errorf("%w: it has no entry %d", ErrCompacted, i)
		}
		if size += len(l.Data); err != nil || size > maxEntriesBytes {
			if i > from {
				err = nil // what there is
			}
			if i > from || err != nil {
				return logs, err
			}
		}
		logs = append(logs, l)
	}
	return logs, nil
}

// peerEntries asks the other members one after another, first the one that helped last,
// for entries that this node lacks, for the reason missing.
func (n *Node) peerEntries(ctx context.Context, from, to uint64, missing error) ([]*raft.Log, error) {
	servers := slices.Clone(n.servers())
	if last := n.helper.Load(); last != nil {
		if i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == *last }); i > 0 {
			servers[0], servers[i] = servers[i], servers[0]
		}
	}
	for _, s := range servers {
		name := string(s.ID)
		if name == n.cfg.Name {
			continue
		}
		logs, answered, err := n.askEntries(ctx, name, n.peerAddr(name, string(s.Address)), from, to)
		if err == nil && len(logs) > 0 {
			n.helper.Store(&name)
			return logs, nil
		}
		if ctx.Err() != nil { // nothing is known
			return nil, ctx.Err()
		}
		if !answered && !errors.Is(missing, ErrNotAsked) {
			missing = fmt.Errorf("%w; %w: %s", missing, ErrNotAsked, name)
		}
		n.log.Debug("entries for the archive", "node", name, "from", from, "to", to, "error", err)
	}
	return nil, missing
}

// askEntries asks one member; answered is false if it may have them all the same.
func (n *Node) askEntries(ctx context.Context, name, addr string, from, to uint64) (logs []*raft.Log, answered bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	f, err := n.client.call(ctx, name, addr, callEntries, binary.AppendUvarint(binary.AppendUvarint(nil, from), to))
	if err != nil {
		return nil, false, err
	}
	if f.status != statusOK { // statusUnknown: an older version; statusRefused: not applied yet
		return nil, f.status != statusRefused, fmt.Errorf("answer %d %q", f.status, f.payload)
	}
	logs, err = decodeEntries(f.payload, from, to)
	return logs, err == nil, err
}

// serveEntries is the other end: it tells only what its own state has applied, as what
// follows may yet be another's.
func (n *Node) serveEntries(_ context.Context, payload []byte) (callStatusCode, []byte) {
	d := decoder{b: payload}
	from, to := d.uint(), d.uint()
	to = min(to, n.fsm.Applied())
	if d.err != nil || from == 0 || from > to {
		return statusRefused, []byte("no entries to tell")
	}
	logs, err := n.ownEntries(from, to)
	if err != nil {
		return statusFailed, []byte(err.Error())
	}
	return statusOK, encodeEntries(logs)
}

// encodeEntries gives each entry a checksum, as the log does.
func encodeEntries(logs []*raft.Log) []byte {
	b := binary.AppendUvarint(nil, uint64(len(logs)))
	for _, l := range logs {
		b = binary.AppendUvarint(binary.AppendUvarint(b, l.Index), l.Term)
		b = appendString(append(b, byte(l.Type)), string(l.Data))
		b = binary.AppendUvarint(b, entryChecksum(l))
	}
	return b
}

// entryChecksum leaves the extensions out, which the archive has no use for.
func entryChecksum(l *raft.Log) uint64 {
	return logChecksum(&raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: l.Data})
}

// decodeEntries refuses an answer that is not a row of entries that was asked for.
func decodeEntries(b []byte, from, to uint64) (logs []*raft.Log, err error) {
	d := decoder{b: b}
	count := d.uint()
	if count > to-from+1 {
		return nil, fmt.Errorf("%w: %d entries", fsm.ErrCorrupt, count)
	}
	for i := range count {
		l := &raft.Log{Index: d.uint(), Term: d.uint(), Type: raft.LogType(d.uint()), Data: d.bytes()}
		if sum := d.uint(); d.err == nil && (l.Index != from+i || sum != entryChecksum(l)) {
			d.err = fmt.Errorf("%w: entry %d in the place of %d, or its checksum", fsm.ErrCorrupt, l.Index, from+i)
		}
		if d.err != nil {
			return nil, d.err
		}
		logs = append(logs, l)
	}
	return logs, nil
}

// Archived says that this node archives the log, and has done so up to an index: what
// follows is kept for the archive, within Config.ArchiveHoldBytes. The other nodes hear
// it in the exchange, so that each of them can go on if this one ends.
func (n *Node) Archived(index uint64) {
	n.archives.Store(true)
	n.archived.Store(index)
}

// ArchivedElsewhere says that this node does not archive the log, or no more: it hears
// from the one that does.
func (n *Node) ArchivedElsewhere() { n.archives.Store(false) }

// hearArchived takes from the status of a member how far the archive is.
func (n *Node) hearArchived(st *nodeStatus, leads bool) {
	if st.Archived > 0 && (st.Archives || leads) && !n.archives.Load() { // an older leader does not say that it does
		n.archived.Store(st.Archived)
	}
}

// neededByArchive returns the first entry that the archive still needs, as far as what
// follows may be held for it. A node that has not been told since it started how far the
// archive is, or that cannot find it out, takes it to have nothing.
func (n *Node) neededByArchive() uint64 {
	return max(n.archived.Load()+1, n.logs.sizes.first())
}
