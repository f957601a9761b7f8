package fsm

import (
	"crypto/sha256"
	"slices"
)

// Nodes compare their rolling hashes at equal places of the log. Each keeps it at
// the multiples of MarkInterval that it has passed, and they meet there although
// they apply at their own pace.
const (
	// MarkInterval is the distance of two marks, in entries of the log.
	MarkInterval = 256
	// MarksKept is how many a node remembers: one that is further behind than that is
	// compared once it has caught up.
	MarksKept = 64
)

// Mark is the rolling hash of the state after all entries below Index.
type Mark struct {
	Index uint64
	Hash  [sha256.Size]byte
}

// mark notes where the state stands before an entry at index, if a multiple of
// MarkInterval lies between.
func (a *applier) mark(index uint64) {
	if at := index / MarkInterval * MarkInterval; at > a.meta.Index {
		a.marks = append(a.marks, Mark{at, a.meta.StateHash})
	}
}

// Marks returns the marks that this node remembers, the oldest first, and behind
// them one for where it stands now: the hash after the entries below its Index.
func (f *FSM) Marks() []Mark {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.marks)
	if f.meta.ClusterID != "" {
		out = append(out, Mark{f.meta.Index + 1, f.meta.StateHash})
	}
	return out
}

// keepMarks adds marks that were committed; f.mu is held.
func (f *FSM) keepMarks(marks []Mark) {
	f.marks = append(f.marks, marks...)
	if n := len(f.marks) - MarksKept; n > 0 {
		f.marks = slices.Delete(f.marks, 0, n)
	}
}
