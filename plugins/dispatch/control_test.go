package dispatch

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// order logs what makes returns, as a command of the operator does.
func (c *cluster) order(t *testing.T, makes func(v *fsm.View) ([]fsm.Op, error)) {
	t.Helper()
	v := c.view()
	ops, err := makes(v)
	v.Close()
	if err != nil {
		t.Fatal(err)
	}
	c.write(ops...)
}

func report(t *testing.T, c *cluster, d *Dispatcher) Report {
	t.Helper()
	v := c.view()
	defer v.Close()
	all, err := d.Report(v)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	return all[0]
}

// A pause holds deliveries back over a failover, and resuming loses and repeats none.
func TestPause(t *testing.T) {
	c := newCluster(t)
	a, b := &node{c}, &node{c}
	r := &receiver{name: "hook"}
	c.lead(a)
	d, e := start(t, quick(a, r)), start(t, quick(b, r))
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	c.order(t, func(v *fsm.View) ([]fsm.Op, error) { return Pause(v, "hook", "works", 5) })
	until(t, "the pause", func() bool { return d.Status()[0].State == StatePaused })
	for i := range 50 {
		c.write(put(record(i%5, i), `{}`))
	}
	c.lead(b)
	until(t, "the other leader", func() bool { s := e.Status(); return s[0].State == StatePaused && s[0].Lanes > 0 })
	if got := r.taken(); len(got) != 0 {
		t.Errorf("%d deliveries while paused", len(got))
	}
	if p := report(t, c, e); p.Paused == nil || p.Paused.Reason != "works" || p.Lag < 50 {
		t.Errorf("%+v", p)
	}
	c.order(t, func(v *fsm.View) ([]fsm.Op, error) { return Resume(v, "hook") })
	until(t, "all deliveries", func() bool { return len(r.taken()) >= 50 })
	if _, repeated := firsts(t, r.taken()); repeated != 0 || len(r.taken()) != 50 {
		t.Errorf("%d deliveries, %d repeated", len(r.taken()), repeated)
	}
}

// A receiver that is gone is not asked again, by no leader, until the operator says so.
func TestGone(t *testing.T) {
	c := newCluster(t)
	a, b := &node{c}, &node{c}
	var asked atomic.Int32
	r := &receiver{name: "hook"}
	r.failWith(func(plugins.Delivery) error {
		asked.Add(1)
		return &plugins.RetryAfter{After: time.Hour, Err: plugins.Gone(errors.New("answered 410"))}
	})
	c.lead(a)
	d, e := start(t, quick(a, r)), start(t, quick(b, r))
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	c.write(put(record(0, 0), `{}`))
	until(t, "the pause", func() bool { return report(t, c, d).Paused != nil })
	if p := report(t, c, d); !strings.Contains(p.Paused.Reason, "410") || p.State != StatePaused {
		t.Errorf("%+v", p)
	}
	c.lead(b)
	until(t, "the other leader", func() bool { return e.Status()[0].State == StatePaused })
	c.write(put(record(1, 0), `{}`))
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
	r.failWith(nil)
	c.order(t, func(v *fsm.View) ([]fsm.Op, error) { return Resume(v, "hook") })
	until(t, "both deliveries", func() bool { return len(r.taken()) == 2 })
	until(t, "the attempts", func() bool { return len(e.Deliveries("hook")) == 2 })
}

// A replay delivers again what the log has, in order, with the same ids, and new
// changes behind it; a failover in the middle loses nothing of it.
func TestReplay(t *testing.T) {
	c := newCluster(t)
	a, b := &node{c}, &node{c}
	r := &receiver{name: "hook"}
	c.lead(a)
	start(t, quick(a, r))
	start(t, quick(b, r))
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	const lanes, changes = 4, 200
	for i := range changes {
		c.write(put(record(i%lanes, i), `{}`))
	}
	until(t, "all deliveries", func() bool { return len(r.taken()) == changes })
	middle := r.taken()[changes/2].Event.Revision
	var slow atomic.Bool
	r.failWith(func(plugins.Delivery) error {
		if slow.Load() {
			return errDown
		}
		return nil
	})
	slow.Store(true)
	c.order(t, func(v *fsm.View) ([]fsm.Op, error) { ops, _, err := Replay(v, "hook", middle); return ops, err })
	until(t, "lanes that are put back", func() bool { return len(c.notifier("hook").Lanes) == lanes })
	c.lead(b)
	slow.Store(false)
	again := func() map[fsm.Revision]int {
		seen := map[fsm.Revision]int{}
		for _, d := range r.taken()[changes:] {
			seen[d.Event.Revision]++
		}
		return seen
	}
	total := int(c.revision() - middle + 1)
	until(t, "the replay", func() bool { return len(again()) == total })
	last := map[string]fsm.Revision{}
	for _, d := range r.taken()[changes:] {
		lane := plugins.CollectionLane(d.Event)
		if d.Event.Revision < middle || d.Event.Revision <= last[lane] || d.ID != plugins.DeliveryID(clusterID, "hook", d.Event.Revision) {
			t.Errorf("revision %d after %d", d.Event.Revision, last[lane])
		}
		last[lane] = d.Event.Revision
	}
	c.write(put(record(0, 9999), `{}`))
	until(t, "a new change", func() bool { return len(again()) == total+1 })
	until(t, "the cursor", func() bool { return c.notifier("hook").Cursor == c.revision() && len(c.notifier("hook").Lanes) == 0 })
}

// A dead letter is sent again once for each order: taken, it is none any more;
// refused, it stays with the new error.
func TestRedeliver(t *testing.T) {
	c := newCluster(t)
	n := &node{c}
	var refuse atomic.Bool
	refuse.Store(true)
	r := &receiver{name: "hook"}
	r.failWith(func(d plugins.Delivery) error {
		if refuse.Load() {
			return plugins.Permanent(errDown)
		}
		return nil
	})
	c.lead(n)
	d := start(t, quick(n, r))
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	c.write(put(record(0, 0), `{}`))
	c.write(put(record(0, 1), `{}`))
	until(t, "dead letters", func() bool { return report(t, c, d).Letters == 2 })
	c.order(t, func(v *fsm.View) ([]fsm.Op, error) { return Redeliver(v, "hook", 1) })
	letter := func() []DeadLetter {
		v := c.view()
		defer v.Close()
		all, err := Dead(v, "hook")
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	until(t, "the second attempt", func() bool { return letter()[0].Attempts == 2 })
	refuse.Store(false)
	c.order(t, func(v *fsm.View) ([]fsm.Op, error) { return Redeliver(v, "hook", 0) })
	until(t, "no dead letters", func() bool { return len(letter()) == 0 && len(r.taken()) == 2 })
	v := c.view()
	defer v.Close()
	if _, err := Redeliver(v, "hook", 0); !errors.Is(err, ErrNoLetter) {
		t.Error(err)
	}
	if _, err := Pause(v, "other", "", 0); !errors.Is(err, ErrNoNotifier) {
		t.Error(err)
	}
	if _, err := d.Forget(v, "hook"); !errors.Is(err, ErrConfigured) {
		t.Error(err)
	}
	if err := d.Test(context.Background(), "hook"); !errors.Is(err, ErrNoTest) {
		t.Error(err)
	}
	other, err := New(Options{Leader: n})
	if err != nil {
		t.Fatal(err)
	}
	ops, err := other.Forget(v, "hook")
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	c.write(ops...)
	if c.notifier("hook").Name != "" {
		t.Error("not forgotten")
	}
}

func (c *cluster) revision() fsm.Revision {
	v := c.view()
	defer v.Close()
	return v.Revision()
}
