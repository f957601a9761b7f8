package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// Store owns one directory. Its methods may be called from any goroutine.
type Store struct {
	opts  Options
	fs    vfs.FS
	dir   string
	lock  io.Closer
	cache *pebble.Cache

	applied  atomic.Uint64
	serial   atomic.Uint64 // numbers sinks and checkpoints
	flushing atomic.Bool   // a flush is under way; never two
	closing  chan struct{} // closed by Close
	stop     sync.Once     // closes closing
	broken   atomic.Bool   // see ErrBroken
	received atomic.Uint64 // bytes of snapshots from other nodes

	// Order of the locks: installMu, commitMu, mu.
	installMu sync.Mutex // one Install at a time
	lastDB    uint64     // highest database number used by Install; under installMu
	commitMu  sync.Mutex // held while CURRENT is replaced and mu's fields follow

	mu      sync.RWMutex
	live    *Handle            // nil once closed
	snap    *raft.SnapshotMeta // as in CURRENT
	handles map[*Handle]struct{}
	pending map[string]raft.SnapshotMeta // received snapshots by file name
}

// Open takes the directory, deletes what a crash left behind and opens the
// database that CURRENT names. It returns ErrLocked, ErrCorrupt, or
// ErrStateBehind when the database lacks what the newest snapshot covers.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	lock, err := lockDir(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts: o, fs: o.FS, dir: o.Dir, lock: lock,
		cache:   pebble.NewCache(o.CacheBytes),
		closing: make(chan struct{}),
		handles: map[*Handle]struct{}{},
		pending: map[string]raft.SnapshotMeta{},
	}
	if err := s.open(); err != nil {
		s.cache.Unref()
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

func (s *Store) open() error {
	cur, err := readCurrent(s.fs, s.dir)
	if err != nil {
		return fmt.Errorf("store: %q: %w", s.dir, err)
	}
	if err := sweep(s.fs, s.dir, cur.DB); err != nil {
		return err
	}
	n, _ := parseDBName(cur.DB)
	// Without a snapshot the log is whole, so an empty database is a good start.
	h, err := s.openDB(n, cur.Snap != nil)
	if err != nil {
		return err
	}
	var snapIndex uint64
	if cur.Snap != nil {
		snapIndex = cur.Snap.Index
	}
	applied, err := checkState(h.db, snapIndex)
	if err != nil {
		h.Release()
		return err
	}
	s.applied.Store(applied)
	s.live, s.snap = h, cur.Snap
	return nil
}

// checkState returns the applied index to go on from: the snapshot's at least,
// else a wait for the index of a configuration entry below it would never end.
// It returns ErrStateBehind if the database does not hold everything up to index.
func checkState(db *pebble.DB, index uint64) (uint64, error) {
	applied, err := readIndex(db, appliedKey)
	if err != nil {
		return 0, err
	}
	floor, err := readIndex(db, floorKey)
	if err != nil {
		return 0, err
	}
	if held := max(applied, floor); held < index {
		return 0, fmt.Errorf("store: %w: state %d, snapshot %d", ErrStateBehind, held, index)
	}
	return max(applied, index), nil
}

// readIndex reads one reserved key; a missing one is 0.
func readIndex(db *pebble.DB, key string) (uint64, error) {
	v, closer, err := db.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("store: read %q: %w", key, err)
	}
	defer func() { _ = closer.Close() }() // frees memory, has no error to report
	if len(v) != 8 {
		return 0, fmt.Errorf("store: %w: key %q has %d bytes", ErrCorrupt, key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// setIndex writes one reserved key, unsynced.
func setIndex(db *pebble.DB, key string, index uint64) error {
	return db.Set([]byte(key), binary.BigEndian.AppendUint64(nil, index), pebble.NoSync)
}

// AppliedKey returns the key under which the state machine must write, in the
// same batch as the effects, the index of the entry as 8 big-endian bytes.
func (s *Store) AppliedKey() []byte { return []byte(appliedKey) }

// Applied returns the index of the last entry in the database, never below the
// newest snapshot's. Entries up to it must be skipped.
func (s *Store) Applied() uint64 { return s.applied.Load() }

// ReceivedUpTo returns the index up to which the state came from another node, in the
// newest snapshot that was installed; 0: it did not. Up to it the state may be ahead of
// this node's own log. ErrClosed, or the database's errors.
func (s *Store) ReceivedUpTo() (uint64, error) {
	h := s.Acquire()
	if h == nil {
		return 0, ErrClosed
	}
	defer h.Release()
	return readIndex(h.db, receivedKey)
}

// NoteApplied tells the store that a batch with this applied index was
// committed. Only the goroutine that applies entries may call it.
func (s *Store) NoteApplied(index uint64) {
	if index > s.applied.Load() {
		s.applied.Store(index)
	}
}

// SnapshotMeta returns the newest snapshot; false before the first.
func (s *Store) SnapshotMeta() (raft.SnapshotMeta, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.snap == nil {
		return raft.SnapshotMeta{}, false
	}
	return cloneMeta(*s.snap), true
}

// Persist makes everything that h's database holds durable, up to the index of
// the snapshot that sink stands for, and marks the sink as a local snapshot,
// which copies no data: its Close only records where the state stands. h must
// have been acquired when the snapshot was begun. It returns ErrSuperseded,
// ErrOldSnapshot or ErrFlushTimeout; Raft then truncates nothing and tries
// again at its next interval. For use in raft.FSMSnapshot.Persist.
func (s *Store) Persist(h *Handle, sink raft.SnapshotSink) error {
	k, ok := sink.(*snapshotSink)
	if !ok || k.s != s || h.s != s {
		return fmt.Errorf("store: persist: %w", ErrForeign)
	}
	snapIndex, err := s.liveSnapIndex(h.n)
	if err != nil {
		return fmt.Errorf("store: persist: %w", err)
	}
	switch {
	case k.meta.Index < snapIndex:
		return fmt.Errorf("store: persist: %w", ErrOldSnapshot)
	case k.meta.Index > snapIndex: // at the same index there is nothing to do
		if err := s.flush(h, k.meta.Index); err != nil {
			return fmt.Errorf("store: persist: %w", err)
		}
		s.opts.Crash("after_flush")
	}
	return k.markLocal(h.n)
}

// liveSnapIndex returns the index of the newest snapshot, or an error if
// database n is not the live one or the store can no longer commit.
func (s *Store) liveSnapIndex(n uint64) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.live == nil:
		return 0, ErrClosed
	case s.broken.Load():
		return 0, ErrBroken
	case s.live.n != n:
		return 0, ErrSuperseded
	case s.snap == nil:
		return 0, nil
	}
	return s.snap.Index, nil
}

// flush makes the database of h durable within FlushTimeout; floor, unless 0,
// is written first. On a full disk a flush blocks for ever, and so may the
// write: both run aside, and only one such attempt exists at a time.
func (s *Store) flush(h *Handle, floor uint64) error {
	if !s.flushing.CompareAndSwap(false, true) {
		return fmt.Errorf("%w: an earlier one still runs", ErrFlushTimeout)
	}
	h.Retain()
	result := make(chan error, 1)
	go func() {
		err := s.flushNow(h.db, floor)
		h.Release()
		s.flushing.Store(false) // before the answer: the caller may flush again at once
		result <- err
	}()
	timer := time.NewTimer(s.opts.FlushTimeout)
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
		return ErrFlushTimeout
	case <-s.closing:
		return ErrClosed
	}
}

func (s *Store) flushNow(db *pebble.DB, floor uint64) error {
	if floor > 0 {
		if err := setIndex(db, floorKey, floor); err != nil {
			return err
		}
	}
	flushed, err := db.AsyncFlush()
	if err != nil {
		return err
	}
	// The database tries a failed flush again and again; after a time-out this
	// wait goes on, so that a later Persist does not queue up behind it.
	select {
	case <-flushed:
		return nil
	case <-s.closing:
		return ErrClosed
	}
}

// breakWith marks the store as unusable and tells the watchdog why.
func (s *Store) breakWith(err error) error {
	err = fmt.Errorf("store: %w: %w", ErrBroken, err)
	s.broken.Store(true)
	s.opts.OnEvent(Event{EventFatal, err})
	return err
}

func (s *Store) path(name string) string { return s.fs.PathJoin(s.dir, name) }

// Receiving tells how many bytes of snapshots from other nodes have come since
// Open, and whether one is being unpacked: a node whose log does not move may be at
// work on one.
func (s *Store) Receiving() (received uint64, unpacking bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.received.Load(), len(s.pending) > 0
}

// Stats are figures for metrics and health checks.
type Stats struct {
	Applied       uint64 // index
	SnapshotIndex uint64 // index; Applied minus this is what a restart replays at most
	Handles       int    // databases open: 1, more while an old one has users
	FlushPending  bool   // a flush for Persist or Install is under way
	DiskBytes     uint64 // size of the live database
	MemTableBytes uint64
	CacheBytes    uint64

	// Since the live database was opened.
	CacheHits, CacheMisses int64 // of blocks
	Flushes, Compactions   int64
	FlushedBytes           uint64        // written by flushes
	CompactionDebt         uint64        // bytes that compactions have yet to work through
	CompactionTime         time.Duration // spent in compactions
}

// Stats returns current figures; the zero value once the store is closed.
func (s *Store) Stats() Stats {
	h := s.Acquire()
	if h == nil {
		return Stats{}
	}
	defer h.Release()
	m := h.db.Metrics()
	st := Stats{
		Applied:       s.Applied(),
		FlushPending:  s.flushing.Load(),
		DiskBytes:     m.DiskSpaceUsage(),
		MemTableBytes: m.MemTable.Size,
		CacheBytes:    uint64(max(m.BlockCache.Size, 0)),
		CacheHits:     m.BlockCache.Hits, CacheMisses: m.BlockCache.Misses,
		Flushes: m.Flush.Count, Compactions: m.Compact.Count,
		FlushedBytes:   m.Levels[0].TableBytesFlushed,
		CompactionDebt: m.Compact.EstimatedDebt, CompactionTime: m.Compact.Duration,
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	st.Handles = len(s.handles)
	if s.snap != nil {
		st.SnapshotIndex = s.snap.Index
	}
	return st
}

// DiskUsage returns total and free space of the directory's file system, for a
// guard that refuses writes before the database meets a full disk. A file
// system in memory returns vfs.ErrUnsupported.
func (s *Store) DiskUsage() (vfs.DiskUsage, error) { return s.fs.GetDiskUsage(s.dir) }

// Flush makes what was applied durable, within FlushTimeout. Nothing is lost
// without it, since the log has it all; but a node that stops in order then
// starts with the state it had, also while no leader tells it what is committed.
func (s *Store) Flush() error {
	h := s.Acquire()
	if h == nil {
		return ErrClosed
	}
	defer h.Release()
	return s.flush(h, 0)
}

// Close waits up to CloseTimeout until all handles are released, closes the
// database and gives the directory free. It does not flush: the Raft log has
// what the memtable loses. Stop Raft first. It returns ErrHandlesHeld when the
// wait was in vain; the directory then stays locked until the process ends. A
// second Close does nothing.
func (s *Store) Close() error {
	s.stop.Do(func() { close(s.closing) }) // ends waits for a flush
	s.installMu.Lock()
	s.commitMu.Lock()
	s.mu.Lock()
	live := s.live
	s.live = nil
	open := make([]*Handle, 0, len(s.handles))
	for h := range s.handles {
		open = append(open, h)
	}
	s.mu.Unlock()
	s.commitMu.Unlock()
	s.installMu.Unlock()
	if live == nil {
		return nil
	}
	live.Release()
	timer := time.NewTimer(CloseTimeout)
	defer timer.Stop()
	var err error
	for _, h := range open {
		select {
		case <-h.done:
			err = errors.Join(err, h.err)
		case <-timer.C:
			return errors.Join(err, fmt.Errorf("store: %w", ErrHandlesHeld))
		}
	}
	s.cache.Unref()
	return errors.Join(err, s.lock.Close())
}
