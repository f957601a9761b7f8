package dispatch

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

func (c *cluster) floor() fsm.Revision {
	v := c.view()
	defer v.Close()
	return v.EventFloor()
}

// Events are kept by number, and as long as a notifier needs them.
func TestRetentionWaitsForTheSlowest(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	r.failWith(func(d plugins.Delivery) error {
		if d.Event.Revision == 51 {
			return errDown
		}
		return nil
	})
	n := &node{c}
	c.lead(n)
	o := quick(n, r)
	o.Retention = Retention{Keep: 20, HardCap: 1000, Every: 10 * time.Millisecond, Step: 7}
	start(t, o)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	for i := range 100 {
		c.write(put(record(i/50, i), `{}`))
	}
	until(t, "trimming up to the failing lane", func() bool { return c.floor() == 50 })
	r.failWith(nil)
	until(t, "trimming up to the last 20", func() bool { return c.floor() == 80 })
	until(t, "the cursor", func() bool { return c.notifier("hook").Cursor == 100 })
	if _, repeated := firsts(t, r.taken()); repeated != 0 || len(r.taken()) != 100 {
		t.Errorf("%d deliveries, %d repeated", len(r.taken()), repeated)
	}
}

// Beyond the hard cap a notifier loses events, and is told so.
func TestRetentionMarksTheLagged(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	r.failWith(func(plugins.Delivery) error { return errDown })
	n := &node{c}
	c.lead(n)
	o := quick(n, r)
	o.Retention = Retention{Keep: 20, HardCap: 60, Every: 10 * time.Millisecond, Step: 1000}
	d := start(t, o)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	for i := range 100 {
		c.write(put(record(0, i), `{}`))
	}
	until(t, "the hard cap", func() bool { return c.floor() == 40 })
	v := c.view()
	value, err := v.Setting(LaggedName("hook"))
	v.Close()
	var mark Lagged
	if err != nil || json.Unmarshal(value, &mark) != nil || mark.To == 0 || mark.To > 40 {
		t.Errorf("mark %q, %v", value, err)
	}
	r.failWith(nil)
	until(t, "the rest", func() bool { n := c.notifier("hook"); return n.Cursor == 100 && len(n.Lanes) == 0 })
	byLane, _ := firsts(t, r.taken())
	got := byLane["/buckets/b/collections/c0"]
	if len(got) < 60 || got[len(got)-60] != 41 {
		t.Errorf("what is retained was not all delivered: %d", len(got))
	}
	until(t, "the status", func() bool { return d.Status()[0].Lost > 0 })
}

// With an age, delivered events go even when they are few.
func TestRetentionByAge(t *testing.T) {
	c := newCluster(t)
	n := &node{c}
	old := fsm.Timestamp(time.Now().Add(-2 * time.Hour).UnixMilli())
	for i := range 30 {
		at := old
		if i >= 20 {
			at = fsm.Timestamp(time.Now().UnixMilli())
		}
		if _, err := c.log(fsm.Txn{Now: at, Ops: []fsm.Op{put(record(0, i), `{}`)}}); err != nil {
			t.Fatal(err)
		}
	}
	c.lead(n)
	o := quick(n)
	o.Retention = Retention{Keep: 100, Age: time.Hour, Every: 10 * time.Millisecond}
	start(t, o)
	until(t, "the old events to go", func() bool { return c.floor() == 20 })
}

// Observers hear of everything applied since they began, leader or not.
func TestObservers(t *testing.T) {
	c := newCluster(t)
	c.write(put(record(0, 0), `{}`))
	o := &observer{}
	opts := quick(&node{c})
	opts.Observers = []plugins.Observer{panicking{}, o}
	start(t, opts)
	i := 1
	until(t, "the first event", func() bool { c.write(put(record(0, i), `{}`)); i++; return len(o.seen()) > 0 })
	for range 100 {
		c.write(put(record(0, i), `{}`))
		i++
	}
	until(t, "all", func() bool { s := o.seen(); return s[len(s)-1] == fsm.Revision(i) })
	for k, r := range o.seen() {
		if r != o.seen()[0]+fsm.Revision(k) {
			t.Fatalf("gap at %d", r)
		}
	}
}

type observer struct {
	mu  sync.Mutex
	got []fsm.Revision
}

func (o *observer) Observe(e *fsm.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.got = append(o.got, e.Revision)
}

func (o *observer) seen() []fsm.Revision {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]fsm.Revision(nil), o.got...)
}

type panicking struct{}

func (panicking) Observe(*fsm.Event) { panic("a bug in an observer") }
