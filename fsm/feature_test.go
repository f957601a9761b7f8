package fsm

import (
	"errors"
	"testing"
)

// Every operation that decodes has its level, and none that this binary does not
// know passes: a new one without a row in level() fails here.
func TestEveryOperationHasItsFeatureLevel(t *testing.T) {
	for number := range 256 {
		o := Op{Type: OpType(number), Path: "/buckets/b", Name: "n", HasTime: true}
		known := !errors.Is(checkOp(&o), ErrUnknownType)
		txn := Txn{Ops: []Op{o}}
		if err := txn.CheckLevel(FeatureCurrent); (err == nil) != known || err != nil && !errors.Is(err, ErrFeatureLevel) {
			t.Errorf("operation %d, known: %v, got %v", number, known, err)
		}
	}
}

func TestFeatureLevelOfATxn(t *testing.T) {
	for _, one := range []struct {
		level, raiseTo uint32
		refused        bool
	}{{0, FeatureLevel1, false}, {FeatureLevel1, FeatureCurrent, false}, {FeatureCurrent, FeatureCurrent + 1, true}, {0, FeatureCurrent + 1, true}} {
		txn := Txn{Ops: []Op{{Type: OpSetSetting, Name: "s"}, {Type: OpSetFeatureLevel, Level: one.raiseTo}}}
		if err := txn.CheckLevel(one.level); errors.Is(err, ErrFeatureLevel) != one.refused {
			t.Errorf("%+v: %v", one, err)
		}
	}
}

// A transaction that is quiet leaves events that say so, in the log and in the state.
func TestQuiet(t *testing.T) {
	n := newNode(t)
	quiet := Txn{Now: 1, Quiet: true, Ops: []Op{{Type: OpPut, Path: "/buckets/a", Data: []byte(`{}`)}}}
	if got, err := DecodeTxn(EncodeTxn(&quiet)); err != nil || !got.Quiet {
		t.Fatalf("%+v, %v", got, err)
	}
	n.apply(quiet)
	n.apply(Txn{Now: 2, Ops: []Op{{Type: OpPut, Path: "/buckets/b", Data: []byte(`{}`)}}})
	v := n.view()
	var got []bool
	if err := v.Events(0, func(e *Event) bool { got = append(got, e.Quiet); return true }); err != nil || len(got) != 2 || !got[0] || got[1] {
		t.Errorf("%v, %v", got, err)
	}
	goldenFile(t, "entry_quiet.hex", EncodeGroup(testCluster, [][]byte{EncodeTxn(&quiet)}))
	goldenFile(t, "event_quiet.hex", encodeEvent(&Event{Action: ActionCreate, Path: "/buckets/b", UserID: "u", Time: 1, LastModified: 2, Quiet: true}))
}
