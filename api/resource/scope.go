package resource

import (
	"context"
	"errors"
	"net/http"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// findScope asks the kind what exists for the request. Its error is a refusal,
// which comes before the permissions of a write and after those of a read.
func (c *call) findScope() error {
	rule := c.route.kind.Scope
	if rule == nil {
		return nil
	}
	who, err := c.identify(c.r)
	if err != nil {
		return err
	}
	c.who = who
	asked := &plugins.ScopeRequest{Method: c.r.Method, UserID: who.user, Principals: who.principals}
	switch {
	case c.route.object:
		asked.Named, asked.ID = true, c.links[len(c.links)-1].id
	case c.r.Method == http.MethodPost:
		c.body.parse(c.r.Body, c.s.jsonLimits())
		data, _ := c.body.value.Get("data")
		var id canon.Value
		id, asked.Named = data.Get("id")
		asked.ID, _ = id.String()
	}
	c.scope, err = rule(asked)
	return err
}

// scoped reports whether a single object of the list exists for the request.
func (c *call) scoped() bool { return c.route.kind.Scope != nil && !c.scope.All }

// inScope reports whether the object with this id of the list exists for the request.
func (c *call) inScope(id string) bool { return !c.scoped() || id == c.scope.ID }

// scopedTime is the time of a list in which one object exists: that object's, also
// when it is gone. Kinto keeps such an object in a list of its own.
func (c *call) scopedTime(list fsm.Timestamp) (fsm.Timestamp, error) {
	if !c.scoped() || c.scope.ID == "" || !c.route.kind.ValidID(c.scope.ID) {
		return list, nil
	}
	o, err := c.state.Get(c.route.list.Child(c.scope.ID))
	if err != nil || o.LastModified == 0 {
		return list, err
	}
	return o.LastModified, nil
}

// writer is the principal that gets the write permission of what is written.
func (c *call) writer() string {
	if c.scope.Principal != "" {
		return c.scope.Principal
	}
	return c.who.current()
}

// complete asks the kind for the data to store.
func (c *call) complete(pl *payload, data canon.Value) (canon.Value, error) {
	rule := c.route.kind.Complete
	if rule == nil {
		return data, nil
	}
	d := &plugins.Draft{Method: c.r.Method, ID: c.links[len(c.links)-1].id, Scope: c.scope, Sent: pl.data, New: data}
	if c.unnamed {
		d.ID = ""
	}
	if !pl.hasData {
		d.Sent = []byte("{}")
	}
	if c.r.Method == http.MethodPatch && mediaType(c.r.Header["content-type"]) == jsonPatchType {
		d.Sent = nil
	}
	if c.current.Exists() {
		d.Old = c.current.Data
	}
	return rule(c.ctx, d)
}

// maxLater bounds how often one request is decided again after slow work: each part
// of a batch may need it for who sends it and for what it writes, and each hook for
// what it is asked.
func (s *Service) maxLater() int {
	return 2*(s.cfg.Limits.BatchRequests+1) + len(s.hooks)*plugins.MaxWorks
}

// later finds the wish for slow work in an error.
func later(err error) *plugins.Later {
	var l *plugins.Later
	if errors.As(err, &l) {
		return l
	}
	return nil
}

// errNeverReady is returned when slow work never comes to an end: a plugin's fault.
var errNeverReady = errors.New("resource: a plugin keeps asking for work before it decides")

// patiently calls decide, which holds nothing when it returns, does the work that it
// asks for, and calls it again.
func (s *Service) patiently(ctx context.Context, decide func(ctx context.Context) (*Response, *plugins.Later)) (*Response, error) {
	ctx = plugins.WithMemo(ctx)
	for range s.maxLater() {
		resp, wish := decide(ctx)
		if wish == nil {
			return resp, nil
		}
		if err := wish.Work(ctx); err != nil {
			return nil, err
		}
	}
	return nil, errNeverReady
}

// secretive finds the kinds with fields that are never shown.
func secretive(kinds []*Kind) bool {
	for _, k := range kinds {
		if len(k.Hidden) > 0 {
			return true
		}
	}
	return false
}

// visible is an object without the fields that its kind hides.
func (s *Service) visible(o fsm.Object) fsm.Object {
	if !s.secretive || o.Data == nil {
		return o
	}
	if rt, ok := s.table.route(string(o.Path)); ok {
		for _, field := range rt.kind.Hidden {
			o.Data = canon.Delete(o.Data, field)
		}
	}
	return o
}

// visibly is a source without what is hidden.
type visibly struct {
	source
	s *Service
}

func (v visibly) op(i int) (fsm.Object, error) {
	o, err := v.source.op(i)
	return v.s.visible(o), err
}

func (v visibly) version(p fsm.Path, r fsm.Revision) (fsm.Object, error) {
	o, err := v.source.version(p, r)
	return v.s.visible(o), err
}

// shown is from, without what is hidden.
func (s *Service) shown(from source) source {
	if !s.secretive || from == nil {
		return from
	}
	return visibly{from, s}
}

// withHidden puts the hidden fields back that a JSON patch did not see.
func (c *call) withHidden(data canon.Value) canon.Value {
	for _, field := range c.route.kind.Hidden {
		if _, set := data.Get(field); set || data.Kind() != canon.Object {
			continue
		}
		if stored, ok := canon.Value(c.current.Data).Get(field); ok {
			data = canon.Set(data, field, stored)
		}
	}
	return data
}
