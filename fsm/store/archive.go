package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Kind says what a snapshot stream is for.
type Kind uint8

// The kinds of stream. The numbers are on disks and wires: never reuse one.
const (
	// KindReplica brings a follower of the same cluster up to date. Its data may
	// be newer than the snapshot's index, and keeps its own applied index.
	KindReplica Kind = 1
	// KindBackup comes from another time or cluster: its applied index means
	// nothing here and is set to the one Raft assigns.
	KindBackup Kind = 2
)

// The stream, version 1; all numbers are big-endian:
//
//	header   magic[8] version[1] kind[1] zero[2] files[4] index[8] term[8]
//	file     nameLen[2] size[8] name bytes              (files times)
//	trailer  end[4] files[4] xxhash64 of all before[8]
const (
	archiveMagic   = "QUINTOSN"
	archiveVersion = 1
	archiveEnd     = "QEND"

	headerBytes     = 32
	fileHeaderBytes = 10
	trailerBytes    = 16

	maxArchiveFiles = 1 << 20
	maxFileName     = 255
	// MaxArchiveBytes bounds a snapshot stream: 1 TiB.
	MaxArchiveBytes = int64(1) << 40

	copyBufferBytes = 256 << 10
)

// archiveHeader is the fixed head of a stream.
type archiveHeader struct {
	Kind        Kind
	Files       uint32
	Index, Term uint64 // of the snapshot
}

func (h archiveHeader) encode() []byte {
	b := append(make([]byte, 0, headerBytes), archiveMagic...)
	b = append(b, archiveVersion, byte(h.Kind), 0, 0)
	b = binary.BigEndian.AppendUint32(b, h.Files)
	b = binary.BigEndian.AppendUint64(b, h.Index)
	return binary.BigEndian.AppendUint64(b, h.Term)
}

func decodeHeader(b []byte) (archiveHeader, error) {
	if string(b[:8]) != archiveMagic {
		return archiveHeader{}, fmt.Errorf("%w: not a snapshot stream", ErrArchive)
	}
	if b[8] != archiveVersion {
		return archiveHeader{}, fmt.Errorf("%w: %d", ErrArchiveVersion, b[8])
	}
	h := archiveHeader{
		Kind:  Kind(b[9]),
		Files: binary.BigEndian.Uint32(b[12:]),
		Index: binary.BigEndian.Uint64(b[16:]),
		Term:  binary.BigEndian.Uint64(b[24:]),
	}
	switch {
	case h.Kind != KindReplica && h.Kind != KindBackup:
		return archiveHeader{}, fmt.Errorf("%w: kind %d", ErrArchiveVersion, h.Kind)
	case b[10] != 0 || b[11] != 0:
		return archiveHeader{}, fmt.Errorf("%w: reserved bytes are set", ErrArchiveVersion)
	case h.Files == 0 || h.Files > maxArchiveFiles:
		return archiveHeader{}, fmt.Errorf("%w: %d files", ErrArchive, h.Files)
	}
	return h, nil
}

func encodeFileHeader(name string, size int64) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, fileHeaderBytes+len(name)), uint16(len(name)))
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	return append(b, name...)
}

// encodeTrailer feeds its own first half to sum, which has seen all before.
func encodeTrailer(files uint32, sum *xxhash.Digest) []byte {
	b := binary.BigEndian.AppendUint32([]byte(archiveEnd), files)
	_, _ = sum.Write(b) // a digest never fails
	return binary.BigEndian.AppendUint64(b, sum.Sum64())
}

// validFileName accepts the names of a database's files and nothing that could
// leave the directory.
func validFileName(name string) bool {
	if name == "" || len(name) > maxFileName || name[0] == '.' {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// unpacker reads one stream.
type unpacker struct {
	r     io.Reader
	sum   *xxhash.Digest
	left  int64 // bytes the stream may still have
	fs    vfs.FS
	dir   string
	names map[string]struct{}
	buf   []byte
	place string // what is being read, for errors
}

// unpack reads a stream of exactly size bytes into files of dir, which must be
// empty, and syncs each file; the caller syncs the directory. Without fsys it
// only reads. afterFile is called after each file. It returns ErrArchive or ErrArchiveVersion for a bad
// stream, and the error of the reader or the file system as it is; what was
// written by then is left to the caller.
func unpack(r io.Reader, size int64, fsys vfs.FS, dir string, afterFile func()) (archiveHeader, error) {
	if size > MaxArchiveBytes {
		return archiveHeader{}, fmt.Errorf("%w: %d bytes", ErrArchive, size)
	}
	u := &unpacker{
		r: r, sum: xxhash.New(), left: size, fs: fsys, dir: dir,
		names: map[string]struct{}{},
		buf:   make([]byte, copyBufferBytes),
		place: "header",
	}
	h, err := u.stream(afterFile)
	if err != nil {
		return archiveHeader{}, fmt.Errorf("%s: %w", u.place, err)
	}
	return h, nil
}

// CheckArchive reads a stream of size bytes as an install would and writes
// nothing. The error of a damaged one is unpack's and says in which part of the
// stream the fault is.
func CheckArchive(r io.Reader, size int64) error {
	_, err := unpack(r, size, nil, "", func() {})
	return err
}

func (u *unpacker) stream(afterFile func()) (archiveHeader, error) {
	b, err := u.next(headerBytes)
	if err != nil {
		return archiveHeader{}, err
	}
	h, err := decodeHeader(b)
	if err != nil {
		return archiveHeader{}, err
	}
	for range h.Files {
		if err := u.file(); err != nil {
			return archiveHeader{}, err
		}
		afterFile()
	}
	u.place = "trailer"
	return h, u.trailer(h.Files)
}

// next returns the next n bytes, at most copyBufferBytes, valid until the next call.
func (u *unpacker) next(n int) ([]byte, error) {
	b := u.buf[:n]
	if int64(n) > u.left {
		return nil, fmt.Errorf("%w: truncated", ErrArchive)
	}
	if _, err := io.ReadFull(u.r, b); err != nil {
		return nil, readError(err)
	}
	u.left -= int64(n)
	_, _ = u.sum.Write(b) // a digest never fails
	return b, nil
}

// readError tells a stream that ends early from a reader that fails.
func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: truncated", ErrArchive)
	}
	return fmt.Errorf("read snapshot stream: %w", err)
}

func (u *unpacker) file() error {
	u.place = fmt.Sprintf("file %d", len(u.names)+1)
	b, err := u.next(fileHeaderBytes)
	if err != nil {
		return err
	}
	nameLen, size := int(binary.BigEndian.Uint16(b)), binary.BigEndian.Uint64(b[2:])
	if nameLen > maxFileName {
		return fmt.Errorf("%w: a name of %d bytes", ErrArchive, nameLen)
	}
	if b, err = u.next(nameLen); err != nil {
		return err
	}
	name := string(b)
	if !validFileName(name) {
		return fmt.Errorf("%w: file name %q", ErrArchive, name)
	}
	if _, twice := u.names[name]; twice {
		return fmt.Errorf("%w: file %q twice", ErrArchive, name)
	}
	if u.left < 0 || size > uint64(u.left) {
		return fmt.Errorf("%w: file %q of %d bytes", ErrArchive, name, size)
	}
	u.names[name] = struct{}{}
	u.place = "file " + name
	if u.fs == nil {
		return u.body(io.Discard, int64(size))
	}
	f, err := u.fs.Create(u.fs.PathJoin(u.dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err = u.body(f, int64(size)); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (u *unpacker) body(w io.Writer, size int64) error {
	for size > 0 {
		b, err := u.next(int(min(size, copyBufferBytes)))
		if err != nil {
			return err
		}
		size -= int64(len(b))
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) trailer(files uint32) error {
	b, err := u.next(trailerBytes - 8)
	if err != nil {
		return err
	}
	if string(b[:4]) != archiveEnd || binary.BigEndian.Uint32(b[4:]) != files {
		return fmt.Errorf("%w: wrong trailer", ErrArchive)
	}
	want := u.sum.Sum64()
	if b, err = u.next(8); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(b) != want {
		return fmt.Errorf("%w: checksum differs", ErrArchive)
	}
	if n, _ := io.ReadFull(u.r, u.buf[:1]); n != 0 || u.left != 0 {
		return fmt.Errorf("%w: bytes after the end", ErrArchive)
	}
	return nil
}
