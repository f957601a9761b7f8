package resource

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"quinto/internal/config"
	"quinto/plugins"
)

// exposure names a list of headers that a browser may show to a script
// (Access-Control-Expose-Headers). It is stored with the answers of a batch, so
// its numbers are for ever.
type exposure uint8

const (
	exposeNothing  exposure = iota // of a method that the endpoint has not, and of preflights
	exposeBase                     // of writes and of endpoints without a resource
	exposeObject                   // of GET and HEAD of an object
	exposeList                     // of GET of a list
	exposeTotals                   // of HEAD of a list
	exposeUnrouted                 // of a URL that leads nowhere
	exposures
	// noCORS answers have no header of CORS at all; it is not stored.
	noCORS = exposures
)

// What Kinto exposes (kinto.core.Service, kinto.core.resource.viewset).
var (
	exposedBase   = []string{"Backoff", "Retry-After", "Alert", "Content-Length", "Content-Type"}
	exposedObject = append(slices.Clip(exposedBase), "Last-Modified", "ETag", "Cache-Control", "Expires", "Pragma")
	exposedList   = append(slices.Clip(exposedObject), "Next-Page")
	exposedTotals = append(slices.Clip(exposedList), "Total-Objects", "Total-Records")
	exposed       = [exposures][]string{exposeBase: exposedBase, exposeObject: exposedObject, exposeList: exposedList,
		exposeTotals: exposedTotals, exposeUnrouted: exposedBase}
)

// joined are the exposed headers as they are sent.
func joined(more ...string) (texts [exposures]string) {
	for i, names := range exposed {
		if names != nil {
			texts[i] = strings.Join(append(slices.Clip(names), more...), ", ")
		}
	}
	return texts
}

// plainExposed is what the parts of a batch say; they have no revision.
var plainExposed = joined()

const (
	exposeHeader      = "Access-Control-Expose-Headers"
	allowOriginHeader = "Access-Control-Allow-Origin"
	askMethodHeader   = "Access-Control-Request-Method"
)

// CORS decides which sites a browser may show answers to, as Kinto does: by
// cors_origins and cors_max_age_seconds. It is safe for concurrent use.
type CORS struct {
	origins  []string
	patterns []*regexp.Regexp
	any      bool // "*" is one of them
	maxAge   string
	exposed  [exposures]string
}

// NewCORS returns the CORS of a configuration that config.Load has checked; a
// pattern that is none is left out.
func NewCORS(cfg *config.Config) *CORS {
	c := &CORS{origins: cfg.CORS.Origins, any: slices.Contains(cfg.CORS.Origins, "*"), exposed: joined()}
	for _, pattern := range cfg.CORS.Origins {
		if re, err := config.OriginPattern(pattern); err == nil {
			c.patterns = append(c.patterns, re)
		}
	}
	if cfg.CORS.MaxAge > 0 {
		c.maxAge = strconv.Itoa(int(cfg.CORS.MaxAge / time.Second))
	}
	if cfg.ExposeRevision {
		c.exposed = joined(revisionHeader)
	}
	return c
}

// enabled reports whether any origin is allowed; without, there are neither
// preflights nor headers.
func (c *CORS) enabled() bool { return len(c.patterns) > 0 }

// allowed is the Access-Control-Allow-Origin for an origin, "" if it is not
// allowed. Where no endpoint is, Kinto knows no patterns.
func (c *CORS) allowed(origin string, e exposure) string {
	switch {
	case origin == "" || !c.enabled():
		return ""
	case c.any:
		return "*"
	case e == exposeUnrouted && slices.Contains(c.origins, origin),
		e != exposeUnrouted && slices.ContainsFunc(c.patterns, func(p *regexp.Regexp) bool { return p.MatchString(origin) }):
		return origin
	}
	return ""
}

// append adds the headers of an answer to fields.
func (c *CORS) append(fields []HeaderField, e exposure, origin string) []HeaderField {
	if !c.enabled() || e == noCORS {
		return fields
	}
	if text := c.exposed[e]; text != "" {
		fields = append(fields, HeaderField{exposeHeader, text})
	}
	if allow := c.allowed(origin, e); allow != "" {
		fields = append(fields, HeaderField{allowOriginHeader, allow})
	}
	return fields
}

// Unrouted are the headers of an answer that no endpoint gave: of unknown URLs,
// redirects, and requests that were refused before their URL was looked at.
func (c *CORS) Unrouted(origin string) []HeaderField {
	return c.append(nil, exposeUnrouted, origin)
}

// Endpoint answers a request to an endpoint that is not of the table of kinds:
// preflights, methods that it has not, and origins that are not allowed here,
// all else by answer. It adds the headers of CORS to what answer returns.
func (c *CORS) Endpoint(r *Request, methods []string, answer func() *Response) *Response {
	has := slices.Contains(methods, r.Method)
	e := exposeNothing
	if has {
		e = exposeBase
	}
	var resp *Response
	switch bad := c.refuse(r); {
	case r.Method == http.MethodOptions && c.enabled():
		resp = c.preflight(r, methods, exposedBase)
	case !has:
		resp = errMethod(c.allow(methods)).response()
	case bad != nil:
		resp = validation(*bad).response()
	default:
		resp = answer()
	}
	return &Response{Status: resp.Status, Body: resp.Body, Header: c.append(slices.Clip(resp.Header), e, r.Header["origin"])}
}

// allow is the Allow header of an endpoint.
func (c *CORS) allow(methods []string) string {
	if c.enabled() {
		methods = append(slices.Clip(methods), http.MethodOptions)
	}
	return strings.Join(methods, ", ")
}

// refuse is what is wrong with the origin of a request, or nil.
func (c *CORS) refuse(r *Request) *problem {
	origin := r.Header["origin"]
	if origin == "" || !c.enabled() || c.allowed(origin, exposeNothing) != "" {
		return nil
	}
	return &problem{location: "header", name: "Origin", description: origin + " not allowed"}
}

// preflight answers OPTIONS of an endpoint with these methods, one of which
// exposes the headers in names.
func (c *CORS) preflight(r *Request, methods, names []string) *Response {
	if bad := c.refuse(r); bad != nil {
		return validation(*bad).response()
	}
	methods = append(slices.Clip(methods), http.MethodOptions)
	var problems []problem
	for _, name := range []string{"Origin", askMethodHeader} {
		if r.Header[strings.ToLower(name)] == "" {
			problems = append(problems, problem{location: "header", name: name, description: "this header is mandatory"})
		}
	}
	if problems == nil && !slices.Contains(methods, r.Header["access-control-request-method"]) {
		problems = append(problems, problem{location: "header", name: askMethodHeader, description: "Method not allowed"})
	}
	if problems != nil {
		return validation(problems...).response()
	}
	headers := slices.Clone(names)
	if list := r.Header["access-control-request-headers"]; list != "" {
		for asked := range strings.SplitSeq(list, ",") {
			if asked = strings.TrimSpace(asked); !slices.Contains(headers, asked) {
				headers = append(headers, asked)
			}
		}
	}
	fields := []HeaderField{contentTypeField, {"Access-Control-Allow-Headers", strings.Join(headers, ",")},
		{"Access-Control-Allow-Methods", strings.Join(methods, ",")}}
	if c.maxAge != "" {
		fields = append(fields, HeaderField{"Access-Control-Max-Age", c.maxAge})
	}
	return &Response{Status: http.StatusOK, Header: fields, Body: []byte("null")}
}

// exposure is that of the answer to r with this status.
func (s *Service) exposure(r *Request, status int) exposure {
	switch r.Path {
	case "/":
		return baseFor(r.safe())
	case batchPath:
		return baseFor(r.Method == http.MethodPost)
	}
	if at := s.endpoints.at(r.Path); at != nil {
		if route := at.find(r.Method); route != nil && route.Listing {
			return exposeList
		}
		return baseFor(at.find(r.Method) != nil)
	}
	rt, ok := s.table.route(r.Path)
	if s.alias(r.Path) != nil {
		// What Kinto refuses before it knows what is meant, no endpoint answers.
		switch {
		case status == http.StatusUnauthorized:
			return noCORS
		case status == http.StatusForbidden, status == http.StatusMethodNotAllowed, status == http.StatusBadRequest && !rt.validCollection():
			return exposeUnrouted
		}
	}
	switch {
	case !ok:
		return exposeUnrouted
	case !rt.allows(r.Method):
		return exposeNothing
	case rt.object && r.safe():
		return exposeObject
	case r.Method == http.MethodGet, r.Method == http.MethodHead && rt.offers.plainHead:
		return exposeList
	case r.Method == http.MethodHead:
		return exposeTotals
	}
	return exposeBase
}

// validCollection reports whether the collection of a path, if there is one, can exist.
func (rt *route) validCollection() bool {
	return len(rt.links) < 2 || rt.links[1].kind.Name != "collection" || rt.links[1].kind.ValidID(rt.links[1].id)
}

func baseFor(has bool) exposure {
	if has {
		return exposeBase
	}
	return exposeNothing
}

// preflight answers OPTIONS of hello, batch and the table of kinds.
func (s *Service) preflight(r *Request) *Response {
	switch r.Path {
	case "/":
		return s.cors.preflight(r, helloMethods, exposedBase)
	case batchPath:
		return s.cors.preflight(r, batchMethods, exposedBase)
	}
	if at := s.endpoints.at(r.Path); at != nil {
		if slices.ContainsFunc(at.routes, func(route plugins.Route) bool { return route.Listing }) {
			return s.cors.preflight(r, at.methods(), exposedList)
		}
		return s.cors.preflight(r, at.methods(), exposedBase)
	}
	rt, ok := s.table.route(r.Path)
	if !ok {
		return errNoRoute().response()
	}
	methods, names := rt.methods(), exposedBase
	switch reads := slices.Contains(methods, http.MethodGet); {
	case rt.object && reads:
		names = exposedObject
	case reads && rt.offers.plainHead:
		names = exposedList
	case reads, slices.Contains(methods, http.MethodHead):
		names = exposedTotals
	}
	return s.cors.preflight(r, methods, names)
}

// share gives an entry of a batch what its headers need. Kinto leaves CORS out of
// a 401 of the permissions, and an endpoint outside the table has its own.
func (s *Service) share(e *entry, r *Request) {
	if !s.cors.enabled() || e.out.ownCORS || e.out.status == http.StatusUnauthorized && !e.out.viewed {
		return
	}
	e.exposed = s.exposure(r, e.out.status)
	e.origin = s.cors.allowed(r.Header["origin"], e.exposed)
}
