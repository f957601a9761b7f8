package backup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"time"

	"quinto/fsm"
)

// SegmentFolder is where, below the archives, the segments of the log are kept.
const SegmentFolder = "log"

// ErrGap: entries of the log between two segments, or before the first, are missing.
var ErrGap = errors.New("entries of the log are missing")

// ErrOther: a segment is of another cluster, or another life of it, than its archive or
// its name says, or it holds other entries than a segment that it overlaps.
var ErrOther = errors.New("segment of another history")

var segmentForm = regexp.MustCompile(`^quinto-([0-9a-zA-Z-]{1,8})-(\d{1,8})-(\d{20})-(\d{20})-(\d{8}T\d{6}Z)\.log$`)

// Segment is what the name of a segment says.
type Segment struct {
	Name    string
	Cluster string // the beginning of its id, as names have it
	Life    fsm.Revision
	// First and Last are indexes of the log.
	First, Last uint64
	// Time is that of the last command, in seconds; the zero time of 1970: unknown.
	Time time.Time
}

// SegmentName is how a segment is called: by cluster, life, indexes and the time of its
// last command. Names of one life sort by index.
func SegmentName(h *SegmentHead) string {
	return fmt.Sprintf("quinto-%s-%d-%020d-%020d-%s.log", h.Cluster[:min(clusterPart, len(h.Cluster))], h.Life/fsm.LifeStep,
		h.First, h.Last, time.UnixMilli(int64(h.LastTime)).UTC().Format(nameTime))
}

// ParseSegment reads a name; false for one that SegmentName did not make.
func ParseSegment(name string) (Segment, bool) {
	m := segmentForm.FindStringSubmatch(name)
	if m == nil {
		return Segment{}, false
	}
	life, err1 := strconv.ParseUint(m[2], 10, 63)
	first, err2 := strconv.ParseUint(m[3], 10, 64)
	last, err3 := strconv.ParseUint(m[4], 10, 64)
	at, err4 := time.Parse(nameTime, m[5])
	ok := errors.Join(err1, err2, err3, err4) == nil && first > 0 && first <= last && life < uint64(1)<<63/uint64(fsm.LifeStep)
	return Segment{Name: name, Cluster: m[1], Life: fsm.Revision(life) * fsm.LifeStep, First: first, Last: last, Time: at}, ok
}

// Of reports whether s is, by its name, of this life of this cluster.
func (s *Segment) Of(cluster string, life fsm.Revision) bool {
	return s.Cluster == cluster[:min(clusterPart, len(cluster))] && s.Life == life
}

// Segments lists the segments of a place of archives in the order of their first
// entries: of any cluster, sorted by cluster and life before.
func Segments(ctx context.Context, p Place) ([]Segment, error) {
	names, err := p.Below(SegmentFolder).List(ctx)
	if err != nil {
		return nil, err
	}
	var all []Segment
	for _, name := range names {
		if s, ok := ParseSegment(name); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Segment) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Life, b.Life), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	return all, nil
}

// Gap are entries of the log that are in no segment.
type Gap struct {
	// From and To are the first and the last of them.
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	// Before is the segment that begins behind the gap.
	Before string `json:"before"`
}

// String is one line.
func (g *Gap) String() string {
	return fmt.Sprintf("entries %d to %d, before %s", g.From, g.To, g.Before)
}

// Follow picks, of segments in the order of Segments, those of one life that lead on
// from the entry behind index, one to the next. A segment that brings nothing new is
// left out. gap is what ends the row before the last segment; nil: nothing does.
func Follow(all []Segment, cluster string, life fsm.Revision, index uint64) (row []Segment, gap *Gap) {
	for _, s := range all {
		switch {
		case !s.Of(cluster, life) || s.Last <= index:
		case s.First > index+1:
			return row, &Gap{index + 1, s.First - 1, s.Name}
		default:
			row, index = append(row, s), s.Last
		}
	}
	return row, nil
}

// HeadIn reads the head of an archive where it is kept.
func HeadIn(ctx context.Context, p Place, name string) (*Head, error) {
	rc, err := p.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	h, _, _, err := Peek(contextReader{ctx, rc})
	if err = errors.Join(err, rc.Close()); err != nil {
		return nil, fmt.Errorf("%s/%s: %w", p, name, err)
	}
	return h, nil
}

// OpenSegment opens one below a place of archives, and checks that its head says what
// its name says. Errors name the file.
func OpenSegment(ctx context.Context, p Place, s *Segment) (*SegmentReader, io.Closer, error) {
	below := p.Below(SegmentFolder)
	rc, err := below.Open(ctx, s.Name)
	if err != nil {
		return nil, nil, err
	}
	r, err := NewSegmentReader(contextReader{ctx, rc})
	if err == nil && SegmentName(&r.Head) != s.Name {
		err = &Fault{Part: "head", Kind: ErrOther, Reason: "its name would be " + SegmentName(&r.Head)}
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s/%s: %w", below, s.Name, err), rc.Close())
	}
	return r, rc, nil
}

// StoreSegment puts a segment into a place of archives, reads it back and checks it. On
// an error there is no segment of this name.
func StoreSegment(ctx context.Context, p Place, h *SegmentHead, data []byte) error {
	below, s := p.Below(SegmentFolder), Segment{Name: SegmentName(h), First: h.First, Last: h.Last}
	if err := below.Put(ctx, s.Name, bytes.NewReader(data), int64(len(data))); err != nil {
		return err
	}
	chain := NewChain(p, h.Cluster, h.Life, h.First-1)
	if err := chain.Read(ctx, &s, func(Entry) error { return nil }, nil); err != nil {
		return errors.Join(fmt.Errorf("what was written cannot be read back: %w", err), below.Remove(context.WithoutCancel(ctx), s.Name))
	}
	return nil
}

// Chain reads segments one behind the other and sees to it that they belong together.
type Chain struct {
	place   Place
	cluster string
	life    fsm.Revision
	index   uint64 // of the last entry that was read, or that the archive has
	// sums are those of the last entries, up to index: what overlaps must be equal.
	sums []uint64
}

// maxSums bounds what a Chain remembers, in entries; what overlaps further back is
// not compared. The largest segment holds fewer.
const maxSums = 1 << 20

// NewChain begins behind the entry index of a life of a cluster; "": of the one that
// the first segment is of.
func NewChain(p Place, cluster string, life fsm.Revision, index uint64) *Chain {
	return &Chain{place: p, cluster: cluster, life: life, index: index}
}

// Index is that of the last entry that was read.
func (c *Chain) Index() uint64 { return c.index }

// ErrStop is what a reader of entries returns to end the reading in the middle.
var ErrStop = errors.New("stop")

// Read reads a segment to its sound end, gives each the entries that are new, and end,
// unless it is nil, the head afterwards. Errors name the file, the byte and the
// entry: they wrap ErrDamaged, ErrForeign, ErrNewer, ErrOther, ErrGap, or what each
// and end returned. What each got before an error is to be thrown away. If each
// returns ErrStop, the rest is not read and Read returns that.
func (c *Chain) Read(ctx context.Context, s *Segment, each func(Entry) error, end func(*SegmentHead) error) error {
	r, closer, err := OpenSegment(ctx, c.place, s)
	if err != nil {
		return err
	}
	err = c.read(r, each)
	if err == nil && end != nil && c.index == r.Head.Last {
		err = end(&r.Head)
	}
	if cause := closer.Close(); err == nil {
		err = cause
	}
	if err != nil && !errors.Is(err, ErrStop) {
		err = fmt.Errorf("%s/%s: %w", c.place.Below(SegmentFolder), s.Name, err)
	}
	return err
}

func (c *Chain) read(r *SegmentReader, each func(Entry) error) error {
	switch h := &r.Head; {
	case c.cluster == "":
		c.cluster = h.Cluster
		return c.read(r, each)
	case h.Cluster != c.cluster || h.Life != c.life:
		return &Fault{Part: "head", Kind: ErrOther, Reason: fmt.Sprintf("cluster %s from revision %d on, wanted is %s from %d on", h.Cluster, h.Life, c.cluster, c.life)}
	case h.First > c.index+1:
		return fmt.Errorf("%w: %d to %d", ErrGap, c.index+1, h.First-1)
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Index <= c.index {
			if at := c.index - e.Index; at < uint64(len(c.sums)) && c.sums[uint64(len(c.sums))-1-at] != r.sum {
				return &Fault{Offset: r.begin, Part: fmt.Sprintf("entry %d", e.Index), Kind: ErrOther, Reason: "the segment before has another one"}
			}
			continue
		}
		if len(c.sums) >= 2*maxSums {
			c.sums = append(c.sums[:0], c.sums[maxSums:]...)
		}
		c.sums, c.index = append(c.sums, r.sum), e.Index
		if err := each(e); err != nil {
			if errors.Is(err, ErrStop) {
				return err
			}
			return fmt.Errorf("entry %d at byte %d: %w", e.Index, r.begin, err)
		}
	}
}

// VerifySegments reads all segments of a place to their ends and checks every byte, and
// that overlapping ones agree. It returns how many there are, and how
// many entries they hold. What is damaged does not keep it from the others: the errors are joined.
// Gaps are no errors: List tells them.
func VerifySegments(ctx context.Context, p Place) (count int, entries uint64, err error) {
	all, err := Segments(ctx, p)
	if err != nil {
		return 0, 0, err
	}
	var chain *Chain
	for i := range all {
		s := &all[i]
		if i == 0 || !s.Of(all[i-1].Cluster, all[i-1].Life) || s.First > chain.index+1 {
			chain = NewChain(p, "", s.Life, s.First-1)
		}
		bad := chain.Read(ctx, s, func(Entry) error { entries++; return nil }, nil)
		if ctx.Err() != nil {
			return count, entries, ctx.Err()
		}
		if bad != nil {
			err = errors.Join(err, bad)
			chain = NewChain(p, chain.cluster, s.Life, s.Last)
		}
		count++
	}
	return count, entries, err
}

// ExpiredSegments names those of a cluster that no kept archive needs: of a life before
// that of the oldest one, or in it and of entries that it has.
func ExpiredSegments(all []Segment, oldest *Head) []string {
	var gone []string
	life := oldest.Revision.Life()
	for _, s := range all {
		if s.Of(oldest.Cluster, s.Life) && (s.Life < life || s.Life == life && s.Last <= oldest.Index) {
			gone = append(gone, s.Name)
		}
	}
	return gone
}
