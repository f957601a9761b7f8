package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"
)

// The libraries that can keep the Raft log, as Config.LogStore names them. The one
// that a data directory was made with is in its identity.
const (
	// LogBolt is raft-boltdb: one file of pages.
	LogBolt = "bolt"
	// LogWAL is raft-wal: segments that are only appended to.
	LogWAL = "wal"
)

const (
	logFile     = "raft.db"     // of bolt
	logFolder   = "raft.wal"    // of the WAL
	walMetaFile = "wal-meta.db" // in it, a bolt file
	raftTermKey = "CurrentTerm" // Raft's, in the stable store
	logFileWait = time.Second   // for a lock on the file that another process holds

	// walSegmentBytes are preallocated per segment; the largest entry fits twice.
	walSegmentBytes = 16 << 20
)

// openLog opens the log and the stable store of dir, or both in memory.
func openLog(c *Config) (*logStore, *stableStore, func() error, error) {
	if c.Memory {
		m := raft.NewInmemStore()
		return newLogStore(c.WrapLog(m)), &stableStore{inner: m}, func() error { return nil }, nil
	}
	if c.OpenLog != nil {
		log, stable, end, err := c.OpenLog()
		if err != nil {
			return nil, nil, nil, fmt.Errorf("cluster: Raft log: %w", err)
		}
		return newLogStore(c.WrapLog(log)), &stableStore{inner: stable}, end, nil
	}
	if c.LogStore == LogWAL {
		return openWAL(c)
	}
	path := filepath.Join(c.DataDir, logFile)
	if err := checkBolt(path, boltLogBuckets, true); err != nil {
		return nil, nil, nil, fmt.Errorf("cluster: Raft log: %w", err)
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{
		// Without these each commit writes the whole freelist: seven times slower
		// after a truncation.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		Timeout:        logFileWait,
	}})
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) || err.Error() == "timeout" {
			err = fmt.Errorf("in use by another process")
		}
		return nil, nil, nil, fmt.Errorf("cluster: Raft log %q: %w", path, err)
	}
	return newLogStore(c.WrapLog(bolt)), &stableStore{inner: bolt}, bolt.Close, nil
}

func openWAL(c *Config) (*logStore, *stableStore, func() error, error) {
	dir := filepath.Join(c.DataDir, logFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, nil, fmt.Errorf("cluster: Raft log: %w", err)
	}
	if err := checkBolt(filepath.Join(dir, walMetaFile), walMetaBuckets, false); err != nil {
		return nil, nil, nil, fmt.Errorf("cluster: Raft log: %w", err)
	}
	filer, meta := newWALFiler(dir), &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithSegmentSize(walSegmentBytes), wal.WithSegmentFiler(filer), wal.WithMetaStore(meta), wal.WithLogger(c.Logger.Named("wal")))
	if err != nil { // whatever it cannot read
		err = errors.Join(err, meta.Close()) // which it leaves locked
		if errors.Is(err, ErrDamaged) {
			return nil, nil, nil, fmt.Errorf("cluster: Raft log %q: %w", dir, err)
		}
		return nil, nil, nil, fmt.Errorf("cluster: %w: Raft log %q: %w", ErrDamaged, dir, err)
	}
	s, stable := newLogStore(c.WrapLog(w)), &stableStore{inner: w}
	if s.mark, err = openMark(stable, &filer.tail); err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("cluster: Raft log %q: %w", dir, err), w.Close())
	}
	return s, stable, func() error {
		last, err := w.LastIndex()
		if err == nil {
			err = s.mark.verified(last)
		}
		return errors.Join(err, w.Close())
	}, nil
}

// logMark remembers an entry that the WAL certainly had. The WAL takes a newest
// segment that is missing for one that was never made, and a damaged batch at its
// end for a write that a crash cut short; both would be an acknowledged write
// forgotten in silence. The mark is set when the node starts and stops, at the first
// entries of each segment, and every markEvery entries: so only the last write of a
// node that crashed is taken at the WAL's word (checkTail sees to those before it).
// A nil mark does nothing.
type logMark struct {
	stable *stableStore
	tail   *atomic.Uint64 // the first index of the newest segment

	// mu, as Raft cuts the log behind a snapshot while it appends. It is held over the
	// write too: the mark on the disk is the one in memory.
	mu sync.Mutex
	at uint64
}

const (
	markKey   = "quinto.last"
	markEvery = 4096 // each time costs one more sync
)

func openMark(stable *stableStore, tail *atomic.Uint64) (*logMark, error) {
	at, err := stable.GetUint64([]byte(markKey))
	if errors.Is(err, errKeyNotFound) {
		err = nil
	}
	return &logMark{stable: stable, at: at, tail: tail}, err
}

// set is called with mu held.
func (m *logMark) set(at uint64) error {
	if at == m.at {
		return nil
	}
	if err := m.stable.SetUint64([]byte(markKey), at); err != nil {
		m.at = max(m.at, at) // the highest that the disk may have
		return err
	}
	m.at = at
	return nil
}

func (m *logMark) stored(last uint64) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if first := m.tail.Load(); last < m.at+markEvery && (m.at >= first || last < first) {
		return nil
	}
	return m.set(last)
}

// deleting lowers the mark before entries up to it go: all of them when a snapshot
// was installed, or the end when another leader's log wins.
func (m *logMark) deleting(log raft.LogStore, from, to uint64) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if to < m.at {
		return nil
	}
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	if from <= first {
		return m.set(0)
	}
	return m.set(min(m.at, from-1))
}

// check compares the mark with the log that was opened.
func (m *logMark) check(last uint64) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if last >= m.at {
		return nil
	}
	return fmt.Errorf("%w: the log ends at %d and had entry %d", ErrDamaged, last, m.at)
}

// verified notes the end of a log that was read as a whole, or is about to be closed.
func (m *logMark) verified(last uint64) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set(last)
}
