package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"quinto/fsm/store"
)

// Reader is the state as a plan sees it: a View, or an Overlay on one.
type Reader interface {
	// Revision of the state that is read.
	Revision() Revision
	// Get returns the object at p. Absent: a zero Object; a tombstone has
	// Deleted set. Exists tells both from a live one.
	Get(p Path) (Object, error)
	// List returns what is known of a list; zero when it was never touched.
	List(list Path) (ListInfo, error)
	// Lists calls f for each list that was ever touched, in no particular order,
	// until it returns false. It reads one small row for each.
	Lists(f func(list Path, l ListInfo) bool) error
	// Scan calls f for the objects of a list in (last_modified, id) order until
	// it returns false. The *Object is f's only during the call; the bytes it
	// points to stay valid, unless they are borrowed.
	Scan(list Path, o ScanOptions, f func(*Object) bool) error
	// Groups returns the objects whose members contain principal, by path.
	// The slice is shared: it must not be changed.
	Groups(principal string) ([]Path, error)
	// Granted calls f for each object whose own permissions name one of principals,
	// with what they give him, until it returns false: once for each of them, in no
	// particular order. It costs a few seeks for each list with permissions, and no
	// look at other objects. It does not become part of a decision.
	Granted(principals []string, f func(p Path, permissions []string) bool) error
	// Version returns the body that the object at p had at revision r.
	// ErrTrimmed: it is no longer kept. A tombstone has no version.
	Version(p Path, r Revision) (Object, error)
}

// Position is a place in the order of a list.
type Position struct {
	LastModified Timestamp
	ID           string
}

// ScanOptions bound and order a Scan. The zero value reads every live object,
// oldest first.
type ScanOptions struct {
	Start      *Position // first position that counts (inclusive)
	End        *Position // first position that no longer counts (exclusive)
	Reverse    bool      // newest first
	Tombstones bool      // also tombstones
	Borrow     bool      // the bytes of an object, too, are valid during the call only
}

// View is the state at one revision, from one store snapshot: an object, its
// list's timestamp and count always agree. It must be closed; it is not for
// use by several goroutines at once.
type View struct {
	handle *store.Handle
	snap   *pebble.Snapshot
	meta   meta
	cache  *objectCache
	hot    *hot
	record bool
	reads  map[Compare]struct{}
	seen   map[Path]indexEntry // while recording: a plan looks at its object several times
}

var _ Reader = (*View)(nil)

// View returns the state as it is now. ErrHalted or ErrClosed when the node
// serves no more.
func (f *FSM) View() (*View, error) {
	if err := f.HaltError(); err != nil {
		return nil, err
	}
	for {
		h := f.store.Acquire()
		if h == nil {
			return nil, ErrClosed
		}
		if v := f.viewOf(h); v != nil {
			return v, nil
		}
		h.Release() // replaced by a restore just now
	}
}

// viewOf takes a View of h, or nil when h is no longer the state.
func (f *FSM) viewOf(h *store.Handle) *View {
	f.stateMu.RLock()
	defer f.stateMu.RUnlock()
	if f.db != h.DB() {
		return nil
	}
	f.mu.Lock()
	m := f.meta
	f.mu.Unlock()
	return &View{handle: h, snap: h.DB().NewSnapshot(), meta: m, cache: f.cache, hot: f.hot}
}

// Close gives the store's memory free. The View must not be used afterwards.
func (v *View) Close() {
	_ = v.snap.Close()
	v.handle.Release()
}

// Revision of the state that v shows.
func (v *View) Revision() Revision { return v.meta.Revision }

// ClusterID of the cluster whose log made the state.
func (v *View) ClusterID() string { return v.meta.ClusterID }

// FeatureLevel that the cluster has agreed on.
func (v *View) FeatureLevel() uint32 { return v.meta.FeatureLevel }

// EventFloor is the highest revision whose event is gone.
func (v *View) EventFloor() Revision { return v.meta.EventFloor }

// TrimLimit is the highest floor that OpTrimEvents would reach now: remembered
// requests hold what lies above it.
func (v *View) TrimLimit() (Revision, error) { return trimLimit(v.snap, &v.meta) }

// Applied is the raft index of the last entry in the state. Entries that change
// no object (cursors, settings) move it and not the revision: two nodes have
// equal hashes at equal Applied.
func (v *View) Applied() uint64 { return v.meta.Index }

// EventCount is the number of retained events.
func (v *View) EventCount() uint64 { return v.meta.EventCount }

// StateHash is the rolling hash over all applied entries and their results:
// equal on all nodes at equal revision and index.
func (v *View) StateHash() [sha256.Size]byte { return v.meta.StateHash }

// Record makes v remember each Get and Groups as a Compare.
func (v *View) Record() {
	v.record, v.reads, v.seen = true, make(map[Compare]struct{}, 8), make(map[Path]indexEntry, 4)
}

// Reads returns what was recorded, in no particular order.
func (v *View) Reads() []Compare {
	out := make([]Compare, 0, len(v.reads))
	for c := range v.reads {
		out = append(out, c)
	}
	return out
}

func (v *View) note(kind CompareKind, key string, r Revision) {
	if v.record {
		v.reads[Compare{Kind: kind, Key: key, Revision: r}] = struct{}{}
	}
}

// RequireList records that the plan depends on the timestamp or content of a
// list: any other write to it is then a conflict.
func (v *View) RequireList(list Path) error {
	l, err := v.List(list)
	if err == nil {
		v.note(CompareList, string(list), l.Revision)
	}
	return err
}

// Get implements Reader.
func (v *View) Get(p Path) (Object, error) {
	if !p.IsObject() {
		return Object{}, nil // cannot exist
	}
	at, found, err := v.index(p)
	if err != nil {
		return Object{}, err
	}
	v.note(CompareObject, string(p), at.Revision)
	if !found {
		return Object{}, nil
	}
	if o, ok := v.cache.get(p, at.Revision); ok {
		return o, nil
	}
	o := Object{Path: p, LastModified: at.LastModified}
	row, found, err := readCopy(v.snap, objectKey(p.List(), at.LastModified, p.ID()))
	if err == nil && !found {
		err = fmt.Errorf("%w: %s has an index entry and no row", ErrCorrupt, p)
	}
	if err == nil {
		err = decodeObject(row, &o)
	}
	if err == nil {
		v.cache.put(p, &o)
	}
	return o, err
}

func (v *View) index(p Path) (indexEntry, bool, error) {
	if e, ok := v.seen[p]; ok {
		return e, e.Revision != 0, nil
	}
	shallow := p.Depth() <= hotDepth
	if shallow {
		if e, ok := v.hot.row(p, v.meta.Revision); ok {
			return e, e.Revision != 0, nil
		}
	}
	e, found, err := readIndex(v.snap, p)
	switch {
	case err != nil:
	case shallow:
		v.hot.learn(p, e, v.meta.Revision)
	case v.record:
		v.seen[p] = e
	}
	return e, found, err
}

// List implements Reader.
func (v *View) List(list Path) (ListInfo, error) {
	if l, ok := v.hot.list(list, v.meta.Index); ok {
		return l, nil
	}
	var l ListInfo
	row, found, err := readCopy(v.snap, key(spaceList, string(list)))
	if err == nil && found {
		err = decodeList(row, &l)
	}
	if err == nil {
		v.hot.learnList(list, &l, v.meta.Index)
	}
	return l, err
}

// Lists implements Reader.
func (v *View) Lists(f func(list Path, l ListInfo) bool) error {
	return v.each([]byte{spaceList}, []byte{spaceList + 1}, func(k, row []byte) (bool, error) {
		var l ListInfo
		if err := decodeList(row, &l); err != nil {
			return false, err
		}
		return f(Path(k[1:]), l), nil
	})
}

// Scan implements Reader.
func (v *View) Scan(list Path, o ScanOptions, f func(*Object) bool) error {
	prefix := listPrefix(spaceObject, list)
	bounds := pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)}
	if o.Start != nil {
		bounds.LowerBound = objectKey(list, o.Start.LastModified, o.Start.ID)
	}
	if o.End != nil {
		bounds.UpperBound = objectKey(list, o.End.LastModified, o.End.ID)
	}
	if bytes.Compare(bounds.LowerBound, bounds.UpperBound) >= 0 {
		return nil
	}
	it, err := v.snap.NewIter(&bounds)
	if err != nil {
		return err
	}
	first, next := it.First, it.Next
	if o.Reverse {
		first, next = it.Last, it.Prev
	}
	var obj Object
	for ok := first(); ok; ok = next() {
		if err := scanned(&obj, list, it, len(prefix), o.Borrow); err != nil {
			return errors.Join(err, it.Close())
		}
		if (o.Tombstones || !obj.Deleted) && !f(&obj) {
			break
		}
	}
	return it.Close()
}

func scanned(o *Object, list Path, it *pebble.Iterator, prefix int, borrow bool) error {
	t, id, ok := splitObjectKey(it.Key(), prefix)
	if !ok {
		return fmt.Errorf("%w: key in list %s", ErrCorrupt, list)
	}
	*o = Object{Path: Path(string(list) + "/" + string(id)), LastModified: t}
	row := it.Value()
	if !borrow {
		row = bytes.Clone(row)
	}
	return decodeObject(row, o)
}

// Groups implements Reader.
func (v *View) Groups(principal string) ([]Path, error) {
	if !validPrincipal(principal) {
		return nil, nil
	}
	if m, ok := v.hot.member(principal, v.meta.Revision); ok {
		v.note(CompareMember, principal, m.at)
		return m.groups, nil
	}
	row, found, err := readCopy(v.snap, key(spaceMemberAt, principal))
	if err != nil {
		return nil, err
	}
	var at uint64
	if found {
		if at, err = decodeNumber(row); err != nil {
			return nil, err
		}
	}
	v.note(CompareMember, principal, Revision(at))
	var paths []Path
	if found {
		prefix := memberKey(principal, "")
		err = v.each(prefix, prefixEnd(prefix), func(k, _ []byte) (bool, error) {
			paths = append(paths, Path(k[len(prefix):]))
			return true, nil
		})
	}
	if err == nil {
		v.hot.learnMember(principal, Revision(at), paths, v.meta.Revision)
	}
	return paths, err
}

// Version implements Reader.
func (v *View) Version(p Path, r Revision) (Object, error) {
	o := Object{Path: p}
	if o, found, err := v.kept(p, r); found || err != nil {
		return o, err
	}
	at, found, err := readIndex(v.snap, p)
	if err != nil {
		return o, err
	}
	if !found || at.Revision != r {
		return o, fmt.Errorf("%w: %s at revision %d", ErrTrimmed, p, r)
	}
	o.LastModified = at.LastModified
	row, _, err := readCopy(v.snap, objectKey(p.List(), at.LastModified, p.ID()))
	if err == nil {
		err = decodeObject(row, &o)
	}
	return o, err
}

// kept reads a body from the event that made it or, once that is trimmed, from
// its version.
func (v *View) kept(p Path, r Revision) (o Object, found bool, err error) {
	if r <= v.meta.EventFloor {
		row, found, err := readCopy(v.snap, versionKey(p, r))
		if err == nil && found {
			o.Path = p
			err = decodeVersion(row, &o)
		}
		return o, found, err
	}
	row, found, err := readCopy(v.snap, keyNumber(spaceEvent, uint64(r)))
	if err != nil || !found {
		return o, false, err
	}
	_, o, err = decodeEventBody(row, r)
	return o, o.Revision != 0 && o.Path == p, err
}

// Events calls f for each event above from, in order, until it returns false.
// ErrTrimmed: events above from are no longer all there, and the reader has to
// start over from the state.
func (v *View) Events(from Revision, f func(*Event) bool) error {
	if from < v.meta.EventFloor {
		return fmt.Errorf("%w: events up to %d, asked from %d", ErrTrimmed, v.meta.EventFloor, from)
	}
	return v.each(keyNumber(spaceEvent, uint64(from)+1), []byte{spaceEvent + 1}, func(k, row []byte) (bool, error) {
		e := &Event{Revision: Revision(binary.BigEndian.Uint64(k[1:]))}
		row, _, err := splitEvent(row)
		if err == nil {
			err = decodeEvent(bytes.Clone(row), e)
		}
		if err != nil {
			return false, err
		}
		return f(e), nil
	})
}

// Request returns what is remembered of a request id, nil when nothing is.
func (v *View) Request(id []byte) (*StoredRequest, error) {
	return readRequest(v.snap, id)
}

// Notifiers returns the registered notifiers by name.
func (v *View) Notifiers() ([]Notifier, error) {
	var out []Notifier
	err := v.each([]byte{spaceNotifier}, []byte{spaceNotifier + 1}, func(k, row []byte) (bool, error) {
		n := Notifier{Name: string(k[1:])}
		err := decodeNotifier(bytes.Clone(row), &n)
		out = append(out, n)
		return true, err
	})
	return out, err
}

// Setting returns a replicated setting, nil when it is not set.
func (v *View) Setting(name string) ([]byte, error) {
	row, _, err := readCopy(v.snap, key(spaceSetting, name))
	return row, err
}

// Settings calls f for each replicated setting whose name begins with prefix,
// by name, until it returns false.
func (v *View) Settings(prefix string, f func(name string, value []byte) bool) error {
	start := key(spaceSetting, prefix)
	return v.each(start, prefixEnd(start), func(k, row []byte) (bool, error) {
		return f(string(k[1:]), bytes.Clone(row)), nil
	})
}

// Hash returns the canonical hash of all replicated keys and values. It reads
// the whole state: seconds for a million objects.
func (v *View) Hash() ([sha256.Size]byte, error) {
	sum := sha256.New()
	var size [8]byte
	err := v.each([]byte{spaceObject}, []byte{spaceEnd}, func(k, row []byte) (bool, error) {
		binary.BigEndian.PutUint32(size[:4], uint32(len(k)))
		binary.BigEndian.PutUint32(size[4:], uint32(len(row)))
		sum.Write(size[:])
		sum.Write(k)
		sum.Write(row)
		return true, nil
	})
	var out [sha256.Size]byte
	sum.Sum(out[:0])
	return out, err
}

// each calls f for the rows of [start, end); k and row are valid during the
// call only.
func (v *View) each(start, end []byte, f func(k, row []byte) (bool, error)) error {
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		more, err := f(it.Key(), it.Value())
		if err != nil || !more {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}
