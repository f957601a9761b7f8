package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

const (
	pageBytes   = 4096 // of bolt, and of most disks
	sectorBytes = 512
	headBytes   = 192 // of a page: its header and first elements, where bolt has no checksum
)

// kindOf names the kind of a file of a data folder by its path in it; "" for those
// that hold nothing (locks, sockets, what a crash left behind).
func kindOf(path string) string {
	base := filepath.Base(path)
	switch {
	case path == "raft.db", path == "node", path == "name", path == "db/CURRENT":
		return path
	case path == "ca.pem", path == "gossip.key":
		return path
	case strings.HasSuffix(path, ".pem"):
		return "certificate"
	case strings.HasSuffix(path, ".key"):
		return "private key"
	case base == "wal-meta.db":
		return "wal-meta.db"
	case strings.HasSuffix(base, ".wal"):
		return "wal segment"
	case strings.HasPrefix(base, "MANIFEST-"):
		return "MANIFEST"
	case strings.HasPrefix(base, "OPTIONS-"):
		return "OPTIONS"
	case strings.HasPrefix(base, "marker."):
		return "marker"
	case strings.HasSuffix(base, ".sst"):
		return "sst"
	}
	return ""
}

// filesByKind returns the persistent files of dir.
func filesByKind(dir string) (map[string][]string, error) {
	out := map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if k := kindOf(filepath.ToSlash(rel)); k != "" {
			out[k] = append(out[k], rel)
		}
		return err
	})
	return out, err
}

// mutate harms one file and says how.
func mutate(r *rand.Rand, path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	what := r.IntN(100)
	switch {
	case len(data) == 0 || what < 6:
		return "deleted", os.Remove(path)
	case what < 10:
		return "emptied", os.Truncate(path, 0)
	case what < 20:
		n := r.IntN(len(data))
		return fmt.Sprintf("cut at %d of %d", n, len(data)), os.Truncate(path, int64(n))
	case what < 28:
		unit := []int{sectorBytes, pageBytes}[r.IntN(2)]
		at := used(r, data) / unit * unit
		end := min(at+unit, len(data))
		clear(data[at:end])
		return fmt.Sprintf("%d zeroes at %d", end-at, at), overwrite(path, data)
	}
	at := used(r, data)
	if what < 60 && len(data) > pageBytes { // where structure is, rather than data
		at = min(at/pageBytes*pageBytes+r.IntN(headBytes), len(data)-1)
	}
	bit := r.IntN(8)
	data[at] ^= 1 << bit
	return fmt.Sprintf("bit %d at %d", bit, at), overwrite(path, data)
}

// used picks an offset, mostly one that holds something: files are preallocated.
func used(r *rand.Rand, data []byte) int {
	at := 0
	for range 50 {
		if at = r.IntN(len(data)); data[at] != 0 {
			break
		}
	}
	return at
}

// overwrite keeps the file's mode.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
