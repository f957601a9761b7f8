package fsm

import "sync"

// Limits of the cache of hot objects: parents are read with every request.
const (
	cacheObjects  = 4096      // per generation; two are kept
	cacheMaxDepth = 4         // buckets, groups, collections; not records
	cacheMaxBytes = 256 << 10 // larger ones are read anew
)

// objectCache keeps lately read parents by (path, revision). An entry is never
// wrong, only unused: the index row that is read first names the revision.
type objectCache struct {
	mu       sync.Mutex
	now, old map[Path]Object
}

func newObjectCache() *objectCache {
	return &objectCache{now: map[Path]Object{}, old: map[Path]Object{}}
}

func (c *objectCache) get(p Path, r Revision) (Object, bool) {
	if p.Depth() > cacheMaxDepth {
		return Object{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.now[p]
	if !ok {
		if o, ok = c.old[p]; ok {
			c.add(p, o)
		}
	}
	return o, ok && o.Revision == r
}

func (c *objectCache) put(p Path, o *Object) {
	if p.Depth() > cacheMaxDepth || len(o.Data)+len(o.ACL) > cacheMaxBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(p, *o)
}

func (c *objectCache) add(p Path, o Object) {
	if len(c.now) >= cacheObjects {
		c.old, c.now = c.now, make(map[Path]Object, cacheObjects)
	}
	c.now[p] = o
}

func (c *objectCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.old = map[Path]Object{}, map[Path]Object{}
}
