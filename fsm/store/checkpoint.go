package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// archiveFile is one file of a checkpoint.
type archiveFile struct {
	name string
	size int64
}

// archiveReader streams a checkpoint. Its size is known before the first byte,
// as Raft wants it.
type archiveReader struct {
	s     *Store
	h     *Handle // keeps the database open
	dir   string  // of the checkpoint
	meta  raft.SnapshotMeta
	head  archiveHeader
	files []archiveFile

	next   int       // 0: header; 1..len: that file; len+1: trailer; then the end
	part   io.Reader // what is being read; nil between parts
	cur    vfs.File  // open file of part, or nil
	sum    *xxhash.Digest
	closed bool
}

// openCheckpoint makes a checkpoint of the live database and returns its
// stream. pick is called under the lock that guards the snapshot's metadata: it
// gives the header and the metadata that belong to this database, or an error.
// A checkpoint is made of hard links and holds what is flushed.
func (s *Store) openCheckpoint(kind Kind, prepare func(*Handle) error,
	pick func() (raft.SnapshotMeta, error),
) (*archiveReader, error) {
	var meta raft.SnapshotMeta
	var err error
	h := s.AcquireWith(func() { meta, err = pick() })
	if h == nil {
		return nil, ErrClosed
	}
	a := &archiveReader{
		s: s, h: h, meta: meta, sum: xxhash.New(),
		dir: s.path(ckptPrefix + strconv.FormatUint(s.serial.Add(1), 10)),
	}
	if err == nil {
		err = prepare(h)
	}
	if err == nil {
		err = h.db.Checkpoint(a.dir)
	}
	if err == nil {
		err = a.list()
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.head = archiveHeader{Kind: kind, Files: uint32(len(a.files)), Index: meta.Index, Term: meta.Term}
	a.meta.Size = headerBytes + trailerBytes
	for _, f := range a.files {
		a.meta.Size += fileHeaderBytes + int64(len(f.name)) + f.size
	}
	return a, nil
}

// OpenBackup flushes and returns a stream of kind backup, with its exact size
// in bytes. It holds everything applied before the call. Restoring it is
// raft.Restore with that size in the metadata, or an Install into a new
// directory. The caller closes the reader.
func (s *Store) OpenBackup() (int64, io.ReadCloser, error) {
	return s.OpenBackupOf(func(pebble.Reader) error { return nil })
}

// OpenBackupOf is OpenBackup; read sees, before the first byte, the very state
// that the stream holds, which may be newer than the one at the call.
func (s *Store) OpenBackupOf(read func(pebble.Reader) error) (int64, io.ReadCloser, error) {
	a, err := s.openCheckpoint(KindBackup,
		func(h *Handle) error { return s.flush(h, 0) },
		func() (raft.SnapshotMeta, error) { return raft.SnapshotMeta{Index: s.Applied()}, nil })
	if err == nil {
		if err = s.readCheckpoint(a.dir, read); err != nil {
			err = errors.Join(err, a.Close())
		}
	}
	if err != nil {
		return 0, nil, fmt.Errorf("store: backup: %w", err)
	}
	return a.meta.Size, a, nil
}

func (s *Store) readCheckpoint(dir string, read func(pebble.Reader) error) error {
	o := s.pebbleOptions(true)
	o.ReadOnly = true
	db, err := pebble.Open(dir, o)
	if err != nil {
		return err
	}
	return errors.Join(read(db), db.Close())
}

func (a *archiveReader) list() error {
	names, err := a.s.fs.List(a.dir)
	if err != nil {
		return err
	}
	if len(names) > maxArchiveFiles {
		return fmt.Errorf("store: a checkpoint of %d files is too large", len(names))
	}
	slices.Sort(names)
	for _, name := range names {
		info, err := a.s.fs.Stat(a.s.fs.PathJoin(a.dir, name))
		if err != nil {
			return err
		}
		if !validFileName(name) || info.IsDir() {
			return fmt.Errorf("store: checkpoint has an odd file %q", name)
		}
		a.files = append(a.files, archiveFile{name, info.Size()})
	}
	return nil
}

// Read implements io.Reader.
func (a *archiveReader) Read(p []byte) (int, error) {
	if a.closed {
		return 0, fmt.Errorf("store: read of a closed stream: %w", io.ErrClosedPipe)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if a.part == nil {
			if err := a.advance(); err != nil {
				return 0, err
			}
		}
		n, err := a.part.Read(p)
		if n > 0 {
			_, _ = a.sum.Write(p[:n]) // a digest never fails
			return n, nil
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, err
		}
		a.part = nil
		if err := a.closeFile(); err != nil {
			return 0, err
		}
	}
}

// advance opens the next part, io.EOF after the last.
func (a *archiveReader) advance() error {
	i := a.next
	a.next++
	switch {
	case i == 0:
		a.part = bytes.NewReader(a.head.encode())
	case i <= len(a.files):
		f := a.files[i-1]
		file, err := a.s.fs.Open(a.s.fs.PathJoin(a.dir, f.name), vfs.SequentialReadsOption)
		if err != nil {
			return err
		}
		a.cur = file
		a.part = io.MultiReader(bytes.NewReader(encodeFileHeader(f.name, f.size)), &exactReader{file, f.size})
	case i == len(a.files)+1:
		a.part = bytes.NewReader(encodeTrailer(a.head.Files, a.sum))
	default:
		return io.EOF
	}
	return nil
}

// exactReader reads n bytes and fails if its reader has fewer.
type exactReader struct {
	r io.Reader
	n int64
}

// Read implements io.Reader.
func (e *exactReader) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.n)])
	e.n -= int64(n)
	if errors.Is(err, io.EOF) && e.n > 0 {
		return n, fmt.Errorf("store: a file of the checkpoint is shorter than it was: %w", io.ErrUnexpectedEOF)
	}
	return n, err
}

func (a *archiveReader) closeFile() error {
	if a.cur == nil {
		return nil
	}
	err := a.cur.Close()
	a.cur = nil
	return err
}

// Close deletes the checkpoint. It may be called again, but not beside Read.
func (a *archiveReader) Close() error {
	if a.closed {
		return nil
	}
	a.closed = true
	err := errors.Join(a.closeFile(), a.s.fs.RemoveAll(a.dir))
	a.h.Release()
	return err
}

func (a *archiveReader) snapshotSource() (*Store, raft.SnapshotMeta, string) {
	return a.s, a.meta, ""
}
