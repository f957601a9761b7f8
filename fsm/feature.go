package fsm

import "fmt"

// Feature levels. A node that runs an older release does not know the operations,
// fields and rules of a newer one, and would halt at the first (docs/adr/0011). So
// the state holds the level that all members know: nothing of a higher one is
// proposed, and Apply keeps to the rules of the level that the state has. Numbers
// are for ever: append, with what the level brought.
const (
	// FeatureLevel1 is all that the first release knows.
	FeatureLevel1 uint32 = 1
	// FeatureLevel2 has OpBeginLife. Only a recovery raises to it, whose node is alone.
	FeatureLevel2 uint32 = 2
	// FeatureCurrent is the highest level that this binary knows.
	FeatureCurrent = FeatureLevel2
)

// level is the lowest level of a state that o may reach. What no row names is of a
// release to come. A field that a later release adds to an operation raises what
// this says of the operations that have it.
func (o *Op) level() uint32 {
	switch o.Type {
	case OpPut, OpPutTombstone, OpDelete, OpDeleteTree, OpSetListTimestamp, OpPurgeTombstones, OpTrimEvents,
		OpRegisterNotifier, OpForgetNotifier, OpAdvanceCursor, OpSetSetting, OpFlush, OpPutEntry, OpDropEntries:
		return FeatureLevel1
	case OpBeginLife:
		return FeatureLevel2
	case OpSetFeatureLevel: // to what this binary knows it may be raised from any
		if o.Level <= FeatureCurrent {
			return FeatureLevel1
		}
		return o.Level
	default:
		return FeatureCurrent + 1
	}
}

// CheckLevel refuses a transaction that a state of this level must not meet
// (ErrFeatureLevel). The leader asks before it proposes. A state without a level is
// new, and has the first.
func (t *Txn) CheckLevel(level uint32) error {
	level = max(level, FeatureLevel1)
	for i := range t.Ops {
		if needs := t.Ops[i].level(); needs > level {
			return fmt.Errorf("%w: operation %d needs level %d, the cluster is at %d", ErrFeatureLevel, t.Ops[i].Type, needs, level)
		}
	}
	return nil
}
