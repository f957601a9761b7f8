package store

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func TestInstallSwapsStateAndSnapshotTogether(t *testing.T) {
	src := newSource(t, 10)
	for name, open := range map[string]func() (vfs.FS, string){
		"memory": func() (vfs.FS, string) { return vfs.NewMem(), testDir },
		"disk":   func() (vfs.FS, string) { return vfs.Default, t.TempDir() },
	} {
		t.Run(name, func(t *testing.T) {
			_, data := stream(t, src)
			fs, dir := open()
			s := mustOpen(t, testOptions(fs, dir))
			apply(t, s, 1, 3, "old")
			check(t, restore(t, s, 10, 2, data))
			for range 2 {
				if got := entries(t, s); got != want(1, 10, "new") {
					t.Fatal(got)
				}
				if meta, _ := s.SnapshotMeta(); meta.Index != 10 || strings.HasPrefix(meta.ID, incomingPrefix) {
					t.Fatal(meta)
				}
				if s.Applied() != 10 || listed(t, s) != 10 {
					t.Fatal(s.Applied(), listed(t, s))
				}
				if got := names(t, fs, dir); got != "CURRENT db-2" {
					t.Fatal(got)
				}
				mustClose(t, s) // the second round looks at what a restart finds
				s = mustOpen(t, testOptions(fs, dir))
			}
			apply(t, s, 11, 12, "new")
			snapshot(t, s, 12, 2)
		})
	}
}

// TestInstallKeepsANewerAppliedIndex: data newer than the snapshot's index
// carries its own index, so that entries sent again are skipped.
func TestInstallKeepsANewerAppliedIndex(t *testing.T) {
	src := newSource(t, 10)
	apply(t, src, 11, 15, "new")
	h := src.Acquire()
	check(t, h.DB().Flush())
	h.Release()
	_, data := stream(t, src)
	s := mustOpen(t, testOptions(vfs.NewMem(), testDir))
	check(t, restore(t, s, 10, 2, data))
	for range 2 { // a node that ends right here has a log that ends before 15
		received, err := s.ReceivedUpTo()
		check(t, err)
		if s.Applied() != 15 || listed(t, s) != 10 || received != 15 {
			t.Fatal(s.Applied(), listed(t, s), received)
		}
		mustClose(t, s)
		s = mustOpen(t, s.opts)
	}
}

// TestBackupOfALongerLog protects writes acknowledged after a restore: with the
// backup's own applied index they would be skipped.
func TestBackupOfALongerLog(t *testing.T) {
	src := newSource(t, 503)
	size, rc, err := src.OpenBackup()
	check(t, err)
	data, err := io.ReadAll(rc)
	check(t, err)
	check(t, rc.Close())
	if int64(len(data)) != size {
		t.Fatal(len(data), size)
	}
	fs := vfs.NewMem()
	o := testOptions(fs, testDir)
	prepared := false
	o.Prepare = func(db *pebble.DB, kind Kind, index, term uint64) error {
		prepared = kind == KindBackup && index == 7 && term == 4
		return db.Set([]byte("cluster"), []byte("other"), pebble.NoSync)
	}
	s := mustOpen(t, o)
	check(t, restore(t, s, 7, 4, data))
	for range 2 {
		h := s.Acquire()
		floor, err := readIndex(h.DB(), floorKey)
		check(t, err)
		v, closer, err := h.DB().Get([]byte("cluster"))
		if err != nil || string(v) != "other" {
			t.Fatal(string(v), err)
		}
		check(t, closer.Close())
		h.Release()
		if s.Applied() != 7 || floor != 7 || !prepared {
			t.Fatal(s.Applied(), floor, prepared)
		}
		mustClose(t, s)
		s = mustOpen(t, o)
	}
	apply(t, s, 8, 10, "later")
	if s.Applied() != 10 {
		t.Fatal(s.Applied())
	}
}

func TestBackupHoldsWhatIsNotFlushed(t *testing.T) {
	src := mustOpen(t, testOptions(vfs.NewMem(), testDir))
	apply(t, src, 1, 4, "a") // only in the memtable, and no snapshot yet
	_, rc, err := src.OpenBackup()
	check(t, err)
	data, err := io.ReadAll(rc)
	check(t, err)
	check(t, rc.Close())
	s := mustOpen(t, testOptions(vfs.NewMem(), testDir))
	check(t, restore(t, s, 1, 1, data))
	if got := entries(t, s); got != want(1, 4, "a") {
		t.Fatal(got)
	}
	_, rc, err = src.OpenBackup() // with an empty memtable
	check(t, err)
	check(t, rc.Close())
}

// TestRefusedInstallKeepsTheOldState: whatever is wrong, the old state lives on
// and no file stays, although raft tries again for ever.
func TestRefusedInstallKeepsTheOldState(t *testing.T) {
	src := newSource(t, 10)
	_, good := stream(t, src)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	_, names20, err := unpackBytes(good)
	check(t, err)
	// The header says 20, the data end at 10.
	behind := repack(t, names20, archiveHeader{Kind: KindReplica, Index: 20, Term: 2})
	notADB := pack(archiveHeader{Kind: KindReplica, Index: 10, Term: 2}, rawFile{"a", "x"})
	boom := errors.New("boom")

	for name, tc := range map[string]struct {
		index, term uint64
		data        []byte
		prepare     error
		want        error
	}{
		"truncated":      {10, 2, good[:len(good)-1], nil, ErrArchive},
		"flipped":        {10, 2, flipped, nil, ErrArchive},
		"other index":    {11, 2, good, nil, ErrMismatch},
		"other term":     {10, 3, good, nil, ErrMismatch},
		"data too old":   {20, 2, behind, nil, ErrStateBehind},
		"not a database": {10, 2, notADB, nil, pebble.ErrDBDoesNotExist},
		"older":          {4, 2, good, nil, ErrOldSnapshot},
		"prepare":        {10, 2, good, boom, boom},
	} {
		fs := vfs.NewMem()
		o := testOptions(fs, testDir)
		o.Prepare = func(*pebble.DB, Kind, uint64, uint64) error { return tc.prepare }
		s := mustOpen(t, o)
		apply(t, s, 1, 5, "old")
		snapshot(t, s, 5, 1)
		for range 2 {
			if err := restore(t, s, tc.index, tc.term, tc.data); !errors.Is(err, tc.want) {
				t.Fatalf("%s: %v", name, err)
			}
			if got := entries(t, s); got != want(1, 5, "old") || s.Applied() != 5 || listed(t, s) != 5 {
				t.Fatalf("%s: %s", name, got)
			}
			if got := names(t, fs, testDir); got != "CURRENT db-1" {
				t.Fatalf("%s: %s", name, got)
			}
		}
		snapshot(t, s, 5, 1)
		apply(t, s, 6, 6, "old")
		snapshot(t, s, 6, 1)
	}
}

// repack makes a stream with another header from unpacked files.
func repack(t *testing.T, fs vfs.FS, head archiveHeader) []byte {
	t.Helper()
	list, err := fs.List("d")
	check(t, err)
	var files []rawFile
	for _, n := range list {
		f, err := fs.Open("d/" + n)
		check(t, err)
		body, err := io.ReadAll(f)
		check(t, err)
		files = append(files, rawFile{n, string(body)})
	}
	return pack(head, files...)
}

// TestSnapshotBegunBeforeAnInstall must not be recorded over the new state: the
// next start would look for entries that are gone.
func TestSnapshotBegunBeforeAnInstall(t *testing.T) {
	_, data := stream(t, newSource(t, 10))
	s := mustOpen(t, testOptions(vfs.NewMem(), testDir))
	apply(t, s, 1, 20, "old")
	h := s.Acquire()
	persisted, begun := create(t, s, 20, 1), create(t, s, 20, 1)
	check(t, s.Persist(h, persisted))
	check(t, restore(t, s, 10, 2, data))
	if err := persisted.Close(); !errors.Is(err, ErrSuperseded) {
		t.Fatal(err)
	}
	if err := s.Persist(h, begun); !errors.Is(err, ErrSuperseded) {
		t.Fatal(err)
	}
	h.Release()
	if listed(t, s) != 10 || s.Applied() != 10 {
		t.Fatal(listed(t, s), s.Applied())
	}
}

// TestReadersKeepTheirStateThroughInstalls: a reader sees one state with its
// mirror, never a mixture, and the old files go with the last reader.
func TestReadersKeepTheirStateThroughInstalls(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs, testDir))
	apply(t, s, 1, 3, "old")
	mirror := want(1, 3, "old")
	held := s.Acquire()
	stop, errs := make(chan struct{}), make(chan string, 4)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var m string
				h := s.AcquireWith(func() { m = mirror })
				if got := dbEntries(t, h.DB()); got != m {
					errs <- got + " with mirror " + m
				}
				h.Release()
			}
		})
	}
	for n := uint64(5); n < 10; n++ {
		_, data := stream(t, newSource(t, n))
		id, err := receive(t, s, n, 2, data)
		check(t, err)
		_, rc, err := s.Snapshots().Open(id)
		check(t, err)
		check(t, s.Install(rc, func(h *Handle) error {
			mirror = dbEntries(t, h.DB())
			return nil
		}))
		check(t, rc.Close())
	}
	close(stop)
	wg.Wait()
	select {
	case e := <-errs:
		t.Fatal(e)
	default:
	}
	if got := dbEntries(t, held.DB()); got != want(1, 3, "old") {
		t.Fatal(got)
	}
	if got := names(t, fs, testDir); got != "CURRENT db-1 db-6" {
		t.Fatal(got)
	}
	held.Release()
	if got := names(t, fs, testDir); got != "CURRENT db-6" {
		t.Fatal(got)
	}
}

// TestInstallOfOwnSnapshot is what raft.RecoverCluster does.
func TestInstallOfOwnSnapshot(t *testing.T) {
	s := newSource(t, 10)
	meta, _ := s.SnapshotMeta()
	_, rc, err := s.Snapshots().Open(meta.ID)
	check(t, err)
	check(t, s.Install(wrapped{rc}, func(*Handle) error { return nil }))
	check(t, rc.Close())
	if got := entries(t, s); got != want(1, 10, "new") || listed(t, s) != 10 {
		t.Fatal(got)
	}
	if err := s.Install(io.NopCloser(nil), nil); !errors.Is(err, ErrForeign) {
		t.Fatal(err)
	}
}

// TestFullDiskDuringInstall: each file operation of the store during an install
// fails in turn. Those that the database does by itself are left out: on a failed
// manifest, say, it stops the process, which crash_test.go is about.
func TestFullDiskDuringInstall(t *testing.T) {
	_, data := stream(t, newSource(t, 10))
	_, list, err := unpackBytes(data)
	check(t, err)
	files := map[string]bool{}
	for _, name := range strings.Fields(names(t, list, "d")) {
		files[name] = true
	}
	failed, broken := 0, 0
	for n := int64(1); ; n++ {
		if n > 200 {
			t.Fatal("an install needs too many file operations")
		}
		var countdown atomic.Int64
		inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpCreate, errorfs.OpMkdirAll, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpRename, errorfs.OpOpenDir:
				_, unpacked := files[filepath.Base(op.Path)]
				dir := filepath.Dir(op.Path)
				ours := op.Path == testDir || dir == testDir || unpacked && dir != testDir+"/db-1"
				if op.Kind == errorfs.OpFileSync && strings.HasPrefix(filepath.Base(op.Path), dbPrefix) {
					ours = false // a database syncs its directory
				}
				if ours && countdown.Add(-1) == 0 {
					return syscall.ENOSPC
				}
			}
			return nil
		})
		fs := vfs.NewMem()
		o := testOptions(errorfs.Wrap(fs, inject), testDir)
		var fatal atomic.Bool
		o.OnEvent = func(e Event) {
			if e.Kind == EventFatal {
				fatal.Store(true)
			}
		}
		s := mustOpen(t, o)
		apply(t, s, 1, 3, "old")
		snapshot(t, s, 3, 1)
		id, err := receive(t, s, 10, 2, data)
		check(t, err)
		_, rc, err := s.Snapshots().Open(id)
		check(t, err)
		countdown.Store(n)
		err = s.Install(rc, func(*Handle) error { return nil })
		over := countdown.Swap(-1) > 0
		check(t, rc.Close())
		if errors.Is(err, ErrBroken) != fatal.Load() {
			t.Fatalf("operation %d: error %v, event %v", n, err, fatal.Load())
		}
		if fatal.Load() {
			broken++
			h := s.Acquire()
			if err := s.Persist(h, create(t, s, 11, 2)); !errors.Is(err, ErrBroken) {
				t.Fatal(err)
			}
			h.Release()
		} else if err != nil {
			failed++
			if got := names(t, fs, testDir); got != "CURRENT db-1" && got != "CURRENT CURRENT.tmp db-1" {
				t.Fatalf("operation %d: %v: %s", n, err, got)
			}
		}
		if got := entries(t, s); got != want(1, 3, "old") && err != nil {
			t.Fatalf("operation %d: %v: %s", n, err, got)
		}
		mustClose(t, s)
		s = mustOpen(t, testOptions(fs, testDir))
		if got := entries(t, s); got != want(1, 10, "new") && (err == nil || got != want(1, 3, "old")) {
			t.Fatalf("operation %d: %v: after the restart %q", n, err, got)
		}
		mustClose(t, s)
		if over {
			break
		}
	}
	if failed < 20 || broken != 3 {
		t.Fatalf("%d failures and %d breaks tried, want rename, open and sync of the directory", failed, broken)
	}
}
