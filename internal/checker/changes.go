package checker

import (
	"slices"
)

// changes: who polls with _since, from whatever nodes, misses nothing, and the ETag
// he is given never promises more than he was shown.
func (c *check) changes() {
	held := map[string]map[string]Value{} // by client: what he holds
	etag := map[string]int64{}
	for _, p := range c.h.Polls {
		if p.Status != 200 && p.Status != 304 || !p.Complete {
			continue
		}
		if p.ETag < etag[p.Client] {
			c.violated(Changes, "%s was given ETag %d after %d", p.Client, p.ETag, etag[p.Client])
		}
		etag[p.Client] = p.ETag
		if held[p.Client] == nil {
			held[p.Client] = map[string]Value{}
		}
		if p.Status == 304 && p.ETag != p.Since {
			c.violated(Changes, "%s asked with %d, was told of nothing new, and given %d", p.Client, p.Since, p.ETag)
		}
		c.pages(p)
		for _, page := range p.Pages {
			for _, v := range page.Entries {
				if old, ok := held[p.Client][v.Object]; !ok || old.Modified <= v.Modified {
					held[p.Client][v.Object] = v
				}
			}
		}
	}
	for client, objects := range held {
		c.holds(client, objects, etag[client])
	}
}

// pages checks one poll by itself, and its first page against what was committed.
func (c *check) pages(p *Poll) {
	seen := map[string]bool{}
	newest := p.Since
	for _, page := range p.Pages {
		last := p.Since
		for i, v := range page.Entries {
			if v.Modified <= p.Since || i > 0 && v.Modified <= last {
				c.violated(Changes, "%s polled since %d in order of time and got %d after %d", p.Client, p.Since, v.Modified, last)
			}
			last = v.Modified
			if key := v.V + "/" + v.P; seen[v.Object+"="+key] && !v.Deleted {
				c.violated(Changes, "%s got %s twice in one poll", p.Client, v.Object)
			}
			seen[v.Object+"="+v.V+"/"+v.P] = true
		}
		newest = max(newest, last)
	}
	if p.Status != 200 || len(p.Pages) == 0 {
		return
	}
	first := p.Pages[0]
	if len(p.Pages) == 1 && len(first.Entries) > 0 && p.ETag != newest {
		c.violated(Changes, "%s was given ETag %d with a list that ends at %d (revision %d via %s)", p.Client, p.ETag, newest, first.Revision, first.Node)
	}
	if newest < p.ETag && p.Since > 1 {
		c.violated(Changes, "%s was given ETag %d and shown nothing after %d", p.Client, p.ETag, newest)
	}
	if c.log.whole && first.Revision >= c.log.first {
		c.exactPage(p, first)
	}
}

// exactPage: the first page is what stands at its revision.
func (c *check) exactPage(p *Poll, page Page) {
	var want []Value
	for object := range c.log.objects {
		revs := c.log.objects[object]
		i, found := slices.BinarySearch(revs, page.Revision)
		if !found {
			i--
		}
		if i < 0 {
			continue
		}
		if v := c.log.byRev[revs[i]].Value; v.Modified > p.Since {
			want = append(want, v)
		}
	}
	slices.SortFunc(want, func(a, b Value) int { return int(a.Modified - b.Modified) })
	more := len(want) > p.Limit
	if more {
		want = want[:p.Limit]
	}
	if !slices.Equal(want, page.Entries) {
		c.violated(Changes, "%s polled since %d via %s: %d entries, %d at revision %d: %v, %v", p.Client, p.Since, page.Node, len(page.Entries), len(want), page.Revision, page.Entries, want)
	}
}

// holds: after the last poll, which went on until there was nothing new, the client
// has what every node has.
func (c *check) holds(client string, objects map[string]Value, etag int64) {
	for _, f := range c.h.Finals {
		if etag != f.ETag {
			c.violated(Changes, "%s ends with ETag %d, %s with %d", client, etag, f.Node, f.ETag)
		}
		live := 0
		for _, v := range f.Values {
			live++
			if got, ok := objects[v.Object]; !ok || got != v {
				c.violated(Changes, "%s missed a change of %s: holds %s, %s has %s", client, v.Object, show(got, ok), f.Node, show(v, true))
			}
		}
		for object, v := range objects {
			if !v.Deleted {
				live--
			}
			if !v.Deleted && !slices.ContainsFunc(f.Values, func(o Value) bool { return o.Object == object }) {
				c.violated(Changes, "%s missed the deletion of %s", client, object)
			}
		}
		if live != 0 {
			c.violated(Changes, "%s holds %d objects less than %s", client, live, f.Node)
		}
	}
}
