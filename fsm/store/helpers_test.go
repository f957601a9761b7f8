package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

const testDir = "state"

// testOptions keep memory small, so that many stores fit into one test.
func testOptions(fs vfs.FS, dir string) Options {
	return Options{FS: fs, Dir: dir, CacheBytes: 1 << 20, MemTableBytes: 256 << 10}
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func entryKey(i uint64) []byte { return binary.BigEndian.AppendUint64([]byte("e"), i) }

// apply writes the effects of entries from..to as a state machine would: the
// effect and the applied index in one batch.
func apply(t testing.TB, s *Store, from, to uint64, tag string) {
	t.Helper()
	h := s.Acquire()
	defer h.Release()
	for i := from; i <= to; i++ {
		check(t, applyOne(s, h.DB(), i, tag))
	}
}

func applyOne(s *Store, db *pebble.DB, i uint64, tag string) error {
	b := db.NewBatch()
	defer b.Close()
	if err := b.Set(entryKey(i), fmt.Appendf(nil, "%s-%d", tag, i), nil); err != nil {
		return err
	}
	if err := b.Set(s.AppliedKey(), binary.BigEndian.AppendUint64(nil, i), nil); err != nil {
		return err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	s.NoteApplied(i)
	return nil
}

// entries returns "value value …" of all entries in the live database.
func entries(t testing.TB, s *Store) string {
	t.Helper()
	h := s.Acquire()
	defer h.Release()
	return dbEntries(t, h.DB())
}

func dbEntries(t testing.TB, db *pebble.DB) string {
	t.Helper()
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte("e"), UpperBound: []byte("f")})
	check(t, err)
	defer it.Close()
	var out []string
	for it.First(); it.Valid(); it.Next() {
		out = append(out, string(it.Value()))
	}
	return strings.Join(out, " ")
}

// want is what entries returns after apply(from, to, tag).
func want(from, to uint64, tag string) string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf("%s-%d", tag, i))
	}
	return strings.Join(out, " ")
}

func config() raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: "n1", Address: "127.0.0.1:7001"}}}
}

func create(t testing.TB, s *Store, index, term uint64) raft.SnapshotSink {
	t.Helper()
	sink, err := s.Snapshots().Create(1, index, term, config(), 1, nil)
	check(t, err)
	return sink
}

// snapshot takes a local snapshot as raft does.
func snapshot(t testing.TB, s *Store, index, term uint64) {
	t.Helper()
	h := s.Acquire()
	defer h.Release()
	sink := create(t, s, index, term)
	check(t, s.Persist(h, sink))
	check(t, sink.Close())
}

// stream returns the current snapshot of s as bytes.
func stream(t testing.TB, s *Store) (raft.SnapshotMeta, []byte) {
	t.Helper()
	meta, rc, err := s.Snapshots().Open("any")
	check(t, err)
	data, err := io.ReadAll(rc)
	check(t, err)
	check(t, rc.Close())
	if int64(len(data)) != meta.Size {
		t.Fatalf("stream of %d bytes, announced %d", len(data), meta.Size)
	}
	return *meta, data
}

// receive puts a stream into s as raft does, up to Restore.
func receive(t testing.TB, s *Store, index, term uint64, data []byte) (string, error) {
	t.Helper()
	sink := create(t, s, index, term)
	if _, err := io.Copy(sink, bytes.NewReader(data)); err != nil {
		_ = sink.Cancel()
		return "", err
	}
	return sink.ID(), sink.Close()
}

// wrapped is a reader as raft hands it to FSM.Restore.
type wrapped struct{ io.ReadCloser }

func (w wrapped) WrappedReadCloser() io.ReadCloser { return w.ReadCloser }

// restore is receive, then what raft and FSM.Restore do.
func restore(t testing.TB, s *Store, index, term uint64, data []byte) error {
	t.Helper()
	id, err := receive(t, s, index, term, data)
	if err != nil {
		return err
	}
	_, rc, err := s.Snapshots().Open(id)
	if err != nil {
		return err
	}
	defer rc.Close()
	return s.Install(wrapped{rc}, func(*Handle) error { return nil })
}

// source makes a leader with entries 1..n tagged "new" and a snapshot at n, term 2.
func newSource(t testing.TB, n uint64) *Store {
	t.Helper()
	s := mustOpen(t, testOptions(vfs.NewMem(), "leader"))
	apply(t, s, 1, n, "new")
	snapshot(t, s, n, 2)
	return s
}

// names lists the directory without its lock, sorted.
func names(t testing.TB, fs vfs.FS, dir string) string {
	t.Helper()
	list, err := fs.List(dir)
	check(t, err)
	list = slices.DeleteFunc(list, func(n string) bool { return n == lockName })
	slices.Sort(list)
	return strings.Join(list, " ")
}
