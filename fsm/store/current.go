package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

const (
	currentName = "CURRENT"
	currentTemp = "CURRENT.tmp"
	// currentMagic begins the first line of CURRENT; its number is the version.
	currentMagic = "quinto-current-1 "
	// maxCurrentBytes bounds CURRENT; a configuration of a thousand nodes fits.
	maxCurrentBytes = 1 << 20
)

// current is the content of CURRENT: the one commit point of the directory. It
// names the live database and the newest snapshot together.
type current struct {
	DB   string             // directory of the live database
	Snap *raft.SnapshotMeta // newest snapshot, nil before the first; Size is 0
}

// encodeCurrent returns the bytes of CURRENT: a line with the format's name and
// the checksum of the rest, then JSON.
func encodeCurrent(c current) ([]byte, error) {
	body, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, err
	}
	body = append(body, '\n')
	head := fmt.Sprintf("%s%016x\n", currentMagic, xxhash.Sum64(body))
	return append([]byte(head), body...), nil
}

// decodeCurrent is the inverse of encodeCurrent. It returns ErrCorrupt for
// anything that encodeCurrent would not have written.
func decodeCurrent(data []byte) (current, error) {
	head, body, ok := bytes.Cut(data, []byte("\n"))
	sumText, magic := bytes.CutPrefix(head, []byte(currentMagic))
	if !ok || !magic {
		return current{}, fmt.Errorf("%w: %s has an unknown format", ErrCorrupt, currentName)
	}
	sum, err := strconv.ParseUint(string(sumText), 16, 64)
	if err != nil || len(sumText) != 16 || sum != xxhash.Sum64(body) {
		return current{}, fmt.Errorf("%w: %s does not match its checksum", ErrCorrupt, currentName)
	}
	var c current
	if err := json.Unmarshal(body, &c); err != nil {
		return current{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, currentName, err)
	}
	if _, ok := parseDBName(c.DB); !ok {
		return current{}, fmt.Errorf("%w: %s names the database %q", ErrCorrupt, currentName, c.DB)
	}
	if c.Snap != nil && c.Snap.Index == 0 {
		return current{}, fmt.Errorf("%w: %s has a snapshot without an index", ErrCorrupt, currentName)
	}
	return c, nil
}

// readCurrent reads CURRENT of a directory. A directory without it is new and
// gets one; but if it has databases, the commit file was lost, and guessing
// which of them is live could lose acknowledged writes: ErrCorrupt.
func readCurrent(fsys vfs.FS, dir string) (current, error) {
	f, err := fsys.Open(fsys.PathJoin(dir, currentName))
	if errors.Is(err, fs.ErrNotExist) {
		return newCurrent(fsys, dir)
	}
	if err != nil {
		return current{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCurrentBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return current{}, err
	}
	if len(data) > maxCurrentBytes {
		return current{}, fmt.Errorf("%w: %s is too long", ErrCorrupt, currentName)
	}
	return decodeCurrent(data)
}

func newCurrent(fsys vfs.FS, dir string) (current, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return current{}, err
	}
	if slices.ContainsFunc(names, func(n string) bool { _, ok := parseDBName(n); return ok }) {
		return current{}, fmt.Errorf("%w: %s is missing", ErrCorrupt, currentName)
	}
	c := current{DB: dbName(1)}
	_, err = writeCurrent(fsys, dir, c, func() {})
	return c, err
}

// writeCurrent replaces CURRENT atomically and durably. beforeRename is called
// between the durable temporary file and the rename. If uncertain is true, an
// error came so late that the disk may hold either the old or the new file.
func writeCurrent(fsys vfs.FS, dir string, c current, beforeRename func()) (uncertain bool, err error) {
	data, err := encodeCurrent(c)
	if err != nil {
		return false, err
	}
	if len(data) > maxCurrentBytes {
		return false, fmt.Errorf("store: %s would be too long", currentName)
	}
	temp := fsys.PathJoin(dir, currentTemp)
	if err := writeFile(fsys, temp, data); err != nil {
		return false, fmt.Errorf("store: write %s: %w", currentName, err)
	}
	beforeRename()
	if err := fsys.Rename(temp, fsys.PathJoin(dir, currentName)); err != nil {
		return true, fmt.Errorf("store: replace %s: %w", currentName, err)
	}
	if err := syncDir(fsys, dir); err != nil {
		return true, fmt.Errorf("store: replace %s: %w", currentName, err)
	}
	return false, nil
}

// cloneMeta returns a copy that shares nothing with m.
func cloneMeta(m raft.SnapshotMeta) raft.SnapshotMeta {
	m.Peers = slices.Clone(m.Peers)
	m.Configuration = m.Configuration.Clone()
	return m
}
