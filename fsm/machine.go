package fsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"quinto/fsm/store"
)

// FSM is the replicated state machine: raft hands it the committed entries, it
// applies them to the store, and readers take Views. Apply and Restore are
// called by raft's goroutine only; everything else from any.
type FSM struct {
	store *store.Store
	cache *objectCache
	// Of Apply and Restore only.
	seen   *seen
	writes *writes

	// stateMu makes a commit and a View's snapshot one after the other: the
	// database, meta and hot that a View takes belong together.
	stateMu sync.RWMutex
	db      *pebble.DB
	hot     *hot

	mu      sync.Mutex
	meta    meta
	marks   []Mark // passed since the start
	waiters []waiter
	haltErr error
	halted  chan struct{}
}

// waiter is closed when the state has reached a revision, or an entry index.
type waiter struct {
	revision Revision
	index    uint64
	done     chan struct{}
}

var _ raft.BatchingFSM = (*FSM)(nil)

// Open makes the state machine over an open store. ErrCorrupt or
// ErrUnknownType: the state is damaged or of a newer binary.
func Open(s *store.Store) (*FSM, error) {
	f := &FSM{store: s, cache: newObjectCache(), writes: newWrites(), halted: make(chan struct{})}
	h := s.Acquire()
	if h == nil {
		return nil, ErrClosed
	}
	defer h.Release()
	m, err := readMeta(h.DB())
	if err != nil {
		return nil, err
	}
	f.meta = m.atLeast(s.Applied())
	f.db, f.hot, f.seen = h.DB(), newHot(&f.meta), newSeen(&f.meta)
	return f, nil
}

// atLeast raises the position to what a snapshot covers beyond the last entry
// that reached the machine. The term of that place is not known here.
func (m meta) atLeast(index uint64) meta {
	if index > m.Index {
		m.Index, m.Term = index, 0
	}
	return m
}

// CheckReceived refuses a received state that this binary cannot read, before
// anything is committed. It is what store.Options.Prepare wants; only replicas
// of the same cluster are installed by raft, a backup goes another way.
func CheckReceived(db *pebble.DB, kind store.Kind, index, _ uint64) error {
	m, err := readMeta(db)
	if err != nil {
		return err
	}
	if kind != store.KindReplica || m.ClusterID == "" {
		return fmt.Errorf("%w: received state at entry %d is no replica", ErrCorrupt, index)
	}
	return nil
}

func readMeta(r pebble.Reader) (meta, error) {
	var m meta
	v, found, err := readCopy(r, metaKey())
	if err != nil || !found {
		return m, err
	}
	if err := decodeMeta(v, &m); err != nil {
		return m, err
	}
	if m.FeatureLevel > FeatureCurrent {
		return m, fmt.Errorf("%w: the state needs feature level %d, this binary knows %d", ErrUnknownType, m.FeatureLevel, FeatureCurrent)
	}
	v, found, err = readCopy(r, entryKey())
	if err == nil && found && len(v) == 16 {
		m.Index, _ = decodeNumber(v[:8])
		m.Term, _ = decodeNumber(v[8:])
	}
	return m, err
}

// Apply applies one entry; raft calls ApplyBatch instead.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries in one store batch. For each command it
// returns []Result, one per Txn of its group, or an error when the node has
// halted: an entry that does not decode, is of another cluster or meets a store
// that fails is never skipped, since the node would then differ.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	h := f.store.Acquire()
	if h == nil {
		return fill(out, ErrClosed)
	}
	defer h.Release()
	f.mu.Lock()
	m, halt := f.meta, f.haltErr
	f.mu.Unlock()
	if halt != nil {
		return fill(out, halt)
	}
	a := newApplier(f.writes.begin(h.DB()), m, f.hot, f.seen)
	defer a.writes.close()
	for i, l := range logs {
		if err := f.entry(a, l, &out[i]); err != nil {
			halt = fmt.Errorf("%w: entry %d: %w", ErrHalted, l.Index, err)
			break
		}
	}
	if err := f.commit(a); err != nil {
		halt = fmt.Errorf("%w: %w", ErrHalted, err)
		fill(out, halt)
	}
	if halt != nil {
		f.halt(halt)
		for i := range out {
			if out[i] == nil {
				out[i] = halt
			}
		}
	}
	return out
}

func fill(out []any, err error) []any {
	for i := range out {
		out[i] = err
	}
	return out
}

func (f *FSM) entry(a *applier, l *raft.Log, out *any) error {
	if l.Index <= a.meta.Index {
		if l.Term > a.meta.Term && a.meta.Term != 0 {
			return fmt.Errorf("%w: skipped entry has term %d, the state term %d", ErrCorrupt, l.Term, a.meta.Term)
		}
		*out = []Result(nil)
		return nil
	}
	a.mark(l.Index)
	if l.Type == raft.LogCommand {
		results, err := a.group(l.Data)
		if err != nil {
			return err
		}
		*out = results
	}
	a.meta.Index, a.meta.Term = l.Index, l.Term
	return nil
}

func (f *FSM) commit(a *applier) error {
	if err := a.finish(f.store.AppliedKey()); err != nil {
		return err
	}
	f.stateMu.Lock()
	defer f.stateMu.Unlock()
	if err := a.writes.commit(); err != nil {
		return err
	}
	f.hot.commit(a)
	f.store.NoteApplied(a.meta.Index)
	f.mu.Lock()
	f.keepMarks(a.marks)
	f.mu.Unlock()
	f.publish(a.meta)
	return nil
}

// publish makes m the state that waiters see and wakes those it satisfies.
func (f *FSM) publish(m meta) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meta = m
	kept := f.waiters[:0]
	for _, w := range f.waiters {
		if m.Revision >= w.revision && m.Index >= w.index {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	clear(f.waiters[len(kept):])
	f.waiters = kept
}

func (f *FSM) halt(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.haltErr == nil {
		f.haltErr = err
		close(f.halted)
	}
}

// Halted is closed when the node met something it must not skip; it then has
// to leave service. HaltError says what.
func (f *FSM) Halted() <-chan struct{} { return f.halted }

// HaltError returns why the machine halted, wrapping ErrHalted, or nil.
func (f *FSM) HaltError() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.haltErr
}

// Revision returns the revision of the state.
func (f *FSM) Revision() Revision {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.meta.Revision
}

// FeatureLevel is the level that the cluster has agreed on, 0 in a new state.
func (f *FSM) FeatureLevel() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.meta.FeatureLevel
}

// Applied returns the raft index of the last applied command or configuration.
func (f *FSM) Applied() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.meta.Index
}

// ClusterID returns the id of the cluster whose log made the state, or "".
func (f *FSM) ClusterID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.meta.ClusterID
}

// Wait returns when the state has reached revision r, or ctx's error, or
// ErrHalted.
func (f *FSM) Wait(ctx context.Context, r Revision) error { return f.wait(ctx, waiter{revision: r}) }

// WaitApplied returns when the entry with this raft index is applied. The index
// must be of a command or configuration: others never reach the machine.
func (f *FSM) WaitApplied(ctx context.Context, index uint64) error {
	return f.wait(ctx, waiter{index: index})
}

func (f *FSM) wait(ctx context.Context, w waiter) error {
	done := f.register(w)
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		f.forget(done)
		return ctx.Err()
	case <-f.halted:
		return f.HaltError()
	}
}

func (f *FSM) register(w waiter) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.done = make(chan struct{})
	if f.meta.Revision >= w.revision && f.meta.Index >= w.index {
		close(w.done)
	} else {
		f.waiters = append(f.waiters, w)
	}
	return w.done
}

func (f *FSM) forget(done chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, w := range f.waiters {
		if w.done == done {
			last := len(f.waiters) - 1
			f.waiters[i] = f.waiters[last]
			f.waiters[last] = waiter{}
			f.waiters = f.waiters[:last]
			return
		}
	}
}

// Changed returns a channel that is closed as soon as the revision is above
// after. A caller that no longer waits may drop it.
func (f *FSM) Changed(after Revision) <-chan struct{} {
	return f.register(waiter{revision: after + 1})
}

// Snapshot takes a reference on the live database and nothing else: raft calls
// it between two applies.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.HaltError(); err != nil {
		return nil, err
	}
	h := f.store.Acquire()
	if h == nil {
		return nil, ErrClosed
	}
	return &snapshot{store: f.store, handle: h}, nil
}

type snapshot struct {
	store  *store.Store
	handle *store.Handle
}

func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.store.Persist(s.handle, sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s *snapshot) Release() { s.handle.Release() }

// Restore replaces the state by a received snapshot: built aside, verified,
// swapped together with everything kept in memory.
func (f *FSM) Restore(rc io.ReadCloser) error {
	err := f.store.Install(rc, func(h *store.Handle) error {
		m, err := readMeta(h.DB())
		if err != nil {
			return err
		}
		f.mu.Lock()
		if id := f.meta.ClusterID; id != "" && m.ClusterID != id {
			f.mu.Unlock()
			return fmt.Errorf("%w: snapshot of cluster %q into the state of %q", ErrCorrupt, m.ClusterID, id)
		}
		f.mu.Unlock()
		f.stateMu.Lock()
		defer f.stateMu.Unlock()
		f.db, f.hot, f.seen = h.DB(), newHot(&m), newSeen(&m)
		f.cache.clear()
		f.mu.Lock()
		f.marks = nil // of another state, perhaps a wrong one
		f.mu.Unlock()
		f.publish(m)
		return nil
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	m := f.meta
	f.mu.Unlock()
	f.publish(m.atLeast(f.store.Applied()))
	return nil
}
