package fsm

import (
	"maps"
	"sync"
)

// Limits of the rows kept in memory because every request reads them.
const (
	hotRows  = 8192 // index rows, as many memberships and lists; beyond it all are forgotten
	hotDepth = cacheMaxDepth
)

// hot holds the index rows of parents, the memberships of principals and what is
// known of lists as the last commit left them. A View may be older than that: it
// uses a slot only if the slot says the same of the View's state, that is, if
// nothing changed since. Commits write it under the lock under which Views are
// taken, so it is never older than a View.
type hot struct {
	mu       sync.RWMutex
	revision Revision
	entry    uint64 // index of the last entry
	index    map[Path]hotIndex
	members  map[string]hotMember
	lists    map[Path]hotList
}

// hotList is what is known of a list since an entry: the first timestamp of a list
// comes without a revision.
type hotList struct {
	ListInfo
	since uint64
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

func newHot(m *meta) *hot {
	return &hot{revision: m.Revision, entry: m.Index, index: map[Path]hotIndex{}, members: map[string]hotMember{}, lists: map[Path]hotList{}}
}

// list returns what a View of the state after entry sees of a list.
func (h *hot) list(p Path, entry uint64) (ListInfo, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	l, ok := h.lists[p]
	return l.ListInfo, ok && l.since <= entry
}

func (h *hot) learnList(p Path, l *ListInfo, entry uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.entry == entry {
		h.setList(p, l)
	}
}

func (h *hot) setList(p Path, l *ListInfo) {
	if len(h.lists) >= hotRows {
		clear(h.lists)
	}
	h.lists[p] = hotList{*l, h.entry}
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

// commit takes over what a batch changed or read on its way. If rows vanished
// without a row of their own to say so, all is forgotten.
func (h *hot) commit(a *applier) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revision, h.entry = a.meta.Revision, a.meta.Index
	if a.forget {
		clear(h.index)
		clear(h.members)
		clear(h.lists)
	}
	for p, e := range a.known {
		if p.Depth() <= hotDepth {
			h.setRow(p, e)
		}
	}
	for p, l := range a.lists {
		h.setList(p, l)
	}
	maps.DeleteFunc(h.members, func(m string, _ hotMember) bool { _, gone := a.touched[m]; return gone })
}
