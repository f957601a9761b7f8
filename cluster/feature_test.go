package cluster

import (
	"errors"
	"testing"

	"quinto/fsm"
)

// What a member might not know is refused before it is in the log, where an old
// node would halt at it; also what a plan makes, and what comes from a follower.
func TestBeyondTheFeatureLevelNothingReachesTheLog(t *testing.T) {
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	mustPut(t, l, "a")
	last := l.raft.LastIndex()
	unknown := fsm.Txn{Now: l.Now(), Ops: []fsm.Op{{Type: 200, Path: "/buckets/b"}}}
	raise := fsm.Txn{Now: l.Now(), Ops: []fsm.Op{{Type: fsm.OpSetFeatureLevel, Level: fsm.FeatureCurrent + 1}}}
	for name, txn := range map[string]fsm.Txn{"an operation": unknown, "a level": raise} {
		if _, err := l.Propose(t.Context(), txn); !errors.Is(err, fsm.ErrFeatureLevel) {
			t.Errorf("%s that nobody knows: %v", name, err)
		}
		if _, err := l.ProposeExclusive(t.Context(), func(*fsm.View) (fsm.Txn, error) { return txn, nil }); !errors.Is(err, fsm.ErrFeatureLevel) {
			t.Errorf("%s that nobody knows, in a plan: %v", name, err)
		}
		if _, err := others(l, nodes)[0].ProposeAnywhere(t.Context(), txn); !errors.Is(err, fsm.ErrFeatureLevel) {
			t.Errorf("%s that nobody knows, from a follower: %v", name, err)
		}
	}
	if now := l.raft.LastIndex(); now != last {
		t.Errorf("the log grew from %d to %d", last, now)
	}
	mustPut(t, l, "b")
	sameState(t, nodes...)
}
