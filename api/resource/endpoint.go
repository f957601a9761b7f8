package resource

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"quinto/fsm"
	"quinto/plugins"
)

// endpoints are the routes of plugins by their pattern.
type endpoints []*endpoint

// endpoint is one pattern with its methods.
type endpoint struct {
	segments []string // ":name" takes one segment, "*name" at the end the rest
	routes   []plugins.Route
}

func newEndpoints(routes []plugins.Route) (all endpoints, err error) {
	for _, r := range routes {
		if (r.Handle == nil) == (r.Plan == nil) || !strings.HasPrefix(r.Path, "/") {
			return nil, fmt.Errorf("resource: route %s %q needs a path and one of Handle and Plan", r.Method, r.Path)
		}
		segments := strings.Split(r.Path[1:], "/")
		at := slices.IndexFunc(all, func(e *endpoint) bool { return slices.Equal(e.segments, segments) })
		if at < 0 {
			at, all = len(all), append(all, &endpoint{segments: segments})
		}
		if all[at].find(r.Method) != nil {
			return nil, fmt.Errorf("resource: route %s %q is there twice", r.Method, r.Path)
		}
		all[at].routes = append(all[at].routes, r)
	}
	return all, nil
}

// at finds the endpoint of a path; nil: none.
func (all endpoints) at(path string) *endpoint {
	for _, e := range all {
		if _, ok := e.match(path); ok {
			return e
		}
	}
	return nil
}

// plans reports whether a request is for a route that decides on the leader.
func (all endpoints) plans(method, path string) bool {
	e := all.at(path)
	if e == nil {
		return false
	}
	r := e.find(method)
	return r != nil && r.Plan != nil
}

// local reports whether a path is answered from this node's own state.
func (all endpoints) local(path string) bool {
	e := all.at(path)
	return e != nil && e.routes[0].Local
}

// match returns what the pattern's names stand for.
func (e *endpoint) match(path string) (params map[string]string, ok bool) {
	rest, params := strings.TrimPrefix(path, "/"), map[string]string{}
	for i, segment := range e.segments {
		if name, all := strings.CutPrefix(segment, "*"); all {
			params[name] = rest
			return params, true
		}
		part, tail, more := strings.Cut(rest, "/")
		switch name, named := strings.CutPrefix(segment, ":"); {
		case named && part != "":
			params[name] = part
		case segment != part:
			return nil, false
		}
		if more == (i == len(e.segments)-1) {
			return nil, false
		}
		rest = tail
	}
	return params, true
}

// find returns the route of a method; GET's serves HEAD.
func (e *endpoint) find(method string) *plugins.Route {
	for i := range e.routes {
		if m := e.routes[i].Method; m == method || m == http.MethodGet && method == http.MethodHead {
			return &e.routes[i]
		}
	}
	return nil
}

// methods are those that the endpoint has, in the order in which they were given.
func (e *endpoint) methods() (methods []string) {
	for i := range e.routes {
		methods = append(methods, e.routes[i].Method)
		if e.routes[i].Method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	return methods
}

// Serves reports whether a path, below the version prefix, is of a plugin's route.
func (s *Service) Serves(path string) bool { return s.endpoints.at(path) != nil }

// endpoint asks a plugin's route.
func (p *planner) endpoint(r *Request, at *endpoint) (*outline, error) {
	route := at.find(r.Method)
	if route == nil {
		return nil, errMethod(p.s.cors.allow(at.methods()))
	}
	if bad := p.s.cors.refuse(r); bad != nil {
		return nil, validation(*bad)
	}
	who, err := p.identify(r)
	if err != nil {
		return nil, err
	}
	params, _ := at.match(r.Path)
	asked := &plugins.RouteRequest{Method: r.Method, Path: r.Path, Query: r.Query, Base: r.url(""), Params: params, Header: r.Header,
		Body: r.Body, UserID: who.user, Principals: who.principals, View: p.state, Now: p.now, Client: r.Client,
		May: func(permission string, at fsm.Path) (bool, error) { return p.may(who, permission, at) }}
	if route.Plan == nil {
		got := route.Handle(p.ctx, asked)
		return routeOutline(got, r), p.refusal(got.Err, who)
	}
	plan, err := route.Plan(p.ctx, asked)
	if err == nil {
		err = plan.Response.Err
	}
	err = p.refusal(err, who)
	if err != nil {
		return nil, err
	}
	for _, op := range plan.Ops {
		if _, err := p.stage(op); err != nil {
			return nil, err
		}
	}
	out := routeOutline(&plan.Response, r)
	if plan.Unstored != nil {
		out.unstored = routeOutline(plan.Unstored, r)
	}
	return out, nil
}

// may reports whether somebody has a permission on an object, as authorize does.
func (p *planner) may(who *identity, permission string, at fsm.Path) (bool, error) {
	rt, ok := p.s.table.route(string(at))
	if !ok || !rt.object {
		return false, nil
	}
	grants := rt.kind.Grants[permission]
	if permission == "read" {
		grants = rt.kind.readGrants()
	}
	c := &call{planner: p, route: rt, who: who}
	c.setLinks(rt.links)
	return c.allowed(permits(c.links, grants), permission)
}

// refusal makes the answer of a plugin's error.
func (p *planner) refusal(err error, who *identity) error {
	if errors.Is(err, plugins.ErrDenied) {
		return errDenied(who, p.s.challenges)
	}
	return err
}

// routeOutline is a plugin's answer as an outline.
func routeOutline(got *plugins.RouteResponse, r *Request) *outline {
	if got.Redirect != "" {
		contentType, body := RedirectPage(r.Header["accept"], got.Redirect)
		out := &outline{status: http.StatusTemporaryRedirect, fields: append([]HeaderField{{"Content-Type", contentType}, {"Location", got.Redirect}}, headerFields(got.Header)...)}
		out.literal([]byte(body))
		return out
	}
	out := &outline{status: got.Status, raised: got.Status == http.StatusNotModified}
	if !out.raised && !slices.ContainsFunc(slices.Collect(maps.Keys(got.Header)), func(name string) bool { return strings.EqualFold(name, "content-type") }) {
		out.fields = append(out.fields, contentTypeField)
	}
	out.fields = append(out.fields, headerFields(got.Header)...)
	out.literal(got.Body)
	return out
}

// headerFields are the headers that a plugin gave, in the order of their names.
func headerFields(header map[string]string) (fields []HeaderField) {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		fields = append(fields, HeaderField{name, header[name]})
	}
	return fields
}
