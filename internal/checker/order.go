package checker

import (
	"cmp"
	"slices"
	"sort"
	"strings"
)

// order: revisions of writes are unique and rise in real time, and nobody who asks
// for a current answer sees an older revision than one that was shown before he
// asked. last_modified rises with the revision.
func (c *check) order() {
	type seen struct {
		at, call int64
		revision uint64
		write    bool
		text     func() string
	}
	var all []seen
	byRev := map[uint64]*Op{}
	for _, o := range c.h.Ops {
		if !o.answered() || o.Revision == 0 || o.Stale {
			continue
		}
		all = append(all, seen{o.Return, o.Call, o.Revision, o.Acked(), o.String})
		if !o.Acked() {
			continue
		}
		if other := byRev[o.Revision]; other != nil {
			c.violated(Order, "revision %d twice: %s and %s", o.Revision, other, o)
		}
		byRev[o.Revision] = o
	}
	for _, p := range c.h.Polls {
		if p.Level == "linearizable" && len(p.Pages) > 0 && p.Pages[0].Revision > 0 {
			// A poll returns when its last page came; what its first one showed was
			// shown no later.
			all = append(all, seen{p.Return, p.Call, p.Pages[0].Revision, false, func() string { return "a poll of " + p.Client }})
		}
	}
	byReturn := slices.Clone(all)
	slices.SortFunc(byReturn, func(a, b seen) int { return cmp.Compare(a.at, b.at) })
	slices.SortFunc(all, func(a, b seen) int { return cmp.Compare(a.call, b.call) })
	var newest seen
	for i := 0; len(all) > 0; all = all[1:] {
		b := all[0]
		for ; i < len(byReturn) && byReturn[i].at < b.call; i++ {
			if byReturn[i].revision > newest.revision {
				newest = byReturn[i]
			}
		}
		if b.revision < newest.revision || b.write && b.revision == newest.revision {
			c.violated(Order, "revision %d after %d had been shown: %s; before: %s", b.revision, newest.revision, b.text(), newest.text())
		}
	}
	for i := 1; i < len(c.log.times); i++ {
		if c.log.times[i] <= c.log.times[i-1] && c.log.sameList(i, i-1) {
			c.violated(Order, "last_modified %d of revision %d follows %d", c.log.times[i], c.log.revs[i], c.log.times[i-1])
		}
	}
}

func (l *commits) sameList(i, j int) bool {
	a, b := l.byRev[l.revs[i]], l.byRev[l.revs[j]]
	return a.Lane == b.Lane && a.Value.Object != "" && b.Value.Object != ""
}

// compareAndSet: of the writes under one ETag at most one succeeds.
func (c *check) compareAndSet() {
	type key struct {
		object string
		etag   int64
	}
	won := map[key]*Op{}
	for _, o := range c.h.Ops {
		if !o.Acked() {
			continue
		}
		for _, p := range o.Parts {
			k := key{p.Object, p.IfMatch}
			if p.IfMatch == 0 {
				continue
			}
			if other := won[k]; other != nil {
				c.violated(CAS, "two writes succeeded on %s at %d: %s and %s", p.Object, p.IfMatch, other, o)
			}
			won[k] = o
		}
	}
}

// exactReads: what a read shows, however stale, is the state at the revision that
// it names.
func (c *check) exactReads() {
	if !c.log.whole {
		return
	}
	for _, o := range c.h.Ops {
		if !o.reads() || o.Unknown || o.Revision < c.log.first || o.Status >= 500 {
			continue
		}
		p := &o.Parts[0]
		want, ok := c.log.at(p.Object, o.Revision)
		if p.Kind == GuardedRead {
			allowed := ok && strings.HasPrefix(want.V, Granted)
			if (o.Status == 200) && !allowed {
				c.violated(Authorization, "shown although %s at its revision: %s", show(want, ok), o)
			} else if o.Status != 200 && allowed {
				c.violated(Authorization, "not shown although %s at its revision: %s", show(want, ok), o)
			}
			continue
		}
		switch {
		case o.Status == 200 && (!ok || p.Seen == nil || *p.Seen != want):
			c.violated(Linearizable, "at its revision stands %s, read was %+v: %s", show(want, ok), p.Seen, o)
		case o.Status == 404 && ok:
			c.violated(Linearizable, "at its revision stands %s: %s", show(want, ok), o)
		}
	}
}

// atomicity: no answer comes from a revision inside a batch, and the revisions of a
// batch are its own.
func (c *check) atomicity() {
	type span struct {
		from, to uint64
		op       *Op
	}
	var spans []span
	for _, o := range c.h.Ops {
		if len(o.Parts) < 2 {
			continue
		}
		s, n := span{op: o}, 0
		for i := range o.Parts {
			rev, ok := c.log.wroteAt(&o.Parts[i])
			if !ok {
				continue
			}
			if n++; n == 1 {
				s.from, s.to = rev, rev
			}
			s.from, s.to = min(s.from, rev), max(s.to, rev)
		}
		if n == 0 || !c.log.whole {
			continue
		}
		// Of an unknown outcome the times of deletions are not known.
		if o.Acked() && (n != len(o.Parts) || int(s.to-s.from)+1 != n) {
			c.violated(Atomicity, "%d of %d parts in revisions %d to %d: %s", n, len(o.Parts), s.from, s.to, o)
		}
		if o.Unknown && !slices.ContainsFunc(o.Parts, func(p Part) bool { return p.Kind == Delete }) && n != len(o.Parts) {
			c.violated(Atomicity, "unknown, and %d of %d parts were done: %s", n, len(o.Parts), o)
		}
		spans = append(spans, s)
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	inside := func(revision uint64, what func() string) {
		i := sort.Search(len(spans), func(i int) bool { return spans[i].from > revision })
		if i > 0 && revision < spans[i-1].to {
			c.violated(Atomicity, "revision %d lies within a batch of %d to %d: %s; %s", revision, spans[i-1].from, spans[i-1].to, what(), spans[i-1].op)
		}
	}
	for _, o := range c.h.Ops {
		if !o.Unknown && o.Revision > 0 && o.Status < 500 {
			inside(o.Revision, o.String)
		}
	}
	for _, p := range c.h.Polls {
		for _, page := range p.Pages {
			inside(page.Revision, func() string { return "a poll of " + p.Client + " via " + page.Node })
		}
	}
}

// identity: at rest all nodes hold the same.
func (c *check) identity() {
	for i, h := range c.h.Hashes {
		if i == 0 {
			continue
		}
		a := c.h.Hashes[0]
		if h.Applied != a.Applied || h.Revision != a.Revision || h.State != a.State || h.Full != a.Full {
			c.violated(Identity, "%+v and %+v", *a, *h)
		}
	}
	if len(c.h.Hashes) < 2 {
		c.violated(Identity, "%d nodes showed their hash at rest", len(c.h.Hashes))
	}
}

// once: the same request under the same key gets the same answer, and one effect.
func (c *check) once() {
	for _, o := range c.h.Ops {
		for _, r := range o.Replays {
			if r != o.Digest {
				c.violated(Once, "answered %s, then %s: %s", o.Digest, r, o)
			}
		}
	}
	// A value that some revision wrote, and that another one wrote again after it
	// had gone, was done twice.
	for object, revs := range c.log.objects {
		gone, last := map[string]uint64{}, ""
		for _, rev := range revs {
			v := c.log.byRev[rev].Value
			if v.V != last && last != "" {
				gone[last] = rev
			}
			if since, ok := gone[v.V]; ok && v.V != "" {
				c.violated(Once, "%s of %s came again at revision %d, gone since %d", v.V, object, rev, since)
			}
			last = v.V
		}
	}
}

// liveness: soon after each fault has ended there is an acknowledged write.
func (c *check) liveness() {
	var acks []int64
	for _, o := range c.h.Ops {
		if o.Acked() {
			acks = append(acks, o.Return)
		}
	}
	slices.Sort(acks)
	for _, f := range c.h.Faults {
		i, _ := slices.BinarySearch(acks, f.Healed)
		if i == len(acks) || acks[i]-f.Healed > c.h.Run.RecoverWithin {
			c.violated(Liveness, "no write was acknowledged within %.0f s after %s had ended", seconds(c.h.Run.RecoverWithin), f.Name)
		}
	}
}
