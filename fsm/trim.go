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
// The body of revision r stands in the event r as long as that is retained.
// What else refers to it may live longer: the event that replaced it, and
// entries. For them trim saves it as a version, unless it is live and stands in
// its list anyway. A version goes with the event that replaced it. What a
// cascade took along has no replacing event of its own and goes with the
// cascade's. What an entry holds stays until the entry goes (letGo).
func (a *applier) trim(floor Revision) error {
	limit, err := trimLimit(a.writes, &a.meta)
	if err != nil {
		return err
	}
	floor = min(floor, limit, a.meta.Revision)
	if floor <= a.meta.EventFloor {
		return nil
	}
	going, err := a.passing(floor)
	for i := range going.events {
		err = errors.Join(err, a.trimVersions(&going.events[i], going))
	}
	a.meta.EventCount -= uint64(len(going.events))
	a.meta.EventFloor = floor
	return err
}

// version names a body.
type version struct {
	path Path
	at   Revision
}

// passing are the events that one trim drops, and what they say of bodies.
type passing struct {
	events   []Event
	replaced map[version]struct{} // bodies whose replacing event goes too
	trees    map[Path]Revision    // the last cascade of a root; of a flush: ""
}

// passing reads the events up to floor, without the bodies.
func (a *applier) passing(floor Revision) (*passing, error) {
	p := &passing{replaced: map[version]struct{}{}, trees: map[Path]Revision{}}
	it, err := a.writes.newIter(keyNumber(spaceEvent, 0), keyNumber(spaceEvent, uint64(floor)+1))
	if err != nil {
		return p, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		e := Event{Revision: Revision(binary.BigEndian.Uint64(it.Key()[1:]))}
		row, _, err := splitEvent(it.Value())
		if err == nil {
			err = decodeEvent(bytes.Clone(row), &e)
		}
		if err != nil {
			return p, errors.Join(err, it.Close())
		}
		p.add(&e)
	}
	return p, it.Close()
}

func (p *passing) add(e *Event) {
	p.events = append(p.events, *e)
	if e.OldRevision != 0 {
		p.replaced[version{e.Path, e.OldRevision}] = struct{}{}
	}
	if e.Action == ActionDeleteTree || e.Action == ActionFlush {
		p.trees[e.Path] = e.Revision
	}
}

// needless reports that no event that stays can refer to the body of e.
func (p *passing) needless(e *Event) bool {
	if _, ok := p.replaced[version{e.Path, e.Revision}]; ok || p.trees[""] > e.Revision {
		return true
	}
	for root := e.Path.Parent(); root != ""; root = root.Parent() {
		if p.trees[root] > e.Revision {
			return true
		}
	}
	return false
}

func (a *applier) trimVersions(e *Event, going *passing) error {
	k := keyNumber(spaceEvent, uint64(e.Revision))
	if err := errors.Join(a.saveTrimmed(e, k, going), a.writes.delete(k)); err != nil {
		return err
	}
	if e.OldRevision != 0 {
		if err := a.letGo(e.Path, e.OldRevision); err != nil {
			return err
		}
	}
	if e.Action == ActionDeleteTree || e.Action == ActionFlush {
		return a.trimOlder(e)
	}
	return nil
}

// saveTrimmed makes a version of the body of the event e at k, which goes, if it
// is needed and stands nowhere else.
func (a *applier) saveTrimmed(e *Event, k []byte, going *passing) error {
	if !e.hasBody() {
		return nil
	}
	at, _, err := a.index(e.Path)
	if err != nil || at.Revision == e.Revision {
		return err
	}
	if going.needless(e) {
		if _, held, err := a.readHold(&Ref{Path: e.Path, Revision: e.Revision}); err != nil || !held {
			return err
		}
	}
	row, _, err := a.get(k)
	if err != nil {
		return err
	}
	_, o, err := decodeEventBody(row, e.Revision)
	if err != nil {
		return err
	}
	return a.set(versionKey(o.Path, o.Revision), encodeVersion(&o))
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
	stored, err := readRemembered(r, m.RequestFirst)
	if stored == nil || err != nil {
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
