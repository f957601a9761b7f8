package backup

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"quinto/fsm"
)

// The archive, version 1; all numbers are big-endian:
//
//	head   magic[8] version[2] zero[2] length[4] JSON xxhash64 of all before[8]
//	block  length[4] xxhash64 of (number[8] length[4] bytes)[8] bytes   (number counts from 0)
//	end    zero[4] blocks[8] bytes of all blocks[8] xxhash64 of (QEND blocks bytes head's checksum)[8]
const (
	magic         = "QUINTOBK"
	formatVersion = 1
	endMagic      = "QEND"

	fixedHead   = 16
	sumBytes    = 8
	blockHead   = 4 + sumBytes
	endBytes    = 4 + 8 + 8 + sumBytes
	maxContents = int64(1) << 40
)

// encodeHead returns the bytes of a head with its checksum.
func encodeHead(h *Head) ([]byte, error) { return encodeHeadOf(magic, h) }

// encodeHeadOf does it for the head h of any file of this package.
func encodeHeadOf(magic string, h any) ([]byte, error) {
	body, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(body) > MaxHeadBytes {
		return nil, fmt.Errorf("backup: a head of %d bytes", len(body))
	}
	b := append(make([]byte, 0, fixedHead+len(body)+sumBytes), magic...)
	b = binary.BigEndian.AppendUint16(b, formatVersion)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	return binary.BigEndian.AppendUint64(b, xxhash.Sum64(b)), nil
}

// blockSum also covers the place of the block, so that blocks that changed places
// are found.
func blockSum(number uint64, data []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	var n [12]byte
	binary.BigEndian.PutUint64(n[:], number)
	binary.BigEndian.PutUint32(n[8:], uint32(len(data)))
	_, _ = d.Write(n[:]) // a digest never fails
	_, _ = d.Write(data)
	return d.Sum64()
}

func encodeEnd(blocks, size, headSum uint64) []byte {
	b := append(make([]byte, 0, 32), endMagic...)
	b = binary.BigEndian.AppendUint64(b, blocks)
	b = binary.BigEndian.AppendUint64(b, size)
	sum := xxhash.Sum64(binary.BigEndian.AppendUint64(b, headSum))
	return binary.BigEndian.AppendUint64(append(make([]byte, 4, endBytes), b[4:]...), sum)
}

// Size is the length in bytes of the archive that Encode makes with this head.
func Size(h *Head) (int64, error) {
	b, err := encodeHead(h)
	if err != nil {
		return 0, err
	}
	return sizeWith(int64(len(b)), h.Size), nil
}

func sizeWith(head, content int64) int64 {
	return head + (content+BlockBytes-1)/BlockBytes*blockHead + content + endBytes
}

// Encode writes an archive with exactly h.Size bytes of content.
func Encode(w io.Writer, h *Head, content io.Reader) error {
	head, err := encodeHead(h)
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	headSum := binary.BigEndian.Uint64(head[len(head)-sumBytes:])
	buf := make([]byte, blockHead+BlockBytes)
	var number uint64
	for left := h.Size; left > 0; number++ {
		n := int(min(left, BlockBytes))
		data := buf[blockHead : blockHead+n]
		if _, err := io.ReadFull(content, data); err != nil {
			return fmt.Errorf("backup: read the state: %w", err)
		}
		binary.BigEndian.PutUint32(buf, uint32(n))
		binary.BigEndian.PutUint64(buf[4:], blockSum(number, data))
		if _, err := w.Write(buf[:blockHead+n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	_, err = w.Write(encodeEnd(number, uint64(h.Size), headSum))
	return err
}

// Reader reads an archive: first its head, then, as an io.Reader, its content,
// which it checks block by block. io.EOF comes only behind a sound end.
type Reader struct {
	Head Head

	parser
	headLen int64
	headSum uint64
	blocks  uint64
	read    int64 // of the content
	buf     []byte
	rest    []byte // of the present block
	err     error
}

// NewReader reads the head. Its error is a *Fault, or that of r.
func NewReader(r io.Reader) (*Reader, error) {
	a := &Reader{parser: parser{r: r}}
	return a, a.head()
}

// parser reads the parts of a file of this package.
type parser struct {
	r  io.Reader
	at int64 // where the part at hand begins
}

// fault makes the error of a part that begins at a.at.
func (a *parser) fault(part string, kind error, format string, args ...any) error {
	return &Fault{Offset: a.at, Part: part, Kind: kind, Reason: fmt.Sprintf(format, args...)}
}

// full reads len(b) bytes of a part that lie skip bytes behind its beginning; those
// that are missing are a fault.
func (a *parser) full(part string, skip int64, b []byte) error {
	n, err := io.ReadFull(a.r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Fault{Offset: a.at, Part: part, Kind: ErrDamaged,
			Reason: fmt.Sprintf("the archive ends at byte %d", a.at+skip+int64(n))}
	}
	return err
}

// headOf reads the head of a file that begins with magic: its JSON, its length, its
// checksum. a.at stays at its beginning.
func (a *parser) headOf(magic string) (body []byte, size int64, sum uint64, err error) {
	fixed := make([]byte, fixedHead)
	n, err := io.ReadFull(a.r, fixed)
	if n >= len(magic) && string(fixed[:len(magic)]) != magic || n < len(magic) && (err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return nil, 0, 0, a.fault("head", ErrForeign, "it does not begin with %s", magic)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, 0, 0, a.fault("head", ErrDamaged, "the archive ends at byte %d", n)
	}
	if err != nil {
		return nil, 0, 0, err
	}
	if v := binary.BigEndian.Uint16(fixed[8:]); v != formatVersion || fixed[10] != 0 || fixed[11] != 0 {
		return nil, 0, 0, a.fault("head", ErrNewer, "its format is %d, this program knows %d", v, formatVersion)
	}
	length := binary.BigEndian.Uint32(fixed[12:])
	if length > MaxHeadBytes {
		return nil, 0, 0, a.fault("head", ErrDamaged, "a length of %d bytes", length)
	}
	all := make([]byte, fixedHead+int(length)+sumBytes)
	copy(all, fixed)
	if err := a.full("head", fixedHead, all[fixedHead:]); err != nil {
		return nil, 0, 0, err
	}
	sum = binary.BigEndian.Uint64(all[len(all)-sumBytes:])
	if xxhash.Sum64(all[:len(all)-sumBytes]) != sum {
		return nil, 0, 0, a.fault("head", ErrDamaged, "its checksum differs")
	}
	return all[fixedHead : fixedHead+length], int64(len(all)), sum, nil
}

func (a *Reader) head() error {
	body, size, sum, err := a.headOf(magic)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &a.Head); err != nil {
		return a.fault("head", ErrDamaged, "%v", err)
	}
	switch h := &a.Head; {
	case h.Kind != KindState:
		return a.fault("head", ErrNewer, "content of kind %q", h.Kind)
	case h.Level > fsm.FeatureCurrent:
		return a.fault("head", ErrNewer, "it needs feature level %d, this program knows %d", h.Level, fsm.FeatureCurrent)
	case h.Size < 0 || h.Size > maxContents:
		return a.fault("head", ErrDamaged, "a content of %d bytes", h.Size)
	}
	a.headLen, a.headSum = size, sum
	a.at = a.headLen
	return nil
}

// size is how long the archive is, as its head says.
func (a *Reader) size() int64 { return sizeWith(a.headLen, a.Head.Size) }

// Read implements io.Reader for the content.
func (a *Reader) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.err == nil {
			a.err = a.next()
		}
		if a.err != nil {
			return 0, a.err
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// next reads one block, or the end and then returns io.EOF.
func (a *Reader) next() error {
	part := fmt.Sprintf("block %d", a.blocks)
	if a.read >= a.Head.Size {
		part = "end"
	}
	if a.buf == nil {
		a.buf = make([]byte, blockHead+BlockBytes)
	}
	if err := a.full(part, 0, a.buf[:4]); err != nil {
		return err
	}
	size := int64(binary.BigEndian.Uint32(a.buf))
	switch {
	case part == "end" && size != 0 || size > BlockBytes || a.read+size > a.Head.Size:
		return a.fault(part, ErrDamaged, "a length of %d bytes, %d are left of the content", size, a.Head.Size-a.read)
	case part == "end":
		return a.end()
	case size == 0:
		return a.fault(part, ErrDamaged, "the content ends after %d of %d bytes", a.read, a.Head.Size)
	}
	if err := a.full(part, 4, a.buf[4:blockHead+size]); err != nil {
		return err
	}
	data := a.buf[blockHead : blockHead+size]
	if binary.BigEndian.Uint64(a.buf[4:]) != blockSum(a.blocks, data) {
		return a.fault(part, ErrDamaged, "its checksum differs")
	}
	a.rest = data
	a.blocks++
	a.read += size
	a.at += blockHead + size
	return nil
}

// end checks what follows the zero length, and that nothing follows it.
func (a *Reader) end() error {
	want := encodeEnd(a.blocks, uint64(a.read), a.headSum)
	if err := a.full("end", 4, a.buf[4:endBytes]); err != nil {
		return err
	}
	if string(a.buf[:endBytes]) != string(want) {
		return a.fault("end", ErrDamaged, "it does not fit what is before it")
	}
	a.at += endBytes
	return a.last()
}

// last returns io.EOF if nothing follows the end.
func (a *parser) last() error {
	n, err := io.ReadFull(a.r, make([]byte, 1))
	if n != 0 {
		return a.fault("end", ErrDamaged, "bytes follow the end")
	}
	return err // io.EOF
}
