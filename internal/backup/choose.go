package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"quinto/fsm"
)

// ErrSeveral: more than one cluster has a point, and nobody said which is meant.
var ErrSeveral = errors.New("several clusters have it")

// candidate is the newest archive of a cluster at or before a point.
type candidate struct {
	name string
	head *Head
}

// Newest returns the newest archive in a place whose state is at or before p, of the
// cluster whose id begins so. If that is empty and several clusters have such an archive,
// it is that of the one whose segments lead to p, or with Latest the furthest. ErrPoint;
// ErrNone; ErrSeveral.
func (p Point) Newest(ctx context.Context, place Place, cluster string) (string, *Head, error) {
	names, err := place.List(ctx)
	if err != nil {
		return "", nil, err
	}
	rows := byCluster(names, cluster)
	if len(rows) == 0 {
		return "", nil, fmt.Errorf("%w: %s", ErrNone, place)
	}
	var found []candidate
	var oldest *Head
	for _, row := range rows {
		for i := len(row) - 1; i >= 0; i-- {
			h, err := HeadIn(ctx, place, row[i].name)
			if err != nil {
				return "", nil, err
			}
			if p.Has(h) {
				found = append(found, candidate{row[i].name, h})
				break
			}
			if oldest == nil || h.Clock < oldest.Clock {
				oldest = h
			}
		}
	}
	switch len(found) {
	case 0:
		return "", nil, fmt.Errorf("%w: %s; the oldest archive of %s has revision %d, of %s", ErrPoint, p, place, oldest.Revision, TimeText(oldest.Clock))
	case 1:
		return found[0].name, found[0].head, nil
	}
	return p.among(ctx, place, found)
}

// among chooses between archives of several clusters.
func (p Point) among(ctx context.Context, place Place, found []candidate) (string, *Head, error) {
	segments, err := Segments(ctx, place)
	if err != nil {
		return "", nil, err
	}
	var furthest candidate
	var most fsm.Timestamp
	var reach []candidate
	for _, c := range found {
		to := c.head.Clock
		row, _ := Follow(segments, c.head.Cluster, c.head.Revision.Life(), c.head.Index)
		for _, s := range row {
			to = max(to, fsm.Timestamp(s.Time.Add(time.Second).UnixMilli())-1) // names have whole seconds
		}
		if furthest.head == nil || to >= most {
			furthest, most = c, to
		}
		if p.Revision != 0 || p.Time != 0 && to >= p.Time {
			reach = append(reach, c)
		}
	}
	switch len(reach) {
	case 0:
		return furthest.name, furthest.head, nil
	case 1:
		return reach[0].name, reach[0].head, nil
	}
	ids := make([]string, len(reach))
	for i, c := range reach {
		ids[i] = c.head.Cluster
	}
	return "", nil, fmt.Errorf("%s: %w: %s: choose one with --cluster: %s", place, ErrSeveral, p, strings.Join(ids, ", "))
}
