package cluster

import (
	"testing"

	"github.com/hashicorp/raft"
)

// Large records behind a million small ones do not count as small, nor the other way
// round: what is held for the archive is bounded in bytes.
func TestWhatIsHeldForTheArchiveIsBoundedInBytes(t *testing.T) {
	s := logSizes{limit: 1 << 20}
	index := uint64(0)
	add := func(count, size int) {
		for range count {
			index++
			s.add(&raft.Log{Index: index, Data: make([]byte, size)})
		}
	}
	held := func(size int) int64 { return int64(index-s.first()+1) * int64(size) }
	if add(10, 100); s.first() > 1 {
		t.Errorf("of ten small entries those from %d on are held", s.first())
	}
	add(20_000, 100)
	if got := held(100 + entryOverhead); got > 1<<20 || got < 1<<20-1<<15 {
		t.Errorf("%d bytes of small entries are held", got)
	}
	add(100, 64<<10)
	if got := held(64<<10 + entryOverhead); got > 1<<20 || got < 1<<20-3<<16 {
		t.Errorf("%d bytes of large entries are held behind small ones", got)
	}
	add(20_000, 100)
	if got := held(100 + entryOverhead); got > 1<<20 || got < 1<<20-1<<15 {
		t.Errorf("%d bytes of small entries are held behind large ones", got)
	}
	index -= 50 // another leader overwrites the end
	if add(60, 100); s.first() > index || held(100+entryOverhead) > 1<<20 {
		t.Errorf("from %d on up to %d", s.first(), index)
	}
	if add(1, 2<<20); s.first() != index+1 {
		t.Errorf("an entry of twice the limit, %d, is held from %d on", index, s.first())
	}
	if len(s.marks) > sizeMarks+2 {
		t.Errorf("%d marks", len(s.marks))
	}
}
