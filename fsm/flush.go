package fsm

import (
	"errors"
	"strings"
)

// flush removes every object, tombstone, list and membership, of any number, in
// one revision with one event (Kinto's POST /__flush__). What is not the
// clients' stays: cluster, cursors, remembered requests, settings but those that
// the op names, and, until they are trimmed, the events before it with their
// bodies. Root lists keep a timestamp that goes on rising, so that whoever
// shows an old one is told that there is something new.
func (a *applier) flush(t *Txn, i int) error {
	roots, err := a.rootLists()
	if err != nil {
		return err
	}
	a.meta.Revision++
	r := a.meta.Revision
	a.forget = true
	err = a.each([]byte{spaceMembers}, []byte{spaceMembers + 1}, func(_, v []byte) error {
		members, err := decodeMembers(v)
		for _, m := range members {
			err = errors.Join(err, a.touchMember(m, r))
		}
		return err
	})
	for _, space := range []byte{spaceObject, spaceIndex, spaceList, spaceMember, spaceMembers, spaceHold, spaceGrant} {
		err = errors.Join(err, a.writes.deleteRange([]byte{space}, []byte{space + 1}))
	}
	for _, prefix := range t.Ops[i].Members {
		start := key(spaceSetting, prefix)
		err = errors.Join(err, a.writes.deleteRange(start, prefixEnd(start)))
	}
	clear(a.known)
	clear(a.lists)
	for p, l := range roots {
		if l = l.flushed(t.Now); l != (ListInfo{}) {
			l.Revision = r
			a.lists[p] = &l
		}
	}
	return errors.Join(err, a.event(t, i, &Object{Revision: r, LastModified: t.Now}, &Object{}, Event{Action: ActionFlush}))
}

// flushed is what a flush leaves of a root list; a list that was never touched
// stays so.
func (l ListInfo) flushed(now Timestamp) ListInfo {
	if l.Timestamp == 0 && l.Revision == 0 {
		return ListInfo{}
	}
	return ListInfo{Timestamp: max(now, l.Timestamp+1)}
}

// rootLists reads the lists that no object holds. The others, of which there may
// be any number, are jumped over.
func (a *applier) rootLists() (map[Path]ListInfo, error) {
	roots := map[Path]ListInfo{}
	it, err := a.writes.newIter([]byte{spaceList}, []byte{spaceList + 1})
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok; {
		p := Path(it.Key()[1:])
		if root, _, below := strings.Cut(string(p[1:]), "/"); below {
			ok = it.SeekGE(prefixEnd(key(spaceList, "/"+root+"/")))
			continue
		}
		var l ListInfo
		if err := decodeList(it.Value(), &l); err != nil {
			return nil, errors.Join(err, it.Close())
		}
		roots[p] = l
		ok = it.Next()
	}
	for p, l := range a.lists { // not written yet
		if p.Depth() == 1 {
			roots[p] = *l
		}
	}
	return roots, it.Close()
}
