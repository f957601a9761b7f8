package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// The grant rows tell which objects name a principal in their own permissions,
// without a look at every object (docs/adr/0009-grants-by-list.md). They lie by
// list first, so that a tree vanishes by range; whoever looks for a principal
// jumps from list to list.

// grantKey is the row of one object and one principal. The revision that gave the
// permissions stands before the id, so that what one user creates in a list comes
// in the order of keys; an object that was changed since keeps it in its row.
func grantKey(p Path, principal string, r Revision) []byte {
	return append(binary.BigEndian.AppendUint64(grantPrefix(p.List(), principal), uint64(r)), p.ID()...)
}

func grantPrefix(list Path, principal string) []byte {
	return append(append(listPrefix(spaceGrant, list), principal...), 0)
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

// grants brings the rows of an object from old to now, which is not placed yet:
// it notes under which revision they lie.
func (a *applier) grants(p Path, old, now *Object) error {
	was, is := old.granted(), now.granted()
	at := old.Revision
	if old.grantsAt != 0 {
		at = old.grantsAt
	}
	if bytes.Equal(was, is) {
		if len(is) > 0 {
			now.grantsAt = at
		}
		return nil
	}
	var errs []error
	for _, g := range was.grantees() {
		errs = append(errs, a.writes.delete(grantKey(p, g.principal, at)))
	}
	for _, g := range is.grantees() {
		errs = append(errs, a.set(grantKey(p, g.principal, now.Revision), []byte(g.permissions)))
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
			prefix := grantPrefix(Path(list), principal)
			for ok = it.SeekGE(prefix); ok && bytes.HasPrefix(it.Key(), prefix); ok = it.Next() {
				id := it.Key()[min(len(prefix)+8, len(it.Key())):]
				if !f(Path(list).Child(string(id)), strings.Split(string(it.Value()), "\x00")) {
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
