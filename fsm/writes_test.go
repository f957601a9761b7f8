package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func openMem(t *testing.T) *pebble.DB {
	t.Helper()
	db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), DisableWAL: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func contents(t *testing.T, r interface {
	NewIter(*pebble.IterOptions) (*pebble.Iterator, error)
}) string {
	t.Helper()
	it, err := r.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(&out, "%s=%s ", it.Key(), it.Value())
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestWritesAreABatch does the same to writes and to an indexed batch: what is
// read meanwhile and what is there in the end must be the same.
func TestWritesAreABatch(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	a, b := openMem(t), openMem(t)
	w := newWrites()
	for range 300 {
		w.begin(a)
		batch := b.NewIndexedBatch()
		ranges := r.Intn(3) == 0
		for i := range r.Intn(40) {
			k, v := []byte(fmt.Sprint(r.Intn(30))), []byte(fmt.Sprint(i))
			switch n := r.Intn(20); {
			case n < 10:
				must(t, w.set(k, v), batch.Set(k, v, nil))
			case n < 14:
				must(t, w.delete(k), batch.Delete(k, nil))
			case n < 15 && ranges:
				must(t, w.deleteRange(k, []byte("3")), batch.DeleteRange(k, []byte("3"), nil))
			case n < 16 && ranges:
				it, err := w.newIter([]byte("0"), []byte("9"))
				must(t, err)
				must(t, it.Close())
			case n < 17 && i > 0: // as if another key had the same hash
				w.collide([]byte(fmt.Sprint(r.Intn(30))), k)
			}
			got, want := read(t, w, k), read(t, batch, k)
			if got != want {
				t.Fatalf("%s reads %q, want %q", k, got, want)
			}
		}
		must(t, w.commit(), batch.Commit(pebble.NoSync), batch.Close())
		w.close()
		if got, want := contents(t, a), contents(t, b); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

// collide makes k find the row of other.
func (w *writes) collide(other, k []byte) {
	h := xxhash.Sum64(k)
	if _, taken := w.at[h]; !taken && w.batch == nil {
		if i, ok := w.at[xxhash.Sum64(other)]; ok {
			w.at[h] = i
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, r interface {
	Get([]byte) ([]byte, io.Closer, error)
}, k []byte) string {
	t.Helper()
	v, found, err := readCopy(r, k)
	must(t, err)
	return fmt.Sprint(found, string(v))
}

// TestSeenForgetsNothing adds and forgets ids as the window does: one that is
// remembered is never called fresh, and hardly one that is not is called seen.
func TestSeenForgetsNothing(t *testing.T) {
	const first = 1000
	m := meta{RequestFirst: first - 10, RequestNext: first}
	s := newSeen(&m)
	id := func(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 8, 16), n*0x9e3779b97f4a7c15) }
	if s.fresh(&m, id(1)) {
		t.Fatal("an id is called fresh while older ones than known are remembered")
	}
	m.RequestFirst = first
	wrong := 0
	for n := uint64(first); n < first+3*seenIDs; n++ {
		if !s.fresh(&m, id(n)) {
			wrong++
		}
		s.add(&m, id(n))
		if m.RequestNext++; m.RequestNext-m.RequestFirst > seenIDs/2 {
			m.RequestFirst++
		}
		if old := m.RequestFirst + n%(m.RequestNext-m.RequestFirst); s.fresh(&m, id(old)) {
			t.Fatalf("id %d is called fresh, %d to %d are remembered", old, m.RequestFirst, m.RequestNext)
		}
	}
	if wrong > 3*seenIDs/100 {
		t.Errorf("%d of %d fresh ids are called seen", wrong, 3*seenIDs)
	}
	if len(s.gens) > 2 {
		t.Errorf("%d generations are kept", len(s.gens))
	}
}
