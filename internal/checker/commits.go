package checker

import (
	"fmt"
	"slices"
	"sort"
)

// commits is what the webhook told: every revision with what it made. It is the
// product's own word, so all that clients saw is held against it.
type commits struct {
	byRev   map[uint64]*Hook
	revs    []uint64            // sorted
	objects map[string][]uint64 // revisions of an object, sorted
	byValue map[string]uint64   // unique v or p → revision that wrote it
	times   []int64             // of revs: last_modified
	first   uint64              // nothing is known before it
	whole   bool                // no revision is missing
}

// webhooks checks the deliveries: each committed revision at least once, first
// deliveries in order within a lane, repeats with the same id.
func (c *check) webhooks() {
	log := &commits{byRev: map[uint64]*Hook{}, objects: map[string][]uint64{}, byValue: map[string]uint64{}}
	c.log = log
	newest := map[string]uint64{} // by lane
	for _, h := range c.h.Hooks {
		if old := log.byRev[h.Revision]; old != nil {
			if old.ID != h.ID || old.Value != h.Value || old.Action != h.Action {
				c.violated(Webhooks, "revision %d was delivered as %+v and as %+v", h.Revision, *old, *h)
			}
			continue
		}
		log.byRev[h.Revision] = h
		if h.Revision < newest[h.Lane] {
			c.violated(Webhooks, "revision %d was first delivered after %d in lane %s", h.Revision, newest[h.Lane], h.Lane)
		}
		newest[h.Lane] = h.Revision
	}
	for rev := range log.byRev {
		log.revs = append(log.revs, rev)
	}
	slices.Sort(log.revs)
	log.whole = len(log.revs) > 0
	for i, rev := range log.revs {
		if i > 0 && rev != log.revs[i-1]+1 {
			log.whole = false
			c.violated(Webhooks, "nothing was delivered for revisions %d to %d", log.revs[i-1]+1, rev-1)
		}
		c.index(log.byRev[rev])
	}
	if len(log.revs) == 0 {
		return
	}
	log.first = log.revs[0]
	for _, f := range c.h.Finals {
		if f.Revision > log.revs[len(log.revs)-1] {
			log.whole = false
			c.violated(Webhooks, "deliveries end at revision %d, %s is at %d", log.revs[len(log.revs)-1], f.Node, f.Revision)
			break
		}
	}
}

func (c *check) index(h *Hook) {
	log, v := c.log, h.Value
	log.times = append(log.times, v.Modified)
	if v.Object == "" { // not a record
		return
	}
	log.objects[v.Object] = append(log.objects[v.Object], h.Revision)
	for _, text := range []string{v.V, v.P} {
		if text == "" {
			continue
		}
		if rev, ok := log.byValue[text]; !ok {
			log.byValue[text] = h.Revision
		} else if first := log.byRev[rev].Value.Object; first != v.Object {
			c.violated(Once, "%s was written to %s and to %s", text, first, v.Object)
		}
	}
}

// at returns the object as revision left it; false when it did not exist.
func (l *commits) at(object string, revision uint64) (Value, bool) {
	revs := l.objects[object]
	i := sort.Search(len(revs), func(i int) bool { return revs[i] > revision })
	if i == 0 {
		return Value{}, false
	}
	v := l.byRev[revs[i-1]].Value
	return v, !v.Deleted
}

// wroteAt finds the revision that a part of an acknowledged write made.
func (l *commits) wroteAt(p *Part) (uint64, bool) {
	switch p.Kind {
	case Put, Create, Post:
		rev, ok := l.byValue[p.V]
		return rev, ok
	case Patch:
		rev, ok := l.byValue[p.P]
		return rev, ok
	}
	for _, rev := range l.objects[p.Object] {
		if p.Seen != nil && l.byRev[rev].Value.Modified == p.Seen.Modified {
			return rev, true
		}
	}
	return 0, false
}

// durability: what was acknowledged was committed and is in the final state, unless
// something later replaced it; what was refused is nowhere.
func (c *check) durability() {
	for _, o := range c.h.Ops {
		if o.effectless() {
			for _, p := range o.Parts {
				for _, text := range []string{p.V, p.P} {
					if rev, ok := c.log.byValue[text]; ok && text != "" {
						c.violated(Durability, "was said to have no effect, but made revision %d: %s", rev, o)
					}
				}
			}
		}
		if o.Acked() && c.log.whole {
			c.committed(o)
		}
	}
	if c.log.whole {
		c.finals()
	}
	c.finalsByAnswers()
}

func (c *check) committed(o *Op) {
	highest := uint64(0)
	for i := range o.Parts {
		p := &o.Parts[i]
		rev, ok := c.log.wroteAt(p)
		if !ok {
			c.violated(Durability, "acknowledged, but never committed: %s", o)
			continue
		}
		highest = max(highest, rev)
		if got := c.log.byRev[rev].Value; p.Seen != nil && *p.Seen != got {
			c.violated(Durability, "answered %+v, committed %+v: %s", *p.Seen, got, o)
		}
	}
	if highest > 0 && highest != o.Revision {
		c.violated(Order, "committed at revision %d: %s", highest, o)
	}
}

// finals: each node's whole list is what the committed revisions make.
func (c *check) finals() {
	for _, f := range c.h.Finals {
		got := map[string]Value{}
		for _, v := range f.Values {
			got[v.Object] = v
		}
		for object := range c.log.objects {
			want, ok := c.log.at(object, f.Revision)
			have, found := got[object]
			delete(got, object)
			if ok != found || ok && want != have {
				c.violated(Durability, "%s at rest has %s as %v, committed is %v", f.Node, object, show(have, found), show(want, ok))
			}
		}
		for object, v := range got {
			c.violated(Durability, "%s at rest has %s, which was never committed: %+v", f.Node, object, v)
		}
	}
}

// finalsByAnswers holds the final lists against the answers alone: an object whose
// newest acknowledged write is known must not be older at the end.
func (c *check) finalsByAnswers() {
	type last struct {
		op   *Op
		part *Part
	}
	newest := map[string]last{}
	for _, o := range c.h.Ops {
		if !o.Acked() {
			continue
		}
		for i := range o.Parts {
			p := &o.Parts[i]
			if old, ok := newest[p.Object]; p.Seen != nil && (!ok || p.Seen.Modified > old.part.Seen.Modified) {
				newest[p.Object] = last{o, p}
			}
		}
	}
	for _, f := range c.h.Finals {
		got := map[string]Value{}
		for _, v := range f.Values {
			got[v.Object] = v
		}
		for object, l := range newest {
			v, ok := got[object]
			switch {
			case ok && v.Modified < l.part.Seen.Modified:
				c.violated(Durability, "%s at rest has %s at %d, lost is %s", f.Node, object, v.Modified, l.op)
			case !ok && l.part.Kind != Delete && !c.mayBeDeleted(object, l.op):
				c.violated(Durability, "%s at rest has no %s, lost is %s", f.Node, object, l.op)
			}
		}
	}
}

// mayBeDeleted: a deletion of unknown outcome, not before o, could have taken it.
func (c *check) mayBeDeleted(object string, o *Op) bool {
	return slices.ContainsFunc(c.h.Ops, func(d *Op) bool {
		return (d.Unknown || d.Unsure) && slices.ContainsFunc(d.Parts, func(p Part) bool { return p.Object == object && p.Kind == Delete })
	})
}

func show(v Value, ok bool) string {
	if !ok {
		return "absent"
	}
	return fmt.Sprintf("%s/%s@%d", v.V, v.P, v.Modified)
}
