package counters

import (
	"context"
	"errors"
	"testing"

	"quinto/fsm"
	"quinto/plugins"
)

// state has lists and nothing else.
type state struct {
	fsm.Reader
	lists map[fsm.Path]fsm.ListInfo
	err   error
}

func (s state) Lists(f func(fsm.Path, fsm.ListInfo) bool) error {
	for p, l := range s.lists {
		if !f(p, l) {
			break
		}
	}
	return s.err
}

func TestCount(t *testing.T) {
	full := map[fsm.Path]fsm.ListInfo{
		"/buckets":                           {Count: 2, Tombstones: 1},
		"/buckets/b/collections":             {Count: 3},
		"/buckets/b/collections/c/records":   {Count: 4, Tombstones: 5},
		"/buckets/b/collections/d/records":   {Count: 10, Tombstones: 0},
		"/buckets/records/groups":            {Tombstones: 2},
		"/accounts":                          {Count: 1},
		"/buckets/b/history":                 {Count: 7},
		"/things":                            {Count: 9}, // of a kind that Kinto does not know
		"/buckets/b/collections/e/records":   {Timestamp: 5},
		"/buckets/b/collections/x/y/records": {},
	}
	for _, c := range []struct {
		lists  map[fsm.Path]fsm.ListInfo
		err    error
		status int
		want   string
	}{
		{full, nil, 200, `{"objects":{"account":1,"bucket":2,"collection":3,"record":14,"history":7},"tombstones":{"bucket":1,"group":2,"record":5}}`},
		{nil, nil, 200, `{"objects":{},"tombstones":{}}`},
		{nil, errors.New("closed"), 503, `{"code":503,"errno":201,"error":"Service Unavailable","message":"The state cannot be read."}`},
	} {
		got := count(context.Background(), &plugins.RouteRequest{View: state{lists: c.lists, err: c.err}})
		if got.Status != c.status || string(got.Body) != c.want {
			t.Errorf("%d %s, want %d %s", got.Status, got.Body, c.status, c.want)
		}
	}
}
