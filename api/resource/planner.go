package resource

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"quinto/api/query"
	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// planner decides one request, or all of a batch, on one state: a View, with
// the operations decided so far laid over it. It has no effects; what it
// decided is ops and the outline that answer returns.
type planner struct {
	s     *Service
	ctx   context.Context
	view  *fsm.View
	state fsm.Reader   // what is read: view, or over
	over  *fsm.Overlay // nil for a plan that only reads
	now   fsm.Timestamp

	ops      []fsm.Op
	staged   map[fsm.Path]int // the op that made the object as it stands now
	lists    []fsm.Path       // lists whose content or time was depended on
	batch    bool             // several requests share the ops
	who      *identity        // of the last request; whoAuth is the header it comes from
	whoAuth  string
	whoKnown bool
	whoOps   int            // of the batch, when that was found out
	memo     map[string]any // of hooks
	drawn    int            // ids made for POSTs without one
}

// newReader plans requests that only read.
func (s *Service) newReader(ctx context.Context, v *fsm.View, now fsm.Timestamp) *planner {
	return &planner{s: s, ctx: ctx, view: v, state: v, now: now}
}

// newWriter plans requests that may write; v must record.
func (s *Service) newWriter(ctx context.Context, v *fsm.View, now fsm.Timestamp) *planner {
	over := fsm.NewOverlay(v, now)
	return &planner{s: s, ctx: ctx, view: v, state: over, over: over, now: now, staged: map[fsm.Path]int{}, memo: map[string]any{}}
}

// identify finds out who sends r; parts of a batch mostly share it.
func (p *planner) identify(r *Request) (*identity, error) {
	header := r.Header["authorization"]
	if p.whoKnown && header == p.whoAuth && !p.whoMayDiffer() {
		return p.who, nil
	}
	who, err := identify(p.ctx, p.s.policies, header, p.state, p.s.meter)
	if err == nil {
		p.who, p.whoAuth, p.whoKnown, p.whoOps = who, header, true, len(p.ops)
	}
	return who, err
}

// user is who was identified last; empty: nobody.
func (p *planner) user() string {
	if p.who == nil {
		return ""
	}
	return p.who.user
}

// recordDepth is that of the objects that say nothing about who somebody is:
// groups and whatever an authenticator keeps stand above them.
const recordDepth = 6

// whoMayDiffer reports whether the batch wrote, since the user was identified,
// anything that could make him another or give him groups.
func (p *planner) whoMayDiffer() bool {
	return slices.ContainsFunc(p.ops[p.whoOps:], func(o fsm.Op) bool { return o.Path.Depth() < recordDepth })
}

// require notes that the plan depends on a list: on its content or timestamp.
func (p *planner) require(list fsm.Path) {
	if p.over != nil && !slices.Contains(p.lists, list) {
		p.lists = append(p.lists, list)
	}
}

// compares gives the read set of the plan.
func (p *planner) compares() ([]fsm.Compare, error) {
	for _, pin := range p.over.Pins() {
		p.require(pin)
	}
	for _, list := range p.lists {
		if err := p.view.RequireList(list); err != nil {
			return nil, err
		}
	}
	return p.view.Reads(), nil
}

// stage adds an op and returns its index.
func (p *planner) stage(op fsm.Op) (int, error) {
	if _, err := p.over.Stage(op); err != nil {
		return 0, err
	}
	p.ops = append(p.ops, op)
	i := len(p.ops) - 1
	switch op.Type {
	case fsm.OpDeleteTree:
		for at := range p.staged {
			if at.Under(op.Path) {
				delete(p.staged, at)
			}
		}
		p.staged[op.Path] = i
	case fsm.OpFlush:
		clear(p.staged)
	case fsm.OpPut, fsm.OpDelete:
		p.staged[op.Path] = i
	}
	return i, nil
}

// call is the decision on one request.
type call struct {
	*planner
	r      *Request
	route  route
	links  []link // those of the route; for POST also the object it names
	loaded []fsm.Object
	known  []bool

	who     *identity
	current fsm.Object // the addressed object; for POST the one that data.id names
	shared  *sharing   // not nil: only what is shared with the user
	body    parsed
	unnamed bool          // a POST without id
	scope   plugins.Scope // of what exists for the request, when its kind has a rule
	fresh   bool          // the id of the addressed object is a random UUID, drawn for it
	also    []fsm.Op      // of hooks, behind the request's own

	ifMatch, ifNoneMatch condition
	foreign              []problem // an origin that is not allowed, found before all else
}

// at gives the object of a link, read once.
func (c *call) at(i int) (*fsm.Object, error) {
	if !c.known[i] {
		o, err := c.state.Get(c.links[i].path)
		if err != nil {
			return nil, err
		}
		c.loaded[i], c.known[i] = o, true
	}
	return &c.loaded[i], nil
}

func (c *call) setLinks(links []link) {
	c.links = links
	c.loaded, c.known = append(c.loaded, make([]fsm.Object, len(links)-len(c.loaded))...), append(c.known, make([]bool, len(links)-len(c.known))...)
}

// answer decides r. Errors are *Failure, *plugins.Veto or of the state below.
func (p *planner) answer(r *Request) (*outline, error) {
	if !validQuery(r.Query) {
		return nil, errQueryEncoding(r.Query)
	}
	if r.Path == "/" {
		return p.hello(r)
	}
	if a := p.s.alias(r.Path); a != nil {
		return p.aliased(r, a)
	}
	if at := p.s.endpoints.at(r.Path); at != nil {
		return p.endpoint(r, at)
	}
	rt, ok := p.s.table.route(r.Path)
	if !ok {
		return p.other(r)
	}
	if !rt.allows(r.Method) {
		return nil, errMethod(p.s.cors.allow(rt.methods()))
	}
	if rt.kind.Name == userDataKind {
		return p.userData(r, rt)
	}
	c := &call{planner: p, r: r, route: rt}
	if bad := p.s.cors.refuse(r); bad != nil {
		c.foreign = append(c.foreign, *bad)
	}
	c.setLinks(rt.links)
	if err := c.prepare(); err != nil {
		return nil, err
	}
	out, err := c.decide(c.parseConditions())
	if err != nil {
		return nil, err
	}
	return out, c.stageAlso()
}

// stageAlso adds what hooks want to write beside the request's own.
func (c *call) stageAlso() error {
	for _, op := range c.also {
		if _, err := c.stage(op); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) decide(problems []problem) (*outline, error) {
	switch {
	case c.route.kind.Name == permissionsKind:
		return c.listPermissions(problems)
	case c.route.object:
		return c.object(problems)
	case c.r.Method == http.MethodPost:
		return c.post(problems)
	}
	return c.list(problems)
}

// other answers what is not of the table: inside a batch, the utility endpoints.
func (p *planner) other(r *Request) (*outline, error) {
	if p.s.other == nil {
		return nil, errNoRoute()
	}
	resp := p.s.other(p.ctx, r)
	if resp == nil {
		return nil, errNoRoute()
	}
	out := &outline{status: resp.Status, fields: resp.Header, ownCORS: true, raised: resp.Status == http.StatusMethodNotAllowed}
	out.literal(resp.Body)
	return out, nil
}

// prepare runs what Kinto does before a view, in its order: for writes on an
// object the parents and the object itself, then the headers that negotiate,
// then permissions, then the parents of reads.
func (c *call) prepare() (err error) {
	early := c.r.Method == http.MethodPost || c.route.object && !c.r.safe()
	outOfScope := c.findScope()
	if early {
		if outOfScope != nil {
			return outOfScope
		}
		if err := c.checkParents(); err != nil {
			return err
		}
		if err := c.loadCurrent(); err != nil {
			return err
		}
	}
	if err := c.negotiate(); err != nil {
		return err
	}
	if c.who, err = c.identify(c.r); err != nil {
		return err
	}
	if err := c.authorize(); err != nil {
		return err
	}
	if early {
		return nil
	}
	if outOfScope != nil {
		return outOfScope
	}
	return c.checkParents()
}

// checkParents answers 404 for parents that cannot exist, or, where the kind
// asks for it, do not.
func (c *call) checkParents() error {
	parents := c.route.parents()
	for _, l := range parents {
		if !l.kind.ValidID(l.id) {
			return errNoParent(l.kind.Name, l.id)
		}
	}
	if !c.route.kind.NeedsParent || len(parents) == 0 {
		return nil
	}
	o, err := c.at(len(parents) - 1)
	if err != nil {
		return err
	}
	if !o.Exists() {
		l := parents[len(parents)-1]
		return errNoParent(l.kind.Name, l.id)
	}
	return nil
}

// loadCurrent reads the object that a write addresses. For POST that is the one
// that data.id names, in whatever body there is; the id is checked here, before
// permissions, as Kinto does.
func (c *call) loadCurrent() (err error) {
	if c.route.object {
		return c.readCurrent()
	}
	c.body.parse(c.r.Body, c.s.jsonLimits())
	data, _ := c.body.value.Get("data")
	id, ok := data.Get("id")
	if !ok {
		return nil
	}
	text, ok := id.String()
	if !ok || !c.route.kind.ValidID(text) {
		return errInvalidID()
	}
	c.name(text)
	return c.readCurrent()
}

// readCurrent takes the object of the last link, if it exists for the request.
func (c *call) readCurrent() error {
	o, err := c.at(len(c.links) - 1)
	if err == nil && c.inScope(o.Path.ID()) {
		c.current = *o
	}
	return err
}

// name makes the object id of the addressed list the last link.
func (c *call) name(id string) {
	c.setLinks(append(slices.Clip(c.route.links), link{c.route.kind, id, c.route.list.Child(id)}))
}

var patchTypes = []string{jsonPatchType, jsonType, mergePatchType}

// negotiate answers 406 and 415.
func (c *call) negotiate() error {
	if accept, sent := c.r.Header["accept"]; sent && !acceptsJSON(accept) {
		return negotiation(406, "Accept", "Accept header should be one of ['application/json']")
	}
	media := mediaType(c.r.Header["content-type"])
	switch c.r.Method {
	case http.MethodPost, http.MethodPut:
		return checkMedia(media, jsonType)
	case http.MethodPatch:
		return checkMedia(media, patchTypes...)
	}
	return nil
}

// checkMedia answers 415 unless media is one of types or absent.
func checkMedia(media string, types ...string) error {
	if media == "" || slices.Contains(types, media) {
		return nil
	}
	return negotiation(415, "Content-Type", "Content-Type header should be one of ['"+strings.Join(types, "', '")+"']")
}

// acceptsJSON reads an Accept header as WebOb does: the most specific range that
// covers JSON counts, q=0 refuses, and a header that does not parse is ignored.
func acceptsJSON(accept string) bool {
	if strings.TrimSpace(accept) == "" {
		return false
	}
	best, accepted := 0, false
	for _, element := range strings.Split(accept, ",") {
		media, parameters, _ := strings.Cut(strings.TrimSpace(element), ";")
		media = strings.ToLower(strings.TrimSpace(media))
		if media == "" {
			continue
		}
		if !strings.Contains(media, "/") {
			return true
		}
		q, plain := quality(parameters)
		specific := map[string]int{"*/*": 1, "application/*": 2, jsonType: 3}[media]
		if plain && specific > best {
			best, accepted = specific, q > 0
		}
	}
	return accepted
}

// quality reads the parameters of an element; plain is false when it is about a
// media type with parameters of its own, which is another one.
func quality(parameters string) (q float64, plain bool) {
	if strings.TrimSpace(parameters) == "" {
		return 1, true
	}
	first, _, _ := strings.Cut(parameters, ";")
	name, value, _ := strings.Cut(strings.TrimSpace(first), "=")
	if !strings.EqualFold(name, "q") {
		return 0, false
	}
	q, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return 1, true
	}
	return q, true
}

// validQuery reports whether a raw query decodes to UTF-8.
func validQuery(raw string) bool {
	if !strings.Contains(raw, "%") {
		return utf8.ValidString(raw)
	}
	_, err := query.ParseFields(raw, query.Options{})
	encodingError := &query.EncodingError{}
	bad := errors.As(err, &encodingError)
	return !bad
}

// hooks asks the plugins about a write and takes their edits.
func (c *call) hooks(action fsm.Action, old *fsm.Object, op *fsm.Op) error {
	if len(c.s.hooks) == 0 {
		return nil
	}
	change := &plugins.Change{Kind: c.route.kind.Name, Action: action, Path: op.Path, UserID: c.who.user,
		Principals: c.who.principals, View: c.state, Now: c.now, Header: c.r.Header,
		Memo: c.memo, Also: func(op fsm.Op) { c.also = append(c.also, op) }}
	if old.Exists() {
		change.Old = old
	}
	if op.Type == fsm.OpPut {
		change.New = &fsm.Object{Path: op.Path, LastModified: op.LastModified, Data: op.Data, ACL: op.ACL, Members: op.Members}
	}
	if err := plugins.RunBefore(c.ctx, c.s.hooks, change); err != nil {
		return err
	}
	if change.New == nil {
		return nil
	}
	data, err := canon.Canonical(change.New.Data, c.s.jsonLimits())
	if err != nil {
		return err
	}
	op.Data, op.ACL = canon.Delete(canon.Delete(data, "id"), "last_modified"), change.New.ACL
	return nil
}
