package store

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		check(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(got, want) {
		t.Fatalf("%s changed; files of earlier versions would not be read any more\ngot  %q\nwant %q", name, got, want)
	}
}

func sampleCurrent() current {
	return current{DB: "db-7", Snap: &raft.SnapshotMeta{
		Version: 1, ID: "3-42-5", Index: 42, Term: 3, ConfigurationIndex: 1,
		Configuration: raft.Configuration{Servers: []raft.Server{
			{Suffrage: raft.Voter, ID: "n1", Address: "127.0.0.1:7001"},
			{Suffrage: raft.Nonvoter, ID: "n2", Address: "127.0.0.1:7002"},
		}},
	}}
}

func TestCurrentGolden(t *testing.T) {
	for name, c := range map[string]current{"current-1-new": {DB: "db-1"}, "current-1-snap": sampleCurrent()} {
		data, err := encodeCurrent(c)
		check(t, err)
		golden(t, name, data)
		back, err := decodeCurrent(data)
		check(t, err)
		if !reflect.DeepEqual(back, c) {
			t.Fatalf("read back %+v, wrote %+v", back, c)
		}
	}
}

func TestPinnedFormatOfDatabase(t *testing.T) {
	if FormatMajorVersion != pebble.FormatMajorVersion(21) {
		t.Fatalf("the on-disk format changed to %d: older nodes cannot read it", FormatMajorVersion)
	}
}

func TestCurrentRefusesEveryFlippedBit(t *testing.T) {
	data, err := encodeCurrent(sampleCurrent())
	check(t, err)
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		if _, err := decodeCurrent(bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
		if _, err := decodeCurrent(data[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

func TestOpenRefusesDamagedCommitFile(t *testing.T) {
	for name, damage := range map[string]func(fs vfs.FS, path string) error{
		"missing": func(fs vfs.FS, path string) error { return fs.Remove(path) },
		"empty":   func(fs vfs.FS, path string) error { return writeFile(fs, path, nil) },
		"zeroes":  func(fs vfs.FS, path string) error { return writeFile(fs, path, make([]byte, 300)) },
		"long":    func(fs vfs.FS, path string) error { return writeFile(fs, path, make([]byte, maxCurrentBytes+1)) },
	} {
		fs := vfs.NewMem()
		s := mustOpen(t, testOptions(fs, testDir))
		mustClose(t, s)
		check(t, damage(fs, fs.PathJoin(testDir, currentName)))
		if _, err := Open(testOptions(fs, testDir)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s: %v", name, err)
		}
		if got := names(t, fs, testDir); !bytes.Contains([]byte(got), []byte("db-1")) {
			t.Fatalf("%s: the database was deleted: %s", name, got)
		}
	}
}

func FuzzCurrent(f *testing.F) {
	for _, c := range []current{{DB: "db-1"}, sampleCurrent()} {
		data, err := encodeCurrent(c)
		check(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeCurrent(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := encodeCurrent(c)
		check(t, err)
		if back, err := decodeCurrent(again); err != nil || back.DB != c.DB {
			t.Fatalf("%+v, %v", back, err)
		}
	})
}
