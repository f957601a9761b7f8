package resource

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"quinto/api/query"
	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// Parameters of streams and feeds, beside those of a GET.
const (
	// SinceParam is the event id after which a stream or feed goes on.
	SinceParam = "_since_revision"
	// SnapshotParam asks a stream for the objects as they are, before the changes.
	SnapshotParam = "_snapshot"
	// TicketParam is a ticket that stands for the Authorization header.
	TicketParam = "_ticket"
	// WaitParam is how many seconds a feed waits for a change.
	WaitParam = "_wait"
	// changesName is the last segment of the URL of a feed.
	changesName = "changes"
)

// Verdict is what a change is to one watch.
type Verdict uint8

// The verdicts.
const (
	Nothing Verdict = iota // not to be told
	Put                    // what a GET shows has the object as it now is
	Gone                   // the object was deleted
	Left                   // the object is there, and a GET no longer shows it
)

// Watch is the right to see the changes of what one GET shows: of a list, of an
// object and all below it, or, for a feed, of whatever the user may see in a
// bucket or in the server. Its methods are for one goroutine at a time.
type Watch struct {
	s       *Service
	request Request // what the decision needs of the GET
	scope   fsm.Path
	list    bool
	feed    bool
	ticket  string // the user that a ticket stands for; empty: who the header says
	opened  time.Time
	who     *identity
	shared  *sharing // not nil: of a list, only what is shared with the user
	query   *query.Query
	fields  *query.Fields
	form    string // of what is shown: equal for watches that show the same bytes
}

// watchable are the kinds whose changes can be watched: what has events and no
// rules of its own about what is shown.
var watchable = []string{"bucket", "group", "collection", "record"}

// Watches reports whether the changes of what a path shows can be watched. Paths
// of an Alias count: what they mean is found out later.
func (s *Service) Watches(path string) bool {
	if _, ok := feedScope(path); ok {
		return true
	}
	rt, ok := s.table.route(path)
	return ok && slices.Contains(watchable, rt.kind.Name) && rt.allows(http.MethodGet)
}

// IsFeed reports whether a path is that of a feed of changes.
func IsFeed(path string) bool {
	_, ok := feedScope(path)
	return ok
}

// feedScope is the bucket that a feed is of, empty for that of the server.
func feedScope(path string) (scope fsm.Path, ok bool) {
	if path == "/"+changesName {
		return "", true
	}
	owner, is := strings.CutSuffix(path, "/"+changesName)
	id, below := strings.CutPrefix(owner, "/buckets/")
	if !is || !below || strings.Contains(id, "/") || !ValidName(id) {
		return "", false
	}
	return fsm.Path(owner), true
}

// Watch decides who may watch what a GET shows, on a view as fresh as the request
// asks for, which the caller closes. user is whom a ticket stands for, else empty.
// A client that goes on from a revision is also served while there is no leader.
// The answer, when not nil, is the refusal that a GET would get.
func (s *Service) Watch(ctx context.Context, r *Request, user string, since fsm.Revision) (*Watch, *fsm.View, *Response) {
	w, v, err := s.watch(ctx, r, user, since)
	if err != nil {
		resp := s.finish(nil, err, nil, s.staleRevision(ctx))
		resp.Header = s.cors.append(resp.Header, s.exposure(r, resp.Status), r.Header["origin"])
		return nil, nil, resp
	}
	return w, v, nil
}

func (s *Service) watch(ctx context.Context, r *Request, user string, since fsm.Revision) (*Watch, *fsm.View, error) {
	if bad := s.cors.refuse(r); bad != nil {
		return nil, nil, validation(*bad)
	}
	if !validQuery(r.Query) {
		return nil, nil, errQueryEncoding(r.Query)
	}
	meant, err := s.meantPath(ctx, r, user)
	if err != nil {
		return nil, nil, err
	}
	fresh, err := freshness(r)
	if err != nil {
		return nil, nil, err
	}
	v, err := s.node.View(ctx, fresh)
	if err != nil && since != 0 && errors.Is(err, fsm.ErrNoLeader) {
		v, err = s.node.View(ctx, fsm.Freshness{Level: fsm.Session, Revision: since})
	}
	if err != nil {
		return nil, nil, err
	}
	w := &Watch{s: s, ticket: user, opened: time.Now(), request: Request{Method: http.MethodGet, Path: meant, Query: r.Query, Scheme: r.Scheme, Host: r.Host, Prefix: r.Prefix,
		Header: Header{"authorization": strings.Clone(r.Header["authorization"])}}} // not with all that the client sent
	if err := w.begin(ctx, v); err != nil {
		v.Close()
		return nil, nil, err
	}
	return w, v, nil
}

// meantPath is the path that an Alias gives to that of r. What has to be there
// for it is made as a GET would.
func (s *Service) meantPath(ctx context.Context, r *Request, user string) (string, error) {
	a := s.alias(r.Path)
	if a == nil {
		return r.Path, nil
	}
	asked := *r
	asked.Method, asked.Query, asked.Body = http.MethodHead, "", nil
	asked.Header = Header{"authorization": r.Header["authorization"]}
	if user == "" { // a ticket's user has made them when he asked for it, or gets a 404
		if resp := s.do(ctx, &asked); resp.Status != http.StatusOK && resp.Status != http.StatusNotFound {
			return "", &Failure{Status: resp.Status, Errno: ErrnoForbidden, Message: "This user cannot watch that."}
		}
	}
	v, err := s.node.View(ctx, fsm.Freshness{Level: fsm.Stale})
	if err != nil {
		return "", err
	}
	defer v.Close()
	p := s.newReader(ctx, v, s.node.Now())
	if user != "" {
		who, err := withGroups(user, v)
		if err != nil {
			return "", err
		}
		p.who, p.whoAuth, p.whoKnown = who, r.Header["authorization"], true
	}
	_, target, err := p.resolve(r, a)
	if err != nil {
		return "", err
	}
	return target.Path, nil
}

// begin authenticates, and reads the query.
func (w *Watch) begin(ctx context.Context, v *fsm.View) error {
	var err error
	if w.ticket == "" {
		_, err = w.s.patiently(ctx, func(ctx context.Context) (*Response, *plugins.Later) {
			var failed error
			w.who, failed = identify(ctx, w.s.policies, w.request.Header["authorization"], v, w.s.meter)
			if wish := later(failed); wish != nil {
				return nil, wish
			}
			err = failed
			return nil, nil
		})
	} else {
		w.who, err = withGroups(w.ticket, v)
	}
	if err != nil {
		return err
	}
	if err := w.readQuery(); err != nil {
		return err
	}
	_, err = w.authorize(ctx, v)
	return err
}

// ownParams are taken out of a query before Kinto's rules are applied to it.
var ownParams = []string{SinceParam, SnapshotParam, TicketParam, WaitParam, consistencyParam}

func (w *Watch) readQuery() error {
	values, _ := url.ParseQuery(w.request.Query)
	scope, feed := feedScope(w.request.Path)
	if feed && values.Has(SnapshotParam) {
		return invalid(problem{location: query.Location, name: SnapshotParam, description: "not for a feed: for a list or an object"})
	}
	for _, name := range ownParams {
		values.Del(name)
	}
	rt, ok := w.s.table.route(w.request.Path)
	if w.feed = feed; feed {
		w.scope = scope
	} else if !ok || !slices.Contains(watchable, rt.kind.Name) {
		return errNoRoute()
	} else if w.list = !rt.object; w.list {
		w.scope = rt.list
	} else {
		w.scope = rt.links[len(rt.links)-1].path
	}
	for _, name := range []string{"_sort", "_limit", "_token", "_since", "_before", "_to"} {
		if values.Has(name) && (w.list || feed && name != "_limit") {
			return invalid(problem{location: query.Location, name: name, description: "not for a stream or a feed of changes"})
		}
	}
	values.Del("_limit")
	w.form = values.Get("_fields")
	w.request.Query = values.Encode()
	if !w.list {
		fields, err := query.ParseFields(w.request.Query, query.Options{})
		w.fields = fields
		return queryFailure(err)
	}
	q, err := query.Parse(w.request.Query, query.Options{Now: int64(w.s.node.Now()), MaxFetch: w.s.cfg.Limits.FetchSize, KnownFields: rt.kind.Fields})
	if err != nil {
		return queryFailure(err)
	}
	if q.IncludesTombstones() {
		return invalid(problem{location: query.Location, name: "last_modified", description: "not for a stream"})
	}
	w.query, w.fields = q, q.Fields
	return nil
}

// authorize decides the GET. The call tells what it found.
func (w *Watch) authorize(ctx context.Context, v *fsm.View) (*call, error) {
	p := w.s.newReader(ctx, v, w.s.node.Now())
	p.who, p.whoAuth, p.whoKnown = w.who, w.request.Header["authorization"], true
	c := &call{planner: p, r: &w.request, who: w.who}
	if w.feed {
		w.shared = nil
		return c, nil
	}
	rt, ok := w.s.table.route(w.request.Path)
	if !ok {
		return nil, errNoRoute()
	}
	c.route = rt
	c.setLinks(rt.links)
	if err := c.prepare(); err != nil {
		return nil, err
	}
	w.shared = c.shared
	if !rt.object {
		return c, nil
	}
	if err := c.checkID(); err != nil {
		return nil, err
	}
	if err := c.readCurrent(); err != nil {
		return nil, err
	}
	if !c.current.Exists() {
		return nil, c.missing()
	}
	return c, nil
}

// Share makes w keep what o has and what is equal to its own: who it is, the
// credentials, the query. A node has thousands of watches that wait, and the garbage
// collector walks what they keep in each cycle. No other method of either may run meanwhile.
func (w *Watch) Share(o *Watch) {
	if w.who.user == o.who.user && slices.Equal(w.who.principals, o.who.principals) {
		w.who = o.who
	}
	mine, its := &w.request, &o.request
	if mine.Header["authorization"] == its.Header["authorization"] {
		mine.Header = its.Header
	}
	if mine.Scheme == its.Scheme && mine.Host == its.Host && mine.Prefix == its.Prefix {
		mine.Scheme, mine.Host, mine.Prefix = its.Scheme, its.Host, its.Prefix
	}
	if mine.Path == its.Path && mine.Query == its.Query {
		mine.Path, mine.Query = its.Path, its.Query
		w.scope, w.form, w.query, w.fields = o.scope, o.form, o.query, o.fields
	}
}

// Scope is the list, the object, or, empty, the server, whose changes are watched.
func (w *Watch) Scope() fsm.Path { return w.scope }

// User is who watches, with its prefix; empty: nobody in particular.
func (w *Watch) User() string { return w.who.user }

// Form names what is shown of an object: watches of one form show the same bytes.
func (w *Watch) Form() string { return w.form }

// Narrow reports whether what is seen depends on more than the permission to read
// the scope.
func (w *Watch) Narrow() bool { return !w.list || w.shared != nil }

// Recheck decides the GET again, for the same user with the groups that he now
// has. changed says that other objects may be seen than before; refusal, when not
// nil, is what the GET would be answered.
func (w *Watch) Recheck(ctx context.Context, v *fsm.View) (changed bool, refusal *Failure, err error) {
	before, narrow := w.who, w.shared != nil
	if w.who.user != "" {
		if w.who, err = withGroups(before.user, v); err != nil {
			return false, nil, err
		}
	}
	if _, err := w.authorize(ctx, v); err != nil {
		f := w.s.failure(err)
		if f.Status >= http.StatusInternalServerError {
			return false, nil, err
		}
		return false, f, nil
	}
	return narrow != (w.shared != nil) || w.Narrow() && !slices.Equal(before.principals, w.who.principals), nil, nil
}

// Regrants reports whether the event, of an object above others, gives or takes
// the user a permission that others inherit.
func (w *Watch) Regrants(e *fsm.Event) bool {
	return !slices.Equal(w.granted(e.OldACL), w.granted(e.NewACL))
}

// Unsettles reports whether the event takes from the user something that is shared with him
// in a list, or gives the first such thing: that may decide whether he sees the list at all.
func (w *Watch) Unsettles(e *fsm.Event) (takes, gives bool) {
	if w.shared == nil {
		return false, false
	}
	had := e.OldRevision != 0 && e.OldACL.Grants(w.who.set, w.shared.permissions...)
	has := (e.Action == fsm.ActionCreate || e.Action == fsm.ActionUpdate) && e.NewACL.Grants(w.who.set, w.shared.permissions...)
	return had && !has, has && w.shared.nothing
}

func (w *Watch) granted(acl fsm.ACL) (permissions []string) {
	acl.Each(func(permission, principal []byte) bool {
		if w.who.set[string(principal)] && !slices.Contains(permissions, string(permission)) {
			permissions = append(permissions, string(permission))
		}
		return true
	})
	return permissions
}

// Item is one change on its way to watches. What it reads, it reads once, and
// from the view of one goroutine.
type Item struct {
	Event    *fsm.Event
	view     *fsm.View
	s        *Service
	old, new *fsm.Object // visible ones
	current  *fsm.Object
	asked    [3]bool
}

// Item prepares a change for watches. It may be used as long as v is open.
func (s *Service) Item(v *fsm.View, e *fsm.Event) *Item { return &Item{Event: e, view: v, s: s} }

// Old is the object before the change; nil when there was none, or when it is no
// longer kept.
func (i *Item) Old() (*fsm.Object, error) {
	if !i.asked[0] && i.Event.OldRevision != 0 {
		o, err := i.view.Version(i.Event.Path, i.Event.OldRevision)
		if err != nil && !errors.Is(err, fsm.ErrTrimmed) {
			return nil, err
		}
		if err == nil {
			o = i.s.visible(o)
			i.old = &o
		}
	}
	i.asked[0] = true
	return i.old, nil
}

// New is the object after the change; nil when it is gone.
func (i *Item) New() (*fsm.Object, error) {
	if !i.asked[1] && i.exists() {
		o, err := i.view.Version(i.Event.Path, i.Event.Revision)
		if err != nil {
			return nil, err
		}
		o = i.s.visible(o)
		i.new = &o
	}
	i.asked[1] = true
	return i.new, nil
}

func (i *Item) exists() bool {
	return i.Event.Action == fsm.ActionCreate || i.Event.Action == fsm.ActionUpdate
}

// now is the object as it stands in the view.
func (i *Item) now() (*fsm.Object, error) {
	if !i.asked[2] {
		o, err := i.view.Get(i.Event.Path)
		if err != nil {
			return nil, err
		}
		i.current, i.asked[2] = &o, true
	}
	return i.current, nil
}

// Judge says what a change below the scope is to the watch, by the permissions
// of now: nobody is told of a past that he may no longer see.
func (w *Watch) Judge(ctx context.Context, i *Item) (Verdict, error) {
	before, after := i.Event.OldRevision != 0, i.exists()
	var err error
	if w.Narrow() {
		if before, after, err = w.visible(ctx, i, before, after); err != nil {
			return Nothing, err
		}
	}
	if w.query != nil && w.request.Query != "" {
		if before, after, err = w.matches(i, before, after); err != nil {
			return Nothing, err
		}
	}
	switch {
	case after:
		return Put, nil
	case before && !i.exists():
		return Gone, nil
	case before:
		return Left, nil
	}
	return Nothing, nil
}

func (w *Watch) visible(ctx context.Context, i *Item, before, after bool) (was, is bool, err error) {
	if before {
		if was, err = w.may(ctx, i, i.Event.OldACL); err != nil {
			return false, false, err
		}
	}
	if !after {
		return was, false, nil
	}
	if is, err = w.may(ctx, i, i.Event.NewACL); err != nil || !is {
		return was, false, err
	}
	now, err := i.now()
	if err == nil && now.Exists() && now.Revision != i.Event.Revision {
		is, err = w.may(ctx, i, now.ACL)
	}
	return was, is, err
}

// may reports whether the user may read the object of a change if it has these
// permissions.
func (w *Watch) may(ctx context.Context, i *Item, acl fsm.ACL) (bool, error) {
	if w.shared != nil {
		return w.shared.with(&fsm.Object{ACL: acl}), nil
	}
	return w.mayRead(ctx, i.view, &fsm.Object{Path: i.Event.Path, Revision: i.Event.Revision, ACL: acl})
}

func (w *Watch) mayRead(ctx context.Context, v *fsm.View, o *fsm.Object) (bool, error) {
	rt, ok := w.s.table.route(string(o.Path))
	if !ok || !rt.object || !slices.Contains(watchable, rt.kind.Name) {
		return false, nil
	}
	c := &call{planner: w.s.newReader(ctx, v, 0), r: &w.request, route: rt, who: w.who}
	c.setLinks(rt.links)
	last := len(c.links) - 1
	c.loaded[last], c.known[last] = *o, true
	return c.mayRead()
}

func (w *Watch) matches(i *Item, before, after bool) (was, is bool, err error) {
	if after {
		o, err := i.New()
		if err != nil {
			return false, false, err
		}
		is = w.query.Match(view(o))
	}
	if before && !is {
		o, err := i.Old()
		if err != nil {
			return false, false, err
		}
		was = o == nil || w.query.Match(view(o)) // unknown: better told once too often
	}
	return was, is, nil
}

// AppendChange appends what a client is told of a change, a JSON object.
func (w *Watch) AppendChange(b []byte, i *Item, verdict Verdict) ([]byte, error) {
	e := i.Event
	action := e.Action.String()
	if verdict == Left {
		action = "leave"
	}
	b = append(strconv.AppendUint(append(b, `{"revision":`...), uint64(e.Revision), 10), `,"action":`...)
	b = w.appendPlace(canon.AppendString(b, action), e.Path)
	switch verdict {
	case Put:
		o, err := i.New()
		if err != nil {
			return nil, err
		}
		b = w.appendData(b, o)
	case Gone:
		b = canon.Splice(b, e.Path.ID(), int64(e.LastModified), canon.Value(`{"deleted":true}`))
	default:
		b = append(canon.AppendString(append(b, `{"id":`...), e.Path.ID()), '}')
	}
	return append(b, '}'), nil
}

// appendPlace appends which object it is, up to its data.
func (w *Watch) appendPlace(b []byte, p fsm.Path) []byte {
	kind := strings.TrimSuffix(p.List().ID(), "s")
	b = canon.AppendString(append(b, `,"resource_name":`...), kind)
	b = canon.AppendString(append(b, `,"uri":`...), string(p))
	return append(b, `,"data":`...)
}

func (w *Watch) appendData(b []byte, o *fsm.Object) []byte {
	if w.fields == nil {
		return appendObject(b, o)
	}
	shown := view(o)
	return appendProjected(b, w.fields, &shown)
}

// SharedHeader are the headers of CORS for an answer to r that the service does
// not make itself.
func (s *Service) SharedHeader(r *Request) []HeaderField {
	return s.cors.append(nil, exposeObject, r.Header["origin"])
}
