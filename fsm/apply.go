package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
)

// Window of remembered requests: an effect is kept for at least RequestWindow
// (by the entries' clock) and RequestCount writes, but never beyond
// RequestBytes. They decide what Apply does, so they are part of feature
// level 1 and not a setting of a node.
const (
	RequestWindow Timestamp = 10 * 60 * 1000 // ms
	RequestCount            = 100_000
	RequestBytes            = 256 << 20
	evictPerTxn             = 4
)

// Bump is Kinto's rule for the time of a write into a list whose timestamp is
// list (kinto/core/storage/memory.py, bump_timestamp): without a wish
// max(now, list+1); a wish equal to the list's timestamp is raised by one; a
// greater one becomes the list's; a past one is kept and leaves the list
// alone. exact keeps the wish whatever it is (import).
func Bump(list, now, wish Timestamp, hasWish, exact bool) (object, newList Timestamp) {
	switch {
	case !hasWish:
		object = max(now, list+1)
		return object, object
	case exact:
		return wish, max(wish, list)
	case wish == list:
		return list + 1, list + 1
	default:
		return wish, max(wish, list)
	}
}

// applier performs the transactions of some entries on one batch of writes, so
// that each sees the effects of those before it and all reach the store at
// once, with the applied index.
type applier struct {
	writes *writes
	meta   meta
	lists  map[Path]*ListInfo  // read or changed in this batch; written by finish
	known  map[Path]indexEntry // index rows as the batch leaves them: compares of one group repeat
	since  map[string]Revision // the same for memberships
	hot    *hot                // rows of the state before the batch
	seen   *seen

	before  Revision            // of the state before the transaction at hand
	touched map[string]struct{} // principals whose memberships changed
	forget  bool                // rows vanished by range
	marks   []Mark              // passed in this batch
}

func newApplier(w *writes, m meta, h *hot, s *seen) *applier {
	return &applier{writes: w, meta: m, hot: h, seen: s, lists: map[Path]*ListInfo{},
		known: map[Path]indexEntry{}, since: map[string]Revision{}, touched: map[string]struct{}{}}
}

// group applies one entry. An error means that nothing of it was applied and
// the node must halt.
func (a *applier) group(data []byte) ([]Result, error) {
	g, err := DecodeGroup(data)
	if err != nil {
		return nil, err
	}
	switch {
	case a.meta.ClusterID == "":
		a.meta.ClusterID = g.ClusterID
	case a.meta.ClusterID != g.ClusterID:
		return nil, fmt.Errorf("%w: entry of cluster %q in the state of %q", ErrCorrupt, g.ClusterID, a.meta.ClusterID)
	}
	results := make([]Result, len(g.Txns))
	// The entry itself goes in as a fast hash: its bytes have their own checksum,
	// what must be told apart is what nodes made of them.
	seen := binary.BigEndian.AppendUint64(a.meta.StateHash[:len(a.meta.StateHash):len(a.meta.StateHash)], xxhash.Sum64(data))
	for i := range g.Txns {
		if results[i], err = a.txn(&g.Txns[i]); err != nil {
			return nil, err
		}
		seen = digest(seen, &results[i])
	}
	a.meta.StateHash = sha256.Sum256(seen)
	return results, nil
}

// digest is what the rolling hash sees of a result: a node that decided
// otherwise, or gave another time or revision, differs from here on.
func digest(b []byte, r *Result) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.Revision))
	for _, o := range r.Objects {
		b = binary.BigEndian.AppendUint64(b, uint64(o.Revision))
		b = binary.BigEndian.AppendUint64(b, uint64(o.LastModified))
	}
	if r.Conflict != nil {
		b = append(b, 'c')
	}
	if r.Replayed != nil {
		b = append(b, 'r')
	}
	return b
}

func (a *applier) txn(t *Txn) (Result, error) {
	a.meta.Clock = max(a.meta.Clock, t.Now)
	if len(t.RequestID) > 0 && !a.seen.fresh(&a.meta, t.RequestID) {
		stored, err := readRequest(a.writes, t.RequestID)
		if stored != nil || err != nil {
			return Result{Revision: a.meta.Revision, Replayed: stored}, err
		}
	}
	for i := range t.Compares {
		holds, err := a.holds(&t.Compares[i])
		if err != nil {
			return Result{}, err
		}
		if !holds {
			return Result{Revision: a.meta.Revision, Conflict: &t.Compares[i]}, nil
		}
	}
	a.before = a.meta.Revision
	r := Result{Objects: make([]Object, len(t.Ops))}
	for i := range t.Ops {
		o, err := a.op(t, i)
		if err != nil {
			return Result{}, err
		}
		r.Objects[i] = o
	}
	r.Revision = a.meta.Revision
	return r, a.remember(t, &r)
}

func (a *applier) holds(c *Compare) (bool, error) {
	switch c.Kind {
	case CompareObject:
		e, _, err := a.index(Path(c.Key))
		return e.Revision == c.Revision, err
	case CompareList:
		l, err := a.list(Path(c.Key))
		return err == nil && l.Revision == c.Revision, err
	default:
		r, err := a.memberSince(c.Key)
		return r == c.Revision, err
	}
}

func (a *applier) memberSince(principal string) (Revision, error) {
	if r, ok := a.since[principal]; ok {
		return r, nil
	}
	if m, ok := a.hot.member(principal, a.hot.revision); ok && !a.forget {
		return m.at, nil // unchanged in this batch, else it were in since
	}
	var n uint64
	v, found, err := a.get(key(spaceMemberAt, principal))
	if err == nil && found {
		n, err = decodeNumber(v)
	}
	a.since[principal] = Revision(n)
	return Revision(n), err
}

func (a *applier) op(t *Txn, i int) (Object, error) {
	o := &t.Ops[i]
	switch o.Type {
	case OpPut:
		return a.put(t, i)
	case OpPutTombstone, OpDelete, OpDeleteTree:
		return a.remove(t, i)
	case OpFlush:
		return Object{}, a.flush(t, i)
	case OpPutEntry:
		return a.putEntry(t, i)
	case OpDropEntries:
		return Object{}, a.dropEntries(o)
	case OpSetListTimestamp:
		return Object{}, a.setListTimestamp(t, o)
	case OpPurgeTombstones:
		return Object{}, a.purge(o)
	case OpTrimEvents:
		return Object{}, a.trim(o.Revision)
	case OpRegisterNotifier, OpForgetNotifier, OpAdvanceCursor:
		return Object{}, a.notifier(o)
	case OpSetFeatureLevel:
		a.meta.FeatureLevel = max(a.meta.FeatureLevel, o.Level)
		return Object{}, nil
	case OpBeginLife:
		return Object{}, a.beginLife(t.Now)
	case OpSetSetting:
		if o.Value == nil {
			return Object{}, a.writes.delete(key(spaceSetting, o.Name))
		}
		return Object{}, a.set(key(spaceSetting, o.Name), o.Value)
	default:
		return Object{}, fmt.Errorf("%w: op %d", ErrUnknownType, o.Type)
	}
}

// remember stores what a retry of t needs and evicts what the window let go.
func (a *applier) remember(t *Txn, r *Result) error {
	if len(t.RequestID) == 0 || len(t.Ops) == 0 {
		return nil
	}
	stored := StoredRequest{Hash: t.RequestHash, Revision: r.Revision, Now: t.Now, Reply: t.Reply, Refs: make([]Ref, len(t.Ops))}
	for i, o := range r.Objects {
		stored.Refs[i] = Ref{Path: t.Ops[i].Path, Revision: o.Revision, LastModified: o.LastModified, Deleted: o.Deleted}
	}
	v := encodeRemembered(a.meta.Clock, t.RequestID, &stored)
	if err := errors.Join(a.set(key(spaceRequest, string(t.RequestID)), binary.BigEndian.AppendUint64(nil, a.meta.RequestNext)),
		a.set(keyNumber(spaceRequests, a.meta.RequestNext), v)); err != nil {
		return err
	}
	a.seen.add(&a.meta, t.RequestID)
	a.meta.RequestNext++
	a.meta.RequestBytes += uint64(len(v))
	for n := 0; n < evictPerTxn; n++ {
		if done, err := a.evict(); done || err != nil {
			return err
		}
	}
	return nil
}

// evict forgets the oldest request when the window allows it or the bound on
// bytes demands it; done says that there was nothing to do.
func (a *applier) evict() (done bool, err error) {
	m := &a.meta
	full := m.RequestBytes > RequestBytes
	if !full && m.RequestNext-m.RequestFirst <= RequestCount {
		return true, nil
	}
	k := keyNumber(spaceRequests, m.RequestFirst)
	v, found, err := a.get(k)
	if err != nil || !found {
		return true, err
	}
	clock, id, _, err := splitRemembered(v)
	if err != nil || !full && clock+RequestWindow > m.Clock {
		return true, err
	}
	err = errors.Join(a.writes.delete(key(spaceRequest, string(id))), a.writes.delete(k))
	m.RequestFirst++
	m.RequestBytes -= min(m.RequestBytes, uint64(len(v)))
	return false, err
}

// finish writes what the batch kept in memory and the position of the log.
func (a *applier) finish(appliedKey []byte) error {
	paths := make([]string, 0, len(a.lists))
	for p := range a.lists {
		paths = append(paths, string(p))
	}
	sort.Strings(paths)
	for _, p := range paths {
		l := a.lists[Path(p)]
		if *l == (ListInfo{}) {
			continue
		}
		if err := a.set(key(spaceList, p), encodeList(l)); err != nil {
			return err
		}
	}
	m := &a.meta
	return errors.Join(
		a.set(metaKey(), encodeMeta(m)),
		a.set(entryKey(), encodeEntry(m.Index, m.Term)),
		a.set(appliedKey, binary.BigEndian.AppendUint64(nil, m.Index)))
}

func (a *applier) set(k, v []byte) error { return a.writes.set(k, v) }

func (a *applier) get(k []byte) ([]byte, bool, error) { return readCopy(a.writes, k) }

// getter reads a row: the store, a snapshot of it, or the writes on their way.
type getter interface {
	Get(k []byte) ([]byte, io.Closer, error)
}

// readCopy reads k and copies the value out of the store's memory.
func readCopy(r getter, k []byte) ([]byte, bool, error) {
	v, closer, err := r.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	v = bytes.Clone(v)
	return v, true, closer.Close()
}

func (a *applier) index(p Path) (indexEntry, bool, error) {
	if e, ok := a.known[p]; ok {
		return e, e.Revision != 0, nil
	}
	if e, ok := a.hot.row(p, a.hot.revision); ok && !a.forget {
		a.known[p] = e
		return e, e.Revision != 0, nil
	}
	e, found, err := readIndex(a.writes, p)
	a.known[p] = e
	return e, found, err
}

func readIndex(r getter, p Path) (indexEntry, bool, error) {
	v, closer, err := r.Get(indexKey(p))
	if errors.Is(err, pebble.ErrNotFound) {
		return indexEntry{}, false, nil
	}
	if err != nil {
		return indexEntry{}, false, err
	}
	e, err := decodeIndex(v)
	return e, true, errors.Join(err, closer.Close())
}

func (a *applier) list(p Path) (*ListInfo, error) {
	if l, ok := a.lists[p]; ok {
		return l, nil
	}
	l := &ListInfo{}
	if known, ok := a.hot.list(p, a.hot.entry); ok && !a.forget {
		*l = known
		a.lists[p] = l
		return l, nil
	}
	v, found, err := a.get(key(spaceList, string(p)))
	if err == nil && found {
		err = decodeList(v, l)
	}
	a.lists[p] = l
	return l, err
}
