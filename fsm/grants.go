package fsm

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// The grant rows tell which objects name a principal in their own permissions,
// without a look at every object (docs/adr/0009-grants-by-list.md). They lie by
// list first, so that a tree vanishes by range; whoever looks for a principal
// jumps from list to list.

// grantKey is the row of one object and one principal.
func grantKey(p Path, principal string) []byte {
	b := append(listPrefix(spaceGrant, p.List()), principal...)
	return append(append(b, 0), p.ID()...)
}

// grantee is a principal with the names of his permissions on one object, joined
// by NULs, as the row's value has them.
type grantee struct{ principal, permissions string }

// grantees are the rows of an object's permissions, by principal.
func (a ACL) grantees() []grantee {
	var all []grantee
	a.Each(func(permission, principal []byte) bool {
		if name := string(principal); validPrincipal(name) {
			all = append(all, grantee{name, string(permission)})
		}
		return true
	})
	slices.SortFunc(all, func(a, b grantee) int {
		if a.principal != b.principal {
			return strings.Compare(a.principal, b.principal)
		}
		return strings.Compare(a.permissions, b.permissions)
	})
	out := all[:0]
	for _, g := range all {
		if n := len(out); n > 0 && out[n-1].principal == g.principal {
			out[n-1].permissions += "\x00" + g.permissions
			continue
		}
		out = append(out, g)
	}
	return out
}

// granted are the permissions of which there are rows; an entry has none.
func (o *Object) granted() ACL {
	if o.Of != nil {
		return nil
	}
	return o.ACL
}

// grants keeps the rows of an object whose permissions change.
func (a *applier) grants(p Path, old, now ACL) error {
	if bytes.Equal(old, now) {
		return nil
	}
	was, is := old.grantees(), now.grantees()
	var errs []error
	for _, g := range was {
		if !slices.ContainsFunc(is, func(n grantee) bool { return n.principal == g.principal }) {
			errs = append(errs, a.writes.delete(grantKey(p, g.principal)))
		}
	}
	for _, g := range is {
		if !slices.Contains(was, g) {
			errs = append(errs, a.set(grantKey(p, g.principal), []byte(g.permissions)))
		}
	}
	return errors.Join(errs...)
}

// Granted implements Reader.
func (v *View) Granted(principals []string, f func(p Path, permissions []string) bool) error {
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceGrant}, UpperBound: []byte{spaceGrant + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; {
		list, _, found := strings.Cut(string(it.Key()[1:]), "\x00")
		if !found {
			return errors.Join(formatError("grant", it.Key()), it.Close())
		}
		for _, principal := range principals {
			prefix := grantKey(Path(list).Child(""), principal)
			for ok = it.SeekGE(prefix); ok && bytes.HasPrefix(it.Key(), prefix); ok = it.Next() {
				if !f(Path(list).Child(string(it.Key()[len(prefix):])), strings.Split(string(it.Value()), "\x00")) {
					return it.Close()
				}
			}
		}
		ok = it.SeekGE(prefixEnd(listPrefix(spaceGrant, Path(list))))
	}
	return it.Close()
}

// Granted implements Reader.
func (o *Overlay) Granted(principals []string, f func(p Path, permissions []string) bool) error {
	more := true
	err := o.base.Granted(principals, func(p Path, permissions []string) bool {
		if _, over := o.objects[p]; !over && !o.dropped(p) {
			more = f(p, permissions)
		}
		return more
	})
	if err != nil || !more {
		return err
	}
	paths := make([]Path, 0, len(o.objects))
	for p, n := range o.objects {
		if n.Of == nil {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	for _, p := range paths {
		n := o.objects[p]
		for _, g := range n.ACL.grantees() {
			if slices.Contains(principals, g.principal) && !f(p, strings.Split(g.permissions, "\x00")) {
				return nil
			}
		}
	}
	return nil
}
