package backup

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quinto/fsm"
)

const segmentCluster = "0123456789ab-cdef"

// command is a command of the log whose time is now.
func command(now int) []byte {
	t := fsm.Txn{Now: fsm.Timestamp(now), Ops: []fsm.Op{{Type: fsm.OpSetSetting, Name: "s", Value: []byte("v")}}}
	return fsm.EncodeGroup(segmentCluster, [][]byte{fsm.EncodeTxn(&t)})
}

// segment holds the entries first to last; each third is none for the state machine.
func segment(t testing.TB, head SegmentHead, first, last uint64) (*SegmentHead, []byte) {
	t.Helper()
	var b SegmentBuilder
	for i := first; i <= last; i++ {
		check(t, b.Add(Entry{Index: i, Term: 2 + i/10, Command: i%3 != 0, Data: command(1_700_000_000_000 + int(i))}))
	}
	h, data, err := b.Segment(head)
	check(t, err)
	return h, data
}

func readSegment(data []byte) (all []Entry, h *SegmentHead, err error) {
	r, err := NewSegmentReader(bytes.NewReader(data))
	if err != nil {
		return nil, nil, err
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, &r.Head, nil
		}
		if err != nil {
			return all, &r.Head, err
		}
		e.Data = bytes.Clone(e.Data)
		all = append(all, e)
	}
}

var plainSegment = SegmentHead{Cluster: segmentCluster, Level: 1}

func TestSegment(t *testing.T) {
	h, data := segment(t, plainSegment, 7, 31)
	if h.First != 7 || h.Last != 31 || h.FirstTerm != 2 || h.LastTerm != 5 || h.FirstTime != 1_700_000_000_007 || h.LastTime != 1_700_000_000_031 {
		t.Fatalf("%+v", h)
	}
	all, got, err := readSegment(data)
	check(t, err)
	if *got != *h || len(all) != 25 {
		t.Fatalf("%+v, %d entries", got, len(all))
	}
	for i, e := range all {
		index := uint64(7 + i)
		want := Entry{Index: index, Term: 2 + index/10, Command: index%3 != 0}
		if want.Command {
			want.Data = command(1_700_000_000_000 + int(index))
		}
		if e.Index != want.Index || e.Term != want.Term || e.Command != want.Command || !bytes.Equal(e.Data, want.Data) {
			t.Fatalf("%+v, want %+v", e, want)
		}
	}
	name := SegmentName(h)
	s, ok := ParseSegment(name)
	if !ok || s.First != 7 || s.Last != 31 || !s.Of(segmentCluster, 0) || s.Of("0123456", 0) || s.Of(segmentCluster, fsm.LifeStep) || s.Time.Unix() != 1_700_000_000 {
		t.Errorf("%s: %+v", name, s)
	}
	var b SegmentBuilder
	check(t, b.Add(Entry{Index: 5, Term: 2}))
	for _, bad := range []Entry{{Index: 5, Term: 2}, {Index: 7, Term: 2}, {Index: 6, Term: 1}, {Index: 6, Term: 2, Data: make([]byte, MaxEntryBytes+1)}} {
		if b.Add(bad) == nil {
			t.Errorf("entry %d of term %d was taken", bad.Index, bad.Term)
		}
	}
}

// Every byte that is changed, at each of its bits, and every length that is cut is
// refused, with the byte at which the damaged part begins.
func TestFaultOfASegmentHasAPlace(t *testing.T) {
	_, data := segment(t, plainSegment, 7, 16)
	longest := len(data)
	for at := range data {
		for bit := range 8 {
			flipped := bytes.Clone(data)
			flipped[at] ^= 1 << bit
			_, _, err := readSegment(flipped)
			var f *Fault
			if !errors.As(err, &f) || f.Offset > int64(at) || f.Part == "" {
				t.Fatalf("bit %d of byte %d: %v", bit, at, err)
			}
		}
		_, _, err := readSegment(data[:at])
		var f *Fault
		if !errors.As(err, &f) || f.Offset > int64(at) {
			t.Fatalf("cut at %d: %v", at, err)
		}
	}
	if _, _, err := readSegment(append(bytes.Clone(data), 0)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "end at byte") {
		t.Errorf("a byte behind the end: %v", err)
	}
	flipped := bytes.Clone(data)
	flipped[longest-endBytes-5] ^= 4
	if _, _, err := readSegment(flipped); err == nil || !strings.Contains(err.Error(), "entry 16 at byte ") {
		t.Errorf("%v", err)
	}
}

// What is on other people's disks can always be read.
func TestGoldenSegment(t *testing.T) {
	h, data := segment(t, SegmentHead{Cluster: segmentCluster, Life: fsm.LifeStep, Level: 1, Revision: fsm.LifeStep + 4, StateHash: "ab"}, 9, 12)
	got := SegmentName(h) + "\n" + hex.EncodeToString(data) + "\n"
	file := filepath.Join("testdata", "segment-1.hex")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		check(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != got {
		t.Fatalf("the format of segments changed (%v)\n got %s\nwant %s", err, got, want)
	}
}

func TestForeignAndNewerSegments(t *testing.T) {
	_, data := segment(t, plainSegment, 1, 3)
	newer := bytes.Clone(data)
	newer[9] = 2
	_, level := segment(t, SegmentHead{Cluster: "c", Level: 99}, 1, 1)
	archive, _ := archive(t)
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"empty": {nil, ErrForeign}, "text": {[]byte("[app:main]\nsomething = else\n"), ErrForeign}, "an archive": {archive, ErrForeign},
		"version": {newer, ErrNewer}, "level": {level, ErrNewer},
	} {
		if _, _, err := readSegment(c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func keep(t testing.TB, p Place, head SegmentHead, first, last uint64) Segment {
	t.Helper()
	h, data := segment(t, head, first, last)
	check(t, StoreSegment(t.Context(), p, h, data))
	s, ok := ParseSegment(SegmentName(h))
	if !ok {
		t.Fatal(SegmentName(h))
	}
	return s
}

// Segments that overlap give each entry once; what is missing, of another history, or
// not what its name says is told with its file.
func TestChain(t *testing.T) {
	p := &Folder{t.TempDir()}
	life := plainSegment
	life.Life = fsm.LifeStep
	other := plainSegment
	other.Cluster = "0123456789ab-other" // the names cannot tell them apart
	a, b, c := keep(t, p, plainSegment, 1, 10), keep(t, p, plainSegment, 6, 20), keep(t, p, plainSegment, 21, 25)
	inside, late := keep(t, p, plainSegment, 7, 9), keep(t, p, plainSegment, 30, 31)
	again, foreign := keep(t, p, life, 26, 27), keep(t, p, other, 26, 28)
	all, err := Segments(t.Context(), p)
	if err != nil || !slices.Equal(all, []Segment{a, b, inside, c, foreign, late, again}) {
		t.Fatal(all, err)
	}
	row, gap := Follow(all[:4], segmentCluster, 0, 3)
	if !slices.Equal(row, []Segment{a, b, c}) || gap != nil {
		t.Error(row, gap)
	}
	if row, gap := Follow([]Segment{a, b, c, late}, segmentCluster, 0, 12); !slices.Equal(row, []Segment{b, c}) || gap == nil || *gap != (Gap{26, 29, late.Name}) {
		t.Error(row, gap)
	}
	chain := NewChain(p, segmentCluster, 0, 3)
	var seen []uint64
	note := func(e Entry) error { seen = append(seen, e.Index); return nil }
	for _, s := range []Segment{a, b, inside, c} {
		check(t, chain.Read(t.Context(), &s, note, nil))
	}
	if want := fmt.Sprint([]uint64{4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25}); fmt.Sprint(seen) != want {
		t.Error(seen)
	}
	for name, x := range map[string]struct {
		s    Segment
		want error
		text string
	}{"a gap": {late, ErrGap, "26 to 29"}, "another life": {again, ErrOther, "head at byte 0"}, "another cluster": {foreign, ErrOther, "0123456789ab-other"}} {
		if err := chain.Read(t.Context(), &x.s, note, nil); !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.text) || !strings.Contains(err.Error(), x.s.Name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The same indexes with other entries.
	var builder SegmentBuilder
	check(t, builder.Add(Entry{Index: 25, Term: 4, Command: true, Data: command(1_700_000_000_999)}))
	h, data, err := builder.Segment(plainSegment)
	check(t, err)
	check(t, StoreSegment(t.Context(), p, h, data))
	s, _ := ParseSegment(SegmentName(h))
	if err := chain.Read(t.Context(), &s, note, nil); !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), "entry 25 at byte") {
		t.Errorf("a fork: %v", err)
	}
	renamed := late
	renamed.Name = strings.Replace(late.Name, "31-", "32-", 1)
	check(t, os.Rename(filepath.Join(p.Dir, SegmentFolder, late.Name), filepath.Join(p.Dir, SegmentFolder, renamed.Name)))
	if err := NewChain(p, segmentCluster, 0, 29).Read(t.Context(), &renamed, note, nil); !errors.Is(err, ErrOther) {
		t.Errorf("renamed: %v", err)
	}
	if err := chain.Read(t.Context(), &late, note, nil); !errors.Is(err, ErrNone) {
		t.Errorf("gone: %v", err)
	}
	if _, _, err := VerifySegments(t.Context(), p); !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), s.Name) || !strings.Contains(err.Error(), renamed.Name) {
		t.Errorf("%v", err)
	}
}

func TestExpiredSegments(t *testing.T) {
	p := &Folder{t.TempDir()}
	life := plainSegment
	life.Life = fsm.LifeStep
	other := plainSegment
	other.Cluster = "zzz"
	a, b := keep(t, p, plainSegment, 1, 10), keep(t, p, plainSegment, 6, 20)
	c := keep(t, p, life, 15, 30)
	keep(t, p, other, 1, 3)
	all, err := Segments(t.Context(), p)
	check(t, err)
	for _, x := range []struct {
		oldest Head
		want   []string
	}{
		{Head{Cluster: segmentCluster, Revision: 5, Index: 9}, nil},
		{Head{Cluster: segmentCluster, Revision: 5, Index: 10}, []string{a.Name}},
		{Head{Cluster: segmentCluster, Revision: fsm.LifeStep, Index: 14}, []string{a.Name, b.Name}},
		{Head{Cluster: segmentCluster, Revision: fsm.LifeStep + 9, Index: 30}, []string{a.Name, b.Name, c.Name}},
	} {
		if got := ExpiredSegments(all, &x.oldest); !slices.Equal(got, x.want) {
			t.Errorf("%+v: %v", x.oldest, got)
		}
	}
}

// A place says which times can be restored, and what to begin with.
func TestPoints(t *testing.T) {
	p := &Folder{t.TempDir()}
	const t0 = 1_700_000_000_000
	put := func(revision, index, clock int) string {
		var out bytes.Buffer
		h := &Head{Kind: KindState, Cluster: segmentCluster, Revision: fsm.Revision(revision), Index: uint64(index), Clock: fsm.Timestamp(t0 + clock), Made: fsm.Timestamp(t0 + 1000*index), Level: 1}
		check(t, Encode(&out, h, bytes.NewReader(nil)))
		check(t, p.Put(t.Context(), Name(h), &out, int64(out.Len())))
		return Name(h)
	}
	one, two, three := put(5, 10, 10), put(9, 20, 20), put(15, 40, 40)
	keep(t, p, plainSegment, 11, 18)
	keep(t, p, plainSegment, 17, 25)
	keep(t, p, plainSegment, 31, 45)
	rows, _, err := List(t.Context(), p)
	check(t, err)
	windows := Windows(rows)
	if len(rows) != 3 || rows[0].Segments != 2 || rows[0].ToIndex != 25 || rows[0].Gap == nil || rows[0].Gap.From != 26 || rows[0].Gap.To != 30 ||
		rows[2].Segments != 1 || rows[2].Gap != nil || len(windows) != 2 || windows[0].ToIndex != 25 || windows[1].FromRevision != 15 || windows[1].ToIndex != 45 {
		t.Errorf("%+v\n%+v", rows, windows)
	}
	for text, want := range map[string]string{
		"5": one, "8": one, "9": two, "14": two, "15": three, "99": three, Latest: three,
		TimeText(t0 + 10): one, TimeText(t0 + 39): two, TimeText(t0 + 40): three, "2030-01-01T01:00:00+01:00": three,
		"4": "", TimeText(t0 + 9): "", fmt.Sprint(uint64(fsm.LifeStep) + 3): "",
	} {
		point, err := ParsePoint(text)
		check(t, err)
		got, _, err := point.Newest(t.Context(), p, "")
		if got != want || (want == "") != errors.Is(err, ErrPoint) {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "0", "-1", "yesterday", "2026-11-22", "2026-11-22T13:00:00", "99999999999999999999"} {
		if _, err := ParsePoint(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, _, err := (Point{}).Newest(t.Context(), p, "another"); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

// A segment decodes to entries that make the same segment, or is refused.
func FuzzSegment(f *testing.F) {
	for _, last := range []uint64{1, 9, 30} {
		_, data := segment(f, plainSegment, 1, last)
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, h, err := readSegment(data)
		if err != nil {
			if h != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
				t.Fatalf("no kind of fault: %v", err)
			}
			return
		}
		var b SegmentBuilder
		for _, e := range all {
			check(t, b.Add(e))
		}
		_, again, err := b.Segment(*h)
		if err != nil {
			return // checksums hold, but a command in it does not decode: Apply refuses it
		}
		if got, _, err := readSegment(again); err != nil || len(got) != len(all) {
			t.Fatalf("%d entries, %v", len(got), err)
		}
	})
}
