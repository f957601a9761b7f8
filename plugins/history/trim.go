package history

import (
	"slices"
	"strconv"
	"sync"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// Trimming keeps the newest entries of each kind of object in a bucket (and of each
// user, when only some users' are trimmed): as soon as there are more than
// auto_trim_max_count + auto_trim_threshold, all but auto_trim_max_count go.

// maxDrop bounds the entries that one write takes along, so that a history which is
// trimmed for the first time does not weigh on one request.
const maxDrop = 5000

// counted is what trimming must know of an entry.
type counted struct {
	at   fsm.Position
	kind string // resource_name
	user string // "": anonymous
}

// trim drops what is too much with the entry at path, which the change adds.
func (h *History) trim(c *plugins.Change, path fsm.Path) error {
	byUser := len(h.trimUsers) > 0
	if h.trimMax == 0 || byUser && (c.UserID == "" || !slices.Contains(h.trimUsers, c.UserID)) {
		return nil
	}
	list, memo := path.List(), "history "+strconv.FormatBool(byUser)+" "+c.Kind+" "+c.UserID+" "+string(path.List())
	ids, known := c.Memo[memo].([]string) // those that count, oldest first
	if !known {
		all, read := c.Memo["history "+string(list)].([]counted)
		if !read {
			var err error
			if all, err = h.tallies.of(c.View, list); err != nil {
				return err
			}
			c.Memo["history "+string(list)] = all
		}
		for _, e := range all {
			if e.kind == c.Kind && (!byUser || e.user == c.UserID) {
				ids = append(ids, e.at.ID)
			}
		}
	}
	ids = append(ids, path.ID())
	if excess := int64(len(ids)) - h.trimMax; excess > h.trimThreshold {
		n := min(excess, maxDrop)
		c.Also(fsm.Op{Type: fsm.OpDropEntries, Path: list, Members: slices.Clone(ids[:n])})
		ids = ids[n:]
	}
	c.Memo[memo] = ids
	return nil
}

// Bounds of what is remembered of histories: beyond them they are read anew.
const (
	maxTallies      = 64
	maxTallyEntries = 200_000
)

// tallies remember what entries there are in the histories written to of late, so that
// a write reads only those that came since. They are a cache of the state: each use
// checks by the list's counts that nothing else has changed.
type tallies struct {
	mu    sync.Mutex
	known map[fsm.Path]*tally
}

type tally struct {
	info    fsm.ListInfo // of the list, when it was read
	entries []counted    // oldest first; never changed in place
	staged  bool         // some are of a request that is still being decided
}

// of returns what counts in a history, oldest first.
func (t *tallies) of(r fsm.Reader, list fsm.Path) ([]counted, error) {
	info, err := r.List(list)
	if err != nil || info.Count == 0 {
		return nil, err
	}
	t.mu.Lock()
	old := t.known[list]
	t.mu.Unlock()
	if old == nil || old.info.Revision > info.Revision || old.info.Tombstones != info.Tombstones {
		old = &tally{}
	}
	next, err := old.read(r, list, info)
	if err == nil && int64(len(next.entries)) != info.Count {
		next, err = new(tally).read(r, list, info)
	}
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= maxTallies {
		t.known = map[fsm.Path]*tally{}
	}
	if len(next.entries) <= maxTallyEntries && !next.staged {
		t.known[list] = next
	}
	return next.entries, nil
}

// read adds what stands behind the last entry.
func (t *tally) read(r fsm.Reader, list fsm.Path, info fsm.ListInfo) (*tally, error) {
	next := &tally{info: info, entries: slices.Clip(t.entries)}
	var from fsm.ScanOptions
	if n := len(t.entries); n > 0 {
		last := t.entries[n-1].at
		from.Start = &fsm.Position{LastModified: last.LastModified, ID: last.ID + "\x00"} // the next possible id
	}
	err := r.Scan(list, from, func(o *fsm.Object) bool {
		e := counted{at: fsm.Position{LastModified: o.LastModified, ID: o.Path.ID()}}
		next.staged = next.staged || o.Revision >= fsm.StagedRevision
		data := canon.Value(o.Data)
		if o.Of != nil && o.Of.Path != "" {
			e.kind = plugins.KindName(o.Of.Path)
		} else if kind, ok := data.Get("resource_name"); ok {
			e.kind, _ = kind.String()
		}
		if user, ok := data.Get("user_id"); ok {
			e.user, _ = user.String()
		}
		next.entries = append(next.entries, e)
		return true
	})
	return next, err
}
