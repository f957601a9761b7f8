package dispatch

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// grouping is a receiver of Kinto's events.
type grouping struct{ *receiver }

func (grouping) Grouped() bool { return true }

// request logs what one request does.
func (c *cluster) request(id string, ops ...fsm.Op) {
	c.t.Helper()
	if _, err := c.log(fsm.Txn{RequestID: []byte(id), UserID: "basicauth:x", Now: fsm.Timestamp(time.Now().UnixMilli()), Ops: ops}); err != nil {
		c.t.Fatal(err)
	}
}

// shape is what a delivery says, in short.
func shape(d plugins.Delivery) string {
	s := fmt.Sprint(d.Event.Action, " ", d.Event.Path.List(), ":")
	for _, i := range d.Impacted {
		s += " " + i.Event.Path.ID()
	}
	return s
}

// One request is one event for each list and action, as in Kinto; each has its id
// from its first change, also when a new leader goes on in the middle of it.
func TestGroups(t *testing.T) {
	c := newCluster(t)
	n := &node{c}
	c.lead(n)
	r := &receiver{name: "hook"}
	var broken atomic.Bool
	broken.Store(true)
	r.failWith(func(d plugins.Delivery) error {
		if d.Event.Action == fsm.ActionUpdate && broken.Load() {
			return errors.New("not now")
		}
		return nil
	})
	first := start(t, quick(n, grouping{r}))
	until(t, "the notifier is registered", func() bool { return c.notifier("hook").Name != "" })
	c.request("one", put(record(1, 1), `{"n":1}`))
	c.request("two", put(record(1, 2), `{}`), put(record(1, 1), `{"n":2}`), put(record(2, 1), `{}`), put(record(1, 3), `{}`),
		fsm.Op{Type: fsm.OpDelete, Path: record(1, 2)})
	until(t, "all but the updates is taken", func() bool { return len(r.taken()) == 3 })
	first.Close()
	broken.Store(false)
	c.lead(n)
	start(t, quick(n, grouping{r}))
	until(t, "everything is taken", func() bool { return len(r.taken()) >= 5 })
	c.request("three", put(record(1, 9), `{}`))
	until(t, "what comes behind is taken", func() bool {
		return slices.ContainsFunc(r.taken(), func(d plugins.Delivery) bool { return d.Event.Path == record(1, 9) })
	})
	var got []string
	seen := map[string]bool{}
	for _, d := range r.taken() {
		if plugins.CollectionLane(d.Event) == "/buckets/b/collections/c1" && !seen[d.ID] {
			seen[d.ID] = true
			got = append(got, shape(d))
		}
	}
	const list = " /buckets/b/collections/c1/records: "
	want := []string{"create" + list + "r1", "create" + list + "r2 r3", "update" + list + "r1", "delete" + list + "r2", "create" + list + "r9"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, d := range r.taken() {
		if d.Event.Action != fsm.ActionUpdate {
			continue
		}
		var payload struct {
			Action   string
			Impacted []struct{ New, Old map[string]any } `json:"impacted_objects"`
		}
		if err := json.Unmarshal(plugins.Payload(&d), &payload); err != nil || payload.Action != "update" || len(payload.Impacted) != 1 ||
			payload.Impacted[0].Old["n"] != 1.0 || payload.Impacted[0].New["n"] != 2.0 {
			t.Errorf("%s: %v", plugins.Payload(&d), err)
		}
	}
}
