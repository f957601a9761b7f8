package cluster

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// crashedWAL makes a log of the WAL with batches of three entries of so many bytes,
// and copies its folder as a crash leaves it: open, nothing said at the end.
func crashedWAL(t *testing.T, batches, bytesEach int) *Config {
	t.Helper()
	c := &Config{DataDir: t.TempDir(), LogStore: LogWAL, Logger: hclog.NewNullLogger()}
	*c = c.withDefaults()
	logs, stable, closeLog, err := openLog(c)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(logs.verify(0), stable.SetUint64([]byte(raftTermKey), 3), stable.Set([]byte("LastVoteCand"), []byte("n2")))
	index := uint64(0)
	for range batches {
		var batch []*raft.Log
		for range 3 {
			index++
			batch = append(batch, &raft.Log{Index: index, Term: 3, Type: raft.LogCommand, Data: bytes.Repeat([]byte{'a' + byte(index%26)}, bytesEach)})
		}
		err = errors.Join(err, logs.StoreLogs(batch))
	}
	crashed := *c
	crashed.DataDir = t.TempDir()
	if err = errors.Join(err, os.CopyFS(crashed.DataDir, os.DirFS(c.DataDir)), closeLog()); err != nil {
		t.Fatal(err)
	}
	return &crashed
}

// TestDamageInTheWALIsNoTornWrite: of a node that crashed, damage before the last
// write is refused, whatever it hits, and never taken for the end of the log. In the
// last write it cannot be told from a write that the crash cut short: no more than
// that is dropped.
func TestDamageInTheWALIsNoTornWrite(t *testing.T) {
	t.Parallel()
	const batches = 12
	c := crashedWAL(t, batches, 700)
	path := logPath(t, c.DataDir, LogWAL)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := logContent(t, c)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(want, "\n")
	shorter := strings.Join(append(lines[:3*(batches-1):3*(batches-1)], lines[3*batches:]...), "")
	used := len(bytes.TrimRight(whole, "\x00"))
	r := rand.New(rand.NewPCG(7, 7))
	refused, dropped := 0, 0
	again := crashedWAL(t, batches, 700) // since logContent has closed the first one
	meta := filepath.Join(again.DataDir, logFolder, walMetaFile)
	metaBytes, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 80 {
		bad := bytes.Clone(whole)
		at := r.IntN(used)
		switch n % 10 {
		case 0: // where frames are: each has 8 bytes in front
			at = at / 8 * 8
			clear(bad[at : at+8])
		case 1:
			at = at / 512 * 512
			clear(bad[at : at+512])
		case 2:
			bad = bad[:at]
		default:
			bad[at] ^= 1 << r.IntN(8)
		}
		segment := logPath(t, again.DataDir, LogWAL)
		if err := errors.Join(os.WriteFile(segment, bad[:min(used, len(bad))], 0o600), os.Truncate(segment, int64(len(bad))), os.WriteFile(meta, metaBytes, 0o600)); err != nil {
			t.Fatal(err)
		}
		switch got, err := logContent(t, again); {
		case err != nil:
			if refused++; !errors.Is(err, ErrDamaged) {
				t.Errorf("at %d: %v", at, err)
			}
		case got == shorter && at >= used*(batches-2)/batches:
			dropped++
		case got != want:
			t.Errorf("at %d of %d: entries are gone: %d bytes of %d", at, used, len(got), len(want))
		}
	}
	if refused < 40 {
		t.Errorf("%d refused, %d dropped of 80", refused, dropped)
	}
}

// Raft cuts the log behind a snapshot in another goroutine than the one that appends.
// The mark on the disk is never above the end of the log, nor another than in memory.
func TestTheMarkHoldsWhileTheLogIsCut(t *testing.T) {
	t.Parallel()
	c := Config{DataDir: t.TempDir(), LogStore: LogWAL, Logger: hclog.NewNullLogger()}.withDefaults()
	logs, stable, closeLog, err := openLog(&c)
	if err != nil {
		t.Fatal(err)
	}
	const entries = 400
	cut := make(chan error)
	var end atomic.Uint64
	go func() {
		var err error
		for first := uint64(1); err == nil && end.Load() < entries; {
			if to := end.Load() / 2; to >= first {
				err = logs.DeleteRange(first, to)
				first = to + 1
			}
			time.Sleep(50 * time.Microsecond)
		}
		cut <- err
	}()
	for i := uint64(1); i <= entries; i++ {
		err = errors.Join(err, logs.StoreLog(&raft.Log{Index: i, Term: 3, Type: raft.LogCommand, Data: []byte("x")}))
		end.Store(i)
	}
	if err = errors.Join(err, <-cut); err != nil {
		t.Fatal(err)
	}
	if at, err := stable.GetUint64([]byte(markKey)); err != nil || at != logs.mark.at || at > entries {
		t.Errorf("the mark is %d, in memory %d, of %d entries: %v", at, logs.mark.at, entries, err)
	}
	if err := closeLog(); err != nil {
		t.Fatal(err)
	}
	if logs, _, closeLog, err = openLog(&c); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(logs.verify(entries/2), closeLog()); err != nil {
		t.Error(err)
	}
}

// TestTornWriteOfTheWALIsDropped: what a crash leaves of the last write ends the log
// there, and the node goes on.
func TestTornWriteOfTheWALIsDropped(t *testing.T) {
	t.Parallel()
	for name, tear := range map[string]func(batch []byte){
		"its end is missing":     func(b []byte) { clear(b[len(b)/2:]) },
		"its begin is missing":   func(b []byte) { clear(b[:len(b)/2]) },
		"a sector is missing":    func(b []byte) { clear(b[512:1024]) },
		"its commit is missing":  func(b []byte) { clear(b[len(b)-8:]) },
		"nothing of it is there": func(b []byte) { clear(b) },
	} {
		t.Run(name, func(t *testing.T) {
			c := crashedWAL(t, 4, 700)
			path := logPath(t, c.DataDir, LogWAL)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			used := (len(bytes.TrimRight(data, "\x00")) + 7) / 8 * 8
			tear(data[walHeaderBytes+(used-walHeaderBytes)/4*3/8*8+8 : used])
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := logContent(t, c)
			if err != nil || strings.Count(got, "\n") != 9+1 {
				t.Errorf("%d lines, %v", strings.Count(got, "\n"), err)
			}
		})
	}
}

// TestNewestSegmentOfTheWALGone: the WAL takes it for one that was never made.
func TestNewestSegmentOfTheWALGone(t *testing.T) {
	t.Parallel()
	c := crashedWAL(t, 8, 1<<20)
	segments, err := filepath.Glob(filepath.Join(c.DataDir, logFolder, "*.wal"))
	if err != nil || len(segments) < 2 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
	if err := os.Remove(segments[len(segments)-1]); err != nil {
		t.Fatal(err)
	}
	if _, err := logContent(t, c); !errors.Is(err, ErrDamaged) {
		t.Errorf("not refused: %v", err)
	}
}
