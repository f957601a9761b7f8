package resource

import (
	"net/http"
	"slices"
	"strings"

	"quinto/fsm"
)

// permit is one way in which a request can be allowed: a permission in the ACL
// of an object.
type permit struct {
	at         int // of the link whose ACL counts
	permission string
}

// permits gives the ways in which action on links[last] is allowed, according
// to its kind's row of the table.
func permits(links []link, grants []Grant) (out []permit) {
	for i := range links {
		for _, g := range grants {
			if g.Kind == links[i].kind.Name {
				out = append(out, permit{i, g.Permission})
			}
		}
	}
	return out
}

// bySettings reports whether a setting <kind>_<permission>_principals allows it
// (Kinto 5.3, RouteFactory.check_permission): permissions that begin with the
// kind's name give the name of the setting themselves.
func (c *call) bySettings(permission string) bool {
	kind := c.route.kind.Name
	name := kind + "_" + permission
	if strings.HasPrefix(permission, kind) {
		name = strings.ReplaceAll(permission, ":", "_")
	}
	granted := c.s.cfg.Principals[name]
	return slices.ContainsFunc(granted, func(p string) bool { return c.who.set[p] })
}

// allowed reports whether one of ways holds. Without any (a root list), only a
// setting for the required permission can.
func (c *call) allowed(ways []permit, required string) (bool, error) {
	if len(ways) == 0 {
		return c.bySettings(required), nil
	}
	for _, w := range ways {
		if c.bySettings(w.permission) {
			return true, nil
		}
	}
	for _, w := range ways {
		o, err := c.at(w.at)
		if err != nil {
			return false, err
		}
		if o.Exists() && o.ACL.Grants(c.who.set, w.permission) {
			return true, nil
		}
	}
	return false, nil
}

// onList gives the ways in which permission ("read", "write" or "<kind>:create")
// on the addressed list is allowed: it is a permission on the parent.
func (c *call) onList(permission string) []permit {
	parents := c.route.parents()
	if len(parents) == 0 {
		return nil
	}
	return permits(parents, parents[len(parents)-1].kind.Grants[permission])
}

// authorize applies Kinto's rules 5.2. On success of a list request that is only
// allowed for what is shared with the user, c.shared tells what that is.
func (c *call) authorize() error {
	rt := &c.route
	var ok bool
	var err error
	switch {
	case !rt.object && c.r.Method != http.MethodPost:
		return c.authorizeList()
	case c.r.Method == http.MethodPost && c.current.Exists(), rt.object && c.r.safe():
		ok, err = c.mayRead()
	case c.r.Method == http.MethodPost, c.r.Method == http.MethodPut && (!c.current.Exists() || c.r.Header["if-none-match"] == "*"):
		ok, err = c.allowed(c.onList(rt.kind.Name+":create"), "create")
	case !c.current.Exists():
		// PATCH and DELETE: 404 for whoever may read the list, in the view.
		ok, err = c.allowed(c.onList("read"), "write")
	default:
		ok, err = c.allowed(permits(c.links, rt.kind.Grants["write"]), "write")
	}
	return c.denied(ok, err)
}

// mayRead reports whether the addressed object can be read; for POST, the
// object that data.id names.
func (c *call) mayRead() (bool, error) {
	return c.allowed(permits(c.links, c.route.kind.readGrants()), "read")
}

func (c *call) denied(ok bool, err error) error {
	if err != nil || ok {
		return err
	}
	return errDenied(c.who, c.s.challenges)
}

func (c *call) authorizeList() error {
	kind, required := c.route.kind, "read"
	grants := kind.readGrants()
	if c.r.Method == http.MethodDelete {
		required, grants = "write", kind.Grants["write"]
	}
	ways := c.onList(required)
	ok, err := c.allowed(ways, required)
	if err != nil || ok {
		return err
	}
	c.shared = &sharing{permissions: kind.own(grants), who: c.who}
	any, err := c.anyShared()
	if err != nil || any {
		return err
	}
	// Whoever may create here gets an empty list.
	c.shared.nothing = true
	create := kind.Name + ":create"
	if len(ways) == 0 {
		return c.denied(c.bySettings("create"), nil)
	}
	ok, err = c.allowed([]permit{{len(c.route.parents()) - 1, create}}, create)
	return c.denied(ok, err)
}

// sharing narrows a list to the objects whose own ACL lets the user in.
type sharing struct {
	permissions []string
	who         *identity
	nothing     bool
}

// with reports whether o is shared; a nil sharing lets everything through.
func (s *sharing) with(o *fsm.Object) bool {
	if s == nil {
		return true
	}
	return !s.nothing && o.ACL.Grants(s.who.set, s.permissions...)
}

// anyShared looks for the first object of the list that is shared with the
// user. It remembers lists without any by their revision, since that costs a
// scan of the whole list.
func (c *call) anyShared() (bool, error) {
	if c.scoped() && c.route.kind.ValidID(c.scope.ID) { // mostly it is this one
		o, err := c.state.Get(c.route.list.Child(c.scope.ID))
		if err != nil || o.Exists() && c.shared.with(&o) {
			return err == nil, err
		}
	}
	info, err := c.state.List(c.route.list)
	if err != nil {
		return false, err
	}
	key := unsharedKey{c.route.list, info.Revision, strings.Join(c.who.principals, "\x00") + "\x00\x00" + strings.Join(c.shared.permissions, "\x00")}
	if len(c.ops) == 0 && c.s.unshared.has(key) {
		return false, nil
	}
	found := false
	err = c.state.Scan(c.route.list, fsm.ScanOptions{Borrow: true}, func(o *fsm.Object) bool {
		found = c.shared.with(o)
		return !found
	})
	if err == nil && !found && len(c.ops) == 0 {
		c.s.unshared.add(key)
	}
	return found, err
}

// inherited gives the principals that may read the object through its parents,
// for events: sorted, unique.
func (c *call) inherited() ([]string, error) {
	var out []string
	for _, w := range permits(c.links[:len(c.links)-1], c.route.kind.Grants["read"]) {
		o, err := c.at(w.at)
		if err != nil {
			return nil, err
		}
		if !o.Exists() {
			continue
		}
		o.ACL.Each(func(permission, principal []byte) bool {
			if string(permission) == w.permission {
				out = append(out, string(principal))
			}
			return true
		})
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// newACL is the ACL after a write: what was given laid over the old one as PUT
// or PATCH does, and the writer added to write (Kinto 4.3, 4.4, 5.2).
func (c *call) newACL(old fsm.ACL, given map[string][]string) fsm.ACL {
	acl := old.Map()
	if len(given) > 0 && c.r.Method != http.MethodPatch {
		clear(acl)
	}
	for permission, principals := range given {
		acl[permission] = principals
	}
	if c.s.cfg.ExplicitPermissions {
		acl["write"] = append(slices.Clip(acl["write"]), c.writer())
	}
	return fsm.NewACL(acl)
}

// appendPermissions appends an ACL as the permissions of an answer: {} unless
// the user is in the object's own write.
func (c *call) appendPermissions(b []byte, acl fsm.ACL) []byte {
	if acl.Grants(c.who.set, "write") || c.scope.Principal != "" && acl.Grants(map[string]bool{c.scope.Principal: true}, "write") {
		return acl.AppendJSON(b)
	}
	return append(b, "{}"...)
}
