package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A leader that was deposed has entries at the end of its log that nobody acknowledged.
// When it comes back and is sent a snapshot past them, they are gone: neither the
// archive nor a follower may get them from it.
func TestInstalledSnapshotTakesTheStaleEndOfTheLogAlong(t *testing.T) {
	for _, library := range []string{LogBolt, LogWAL} {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			nodes := trio(t, func(c *Config) {
				c.LogStore, c.ArchiveHoldBytes = library, 1<<20
				c.SnapshotEntries, c.TrailingEntries, c.SnapshotInterval = 40, 10, 20*time.Millisecond
			})
			l := leaderOf(t, nodes...)
			rest := others(l, nodes)
			mustPut(t, l, "before")
			away := rest[0]
			waitFor(t, "all to be applied", func() bool { return away.fsm.Applied() >= l.fsm.Applied() })
			away.stop(t)
			stale := appendStale(t, away.cfg, 3)
			for range 20 {
				for range 20 {
					mustPut(t, l, "after")
				}
				l.Archived(l.fsm.Applied())
				rest[1].Archived(l.fsm.Applied())
				if first, err := l.logs.FirstIndex(); err == nil && first > stale {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			if err := l.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
				t.Fatal(err)
			}
			again := startNode(t, away.cfg)
			ready(t, again)
			if first, err := l.logs.FirstIndex(); err != nil || first <= stale {
				t.Fatalf("the leader's log begins at %d, %v", first, err)
			}
			waitFor(t, "the snapshot", func() bool { return again.fsm.Applied() >= l.fsm.Applied() })
			if logs, err := again.ownEntries(stale, stale); !errors.Is(err, ErrCompacted) {
				t.Errorf("entry %d that nobody acknowledged is told: %v %v", stale, logs, err)
			}
			mustPut(t, l, "more")
			sameState(t, l, again)
			cfg := again.cfg
			again.stop(t)
			last := startNode(t, cfg)
			ready(t, last)
			sameState(t, l, last)
		})
	}
}

// appendStale gives a stopped node entries at the end of its log that no other has, and
// returns the index of the first.
func appendStale(t *testing.T, c Config, count uint64) uint64 {
	t.Helper()
	c = c.withDefaults()
	log, _, end, err := openLog(&c)
	if err != nil {
		t.Fatal(err)
	}
	last, err := log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		var l raft.Log
		if err := log.GetLog(last+i, &l); err != nil {
			t.Fatal(err)
		}
		l.Index++
		if err := log.StoreLog(&l); err != nil {
			t.Fatal(err)
		}
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	return last + 1
}
