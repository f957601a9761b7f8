package backup

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"quinto/fsm"
)

// A segment of the log, version 1; all numbers are big-endian:
//
//	head   magic[8] version[2] zero[2] length[4] JSON xxhash64 of all before[8]
//	entry  length[4] xxhash64 of (index[8] length[4] bytes)[8] bytes: term[8] type[1] data
//	end    zero[4] entries[8] bytes of all entries[8] xxhash64 of (QEND entries bytes, the head's
//	       checksum, xxhash64 of the entries' checksums)[8]
//
// Indexes are not written: the first entry has the head's First, each further one the
// next. Type 1 is a command, with its data; 0 an entry that the state machine never
// sees, without.
const (
	segmentMagic = "QUINTOLG"
	entryPlain   = 8 + 1 // of an entry's bytes, before its data

	entryNothing byte = 0
	entryCommand byte = 1
)

// MaxEntryBytes bounds the data of one entry of a segment: the largest transaction
// alone in its entry, and room for what is around it.
const MaxEntryBytes = fsm.MaxTxnBytes + 1<<20

// KindLog is the content of a segment: entries of the log.
const KindLog = "log"

// SegmentHead says what a segment holds. Fields are only ever added. Of the same
// entries there is one head, whoever archives them, but for Revision and StateHash.
type SegmentHead struct {
	Kind    string `json:"kind"`
	Cluster string `json:"cluster"`
	// Life is where the life of revisions began that the entries belong to.
	Life fsm.Revision `json:"life"`
	// First and Last are indexes of the log; every entry between is there.
	First     uint64 `json:"first"`
	Last      uint64 `json:"last"`
	FirstTerm uint64 `json:"first_term"`
	LastTerm  uint64 `json:"last_term"`
	// FirstTime and LastTime are the clocks of the first and the last command, ms; 0:
	// there is none, or it has none.
	FirstTime fsm.Timestamp `json:"first_time"`
	LastTime  fsm.Timestamp `json:"last_time"`
	// Level is the feature level that a program must know to apply them.
	Level uint32 `json:"level"`
	// Revision and StateHash (hexadecimal) are those of the state behind Last, if they
	// were known: a segment that ends while more entries wait does not know them.
	Revision  fsm.Revision `json:"revision,omitempty"`
	StateHash string       `json:"state_hash,omitempty"`
}

// Entry is one entry of the log. Data is nil unless it is a Command.
type Entry struct {
	Index, Term uint64
	Command     bool
	Data        []byte
}

// SegmentBuilder gathers entries in memory until they are encoded as a segment.
type SegmentBuilder struct {
	first, last         uint64
	firstTerm, lastTerm uint64
	firstCmd, lastCmd   [2]int // where the data of the first and of the last command lies in frames
	frames              []byte
	sums                xxhash.Digest
}

// entrySum also covers the index of an entry, so that entries that changed places are
// found.
func entrySum(index uint64, body []byte) uint64 {
	return blockSum(index, body)
}

// Add appends an entry, which must follow the one before. Data is copied.
func (b *SegmentBuilder) Add(e Entry) error {
	if b.first == 0 {
		b.first, b.firstTerm = e.Index, e.Term
		b.sums.Reset()
	} else if e.Index != b.last+1 || e.Term < b.lastTerm {
		return fmt.Errorf("backup: entry %d of term %d behind entry %d of term %d", e.Index, e.Term, b.last, b.lastTerm)
	}
	if len(e.Data) > MaxEntryBytes {
		return fmt.Errorf("backup: entry %d has %d bytes", e.Index, len(e.Data))
	}
	b.last, b.lastTerm = e.Index, e.Term
	kind, data := entryNothing, []byte(nil)
	if e.Command {
		kind, data = entryCommand, e.Data
	}
	size := entryPlain + len(data)
	at := len(b.frames)
	b.frames = append(b.frames, make([]byte, blockHead)...)
	b.frames = append(binary.BigEndian.AppendUint64(b.frames, e.Term), kind)
	b.frames = append(b.frames, data...)
	sum := entrySum(e.Index, b.frames[at+blockHead:])
	binary.BigEndian.PutUint32(b.frames[at:], uint32(size))
	binary.BigEndian.PutUint64(b.frames[at+4:], sum)
	_, _ = b.sums.Write(binary.BigEndian.AppendUint64(nil, sum)) // a digest never fails
	if e.Command {
		b.lastCmd = [2]int{at + blockHead + entryPlain, len(b.frames)}
		if b.firstCmd[1] == 0 {
			b.firstCmd = b.lastCmd
		}
	}
	return nil
}

// Len is how many bytes of entries there are.
func (b *SegmentBuilder) Len() int { return len(b.frames) }

// Last is the index of the last entry, 0 when there is none.
func (b *SegmentBuilder) Last() uint64 { return b.last }

// Segment returns head, completed with what the entries say, and the segment's bytes.
// Of head it needs Cluster, Life and Level, and takes Revision and StateHash as they
// are. fsm.ErrCorrupt: a command does not decode.
func (b *SegmentBuilder) Segment(head SegmentHead) (*SegmentHead, []byte, error) {
	head.Kind, head.First, head.Last, head.FirstTerm, head.LastTerm = KindLog, b.first, b.last, b.firstTerm, b.lastTerm
	var err error
	if b.firstCmd[1] != 0 {
		if head.FirstTime, err = fsm.EntryClock(b.frames[b.firstCmd[0]:b.firstCmd[1]]); err != nil {
			return nil, nil, err
		}
		if head.LastTime, err = fsm.EntryClock(b.frames[b.lastCmd[0]:b.lastCmd[1]]); err != nil {
			return nil, nil, err
		}
	}
	out, err := encodeHeadOf(segmentMagic, &head)
	if err != nil {
		return nil, nil, err
	}
	headSum := binary.BigEndian.Uint64(out[len(out)-sumBytes:])
	out = append(append(make([]byte, 0, len(out)+len(b.frames)+endBytes), out...), b.frames...)
	return &head, append(out, encodeSegmentEnd(b.last-b.first+1, uint64(len(b.frames)), headSum, b.sums.Sum64())...), nil
}

func encodeSegmentEnd(entries, size, headSum, sums uint64) []byte {
	b := encodeEnd(entries, size, headSum)
	sum := binary.BigEndian.Uint64(b[endBytes-sumBytes:])
	sum = xxhash.Sum64(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, sum), sums))
	return binary.BigEndian.AppendUint64(b[:endBytes-sumBytes], sum)
}

// SegmentReader reads a segment: first its head, then entry by entry.
type SegmentReader struct {
	Head SegmentHead

	parser
	headSum uint64
	entries uint64
	size    uint64
	term    uint64
	sums    xxhash.Digest
	sum     uint64 // of the last entry that was read
	begin   int64  // of it, in the file
	buf     []byte
	ended   bool
}

// NewSegmentReader reads the head. Its error is a *Fault, or that of r.
func NewSegmentReader(r io.Reader) (*SegmentReader, error) {
	s := &SegmentReader{parser: parser{r: r}}
	s.sums.Reset()
	body, size, sum, err := s.headOf(segmentMagic)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &s.Head); err != nil {
		return nil, s.fault("head", ErrDamaged, "%v", err)
	}
	switch h := &s.Head; {
	case h.Kind != KindLog:
		return nil, s.fault("head", ErrNewer, "content of kind %q", h.Kind)
	case h.Level > fsm.FeatureCurrent:
		return nil, s.fault("head", ErrNewer, "it needs feature level %d, this program knows %d", h.Level, fsm.FeatureCurrent)
	case h.First == 0 || h.Last < h.First:
		return nil, s.fault("head", ErrDamaged, "entries %d to %d", h.First, h.Last)
	}
	s.at, s.headSum = size, sum
	return s, nil
}

// part is how faults call the entry that comes next, or the end.
func (s *SegmentReader) part() string {
	if s.entries > s.Head.Last-s.Head.First {
		return "end"
	}
	return fmt.Sprintf("entry %d", s.Head.First+s.entries)
}

// Next returns the next entry, whose Data is valid until the next call. io.EOF comes
// only behind a sound end; any other error is a *Fault, or that of the reader.
func (s *SegmentReader) Next() (Entry, error) {
	if s.ended {
		return Entry{}, io.EOF
	}
	part := s.part()
	var fixed [endBytes]byte
	if err := s.full(part, 0, fixed[:4]); err != nil {
		return Entry{}, err
	}
	size := int(binary.BigEndian.Uint32(fixed[:]))
	switch {
	case part == "end" && size != 0 || size > entryPlain+MaxEntryBytes || size != 0 && size < entryPlain:
		return Entry{}, s.fault(part, ErrDamaged, "a length of %d bytes", size)
	case part == "end":
		return Entry{}, s.end(fixed[:])
	case size == 0:
		return Entry{}, s.fault(part, ErrDamaged, "the segment ends before entry %d", s.Head.Last)
	}
	if err := s.full(part, 4, fixed[4:blockHead]); err != nil {
		return Entry{}, err
	}
	if cap(s.buf) < size {
		s.buf = make([]byte, size)
	}
	body := s.buf[:size]
	if err := s.full(part, blockHead, body); err != nil {
		return Entry{}, err
	}
	e := Entry{Index: s.Head.First + s.entries, Term: binary.BigEndian.Uint64(body)}
	s.sum = entrySum(e.Index, body)
	if s.sum != binary.BigEndian.Uint64(fixed[4:]) {
		return Entry{}, s.fault(part, ErrDamaged, "its checksum differs")
	}
	switch kind := body[8]; {
	case kind != entryCommand && (kind != entryNothing || size != entryPlain):
		return Entry{}, s.fault(part, ErrNewer, "an entry of type %d with %d bytes", kind, size-entryPlain)
	case e.Term < max(s.term, s.Head.FirstTerm) || e.Term > s.Head.LastTerm:
		return Entry{}, s.fault(part, ErrDamaged, "term %d behind term %d", e.Term, s.term)
	case kind == entryCommand:
		e.Command, e.Data = true, body[entryPlain:]
	}
	_, _ = s.sums.Write(binary.BigEndian.AppendUint64(nil, s.sum)) // a digest never fails
	s.begin, s.term = s.at, e.Term
	s.at += int64(blockHead + size)
	s.size += uint64(blockHead + size)
	s.entries++
	return e, nil
}

// end checks what follows the zero length, and that nothing follows it.
func (s *SegmentReader) end(buf []byte) error {
	if err := s.full("end", 4, buf[4:]); err != nil {
		return err
	}
	if string(buf) != string(encodeSegmentEnd(s.entries, s.size, s.headSum, s.sums.Sum64())) {
		return s.fault("end", ErrDamaged, "it does not fit what is before it")
	}
	s.at += endBytes
	s.ended = true
	return s.last()
}
