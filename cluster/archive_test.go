package cluster

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
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
		err = n.Entries(t.Context(), from, n.fsm.Applied(), func(l *raft.Log) bool {
			if l.Index != from+count {
				t.Errorf("entry %d behind entry %d", l.Index, from+count-1)
			}
			count++
			return true
		})
		return count, err
	}
	cut(100)
	if count, err := all(2); err != nil || count < 99 {
		t.Fatalf("before it is told where the archive is, a node that was just started keeps %d entries, %v", count, err)
	}
	n.Archived(4)
	cut(200)
	if count, err := all(5); err != nil || count < 195 {
		t.Fatalf("%d entries, %v", count, err)
	}
	for i := range uint64(200) {
		n.logs.sizes.add(&raft.Log{Index: 1000 + i, Data: make([]byte, 1<<15)})
	}
	if first := n.neededByArchive(); first < 1168 || first > 1170 {
		t.Errorf("of 200 entries of 32 KiB those from %d on are held in 1 MiB", first-1000)
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

// However many entries come between a snapshot and its cut, what the archive needs
// stays: the cut itself looks. An end that another leader overwrites, and a whole log
// that a snapshot replaces, go all the same.
func TestCutSparesWhatTheArchiveNeeds(t *testing.T) {
	s := newLogStore(raft.NewInmemStore())
	for i := range uint64(100) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	archived := uint64(40)
	s.needed = func() uint64 { return archived + 1 }
	for _, c := range []struct{ from, to, archived, first, last uint64 }{
		{1, 30, 40, 31, 100}, {31, 90, 40, 41, 100}, {41, 90, 40, 41, 100}, // spared
		{96, 100, 40, 41, 95}, // overwritten
		{41, 90, 60, 61, 95}, {61, 95, 60, 0, 0},
	} {
		archived = c.archived
		if err := s.DeleteRange(c.from, c.to); err != nil {
			t.Fatal(err)
		}
		first, err := s.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		last, err := s.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		if last == 0 && c.last == 0 {
			continue
		}
		if first != c.first || last != c.last {
			t.Errorf("%d to %d deleted with %d archived: %d to %d are left, want %d to %d", c.from, c.to, c.archived, first, last, c.first, c.last)
		}
	}
}

// What a node lacks of the log, as it got a snapshot instead, it has from the others,
// byte by byte; what nobody has is told.
func TestEntriesComeFromTheOthers(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	rest := others(l, nodes)
	for i := range 30 {
		mustPut(t, l, fmt.Sprint("w", i))
	}
	end := l.fsm.Applied()
	waitFor(t, "all to be applied", func() bool { return rest[0].fsm.Applied() >= end && rest[1].fsm.Applied() >= end })
	read := func(n *testNode) (logs []raft.Log, err error) {
		err = n.Entries(t.Context(), 2, end, func(l *raft.Log) bool {
			logs = append(logs, raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: l.Data})
			return true
		})
		return logs, err
	}
	want, err := read(l)
	if err != nil || uint64(len(want)) != end-1 {
		t.Fatal(len(want), err)
	}
	if err := rest[0].logs.DeleteRange(1, end-5); err != nil {
		t.Fatal(err)
	}
	if err := rest[1].logs.DeleteRange(1, end-20); err != nil {
		t.Fatal(err)
	}
	got, err := read(rest[0])
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	if err := l.logs.DeleteRange(1, end-10); err != nil {
		t.Fatal(err)
	}
	if got, err := read(rest[0]); !errors.Is(err, ErrCompacted) || errors.Is(err, ErrNotAsked) || len(got) > 0 {
		t.Errorf("%d entries that nobody has, %v", len(got), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := rest[0].Entries(ctx, 2, end, func(*raft.Log) bool { return true }); errors.Is(err, ErrCompacted) || !errors.Is(err, context.Canceled) {
		t.Errorf("the end of a node is taken for a gap: %v", err)
	}
	rest[1].stop(t)
	if got, err := read(rest[0]); !errors.Is(err, ErrCompacted) || !errors.Is(err, ErrNotAsked) || len(got) > 0 {
		t.Errorf("%d entries that one who does not answer may have, %v", len(got), err)
	}
}

// An answer that is not what was asked for is refused; so is a question for what is
// not committed here.
func TestEntriesAreWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	good := []*raft.Log{{Index: 7, Term: 1, Data: []byte("x")}, {Index: 8, Term: 2, Data: []byte("y")}}
	if logs, err := decodeEntries(encodeEntries(good), 7, 9); err != nil || len(logs) != 2 || string(logs[1].Data) != "y" {
		t.Fatal(logs, err)
	}
	for what, b := range map[string][]byte{
		"another begin": encodeEntries([]*raft.Log{{Index: 6}}), "a gap": encodeEntries([]*raft.Log{{Index: 7}, {Index: 9}}),
		"too many": encodeEntries(append(good, &raft.Log{Index: 9}, &raft.Log{Index: 10})), "too few": encodeEntries(good)[:8],
	} {
		if logs, err := decodeEntries(b, 7, 9); !errors.Is(err, fsm.ErrCorrupt) {
			t.Errorf("%s: %v %v", what, logs, err)
		}
	}
	n := startNode(t, testConfig(t, "solo"))
	ready(t, n)
	for _, q := range [][]byte{nil, {0, 1}, {200, 1, 201, 1}, {2, 1}, {0xff}} {
		if status, _ := n.serveEntries(t.Context(), q); status != statusRefused {
			t.Errorf("%v: status %d", q, status)
		}
	}
}

// All hear how far the archive is from the node that writes it, whether it leads or not,
// and from nobody else once they write it themselves.
func TestArchiverNeedNotLead(t *testing.T) {
	t.Parallel()
	nodes := trio(t, func(c *Config) { c.ArchiveHoldBytes, c.ExchangeInterval = 1<<20, 50*time.Millisecond })
	l := leaderOf(t, nodes...)
	rest := others(l, nodes)
	heard := func(n *testNode, index uint64) func() bool {
		return func() bool { return n.archived.Load() == index }
	}
	rest[0].Archived(3)
	waitFor(t, "the leader to hear it", heard(l, 3))
	waitFor(t, "the follower to hear it", heard(rest[1], 3))
	rest[0].ArchivedElsewhere()
	l.Archived(2)
	waitFor(t, "the first to hear it", heard(rest[0], 2))
	waitFor(t, "the other to hear it", heard(rest[1], 2))
	rest[1].Archived(1)
	rest[1].hearArchived(&nodeStatus{Archived: 2, Archives: true}, true)
	if at := rest[1].archived.Load(); at != 1 {
		t.Errorf("who archives was told %d", at)
	}
}
