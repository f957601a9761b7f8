package resource

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/internal/config"
	"quinto/plugins"
)

// Node is what a Service needs of the node it runs on; *cluster.Node is one.
type Node interface {
	// View gives the state at the freshness asked for. fsm.ErrNoLeader,
	// fsm.ErrHalted, fsm.ErrOverloaded or the context's error otherwise.
	View(ctx context.Context, f fsm.Freshness) (*fsm.View, error)
	// Staleness is how old a stale view may be: 0 on a confirmed leader, else
	// the time since the last contact with the leader.
	Staleness() time.Duration
	// LeaderView gives the state to decide a write on, and the term in which
	// this node leads. fsm.ErrNotLeader otherwise.
	LeaderView() (v *fsm.View, term uint64, err error)
	// Confirm succeeds when this node still leads in term, and has applied all that was
	// committed at the call: an answer decided without writing on a view that is opened
	// then, or is as new, is a linearizable read.
	Confirm(ctx context.Context, term uint64) error
	// Propose replicates a transaction. fsm.ErrNotLeader, ErrOverloaded,
	// ErrTooLarge and ErrNoSpace mean that nothing was done; any other error
	// that the outcome is unknown.
	Propose(ctx context.Context, t fsm.Txn) (fsm.Result, error)
	// ProposeExclusive calls plan with nothing in flight, so that it cannot
	// conflict. A transaction without ops is not proposed; plan's error is
	// returned as it is.
	ProposeExclusive(ctx context.Context, plan func(*fsm.View) (fsm.Txn, error)) (fsm.Result, error)
	// Forward sends an encoded request to the leader's Serve. fsm.ErrNoLeader and
	// fsm.ErrOverloaded: nothing was done; any other error: unknown.
	Forward(ctx context.Context, request []byte) ([]byte, error)
	// IsLeader reports whether this node leads, as far as it knows.
	IsLeader() bool
	// Now is the clock in ms.
	Now() fsm.Timestamp
}

// Options make a Service. Config and Node are needed.
type Options struct {
	Config         *config.Config
	Node           Node
	Authenticators []plugins.Authenticator // tried in order
	Hooks          []plugins.BeforeCommit  // asked in order about each write
	Kinds          []*Kind                 // nil: Kinds()
	Capabilities   []Capability            // for the hello view, beside those that the authenticators have
	Providers      []plugins.CapabilityProvider
	Users          []plugins.UserInfo // tell of the user in the hello view
	Endpoints      []plugins.Route    // answered beside the table of kinds, also in batches
	Aliases        []plugins.Alias    // asked in order about each path
	Version        string             // of the program, for the hello view
	ConfigInfo     []byte             // JSON for the hello view's config; nil: null
	Meter          *plugins.Meter     // of durations; nil: none
	Logger         hclog.Logger       // of errors that clients only see as 500; nil: none
	// Other answers a part of a batch whose path is not in the table of kinds,
	// such as the utility endpoints; a nil answer is a 404. It must not write.
	Other func(ctx context.Context, r *Request) *Response
}

// Service answers requests. It is safe for concurrent use and has nothing to
// close.
type Service struct {
	node         Node
	cfg          *config.Config
	policies     []plugins.Authenticator
	hooks        []plugins.BeforeCommit
	table        *table
	cors         *CORS
	capabilities []Capability
	// moreCapabilities are asked at each hello.
	moreCapabilities []plugins.CapabilityProvider
	users            []plugins.UserInfo
	endpoints        endpoints
	aliases          []plugins.Alias
	challenges       []HeaderField
	version          string
	configInfo       []byte
	other            func(context.Context, *Request) *Response
	meter            *plugins.Meter
	log              hclog.Logger
	secretive        bool // some kind has hidden fields
	unshared         unsharedLists
	schemas          schemaCache
	locks            keyLocks
}

// New returns a Service. The error is about the kinds.
func New(o Options) (*Service, error) {
	if o.Kinds == nil {
		o.Kinds = Kinds()
	}
	o.Kinds = append(slices.Clip(o.Kinds), userDataRow())
	permissions := o.Config.PermissionsEndpoint || slices.Contains(o.Config.Includes, adminPlugin)
	if permissions {
		o.Kinds = append(o.Kinds, permissionsRow())
	}
	t, err := newTable(o.Kinds, o.Config)
	if err != nil {
		return nil, err
	}
	s := &Service{secretive: secretive(o.Kinds), node: o.Node, cfg: o.Config, policies: o.Authenticators, hooks: o.Hooks, table: t, cors: NewCORS(o.Config), capabilities: o.Capabilities,
		moreCapabilities: o.Providers, users: o.Users, aliases: o.Aliases, version: o.Version, configInfo: o.ConfigInfo, other: o.Other, meter: o.Meter, log: o.Logger}
	if s.endpoints, err = newEndpoints(append(s.ticketRoutes(), o.Endpoints...)); err != nil {
		return nil, err
	}
	if s.configInfo == nil {
		s.configInfo = []byte("null")
	}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	if slices.ContainsFunc(o.Authenticators, func(p plugins.Authenticator) bool { return p.Name() == basicAuth.Name }) {
		s.capabilities = append([]Capability{basicAuth}, s.capabilities...)
	}
	s.schemas.backtrack = o.Config.SchemaBacktracking
	if o.Config.SchemaValidation {
		s.capabilities = append(slices.Clip(s.capabilities), schemaCapability)
	}
	if permissions {
		s.capabilities = append(slices.Clip(s.capabilities), permissionsCapability)
	}
	for _, p := range o.Authenticators {
		if c, ok := p.(interface{ Challenge() string }); ok {
			s.challenges = append(s.challenges, HeaderField{"WWW-Authenticate", c.Challenge()})
		}
	}
	return s, nil
}

// revisionHeader carries the revision that an answer shows or made; as a
// request header it is the token of a session read.
const revisionHeader = "Quinto-Revision"

// Do answers any request of the table of kinds, of /batch and of /, on any node.
// Everything that goes wrong is a Response.
func (s *Service) Do(ctx context.Context, r *Request) *Response {
	resp := s.do(ctx, r)
	resp.Header = s.cors.append(resp.Header, s.exposure(r, resp.Status), r.Header["origin"])
	return resp
}

func (s *Service) do(ctx context.Context, r *Request) *Response {
	if r.Method == http.MethodOptions && s.cors.enabled() {
		resp := s.preflight(r)
		resp.Header = withRevision(resp.Header, s.staleRevision(ctx))
		return resp
	}
	if f := s.static(r); f != nil {
		return s.finish(nil, f, nil, s.staleRevision(ctx))
	}
	var spec *batchSpec
	if r.Path == batchPath && !namesWrite(r.Body) {
		var err error
		if spec, err = s.batchSpec(r); err != nil {
			return s.finish(nil, err, nil, s.staleRevision(ctx))
		}
	}
	if s.reads(r, spec) {
		return s.read(ctx, r, spec)
	}
	return s.write(ctx, r)
}

// reads reports whether a request, or every part of a batch, only reads.
func (s *Service) reads(r *Request, spec *batchSpec) bool {
	if spec == nil {
		return r.safe() && !s.endpoints.plans(r.Method, r.Path)
	}
	for i := range spec.requests {
		part, _, _ := spec.requests[i].build(r)
		if !part.safe() || s.endpoints.plans(part.Method, part.Path) {
			return false
		}
	}
	return true
}

// namesWrite reports whether a batch names a method that writes. It is then the
// leader's, who reads it in full: this node need not parse it only to find that
// out. A batch that only reads and has such a word in it is answered all the
// same, just not here.
func namesWrite(body []byte) bool {
	for _, method := range []string{`"PUT"`, `"POST"`, `"PATCH"`, `"DELETE"`} {
		if bytes.Contains(body, []byte(method)) {
			return true
		}
	}
	return false
}

// static finds what needs no state to be refused.
func (s *Service) static(r *Request) *Failure {
	if s.cfg.ReadOnly && !r.safe() && !ofTickets(r.Path) {
		return &Failure{Status: 405, Errno: ErrnoMethodNotAllowed, Message: notAllowed}
	}
	if r.Path == "/" || r.Path == batchPath {
		return nil
	}
	if s.alias(r.Path) != nil {
		return nil
	}
	if at := s.endpoints.at(r.Path); at != nil {
		if at.find(r.Method) == nil {
			return errMethod(s.cors.allow(at.methods()))
		}
		return nil
	}
	rt, ok := s.table.route(r.Path)
	switch {
	case !ok:
		return errNoRoute()
	case !rt.allows(r.Method):
		return errMethod(s.cors.allow(rt.methods()))
	}
	return nil
}

func (s *Service) staleRevision(ctx context.Context) fsm.Revision {
	v, err := s.node.View(ctx, fsm.Freshness{Level: fsm.Stale})
	if err != nil {
		return 0
	}
	defer v.Close()
	return v.Revision()
}

// run decides a request or a batch.
func (p *planner) run(r *Request, spec *batchSpec) (*outline, error) {
	if spec != nil {
		return p.runBatch(r, spec)
	}
	return p.answer(r)
}

// finish renders an answer, or the error that stands in its place.
func (s *Service) finish(out *outline, err error, from source, revision fsm.Revision) *Response {
	var resp *Response
	if err == nil {
		resp, err = out.render(s.shown(from))
	}
	if err != nil {
		resp, _ = s.failure(err).outline().render(nil)
	}
	resp.Header = withRevision(resp.Header, revision)
	return resp
}

// withRevision adds the revision to headers that may be shared; to the result more may be appended.
func withRevision(fields []HeaderField, revision fsm.Revision) []HeaderField {
	return append(slices.Clip(fields), HeaderField{revisionHeader, strconv.FormatUint(uint64(revision), 10)})
}

const unavailable = "Service temporary unavailable due to overloading or maintenance, please retry later."

// StatusInsufficientStorage is answered when the disk's reserve is reached.
const StatusInsufficientStorage = 507

// failure is the one place where errors become answers.
func (s *Service) failure(err error) *Failure {
	var f *Failure
	var veto *plugins.Veto
	var hook *plugins.Unavailable
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &hook):
		return errUnavailable(hook.Message, s.retryAfter())
	case errors.As(err, &veto):
		return vetoed(veto)
	case errors.Is(err, fsm.ErrTooLarge):
		return errTooLarge("The request changes more than one transaction may.")
	case errors.Is(err, fsm.ErrNoSpace):
		return errNoSpace(s.retryAfter())
	case errors.Is(err, fsm.ErrUnknownOutcome):
		return errUnavailable("The outcome of the request is unknown: it may have been done. "+
			"Retry it with the same Idempotency-Key, which does it at most once.", s.retryAfter())
	case errors.Is(err, fsm.ErrNoLeader), errors.Is(err, fsm.ErrNotLeader), errors.Is(err, fsm.ErrOverloaded), errors.Is(err, fsm.ErrHalted),
		errors.Is(err, fsm.ErrClosed), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return errUnavailable(unavailable, s.retryAfter())
	}
	s.log.Error("request failed", "error", err)
	return errInternal(s.cfg.Project.ErrorInfoLink)
}

func (s *Service) jsonLimits() canon.Limits {
	l := &s.cfg.Limits
	return canon.Limits{Depth: l.JSONDepth, Members: l.JSONMembers, KeyBytes: l.JSONKeyBytes}
}

func (s *Service) retryAfter() int { return int(s.cfg.Timeouts.RetryAfter / time.Second) }

func vetoed(v *plugins.Veto) *Failure {
	if len(v.Problems) > 0 {
		problems := make([]problem, 0, len(v.Problems))
		for _, p := range v.Problems {
			problems = append(problems, problem{location: p.Location, name: p.Name, description: p.Description, errno: p.Errno})
		}
		return invalid(problems...)
	}
	if v.Location != "" {
		return invalid(problem{location: v.Location, name: v.Name, noName: v.Name == "", description: v.Message})
	}
	f := &Failure{Status: v.HTTPStatus(), Errno: v.Errno, Title: v.Title, Message: v.Message, viewed: true}
	if f.Errno == 0 {
		f.Errno = map[int]int{400: ErrnoInvalidParameters, 401: ErrnoMissingAuth, 403: ErrnoForbidden, 404: ErrnoInvalidID, 409: ErrnoConstraint,
			412: ErrnoModifiedMeanwhile, 413: ErrnoTooLarge}[f.Status]
	}
	if f.Errno == 0 {
		f.Errno = ErrnoUndefined
	}
	f.Header = headerFields(v.Header)
	return f
}

// maxUnshared bounds the remembered lists in which nothing is shared.
const maxUnshared = 4096

type unsharedKey struct {
	list     fsm.Path
	revision fsm.Revision // of the list: any write to it makes a new key
	who      string       // principals and permissions
}

// unsharedLists remembers lists that were searched for shared objects in vain.
type unsharedLists struct {
	mu   sync.Mutex
	keys map[unsharedKey]struct{}
}

func (u *unsharedLists) has(k unsharedKey) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.keys[k]
	return ok
}

func (u *unsharedLists) add(k unsharedKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.keys == nil || len(u.keys) >= maxUnshared {
		u.keys = make(map[unsharedKey]struct{})
	}
	u.keys[k] = struct{}{}
}

// keyLocks holds one lock per key in use.
type keyLocks struct {
	mu sync.Mutex
	m  map[string]*keyLock
}

type keyLock struct {
	held  chan struct{} // of size 1
	users int
}

// lock waits for the key; the result frees it. The context's error otherwise.
func (l *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	if l.m == nil {
		l.m = map[string]*keyLock{}
	}
	k := l.m[key]
	if k == nil {
		k = &keyLock{held: make(chan struct{}, 1)}
		l.m[key] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		if k.users--; k.users == 0 {
			delete(l.m, key)
		}
		l.mu.Unlock()
	}
	select {
	case k.held <- struct{}{}:
		return func() { <-k.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
