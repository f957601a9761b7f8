package resource

import (
	"context"

	"quinto/fsm"
	"quinto/plugins"
)

// The principals that are not somebody.
const (
	Everyone      = "system.Everyone"
	Authenticated = "system.Authenticated"
)

// identity is who sends a request.
type identity struct {
	user       string   // prefixed user id; "" when anonymous
	principals []string // in Kinto's order: user, Everyone, Authenticated, groups
	set        map[string]bool
}

// current is the principal that is put into write permissions.
func (w *identity) current() string {
	if w.user == "" {
		return Everyone
	}
	return w.user
}

var anonymous = &identity{principals: []string{Everyone}, set: map[string]bool{Everyone: true}}

// identify asks the policies one after the other; the first that yields a user
// wins (Kinto 6.1). The groups of the user, and of everybody who is
// authenticated, come from r and so become part of what a plan read.
func identify(ctx context.Context, policies []plugins.Authenticator, authorization string, r fsm.Reader, meter *plugins.Meter) (*identity, error) {
	if authorization == "" {
		return anonymous, nil
	}
	for _, p := range policies {
		begun := meter.Now()
		id, ok, err := p.Authenticate(ctx, authorization, r)
		if meter != nil {
			meter.Since(begun, "authentication."+p.Name()+".seconds", plugins.Label{Name: "method", Value: "authenticated_userid"})
		}
		if err != nil {
			return nil, err
		}
		if ok {
			return withGroups(p.Name()+":"+id, r)
		}
	}
	return anonymous, nil
}

func withGroups(user string, r fsm.Reader) (*identity, error) {
	w := &identity{user: user, principals: append(make([]string, 0, 4), user, Everyone, Authenticated)}
	for _, member := range []string{user, Authenticated} {
		groups, err := r.Groups(member)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			w.principals = append(w.principals, string(g))
		}
	}
	w.set = make(map[string]bool, len(w.principals))
	unique := w.principals[:0]
	for _, p := range w.principals {
		if !w.set[p] {
			w.set[p] = true
			unique = append(unique, p)
		}
	}
	w.principals = unique
	return w, nil
}
