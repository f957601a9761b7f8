package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// logContent opens the log of dir and returns all that is in it.
func logContent(t *testing.T, c *Config) (string, error) {
	t.Helper()
	logs, stable, closeLog, err := openLog(c)
	if err != nil {
		return "", err
	}
	defer func() {
		if err := closeLog(); err != nil {
			t.Error(err)
		}
	}()
	if err := logs.verify(0); err != nil {
		return "", err
	}
	var b bytes.Buffer
	last, err := logs.LastIndex()
	if err != nil {
		return "", err
	}
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err := logs.read(i, &l); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%d %d %s\n", l.Index, l.Term, l.Data)
	}
	term, err := stable.GetUint64([]byte(raftTermKey))
	if err != nil {
		return "", err
	}
	who, err := stable.Get([]byte("LastVoteCand"))
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "%d %s\n", term, who)
	return b.String(), nil
}

// damagedLog makes a log with some history and returns its configuration, the path of
// its bolt file and what is in it.
func damagedLog(t *testing.T, kind string) (*Config, string, string) {
	t.Helper()
	c := &Config{DataDir: t.TempDir(), LogStore: kind, Logger: hclog.NewNullLogger()}
	*c = c.withDefaults()
	logs, stable, closeLog, err := openLog(c)
	if err != nil {
		t.Fatal(err)
	}
	for term := uint64(1); term <= 3; term++ {
		err = errors.Join(err, stable.SetUint64([]byte(raftTermKey), term), stable.SetUint64([]byte("LastVoteTerm"), term), stable.Set([]byte("LastVoteCand"), []byte("n2")))
	}
	for i := uint64(1); i <= 40; i += 4 {
		var batch []*raft.Log
		for j := i; j < i+4; j++ {
			batch = append(batch, &raft.Log{Index: j, Term: 3, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(j)}, 700)})
		}
		err = errors.Join(err, logs.StoreLogs(batch))
	}
	if err = errors.Join(err, closeLog()); err != nil {
		t.Fatal(err)
	}
	content, err := logContent(t, c)
	if err != nil {
		t.Fatal(err)
	}
	if kind == LogWAL {
		return c, filepath.Join(c.DataDir, logFolder, walMetaFile), content
	}
	return c, filepath.Join(c.DataDir, logFile), content
}

// TestDamagedBoltFileIsRefused: whatever happens to a bolt file, it is refused as
// damaged or gives back exactly what was stored: no trace of bolt's, no entry and
// no vote that is forgotten. A process that dies in this test dies in bolt.
func TestDamagedBoltFileIsRefused(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{LogBolt, LogWAL} {
		t.Run(kind, func(t *testing.T) {
			c, path, want := damagedLog(t, kind)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(5, 5))
			refused := 0
			for n := range map[string]int{LogBolt: 200, LogWAL: 60}[kind] {
				bad := bytes.Clone(whole)
				var how string
				at := r.IntN(len(bad))
				switch n % 10 {
				case 0:
					bad, how = bad[:at], fmt.Sprintf("cut at %d", at)
				case 1:
					at = at / 4096 * 4096
					clear(bad[at:min(at+4096, len(bad))])
					how = fmt.Sprintf("zeroes at %d", at)
				default:
					if n%2 == 0 { // where a page says what it is
						at = at/4096*4096 + r.IntN(128)
					}
					bad[at] ^= 1 << r.IntN(8)
					how = fmt.Sprintf("a bit at %d", at)
				}
				if n == 0 {
					bad, how = nil, "emptied"
				}
				if len(bad) == 0 && kind == LogBolt { // a new log: checkState refuses it
					continue
				}
				// A folder of its own: the WAL keeps the lock of a file that it refuses.
				again := *c
				again.DataDir = filepath.Join(t.TempDir(), "again")
				rel, err := filepath.Rel(c.DataDir, path)
				err = errors.Join(err, os.CopyFS(again.DataDir, os.DirFS(c.DataDir)), os.WriteFile(filepath.Join(again.DataDir, rel), bad, 0o600))
				if err != nil {
					t.Fatal(err)
				}
				got, err := logContent(t, &again)
				if err := os.RemoveAll(again.DataDir); err != nil {
					t.Fatal(err)
				}
				if err != nil {
					refused++
				} else if got != want {
					t.Fatalf("%s: the log was opened and is another: %d bytes of %d", how, len(got), len(want))
				}
			}
			if t.Logf("%d refused", refused); refused < 5 {
				t.Errorf("only %d were refused", refused)
			}
		})
	}
}

// TestBoltCheckKnowsEveryStructure: each flipped bit of the reachable pages' heads and
// elements is found; none of the whole file is a false alarm.
func TestBoltCheckKnowsEveryStructure(t *testing.T) {
	_, path, _ := damagedLog(t, LogBolt)
	if err := checkBolt(path, boltLogBuckets, true); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := &boltChecker{file: f, buckets: boltLogBuckets, seen: map[uint64]bool{}}
	if err := c.check(int64(len(whole))); err != nil {
		t.Fatal(err)
	}
	for id := range c.seen {
		for bit := range 8 * (boltHeader + boltElement) {
			bad := bytes.Clone(whole)
			bad[int64(id)*c.meta.pageSize+int64(bit/8)] ^= 1 << (bit % 8)
			d := &boltChecker{file: bytes.NewReader(bad), buckets: boltLogBuckets, seen: map[uint64]bool{}}
			// A page that claims a free one behind it loses nothing.
			if err := d.check(int64(len(bad))); err == nil && (bit/8 < 12 || bit/8 >= 16) {
				t.Fatalf("bit %d of page %d was not noticed", bit, id)
			}
		}
	}
}

// TestEntryIsNotCompletedFromTheOneBefore: an entry is stored as a map of six fields,
// and one bit of its head makes them four. A decoder that writes into the entry that
// was read before leaves that one's term and type in it, so that the checksum holds.
func TestEntryIsNotCompletedFromTheOneBefore(t *testing.T) {
	t.Parallel()
	c, path, _ := damagedLog(t, LogBolt)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head := []byte("\x86\xaaAppendedAt")
	if n := bytes.Count(data, head); n < 40 {
		t.Fatalf("%d entries found", n)
	}
	for at := 0; ; at++ {
		next := bytes.Index(data[at:], head)
		if next < 0 {
			break
		}
		at += next
		data[at] = 0x84
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	logs, _, closeLog, err := openLog(c)
	if err != nil {
		t.Fatal(err)
	}
	l := raft.Log{Term: 3, Type: raft.LogCommand}
	if err := logs.read(30, &l); !errors.Is(err, fsm.ErrCorrupt) {
		t.Errorf("an entry without term and type is read: %v", err)
	}
	if err := errors.Join(logs.verify(0), closeLog()); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}
