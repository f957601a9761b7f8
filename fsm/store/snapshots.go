package store

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// Snapshots returns the raft.SnapshotStore of this directory. It must be used
// with Config.NoSnapshotRestoreOnStart: the state is already there.
func (s *Store) Snapshots() raft.SnapshotStore { return snapshotStore{s} }

// snapshotStore implements raft.SnapshotStore.
//
// It lists one snapshot, the one in CURRENT. A received snapshot is not listed
// before Install has swapped its data in: without a restore on start Raft takes
// the newest listed snapshot as applied, so a crash between the two would skip
// everything in between.
type snapshotStore struct{ s *Store }

// Create implements raft.SnapshotStore. It makes no file: the sink becomes
// local through Persist, or remote with the first Write.
func (ss snapshotStore) Create(version raft.SnapshotVersion, index, term uint64,
	configuration raft.Configuration, configurationIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("store: unsupported snapshot version %d", version)
	}
	if index == 0 {
		return nil, fmt.Errorf("store: %w: index 0", ErrSink)
	}
	return &snapshotSink{s: ss.s, meta: cloneMeta(raft.SnapshotMeta{
		Version: version,
		ID:      fmt.Sprintf("%d-%d-%d", term, index, ss.s.serial.Add(1)),
		Index:   index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	})}, nil
}

// List implements raft.SnapshotStore: the newest snapshot or none. Its Size is
// 0, the true one is known once Open has made the checkpoint.
func (ss snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	meta, ok := ss.s.SnapshotMeta()
	if !ok {
		return nil, nil
	}
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore. For a received snapshot it reads the
// received file. For any other id it streams a fresh checkpoint with the current
// metadata: between List and Open the listed one may have been superseded, and
// Raft goes by the metadata returned here.
func (ss snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s := ss.s
	s.mu.RLock()
	meta, ok := s.pending[id]
	s.mu.RUnlock()
	if ok {
		f, err := s.fs.Open(s.path(id), vfs.SequentialReadsOption)
		if err != nil {
			return nil, nil, fmt.Errorf("store: open received snapshot: %w", err)
		}
		out := cloneMeta(meta)
		return &out, &incomingReader{File: f, s: s, meta: meta}, nil
	}
	a, err := s.openCheckpoint(KindReplica,
		func(*Handle) error { return nil },
		func() (raft.SnapshotMeta, error) {
			if s.snap == nil {
				return raft.SnapshotMeta{}, ErrNoSnapshot
			}
			return cloneMeta(*s.snap), nil
		})
	if err != nil {
		return nil, nil, fmt.Errorf("store: open snapshot: %w", err)
	}
	out := cloneMeta(a.meta)
	return &out, a, nil
}

// incomingReader reads a received snapshot that waits for Install.
type incomingReader struct {
	vfs.File
	s    *Store
	meta raft.SnapshotMeta
	once sync.Once
	err  error
}

// Close may be called again: Raft closes after Install did.
func (r *incomingReader) Close() error {
	r.once.Do(func() { r.err = r.File.Close() })
	return r.err
}

func (r *incomingReader) snapshotSource() (*Store, raft.SnapshotMeta, string) {
	return r.s, r.meta, r.meta.ID
}

type sinkState uint8

const (
	sinkFresh  sinkState = iota
	sinkLocal            // marked by Persist
	sinkRemote           // something was written
	sinkClosed
)

// snapshotSink implements raft.SnapshotSink.
type snapshotSink struct {
	s    *Store
	meta raft.SnapshotMeta

	mu    sync.Mutex
	state sinkState
	n     uint64   // local: the database that was flushed
	file  vfs.File // remote
}

// ID implements raft.SnapshotSink. The id of a received snapshot is its file name.
func (k *snapshotSink) ID() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.meta.ID
}

func (k *snapshotSink) markLocal(n uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state != sinkFresh {
		return fmt.Errorf("store: %w: Persist of a used sink", ErrSink)
	}
	k.state, k.n = sinkLocal, n
	return nil
}

// Write implements io.Writer: the bytes of a snapshot received from another
// node or from a backup. Raft cancels the sink after an error.
func (k *snapshotSink) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == sinkFresh {
		id := incomingPrefix + k.meta.ID
		f, err := k.s.fs.Create(k.s.path(id), vfs.WriteCategoryUnspecified)
		if err != nil {
			return 0, fmt.Errorf("store: receive snapshot: %w", err)
		}
		k.state, k.file, k.meta.ID = sinkRemote, f, id
		k.s.opts.Crash("recv_start")
	}
	if k.state != sinkRemote {
		return 0, fmt.Errorf("store: %w: write to a local or closed sink", ErrSink)
	}
	if k.meta.Size+int64(len(p)) > MaxArchiveBytes {
		return 0, fmt.Errorf("store: receive snapshot: %w: too long", ErrArchive)
	}
	// A file may modify the slice it is given, a writer must not.
	n, err := k.file.Write(append([]byte(nil), p...))
	k.meta.Size += int64(n)
	k.s.received.Add(uint64(n))
	if err != nil {
		return n, fmt.Errorf("store: receive snapshot: %w", err)
	}
	return n, nil
}

// Close implements raft.SnapshotSink. A local snapshot is in CURRENT, durably,
// when it returns nil, since Raft truncates its log next. A received one waits
// in a file for Install.
func (k *snapshotSink) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	state := k.state
	k.state = sinkClosed
	switch state {
	case sinkLocal:
		return k.s.commitLocal(k.meta, k.n)
	case sinkRemote:
		return k.closeRemote()
	case sinkClosed:
		return nil
	default:
		return fmt.Errorf("store: %w: closed with neither Persist nor data", ErrSink)
	}
}

func (k *snapshotSink) closeRemote() error {
	err := errors.Join(k.file.Sync(), k.file.Close())
	if err == nil {
		err = syncDir(k.s.fs, k.s.dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("store: receive snapshot: %w", err), k.s.fs.Remove(k.s.path(k.meta.ID)))
	}
	k.s.addPending(k.meta)
	k.s.opts.Crash("recv_done")
	return nil
}

// Cancel implements raft.SnapshotSink. After Close it does nothing.
func (k *snapshotSink) Cancel() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	state := k.state
	k.state = sinkClosed
	if state != sinkRemote {
		return nil
	}
	return errors.Join(k.file.Close(), k.s.fs.Remove(k.s.path(k.meta.ID)))
}

// commitLocal makes meta the newest snapshot. A lower index than the current
// one is refused: a snapshot begun before an install and ended after it would
// send the next start to entries that are gone from the log.
func (s *Store) commitLocal(meta raft.SnapshotMeta, n uint64) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	snapIndex, err := s.liveSnapIndex(n)
	if err == nil && meta.Index < snapIndex {
		err = fmt.Errorf("%w: %d below %d", ErrOldSnapshot, meta.Index, snapIndex)
	}
	if err != nil {
		return fmt.Errorf("store: local snapshot: %w", err)
	}
	if meta.Index == snapIndex {
		return nil
	}
	// Whether an uncertain error left the old or the new file makes no difference:
	// the database is the same and is flushed.
	if _, err := writeCurrent(s.fs, s.dir, current{dbName(n), &meta}, func() {}); err != nil {
		return err
	}
	s.mu.Lock()
	s.snap = &meta
	s.mu.Unlock()
	s.opts.Crash("after_meta")
	return nil
}

// addPending registers a received snapshot. Raft receives one at a time, so an
// earlier one that nobody installed is dropped.
func (s *Store) addPending(meta raft.SnapshotMeta) {
	s.mu.Lock()
	var stale []string
	for id := range s.pending {
		stale = append(stale, id)
	}
	clear(s.pending)
	s.pending[meta.ID] = meta
	s.mu.Unlock()
	for _, id := range stale {
		_ = s.fs.Remove(s.path(id)) // else the next start sweeps it
	}
}

// dropPending forgets a received snapshot and deletes its file.
func (s *Store) dropPending(id string) {
	if !strings.HasPrefix(id, incomingPrefix) {
		return
	}
	s.mu.Lock()
	delete(s.pending, id)
	s.mu.Unlock()
	_ = s.fs.Remove(s.path(id)) // else the next start sweeps it
}
