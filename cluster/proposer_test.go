package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

func TestGroupCommitGivesEachItsOwnResult(t *testing.T) {
	n := startNode(t, testConfig(t, "solo"))
	ready(t, n)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const writers, each = 256, 8
	before := n.logs.entries.Load()
	var mu sync.Mutex
	seen := map[fsm.Revision]string{}
	var conflicts atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("w%d-%d", w, i)
				txn := put(id)
				if i == 0 { // all want the same name to be free: one gets it
					txn = put("contended")
					txn.Compares = []fsm.Compare{{Kind: fsm.CompareObject, Key: "/buckets/contended"}}
				}
				r, err := n.Propose(ctx, txn)
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				if r.Conflict != nil {
					conflicts.Add(1)
					continue
				}
				if len(r.Objects) != 1 || r.Objects[0].Path != txn.Ops[0].Path {
					t.Errorf("%s got the result of %v", id, r.Objects)
				}
				mu.Lock()
				if other, ok := seen[r.Revision]; ok {
					t.Errorf("%s and %s have revision %d", id, other, r.Revision)
				}
				seen[r.Revision] = id
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	entries := n.logs.entries.Load() - before
	t.Logf("%d transactions in %d entries", writers*each, entries)
	if conflicts.Load() != writers-1 {
		t.Errorf("%d conflicts on one name, want %d", conflicts.Load(), writers-1)
	}
	if entries > writers*each/4 {
		t.Errorf("%d entries: not grouped", entries)
	}
}

func TestExclusivePlansNeverConflict(t *testing.T) {
	c := testConfig(t, "solo")
	c.InFlight = 3
	n := startNode(t, c)
	ready(t, n)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mustPut(t, n, "one")
	var wg sync.WaitGroup
	var inPlan atomic.Int32
	for range 64 {
		wg.Go(func() {
			r, err := n.ProposeExclusive(ctx, func(v *fsm.View) (fsm.Txn, error) {
				if inPlan.Add(1) != 1 {
					t.Error("two plans at a time")
				}
				defer inPlan.Add(-1)
				v.Record()
				if _, err := v.Get("/buckets/one"); err != nil {
					return fsm.Txn{}, err
				}
				txn := put("one")
				txn.Compares = v.Reads()
				return txn, nil
			})
			if err != nil || r.Conflict != nil {
				t.Errorf("exclusive: %v %v", r.Conflict, err)
			}
		})
		wg.Go(func() {
			if _, err := n.Propose(ctx, put("one")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want := errors.New("plan")
	if _, err := n.ProposeExclusive(ctx, func(*fsm.View) (fsm.Txn, error) { return fsm.Txn{}, want }); !errors.Is(err, want) {
		t.Errorf("plan's error came back as %v", err)
	}
	rev := n.fsm.Revision()
	r, err := n.ProposeExclusive(ctx, func(*fsm.View) (fsm.Txn, error) { return fsm.Txn{}, nil })
	if err != nil || r.Revision != rev || n.fsm.Revision() != rev {
		t.Errorf("a plan without ops: %+v %v", r, err)
	}
}

func TestProposeRefusesWhatNoNodeMayLog(t *testing.T) {
	n := startNode(t, testConfig(t, "solo"))
	ready(t, n)
	ctx := context.Background()
	waitFor(t, "the leader's own entries", func() bool {
		v, err := n.fsm.View()
		if err != nil {
			return false
		}
		defer v.Close()
		id, _ := v.Setting(nodeSetting + "solo")
		return id != nil
	})
	last, _ := n.logs.LastIndex()
	big := put("big")
	big.Ops[0].Data = make([]byte, fsm.MaxTxnBytes)
	if _, err := n.Propose(ctx, big); !errors.Is(err, fsm.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	for name, op := range map[string]fsm.Op{
		"a list as an object": {Type: fsm.OpPut, Path: "/buckets"},
		"no path":             {Type: fsm.OpPut},
		"an unknown op":       {Type: 99, Path: "/buckets/b"},
		"a NUL":               {Type: fsm.OpPut, Path: "/buckets/a\x00b"},
	} {
		if _, err := n.Propose(ctx, fsm.Txn{Ops: []fsm.Op{op}}); err == nil {
			t.Errorf("%s was proposed", name)
		}
	}
	if now, _ := n.logs.LastIndex(); now != last {
		t.Errorf("the log grew from %d to %d", last, now)
	}
	alone := put("alone") // larger than a group, smaller than the limit
	alone.Ops[0].Data = append(append([]byte(`{"x":"`), make([]byte, fsm.MaxGroupBytes)...), `"}`...)
	if _, err := n.Propose(ctx, alone); err != nil {
		t.Errorf("a transaction larger than a group: %v", err)
	}
}

func TestErrorsSayWhetherAnythingWasDone(t *testing.T) {
	for err, want := range map[error]error{
		raft.ErrNotLeader:                    fsm.ErrNotLeader,
		raft.ErrLeadershipTransferInProgress: fsm.ErrNotLeader,
		raft.ErrAbortedByRestore:             fsm.ErrNotLeader,
		raft.ErrEnqueueTimeout:               fsm.ErrOverloaded,
		raft.ErrLeadershipLost:               fsm.ErrUnknownOutcome,
		raft.ErrRaftShutdown:                 fsm.ErrUnknownOutcome,
		errors.New("disk"):                   fsm.ErrUnknownOutcome,
	} {
		if got := outcomeError(err); !errors.Is(got, want) {
			t.Errorf("%v is reported as %v", err, got)
		}
	}
}

// hangingLog is a log whose disk can hang.
type hangingLog struct {
	raft.LogStore
	hang atomic.Pointer[chan struct{}]
}

func (h *hangingLog) StoreLogs(logs []*raft.Log) error {
	if c := h.hang.Load(); c != nil {
		<-*c
	}
	return h.LogStore.StoreLogs(logs)
}

func TestLeaderWithAHungDiskIsReplacedAndComesBack(t *testing.T) {
	t.Parallel()
	logs := map[string]*hangingLog{}
	nodes := trio(t, func(c *Config) {
		c.StallTimeout = 400 * time.Millisecond
		c.WrapLog = func(s raft.LogStore) raft.LogStore {
			logs[c.Name] = &hangingLog{LogStore: s}
			return logs[c.Name]
		}
	})
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	stuck := make(chan struct{})
	logs[l.cfg.Name].hang.Store(&stuck)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := l.Propose(ctx, put("stuck")); !errors.Is(err, fsm.ErrUnknownOutcome) {
		t.Errorf("a write on a hung disk: %v", err)
	}
	rest := others(l, nodes)
	next := leaderOf(t, rest...)
	mustPut(t, next, "b")
	t.Logf("taken over after %s", time.Since(begin))
	waitFor(t, "the stuck node to say so", func() bool { return l.Err() != nil })
	logs[l.cfg.Name].hang.Store(nil)
	close(stuck)
	ready(t, l)
	if !has(t, l, "b") {
		t.Error("the healed node lacks a write")
	}
	sameState(t, nodes...)
}

func TestWritesAreRefusedBelowTheReserve(t *testing.T) {
	t.Parallel()
	var free atomic.Uint64
	free.Store(1 << 40)
	c := testConfig(t, "solo")
	c.FreeBytes = func() (uint64, error) { return free.Load(), nil }
	n := startNode(t, c)
	ready(t, n)
	ctx := context.Background()
	mustPut(t, n, "a")
	free.Store(1 << 20)
	waitFor(t, "the watchdog", func() bool { return n.WriteError() != nil })
	if _, err := n.Propose(ctx, put("b")); !errors.Is(err, fsm.ErrNoSpace) {
		t.Errorf("write without space: %v", err)
	}
	trim := fsm.Txn{Now: n.Now(), Ops: []fsm.Op{{Type: fsm.OpTrimEvents, Revision: 1}}}
	if _, err := n.Propose(ctx, trim); err != nil {
		t.Errorf("what frees space is refused: %v", err)
	}
	if !has(t, n, "a") {
		t.Error("reads are refused too")
	}
	free.Store(1 << 40)
	waitFor(t, "the watchdog", func() bool { return n.WriteError() == nil })
	mustPut(t, n, "c")
}
