package fsm

import (
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
)

// Position says where the state stands, all of it at one moment: the state after the
// entry Index, and after whatever follows that never reaches the machine.
func (f *FSM) Position() StateInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := &f.meta
	return StateInfo{
		ClusterID: m.ClusterID, Revision: m.Revision, Index: m.Index, Term: m.Term, Clock: m.Clock,
		FeatureLevel: m.FeatureLevel, StateHash: m.StateHash,
	}
}

// Life is where the life of a state began that gave out r: 0, or a multiple of
// LifeStep.
func (r Revision) Life() Revision { return r - r%LifeStep }

// EntryClock is the time of a command of the log: the latest of its transactions',
// 0 when it has none. ErrCorrupt or ErrUnknownType, as DecodeGroup.
func EntryClock(data []byte) (Timestamp, error) {
	g, err := DecodeGroup(data)
	var latest Timestamp
	for i := range g.Txns {
		latest = max(latest, g.Txns[i].Now)
	}
	return latest, err
}

// Bound is a point in the life of a state. The zero value is no bound.
type Bound struct {
	// Revision, unless 0, is the highest that the state may reach.
	Revision Revision
	// Time, unless 0, in ms: nothing that was written later counts, nor what was
	// logged behind it.
	Time Timestamp
}

// Replay applies a command of the log of which the state is, offline, as far as the
// bound lets it: an entry in which the point lies is applied up to the last
// transaction before it. past reports that something was left out, so that nothing
// that follows counts. Errors are those of Apply. Nobody else may use the machine.
func (f *FSM) Replay(l *raft.Log, to Bound) (past bool, err error) {
	g, err := DecodeGroup(l.Data)
	if err != nil {
		return false, err
	}
	n := len(g.Txns)
	if to.Time != 0 {
		for i := range g.Txns {
			if g.Txns[i].Now > to.Time {
				n = i
				break
			}
		}
	}
	if to.Revision != 0 {
		if n, err = f.within(g.Txns[:n], to.Revision); err != nil {
			return false, err
		}
	}
	past = n < len(g.Txns)
	if past {
		if n == 0 {
			return true, nil
		}
		parts := make([][]byte, n)
		for i := range parts {
			parts[i] = EncodeTxn(&g.Txns[i])
		}
		l = &raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: EncodeGroup(g.ClusterID, parts)}
	}
	if err, failed := f.Apply(l).(error); failed {
		return past, err
	}
	return past, nil
}

// within counts how many of txns, from the first on, leave the state at or below
// most. What each makes of it is only known when it is applied, so they are tried on
// a batch that is dropped, if they might get there at all.
func (f *FSM) within(txns []Txn, most Revision) (int, error) {
	m := f.Position().Revision
	for i := range txns {
		m += Revision(len(txns[i].Ops)) // none but the beginning of a life gives out more
		if slices.ContainsFunc(txns[i].Ops, func(o Op) bool { return o.Type == OpBeginLife }) {
			m += LifeStep
		}
	}
	if m <= most {
		return len(txns), nil
	}
	h := f.store.Acquire()
	if h == nil {
		return 0, ErrClosed
	}
	defer h.Release()
	f.mu.Lock()
	now, halt := f.meta, f.haltErr
	f.mu.Unlock()
	if halt != nil {
		return 0, halt
	}
	a := newApplier(newWrites().begin(h.DB()), now, f.hot, newSeen(&now))
	defer a.writes.close()
	for i := range txns {
		if _, err := a.txn(&txns[i]); err != nil {
			return 0, fmt.Errorf("transaction %d: %w", i, err)
		}
		if a.meta.Revision > most {
			return i, nil
		}
	}
	return len(txns), nil
}
