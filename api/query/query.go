// Package query turns the query string of a list request into a typed query, as Kinto reads it: filters, sort, limit,
// page token and projection, with Kinto's errors. It knows no store: a Query says which range of last_modified can
// match (ScanRange), whether an object matches (Match) and how matches are ordered and cut into pages (Page).
//
// The rules are those of kinto.core.resource and of Kinto's PostgreSQL backend, the production reference.
package query

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"quinto/internal/canon"
)

// Limits of one query string. Beyond them Parse refuses.
const (
	MaxQueryBytes = 8 << 10
	MaxFilters    = 50
	MaxInValues   = 1000
	MaxSortFields = 20
	// MaxContainsValues bounds the values of contains_ and contains_any_, nested ones too: each may be compared with each
	// element of a stored array.
	MaxContainsValues = 100
	// DefaultMaxFetch is Kinto's storage_max_fetch_size: the longest page, whatever the client asks for.
	DefaultMaxFetch = 10_000
)

// Names that Kinto gives to the two fields that every object has, and to the mark of a tombstone.
const (
	fieldID       = "id"
	fieldModified = "last_modified"
	fieldDeleted  = "deleted"
)

// dayMillis is how far in the future a client may place a timestamp.
const dayMillis = 24 * 3600 * 1000

// Options are the server's side of a query.
type Options struct {
	Now        int64 // wall clock in ms: timestamps of a day later and more are refused
	PaginateBy int   // Kinto's paginate_by; 0: none
	MaxFetch   int   // Kinto's storage_max_fetch_size; 0: DefaultMaxFetch
	// KnownFields lists the fields of a resource with a strict schema (history, permissions), besides id, last_modified
	// and deleted. Nil: any field may be asked for.
	KnownFields []string
	// TextFields hold texts only: an integer or boolean that a filter compares one with is taken as the text that Python
	// makes of it (kinto.plugins.history: record_id=1).
	TextFields []string
	// Key is a unique text field of a list whose entries have no time: it orders them, downwards, where nothing else does,
	// and what is said of last_modified counts for nothing (Kinto's permissions). Empty: a list of objects.
	Key string
	// Delete says that the request is a DELETE: _fields is ignored.
	Delete bool
}

// Object is what a query looks at. Data is canonical and holds neither id nor last_modified; a tombstone needs no Data.
type Object struct {
	ID           string
	LastModified int64 // ms
	Deleted      bool
	Data         canon.Value
}

// Query is a parsed list query. It is immutable and safe for concurrent use.
type Query struct {
	// Limit is the length of a page: never 0, clamped to the server's settings.
	Limit int
	// Sort holds the effective keys. The last one is unique, so the order is total.
	Sort []Sort
	// Token is the position after which the page starts; nil on the first page.
	Token *Token
	// Fields is the projection asked for by _fields; nil: whole objects.
	Fields *Fields
	// DeprecatedTo says that _to was used, which Kinto answers with an Alert header.
	DeprecatedTo bool

	filters    []filter
	since      int64 // exclusive bounds of last_modified, from the filters
	before     int64
	seen       int64 // the highest timestamp that the client shows
	tombstones bool
	params     []param
}

// Parse reads a raw query string, of which it keeps no bytes. It returns *Error with Kinto's details, or *EncodingError.
func Parse(rawQuery string, opt Options) (*Query, error) {
	params, err := parseParams(rawQuery)
	if err != nil {
		return nil, err
	}
	if opt.MaxFetch <= 0 {
		opt.MaxFetch = DefaultMaxFetch
	}
	q := &Query{params: params, since: math.MinInt64, before: math.MaxInt64, seen: math.MinInt64}
	p := &parse{Options: opt, q: q}
	if err := p.schema(); err != nil {
		return nil, err
	}
	// The order of the steps is Kinto's: it decides which of several errors is shown.
	for _, step := range []func() error{p.filters, p.limit, p.sort, p.fields, p.token} {
		if err := step(); err != nil {
			var bad *Error
			if errors.As(err, &bad) {
				bad.Late = true
			}
			return nil, err
		}
	}
	return q, nil
}

// parse is the state of one Parse.
type parse struct {
	Options
	q      *Query
	values []canon.Value // of q.params, by index
	ints   map[string]int64
	texts  map[string]string
}

func (p *parse) known(field string) bool {
	root, _, _ := strings.Cut(field, ".")
	return p.KnownFields == nil || root == fieldID || root == fieldModified || root == fieldDeleted ||
		slices.Contains(p.KnownFields, root)
}

// limit follows Kinto: 0 and empty mean "as many as the server gives", even with paginate_by.
func (p *parse) limit() error {
	limit, given := p.ints["_limit"]
	if i := p.index("_limit"); !given && i < 0 {
		limit = int64(p.PaginateBy)
	}
	if limit > 0 && p.PaginateBy > 0 {
		limit = min(limit, int64(p.PaginateBy))
	}
	if limit == 0 {
		limit = int64(p.MaxFetch)
	}
	p.q.Limit = int(min(limit, int64(p.MaxFetch)))
	return nil
}

// index finds a parameter by its exact name; -1 if absent.
func (p *parse) index(name string) int {
	return slices.IndexFunc(p.q.params, func(a param) bool { return a.name == name })
}

// IncludesTombstones reports whether tombstones can match: Kinto lists them when any filter is about last_modified.
func (q *Query) IncludesTombstones() bool { return q.tombstones }

// SinceBound gives the timestamp that every match exceeds, as _since and filters say; false if there is none.
func (q *Query) SinceBound() (int64, bool) { return q.since, q.since != math.MinInt64 }

// BeforeBound gives the timestamp that every match is below, as _before and filters say; false if there is none.
func (q *Query) BeforeBound() (int64, bool) { return q.before, q.before != math.MaxInt64 }

// SeenTimestamp gives the highest timestamp that the client has shown (_since or _token); false if it showed none. A replica
// whose list is older has not caught up with what this client knows.
func (q *Query) SeenTimestamp() (int64, bool) { return q.seen, q.seen != math.MinInt64 }

// Uses reports whether a filter or the order looks at the field of that name or into it.
func (q *Query) Uses(name string) bool {
	within := func(field string) bool {
		root, _, _ := strings.Cut(field, ".")
		return root == name
	}
	return slices.ContainsFunc(q.filters, func(f filter) bool { return within(f.field) }) ||
		slices.ContainsFunc(q.Sort, func(s Sort) bool { return within(s.Field) })
}

// IDs gives the ids to which filters on id restrict the matches, sorted and unique; false if any id can match.
func (q *Query) IDs() ([]string, bool) {
	for i := range q.filters {
		f := &q.filters[i]
		if f.field != fieldID || f.op != opEq && f.op != opIn {
			continue
		}
		values := f.list
		if f.op == opEq {
			values = []canon.Value{f.value}
		}
		ids := make([]string, 0, len(values))
		for _, v := range values {
			if id, ok := v.String(); ok {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		return slices.Compact(ids), true
	}
	return nil, false
}

// NextPage gives the query string of the next page: this one's, with the effective limit and the given token. As in Kinto, of
// a name that was given twice only the last value stays.
func (q *Query) NextPage(token string) string {
	var b strings.Builder
	write := func(name, value string) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(escape(name) + "=" + escape(value))
	}
	set := map[string]string{"_limit": fmt.Sprint(q.Limit), "_token": token}
	for _, p := range q.params {
		value, ok := set[p.name]
		if !ok {
			value = p.values[len(p.values)-1]
		}
		delete(set, p.name)
		write(p.name, value)
	}
	for _, name := range []string{"_limit", "_token"} {
		if value, ok := set[name]; ok {
			write(name, value)
		}
	}
	return b.String()
}
