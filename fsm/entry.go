package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// An entry is an object that records a write: a line of a history. It is no
// event and has no version. It does not hold what was written either, but
// refers to the version that D9 keeps of it, and holds that version: it stays
// as long as an event or an entry needs it
// (docs/adr/0006-history-refers-to-versions.md).
//
// Entries lie in lists of a root object (/buckets/b/history/id) and refer to
// that object or to what lies under it, so that with the root object all entries
// and holds of its tree vanish by range.

// entryDepth is that of the path of an entry.
const entryDepth = 4

// hold counts the entries that refer to a version.
type hold struct {
	count uint64
	letGo bool // no event needs the version any more: the last entry takes it along
}

const (
	holdFieldCount protowire.Number = 1
	holdFieldLetGo protowire.Number = 2
)

func encodeHold(h hold) []byte {
	b := appendUint(append(make([]byte, 0, 8), rowFormat), holdFieldCount, h.count)
	return appendFlag(b, holdFieldLetGo, h.letGo)
}

func decodeHold(v []byte, h *hold) error {
	if len(v) == 0 || v[0] != rowFormat {
		return formatError("hold", v)
	}
	return eachField(v[1:], func(num protowire.Number, _ []byte, n uint64) error {
		switch num {
		case holdFieldCount:
			h.count = n
		case holdFieldLetGo:
			h.letGo = n != 0
		default:
			return unknownField("hold", num)
		}
		return nil
	})
}

// checkEntry refuses an entry whose holds would outlive it.
func checkEntry(o *Op) error {
	if err := o.Path.CheckObject(); err != nil {
		return err
	}
	root := o.Path.Parent()
	if o.Path.Depth() != entryDepth || o.Target != "" && (o.Target.CheckObject() != nil || o.Target != root && !o.Target.Under(root)) {
		return fmt.Errorf("%w: an entry at %q of %q", ErrBadPath, o.Path, o.Target)
	}
	return checkPut(o)
}

// putEntry creates or replaces an entry. It takes the revision of the write that
// it records, if its transaction made it and the list has not seen it yet; else
// one of its own. Where another object stands it does nothing.
func (a *applier) putEntry(t *Txn, i int) (Object, error) {
	op := &t.Ops[i]
	if taken, err := a.isObject(op.Path); taken || err != nil {
		return Object{}, err
	}
	var at indexEntry
	if op.Target != "" {
		var err error
		if at, _, err = a.index(op.Target); err != nil {
			return Object{}, err
		}
	}
	old, l, err := a.vacate(op.Path)
	if err != nil {
		return Object{}, err
	}
	o := Object{Path: op.Path, Data: op.Data, ACL: op.ACL, Of: at.ref(op.Target)}
	o.LastModified, l.Timestamp = Bump(l.Timestamp, t.Now, op.LastModified, op.HasTime, op.Exact)
	if at.Revision > max(l.Revision, a.before) {
		o.Revision, l.Revision = at.Revision, at.Revision
	} else {
		o.Revision = a.next(l)
	}
	if !old.Exists() {
		l.Count++
	}
	return o, errors.Join(a.place(&o), a.hold(o.Of))
}

// ref is what an entry says of the object at p when it stands as e says.
func (e indexEntry) ref(p Path) *Ref {
	r := &Ref{Path: p, Revision: e.Revision, Deleted: e.Deleted}
	if e.Deleted {
		r.LastModified = e.LastModified
	}
	return r
}

// isObject reports whether a live object that is no entry stands at p.
func (a *applier) isObject(p Path) (bool, error) {
	at, found, err := a.index(p)
	if err != nil || !found || at.Deleted {
		return false, err
	}
	var o Object
	v, _, err := a.get(objectKey(p.List(), at.LastModified, p.ID()))
	if err == nil {
		err = decodeObject(v, &o)
	}
	return o.Of == nil, err
}

// dropEntries takes entries out of a list without tombstones: what a trimmed
// history let go is not to be told to anybody. The list's time stays.
func (a *applier) dropEntries(op *Op) error {
	gone := false
	for _, id := range op.Members {
		p := op.Path.Child(id)
		at, found, err := a.index(p)
		if err != nil {
			return err
		}
		if !found || at.Deleted {
			continue
		}
		other, err := a.isObject(p)
		if err != nil {
			return err
		}
		if other {
			continue
		}
		_, l, err := a.vacate(p)
		if err != nil {
			return err
		}
		l.Count--
		gone = true
		a.known[p] = indexEntry{}
		if err := a.writes.delete(indexKey(p)); err != nil {
			return err
		}
	}
	if !gone {
		return nil
	}
	l, err := a.list(op.Path)
	if err == nil {
		a.next(l)
	}
	return err
}

func (a *applier) readHold(of *Ref) (h hold, found bool, err error) {
	v, found, err := a.get(holdKey(of.Path, of.Revision))
	if err == nil && found {
		err = decodeHold(v, &h)
	}
	return h, found, err
}

// holds reports whether a reference holds a version: not one to a tombstone, or
// to nothing.
func (r *Ref) holds() bool { return r.Revision != 0 && !r.Deleted }

// hold keeps the version that an entry refers to.
func (a *applier) hold(of *Ref) error {
	if !of.holds() {
		return nil
	}
	h, _, err := a.readHold(of)
	if err != nil {
		return err
	}
	h.count++
	return a.set(holdKey(of.Path, of.Revision), encodeHold(h))
}

// release gives up the hold of an entry that goes.
func (a *applier) release(of *Ref) error {
	if !of.holds() {
		return nil
	}
	h, found, err := a.readHold(of)
	if err != nil || !found {
		return err
	}
	k := holdKey(of.Path, of.Revision)
	if h.count--; h.count > 0 {
		return a.set(k, encodeHold(h))
	}
	err = a.writes.delete(k)
	if h.letGo {
		err = errors.Join(err, a.writes.delete(versionKey(of.Path, of.Revision)))
	}
	return err
}

// letGo drops a version that no event refers to any more, unless an entry holds
// it: then the last one will.
func (a *applier) letGo(p Path, r Revision) error {
	h, held, err := a.readHold(&Ref{Path: p, Revision: r})
	switch {
	case err != nil || held && h.letGo:
		return err
	case held:
		h.letGo = true
		return a.set(holdKey(p, r), encodeHold(h))
	}
	return a.writes.delete(versionKey(p, r))
}

// clearHolds is told that everything under root vanishes. With a root object its
// entries go too, and their holds with them. Else the bodies that entries hold
// and that stand nowhere but in their lists are saved as versions.
func (a *applier) clearHolds(root Path) error {
	start, end := treeSpan(spaceHold, root)
	if root.Depth() > 2 {
		return a.each(start, end, func(k, _ []byte) error {
			p, r := Path(k[1:len(k)-9]), Revision(binary.BigEndian.Uint64(k[len(k)-8:]))
			if r > a.meta.EventFloor {
				return nil // its event has it
			}
			return a.saveLive(p, r)
		})
	}
	err := a.writes.deleteRange(start, end) // of their versions, those let go fall to trimOlder
	start = listPrefix(spaceHold, root)
	return errors.Join(err, a.each(start, prefixEnd(start), func(k, v []byte) error {
		var h hold
		err := errors.Join(decodeHold(v, &h), a.writes.delete(k))
		if h.letGo {
			err = errors.Join(err, a.writes.delete(versionKey(root, Revision(binary.BigEndian.Uint64(k[len(k)-8:])))))
		}
		return err
	}))
}

// saveLive writes the version of the live body at p, if it is that of r.
func (a *applier) saveLive(p Path, r Revision) error {
	at, found, err := readIndex(a.writes, p)
	if err != nil || !found || at.Revision != r || at.Deleted {
		return err
	}
	o := Object{Path: p, LastModified: at.LastModified}
	v, found, err := a.get(objectKey(p.List(), at.LastModified, p.ID()))
	if err == nil && !found {
		err = fmt.Errorf("%w: %s has an index entry and no row", ErrCorrupt, p)
	}
	if err == nil {
		err = decodeObject(v, &o)
	}
	if err != nil {
		return err
	}
	return a.set(versionKey(p, r), encodeVersion(&o))
}
