package backup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"quinto/fsm"
)

// Of one cluster the order of archives is that of their revisions: clocks jump, and the
// time in a name is that of one node's clock. Only archives of different clusters are
// told apart by time.

// stateName is what the name of an archive of a state says.
type stateName struct {
	name     string
	cluster  string // the beginning of its id
	made     time.Time
	revision fsm.Revision
}

func parseName(name string) (s stateName, ok bool) {
	m := nameForm.FindStringSubmatch(name)
	if m == nil {
		return s, false
	}
	made, err := time.Parse(nameTime, m[2])
	if err != nil {
		return s, false
	}
	revision, err := strconv.ParseUint(m[3], 10, 63)
	return stateName{name, m[1], made, fsm.Revision(revision)}, err == nil
}

func (s stateName) compare(o stateName) int {
	return cmp.Or(cmp.Compare(s.revision, o.revision), s.made.Compare(o.made), strings.Compare(s.name, o.name))
}

// ByAge returns those of names that Name has made, for any cluster or, unless cluster is
// empty, for that one: cluster by cluster in the order in which the first archives of
// them were made, the oldest of each first.
func ByAge(names []string, cluster string) []string {
	var all []string
	for _, row := range byCluster(names, cluster) {
		for _, s := range row {
			all = append(all, s.name)
		}
	}
	return all
}

func byCluster(names []string, cluster string) [][]stateName {
	rows := map[string][]stateName{}
	for _, name := range names {
		if s, ok := parseName(name); ok && (cluster == "" || OfCluster(name, cluster)) {
			rows[s.cluster] = append(rows[s.cluster], s)
		}
	}
	var all [][]stateName
	for _, row := range rows {
		slices.SortFunc(row, stateName.compare)
		all = append(all, row)
	}
	slices.SortFunc(all, func(a, b []stateName) int {
		return cmp.Or(a[0].made.Compare(b[0].made), strings.Compare(a[0].cluster, b[0].cluster))
	})
	return all
}

// Newest is the newest archive of a state in a place, of any cluster or, unless
// cluster is empty, of that one. ErrNone.
func Newest(ctx context.Context, p Place, cluster string) (string, error) {
	names, err := p.List(ctx)
	if err != nil {
		return "", err
	}
	var best stateName
	for _, row := range byCluster(names, cluster) {
		if s := row[len(row)-1]; best.name == "" || !s.made.Before(best.made) {
			best = s
		}
	}
	if best.name == "" {
		return "", fmt.Errorf("%w: %s", ErrNone, p)
	}
	return best.name, nil
}

// LastMade tells which of a cluster's archives was made last, and when, of those that
// were not made after now: what a clock that was ahead has left does not count. ErrNone.
func LastMade(ctx context.Context, p Place, cluster string, now time.Time) (string, time.Time, error) {
	names, err := p.List(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	var last stateName
	for _, name := range names {
		s, ok := parseName(name)
		if ok && OfCluster(name, cluster) && !s.made.After(now) && (last.name == "" || cmp.Or(s.made.Compare(last.made), s.compare(last)) > 0) {
			last = s
		}
	}
	if last.name == "" {
		return "", time.Time{}, fmt.Errorf("%w: %s", ErrNone, p)
	}
	return last.name, last.made, nil
}
