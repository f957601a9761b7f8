package backup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"quinto/fsm"
)

// ErrPoint: archives and segments do not reach to a point.
var ErrPoint = errors.New("not in the archive")

// Point is what to restore to: a time, a revision, or with neither all that there is.
type Point struct{ fsm.Bound }

// Latest is the word for all that there is.
const Latest = "latest"

// ParsePoint reads a time of RFC 3339, a revision, or Latest.
func ParsePoint(text string) (Point, error) {
	if text == Latest {
		return Point{}, nil
	}
	if n, err := strconv.ParseUint(text, 10, 63); err == nil && n > 0 {
		return Point{fsm.Bound{Revision: fsm.Revision(n)}}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text))
	if err != nil || t.UnixMilli() <= 0 {
		return Point{}, fmt.Errorf("%q: not a time like 2026-11-22T13:05:00Z, a revision, or %s", text, Latest)
	}
	return Point{fsm.Bound{Time: fsm.Timestamp(t.UnixMilli())}}, nil
}

// TimeText is a time in ms as messages have it, in RFC 3339.
func TimeText(t fsm.Timestamp) string {
	return time.UnixMilli(int64(t)).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// String is how messages call p.
func (p Point) String() string {
	switch {
	case p.Revision != 0:
		return fmt.Sprintf("revision %d", p.Revision)
	case p.Time != 0:
		return TimeText(p.Time)
	default:
		return Latest
	}
}

// Has reports whether the state of an archive is at or before p, in the same life.
func (p Point) Has(h *Head) bool {
	switch {
	case p.Revision != 0:
		return h.Revision <= p.Revision && h.Revision.Life() == p.Revision.Life()
	case p.Time != 0:
		return h.Clock <= p.Time
	default:
		return true
	}
}

// Row is what a list of a place says of an archive, and how far the segments behind it
// lead.
type Row struct {
	Name     string        `json:"name"`
	Cluster  string        `json:"cluster"`
	Revision fsm.Revision  `json:"revision"`
	Index    uint64        `json:"index"`
	Clock    fsm.Timestamp `json:"clock"` // of the newest write in it, ms
	Made     fsm.Timestamp `json:"made"`
	// Segments lead on from it to the entry ToIndex, whose time is To, in whole seconds.
	Segments int           `json:"segments"`
	To       fsm.Timestamp `json:"to"` // ms; Clock when there are none
	ToIndex  uint64        `json:"to_index"`
	// Gap ends the row of segments; nil: they lead on to the last one there is.
	Gap *Gap `json:"gap,omitempty"`
	// Problem is why the archive cannot be read; the rest is empty then.
	Problem string `json:"problem,omitempty"`
}

// List describes the archives of a place, cluster by cluster, the oldest first. Only their heads are read.
func List(ctx context.Context, p Place) ([]Row, []Segment, error) {
	names, err := p.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	segments, err := Segments(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	rows := []Row{}
	for _, name := range ByAge(names, "") {
		h, err := HeadIn(ctx, p, name)
		if ctx.Err() != nil {
			return nil, nil, err
		}
		if err != nil {
			rows = append(rows, Row{Name: name, Problem: err.Error()})
			continue
		}
		r := Row{Name: name, Cluster: h.Cluster, Revision: h.Revision, Index: h.Index, Clock: h.Clock, Made: h.Made, To: h.Clock, ToIndex: h.Index}
		row, gap := Follow(segments, h.Cluster, h.Revision.Life(), h.Index)
		r.Segments, r.Gap = len(row), gap
		for _, s := range row {
			r.To, r.ToIndex = max(r.To, fsm.Timestamp(s.Time.UnixMilli())), s.Last
		}
		rows = append(rows, r)
	}
	return rows, segments, nil
}

// Window is a stretch of time that can be restored to, of one life of a cluster.
type Window struct {
	Cluster string        `json:"cluster"`
	From    fsm.Timestamp `json:"from"` // ms
	To      fsm.Timestamp `json:"to"`   // ms
	// FromRevision is that of the archive it begins with.
	FromRevision fsm.Revision `json:"from_revision"`
	// ToIndex is the last entry of the log in it.
	ToIndex uint64 `json:"to_index"`
}

// Windows joins what the rows of List lead to, where one reaches the next.
func Windows(rows []Row) []Window {
	all := []Window{}
	for _, r := range rows {
		if r.Problem != "" {
			continue
		}
		joined := false
		for i := range all {
			w := &all[i]
			if w.Cluster == r.Cluster && w.FromRevision.Life() == r.Revision.Life() && r.Index <= w.ToIndex {
				w.To, w.ToIndex, joined = max(w.To, r.To), max(w.ToIndex, r.ToIndex), true
			}
		}
		if !joined {
			all = append(all, Window{r.Cluster, r.Clock, r.To, r.Revision, r.ToIndex})
		}
	}
	return all
}
