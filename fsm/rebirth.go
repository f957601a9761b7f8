package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// StateInfo says where a state stands.
type StateInfo struct {
	ClusterID    string
	Revision     Revision
	Index, Term  uint64    // of the last entry of the log in it
	Clock        Timestamp // of the newest write in it, ms
	FeatureLevel uint32
	StateHash    [sha256.Size]byte // rolling, over all that was applied
}

// Inspect reads where the state in r stands. ErrCorrupt or ErrUnknownType, as
// Open.
func Inspect(r pebble.Reader) (StateInfo, error) {
	m, err := readMeta(r)
	return StateInfo{
		ClusterID: m.ClusterID, Revision: m.Revision, Index: m.Index, Term: m.Term, Clock: m.Clock,
		FeatureLevel: m.FeatureLevel, StateHash: m.StateHash,
	}, err
}

// Rebirth turns the state of a backup into the first state of a new cluster.
type Rebirth struct {
	ClusterID   string // new
	Index, Term uint64 // the place in the new log that the state stands for
	// Above: revisions begin above this one too, not only above the backup's. It
	// keeps a second restore of one backup apart from the first.
	Above Revision
	// Raise, unless 0, lifts the timestamp of each list above itself and above
	// Raise, so that no list shows a time that the lost life may have shown.
	Raise Timestamp
	// At is the time of the restore.
	At Timestamp
	// Forget are prefixes of replicated settings that belong to the old nodes.
	Forget []string
}

// rebirthBatch bounds the memory of a rewrite, in bytes.
const rebirthBatch = 4 << 20

// Apply rewrites the state in db, which nobody else uses, and returns where it
// stands now. Writes are not flushed. ErrCorrupt: there is no state in it.
func (r *Rebirth) Apply(db *pebble.DB) (StateInfo, error) {
	m, err := readMeta(db)
	if err == nil && m.ClusterID == "" {
		err = fmt.Errorf("%w: the state belongs to no cluster", ErrCorrupt)
	}
	if err != nil {
		return StateInfo{}, err
	}
	life := Life{Last: m.Revision, From: m.ClusterID, At: r.At}
	life.Next = (max(m.Revision, r.Above)/LifeStep + 1) * LifeStep
	seen := append([]byte("quinto restore"), m.StateHash[:]...)
	seen = binary.BigEndian.AppendUint64(append(seen, r.ClusterID...), uint64(life.Next))
	m.ClusterID, m.Revision, m.Index, m.Term = r.ClusterID, life.Next, r.Index, r.Term
	m.StateHash = sha256.Sum256(seen)
	b := db.NewBatch()
	defer func() { _ = b.Close() }() // committed or dropped
	err = errors.Join(
		b.Set(metaKey(), encodeMeta(&m), nil),
		b.Set(entryKey(), encodeEntry(m.Index, m.Term), nil),
		b.Set(key(spaceSetting, lifeName(life.Next)), encodeLife(&life), nil))
	for _, prefix := range r.Forget {
		start := key(spaceSetting, prefix)
		err = errors.Join(err, b.DeleteRange(start, prefixEnd(start), nil))
	}
	if err = errors.Join(err, b.Commit(pebble.NoSync)); err != nil {
		return StateInfo{}, err
	}
	if r.Raise > 0 {
		if err := r.raise(db); err != nil {
			return StateInfo{}, err
		}
	}
	return Inspect(db)
}

// raise lifts the timestamps of all lists.
func (r *Rebirth) raise(db *pebble.DB) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceList}, UpperBound: []byte{spaceList + 1}})
	if err != nil {
		return err
	}
	b := db.NewBatch()
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var l ListInfo
		if err = decodeList(it.Value(), &l); err != nil {
			break
		}
		l.Timestamp = max(l.Timestamp, r.Raise) + 1
		err = b.Set(it.Key(), encodeList(&l), nil)
		if err == nil && b.Len() > rebirthBatch {
			err = errors.Join(b.Commit(pebble.NoSync), b.Close())
			b = db.NewBatch()
		}
	}
	if err = errors.Join(err, it.Close()); err == nil {
		err = b.Commit(pebble.NoSync)
	}
	return errors.Join(err, b.Close())
}

// CheckRows reads every row of the state in r, so that a block that fails its
// checksum is found, and returns how many there are.
func CheckRows(r pebble.Reader) (rows int64, err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceObject}, UpperBound: []byte{spaceEnd}})
	if err != nil {
		return 0, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if _, err := it.ValueAndErr(); err != nil {
			return rows, errors.Join(err, it.Close())
		}
		rows++
	}
	return rows, errors.Join(it.Error(), it.Close())
}
