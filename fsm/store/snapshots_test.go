package store

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

func listed(t testing.TB, s *Store) uint64 {
	t.Helper()
	metas, err := s.Snapshots().List()
	check(t, err)
	if len(metas) == 0 {
		return 0
	}
	return metas[0].Index
}

func TestLocalSnapshotRules(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs, testDir))
	if _, _, err := s.Snapshots().Open("x"); !errors.Is(err, ErrNoSnapshot) {
		t.Fatal(err)
	}
	apply(t, s, 1, 20, "a")
	h := s.Acquire()
	defer h.Release()

	early := create(t, s, 10, 1)
	if got := names(t, fs, testDir); got != "CURRENT db-1" {
		t.Fatalf("Create made a file: %s", got)
	}
	check(t, s.Persist(h, early))
	if listed(t, s) != 0 {
		t.Fatal("listed before Close")
	}
	late := create(t, s, 15, 1)
	check(t, s.Persist(h, late))
	check(t, late.Close())
	check(t, late.Close())
	check(t, late.Cancel())
	if listed(t, s) != 15 {
		t.Fatal(listed(t, s))
	}
	if err := early.Close(); !errors.Is(err, ErrOldSnapshot) {
		t.Fatalf("a lower index was accepted: %v", err)
	}
	if err := s.Persist(h, create(t, s, 14, 1)); !errors.Is(err, ErrOldSnapshot) {
		t.Fatal(err)
	}
	before, _ := s.SnapshotMeta()
	snapshot(t, s, 15, 1) // the same index: nothing to do, no error
	if after, _ := s.SnapshotMeta(); after.ID != before.ID {
		t.Fatal("the same index wrote a new snapshot")
	}
}

func TestSinkMisuse(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs, testDir))
	h := s.Acquire()
	defer h.Release()

	if err := create(t, s, 1, 1).Close(); !errors.Is(err, ErrSink) {
		t.Fatalf("neither persisted nor written: %v", err)
	}
	local := create(t, s, 1, 1)
	check(t, s.Persist(h, local))
	if _, err := local.Write([]byte("x")); !errors.Is(err, ErrSink) {
		t.Fatal(err)
	}
	check(t, local.Cancel())
	check(t, local.Cancel())
	check(t, local.Close())
	if listed(t, s) != 0 {
		t.Fatal("a cancelled snapshot is listed")
	}
	remote := create(t, s, 2, 1)
	_, err := remote.Write([]byte("x"))
	check(t, err)
	if err := s.Persist(h, remote); !errors.Is(err, ErrSink) {
		t.Fatal(err)
	}
	check(t, remote.Cancel())
	check(t, remote.Cancel())
	if got := names(t, fs, testDir); got != "CURRENT db-1" {
		t.Fatalf("cancel left files: %s", got)
	}
	if err := s.Persist(h, &raft.DiscardSnapshotSink{}); !errors.Is(err, ErrForeign) {
		t.Fatal(err)
	}
	if _, err := s.Snapshots().Create(0, 1, 1, config(), 1, nil); err == nil {
		t.Fatal("version 0 accepted")
	}
	if _, err := s.Snapshots().Create(1, 0, 1, config(), 1, nil); !errors.Is(err, ErrSink) {
		t.Fatal(err)
	}
}

// TestReceivedSnapshotIsNotListed protects acknowledged writes: raft takes a
// listed snapshot as applied.
func TestReceivedSnapshotIsNotListed(t *testing.T) {
	_, data := stream(t, newSource(t, 10))
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs, testDir))
	apply(t, s, 1, 3, "old")
	id, err := receive(t, s, 10, 2, data)
	check(t, err)
	if listed(t, s) != 0 {
		t.Fatal("listed before it is installed")
	}
	meta, rc, err := s.Snapshots().Open(id)
	check(t, err)
	got, err := io.ReadAll(rc)
	check(t, err)
	check(t, rc.Close())
	if meta.Index != 10 || meta.Size != int64(len(data)) || !bytes.Equal(got, data) {
		t.Fatal("the received stream differs")
	}
	// A second one replaces the first; a restart forgets both.
	id2, err := receive(t, s, 10, 2, data)
	check(t, err)
	if got := names(t, fs, testDir); got != "CURRENT db-1 "+id2 {
		t.Fatal(got)
	}
	mustClose(t, s)
	s = mustOpen(t, testOptions(fs, testDir))
	if got := names(t, fs, testDir); got != "CURRENT db-1" || listed(t, s) != 0 {
		t.Fatal(got)
	}
}

func TestOpenOfAnyIDGivesTheCurrentSnapshot(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs, testDir))
	apply(t, s, 1, 5, "a")
	snapshot(t, s, 5, 1)
	old, _ := s.SnapshotMeta()
	apply(t, s, 6, 9, "a")
	snapshot(t, s, 9, 1)
	meta, rc, err := s.Snapshots().Open(old.ID)
	check(t, err)
	if meta.Index != 9 {
		t.Fatal(meta.Index)
	}
	if !strings.Contains(names(t, fs, testDir), ckptPrefix) {
		t.Fatal("no checkpoint")
	}
	data, err := io.ReadAll(rc)
	check(t, err)
	if int64(len(data)) != meta.Size {
		t.Fatalf("%d bytes, announced %d", len(data), meta.Size)
	}
	check(t, rc.Close())
	check(t, rc.Close())
	if _, err := rc.Read(data); err == nil {
		t.Fatal("read after close")
	}
	if got := names(t, fs, testDir); got != "CURRENT db-1" {
		t.Fatalf("the checkpoint stayed: %s", got)
	}
}

func TestReturnedMetadataIsACopy(t *testing.T) {
	s := newSource(t, 5)
	metas, err := s.Snapshots().List()
	check(t, err)
	metas[0].Index, metas[0].Configuration.Servers[0].ID = 99, "other"
	if meta, _ := s.SnapshotMeta(); meta.Index != 5 || meta.Configuration.Servers[0].ID != "n1" {
		t.Fatalf("%+v", meta)
	}
}

// TestStreamWhileWriting: a checkpoint taken under load is whole, and at least
// at the snapshot's index.
func TestStreamWhileWriting(t *testing.T) {
	s := newSource(t, 5)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		h := s.Acquire()
		defer h.Release()
		for i := uint64(6); ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := applyOne(s, h.DB(), i, strings.Repeat("x", 500)); err != nil {
				done <- err
				return
			}
			if i%2000 == 0 {
				if _, err := h.DB().AsyncFlush(); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for range 5 {
		_, data := stream(t, s)
		f := mustOpen(t, testOptions(vfs.NewMem(), testDir))
		check(t, restore(t, f, 5, 2, data))
		h := f.Acquire()
		if v, closer, err := h.DB().Get(entryKey(5)); err != nil || string(v) != "new-5" {
			t.Fatal(string(v), err)
		} else {
			check(t, closer.Close())
		}
		if n, err := readIndex(h.DB(), appliedKey); err != nil || n != f.Applied() {
			t.Fatal(n, f.Applied(), err)
		}
		if _, _, err := h.DB().Get(entryKey(f.Applied() + 1)); !errors.Is(err, pebble.ErrNotFound) {
			t.Fatal("the state is ahead of its applied index")
		}
		h.Release()
	}
	close(stop)
	check(t, <-done)
}
