package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// The form of a segment of the WAL, which its version fixes: a header, then batches
// of frames, each padded to frameBytes. A commit frame ends a batch and has the
// checksum of all of it; the first batch's has the file's header in it too.
const (
	walHeaderBytes = 32
	frameBytes     = 8 // of a frame's header
	frameEntry     = 1
	frameIndex     = 2 // of a segment that is full
	frameCommit    = 3
)

// walFiler opens the files of the WAL and checks the newest of them first. The WAL
// itself ends the log there at the first frame that makes no sense, as if a crash
// had cut a write short, whatever follows.
type walFiler struct {
	types.SegmentFiler
	dir string
	// tail is the first index of the newest segment.
	tail atomic.Uint64
}

func newWALFiler(dir string) *walFiler {
	return &walFiler{SegmentFiler: segment.NewFiler(dir, walfs.New()), dir: dir}
}

// Create is types.SegmentFiler's.
func (f *walFiler) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	f.tail.Store(info.BaseIndex)
	return f.SegmentFiler.Create(info)
}

// RecoverTail is types.SegmentFiler's; ErrDamaged when the segment is not what a
// crash can leave.
func (f *walFiler) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	f.tail.Store(info.BaseIndex)
	data, err := os.ReadFile(filepath.Join(f.dir, segment.FileName(info)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err // the WAL makes it anew, and the mark shows whether that is right
	}
	if err == nil {
		err = checkTail(data, int(info.SizeLimit))
	}
	if err != nil {
		return nil, fmt.Errorf("segment from %d on: %w", info.BaseIndex, err)
	}
	return f.SegmentFiler.RecoverTail(info)
}

// checkTail returns ErrDamaged if whole batches follow what cannot be read in data,
// a segment that had size bytes when it was made. A write that was cut short is the
// last one, and its checksum fails: what stands behind it whole was acknowledged.
func checkTail(data []byte, size int) error {
	end := 0 // of the batches that are whole
	if commit, ok := walBatch(data, 0, walHeaderBytes); ok {
		for ok {
			end = commit + frameBytes
			commit, ok = walBatch(data, end, end)
		}
	}
	if end > 0 && len(data) < size {
		return fmt.Errorf("%w: %d bytes of %d", ErrDamaged, len(data), size)
	}
	for at := max(end, walHeaderBytes); at+frameBytes <= len(data); at += frameBytes {
		if _, ok := walBatch(data, at, at); ok {
			return fmt.Errorf("%w: entries at byte %d, behind what cannot be read from %d on", ErrDamaged, at, end)
		}
	}
	return nil
}

// walBatch follows the frames from at on and returns where the next commit frame is,
// if the checksum of all from start to it is right.
func walBatch(data []byte, start, at int) (commit int, ok bool) {
	for at+frameBytes <= len(data) {
		head := data[at : at+frameBytes]
		value := binary.LittleEndian.Uint32(head[4:])
		switch kind := head[0]; {
		case head[1]|head[2]|head[3] != 0:
			return 0, false
		case kind == frameCommit:
			return at, at > start && crc32.Checksum(data[start:at], castagnoli) == value
		case kind != frameEntry && kind != frameIndex, int64(value) > int64(len(data)-at-frameBytes):
			return 0, false
		}
		at += frameBytes + (int(value)+frameBytes-1)/frameBytes*frameBytes
	}
	return 0, false
}
