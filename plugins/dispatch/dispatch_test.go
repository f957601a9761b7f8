package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

var errDown = errors.New("receiver is down")

// A new notifier gets what is committed after its registration, with the
// bodies before and after, and its cursor reaches the log.
func TestDeliversWithBodies(t *testing.T) {
	c := newCluster(t)
	c.write(put(record(1, 0), `{"a":0}`))
	n, r := &node{c}, &receiver{name: "hook"}
	c.lead(n)
	d := start(t, quick(n, r))
	until(t, "registration", func() bool { return c.notifier("hook").Start == 1 })
	c.write(put(record(1, 1), `{"a":1}`))
	c.write(put(record(1, 1), `{"a":2}`))
	c.write(fsm.Op{Type: fsm.OpDelete, Path: record(1, 1)})
	until(t, "three deliveries", func() bool { return len(r.taken()) == 3 })
	got := r.taken()
	if g := got[0]; g.Old != nil || string(g.New.Data) != `{"a":1}` || g.Event.Action != fsm.ActionCreate || g.Attempt != 1 {
		t.Errorf("create: %+v", g)
	}
	if g := got[1]; string(g.Old.Data) != `{"a":1}` || string(g.New.Data) != `{"a":2}` || g.Event.UserID != "basicauth:x" {
		t.Errorf("update: %+v", g)
	}
	if g := got[2]; string(g.Old.Data) != `{"a":2}` || g.New != nil || g.Old.LastModified != got[1].New.LastModified {
		t.Errorf("delete: %+v", g)
	}
	until(t, "the cursor", func() bool { return c.notifier("hook").Cursor == 4 })
	until(t, "the status", func() bool {
		s := d.Status()
		return len(s) == 1 && s[0].State == StateDelivering && s[0].Delivered == 3 && s[0].Cursor == 4 && s[0].Lanes == 0
	})
	c.lead(nil)
	until(t, "standby", func() bool { s := d.Status(); return s[0].State == StateStandby })
}

// A leader that dies between sending and its cursor leads to repeated
// deliveries, with the same id, never to a gap, and order is kept.
func TestFailoverLeavesNoGap(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	r.failWith(func(plugins.Delivery) error {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		if rand.IntN(20) == 0 {
			return errDown
		}
		return nil
	})
	nodes := []*node{{c}, {c}, {c}}
	for _, n := range nodes {
		start(t, quick(n, r))
	}
	c.lead(nodes[0])
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	const colls, rounds = 10, 150
	for i := range rounds {
		for k := range colls {
			c.write(put(record(k, i), fmt.Sprintf(`{"i":%d}`, i)))
		}
		if i%15 == 14 {
			c.lead(nodes[i/15%3])
		}
		if i%40 == 39 {
			c.lead(nil)
			c.lead(nodes[rand.IntN(3)])
		}
		time.Sleep(2 * time.Millisecond)
	}
	until(t, "all of them", func() bool {
		n := c.notifier("hook")
		return n.Cursor == colls*rounds && len(n.Lanes) == 0
	})
	byLane, repeated := firsts(t, r.taken())
	for k := range colls {
		if got := len(byLane[fmt.Sprintf("/buckets/b/collections/c%d", k)]); got != rounds {
			t.Errorf("collection %d: %d of %d", k, got, rounds)
		}
	}
	t.Logf("%d deliveries, %d repeated over %d failovers", len(r.taken()), repeated, c.term)
	if repeated == 0 {
		t.Log("no failover came between a delivery and its cursor: this run proves little")
	}
}

// A lane whose receiver fails for ever holds neither other lanes nor the
// cursor, and a failover does not repeat the healthy lanes.
func TestPoisonedLane(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	poison := func(d plugins.Delivery) error {
		if strings.HasPrefix(string(d.Event.Path), "/buckets/b/collections/c0/") {
			return errDown
		}
		return nil
	}
	r.failWith(poison)
	a, b := &node{c}, &node{c}
	start(t, quick(a, r))
	start(t, quick(b, r))
	c.lead(a)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	const rounds = 1000
	for i := range rounds {
		c.write(put(record(0, i), `{}`), put(record(1, i), `{}`), put(record(2, i), `{}`))
	}
	until(t, "the healthy lanes and the cursor", func() bool {
		n := c.notifier("hook")
		return len(r.taken()) == 2*rounds && n.Cursor == 3*rounds && len(n.Lanes) == 1 && n.Lanes[0].Revision == 0
	})
	c.lead(b)
	c.write(put(record(1, rounds), `{}`))
	until(t, "the write after failover", func() bool { return len(r.taken()) == 2*rounds+1 })
	if _, repeated := firsts(t, r.taken()); repeated != 0 {
		t.Errorf("failover repeated %d deliveries of healthy lanes", repeated)
	}
	r.failWith(nil)
	until(t, "the poisoned lane", func() bool { return len(c.notifier("hook").Lanes) == 0 && len(r.taken()) == 3*rounds+1 })
	byLane, repeated := firsts(t, r.taken())
	if len(byLane["/buckets/b/collections/c0"]) != rounds || repeated != 0 {
		t.Errorf("poisoned lane: %d, repeated %d", len(byLane["/buckets/b/collections/c0"]), repeated)
	}
}

// With more lagging lanes than the table holds the cursor waits, and nothing is
// lost over a failover, also to a leader with a shorter table.
func TestMoreLanesThanTheTable(t *testing.T) {
	c := newCluster(t)
	var down atomic.Bool
	down.Store(true)
	r := &receiver{name: "hook"}
	r.failWith(func(plugins.Delivery) error {
		if down.Load() {
			return errDown
		}
		return nil
	})
	a, b := &node{c}, &node{c}
	long, short := quick(a, r), quick(b, r)
	short.Lanes = 10
	for _, o := range []Options{long, short} {
		o.Retry.Max = 300 * time.Millisecond // 1,300 lanes at once are work
		o.Retry.First = []time.Duration{o.Retry.Max}
		start(t, o)
	}
	c.lead(a)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	const lanes, each = MaxLanes + 300, 4
	for i := range each {
		for k := 0; k < lanes; k += 10 {
			var ops []fsm.Op
			for j := range 10 {
				ops = append(ops, put(record(k+j, i), `{}`))
			}
			c.write(ops...)
		}
	}
	until(t, "a full table", func() bool { n := c.notifier("hook"); return n.Cursor >= MaxLanes })
	if n := c.notifier("hook"); len(n.Lanes) > MaxLanes || n.Cursor >= lanes {
		t.Errorf("cursor %d with %d lanes", n.Cursor, len(n.Lanes))
	}
	c.lead(b)
	time.Sleep(100 * time.Millisecond) // some entries of the shorter table
	c.lead(a)
	down.Store(false)
	until(t, "everything", func() bool { n := c.notifier("hook"); return n.Cursor == lanes*each && len(n.Lanes) == 0 })
	byLane, _ := firsts(t, r.taken())
	for k := range lanes {
		if got := len(byLane[fmt.Sprintf("/buckets/b/collections/c%d", k)]); got != each {
			t.Fatalf("lane %d got %d of %d", k, got, each)
		}
	}
}

// Little memory, few workers and a slow start must not lose, reorder or repeat:
// every path through catching up is taken.
func TestCatchingUp(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := newCluster(t)
			rng := rand.New(rand.NewPCG(seed, 1))
			r := &receiver{name: "hook", skip: func(e *fsm.Event) bool { return strings.HasSuffix(string(e.Path), "7") }}
			rate := rng.IntN(30)
			r.failWith(func(plugins.Delivery) error {
				if rand.IntN(100) < rate {
					return errDown
				}
				return nil
			})
			n := &node{c}
			o := quick(n, r)
			o.LaneEvents, o.QueueEvents, o.Workers, o.Lanes = 1+rng.IntN(4), 3+rng.IntN(40), 1+rng.IntN(6), 1+rng.IntN(8)
			o.Retry.Max = 8 * time.Millisecond
			c.lead(n)
			start(t, o)
			until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
			want, total := 0, fsm.Revision(0)
			for range 150 {
				var ops []fsm.Op
				for range 1 + rng.IntN(6) {
					p := record(rng.IntN(8)*rng.IntN(2), rng.IntN(1000))
					ops = append(ops, put(p, `{}`))
					total++
					if !strings.HasSuffix(string(p), "7") {
						want++
					}
				}
				c.write(ops...)
			}
			until(t, "everything", func() bool { n := c.notifier("hook"); return n.Cursor == total && len(n.Lanes) == 0 })
			if _, repeated := firsts(t, r.taken()); repeated != 0 || len(r.taken()) != want {
				t.Errorf("%d deliveries of %d, %d repeated", len(r.taken()), want, repeated)
			}
		})
	}
}

// One notifier whose receiver hangs slows no other.
func TestHangingReceiverHoldsNobody(t *testing.T) {
	c := newCluster(t)
	release := make(chan struct{})
	dead, alive := &receiver{name: "dead"}, &receiver{name: "alive"}
	dead.failWith(func(plugins.Delivery) error { <-release; return errDown })
	n := &node{c}
	c.lead(n)
	start(t, quick(n, dead, alive))
	until(t, "registration", func() bool { return c.notifier("alive").Name != "" })
	for i := range 200 {
		c.write(put(record(i%100, i), `{}`))
	}
	until(t, "the other's deliveries", func() bool { return len(alive.taken()) == 200 })
	close(release)
}

// What fails for too long becomes a dead letter, and the lane goes on.
func TestDeadLetters(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	r.failWith(func(d plugins.Delivery) error {
		switch {
		case strings.HasSuffix(string(d.Event.Path), "/r0"):
			return plugins.Permanent(errors.New("no receiver wants this"))
		case strings.HasSuffix(string(d.Event.Path), "/r1"):
			return errDown
		}
		return nil
	})
	n := &node{c}
	c.lead(n)
	o := quick(n, r)
	o.Retry.GiveUp = time.Millisecond
	start(t, o)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	for i := range 4 {
		c.write(put(record(0, i), `{}`))
	}
	until(t, "the cursor", func() bool { n := c.notifier("hook"); return n.Cursor == 4 && len(n.Lanes) == 0 })
	if got := r.taken(); len(got) != 2 || got[0].Event.Revision != 3 || got[1].Event.Revision != 4 {
		t.Errorf("deliveries %+v", got)
	}
	v := c.view()
	defer v.Close()
	for revision, why := range map[fsm.Revision]string{1: "no receiver wants this", 2: errDown.Error()} {
		value, err := v.Setting(DeadLetterName("hook", revision))
		var dead DeadLetter
		if err != nil || json.Unmarshal(value, &dead) != nil {
			t.Fatalf("dead letter %d: %q, %v", revision, value, err)
		}
		if dead.Revision != revision || !strings.Contains(dead.Error, why) || dead.Attempts < 1 || dead.ID != plugins.DeliveryID(clusterID, "hook", revision) {
			t.Errorf("dead letter %+v", dead)
		}
	}
}

// A change is not given up on the first failure only because it is old: the
// cluster may have been down, and the receiver is just restarting.
func TestOldChangesArePatientlyTried(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	var calls atomic.Int32
	r.failWith(func(plugins.Delivery) error {
		if calls.Add(1) < 4 {
			return errDown
		}
		return nil
	})
	n := &node{c}
	c.lead(n)
	o := quick(n, r)
	o.Retry.GiveUp, o.Retry.Patience = time.Millisecond, time.Minute
	start(t, o)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	c.write(put(record(0, 0), `{}`))
	until(t, "the delivery", func() bool { return len(r.taken()) == 1 })
}

// The receiver's Retry-After delays its lane, within the bound.
func TestRetryAfter(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	var calls atomic.Int32
	r.failWith(func(plugins.Delivery) error {
		if calls.Add(1) == 1 {
			return &plugins.RetryAfter{After: 150 * time.Millisecond, Err: errDown}
		}
		return nil
	})
	n := &node{c}
	c.lead(n)
	o := quick(n, r)
	o.Retry.Max = time.Second
	start(t, o)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	begun := time.Now()
	c.write(put(record(0, 0), `{}`))
	until(t, "the delivery", func() bool { return len(r.taken()) == 1 })
	if took := time.Since(begun); took < 150*time.Millisecond {
		t.Errorf("tried again after %v", took)
	}
}

// Close and Flush leave a cursor with which the next leader repeats nothing.
func TestCloseAndFlushLogTheCursor(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	a, b := &node{c}, &node{c}
	c.lead(a)
	o := quick(a, r)
	o.CursorInterval = time.Hour
	d := start(t, o)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	c.write(put(record(0, 0), `{}`))
	until(t, "the delivery", func() bool { return len(r.taken()) == 1 })
	if err := d.Flush(context.Background()); err != nil || c.notifier("hook").Cursor != 1 {
		t.Fatalf("flush: %v, cursor %d", err, c.notifier("hook").Cursor)
	}
	c.lead(b)
	o.Leader = b
	d2 := start(t, o)
	c.write(put(record(0, 1), `{}`))
	until(t, "the second", func() bool { return len(r.taken()) == 2 })
	d2.Close()
	if got := c.notifier("hook").Cursor; got != 2 {
		t.Errorf("cursor after Close: %d", got)
	}
	if err := d.Flush(context.Background()); err != nil {
		t.Errorf("flush without leadership: %v", err)
	}
}

// A leader that ends before its first tick has noted what it had delivered in full.
func TestCursorIsLoggedOnceAllIsDelivered(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	a, b := &node{c}, &node{c}
	c.lead(a)
	o := quick(a, r)
	o.CursorInterval = time.Hour
	start(t, o)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	c.write(put(record(0, 0), `{}`))
	until(t, "the cursor", func() bool { return c.notifier("hook").Cursor == 1 })
	c.lead(b)
	o.Leader = b
	start(t, o)
	c.write(put(record(0, 1), `{}`))
	until(t, "the second cursor", func() bool { return c.notifier("hook").Cursor == 2 })
	if got := r.taken(); len(got) != 2 {
		t.Errorf("%d deliveries of 2 changes", len(got))
	}
}

// The cursor is logged rarely, whatever is delivered.
func TestCursorIsLoggedRarely(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	n := &node{c}
	c.lead(n)
	o := quick(n, r)
	o.CursorInterval = 100 * time.Millisecond
	start(t, o)
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	begun := time.Now()
	for i := range 500 {
		c.write(put(record(i%10, i), `{}`))
	}
	until(t, "the cursor", func() bool { n := c.notifier("hook"); return n.Cursor == 500 && len(n.Lanes) == 0 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit := int(time.Since(begun)/o.CursorInterval) + 2; c.cursors > limit {
		t.Errorf("%d cursor entries in %v", c.cursors, time.Since(begun))
	}
}

// Proposals that fail for a while delay the cursor and nothing else.
func TestCursorIsTriedAgain(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	n := &node{c}
	c.lead(n)
	start(t, quick(n, r))
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	refuse := func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refuse = err
	}
	refuse(fsm.ErrUnknownOutcome)
	c.write(put(record(0, 0), `{}`))
	until(t, "the delivery", func() bool { return len(r.taken()) == 1 })
	time.Sleep(100 * time.Millisecond)
	refuse(nil)
	until(t, "the cursor", func() bool { return c.notifier("hook").Cursor == 1 })
}

// Nodes with different files: a changed filter goes on from the cursor, a
// missing notifier is shown and makes a node hand leadership over once.
func TestDifferentFiles(t *testing.T) {
	c := newCluster(t)
	first := &receiver{name: "hook"}
	a, b := &node{c}, &node{c}
	c.lead(a)
	d := start(t, quick(a, first))
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	c.write(put(record(0, 0), `{}`))
	until(t, "the cursor", func() bool { return c.notifier("hook").Cursor == 1 })
	d.Close()

	changed := &receiver{name: "hook", hash: "2"}
	c.lead(b)
	d = start(t, quick(b, changed))
	until(t, "the new filter", func() bool { return string(c.notifier("hook").Hash) == "hash2" })
	c.write(put(record(0, 1), `{}`))
	until(t, "the second", func() bool { return len(changed.taken()) == 1 })
	if n := c.notifier("hook"); n.Start != 0 || changed.taken()[0].Event.Revision != 2 {
		t.Errorf("a changed filter began anew: %+v", n)
	}
	d.Close()

	var handed atomic.Int32
	o := quick(a)
	o.HandOver = func(string) error { handed.Add(1); return errors.New("nobody wants it") }
	c.lead(a)
	d = start(t, o)
	until(t, "the missing one", func() bool { s := d.Status(); return len(s) == 1 && s[0].State == StateMissing && s[0].Name == "hook" })
	c.lead(b)
	c.lead(a)
	time.Sleep(50 * time.Millisecond)
	if handed.Load() != 1 {
		t.Errorf("leadership handed over %d times", handed.Load())
	}
}

// A notifier that panics has failed, no more.
func TestPanickingNotifier(t *testing.T) {
	c := newCluster(t)
	r := &receiver{name: "hook"}
	var calls atomic.Int32
	r.failWith(func(plugins.Delivery) error {
		if calls.Add(1) == 1 {
			panic("a bug in a plugin")
		}
		return nil
	})
	n := &node{c}
	c.lead(n)
	start(t, quick(n, r))
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	c.write(put(record(0, 0), `{}`))
	until(t, "the delivery", func() bool { return len(r.taken()) == 1 })
}

func TestNewRefusesBadNames(t *testing.T) {
	for name, list := range map[string][]plugins.Notifier{
		"empty":   {&receiver{}},
		"slash":   {&receiver{name: "a/b"}},
		"long":    {&receiver{name: strings.Repeat("x", MaxNameBytes+1)}},
		"twice":   {&receiver{name: "a"}, &receiver{name: "a"}},
		"unicode": {&receiver{name: "ä"}},
	} {
		if _, err := New(Options{Notifiers: list}); !errors.Is(err, ErrBadNotifier) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPauses(t *testing.T) {
	r := Retry{}.withDefaults()
	for failures, want := range map[int]time.Duration{1: 500 * time.Millisecond, 4: 5 * time.Second, 5: 10 * time.Second, 6: 20 * time.Second, 30: time.Hour, 1 << 20: time.Hour} {
		for range 100 {
			if got := r.pause(failures); got < want*8/10 || got > want*12/10 {
				t.Fatalf("after %d failures: %v, want about %v", failures, got, want)
			}
		}
	}
}

// What was written quietly, as by an import, is told to nobody, also not to a lane
// that is read again later; what follows is.
func TestQuietEventsAreNotDelivered(t *testing.T) {
	c := newCluster(t)
	n, r := &node{c}, &receiver{name: "hook"}
	c.lead(n)
	start(t, quick(n, r))
	until(t, "registration", func() bool { return c.notifier("hook").Hash != nil })
	r.failWith(func(plugins.Delivery) error { return errDown }) // so that the lane falls behind
	c.write(put(record(1, 0), `{"a":0}`))
	for i := range 100 {
		if _, err := c.log(fsm.Txn{Now: n.Now(), Quiet: true, Ops: []fsm.Op{put(record(1, i+1), `{}`), put(record(2, i+1), `{}`)}}); err != nil {
			t.Fatal(err)
		}
	}
	c.write(put(record(1, 500), `{"a":1}`))
	c.write(put(record(2, 500), `{"a":2}`))
	r.failWith(nil)
	until(t, "the loud ones", func() bool { return len(r.taken()) >= 3 })
	until(t, "the cursor", func() bool { return c.notifier("hook").Cursor == 203 })
	for _, d := range r.taken() {
		if d.Event.Quiet {
			t.Errorf("delivered %s", d.Event.Path)
		}
	}
}

// What a kind hides no notifier gets, alone or in a group of changes, before or after;
// other kinds keep a field of that name.
func TestHiddenFieldsStayHere(t *testing.T) {
	c := newCluster(t)
	n, alone, grouped := &node{c}, &receiver{name: "alone"}, grouping{&receiver{name: "grouped"}}
	c.lead(n)
	o := quick(n, alone, grouped)
	o.Hidden = map[string][]string{"tokens": {"secret"}}
	start(t, o)
	until(t, "registration", func() bool { return c.notifier("alone").Name != "" && c.notifier("grouped").Name != "" })
	for i := range 2 {
		data := fmt.Sprintf(`{"a":%d,"secret":"x"}`, i)
		c.write(put("/tokens/t", data), put("/tokens/u", data), put(record(1, 1), data))
	}
	c.write(fsm.Op{Type: fsm.OpDelete, Path: "/tokens/t"})
	until(t, "all", func() bool { return len(alone.taken()) == 7 && len(grouped.taken()) >= 5 })
	for _, d := range slices.Concat(alone.taken(), grouped.taken()) {
		for _, i := range append(d.Impacted, plugins.Impacted{Old: d.Old, New: d.New}) {
			for _, o := range []*fsm.Object{i.Old, i.New} {
				if o != nil && strings.Contains(string(o.Data), "secret") != strings.HasPrefix(string(o.Path), "/buckets/") {
					t.Errorf("%s %s: %s", d.Notifier, o.Path, o.Data)
				}
			}
		}
	}
}
