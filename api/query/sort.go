package query

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"slices"
	"strings"

	"quinto/internal/canon"
)

// Sort is one key of the order.
type Sort struct {
	Field string
	Desc  bool

	path []string
}

func newSort(field string, desc bool) Sort {
	return Sort{Field: field, Desc: desc, path: strings.Split(field, ".")}
}

// sort reads _sort. -last_modified is appended as Kinto does; keys behind a unique one change nothing and are dropped;
// behind last_modified, which is unique in a list unless clients chose it, id decides in the same direction.
func (p *parse) sort() error {
	var items []string
	if i := p.index("_sort"); i >= 0 {
		items = p.q.params[i].fieldList()
	}
	if len(items) > MaxSortFields {
		return refuseUnnamed(fmt.Sprintf("More than %d sort fields", MaxSortFields))
	}
	var keys []Sort
	for _, item := range items {
		item = strings.TrimSpace(item)
		field := strings.TrimPrefix(item, "-")
		desc := field != item
		if !desc {
			field = strings.TrimPrefix(item, "+")
		}
		if !isFieldName(field) {
			continue
		}
		if !p.known(field) {
			return refuseUnnamed(fmt.Sprintf("Unknown sort field '%s'", field))
		}
		if !slices.ContainsFunc(keys, func(s Sort) bool { return s.Field == field }) {
			keys = append(keys, newSort(field, desc))
		}
	}
	if p.Key != "" {
		keys = slices.DeleteFunc(keys, func(s Sort) bool { return s.Field == fieldModified })
		if !slices.ContainsFunc(keys, func(s Sort) bool { return s.Field == p.Key }) {
			keys = append(keys, newSort(p.Key, true))
		}
		p.q.Sort = keys
		return nil
	}
	keys = append(keys, newSort(fieldModified, true))
	unique := slices.IndexFunc(keys, func(s Sort) bool { return s.Field == fieldID || s.Field == fieldModified })
	keys = keys[:unique+1]
	if keys[unique].Field == fieldModified {
		keys = append(keys, newSort(fieldID, keys[unique].Desc))
	}
	p.q.Sort = keys
	return nil
}

// IsDefaultOrder reports the order without _sort: newest first.
func (q *Query) IsDefaultOrder() bool { return q.Sort[0].Field == fieldModified && q.Sort[0].Desc }

// Range is a part of a list in order of last_modified.
type Range struct {
	Since, Before int64 // exclusive bounds of last_modified in ms; math.MinInt64 and math.MaxInt64 are none
	// Ordered says that a scan of the range by (last_modified, id), backwards if Descending, meets the matches in the order of
	// the query: it can stop as soon as the page is Full.
	Ordered    bool
	Descending bool
}

// ScanRange gives the smallest range that holds all objects of the page, the token included. To count matches, use
// SinceBound and BeforeBound: a count ignores the token.
func (q *Query) ScanRange() Range {
	r := Range{Since: q.since, Before: q.before}
	if q.Sort[0].Field != fieldModified {
		return r
	}
	r.Ordered, r.Descending = true, q.Sort[0].Desc
	if t := q.Token; t != nil && r.Descending && t.lastModified < math.MaxInt64 {
		r.Before = min(r.Before, t.lastModified+1) // its equals may follow by id
	} else if t != nil && !r.Descending && t.lastModified > math.MinInt64 {
		r.Since = max(r.Since, t.lastModified-1)
	}
	return r
}

// row is an object with the values of its sort keys.
type row struct {
	Object
	keys []canon.Value // nil where the key is id or last_modified
}

func (q *Query) row(obj Object) row {
	r := row{Object: obj}
	if f := q.Sort[0].Field; f != fieldModified && (len(q.Sort) > 1 || f != fieldID) {
		r.keys = make([]canon.Value, len(q.Sort))
	}
	for i := range r.keys {
		if s := &q.Sort[i]; s.Field != fieldID && s.Field != fieldModified {
			r.keys[i] = field(&r.Object, s.Field, s.path)
		}
	}
	return r
}

func (q *Query) compare(a, b *row) int {
	for i := range q.Sort {
		s := &q.Sort[i]
		var c int
		switch s.Field {
		case fieldID:
			c = cmp.Compare(a.ID, b.ID)
		case fieldModified:
			c = cmp.Compare(a.LastModified, b.LastModified)
		default:
			c = canon.Compare(a.keys[i], b.keys[i])
		}
		if c != 0 {
			if s.Desc {
				return -c
			}
			return c
		}
	}
	return 0
}

// Less reports whether a comes before b. The order is total: mixed types as canon.Compare has them, missing fields last.
func (q *Query) Less(a, b Object) bool {
	x, y := q.row(a), q.row(b)
	return q.compare(&x, &y) < 0
}

// Page collects the matches of one page, and one more to know whether another page follows. It holds no more than that.
// A Page serves one goroutine.
type Page struct {
	q    *Query
	heap rows
}

// NewPage starts an empty page.
func (q *Query) NewPage() *Page { return &Page{q: q, heap: rows{q: q}} }

// Add offers an object, in any order. If it matches and belongs to the page, it is kept, with a copy of its Data.
func (p *Page) Add(obj Object) {
	if !p.q.Match(obj) || !p.q.After(obj) {
		return
	}
	r := p.q.row(obj)
	if len(p.heap.rows) > p.q.Limit {
		if p.q.compare(&r, &p.heap.rows[0]) > 0 {
			return
		}
		heap.Pop(&p.heap)
	}
	obj.Data = slices.Clone(obj.Data)
	heap.Push(&p.heap, p.q.row(obj))
}

// Full reports that an ordered scan (Range.Ordered) need not go on.
func (p *Page) Full() bool { return len(p.heap.rows) > p.q.Limit }

// Objects gives the page in order, and whether another page follows. Call it once, at the end.
func (p *Page) Objects() (objects []Object, more bool) {
	rows := p.heap.rows
	slices.SortFunc(rows, func(a, b row) int { return p.q.compare(&a, &b) })
	if more = len(rows) > p.q.Limit; more {
		rows = rows[:p.q.Limit]
	}
	objects = make([]Object, len(rows))
	for i := range rows {
		objects[i] = rows[i].Object
	}
	return objects, more
}

// rows is a heap with the last row of the order on top.
type rows struct {
	q    *Query
	rows []row
}

func (h *rows) Len() int           { return len(h.rows) }
func (h *rows) Less(i, j int) bool { return h.q.compare(&h.rows[i], &h.rows[j]) > 0 }
func (h *rows) Swap(i, j int)      { h.rows[i], h.rows[j] = h.rows[j], h.rows[i] }
func (h *rows) Push(x any)         { h.rows = append(h.rows, x.(row)) }
func (h *rows) Pop() any {
	last := h.rows[len(h.rows)-1]
	h.rows = h.rows[:len(h.rows)-1]
	return last
}
