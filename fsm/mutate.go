package fsm

import (
	"encoding/binary"
	"errors"
	"maps"
)

// put creates or replaces an object.
func (a *applier) put(t *Txn, i int) (Object, error) {
	op := &t.Ops[i]
	var old Object
	var l *ListInfo
	var err error
	if op.Fresh { // 122 random bits: the look into every level of the store was a sixth of a create
		l, err = a.list(op.Path.List())
	} else {
		old, l, err = a.vacate(op.Path)
	}
	if err != nil {
		return Object{}, err
	}
	o := Object{Path: op.Path, Data: op.Data, ACL: op.ACL, Members: op.Members}
	o.LastModified, l.Timestamp = Bump(l.Timestamp, t.Now, op.LastModified, op.HasTime, op.Exact)
	o.Revision = a.next(l)
	e := Event{Action: ActionUpdate, NewACL: o.ACL}
	if !old.Exists() {
		e.Action = ActionCreate
		l.Count++
	}
	err = errors.Join(
		a.grants(o.Path, &old, &o),
		a.place(&o),
		a.members(o.Path, old.Members, o.Members, o.Revision),
		a.event(t, i, &o, &old, e))
	return o, err
}

// remove makes a tombstone of an object; with OpDeleteTree everything under it
// vanishes in the same revision.
func (a *applier) remove(t *Txn, i int) (Object, error) {
	op := &t.Ops[i]
	at, found, err := a.index(op.Path)
	if err != nil {
		return Object{}, err
	}
	imported := op.Type == OpPutTombstone
	if (!found || at.Deleted) && !imported {
		return Object{}, nil
	}
	old, l, err := a.vacate(op.Path)
	if err != nil {
		return Object{}, err
	}
	o := Object{Path: op.Path, Deleted: true}
	o.LastModified, l.Timestamp = Bump(l.Timestamp, t.Now, op.LastModified, op.HasTime, imported || op.Exact)
	o.Revision = a.next(l)
	l.Tombstones++
	if err := errors.Join(a.place(&o), a.members(o.Path, old.Members, nil, o.Revision), a.grants(o.Path, &old, &o)); err != nil {
		return o, err
	}
	if !old.Exists() {
		return o, nil
	}
	l.Count--
	if old.Of != nil {
		return o, nil // of a history no history is kept
	}
	e := Event{Action: ActionDelete}
	if op.Type == OpDeleteTree {
		e.Action = ActionDeleteTree
		if err := a.clearTree(op.Path, o.Revision); err != nil {
			return o, err
		}
	}
	return o, a.event(t, i, &o, &old, e)
}

// next gives the next revision and marks the list as changed by it.
func (a *applier) next(l *ListInfo) Revision {
	a.meta.Revision++
	l.Revision = a.meta.Revision
	return l.Revision
}

// vacate reads what stands at p and takes its row out of the time order, so
// that place can put another there. A live body whose own event was trimmed is
// saved as a version first: the event that replaces it refers to it. An entry
// gives up what it holds.
func (a *applier) vacate(p Path) (old Object, l *ListInfo, err error) {
	if l, err = a.list(p.List()); err != nil {
		return old, l, err
	}
	at, found, err := a.index(p)
	if err != nil || !found {
		return old, l, err
	}
	k := objectKey(p.List(), at.LastModified, p.ID())
	if at.Deleted {
		l.Tombstones--
		return old, l, a.writes.delete(k)
	}
	old.Path, old.LastModified = p, at.LastModified
	v, found, err := a.get(k)
	if err == nil && !found {
		err = errors.Join(ErrCorrupt, errors.New("an index entry without its object"))
	}
	if err == nil {
		err = decodeObject(v, &old)
	}
	switch {
	case err != nil:
	case old.Of != nil:
		err = a.release(old.Of)
	case old.Revision <= a.meta.EventFloor:
		err = a.set(versionKey(p, old.Revision), encodeVersion(&old))
	}
	return old, l, errors.Join(err, a.writes.delete(k))
}

func (a *applier) place(o *Object) error {
	e := indexEntry{LastModified: o.LastModified, Revision: o.Revision, Deleted: o.Deleted}
	a.known[o.Path] = e
	return errors.Join(
		a.set(objectKey(o.Path.List(), o.LastModified, o.Path.ID()), encodeObject(o)),
		a.set(indexKey(o.Path), encodeIndex(e)))
}

func (a *applier) event(t *Txn, i int, o, old *Object, e Event) error {
	e.Path, e.Position, e.RequestID, e.UserID, e.Time = o.Path, i, t.RequestID, t.UserID, t.Now
	e.LastModified, e.Inherited, e.Quiet = o.LastModified, t.Ops[i].Inherited, t.Quiet
	if old.Exists() && old.Of == nil { // an entry has no version to refer to
		e.OldRevision, e.OldLastModified, e.OldACL = old.Revision, old.LastModified, old.ACL
	}
	a.meta.EventCount++
	k := keyNumber(spaceEvent, uint64(o.Revision))
	if e.hasBody() {
		return a.set(k, encodeEventBody(&e, o))
	}
	return a.set(k, encodeEvent(&e))
}

// members keeps the two directions of membership and the revision at which
// each affected principal's groups changed.
func (a *applier) members(p Path, old, now []string, r Revision) error {
	if len(old) == 0 && len(now) == 0 {
		return nil
	}
	for _, m := range old {
		if err := errors.Join(a.writes.delete(memberKey(m, p)), a.touchMember(m, r)); err != nil {
			return err
		}
	}
	for _, m := range now {
		if err := errors.Join(a.set(memberKey(m, p), nil), a.touchMember(m, r)); err != nil {
			return err
		}
	}
	if len(now) == 0 {
		return a.writes.delete(key(spaceMembers, string(p)))
	}
	return a.set(key(spaceMembers, string(p)), encodeMembers(now))
}

func (a *applier) touchMember(m string, r Revision) error {
	a.since[m] = r
	a.touched[m] = struct{}{}
	return a.set(key(spaceMemberAt, m), binary.BigEndian.AppendUint64(nil, uint64(r)))
}

// clearTree removes everything strictly under root, of any size, by ranges.
// Only memberships are visited one by one.
func (a *applier) clearTree(root Path, r Revision) error {
	a.forget = true
	start, end := treeSpan(spaceMembers, root)
	err := a.each(start, end, func(k, v []byte) error {
		members, err := decodeMembers(v)
		if err != nil {
			return err
		}
		for _, m := range members {
			if err := errors.Join(a.writes.delete(memberKey(m, Path(k[1:]))), a.touchMember(m, r)); err != nil {
				return err
			}
		}
		return nil
	})
	err = errors.Join(err, a.clearHolds(root))
	for _, space := range []byte{spaceObject, spaceIndex, spaceList, spaceMembers, spaceGrant} {
		start, end := treeSpan(space, root)
		err = errors.Join(err, a.writes.deleteRange(start, end))
	}
	maps.DeleteFunc(a.lists, func(p Path, _ *ListInfo) bool { return p.Under(root) })
	maps.DeleteFunc(a.known, func(p Path, _ indexEntry) bool { return p.Under(root) })
	return err
}

// each collects the rows of [start, end) before it calls f, since f changes
// the batch that is being read.
func (a *applier) each(start, end []byte, f func(k, v []byte) error) error {
	it, err := a.writes.newIter(start, end)
	if err != nil {
		return err
	}
	type row struct{ k, v []byte }
	var rows []row
	for ok := it.First(); ok; ok = it.Next() {
		rows = append(rows, row{append([]byte(nil), it.Key()...), append([]byte(nil), it.Value()...)})
	}
	if err := it.Close(); err != nil {
		return err
	}
	for _, r := range rows {
		if err := f(r.k, r.v); err != nil {
			return err
		}
	}
	return nil
}

// setListTimestamp creates or raises a list's timestamp, never lowers it.
func (a *applier) setListTimestamp(t *Txn, op *Op) error {
	l, err := a.list(op.Path)
	if err != nil {
		return err
	}
	wish := t.Now
	if op.HasTime {
		wish = op.LastModified
	}
	switch {
	case l.Timestamp == 0 && l.Revision == 0:
		l.Timestamp = wish
		if l.Revision = a.meta.Revision; l.Revision == 0 {
			a.next(l)
		}
	case !op.IfAbsent && wish > l.Timestamp:
		l.Timestamp = wish
		a.next(l)
	}
	return nil
}

// purge drops the tombstones of a list at or below the cutoff and keeps the
// cutoff as the list's floor, so that a reader with an older _since can be told.
func (a *applier) purge(op *Op) error {
	l, err := a.list(op.Path)
	if err != nil || op.LastModified <= l.Floor {
		return err
	}
	a.forget = true
	prefix := listPrefix(spaceObject, op.Path)
	end := prefixEnd(prefix)
	if op.LastModified < 1<<62 {
		end = objectKey(op.Path, op.LastModified+1, "")
	}
	err = a.each(prefix, end, func(k, v []byte) error {
		var o Object
		if err := decodeObject(v, &o); err != nil || !o.Deleted {
			return err
		}
		_, id, _ := splitObjectKey(k, len(prefix))
		l.Tombstones--
		at := op.Path.Child(string(id))
		delete(a.known, at)
		return errors.Join(a.writes.delete(k), a.writes.delete(indexKey(at)))
	})
	l.Floor = op.LastModified
	a.next(l)
	return err
}

func (a *applier) notifier(op *Op) error {
	k := key(spaceNotifier, op.Name)
	v, found, err := a.get(k)
	if err != nil {
		return err
	}
	n := Notifier{Start: a.meta.Revision, Cursor: a.meta.Revision}
	if found {
		if err := decodeNotifier(v, &n); err != nil {
			return err
		}
	}
	switch {
	case op.Type == OpForgetNotifier:
		return a.writes.delete(k)
	case op.Type == OpRegisterNotifier:
		n.Hash = op.Value
	case !found || op.Revision < n.Cursor:
		return nil // an old leader's word, with an old table of lanes
	default:
		n.Cursor = min(op.Revision, a.meta.Revision)
		n.Lanes = op.Lanes
	}
	return a.set(k, encodeNotifier(&n))
}
