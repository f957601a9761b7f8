package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// logSizes knows where the newest bytes of the log begin, whatever size its entries
// have: a mean would hold a thousand times too much once large records follow small ones.
type logSizes struct {
	limit int64 // bytes that are asked for, at most; 0: nothing is noted

	mu    sync.Mutex
	total int64      // of all that was added
	marks []sizeMark // in the order of both; the first is at or before the limit
}

// sizeMark says how many bytes were added before the entry index.
type sizeMark struct {
	index uint64
	bytes int64
}

// sizeMarks is how many marks there are for the limit.
const sizeMarks = 128

// entryOverhead is what an entry costs beside its data, about.
const entryOverhead = 64

// add notes an entry. One that replaces others, at an index that was, takes their place.
func (s *logSizes) add(l *raft.Log) {
	if s.limit <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.marks)
	for n > 0 && s.marks[n-1].index >= l.Index {
		n--
	}
	s.marks = s.marks[:n]
	size := int64(len(l.Data)) + entryOverhead
	if n == 0 || s.total+size-s.marks[n-1].bytes >= s.limit/sizeMarks {
		s.marks = append(s.marks, sizeMark{l.Index, s.total})
	}
	s.total += size
	for len(s.marks) > 1 && s.total-s.marks[1].bytes > s.limit {
		s.marks = s.marks[1:]
	}
}

// first returns the entry with which the newest limit bytes begin; 0: with the first
// that there is.
func (s *logSizes) first() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.marks {
		if s.total-m.bytes <= s.limit {
			return m.index
		}
	}
	if n := len(s.marks); n > 0 { // the last entry alone has more
		return s.marks[n-1].index + 1
	}
	return 0
}
