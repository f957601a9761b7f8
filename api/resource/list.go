package resource

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"quinto/api/query"
	"quinto/fsm"
	"quinto/plugins"
)

// queryFailure turns what api/query refuses into Kinto's answer.
func queryFailure(err error) error {
	var bad *query.Error
	var encoding *query.EncodingError
	switch {
	case errors.As(err, &bad):
		return invalid(queryProblems(bad)...)
	case errors.As(err, &encoding):
		return errQueryEncoding(encoding.Query)
	}
	return err
}

func queryProblems(e *query.Error) (out []problem) {
	for _, d := range e.Details {
		out = append(out, problem{location: cmp.Or(d.Location, query.Location), name: d.Name, noName: d.NoName, description: d.Description})
	}
	return out
}

// list decides GET, HEAD and DELETE of a list.
func (c *call) list(problems []problem) (*outline, error) {
	info, err := c.state.List(c.route.list)
	if err != nil {
		return nil, err
	}
	if info.Timestamp, err = c.scopedTime(info.Timestamp); err != nil {
		return nil, err
	}
	limits := &c.s.cfg.Limits
	q, err := query.Parse(c.r.Query, query.Options{Now: max(int64(c.now), int64(info.Timestamp)),
		PaginateBy: limits.PaginateBy, MaxFetch: limits.FetchSize, KnownFields: c.route.kind.Fields,
		TextFields: c.route.kind.TextFields, Delete: c.r.Method == http.MethodDelete})
	var bad *query.Error
	if errors.As(err, &bad) && !bad.Late {
		problems = append(problems, queryProblems(bad)...)
	} else if err != nil && bad == nil {
		return nil, queryFailure(err)
	}
	if err := c.checkReadBody(problems); err != nil {
		return nil, err
	}
	if bad != nil {
		return c.lateFailure(bad, &info)
	}
	if c.r.Method == http.MethodDelete {
		return c.alert(q)(c.deleteList(q, &info))
	}
	return c.alert(q)(c.readList(q, &info))
}

// deprecatedTo is the Alert for _to.
var deprecatedTo = HeaderField{"Alert", `{"code":"soft-eol","message":"_to is now deprecated, you should use _before instead",` +
	`"url":"https://kinto.readthedocs.io/en/2.4.0/api/resource.html#list-of-available-url-parameters"}`}

// alert adds what the query deserves to an answer that is no error.
func (c *call) alert(q *query.Query) func(*outline, error) (*outline, error) {
	return func(out *outline, err error) (*outline, error) {
		if err == nil && q.DeprecatedTo && out.status == 200 {
			out.fields = append(out.fields, deprecatedTo)
		}
		return out, err
	}
}

// lateFailure answers a query that Kinto refuses only after the preconditions.
func (c *call) lateFailure(bad *query.Error, info *fsm.ListInfo) (*outline, error) {
	if c.r.Method != http.MethodDelete {
		if out := c.unmodified(info.Timestamp); out != nil {
			return out, nil
		}
	}
	if err := c.precondition(target{exists: true}); err != nil {
		return nil, err
	}
	return nil, queryFailure(bad)
}

// readList decides GET and HEAD.
func (c *call) readList(q *query.Query, info *fsm.ListInfo) (*outline, error) {
	if out := c.unmodified(info.Timestamp); out != nil {
		return out, nil
	}
	if err := c.precondition(target{exists: true}); err != nil {
		return nil, err
	}
	if q.Token != nil && q.Token.Revision > 0 {
		if err := checkLife(c.view, fsm.Revision(q.Token.Revision)); err != nil {
			return nil, err
		}
	}
	out := &outline{status: 200, fields: append(appendStamp(make([]HeaderField, 0, 8), info.Timestamp), contentTypeField)}
	var err error
	if out.fields, err = c.caching(out.fields); err != nil {
		return nil, err
	}
	if c.r.Method == http.MethodHead && !c.route.offers.plainHead {
		n, err := c.count(q, info)
		total := strconv.FormatInt(n, 10)
		out.fields = append(out.fields, HeaderField{"Total-Objects", total}, HeaderField{"Total-Records", total})
		out.literal([]byte(`{"data":[]}`))
		return out, err
	}
	if _, named := q.IDs(); !named && !c.batch && q.ScanRange().Ordered {
		return out, c.streamList(out, q)
	}
	p, err := c.page(q, q.IncludesTombstones())
	if err != nil {
		return nil, err
	}
	if p.more {
		next, err := c.nextPage(q, p.objects[len(p.objects)-1], len(p.objects), c.newNonce())
		if err != nil {
			return nil, err
		}
		out.fields = append(out.fields, next)
	}
	c.showList(out, q, p)
	return out, nil
}

// streamed are bodies in the making; only what became of them is kept.
var streamed = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled bounds a buffer that is kept for another answer.
const maxPooled = 256 << 10

// streamList makes the body of a GET in the list's own order straight from the
// rows of the store.
func (c *call) streamList(out *outline, q *query.Query) error {
	r := q.ScanRange()
	bounds := fsm.ScanOptions{Reverse: r.Descending, Tombstones: q.IncludesTombstones(), Borrow: true}
	setBounds(&bounds, r.Since, r.Before)
	buffer := streamed.Get().(*[]byte) // the pool makes nothing else
	b, n, more := append((*buffer)[:0], `{"data":[`...), 0, false
	var last query.Object
	err := c.scanShown(q, bounds, func(o *fsm.Object, v query.Object) bool {
		if !q.After(v) {
			return true
		}
		if more = n == q.Limit; more {
			return false
		}
		if n++; n > 1 {
			b = append(b, ',')
		}
		if q.Fields != nil {
			b = appendProjected(b, q.Fields, &v)
		} else {
			row := *o
			row.Data = v.Data
			b = appendObject(b, &row)
		}
		if n == q.Limit {
			last = v
			last.Data = bytes.Clone(v.Data)
		}
		return true
	})
	b = append(b, `]}`...)
	out.literal(bytes.Clone(b))
	if *buffer = b; cap(b) <= maxPooled {
		streamed.Put(buffer)
	}
	if err != nil || !more {
		return err
	}
	next, err := c.nextPage(q, last, n, c.newNonce())
	out.fields = append(out.fields, next)
	return err
}

// unfiltered reports whether a raw query has no filter, so that the list's own
// count is the answer.
func unfiltered(raw string) bool {
	for piece := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(piece, "=")
		if piece != "" && (name == "" || name[0] != '_' || name == "_since" || name == "_before" || name == "_to") {
			return false
		}
	}
	return true
}

// count is the number of live objects that match, whatever the page.
func (c *call) count(q *query.Query, info *fsm.ListInfo) (n int64, err error) {
	if c.shared == nil && !c.scoped() && unfiltered(c.r.Query) {
		return info.Count, nil
	}
	bounds := fsm.ScanOptions{Borrow: true}
	since, _ := q.SinceBound()
	before, _ := q.BeforeBound()
	setBounds(&bounds, since, before)
	err = c.scanShown(q, bounds, func(o *fsm.Object, v query.Object) bool {
		if !o.Deleted {
			n++
		}
		return true
	})
	return n, err
}

// setBounds makes scan bounds of exclusive bounds of last_modified.
func setBounds(o *fsm.ScanOptions, since, before int64) {
	if since != math.MinInt64 {
		if since == math.MaxInt64 {
			since-- // nothing lies above it; the bound below it excludes nothing else of use
		}
		o.Start = &fsm.Position{LastModified: fsm.Timestamp(since + 1)}
	}
	if before != math.MaxInt64 {
		o.End = &fsm.Position{LastModified: fsm.Timestamp(before)}
	}
}

// view is an object as queries see it.
func view(o *fsm.Object) query.Object {
	return query.Object{ID: o.Path.ID(), LastModified: int64(o.LastModified), Deleted: o.Deleted, Data: o.Data}
}

// scan calls f for the candidates of a query that the user may see: those that
// its ids name, or those within bounds.
func (c *call) scan(q *query.Query, bounds fsm.ScanOptions, f func(o *fsm.Object) bool) error {
	seen := func(o *fsm.Object) bool {
		if !c.shared.with(o) {
			return true
		}
		if len(c.route.kind.Hidden) == 0 {
			return f(o)
		}
		visible := c.s.visible(*o)
		return f(&visible)
	}
	ids, named := q.IDs()
	if c.scoped() && (!named || slices.Contains(ids, c.scope.ID)) {
		ids = []string{c.scope.ID}
	} else if c.scoped() {
		return nil
	}
	named = named || c.scoped()
	if !named {
		return c.state.Scan(c.route.list, bounds, seen)
	}
	for _, id := range ids {
		if !c.route.kind.ValidID(id) {
			continue // above all none with a slash, which would name something else
		}
		o, err := c.state.Get(c.route.list.Child(id))
		if err != nil {
			return err
		}
		if o.Revision != 0 && (!o.Deleted || bounds.Tombstones) && !seen(&o) {
			return nil
		}
	}
	return nil
}

// scanShown is scan of what matches, with the data that clients see. What a kind
// finds out late is found out of matches only, unless the query looks at it.
func (c *call) scanShown(q *query.Query, bounds fsm.ScanOptions, f func(o *fsm.Object, v query.Object) bool) error {
	show := c.route.kind.Show
	early := show != nil && q.Uses(c.route.kind.Late)
	var failed error
	shown := func(o *fsm.Object, whole bool) (v query.Object) {
		if v = view(o); show != nil && !o.Deleted && failed == nil {
			v.Data, failed = show(c.state, o, whole)
		}
		return v
	}
	err := c.scan(q, bounds, func(o *fsm.Object) bool {
		v := shown(o, early)
		if failed != nil || !q.Match(v) {
			return failed == nil
		}
		if show != nil && !early {
			v = shown(o, true)
		}
		return failed == nil && f(o, v)
	})
	return errors.Join(err, failed)
}

// pageOf is one page of a list.
type pageOf struct {
	objects   []query.Object
	revisions map[string]fsm.Revision // of the objects, by id; only for batches
	more      bool
}

// page reads the page that q asks for. In the list's own order it reads no
// further than the page; otherwise it looks at all candidates and keeps a page.
func (c *call) page(q *query.Query, tombstones bool) (*pageOf, error) {
	r := q.ScanRange()
	bounds := fsm.ScanOptions{Reverse: r.Descending, Tombstones: tombstones}
	setBounds(&bounds, r.Since, r.Before)
	p := &pageOf{}
	if c.batch {
		p.revisions = map[string]fsm.Revision{}
	}
	_, named := q.IDs()
	named = named || c.scoped()
	sorted := q.NewPage()
	direct := r.Ordered && !named
	err := c.scanShown(q, bounds, func(o *fsm.Object, v query.Object) bool {
		if !q.After(v) {
			return true
		}
		if c.batch {
			p.revisions[v.ID] = o.Revision
		}
		if !direct {
			sorted.Add(v)
			return true
		}
		p.objects = append(p.objects, v)
		return len(p.objects) <= q.Limit
	})
	if !direct {
		p.objects, p.more = sorted.Objects()
	} else if len(p.objects) > q.Limit {
		p.objects, p.more = p.objects[:q.Limit], true
	}
	return p, err
}

// showList makes the body of a GET.
func (c *call) showList(out *outline, q *query.Query, p *pageOf) {
	size := 16
	for i := range p.objects {
		size += len(p.objects[i].Data) + 80
	}
	b := append(make([]byte, 0, size), `{"data":[`...)
	for i := range p.objects {
		if i > 0 {
			b = append(b, ',')
		}
		o := fsm.Object{Path: c.route.list.Child(p.objects[i].ID), LastModified: fsm.Timestamp(p.objects[i].LastModified),
			Deleted: p.objects[i].Deleted, Data: p.objects[i].Data}
		switch {
		case q.Fields != nil:
			b = appendProjected(b, q.Fields, &p.objects[i])
		case c.batch && c.route.kind.Show == nil:
			out.literal(b)
			b = nil
			o.Revision = p.revisions[p.objects[i].ID]
			out.parts = append(out.parts, c.reference(&o))
		default:
			b = appendObject(b, &o)
		}
	}
	out.literal(append(b, `]}`...))
}

func appendProjected(b []byte, fields *query.Fields, o *query.Object) []byte {
	shown := fsm.Object{Path: fsm.Path("/" + o.ID), LastModified: fsm.Timestamp(o.LastModified), Data: fields.Project(*o)}
	return appendObject(b, &shown)
}

// A page token of a DELETE may be used once (Kinto 4.6). Its nonce is a
// replicated setting with a deadline, so that every node knows it; there is a
// fixed number of places, and a new nonce takes the place of an old one.
const (
	noncePrefix = plugins.NoncePrefix
	noncePlaces = 4096
)

func (c *call) newNonce() string { return "pagination-token-" + NewUUID() }

func nonceSetting(nonce string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(nonce))
	return noncePrefix + strconv.FormatUint(uint64(h.Sum32()%noncePlaces), 16)
}

// nonceValue is the deadline and the nonce.
func nonceValue(nonce string, deadline fsm.Timestamp) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(deadline)), nonce...)
}

// checkNonce refuses a token whose nonce is not valid, or is taken by this plan.
func (c *call) checkNonce(nonce string) error {
	name := nonceSetting(nonce)
	value, err := c.view.Setting(name)
	if err != nil {
		return err
	}
	valid := len(value) > 8 && string(value[8:]) == nonce && fsm.Timestamp(binary.BigEndian.Uint64(value)) > c.now
	for _, op := range c.ops {
		valid = valid && (op.Type != fsm.OpSetSetting || op.Name != name)
	}
	if !valid {
		return invalid(problem{location: query.Location, noName: true, description: "_token was already used or has expired."})
	}
	return nil
}

// nextPage is the Next-Page header behind the last object of a page.
func (c *call) nextPage(q *query.Query, last query.Object, shown int, nonce string) (HeaderField, error) {
	offset := int64(shown)
	if q.Token != nil {
		offset += q.Token.Offset
	}
	token, err := q.EncodeToken(last, query.Token{Offset: offset, Nonce: nonce, Revision: uint64(c.view.Revision())})
	if err != nil {
		return HeaderField{}, invalid(problem{location: query.Location, name: "_sort", description: fmt.Sprint(err)})
	}
	return HeaderField{"Next-Page", c.r.url(string(c.route.list)) + "?" + q.NextPage(token)}, nil
}

// deleteList decides DELETE of a list: what GET would show, page by page.
func (c *call) deleteList(q *query.Query, info *fsm.ListInfo) (*outline, error) {
	c.require(c.route.list)
	if err := c.precondition(target{exists: true}); err != nil {
		return nil, err
	}
	if q.Token != nil {
		if err := c.checkNonce(q.Token.Nonce); err != nil {
			return nil, err
		}
	}
	p, err := c.page(q, false)
	if err != nil {
		return nil, err
	}
	out := &outline{status: 200, fields: []HeaderField{contentTypeField}}
	var settings []fsm.Op
	if q.Token != nil {
		settings = append(settings, fsm.Op{Type: fsm.OpSetSetting, Name: nonceSetting(q.Token.Nonce)})
	}
	if p.more {
		nonce := c.newNonce()
		next, err := c.nextPage(q, p.objects[len(p.objects)-1], len(p.objects), nonce)
		if err != nil {
			return nil, err
		}
		deadline := c.now + fsm.Timestamp(c.s.cfg.Timeouts.PageToken.Milliseconds())
		settings = append(settings, fsm.Op{Type: fsm.OpSetSetting, Name: nonceSetting(nonce), Value: nonceValue(nonce, deadline)})
		out.fields = append(out.fields, next)
	}
	if out.stamp, err = c.deleteAll(p); err != nil {
		return nil, err
	}
	for _, op := range settings {
		if _, err := c.stage(op); err != nil {
			return nil, err
		}
	}
	if len(p.objects) == 0 {
		out.fields = appendStamp(out.fields, info.Timestamp)
	}
	out.literal([]byte(`{"data":[`))
	out.parts = append(out.parts, part{ops: out.stamp}, part{literal: []byte(`]}`)})
	return out, nil
}

// deleteAll stages the removal of a page's objects and returns their ops.
func (c *call) deleteAll(p *pageOf) (made opRange, err error) {
	if len(p.objects) == 0 {
		return made, nil
	}
	c.name(p.objects[0].ID) // inherited looks above the last link
	inherited, err := c.inherited()
	if err != nil {
		return made, err
	}
	made.from = len(c.ops)
	for i := range p.objects {
		op := c.removal(c.route.list.Child(p.objects[i].ID))
		op.Inherited = inherited
		if len(c.s.hooks) > 0 {
			old, err := c.state.Get(op.Path)
			if err != nil {
				return made, err
			}
			if err := c.hooks(fsm.ActionDelete, &old, &op); err != nil {
				return made, err
			}
		}
		if _, err := c.stage(op); err != nil {
			return made, err
		}
	}
	made.to = len(c.ops)
	return made, nil
}
