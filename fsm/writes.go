package fsm

import (
	"bytes"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
)

// maxKeptWrites bounds the room for rows that is kept from batch to batch.
const maxKeptWrites = 8192

// writes are the rows that some entries write, before they reach the store all
// at once. Each key is kept once, with its last value, and they go into the
// store in the order of keys: its memtable then finds the place of most of them
// beside that of the one before. What reads or drops ranges needs them in an
// indexed batch; from there on it is used for everything.
type writes struct {
	db    *pebble.DB
	rows  []write
	at    map[uint64]int // hash of a key → place in rows
	batch *pebble.Batch  // not nil: has everything, rows are empty
}

// write is a row to be set or deleted. Its bytes are never changed.
type write struct {
	key, value []byte
	gone       bool
}

func newWrites() *writes { return &writes{at: map[uint64]int{}} }

// begin makes w, which is empty, ready for a batch of db.
func (w *writes) begin(db *pebble.DB) *writes {
	w.db = db
	return w
}

// set keeps k and v, which must not be changed afterwards.
func (w *writes) set(k, v []byte) error { return w.keep(write{key: k, value: v}) }

func (w *writes) delete(k []byte) error { return w.keep(write{key: k, gone: true}) }

func (w *writes) keep(r write) error {
	if w.batch == nil {
		h := xxhash.Sum64(r.key)
		i, ok := w.at[h]
		switch {
		case !ok:
			w.at[h] = len(w.rows)
			w.rows = append(w.rows, r)
			return nil
		case bytes.Equal(w.rows[i].key, r.key):
			w.rows[i] = r
			return nil
		}
	}
	b, err := w.indexed()
	if err != nil {
		return err
	}
	if r.gone {
		return b.Delete(r.key, nil)
	}
	return b.Set(r.key, r.value, nil)
}

func (w *writes) deleteRange(start, end []byte) error {
	b, err := w.indexed()
	if err != nil {
		return err
	}
	return b.DeleteRange(start, end, nil)
}

// Get implements getter.
func (w *writes) Get(k []byte) ([]byte, io.Closer, error) {
	if w.batch != nil {
		return w.batch.Get(k)
	}
	i, ok := w.at[xxhash.Sum64(k)]
	switch {
	case !ok || !bytes.Equal(w.rows[i].key, k):
		return w.lookup(k, ok)
	case w.rows[i].gone:
		return nil, nil, pebble.ErrNotFound
	default:
		return w.rows[i].value, nothing{}, nil
	}
}

// lookup reads a row that w has not; if another has its hash, it cannot be told
// without the index.
func (w *writes) lookup(k []byte, taken bool) ([]byte, io.Closer, error) {
	if !taken {
		return w.db.Get(k)
	}
	b, err := w.indexed()
	if err != nil {
		return nil, nil, err
	}
	return b.Get(k)
}

// nothing is the closer of a value that needs none.
type nothing struct{}

// Close implements io.Closer.
func (nothing) Close() error { return nil }

// newIter reads [start, end) with all that was written before it.
func (w *writes) newIter(start, end []byte) (*pebble.Iterator, error) {
	b, err := w.indexed()
	if err != nil {
		return nil, err
	}
	return b.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
}

// indexed moves everything into an indexed batch.
func (w *writes) indexed() (*pebble.Batch, error) {
	if w.batch != nil {
		return w.batch, nil
	}
	w.batch = w.db.NewIndexedBatch()
	return w.batch, w.fill(w.batch)
}

func (w *writes) fill(b *pebble.Batch) error {
	for i := range w.rows {
		r := &w.rows[i]
		var err error
		if r.gone {
			err = b.Delete(r.key, nil)
		} else {
			err = b.Set(r.key, r.value, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// commit brings everything into the store, without a sync.
func (w *writes) commit() error {
	if w.batch == nil {
		slices.SortFunc(w.rows, func(a, b write) int { return bytes.Compare(a.key, b.key) })
		size := 64
		for i := range w.rows {
			size += len(w.rows[i].key) + len(w.rows[i].value) + 8
		}
		w.batch = w.db.NewBatchWithSize(size)
		if err := w.fill(w.batch); err != nil {
			return err
		}
	}
	return w.batch.Commit(pebble.NoSync)
}

// close ends the batch and leaves w empty; after commit it cannot fail.
func (w *writes) close() {
	if w.batch != nil {
		_ = w.batch.Close()
	}
	if cap(w.rows) > maxKeptWrites {
		*w = *newWrites()
		return
	}
	clear(w.rows)
	clear(w.at)
	w.db, w.batch, w.rows = nil, nil, w.rows[:0]
}
