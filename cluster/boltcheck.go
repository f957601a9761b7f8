package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"slices"
)

// bolt has a checksum in its two first pages only. It takes what all others say
// about themselves at its word, and ends the process with a trace where that makes
// no sense; where it does make sense, entries vanish. So the file is read once
// before bolt may: every page that can be reached must have exactly the form in
// which bolt writes it. The layout is bbolt's version 2, which is fixed.
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	boltMetaBytes  = 64 // up to its checksum, which is 8 more
	boltHeader     = 16 // of a page
	boltElement    = 16 // of a branch or a leaf
	boltBucketHead = 16
	boltBranch     = 1
	boltLeaf       = 2
	boltMetaPage   = 4
	boltFreePage   = 16
	boltNoFreelist = 1<<64 - 1
	boltMinPage    = 1 << 10
	boltMaxPage    = 1 << 24
	boltMaxDepth   = 32
)

type boltMeta struct {
	pageSize   int64
	root, high uint64 // page of the root bucket; first page beyond the used ones
	free, txid uint64 // page of the list of free pages, or boltNoFreelist
}

// boltLogBuckets and walMetaBuckets are the buckets of the two files, with the keys
// that may be in them; nil: any. A bucket or key under another name would be taken
// for one that was never written: an empty log, no vote.
var (
	boltLogBuckets = map[string][]string{"logs": nil, "conf": stableKeys}
	walMetaBuckets = map[string][]string{"wal-meta": {"m"}, "stable": stableKeys}
	stableKeys     = []string{raftTermKey, "LastVoteTerm", "LastVoteCand", markKey}
)

// boltChecker walks a file; seen guards against loops and pages used twice.
type boltChecker struct {
	file    io.ReaderAt
	meta    boltMeta
	buckets map[string][]string
	seen    map[uint64]bool
	found   int // buckets
}

// checkBolt returns ErrDamaged if the bolt file at path is not whole. A file that is
// missing is its user's to make; one that is empty, or has no buckets, too where fresh
// says that a crash may leave it so. What is in free pages has no effect and is not
// looked at; the values are the caller's to check.
func checkBolt(path string, buckets map[string][]string, fresh bool) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || fresh && info.Size() == 0 {
		return err
	}
	c := &boltChecker{file: f, buckets: buckets, seen: map[uint64]bool{}}
	err = c.check(info.Size())
	if err == nil && c.found != len(buckets) && (c.found > 0 || !fresh) {
		err = fmt.Errorf("%d of %d buckets", c.found, len(buckets))
	}
	if err != nil {
		return fmt.Errorf("%w: %q: %w", ErrDamaged, path, err)
	}
	return nil
}

func (c *boltChecker) check(size int64) error {
	m0, err := c.readMeta(0, 0)
	if err != nil {
		return err
	}
	m1, err := c.readMeta(m0.pageSize, 1)
	if err != nil {
		return err
	}
	// bolt falls back to the older one if the newer one is broken, and so forgets
	// what was synced last. A crash does not tear 80 bytes of one sector.
	if m1.pageSize != m0.pageSize || max(m0.txid, m1.txid)-min(m0.txid, m1.txid) != 1 {
		return errors.New("its two first pages do not belong together")
	}
	if c.meta = m0; m1.txid > m0.txid {
		c.meta = m1
	}
	if size < int64(c.meta.high)*c.meta.pageSize {
		return fmt.Errorf("%d bytes of %d pages", size, c.meta.high)
	}
	if err := c.page(c.meta.root, nil, nil, nil, 0); err != nil {
		return err
	}
	return c.freelist()
}

// freelist checks the list of free pages, where one is stored: bolt overwrites them.
func (c *boltChecker) freelist() error {
	if c.meta.free == boltNoFreelist {
		return nil
	}
	b, err := c.read(c.meta.free, 0)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	count, list := uint64(le.Uint16(b[10:])), b[boltHeader:]
	if count == 0xffff { // then the number comes first
		count, list = le.Uint64(list), list[8:]
	}
	if le.Uint16(b[8:]) != boltFreePage || count > uint64(len(list)/8) {
		return fmt.Errorf("list of %d free pages", count)
	}
	last := uint64(1)
	for range count {
		id := le.Uint64(list)
		if list = list[8:]; id <= last || id >= c.meta.high || c.seen[id] {
			return fmt.Errorf("page %d in the list of free pages", id)
		}
		last = id
	}
	return nil
}

func (c *boltChecker) readMeta(at int64, id uint64) (m boltMeta, err error) {
	b := make([]byte, boltHeader+boltMetaBytes)
	if _, err := c.file.ReadAt(b, at); err != nil {
		return m, fmt.Errorf("page %d: %w", id, err)
	}
	head, b := b[:boltHeader], b[boltHeader:]
	h := fnv.New64a()
	_, _ = h.Write(b[:boltMetaBytes-8]) // a hash does not fail
	le := binary.LittleEndian
	if le.Uint32(b) != boltMagic || le.Uint32(b[4:]) != boltVersion || h.Sum64() != le.Uint64(b[boltMetaBytes-8:]) {
		return m, fmt.Errorf("checksum of page %d", id)
	}
	m = boltMeta{pageSize: int64(le.Uint32(b[8:])), root: le.Uint64(b[16:]), free: le.Uint64(b[32:]), high: le.Uint64(b[40:]), txid: le.Uint64(b[48:])}
	if le.Uint64(head) != id || le.Uint16(head[8:]) != boltMetaPage || m.pageSize < boltMinPage || m.pageSize > boltMaxPage {
		return m, fmt.Errorf("head of page %d", id)
	}
	return m, nil
}

// page checks page id and all below it: its keys are at least low, and below high
// unless that is nil. bucket is nil for the root tree, whose elements are buckets.
func (c *boltChecker) page(id uint64, low, high []byte, bucket *boltBucket, depth int) error {
	b, err := c.read(id, depth)
	if err != nil {
		return err
	}
	return c.elements(id, b, low, high, bucket, depth)
}

// read returns the bytes of a page with those that follow it.
func (c *boltChecker) read(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= c.meta.high || depth > boltMaxDepth {
		return nil, fmt.Errorf("a reference to page %d", id)
	}
	head := make([]byte, boltHeader)
	if _, err := c.file.ReadAt(head, int64(id)*c.meta.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	more := uint64(binary.LittleEndian.Uint32(head[12:]))
	if binary.LittleEndian.Uint64(head) != id || more >= c.meta.high-id {
		return nil, fmt.Errorf("head of page %d", id)
	}
	for p := id; p <= id+more; p++ {
		if c.seen[p] {
			return nil, fmt.Errorf("page %d is used twice", p)
		}
		c.seen[p] = true
	}
	b := make([]byte, int64(more+1)*c.meta.pageSize)
	if _, err := c.file.ReadAt(b, int64(id)*c.meta.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return b, nil
}

// elements checks b, a page or the inline one of a bucket.
func (c *boltChecker) elements(id uint64, b, low, high []byte, bucket *boltBucket, depth int) error {
	le := binary.LittleEndian
	flags, count := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	end := boltHeader + count*boltElement // where the data of the next element must begin
	branch := flags == boltBranch
	if !branch && flags != boltLeaf || end > len(b) || branch && count == 0 {
		return fmt.Errorf("kind of page %d, or its %d elements", id, count)
	}
	if count == 0 && len(bytes.Trim(b[end:], "\x00")) > 0 { // bolt writes zeroes behind what it writes
		return fmt.Errorf("page %d has lost its elements", id)
	}
	type child struct {
		page uint64
		key  []byte
	}
	var children []child
	for i := range count {
		at := boltHeader + i*boltElement
		e := b[at : at+boltElement]
		pos, size, value := int(le.Uint32(e[4:])), int(le.Uint32(e[8:])), int(le.Uint32(e[12:]))
		if branch {
			pos, size, value = int(le.Uint32(e)), int(le.Uint32(e[4:])), 0
		}
		if at+pos != end || size == 0 || size > len(b)-end || value > len(b)-end-size {
			return fmt.Errorf("element %d of page %d", i, id)
		}
		key := b[end : end+size]
		if bytes.Compare(key, low) < 0 || i > 0 && bytes.Equal(key, low) || high != nil && bytes.Compare(key, high) >= 0 {
			return fmt.Errorf("order of keys in page %d", id)
		}
		low = key
		if branch {
			children = append(children, child{le.Uint64(e[8:]), key})
		} else if err := c.leaf(id, le.Uint32(e), key, b[end+size:end+size+value], bucket, depth); err != nil {
			return err
		}
		end += size + value
	}
	for i, k := range children {
		next := high
		if i+1 < len(children) {
			next = children[i+1].key
		}
		if err := c.page(k.page, k.key, next, bucket, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// boltBucket is the bucket whose tree is walked.
type boltBucket struct{ keys []string }

// leaf checks one element of a leaf: buckets lie in the root tree only.
func (c *boltChecker) leaf(id uint64, flags uint32, key, value []byte, bucket *boltBucket, depth int) error {
	if bucket != nil {
		if flags != 0 || bucket.keys != nil && !slices.Contains(bucket.keys, string(key)) {
			return fmt.Errorf("key %q in page %d", key, id)
		}
		return nil
	}
	keys, known := c.buckets[string(key)]
	if flags != 1 || !known || len(value) < boltBucketHead {
		return fmt.Errorf("bucket %q in page %d", key, id)
	}
	c.found++
	bucket = &boltBucket{keys}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return c.page(root, nil, nil, bucket, depth+1)
	}
	inline := value[boltBucketHead:]
	if len(inline) < boltHeader || binary.LittleEndian.Uint16(inline[8:]) != boltLeaf {
		return fmt.Errorf("bucket %q in page %d", key, id)
	}
	return c.elements(id, inline, nil, nil, bucket, depth)
}
