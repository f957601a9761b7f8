package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"
)

func TestReopenKeepsSnapshottedState(t *testing.T) {
	for name, open := range map[string]func() (vfs.FS, string){
		"memory": func() (vfs.FS, string) { return vfs.NewMem(), "deep/state" },
		"disk":   func() (vfs.FS, string) { return nil, filepath.Join(t.TempDir(), "deep", "state") },
	} {
		t.Run(name, func(t *testing.T) {
			fs, dir := open()
			s := mustOpen(t, testOptions(fs, dir))
			apply(t, s, 1, 10, "a")
			snapshot(t, s, 10, 1)
			mustClose(t, s)
			s = mustOpen(t, testOptions(fs, dir))
			if got := entries(t, s); got != want(1, 10, "a") {
				t.Fatal(got)
			}
			if s.Applied() != 10 {
				t.Fatal(s.Applied())
			}
			if meta, ok := s.SnapshotMeta(); !ok || meta.Index != 10 || meta.Term != 1 {
				t.Fatal(meta, ok)
			}
		})
	}
}

// TestAppliedCountsEntriesTheStateNeverSees protects the floor key: a snapshot
// index may belong to a no-op, above the last applied command.
func TestAppliedCountsEntriesTheStateNeverSees(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs, testDir))
	apply(t, s, 1, 10, "a")
	snapshot(t, s, 12, 1)
	if s.Applied() != 10 {
		t.Fatal(s.Applied())
	}
	mustClose(t, s)
	s = mustOpen(t, testOptions(fs, testDir))
	if s.Applied() != 12 {
		t.Fatalf("applied %d: a wait for entry 12 would never end", s.Applied())
	}
}

// TestPersistWithoutFlushIsCaught is the control: a snapshot whose data was
// never made durable must stop the next start.
func TestPersistWithoutFlushIsCaught(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs, testDir))
	apply(t, s, 1, 5, "a")
	snapshot(t, s, 5, 1)
	apply(t, s, 6, 10, "a")
	h := s.Acquire()
	sink := create(t, s, 10, 1)
	check(t, sink.(*snapshotSink).markLocal(h.n)) // what Persist does, less the flush
	check(t, sink.Close())
	h.Release()
	mustClose(t, s)
	_, err := Open(testOptions(fs, testDir))
	if !errors.Is(err, ErrStateBehind) || !strings.Contains(err.Error(), "state 5, snapshot 10") {
		t.Fatal(err)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"memory": testOptions(vfs.NewMem(), testDir),
		"disk":   testOptions(nil, t.TempDir()),
	} {
		s := mustOpen(t, o)
		_, err := Open(o)
		if !errors.Is(err, ErrLocked) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%s: %v", name, err)
		}
		mustClose(t, s)
		mustClose(t, mustOpen(t, o))
	}
}

// readOnlyFS answers Lock as the system does where files cannot be created.
type readOnlyFS struct{ *vfs.MemFS }

func (readOnlyFS) Lock(name string) (io.Closer, error) {
	return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EACCES}
}

func TestUnusableDirectoryGivesOneLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, nil, 0o600))
	for _, o := range []Options{testOptions(nil, file), testOptions(nil, filepath.Join(file, "x")), testOptions(readOnlyFS{vfs.NewMem()}, testDir)} {
		_, err := Open(o)
		if err == nil || errors.Is(err, ErrLocked) || strings.Contains(err.Error(), "\n") ||
			!strings.Contains(err.Error(), "data directory") {
			t.Fatalf("%v", err)
		}
	}
}

func TestSweepKeepsForeignFiles(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs, testDir))
	mustClose(t, s)
	for _, d := range []string{"db-2", "db-17", "ckpt-1", "db-old"} {
		check(t, fs.MkdirAll(testDir+"/"+d, 0o755))
		check(t, writeFile(fs, testDir+"/"+d+"/f", []byte("x")))
	}
	for _, f := range []string{"incoming-1-2-3", currentTemp, "notes.txt"} {
		check(t, writeFile(fs, testDir+"/"+f, []byte("x")))
	}
	mustOpen(t, testOptions(fs, testDir))
	if got := names(t, fs, testDir); got != "CURRENT db-1 db-old notes.txt" {
		t.Fatal(got)
	}
}

func TestReservedKeyOfWrongLengthIsDamage(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem(), testDir))
	h := s.Acquire()
	defer h.Release()
	check(t, h.DB().Set([]byte(appliedKey), []byte("x"), pebble.NoSync))
	if _, err := checkState(h.DB(), 0); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

// TestFlushTimeout protects the promise that a full disk gives an error instead
// of a snapshot thread that hangs unseen, and that all goes on by itself after.
func TestFlushTimeout(t *testing.T) {
	var full errorfs.Toggle
	full.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	})
	var events atomic.Int64
	o := testOptions(errorfs.Wrap(vfs.NewMem(), &full), testDir)
	o.FlushTimeout = 100 * time.Millisecond
	o.OnEvent = func(e Event) {
		if e.Kind == EventBackgroundError && errors.Is(e.Err, syscall.ENOSPC) {
			events.Add(1)
		}
	}
	s := mustOpen(t, o)
	apply(t, s, 1, 10, "a")
	full.On()
	h := s.Acquire()
	for range 2 { // the second must not pile up behind the first
		sink := create(t, s, 10, 1)
		if err := s.Persist(h, sink); !errors.Is(err, ErrFlushTimeout) {
			t.Fatal(err)
		}
		check(t, sink.Cancel())
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; events.Load() == 0 && i < 6000; i++ {
		time.Sleep(10 * time.Millisecond)
	}
	if events.Load() == 0 || !s.Stats().FlushPending {
		t.Fatal("the watchdog was not told")
	}
	if _, ok := s.SnapshotMeta(); ok {
		t.Fatal("a snapshot that is not durable was recorded")
	}
	full.Off()
	h.Release()
	for i := 0; s.Stats().FlushPending && i < 3000; i++ {
		time.Sleep(20 * time.Millisecond)
	}
	snapshot(t, s, 10, 1)
}

func TestCloseWaitsForHandlesAndLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := mustOpen(t, testOptions(vfs.NewMem(), testDir))
	h := s.Acquire()
	go func() {
		time.Sleep(30 * time.Millisecond)
		h.Release()
	}()
	mustClose(t, s)
	select {
	case <-h.done:
	default:
		t.Fatal("closed below its user")
	}
	if s.Acquire() != nil || s.Stats() != (Stats{}) {
		t.Fatal("acquired after close")
	}
	if err := s.Install(nil, nil); !errors.Is(err, ErrForeign) {
		t.Fatal(err)
	}
}

func TestMisusedHandlePanics(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem(), testDir))
	h := s.Acquire()
	h.Release()
	mustClose(t, s)
	for name, f := range map[string]func(){"Release": h.Release, "Retain": func() { h.Retain() }} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s of a released handle went through", name)
				}
			}()
			f()
		}()
	}
}

func TestStats(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, testOptions(nil, dir))
	apply(t, s, 1, 10, "a")
	snapshot(t, s, 9, 1)
	st := s.Stats()
	if st.Applied != 10 || st.SnapshotIndex != 9 || st.Handles != 1 || st.DiskBytes == 0 {
		t.Fatalf("%+v", st)
	}
	if u, err := s.DiskUsage(); err != nil || u.AvailBytes == 0 {
		t.Fatal(u, err)
	}
}
