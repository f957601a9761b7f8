package cluster

import (
	"testing"
	"time"
)

// A node that was stopped for minutes in the middle of an append, by a signal or with its
// whole machine, goes on: it is not the disk that hung.
func TestAStoppedProcessIsNotAHungDisk(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	h := hang{looked: begin, since: begin}
	for _, look := range []struct {
		at      time.Duration
		hangs   bool
		lasts   time.Duration
		stopped bool
	}{
		{100 * time.Millisecond, false, 0, false},
		{time.Second, true, 900 * time.Millisecond, false},
		{4 * time.Second, true, 3900 * time.Millisecond, false},
		{90 * time.Second, true, 0, true}, // stopped in an append
		{90*time.Second + 100*time.Millisecond, false, 0, false},
		{91 * time.Second, true, 900 * time.Millisecond, false},
		{180 * time.Second, true, 0, true},
		{182 * time.Second, true, 2 * time.Second, false}, // and it does hang
		{185 * time.Second, true, 5 * time.Second, false},
	} {
		if lasts, stopped := h.look(begin.Add(look.at), look.hangs, 4*time.Second); lasts != look.lasts || stopped != look.stopped {
			t.Errorf("after %s: hangs for %s, stopped %v; want %s, %v", look.at, lasts, stopped, look.lasts, look.stopped)
		}
	}
}
