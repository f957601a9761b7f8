package dispatch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"quinto/fsm"
	"quinto/plugins"
)

// covers tells whether a delivery has an object at p.
func covers(d plugins.Delivery, p fsm.Path) bool {
	return slices.ContainsFunc(d.Impacted, func(i plugins.Impacted) bool { return i.Event.Path == p })
}

// failingAt is a cluster with a leader, and a receiver that fails with err at the
// deliveries that begin with p, as long as broken is set.
func failingAt(t *testing.T, p fsm.Path, err error) (c *cluster, n *node, r *receiver, broken *atomic.Bool) {
	t.Helper()
	c, r, broken = newCluster(t), &receiver{name: "hook"}, new(atomic.Bool)
	n = &node{c}
	c.lead(n)
	broken.Store(true)
	r.failWith(func(d plugins.Delivery) error {
		if d.Event.Path == p && broken.Load() {
			return err
		}
		return nil
	})
	return c, n, r, broken
}

// One request that creates several collections is one event, as in Kinto, though each
// has a lane. It waits for what is before it in each of them, what is behind it waits for
// it, and collections beside it wait for nothing.
func TestGroupOfSeveralLanes(t *testing.T) {
	c, n, r, broken := failingAt(t, record(2, 0), errors.New("not now"))
	first := start(t, quick(n, grouping{r}))
	until(t, "the notifier is registered", func() bool { return c.notifier("hook").Name != "" })
	c.request("zero", put(record(2, 0), `{}`))
	c.request("one", put(record(3, 1), `{}`), put(collection(1), `{"n":1}`), put(collection(2), `{"n":2}`), put(record(1, 1), `{}`), put(collection(3), `{}`))
	c.request("two", put(record(4, 1), `{}`))
	until(t, "what waits for nothing is taken", func() bool {
		return slices.ContainsFunc(r.taken(), func(d plugins.Delivery) bool { return covers(d, record(4, 1)) })
	})
	first.Close()
	if slices.ContainsFunc(r.taken(), func(d plugins.Delivery) bool { return covers(d, collection(1)) || covers(d, record(1, 1)) }) {
		t.Errorf("taken before what was earlier in a lane of the group: %v", r.taken())
	}
	c.lead(n)
	start(t, quick(n, grouping{r}))
	broken.Store(false)
	until(t, "everything is taken", func() bool {
		return slices.ContainsFunc(r.taken(), func(d plugins.Delivery) bool { return covers(d, record(1, 1)) })
	})
	at := func(shapes ...string) (found []int) {
		for _, want := range shapes {
			found = append(found, slices.IndexFunc(r.taken(), func(d plugins.Delivery) bool { return shape(d) == want }))
		}
		return found
	}
	const list = "create /buckets/b/collections"
	order := at(list+"/c2/records: r0", list+": c1 c2 c3", list+"/c1/records: r1")
	if order[0] < 0 || !slices.IsSorted(order) || at(list + "/c3/records: r1")[0] > order[1] {
		t.Errorf("%v in %v", order, r.taken())
	}
}

// A lane that waits for one that fails fills the memory no more than that one does.
func TestTiedLaneHoldsUpNoOther(t *testing.T) {
	c, n, r, broken := failingAt(t, record(2, 0), errors.New("not now"))
	o := quick(n, grouping{r})
	o.QueueEvents = 4
	start(t, o)
	until(t, "the notifier is registered", func() bool { return c.notifier("hook").Name != "" })
	c.request("zero", put(record(2, 0), `{}`))
	c.request("one", put(collection(1), `{}`), put(collection(2), `{}`))
	for i := range 10 {
		c.request(fmt.Sprint("many", i), put(record(1, i), `{}`))
	}
	c.request("two", put(record(4, 1), `{}`))
	taken := func(p fsm.Path) func() bool {
		return func() bool {
			return slices.ContainsFunc(r.taken(), func(d plugins.Delivery) bool { return covers(d, p) })
		}
	}
	until(t, "another lane is served", taken(record(4, 1)))
	if taken(collection(1))() || taken(record(1, 9))() {
		t.Error("the tied lane did not wait")
	}
	broken.Store(false)
	until(t, "all of the tied lane is taken", taken(record(1, 9)))
}

// What many requests have done to collections and their records comes as Kinto groups
// it, in the order of each lane, whatever fails and whoever leads.
func TestGroupsOfSeveralLanesAtRandom(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { groupsAtRandom(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func groupsAtRandom(t *testing.T, chance *rand.Rand) {
	const lanes, requests = 4, 60
	c := newCluster(t)
	n := &node{c}
	c.lead(n)
	r := &receiver{name: "hook"}
	var calls atomic.Uint64
	r.failWith(func(plugins.Delivery) error {
		if calls.Add(1)%3 == 0 {
			return errors.New("not now")
		}
		return nil
	})
	leader := start(t, quick(n, grouping{r}))
	until(t, "the notifier is registered", func() bool { return c.notifier("hook").Name != "" })
	for i := range requests {
		var ops []fsm.Op
		for range 1 + chance.IntN(5) {
			p := collection(chance.IntN(lanes))
			if chance.IntN(2) == 0 {
				p = record(chance.IntN(lanes), chance.IntN(3))
			}
			ops = append(ops, put(p, fmt.Sprintf(`{"n":%d}`, chance.Uint32())))
		}
		c.request(fmt.Sprintf("request-%d", i), ops...)
		if i%20 == 10 {
			leader.Close()
			c.lead(n)
			leader = start(t, quick(n, grouping{r}))
		}
	}
	want := kintosGroups(t, c)
	heads := func() (first []plugins.Delivery) {
		seen := map[string]bool{}
		for _, d := range r.taken() {
			if !seen[d.ID] {
				seen[d.ID] = true
				first = append(first, d)
			}
		}
		return first
	}
	until(t, "everything is taken", func() bool { return len(heads()) >= len(want) })
	last := map[string]fsm.Revision{}
	got := map[string]bool{}
	for _, d := range heads() {
		text := revisions(d.Impacted)
		if got[text] = true; !slices.Contains(want, text) {
			t.Errorf("a group of %s, which Kinto has not", text)
		}
		for lane := range lanesOf(d) {
			if d.Event.Revision < last[lane] {
				t.Errorf("in lane %s revision %d first came after %d", lane, d.Event.Revision, last[lane])
			}
			last[lane] = d.Event.Revision
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d groups, want %d", len(got), len(want))
	}
}

func lanesOf(d plugins.Delivery) map[string]bool {
	all := map[string]bool{}
	for _, i := range d.Impacted {
		all[plugins.CollectionLane(i.Event)] = true
	}
	return all
}

func revisions(all []plugins.Impacted) string {
	var b strings.Builder
	for _, i := range all {
		fmt.Fprint(&b, i.Event.Revision, " ")
	}
	return b.String()
}

// kintosGroups are what EventCollector of kinto.core.events would make of the log.
func kintosGroups(t *testing.T, c *cluster) (all []string) {
	t.Helper()
	v := c.view()
	defer v.Close()
	groups := map[string][]plugins.Impacted{}
	if err := v.Events(0, func(e *fsm.Event) bool {
		if len(e.RequestID) > 0 {
			key := fmt.Sprint(string(e.RequestID), e.Path.List(), e.Action)
			groups[key] = append(groups[key], plugins.Impacted{Event: e})
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		all = append(all, revisions(g))
	}
	return all
}

// A group of several lanes that is given up is one dead letter, which holds nobody up; sent
// again it is whole.
func TestDeadLetterOfSeveralLanes(t *testing.T) {
	c, n, r, broken := failingAt(t, collection(1), plugins.Permanent(errors.New("never")))
	start(t, quick(n, grouping{r}))
	until(t, "the notifier is registered", func() bool { return c.notifier("hook").Name != "" })
	c.request("one", put(collection(1), `{}`), put(collection(2), `{}`), put(record(2, 1), `{}`))
	has := func(p fsm.Path) bool {
		return slices.ContainsFunc(r.taken(), func(d plugins.Delivery) bool { return covers(d, p) })
	}
	until(t, "what is behind the group is taken", func() bool { return has(record(2, 1)) })
	v := c.view()
	dead, err := Dead(v, "hook")
	v.Close()
	if err != nil || len(dead) != 1 || dead[0].Path != collection(1) || has(collection(2)) {
		t.Fatalf("%v, %v, %v", dead, err, r.taken())
	}
	broken.Store(false)
	v = c.view()
	ops, err := Redeliver(v, "hook", dead[0].Revision)
	v.Close()
	if err != nil {
		t.Fatal(err)
	}
	c.write(ops...)
	until(t, "the dead letter is taken", func() bool { return has(collection(1)) })
	if !has(collection(2)) {
		t.Errorf("%v", r.taken())
	}
}
