package dispatch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// declaring is a plugin whose notifiers are rows that hold a path. Its receivers stand
// for what is outside: all nodes share them.
type declaring struct {
	mu  sync.Mutex
	all map[string]*scoped
}

type scoped struct {
	*receiver
	mu    sync.Mutex
	scope fsm.Path
	to    string
}

func (s *scoped) Scope() fsm.Path { return s.scope }
func (s *scoped) Match(e *fsm.Event) bool {
	return e.Path == s.scope || e.Path.Under(s.scope)
}
func (s *scoped) Describe() plugins.Description { return plugins.Description{Of: s.scope} }
func (s *scoped) Receiver() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to
}

const testRows = plugins.DeclaredPrefix + "test/"

func newDeclaring() *declaring                      { return &declaring{all: map[string]*scoped{}} }
func (p *declaring) Prefix() string                 { return "x-" }
func (p *declaring) Changes(e *fsm.Event) bool      { return plugins.KindName(e.Path) == "collection" }
func (p *declaring) get(name string) *scoped        { p.mu.Lock(); defer p.mu.Unlock(); return p.all[name] }
func declaration(name string, at fsm.Path) []fsm.Op { return declare(name, string(at)) }

func declare(name, value string) []fsm.Op {
	return []fsm.Op{put(fsm.Path(value), `{}`), {Type: fsm.OpRegisterNotifier, Name: name, Value: []byte("1")},
		{Type: fsm.OpSetSetting, Name: testRows + name, Value: []byte(value)}}
}

func (p *declaring) Declared(v *fsm.View) (out []plugins.Scoped, stale []fsm.Op, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err = v.Settings(testRows, func(name string, value []byte) bool {
		at := fsm.Path(value)
		if o, _ := v.Get(at); !o.Exists() {
			stale = append(stale, fsm.Op{Type: fsm.OpSetSetting, Name: name})
			return true
		}
		name = strings.TrimPrefix(name, testRows)
		if p.all[name] == nil {
			p.all[name] = &scoped{receiver: &receiver{name: name}, scope: at, to: "here"}
		}
		out = append(out, p.all[name])
		return true
	})
	return out, stale, err
}

func collection(i int) fsm.Path { return fsm.Path(fmt.Sprintf("/buckets/b/collections/c%d", i)) }

// Declared notifiers come and go while leaders change: each gets exactly what was
// written after it was declared, in order, and a removed one is forgotten with its dead
// letters.
func TestDeclaredNotifiers(t *testing.T) {
	c, p := newCluster(t), newDeclaring()
	nodes := []*node{{c}, {c}, {c}}
	for _, n := range nodes {
		o := quick(n)
		o.Declaring = []plugins.Declaring{p}
		start(t, o)
	}
	c.lead(nodes[0])
	const colls, rounds = 30, 100
	name := func(k int) string { return fmt.Sprintf("x-%d", k) }
	want := make([]int, colls)
	for i := range rounds {
		for k := range colls {
			if i == k { // one after the other they come to be
				c.write(declaration(name(k), collection(k))...)
			}
			if rand.IntN(3) == 0 || i == rounds-1 {
				c.write(put(record(k, i), `{}`))
				if i >= k {
					want[k]++
				}
			}
		}
		if i%12 == 11 {
			c.lead(nodes[i/12%3])
		}
		time.Sleep(2 * time.Millisecond)
	}
	for k := range colls {
		until(t, "all of them", func() bool {
			s := p.get(name(k))
			if s == nil {
				return false
			}
			byLane, _ := firsts(t, s.taken())
			return len(byLane[string(collection(k))]) >= want[k]
		})
		byLane, _ := firsts(t, p.get(name(k)).taken())
		if got := len(byLane[string(collection(k))]); got != want[k] || len(byLane) != 1 {
			t.Errorf("%d: %d of %d, lanes %d", k, got, want[k], len(byLane))
		}
	}
	c.write(fsm.Op{Type: fsm.OpSetSetting, Name: DeadLetterName(name(0), 1), Value: []byte(`{}`)})
	c.write(fsm.Op{Type: fsm.OpDeleteTree, Path: collection(0)})
	c.write(put(collection(1), `{"a":1}`), fsm.Op{Type: fsm.OpSetSetting, Name: testRows + name(1)})
	until(t, "two are forgotten", func() bool {
		v := c.view()
		defer v.Close()
		list, _ := v.Notifiers()
		row, _ := v.Setting(testRows + name(0))
		letters, _ := Dead(v, name(0))
		return len(list) == colls-2 && row == nil && len(letters) == 0
	})
	until(t, "their runners end", func() bool {
		v := c.view()
		defer v.Close()
		list, err := (&Dispatcher{o: Options{Declaring: []plugins.Declaring{p}}}).Report(v)
		return err == nil && len(list) == colls-2
	})
}

// Hundreds that have nothing to do write no cursors and read nothing, whatever is
// written elsewhere.
func TestIdleDeclaredNotifiers(t *testing.T) {
	c, p := newCluster(t), newDeclaring()
	n := &node{c}
	const colls = 200
	for k := range colls {
		c.write(declaration(fmt.Sprintf("x-%d", k), collection(k))...)
	}
	c.lead(n)
	o := quick(n)
	o.Declaring = []plugins.Declaring{p}
	begun := time.Now()
	d := start(t, o)
	until(t, "all runners", func() bool { return len(d.Status()) == colls })
	for i := range 300 {
		c.write(put(record(1000, i), `{}`))
	}
	c.write(put(record(7, 1), `{}`))
	until(t, "the one change", func() bool { return len(p.get("x-7").taken()) == 1 })
	c.write(put(record(7, 2), `{}`))
	until(t, "the next", func() bool { return len(p.get("x-7").taken()) == 2 })
	until(t, "its cursor", func() bool { return c.notifier("x-7").Cursor >= colls+301 })
	c.mu.Lock()
	defer c.mu.Unlock()
	took := time.Since(begun) // each may write one in declaredSave, the first at any time of it
	if most := 20 + 2*int(colls*took/declaredSave); c.cursors > most {
		t.Errorf("%d entries for cursors in %v, more than %d", c.cursors, took, most)
	}
}

// One that is dead or hangs in all its lanes holds up no other.
func TestDeclaredNotifiersStandAlone(t *testing.T) {
	c, p := newCluster(t), newDeclaring()
	n := &node{c}
	c.lead(n)
	o := quick(n)
	o.Declaring = []plugins.Declaring{p}
	d := start(t, o)
	for k, name := range []string{"x-dead", "x-hangs", "x-good"} {
		c.write(declaration(name, collection(k))...)
	}
	until(t, "all runners", func() bool { return len(d.Status()) == 3 })
	p.get("x-dead").failWith(func(plugins.Delivery) error { return errDown })
	release := make(chan struct{})
	p.get("x-hangs").failWith(func(plugins.Delivery) error { <-release; return nil })
	defer close(release)
	for i := range 100 {
		for k := range 3 {
			c.write(put(record(k, i), `{}`))
		}
	}
	until(t, "the good one", func() bool { return len(p.get("x-good").taken()) == 100 })
	if len(p.get("x-dead").taken())+len(p.get("x-hangs").taken()) > 0 {
		t.Error("the dead took something")
	}
	v := c.view()
	defer v.Close()
	if _, err := d.Forget(v, "x-dead"); err == nil {
		t.Error("forgotten, though it is declared")
	}
	until(t, "the state of the dead one", func() bool {
		return slices.ContainsFunc(d.Status(), func(s Status) bool { return s.Name == "x-dead" && s.Failing == 1 })
	})
}

// A receiver that wants no more is left alone until another one is meant.
func TestGoneUntilAnotherReceiver(t *testing.T) {
	c, p := newCluster(t), newDeclaring()
	n := &node{c}
	c.lead(n)
	o := quick(n)
	o.Declaring = []plugins.Declaring{p}
	start(t, o)
	c.write(declaration("x-a", collection(0))...)
	until(t, "it", func() bool { return p.get("x-a") != nil })
	p.get("x-a").failWith(func(plugins.Delivery) error { return plugins.Gone(errDown) })
	c.write(put(record(0, 0), `{}`))
	paused := func() bool {
		v := c.view()
		defer v.Close()
		value, _ := v.Setting(pausedPrefix + "x-a")
		return value != nil
	}
	until(t, "the pause", paused)
	p.get("x-a").failWith(nil)
	s := p.get("x-a")
	s.mu.Lock()
	s.to = "elsewhere"
	s.mu.Unlock()
	until(t, "the change", func() bool { return len(p.get("x-a").taken()) == 1 && !paused() })
}
