package backup

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"quinto/fsm"
)

// putState stores an archive without content.
func putState(t *testing.T, p Place, h Head) string {
	t.Helper()
	h.Kind, h.Level = KindState, 1
	var out bytes.Buffer
	check(t, Encode(&out, &h, bytes.NewReader(nil)))
	check(t, p.Put(t.Context(), Name(&h), &out, int64(out.Len())))
	return Name(&h)
}

// The clock of the node that makes the archives was a year ahead, or behind, for a while:
// what is newest, what is due, and what goes is not decided by that.
func TestClocksThatJumped(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	p := &Folder{t.TempDir()}
	put := func(revision int, made time.Time) string {
		return putState(t, p, Head{Cluster: segmentCluster, Revision: fsm.Revision(revision), Index: uint64(revision), Made: fsm.Timestamp(made.UnixMilli())})
	}
	if _, _, err := LastMade(t.Context(), p, segmentCluster, now); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	ahead := put(5, now.AddDate(1, 0, 0))
	if _, _, err := LastMade(t.Context(), p, segmentCluster, now); !errors.Is(err, ErrNone) {
		t.Errorf("an archive of the future says when the next is due: %v", err)
	}
	right := put(9, now.Add(-time.Hour))
	behind := put(12, now.AddDate(-1, 0, 0))
	if name, err := Newest(t.Context(), p, ""); err != nil || name != behind {
		t.Errorf("newest: %s %v", name, err)
	}
	if name, made, err := LastMade(t.Context(), p, segmentCluster, now); err != nil || name != right || !made.Equal(now.Add(-time.Hour)) {
		t.Errorf("made last: %s %v %v", name, made, err)
	}
	names, err := p.List(t.Context())
	check(t, err)
	if got := ByAge(names, segmentCluster); !slices.Equal(got, []string{ahead, right, behind}) {
		t.Errorf("by age: %v", got)
	}
	if gone := Expired(names, segmentCluster, behind, Keep{Count: 2}, now); !slices.Equal(gone, []string{ahead}) {
		t.Errorf("%v go", gone)
	}
	if name, _, err := (Point{fsm.Bound{Revision: 11}}).Newest(t.Context(), p, ""); err != nil || name != right {
		t.Errorf("up to revision 11: %s %v", name, err)
	}
	rows, _, err := List(t.Context(), p)
	check(t, err)
	if len(rows) != 3 || rows[0].Revision != 5 || rows[2].Revision != 12 {
		t.Errorf("%+v", rows)
	}
}

// A restore that was tried archived into the same place: its archive is newer, but the
// moment that is asked for is the other cluster's. Where both have it, nobody guesses.
func TestPlaceOfSeveralClusters(t *testing.T) {
	p := &Folder{t.TempDir()}
	const t0, old, tried = 1_700_000_000_000, segmentCluster, "ffffffff-tried"
	put := func(cluster string, revision fsm.Revision, index, second int) string {
		return putState(t, p, Head{Cluster: cluster, Revision: revision, Index: uint64(index), Clock: fsm.Timestamp(t0 + 1000*second), Made: fsm.Timestamp(t0 + 1000*second)})
	}
	log := func(cluster string, life fsm.Revision, first, last uint64) {
		h := plainSegment
		h.Cluster, h.Life = cluster, life
		keep(t, p, h, first, last)
	}
	alive := put(old, 5, 10, 0)
	log(old, 0, 11, 5000) // a command in each ms
	drill := put(tried, fsm.LifeStep, 1, 1)
	log(tried, fsm.LifeStep, 2, 3)
	end, ok := ParseSegment(segmentNames(t, p)[0])
	if !ok {
		t.Fatal(end)
	}
	after := TimeText(fsm.Timestamp(end.Time.UnixMilli()))
	for _, c := range []struct{ point, cluster, want string }{
		{TimeText(t0), "", alive}, {after, "", alive}, {after, tried, drill}, {Latest, "", alive}, {Latest, tried, drill},
		{"5", "", alive}, {fmt.Sprint(uint64(fsm.LifeStep)), "", drill},
	} {
		point, err := ParsePoint(c.point)
		check(t, err)
		if name, _, err := point.Newest(t.Context(), p, c.cluster); err != nil || name != c.want {
			t.Errorf("%s %q: %s %v, want %s", c.point, c.cluster, name, err, c.want)
		}
	}
	put("eeeeeeee-other", 3, 10, 2)
	log("eeeeeeee-other", 0, 11, 5000)
	for _, text := range []string{after, "7"} {
		point, err := ParsePoint(text)
		check(t, err)
		if name, _, err := point.Newest(t.Context(), p, ""); !errors.Is(err, ErrSeveral) {
			t.Errorf("%s: %s %v", text, name, err)
		}
		if _, _, err := point.Newest(t.Context(), p, old); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func segmentNames(t *testing.T, p Place) []string {
	t.Helper()
	names, err := p.Below(SegmentFolder).List(t.Context())
	check(t, err)
	return names
}
