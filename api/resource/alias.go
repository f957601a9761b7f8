package resource

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// errWrites ends a plan on a state that is only read: the request, though a GET,
// has to make objects.
var errWrites = errors.New("resource: the request has to write")

// alias finds the plugin that gives a path its meaning; nil: it means itself.
func (s *Service) alias(path string) plugins.Alias {
	for _, a := range s.aliases {
		if a.Covers(path) {
			return a
		}
	}
	return nil
}

// resolve says what r means for its user. The 401 comes before anything else.
func (p *planner) resolve(r *Request, a plugins.Alias) (*identity, *plugins.AliasTarget, error) {
	who, err := p.identify(r)
	if err != nil {
		return nil, nil, err
	}
	if who.user == "" {
		return nil, nil, errDenied(who, p.s.challenges)
	}
	target, err := a.Resolve(&plugins.AliasRequest{Method: r.Method, Path: r.Path, UserID: who.user})
	return who, target, err
}

// aliased decides r as what it means, after it has made sure of what has to be
// there. A refusal does not undo that, as it does not in Kinto.
func (p *planner) aliased(r *Request, a plugins.Alias) (*outline, error) {
	who, target, err := p.resolve(r, a)
	if err != nil {
		return nil, err
	}
	if p.s.cfg.ReadOnly {
		return nil, &Failure{Status: 405, Errno: ErrnoMethodNotAllowed, Message: notAllowed}
	}
	meant := p.meant(r, target)
	if f := p.s.static(meant); f != nil { // a path or method that there is not makes nothing
		return nil, f
	}
	if err := p.ensure(r, who, target.Ensure); err != nil {
		return nil, err
	}
	made := len(p.ops)
	out, err := p.answer(meant)
	if err == nil || errors.Is(err, errWrites) || len(p.ops) != made {
		return out, err
	}
	f := p.s.failure(err)
	if f.Status >= 500 {
		return nil, err
	}
	f.validation = true // Kinto makes an answer of what a view has raised
	return f.outline(), nil
}

// meant is the request that r stands for.
func (p *planner) meant(r *Request, target *plugins.AliasTarget) *Request {
	meant := *r
	meant.Path, meant.Body = target.Path, p.renamed(r, target)
	if len(r.Body) == 0 && !r.safe() && r.Method != http.MethodDelete && target.EmptyBody != nil {
		meant.Body = target.EmptyBody
		meant.Header = maps.Clone(r.Header)
		meant.Header["content-type"] = jsonType
	}
	return &meant
}

// ensure makes the objects that are not there. errWrites when this plan cannot.
func (p *planner) ensure(r *Request, who *identity, paths []fsm.Path) error {
	routes := make([]route, 0, len(paths))
	for _, path := range paths {
		rt, ok := p.s.table.route(string(path))
		if !ok || !rt.object {
			return errNoRoute()
		}
		if last := rt.links[len(rt.links)-1]; !rt.kind.ValidID(last.id) {
			return invalid(problem{location: "path", noName: true, description: "Invalid " + rt.kind.Name + " id"})
		}
		routes = append(routes, rt)
	}
	for _, rt := range routes {
		path := rt.links[len(rt.links)-1].path
		c := &call{planner: p, route: rt, who: who, r: &Request{ID: r.ID, Method: http.MethodPut, Path: string(path), Header: r.Header,
			Scheme: r.Scheme, Host: r.Host, Prefix: r.Prefix, Client: r.Client}}
		c.setLinks(rt.links)
		if err := c.loadCurrent(); err != nil {
			return err
		}
		if c.current.Exists() {
			continue
		}
		if p.over == nil {
			return errWrites
		}
		if _, err := c.write(&payload{}, canon.Value("{}")); err != nil {
			return err
		}
		if err := c.stageAlso(); err != nil {
			return err
		}
	}
	return nil
}

// renamed is the body with the id that is meant. One that is no JSON object stays
// as it is, and is refused later.
func (p *planner) renamed(r *Request, target *plugins.AliasTarget) []byte {
	if target.OldID == "" || !bytes.Contains(r.Body, []byte(target.OldID)) {
		return r.Body
	}
	var body parsed
	body.parse(r.Body, p.s.jsonLimits())
	data, _ := body.value.Get("data")
	id, _ := data.Get("id")
	if text, ok := id.String(); !ok || text != target.OldID {
		return r.Body
	}
	return canon.Set(body.value, "data", canon.Set(data, "id", canon.AppendString(nil, target.NewID)))
}

// listOf is the list that r is about, for its user; ok is false when it is about
// none.
func (s *Service) listOf(ctx context.Context, v *fsm.View, r *Request) (list fsm.Path, ok bool, err error) {
	path := r.Path
	if a := s.alias(path); a != nil {
		_, target, err := s.newReader(ctx, v, s.node.Now()).resolve(r, a)
		var refused *Failure
		switch {
		case errors.As(err, &refused):
			return "", false, nil // the plan says so
		case err != nil:
			return "", false, err
		}
		path = target.Path
	}
	rt, ok := s.table.route(path)
	return rt.list, ok, nil
}
