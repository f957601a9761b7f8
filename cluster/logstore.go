package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"

	"quinto/fsm"
)

const checksumSize = 8

// logStore is Raft's log with a checksum over each whole record and a bounded
// cache of its end, on either library. bolt has no checksums: without ours a
// flipped bit would be read, applied and replicated as if it were true.
//
// The checksum travels at the end of the stored Extensions; what Raft sees is
// what it stored. Log data is shared with the cache and must not be modified.
type logStore struct {
	inner raft.LogStore
	mark  *logMark // of the WAL only
	cache logCache
	sizes logSizes
	// needed returns the first entry that must stay when the log is cut from its
	// begin on; nil: none has to.
	needed func() uint64

	bytes   atomic.Int64 // stored since the process began
	entries atomic.Int64
	storing atomic.Int64 // unix nanoseconds when the append under way began; 0: none
}

func newLogStore(inner raft.LogStore) *logStore { return &logStore{inner: inner} }

// FirstIndex is raft.LogStore's.
func (s *logStore) FirstIndex() (uint64, error) { return s.inner.FirstIndex() }

// LastIndex is raft.LogStore's.
func (s *logStore) LastIndex() (uint64, error) { return s.inner.LastIndex() }

// IsMonotonic is raft.MonotonicLogStore's: an installed snapshot takes the whole log
// along. The WAL can have no hole in it; and what lies before a hole may be the end that
// a deposed leader never got acknowledged, which Raft would send to others as its own.
func (s *logStore) IsMonotonic() bool { return true }

// GetLog is raft.LogStore's; fsm.ErrCorrupt when the record fails its checksum.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	if s.cache.get(index, l) {
		return nil
	}
	return s.read(index, l)
}

func (s *logStore) read(index uint64, l *raft.Log) error {
	if s.mark != nil { // the WAL still gives what it has cut off within its newest segment
		if first, err := s.inner.FirstIndex(); err != nil {
			return err
		} else if index < first {
			return raft.ErrLogNotFound // compared by Raft, so not wrapped
		}
	}
	*l = raft.Log{} // what the decoder does not find it leaves as it is
	if err := s.inner.GetLog(index, l); err != nil {
		return err
	}
	n := len(l.Extensions) - checksumSize
	if n < 0 {
		return fmt.Errorf("%w: log entry %d has no checksum", fsm.ErrCorrupt, index)
	}
	sum := binary.BigEndian.Uint64(l.Extensions[n:])
	l.Extensions = l.Extensions[:n:n]
	if n == 0 {
		l.Extensions = nil
	}
	if l.Index != index || logChecksum(l) != sum {
		return fmt.Errorf("%w: checksum of log entry %d", fsm.ErrCorrupt, index)
	}
	return nil
}

// logChecksum covers all that decides what an entry does; AppendedAt does not.
func logChecksum(l *raft.Log) uint64 {
	var head [8 + 8 + 1 + 8]byte
	binary.BigEndian.PutUint64(head[0:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	binary.BigEndian.PutUint64(head[17:], uint64(len(l.Data)))
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(head[:]) // a hash does not fail
	_, _ = d.Write(l.Data)
	_, _ = d.Write(l.Extensions)
	return d.Sum64()
}

// StoreLog is raft.LogStore's.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs is raft.LogStore's: the entries are on the disk when it returns.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	stored := make([]*raft.Log, len(logs))
	var size int64
	for i, l := range logs {
		c := *l
		c.Extensions = binary.BigEndian.AppendUint64(append([]byte(nil), l.Extensions...), logChecksum(l))
		stored[i] = &c
		size += int64(len(l.Data))
	}
	s.storing.Store(time.Now().UnixNano())
	err := s.inner.StoreLogs(stored)
	s.storing.Store(0)
	if err != nil {
		return fmt.Errorf("cluster: append to the Raft log: %w", err)
	}
	s.bytes.Add(size)
	s.entries.Add(int64(len(logs)))
	for _, l := range logs {
		s.sizes.add(l)
	}
	s.cache.add(logs)
	return s.mark.stored(logs[len(logs)-1].Index)
}

// DeleteRange is raft.LogStore's. It deletes less when the log is cut behind a snapshot
// and entries are still needed: Raft asks what there is, so more is as good. It is here,
// not in the number of entries that Raft leaves, as that one counts from the end that
// the log has by the time of the cut.
func (s *logStore) DeleteRange(from, to uint64) error {
	to, err := s.spare(from, to)
	if err != nil || to < from {
		return err
	}
	return s.remove(from, to)
}

func (s *logStore) remove(from, to uint64) error {
	s.cache.drop(to)
	if err := s.mark.deleting(s.inner, from, to); err != nil {
		return err
	}
	return s.inner.DeleteRange(from, to)
}

// spare returns up to where a range that is to be deleted may be. An end that another
// leader overwrites and a whole log that a snapshot replaces have to go.
func (s *logStore) spare(from, to uint64) (uint64, error) {
	if s.needed == nil {
		return to, nil
	}
	first, err := s.inner.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := s.inner.LastIndex()
	if err != nil || from > first || to >= last {
		return to, err
	}
	return min(to, s.needed()-1), nil
}

// verify reads the whole log once, before Raft does, so that a damaged record
// is one clear error and no panic. floor is the newest snapshot's index: entries
// up to it may be missing, what follows must be whole and begin right behind it.
func (s *logStore) verify(floor uint64) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if err := s.mark.check(last); err != nil {
		return err
	}
	if first > floor+1 {
		return fmt.Errorf("%w: the log begins at %d, the state ends at %d", ErrDamaged, first, floor)
	}
	var l raft.Log
	for i := first; i <= last && last > 0; i++ {
		err := s.read(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) && i <= floor {
			continue // an installed snapshot leaves a hole
		}
		if err != nil {
			return fmt.Errorf("%w: log entry %d: %w", ErrDamaged, i, err)
		}
		s.sizes.add(&l)
	}
	return s.mark.verified(last)
}

// dropStale removes what a crash, or an older version, left of a log that the newest
// snapshot, received from another node, has replaced: entries that end before it, that
// end in a hole, or that have another entry where the snapshot ends.
func (s *logStore) dropStale(snap raft.SnapshotMeta) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil || last == 0 || first > snap.Index {
		return err
	}
	to := last
	if last >= snap.Index {
		var l raft.Log
		err := s.read(snap.Index, &l)
		if err == nil && l.Term == snap.Term {
			return nil
		}
		if errors.Is(err, raft.ErrLogNotFound) {
			to, err = snap.Index, nil
		}
		if err != nil {
			return err
		}
	}
	return s.remove(first, to)
}

// clusterID returns the cluster id of the newest command in the log, committed
// or not; "" when there is none. A command that the state machine has not seen
// yet still decides which cluster this is.
func (s *logStore) clusterID() (string, error) {
	first, err := s.FirstIndex()
	if err != nil {
		return "", err
	}
	last, err := s.LastIndex()
	if err != nil {
		return "", err
	}
	var l raft.Log
	for i := last; i >= first && i > 0; i-- {
		if err := s.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			break
		} else if err != nil {
			return "", err
		}
		if l.Type != raft.LogCommand {
			continue
		}
		g, err := fsm.DecodeGroup(l.Data)
		if err != nil {
			return "", fmt.Errorf("log entry %d: %w", i, err)
		}
		return g.ClusterID, nil
	}
	return "", nil
}

// logCache holds the newest entries, bounded in bytes: raft.LogCache counts
// entries, which with batches of several MiB is no bound at all.
type logCache struct {
	mu    sync.Mutex
	logs  []*raft.Log // consecutive
	bytes int
}

func (c *logCache) add(logs []*raft.Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range logs {
		if n := len(c.logs); n > 0 && c.logs[n-1].Index+1 != l.Index {
			c.logs, c.bytes = nil, 0
		}
		c.logs = append(c.logs, l)
		c.bytes += len(l.Data)
	}
	drop := 0
	for c.bytes > LogCacheBytes || len(c.logs)-drop > maxCachedLogs {
		c.bytes -= len(c.logs[drop].Data)
		c.logs[drop] = nil
		drop++
	}
	c.logs = c.logs[drop:]
}

const maxCachedLogs = 1024

func (c *logCache) get(index uint64, l *raft.Log) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.logs) == 0 || index < c.logs[0].Index || index > c.logs[len(c.logs)-1].Index {
		return false
	}
	*l = *c.logs[index-c.logs[0].Index]
	return true
}

// drop forgets everything if the log is cut up to the index to, unless the cut
// lies before the cached entries, as it does behind a snapshot.
func (c *logCache) drop(to uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.logs) > 0 && to >= c.logs[0].Index {
		c.logs, c.bytes = nil, 0
	}
}

// errKeyNotFound has the text by which Raft knows a key that was never set.
var errKeyNotFound = errors.New("not found")

// stableStore is Raft's term and vote, each key with a checksum.
type stableStore struct{ inner raft.StableStore }

// Set is raft.StableStore's.
func (s *stableStore) Set(key, val []byte) error {
	return s.inner.Set(key, binary.BigEndian.AppendUint64(append([]byte(nil), val...), stableChecksum(key, val)))
}

// Get is raft.StableStore's. The error of a missing key reads "not found",
// which Raft compares.
func (s *stableStore) Get(key []byte) ([]byte, error) {
	v, err := s.inner.Get(key)
	if err != nil {
		return nil, err
	}
	if v == nil { // how the WAL says so
		return nil, errKeyNotFound
	}
	n := len(v) - checksumSize
	if n < 0 || binary.BigEndian.Uint64(v[n:]) != stableChecksum(key, v[:n]) {
		return nil, fmt.Errorf("%w: checksum of %q in the Raft log", fsm.ErrCorrupt, key)
	}
	return v[:n:n], nil
}

// SetUint64 is raft.StableStore's.
func (s *stableStore) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 is raft.StableStore's.
func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: %q in the Raft log has %d bytes", fsm.ErrCorrupt, key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

func stableChecksum(key, val []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
	_, _ = d.Write(key)
	_, _ = d.Write(val)
	return d.Sum64()
}
