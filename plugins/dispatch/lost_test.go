package dispatch

import (
	"context"
	"sync"
	"testing"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// losing is a receiver that can be told of a loss.
type losing struct {
	*receiver
	mu    sync.Mutex
	deaf  bool
	tries int
	told  []plugins.Loss
}

func (l *losing) Lost(_ context.Context, loss plugins.Loss) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tries++; l.deaf {
		return errDown
	}
	l.told = append(l.told, loss)
	return nil
}

func (l *losing) losses() []plugins.Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]plugins.Loss(nil), l.told...)
}

func (l *losing) hear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = false
}

func (c *cluster) mark(name string) (m *Lagged) {
	c.t.Helper()
	v := c.view()
	defer v.Close()
	if err := readSetting(v, LaggedName(name), &m); err != nil {
		c.t.Error(err)
	}
	return m
}

// A receiver that was away beyond the retention is told which changes it has lost, all
// of them, once it can be reached, by whoever leads then; and told once.
func TestLossIsTold(t *testing.T) {
	c := newCluster(t)
	r := &losing{receiver: &receiver{name: "hook"}, deaf: true}
	r.failWith(func(plugins.Delivery) error { return errDown })
	nodes := []*node{{c}, {c}}
	for _, n := range nodes {
		o := quick(n, r)
		o.Retention = Retention{Keep: 20, HardCap: 60, Every: 10 * time.Millisecond, Step: 1000}
		start(t, o)
	}
	c.lead(nodes[0])
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	for i := range 100 {
		c.write(put(record(0, i), `{}`))
	}
	until(t, "the hard cap", func() bool { return c.floor() == 40 })
	until(t, "an attempt", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.tries > 0 })
	for i := range 50 {
		c.write(put(record(0, i), `{"a":1}`))
	}
	until(t, "the hard cap again", func() bool { return c.floor() == 90 })
	c.lead(nodes[1])
	r.hear()
	until(t, "the word", func() bool { m := c.mark("hook"); return m != nil && m.Told })
	first := r.losses()[0]
	if first.After != 0 || first.UpTo != 90 || first.ID == "" {
		t.Errorf("%+v", first)
	}
	for _, l := range r.losses() { // a repeat is one
		if l != first {
			t.Errorf("%+v, %+v", first, l)
		}
	}
	said := len(r.losses())
	r.failWith(nil)
	until(t, "the rest", func() bool { n := c.notifier("hook"); return n.Cursor == 150 && len(n.Lanes) == 0 })
	byLane, _ := firsts(t, r.taken())
	got := byLane["/buckets/b/collections/c0"]
	if len(got) < 60 || got[len(got)-60] != fsm.Revision(91) {
		t.Errorf("what is retained was not all delivered: %d", len(got))
	}
	if len(r.losses()) != said {
		t.Errorf("told again: %+v", r.losses())
	}
}
