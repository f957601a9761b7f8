package resource

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"quinto/api/query"
	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// GET /permissions (Kinto 5.4): the objects on which the user, or one of his
// principals, has permissions of its own, and what settings give him.

const permissionsKind = "permissions"

// MaxGranted bounds the objects of an answer of /permissions before it is cut into
// pages: they are gathered in memory, since the order is not that of the store.
const MaxGranted = 100_000

var errGranted = &Failure{Status: 400, Errno: ErrnoInvalidParameters,
	Message: fmt.Sprintf("Permissions on more than %d objects cannot be listed.", MaxGranted)}

// permissionsRow is the list's row in the table of kinds.
func permissionsRow() *Kind {
	return &Kind{Name: permissionsKind, Plural: "permissions", Doc: plugins.KindDoc{Label: "permissionss", Closed: true,
		Properties: permissionsProperties, Required: []string{"uri", "resource_name", "bucket_id"}},
		NewID: NewName, ValidID: ValidName,
		ListMethods: []string{http.MethodHead, http.MethodGet}, ObjectMethods: []string{},
		Fields: []string{"uri", "resource_name", "bucket_id", "collection_id", "group_id", "record_id"}}
}

var permissionsCapability = Capability{Name: "permissions_endpoint", Body: `{"description":"The permissions endpoint can be used to list all user objects permissions.",` +
	`"url":"https://kinto.readthedocs.io/en/latest/configuration/settings.html#activating-the-permissions-endpoint"}`}

// adminPlugin needs /permissions and switches it on.
const adminPlugin = "kinto.plugins.admin"

// listPermissions decides GET and HEAD. The list has no time of its own: its ETag is
// that of the answer, and it is never called unmodified.
func (c *call) listPermissions(problems []problem) (*outline, error) {
	limits := &c.s.cfg.Limits
	q, err := query.Parse(c.r.Query, query.Options{Now: int64(c.now), PaginateBy: limits.PaginateBy, MaxFetch: limits.FetchSize,
		KnownFields: c.route.kind.Fields, Key: "uri"})
	var bad *query.Error
	if errors.As(err, &bad) {
		problems = append(problems, queryProblems(bad)...)
	} else if err != nil {
		return nil, queryFailure(err)
	}
	if err := c.checkReadBody(problems); err != nil {
		return nil, err
	}
	return c.alert(q)(c.readPermissions(q))
}

func (c *call) readPermissions(q *query.Query) (*outline, error) {
	if err := c.precondition(target{exists: true}); err != nil {
		return nil, err
	}
	granted, err := c.granted()
	if err != nil {
		return nil, err
	}
	out := &outline{status: 200, fields: append(appendStamp(make([]HeaderField, 0, 6), c.now), noStore, contentTypeField)}
	page, count := q.NewPage(), 0
	for p, permissions := range granted {
		if e, ok := c.entryOf(p, permissions); ok {
			page.Add(e)
			if q.Match(e) {
				count++
			}
		}
	}
	if c.r.Method == http.MethodHead {
		total := strconv.Itoa(count)
		out.fields = append(out.fields, HeaderField{"Total-Objects", total}, HeaderField{"Total-Records", total})
		out.literal([]byte(`{"data":[]}`))
		return out, nil
	}
	entries, more := page.Objects()
	if more {
		next, err := c.nextPage(q, entries[len(entries)-1], len(entries), c.newNonce())
		if err != nil {
			return nil, err
		}
		out.fields = append(out.fields, next)
	}
	b := []byte(`{"data":[`)
	for i := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		data := entries[i].Data
		if q.Fields != nil {
			data = q.Fields.Project(entries[i])
		}
		if entries[i].ID != "" {
			data = canon.Set(data, "id", canon.AppendString(nil, entries[i].ID))
		}
		b = append(b, data...)
	}
	out.literal(append(b, `]}`...))
	return out, nil
}

// rootPath stands for what is allowed at the root.
const rootPath fsm.Path = "/"

// granted gathers the permissions that the user has on each object.
func (c *call) granted() (map[fsm.Path]map[string]bool, error) {
	all := map[fsm.Path]map[string]bool{}
	add := func(p fsm.Path, permissions []string) bool {
		if all[p] == nil {
			all[p] = make(map[string]bool, len(permissions))
		}
		for _, name := range permissions {
			all[p][name] = true
		}
		return len(all) <= MaxGranted
	}
	err := c.state.Granted(c.who.principals, add)
	if err == nil {
		err = c.grantedBySettings(add)
	}
	if len(all) > MaxGranted {
		return nil, errGranted
	}
	return all, err
}

// grantedBySettings adds what settings allow: at the root, and on every bucket,
// collection and group there is (Kinto's allowed_from_settings).
func (c *call) grantedBySettings(add func(fsm.Path, []string) bool) error {
	by := c.settingsGrants()
	if root := by["root"]; len(root) > 0 {
		add(rootPath, root)
	}
	if by["bucket"] == nil && by["collection"] == nil && by["group"] == nil {
		return nil
	}
	more := true
	each := func(list fsm.Path, f func(fsm.Path) error) (err error) {
		scanned := c.state.Scan(list, fsm.ScanOptions{}, func(o *fsm.Object) bool {
			err = f(o.Path)
			return err == nil && more
		})
		return errors.Join(scanned, err)
	}
	return each("/buckets", func(bucket fsm.Path) error {
		if by["bucket"] != nil {
			more = add(bucket, by["bucket"])
		}
		for _, kind := range []string{"collection", "group"} {
			if by[kind] == nil {
				continue
			}
			err := each(bucket.Child(kind+"s"), func(p fsm.Path) error {
				more = add(p, by[kind])
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// settingsGrants are the permissions that settings give the user, by the kind of
// the objects on which they are; what may be created is a permission on the parent.
func (c *call) settingsGrants() map[string][]string {
	by := map[string][]string{}
	for _, k := range c.s.table.byPlace {
		for _, action := range []string{"create", "read", "write"} {
			given := c.s.cfg.Granted(k.Name, action)
			if !slices.ContainsFunc(given, func(p string) bool { return c.who.set[p] }) {
				continue
			}
			on, name := k.Name, action
			if action == "create" {
				on, name = k.Parent, k.Name+":create"
			}
			if on == "" {
				on = "root"
			}
			by[on] = append(by[on], name)
		}
	}
	return by
}

// entryOf is the entry of an object; ok is false when nothing is served there.
func (c *call) entryOf(p fsm.Path, permissions map[string]bool) (e query.Object, ok bool) {
	if p == rootPath {
		return query.Object{Data: entryData(p, "root", permissions)}, true
	}
	rt, ok := c.s.table.route(string(p))
	if !ok || !rt.object || rt.kind.Permissions == nil {
		return e, false
	}
	all := maps.Clone(permissions)
	for action, grants := range rt.kind.Grants {
		for _, g := range grants {
			all[action] = all[action] || g.Kind == rt.kind.Name && permissions[g.Permission]
		}
	}
	data := entryData(p, rt.kind.Name, all)
	for _, l := range rt.links {
		data = canon.Set(data, l.kind.Name+"_id", canon.AppendString(nil, l.id))
	}
	return query.Object{ID: p.ID(), Data: data}, true
}

func entryData(p fsm.Path, kind string, permissions map[string]bool) canon.Value {
	var names []string
	for name, has := range permissions {
		if has {
			names = append(names, string(canon.AppendString(nil, name)))
		}
	}
	slices.Sort(names)
	b := canon.AppendString([]byte(`{"uri":`), string(p))
	b = canon.AppendString(append(b, `,"resource_name":`...), kind)
	return append(append(append(b, `,"permissions":[`...), strings.Join(names, ",")...), `]}`...)
}
