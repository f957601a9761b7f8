package resource

import (
	"net/http"
	"slices"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// DELETE /__user_data__/{principal} (Kinto 1.18): the objects that only he can write
// go, with all that is under them; from all others, and from groups, he is taken out.

const userDataKind = "user-data"

// MaxUserData bounds the objects that one such request changes. Beyond it the
// answer is 202, and the request is to be sent again until it is 200.
const MaxUserData = 5000

// userDataRow is the endpoint's row in the table of kinds.
func userDataRow() *Kind {
	return &Kind{Name: userDataKind, Plural: "__user_data__", Doc: plugins.KindDoc{Label: "user-datas", Param: "principal"},
		NewID: NewName, ValidID: func(string) bool { return true },
		ListMethods: []string{}, ObjectMethods: []string{http.MethodDelete}}
}

// userData decides the request, as one transaction.
func (p *planner) userData(r *Request, rt route) (*outline, error) {
	c := &call{planner: p, r: r, route: rt}
	if err := c.negotiate(); err != nil {
		return nil, err
	}
	var err error
	if c.who, err = p.identify(r); err != nil {
		return nil, err
	}
	if !c.bySettings("delete") {
		return nil, errDenied(c.who, p.s.challenges)
	}
	if err := c.checkReadBody(c.parseConditions()); err != nil {
		return nil, err
	}
	principal := rt.links[0].id
	paths, groups, err := p.dataOf(principal)
	if err != nil {
		return nil, err
	}
	before := len(p.ops)
	for _, at := range paths {
		if len(p.ops)-before >= MaxUserData {
			break
		}
		if err := p.withdraw(r, c.who, at, principal, groups[at]); err != nil {
			return nil, err
		}
	}
	out := &outline{status: http.StatusOK, fields: []HeaderField{contentTypeField}}
	if len(p.ops)-before >= MaxUserData {
		out.status = http.StatusAccepted
	}
	out.literal(append(canon.AppendString([]byte(`{"data":{"principal":`), principal), `}}`...))
	return out, nil
}

// dataOf gives the objects that name the principal, ancestors first, and which of
// them are groups of which he is a member.
func (p *planner) dataOf(principal string) (paths []fsm.Path, groups map[fsm.Path]bool, err error) {
	groups = map[fsm.Path]bool{}
	in, err := p.state.Groups(principal)
	if err != nil {
		return nil, nil, err
	}
	for _, g := range in {
		groups[g] = true
		paths = append(paths, g)
	}
	err = p.state.Granted([]string{principal}, func(at fsm.Path, _ []string) bool {
		if !groups[at] {
			paths = append(paths, at)
		}
		return true
	})
	slices.Sort(paths)
	return paths, groups, err
}

// withdraw takes the principal out of one object, or the object away with all that
// is under it.
func (p *planner) withdraw(r *Request, who *identity, at fsm.Path, principal string, member bool) error {
	rt, ok := p.s.table.route(string(at))
	if !ok || !rt.object {
		return nil // of a plugin that is not loaded
	}
	o, err := p.state.Get(at)
	if err != nil || !o.Exists() {
		return err // it went with one above it
	}
	c := &call{planner: p, r: r, route: rt, who: who, current: o}
	c.setLinks(rt.links)
	acl := o.ACL.Map()
	op, action := c.removal(at), fsm.ActionDelete
	if writers := acl["write"]; len(writers) != 1 || writers[0] != principal {
		op, action = withoutPrincipal(&o, acl, principal, member), fsm.ActionUpdate
		if rt.kind.Members != nil {
			op.Members = rt.kind.Members(op.Data)
		}
	}
	if op.Inherited, err = c.inherited(); err != nil {
		return err
	}
	if err := c.hooks(action, &o, &op); err != nil {
		return err
	}
	if _, err := c.stage(op); err != nil {
		return err
	}
	return c.stageAlso()
}

// withoutPrincipal is the object without him. Its time stays unless its data
// change: permissions are no part of what clients synchronise.
func withoutPrincipal(o *fsm.Object, acl map[string][]string, principal string, member bool) fsm.Op {
	for name := range acl {
		acl[name] = slices.DeleteFunc(acl[name], func(p string) bool { return p == principal })
	}
	op := fsm.Op{Type: fsm.OpPut, Path: o.Path, Data: o.Data, ACL: fsm.NewACL(acl)}
	if !member {
		op.LastModified, op.HasTime, op.Exact = o.LastModified, true, true
		return op
	}
	members, _ := canon.Value(o.Data).Get("members")
	left := []byte{'['}
	members.Elements(func(e canon.Value) bool {
		if name, ok := e.String(); !ok || name != principal {
			if len(left) > 1 {
				left = append(left, ',')
			}
			left = append(left, e...)
		}
		return true
	})
	op.Data = canon.Set(canon.Value(o.Data), "members", append(left, ']'))
	return op
}
