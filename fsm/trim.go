package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// trim drops events at or below floor with the versions that nothing retained
// refers to. The floor never passes the oldest remembered request: its answer
// is rendered from versions.
//
// A version (path, revision) is referred to by the event that made it and by
// the one that replaced it. So it goes with the event that replaced it, or, as
// long as it is live and its body stands in the list anyway, with its own.
// What a cascade took along has no replacing event of its own and goes with
// the cascade's. What an entry holds stays until the entry goes (letGo).
func (a *applier) trim(floor Revision) error {
	limit, err := trimLimit(a.writes, &a.meta)
	if err != nil {
		return err
	}
	floor = min(floor, limit, a.meta.Revision)
	if floor <= a.meta.EventFloor {
		return nil
	}
	start, end := keyNumber(spaceEvent, 0), keyNumber(spaceEvent, uint64(floor)+1)
	err = a.each(start, end, func(k, v []byte) error {
		e := Event{Revision: Revision(binary.BigEndian.Uint64(k[1:]))}
		if err := decodeEvent(v, &e); err != nil {
			return err
		}
		a.meta.EventCount--
		return errors.Join(a.writes.delete(k), a.trimVersions(&e))
	})
	a.meta.EventFloor = floor
	return err
}

func (a *applier) trimVersions(e *Event) error {
	if e.OldRevision != 0 {
		if err := a.letGo(e.Path, e.OldRevision); err != nil {
			return err
		}
	}
	if e.Action == ActionDeleteTree || e.Action == ActionFlush {
		return a.trimOlder(e)
	}
	at, _, err := a.index(e.Path)
	if err != nil || at.Revision != e.Revision || at.Deleted {
		return err
	}
	return a.writes.delete(versionKey(e.Path, e.Revision))
}

// trimOlder drops the versions under the root of a cascade, or all of them after
// a flush, that are older than it.
func (a *applier) trimOlder(e *Event) error {
	start, end := treeSpan(spaceVersion, e.Path)
	if e.Action == ActionFlush {
		start, end = []byte{spaceVersion}, []byte{spaceVersion + 1}
	}
	it, err := a.writes.newIter(start, end)
	if err != nil {
		return err
	}
	var older [][]byte // the batch is not changed while it is read
	for ok := it.First(); ok; ok = it.Next() {
		if k := it.Key(); Revision(binary.BigEndian.Uint64(k[len(k)-8:])) < e.Revision {
			older = append(older, bytes.Clone(k))
		}
	}
	err = it.Close()
	for _, k := range older {
		err = errors.Join(err, a.letGo(Path(k[1:len(k)-9]), Revision(binary.BigEndian.Uint64(k[len(k)-8:]))))
	}
	return err
}

// trimLimit returns the highest revision that trim may reach: the request table
// needs everything above it.
func trimLimit(r getter, m *meta) (Revision, error) {
	if m.RequestFirst == m.RequestNext {
		return m.Revision, nil
	}
	v, found, err := readCopy(r, keyNumber(spaceRequests, m.RequestFirst))
	if err != nil || !found || len(v) < 16 {
		return 0, err
	}
	v, found, err = readCopy(r, key(spaceRequest, string(v[16:])))
	if err != nil || !found {
		return 0, err
	}
	var stored StoredRequest
	if err := decodeRequest(v, &stored); err != nil {
		return 0, err
	}
	oldest := stored.Revision
	for _, ref := range stored.Refs {
		if ref.Revision != 0 {
			oldest = min(oldest, ref.Revision)
		}
	}
	return oldest - min(oldest, 1), nil
}
