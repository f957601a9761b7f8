package store

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The nine crash points, and what a restart must find: entries 1..5 of the old
// state with a snapshot at 5, or the one installed, or the next local one.
var crashPoints = []struct {
	name string
	snap uint64 // index of the snapshot after the restart
}{
	{"recv_start", 5},
	{"recv_done", 5},
	{"mid_unpack", 5},
	{"before_swap", 5},
	{"during_swap", 5},
	{"after_swap", 20},
	{"after_restore", 20},
	{"after_flush", 5},
	{"after_meta", 8},
}

// crashScenario runs to the given point: a local snapshot at 5, then either a
// local one at 8 or the install of one at 20. It must not reach its end.
func crashScenario(t testing.TB, fs vfs.FS, dir, point string, data []byte, crash func()) {
	o := testOptions(fs, dir)
	armed := false
	o.Crash = func(p string) {
		if armed && p == point {
			crash()
		}
	}
	s, err := Open(o)
	check(t, err)
	apply(t, s, 1, 5, "old")
	snapshot(t, s, 5, 1)
	apply(t, s, 6, 8, "old")
	armed = true
	if strings.HasPrefix(point, "after_flush") || strings.HasPrefix(point, "after_meta") {
		snapshot(t, s, 8, 1)
	} else {
		check(t, restore(t, s, 20, 2, data))
	}
	check(t, s.Close())
}

// verifyAfterCrash opens what the crash left and looks at all of it: whole,
// old or new, swept, and able to go on.
func verifyAfterCrash(t *testing.T, fs vfs.FS, dir, point string, snap uint64, data []byte) {
	t.Helper()
	s := mustOpen(t, testOptions(fs, dir))
	if got := listed(t, s); got != snap {
		t.Fatalf("%s: snapshot %d, want %d", point, got, snap)
	}
	// Raft replays what lies above the applied index.
	got, tag := entries(t, s), "old"
	if snap == 20 {
		tag = "new"
	}
	if got != want(1, s.Applied(), tag) || s.Applied() < snap {
		t.Fatalf("%s: applied %d, entries %s", point, s.Applied(), got)
	}
	if got := strings.Fields(names(t, fs, dir)); len(got) != 2 || got[0] != currentName || !strings.HasPrefix(got[1], dbPrefix) {
		t.Fatalf("%s: leftovers: %v", point, got)
	}
	check(t, restore(t, s, 20, 2, data)) // the leader sends again
	apply(t, s, 21, 22, "new")
	snapshot(t, s, 22, 2)
	mustClose(t, s)
	s = mustOpen(t, testOptions(fs, dir))
	if got := entries(t, s); got != want(1, 22, "new") {
		t.Fatalf("%s: %s", point, got)
	}
}

const (
	crashDirEnv   = "QUINTO_STORE_CRASH_DIR"
	crashPointEnv = "QUINTO_STORE_CRASH_POINT"
)

// TestCrashChild is the process that TestKilledAtEachPoint starts.
func TestCrashChild(t *testing.T) {
	dir, point := os.Getenv(crashDirEnv), os.Getenv(crashPointEnv)
	if dir == "" {
		t.Skip("runs as a child only")
	}
	text, err := os.ReadFile(filepath.Join(dir, "stream"))
	check(t, err)
	data, err := hex.DecodeString(string(text))
	check(t, err)
	crashScenario(t, nil, filepath.Join(dir, testDir), point, data, func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	})
	t.Fatal("the crash point was not reached")
}

// TestKilledAtEachPoint: SIGKILL on a real file system.
func TestKilledAtEachPoint(t *testing.T) {
	_, data := stream(t, newSource(t, 20))
	for _, p := range crashPoints {
		dir := t.TempDir()
		check(t, os.WriteFile(filepath.Join(dir, "stream"), []byte(hex.EncodeToString(data)), 0o600))
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), crashDirEnv+"="+dir, crashPointEnv+"="+p.name)
		out, err := cmd.CombinedOutput()
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if err == nil || !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the child was not killed: %v\n%s", p.name, err, out)
		}
		verifyAfterCrash(t, vfs.Default, filepath.Join(dir, testDir), p.name, p.snap, data)
	}
}

// TestPowerCutAtEachPoint: what was not synced is lost, wholly or at random.
func TestPowerCutAtEachPoint(t *testing.T) {
	_, data := stream(t, newSource(t, 20))
	for _, p := range crashPoints {
		for seed := range uint64(8) {
			cfg := vfs.CrashCloneCfg{}
			if seed > 0 {
				cfg = vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 1))}
			}
			fs := vfs.NewCrashableMem()
			var left *vfs.MemFS
			crashScenario(t, fs, testDir, p.name, data, func() { left = fs.CrashClone(cfg) })
			if left == nil {
				t.Fatalf("%s was not reached", p.name)
			}
			verifyAfterCrash(t, left, testDir, fmt.Sprintf("%s, seed %d", p.name, seed), p.snap, data)
		}
	}
}

// TestPowerCutWithoutFlushIsCaught is the control of the test above: it must
// notice a Persist that does not flush.
func TestPowerCutWithoutFlushIsCaught(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, testOptions(fs, testDir))
	apply(t, s, 1, 8, "old")
	h := s.Acquire()
	sink := create(t, s, 8, 1)
	check(t, sink.(*snapshotSink).markLocal(h.n))
	check(t, sink.Close())
	h.Release()
	if _, err := Open(testOptions(fs.CrashClone(vfs.CrashCloneCfg{}), testDir)); err == nil {
		t.Fatal("a lost state was accepted")
	}
}

// TestPowerCutAtRandomMoments cuts while entries, flushes and snapshots go on.
func TestPowerCutAtRandomMoments(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	fs := vfs.NewCrashableMem()
	pad := strings.Repeat("x", 2000) // makes memtables turn over
	for round := range 12 {
		s, err := Open(testOptions(fs, testDir))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if got := entries(t, s); got != want(1, s.Applied(), pad) {
			t.Fatalf("round %d: applied %d does not match the entries", round, s.Applied())
		}
		var left *vfs.MemFS
		cut := 1 + rng.IntN(400)
		for i := range 400 {
			next := s.Applied() + 1
			apply(t, s, next, next, pad)
			if rng.IntN(50) == 0 {
				snapshot(t, s, next, 1)
			}
			if i == cut {
				left = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 30, RNG: rng})
			}
		}
		mustClose(t, s)
		if left != nil {
			fs = left
		}
	}
}
