package fsm

import (
	"fmt"
	"math/rand"
	"testing"
)

// TestHotRowsTellTheTruth: through writes, cascades and purges, Views of any
// age read the same with the rows kept in memory as without them.
func TestHotRowsTellTheTruth(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	n := newNode(t)
	var views []*View
	for i := Timestamp(1); i < 1200; i++ {
		n.apply(randomTxn(r, 1_000_000+i))
		if r.Intn(3) == 0 {
			views = append(views, n.view())
		}
		if len(views) > 12 {
			views = views[1:]
		}
		for _, v := range views {
			if r.Intn(2) == 0 {
				compareWithCold(t, r, v)
			}
		}
	}
}

func compareWithCold(t *testing.T, r *rand.Rand, v *View) {
	t.Helper()
	cold := *v
	cold.hot = newHot(&meta{Revision: 1<<64 - 1, Index: 1<<64 - 1}) // knows nothing and learns nothing
	p := randomOp(r, 1).Path
	for ; len(p) > 1; p = p.Parent() {
		if !p.IsObject() {
			continue
		}
		got, err1 := v.Get(p)
		want, err2 := cold.Get(p)
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || err1 != nil || err2 != nil {
			t.Fatalf("%s at revision %d: %+v, in the store %+v %v %v", p, v.Revision(), got, want, err1, err2)
		}
	}
	list := randomOp(r, 1).Path.List()
	for ; len(list) > 1; list = list.Parent() {
		got, err1 := v.List(list)
		want, err2 := cold.List(list)
		if got != want || err1 != nil || err2 != nil {
			t.Fatalf("%s at revision %d: %+v, in the store %+v %v %v", list, v.Revision(), got, want, err1, err2)
		}
	}
	for _, m := range []string{"a", "m0", "m3", "nobody"} {
		got, _ := v.Groups(m)
		want, _ := cold.Groups(m)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("groups of %s at revision %d: %v, in the store %v", m, v.Revision(), got, want)
		}
	}
}
