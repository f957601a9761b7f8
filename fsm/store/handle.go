package store

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Handle is a counted reference to one database. A database that an install
// replaced stays open, and its files stay, until the last user has released it:
// closing it earlier would make a read of that user panic.
type Handle struct {
	s          *Store
	db         *pebble.DB
	n          uint64 // number of the database: the handle's generation
	refs       atomic.Int64
	superseded atomic.Bool   // delete the files after the last Release
	done       chan struct{} // closed once the database is closed
	err        error         // of closing; read it after done
}

// DB returns the database, valid until Release. Its log is off: writes must use
// pebble.NoSync, any other option fails with "pebble: WAL disabled".
func (h *Handle) DB() *pebble.DB { return h.db }

// Retain adds a reference to a handle that the caller already holds.
func (h *Handle) Retain() *Handle {
	if h.refs.Add(1) <= 1 {
		panic("store: Retain of a released handle")
	}
	return h
}

// Release gives one reference back; every Acquire and Retain needs exactly one.
// Iterators, snapshots and batches of the database must be closed before. The
// last user closes the database and deletes it if it was replaced.
func (h *Handle) Release() {
	switch n := h.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("store: handle released twice")
	}
	h.err = h.db.Close()
	if h.superseded.Load() {
		h.err = errors.Join(h.err, h.s.fs.RemoveAll(h.s.path(dbName(h.n))))
	}
	if h.err != nil {
		h.s.opts.OnEvent(Event{EventBackgroundError, fmt.Errorf("store: close database: %w", h.err)})
	}
	h.s.mu.Lock()
	delete(h.s.handles, h)
	h.s.mu.Unlock()
	close(h.done)
}

// discard releases a database that never became live and deletes its files.
func (h *Handle) discard() {
	h.superseded.Store(true)
	h.Release()
}

// openDB opens the n-th database of the directory, with one reference.
func (s *Store) openDB(n uint64, mustExist bool) (*Handle, error) {
	db, err := pebble.Open(s.path(dbName(n)), s.pebbleOptions(mustExist))
	if err != nil {
		return nil, fmt.Errorf("store: open database: %w", err)
	}
	h := &Handle{s: s, db: db, n: n, done: make(chan struct{})}
	h.refs.Store(1)
	s.mu.Lock()
	s.handles[h] = struct{}{}
	s.mu.Unlock()
	return h, nil
}

// Acquire returns the live database with a reference for the caller, who must
// Release it. It returns nil once the store is closed.
func (s *Store) Acquire() *Handle { return s.AcquireWith(func() {}) }

// AcquireWith is Acquire, and calls read under the lock under which Install
// swaps the database and runs adopt: what read copies from in-memory mirrors
// belongs to the database returned. read must be short and must not call the
// store. A lock of the caller's that adopt also takes may be taken inside read,
// never around AcquireWith or Acquire.
func (s *Store) AcquireWith(read func()) *Handle {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.live == nil {
		return nil
	}
	read()
	return s.live.Retain()
}
