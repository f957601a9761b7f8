package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

type rawFile struct{ name, body string }

// pack writes a stream by hand, also a wrong one, with a right checksum.
func pack(h archiveHeader, files ...rawFile) []byte {
	h.Files = uint32(len(files))
	b := h.encode()
	for _, f := range files {
		b = append(append(b, encodeFileHeader(f.name, int64(len(f.body)))...), f.body...)
	}
	sum := xxhash.New()
	_, _ = sum.Write(b)
	return append(b, encodeTrailer(h.Files, sum)...)
}

func samplePack() []byte {
	return pack(archiveHeader{Kind: KindReplica, Index: 42, Term: 3},
		rawFile{"000004.sst", "some bytes"}, rawFile{"marker.manifest.000001.MANIFEST-000001", ""})
}

func unpackBytes(data []byte) (archiveHeader, *vfs.MemFS, error) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("d", 0o755); err != nil {
		return archiveHeader{}, nil, err
	}
	h, err := unpack(bytes.NewReader(data), int64(len(data)), fs, "d", func() {})
	return h, fs, err
}

func TestArchiveGolden(t *testing.T) {
	golden(t, "stream-1", samplePack())
	h, fs, err := unpackBytes(samplePack())
	check(t, err)
	if h != (archiveHeader{KindReplica, 2, 42, 3}) {
		t.Fatalf("%+v", h)
	}
	f, err := fs.Open("d/000004.sst")
	check(t, err)
	body, err := io.ReadAll(f)
	check(t, err)
	if string(body) != "some bytes" {
		t.Fatalf("%q", body)
	}
}

func TestArchiveRefusesEveryFlippedBitAndCut(t *testing.T) {
	data := samplePack()
	for i := range data {
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << bit
			if _, _, err := unpackBytes(bad); !errors.Is(err, ErrArchive) && !errors.Is(err, ErrArchiveVersion) {
				t.Fatalf("byte %d bit %d: %v", i, bit, err)
			}
		}
		if _, _, err := unpackBytes(data[:i]); !errors.Is(err, ErrArchive) {
			t.Fatalf("cut at %d: %v", i, err)
		}
		// The announced size is right, the reader ends early.
		_, err := unpack(bytes.NewReader(data[:i]), int64(len(data)), vfs.NewMem(), "", func() {})
		if !errors.Is(err, ErrArchive) {
			t.Fatalf("reader ends at %d: %v", i, err)
		}
	}
}

func TestArchiveRefusals(t *testing.T) {
	replica := archiveHeader{Kind: KindReplica, Index: 1, Term: 1}
	huge := pack(replica, rawFile{"a", "xy"})
	binary.BigEndian.PutUint64(huge[headerBytes+2:], 1<<63)
	version := samplePack()
	version[8] = 2
	many := samplePack()
	binary.BigEndian.PutUint32(many[12:], 1<<31)
	for name, tc := range map[string]struct {
		data []byte
		want error
	}{
		"slash":          {pack(replica, rawFile{"../a", "x"}), ErrArchive},
		"backslash":      {pack(replica, rawFile{`a\b`, "x"}), ErrArchive},
		"absolute":       {pack(replica, rawFile{"/etc/x", "x"}), ErrArchive},
		"dots":           {pack(replica, rawFile{"..", "x"}), ErrArchive},
		"empty name":     {pack(replica, rawFile{"", "x"}), ErrArchive},
		"zero byte":      {pack(replica, rawFile{"a\x00b", "x"}), ErrArchive},
		"long name":      {pack(replica, rawFile{strings.Repeat("a", 256), "x"}), ErrArchive},
		"twice":          {pack(replica, rawFile{"a", "x"}, rawFile{"a", "y"}), ErrArchive},
		"no files":       {pack(replica), ErrArchive},
		"too many":       {many, ErrArchive},
		"absurd size":    {huge, ErrArchive},
		"bytes after":    {append(samplePack(), 0), ErrArchive},
		"version":        {version, ErrArchiveVersion},
		"kind":           {pack(archiveHeader{Kind: 3}, rawFile{"a", "x"}), ErrArchiveVersion},
		"something":      {bytes.Repeat([]byte("<html>"), 20), ErrArchive},
		"empty":          {nil, ErrArchive},
		"announced 2^62": {nil, ErrArchive},
	} {
		_, _, err := unpackBytes(tc.data)
		if name == "announced 2^62" {
			_, err = unpack(bytes.NewReader(samplePack()), 1<<62, vfs.NewMem(), "", func() {})
		}
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReaderErrorIsNotDamage keeps a broken disk apart from a bad stream.
func TestReaderErrorIsNotDamage(t *testing.T) {
	boom := errors.New("boom")
	r := io.MultiReader(bytes.NewReader(samplePack()[:50]), &failing{boom})
	_, err := unpack(r, 1000, vfs.NewMem(), "", func() {})
	if !errors.Is(err, boom) || errors.Is(err, ErrArchive) {
		t.Fatal(err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzUnpack(f *testing.F) {
	f.Add(samplePack())
	f.Add(pack(archiveHeader{Kind: KindBackup, Index: 1}, rawFile{"a", "x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, fs, err := unpackBytes(data)
		top, lerr := fs.List("")
		check(t, lerr)
		if len(top) != 1 {
			t.Fatalf("a file left the directory: %v", top)
		}
		if err != nil {
			if !errors.Is(err, ErrArchive) && !errors.Is(err, ErrArchiveVersion) {
				t.Fatal(err)
			}
			return
		}
		files, lerr := fs.List("d")
		check(t, lerr)
		if uint32(len(files)) != h.Files {
			t.Fatalf("%d files, header says %d", len(files), h.Files)
		}
	})
}
