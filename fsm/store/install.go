package store

import (
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/raft"
)

// source is implemented by the readers that Open of the snapshot store returns.
type source interface {
	// snapshotSource returns the owner, the metadata with the exact size, and
	// the file name of a received snapshot, empty for a checkpoint.
	snapshotSource() (s *Store, meta raft.SnapshotMeta, pending string)
}

// unwrapSource finds our reader below those that Raft wraps round it.
func unwrapSource(rc io.ReadCloser) (source, bool) {
	for {
		if src, ok := rc.(source); ok {
			return src, true
		}
		w, ok := rc.(raft.ReadCloserWrapper)
		if !ok {
			return nil, false
		}
		rc = w.WrappedReadCloser()
	}
}

// Install replaces the state by a snapshot: it unpacks rc aside, verifies it,
// makes it durable and commits it together with its metadata in one rename.
// Then it swaps the live database and calls adopt, under the lock of
// AcquireWith, so that the caller's in-memory mirrors change with it; Applied is
// already that of the new state. adopt must not call the store, may Retain the
// handle, and should not fail: the disk has the new state by then.
//
// Until the commit any error leaves the old state live and no file behind; the
// received stream is deleted on every exit, since Raft sends it again. An error
// that is ErrBroken means that memory and disk may differ: the process must stop.
// Install does not close rc. For use in raft.FSM.Restore.
func (s *Store) Install(rc io.ReadCloser, adopt func(*Handle) error) error {
	src, ok := unwrapSource(rc)
	if !ok {
		return fmt.Errorf("store: install: %w", ErrForeign)
	}
	owner, meta, pending := src.snapshotSource()
	if owner != s {
		return fmt.Errorf("store: install: %w", ErrForeign)
	}
	defer s.dropPending(pending)
	s.installMu.Lock()
	defer s.installMu.Unlock()
	if err := s.install(rc, meta, adopt); err != nil {
		return fmt.Errorf("store: install snapshot %d: %w", meta.Index, err)
	}
	s.opts.Crash("after_restore")
	return nil
}

// Restore fills a store that holds nothing yet with a stream of kind backup of
// size bytes. meta names the place in the log of the new cluster that the state
// stands for; the caller's Prepare rewrites what ties the state to the old one.
// It returns ErrNotEmpty, or Install's errors; the store is then as it was.
func (s *Store) Restore(r io.Reader, size int64, meta raft.SnapshotMeta) error {
	s.installMu.Lock()
	defer s.installMu.Unlock()
	if _, ok := s.SnapshotMeta(); ok || s.Applied() != 0 {
		return fmt.Errorf("store: restore: %w", ErrNotEmpty)
	}
	meta.Size = size
	if err := s.install(r, meta, func(*Handle) error { return nil }); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	return nil
}

func (s *Store) install(rc io.Reader, meta raft.SnapshotMeta, adopt func(*Handle) error) error {
	s.mu.RLock()
	live := s.live
	s.mu.RUnlock()
	if live == nil {
		return ErrClosed
	}
	if err := s.refusal(meta); err != nil {
		return err
	}
	// A number is never used again: a database that failed to open on a full disk
	// may still write into its directory for a moment.
	s.lastDB = max(s.lastDB, live.n) + 1
	h, applied, err := s.unpackAside(rc, meta, s.lastDB)
	if err != nil {
		return err
	}
	s.opts.Crash("before_swap")
	return s.swap(h, meta, applied, adopt)
}

// refusal returns why a snapshot cannot be installed now, or nil.
func (s *Store) refusal(meta raft.SnapshotMeta) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.live == nil:
		return ErrClosed
	case s.broken.Load():
		return ErrBroken
	case s.snap != nil && meta.Index < s.snap.Index:
		// The log below the current snapshot is gone: there would be no way forward.
		return fmt.Errorf("%w: %d below %d", ErrOldSnapshot, meta.Index, s.snap.Index)
	}
	return nil
}

// unpackAside makes database n from the stream, whole and durable, and returns
// it with its applied index. On an error nothing of it remains.
func (s *Store) unpackAside(rc io.Reader, meta raft.SnapshotMeta, n uint64) (*Handle, uint64, error) {
	dir := s.path(dbName(n))
	head, err := s.unpackFiles(rc, meta, dir)
	if err == nil && head.Kind == KindReplica && (head.Index != meta.Index || head.Term != meta.Term) {
		// A replica stream under another index would make entries between the two
		// count as applied.
		err = fmt.Errorf("%w: stream (%d, term %d), metadata (%d, term %d)",
			ErrMismatch, head.Index, head.Term, meta.Index, meta.Term)
	}
	if err != nil {
		_ = s.fs.RemoveAll(dir) // else the next start removes it
		return nil, 0, err
	}
	h, err := s.openDB(n, true)
	if err != nil {
		_ = s.fs.RemoveAll(dir)
		return nil, 0, err
	}
	applied, err := s.seal(h, head.Kind, meta)
	if err != nil {
		h.discard()
		return nil, 0, err
	}
	return h, applied, nil
}

func (s *Store) unpackFiles(rc io.Reader, meta raft.SnapshotMeta, dir string) (archiveHeader, error) {
	if err := makeDir(s.fs, dir); err != nil {
		return archiveHeader{}, err
	}
	files := 0
	head, err := unpack(rc, meta.Size, s.fs, dir, func() {
		if files++; files == 1 {
			s.opts.Crash("mid_unpack")
		}
	})
	if err != nil {
		return archiveHeader{}, err
	}
	return head, syncDir(s.fs, dir)
}

// seal sets the reserved keys, lets the caller check and adapt the state, and
// flushes. It returns the applied index to go on from.
func (s *Store) seal(h *Handle, kind Kind, meta raft.SnapshotMeta) (uint64, error) {
	floor := meta.Index
	if kind == KindBackup {
		// The indexes in it belong to another log. Kept, they would make the next
		// entries of this one look applied, and acknowledged writes would be lost.
		if err := setIndex(h.db, appliedKey, meta.Index); err != nil {
			return 0, err
		}
	} else {
		have, err := readIndex(h.db, floorKey)
		if err != nil {
			return 0, err
		}
		floor = max(floor, have)
	}
	applied, err := checkState(h.db, meta.Index)
	if err != nil {
		return 0, err
	}
	if err := setIndex(h.db, floorKey, floor); err != nil {
		return 0, err
	}
	if err := setIndex(h.db, receivedKey, applied); err != nil {
		return 0, err
	}
	if s.opts.Prepare != nil {
		if err := s.opts.Prepare(h.db, kind, meta.Index, meta.Term); err != nil {
			return 0, err
		}
	}
	return applied, s.flush(h, 0)
}

// swap commits database h and meta together and makes them live.
func (s *Store) swap(h *Handle, meta raft.SnapshotMeta, applied uint64, adopt func(*Handle) error) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	// Asked again: a local snapshot may have been committed meanwhile.
	if err := s.refusal(meta); err != nil {
		h.discard()
		return err
	}
	meta = cloneMeta(meta)
	meta.Size = 0
	meta.ID = strings.TrimPrefix(meta.ID, incomingPrefix)
	uncertain, err := writeCurrent(s.fs, s.dir, current{dbName(h.n), &meta},
		func() { s.opts.Crash("during_swap") })
	if err != nil && uncertain {
		h.Release() // CURRENT may name it: its files stay
		return s.breakWith(err)
	}
	if err != nil {
		h.discard()
		return err
	}
	s.mu.Lock()
	old := s.live
	s.live, s.snap = h, &meta
	s.applied.Store(applied)
	err = adopt(h)
	s.mu.Unlock()
	s.opts.Crash("after_swap")
	old.superseded.Store(true)
	old.Release()
	if err != nil {
		return s.breakWith(err)
	}
	return nil
}
