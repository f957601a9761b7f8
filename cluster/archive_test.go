package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// What is not archived yet stays in the log when it is cut, within a limit, and goes
// once it is.
func TestLogIsHeldForTheArchive(t *testing.T) {
	t.Parallel()
	c := testConfig(t, "solo")
	c.ArchiveHoldBytes, c.SnapshotEntries, c.TrailingEntries, c.SnapshotInterval = 1<<20, 50, 10, 20*time.Millisecond
	n := startNode(t, c)
	ready(t, n)
	writes := 0
	cut := func(to uint64) {
		t.Helper()
		waitFor(t, "a snapshot", func() bool {
			writes++
			mustPut(t, n, fmt.Sprint("w", writes))
			meta, ok := n.store.SnapshotMeta()
			return ok && meta.Index >= to
		})
	}
	all := func(from uint64) (count uint64, err error) {
		err = n.Entries(from, n.fsm.Applied(), func(l *raft.Log) bool {
			if l.Index != from+count {
				t.Errorf("entry %d behind entry %d", l.Index, from+count-1)
			}
			count++
			return true
		})
		return count, err
	}
	n.Archived(4)
	cut(200)
	if count, err := all(5); err != nil || count < 195 {
		t.Fatalf("%d entries, %v", count, err)
	}
	if held := n.heldForArchive(1<<15, 50); held != 32 {
		t.Errorf("%d entries of 32 KiB are held in 1 MiB", held)
	}
	n.Archived(n.fsm.Applied())
	cut(n.fsm.Applied() + 200)
	if _, err := all(5); !errors.Is(err, ErrCompacted) {
		t.Errorf("what is archived is kept: %v", err)
	}
	if count, err := all(n.fsm.Applied() + 1); err != nil || count != 0 {
		t.Errorf("%d entries that there are not, %v", count, err)
	}
}
