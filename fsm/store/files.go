package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Names inside the directory of a store.
const (
	lockName       = "LOCK"
	dbPrefix       = "db-"
	incomingPrefix = "incoming-" // a received snapshot that is not installed yet
	ckptPrefix     = "ckpt-"     // a checkpoint that is being streamed
	dirMode        = 0o750
)

// dbName names the n-th database of a directory.
func dbName(n uint64) string { return dbPrefix + strconv.FormatUint(n, 10) }

// parseDBName is the inverse of dbName; it accepts only what dbName makes.
func parseDBName(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, dbPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0 && dbName(n) == name
}

// syncDir makes the names in a directory durable.
func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir creates dir with its parents and makes their names durable.
func makeDir(fsys vfs.FS, dir string) error {
	var parents []string
	for p := dir; ; {
		if _, err := fsys.Stat(p); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		up := fsys.PathDir(p)
		if up == p {
			break
		}
		parents = append(parents, up)
		p = up
	}
	if err := fsys.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	for _, p := range parents {
		if err := syncDir(fsys, p); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes and syncs one new file.
func writeFile(fsys vfs.FS, name string, data []byte) error {
	f, err := fsys.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// lockDir creates dir if need be and takes its lock. A directory that cannot be
// written and one that is taken give two different errors, both of one line.
func lockDir(fsys vfs.FS, dir string) (io.Closer, error) {
	if err := makeDir(fsys, dir); err != nil {
		return nil, fmt.Errorf("store: cannot create data directory %q: %w", dir, err)
	}
	lock, err := fsys.Lock(fsys.PathJoin(dir, lockName))
	if err == nil {
		return lock, nil
	}
	var perr *os.PathError
	if errors.As(err, &perr) {
		return nil, fmt.Errorf("store: cannot write to data directory %q: %w", dir, err)
	}
	// fcntl answers EAGAIN or EACCES for a lock of another process; for one of
	// our own the file system answers without an error number.
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != syscall.EAGAIN && errno != syscall.EACCES {
		return nil, fmt.Errorf("store: cannot lock data directory %q: %w", dir, err)
	}
	return nil, fmt.Errorf("store: %q: %w", dir, ErrLocked)
}

// sweep deletes what a crash left behind: every database but the live one,
// snapshots not installed, checkpoints, a half-written CURRENT. Names it does
// not know stay.
func sweep(fsys vfs.FS, dir, live string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, isDB := parseDBName(name)
		leftover := isDB && name != live || name == currentTemp ||
			strings.HasPrefix(name, incomingPrefix) || strings.HasPrefix(name, ckptPrefix)
		if !leftover {
			continue
		}
		if err := fsys.RemoveAll(fsys.PathJoin(dir, name)); err != nil {
			return fmt.Errorf("store: cannot remove leftover %q: %w", name, err)
		}
	}
	return syncDir(fsys, dir)
}
