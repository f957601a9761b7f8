package fsm

import (
	"maps"
	"sync"
)

// Limits of the rows kept in memory because every request reads them.
const (
	hotRows  = 8192 // index rows, and as many memberships; beyond it all are forgotten
	hotDepth = cacheMaxDepth
)

// hot holds the index rows of parents and the memberships of principals as the
// last commit left them. A View may be older than that: it uses a slot only if
// the slot says the same of the View's revision, that is, if nothing changed
// since. Commits write it under the lock under which Views are taken, so it
// is never older than a View.
type hot struct {
	mu       sync.RWMutex
	revision Revision
	index    map[Path]hotIndex
	members  map[string]hotMember
}

// hotIndex is an index row, or its absence (Revision 0), that holds from since.
type hotIndex struct {
	indexEntry
	since Revision
}

// hotMember is what Groups reads of a principal, that holds from since.
type hotMember struct {
	at     Revision // of the last change, 0: never
	groups []Path
	since  Revision
}

func newHot(r Revision) *hot {
	return &hot{revision: r, index: map[Path]hotIndex{}, members: map[string]hotMember{}}
}

// row returns the index row of p as a View at revision v sees it.
func (h *hot) row(p Path, v Revision) (indexEntry, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	e, ok := h.index[p]
	return e.indexEntry, ok && e.since <= v
}

func (h *hot) member(principal string, v Revision) (hotMember, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	m, ok := h.members[principal]
	return m, ok && m.since <= v
}

// learn keeps what a View at revision v read, unless a commit has passed it.
func (h *hot) learn(p Path, e indexEntry, v Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.revision == v {
		h.setRow(p, e)
	}
}

func (h *hot) learnMember(principal string, at Revision, groups []Path, v Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.revision != v {
		return
	}
	if len(h.members) >= hotRows {
		clear(h.members)
	}
	h.members[principal] = hotMember{at: at, groups: groups, since: since(at, v)}
}

func (h *hot) setRow(p Path, e indexEntry) {
	if len(h.index) >= hotRows {
		clear(h.index)
	}
	h.index[p] = hotIndex{e, since(e.Revision, h.revision)}
}

// since: a row holds from the revision that made it; that something is absent
// is known only from the revision at which it was looked for.
func since(made, seen Revision) Revision {
	if made == 0 {
		return seen
	}
	return made
}

// commit takes over what a batch changed or read on its way to revision r.
// forget: rows vanished without a row of their own to say so.
func (h *hot) commit(r Revision, known map[Path]indexEntry, touched map[string]struct{}, forget bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revision = r
	if forget {
		clear(h.index)
		clear(h.members)
	}
	for p, e := range known {
		if p.Depth() <= hotDepth {
			h.setRow(p, e)
		}
	}
	maps.DeleteFunc(h.members, func(m string, _ hotMember) bool { _, gone := touched[m]; return gone })
}
