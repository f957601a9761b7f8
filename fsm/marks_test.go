package fsm

import (
	"math/rand"
	"slices"
	"testing"
)

// However the log is cut into batches, nodes have the same marks; one that began
// with a snapshot has those behind it.
func TestMarksAreEqual(t *testing.T) {
	log := randomLog(rand.New(rand.NewSource(7)), 4*MarkInterval+10)
	one, other := newNode(t), newNode(t)
	for _, l := range log {
		one.ApplyBatch(slices.Clip(log[l.Index-1 : l.Index]))
	}
	for at := 0; at < len(log); at += 100 {
		other.ApplyBatch(log[at:min(at+100, len(log))])
	}
	a, b := one.Marks(), other.Marks()
	if !slices.Equal(a, b) || len(a) != 5 || a[0].Index != MarkInterval || a[4].Index != uint64(len(log))+1 {
		t.Fatalf("%d and %d marks: %v", len(a), len(b), a)
	}
	if a[0].Hash == a[1].Hash {
		t.Error("the hash does not move")
	}
	one.keepMarks(make([]Mark, 2*MarksKept))
	if n := len(one.Marks()); n != MarksKept+1 {
		t.Errorf("%d marks are kept", n)
	}
}
