// Package history records who wrote what: kinto.plugins.history. Each write of a
// bucket, group, collection or record leaves an entry in /buckets/{id}/history, in
// the same transaction. An entry refers to what was written and does not copy it
// (docs/adr/0006-history-refers-to-versions.md).
package history

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

func init() {
	plugins.Register(plugins.Module{Name: "kinto.plugins.history", New: func() any { return new(History) }, Settings: "history.*"})
}

// History is the plugin. Its settings never change after Provision.
type History struct {
	explicit      bool     // the readers of the moment go on reading an entry
	excluded      []string // URIs
	excludedUsers []string
	trimMax       int64 // entries of a kind, in a bucket; 0: all are kept
	trimThreshold int64
	trimUsers     []string // only theirs are trimmed, each user's apart; empty: all
	capability    plugins.Capability
	tallies       tallies
}

var (
	_ plugins.Provisioner        = (*History)(nil)
	_ plugins.BeforeCommit       = (*History)(nil)
	_ plugins.KindProvider       = (*History)(nil)
	_ plugins.RouteProvider      = (*History)(nil)
	_ plugins.CapabilityProvider = (*History)(nil)
	_ plugins.Measured           = (*History)(nil)
)

// mostEntries bounds the settings about numbers of entries.
const mostEntries = 1 << 31

// Provision reads the settings history.* and explicit_permissions.
func (h *History) Provision(_ context.Context, s plugins.Settings) error {
	h.excluded, h.excludedUsers = s.List("history.exclude_resources"), s.List("history.exclude_user_ids")
	h.trimUsers = s.List("history.auto_trim_user_ids")
	var err error
	if h.explicit, err = s.Flag("explicit_permissions", true); err != nil {
		return err
	}
	if h.trimMax, err = s.Number("history.auto_trim_max_count", -1, -mostEntries, mostEntries); err != nil {
		return err
	}
	h.trimMax = max(h.trimMax, 0)
	if h.trimThreshold, err = s.Number("history.auto_trim_threshold", 100, 0, mostEntries); err != nil {
		return err
	}
	h.capability, err = h.describe()
	return err
}

// describe is the entry in the hello view.
func (h *History) describe() (plugins.Capability, error) {
	b := []byte(`{"description":"Track changes on data.","url":"http://kinto.readthedocs.io/en/latest/api/1.x/history.html"`)
	if h.trimMax > 0 {
		b = fmt.Appendf(b, `,"auto_trim_max_count":%d`, h.trimMax)
	}
	if len(h.trimUsers) > 0 {
		b = appendList(append(b, `,"auto_trim_user_ids":`...), h.trimUsers)
	}
	if len(h.excluded) > 0 {
		b = append(b, `,"excluded_resources":[`...)
		for i, uri := range h.excluded {
			names, ok := idsOf(fsm.Path(uri))
			if !ok {
				return plugins.Capability{}, fmt.Errorf("history.exclude_resources: %q is not the URI of a bucket, group, collection or record", uri)
			}
			if i > 0 {
				b = append(b, ',')
			}
			for j, id := range names {
				b = append(b, "{,"[min(j, 1)])
				b = canon.AppendString(append(canon.AppendString(b, strings.TrimSuffix(id.name, "_id")), ':'), id.id)
			}
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return plugins.Capability{Name: "history", Body: string(append(b, '}'))}, nil
}

// Capabilities implements plugins.CapabilityProvider.
func (h *History) Capabilities() []plugins.Capability { return []plugins.Capability{h.capability} }

// Kinds implements plugins.KindProvider: entries have a list and, as in Kinto since
// version 26, no address of their own.
func (h *History) Kinds() []plugins.Kind {
	on := func(kind string, permissions ...string) (out []plugins.Grant) {
		for _, p := range permissions {
			out = append(out, plugins.Grant{Kind: kind, Permission: p})
		}
		return out
	}
	texts := []string{"bucket_id", "collection_id", "record_id"} // Kinto forgets group_id
	return []plugins.Kind{{
		Name: "history", Plural: plural, Parent: "bucket",
		Grants: map[string][]plugins.Grant{
			"read":  slices.Concat(on("bucket", "write", "read"), on("history", "write", "read")),
			"write": slices.Concat(on("bucket", "write"), on("history", "write")),
		},
		Doc:   plugins.KindDoc{Properties: properties, Required: []string{"user_id", "uri", "action", "date", "resource_name", "target"}, Closed: true},
		NewID: uuid.NewString, ListMethods: []string{"GET", "HEAD", "DELETE"}, ObjectMethods: []string{}, PlainHead: true,
		Fields: append([]string{"user_id", "uri", "action", "date", "resource_name", "group_id", target}, texts...), TextFields: texts,
		Show: show, Late: target,
	}}
}

// Routes implements plugins.RouteProvider.
func (h *History) Routes() []plugins.Route {
	path := func(name, kind string) string {
		return fmt.Sprintf(`{"in":"path","name":%q,"required":true,"type":%q}`, name, kind)
	}
	return []plugins.Route{{Method: "GET", Path: "/buckets/:bucket/snapshot/collections/:at", Name: "history_snapshot", Handle: snapshot,
		Doc: &plugins.Doc{Path: "/buckets/{bucket_id}/snapshot/collections/{collection_id}@{timestamp}",
			Parameters: []string{path("bucket_id", "string"), path("collection_id", "string"), path("timestamp", "integer")},
			Responses: `{"200":{"description":"Returns the records at the given timestamp."},"401":{"description":"The collection is not publicly readable."},` +
				`"403":{"description":"No permission to read this collection."}}`}}}
}

// MetricName implements plugins.Measured, with the name that Kinto's listener has.
func (h *History) MetricName() string { return "plugins.history" }

// properties are those of an entry, for the API document.
const properties = `{"action":{"title":"Action","type":"string"},"bucket_id":{"title":"Bucket Id","type":"string"},` +
	`"collection_id":{"title":"Collection Id","type":"string"},"date":{"title":"Date","type":"string"},"group_id":{"title":"Group Id","type":"string"},` +
	`"record_id":{"title":"Record Id","type":"string"},"resource_name":{"title":"Resource Name","type":"string"},"target":{"title":"Target","type":"object"},` +
	`"uri":{"title":"Uri","type":"string"},"user_id":{"title":"User Id","type":"string"}}`

const (
	plural = "history" // of the list's URI
	target = "target"
)

// named is one id of a path by the name that entries give it: collection_id.
type named struct{ name, id string }

// idsOf takes the path of a bucket, group, collection or record apart.
func idsOf(p fsm.Path) (ids []named, ok bool) {
	if !p.IsObject() {
		return nil, false
	}
	var plurals []string
	plugins.Segments(p, func(plural, id string) bool {
		plurals = append(plurals, plural)
		ids = append(ids, named{strings.TrimSuffix(plural, "s") + "_id", id})
		return true
	})
	switch strings.Join(plurals, "/") {
	case "buckets", "buckets/groups", "buckets/collections", "buckets/collections/records":
		return ids, true
	}
	return nil, false
}

// bucketOf is the bucket that p is or lies in.
func bucketOf(p fsm.Path) fsm.Path {
	for p.Depth() > 2 {
		p = p.Parent()
	}
	return p
}

// BeforeCommit implements plugins.BeforeCommit: it adds the entry of a change.
func (h *History) BeforeCommit(_ context.Context, c *plugins.Change) error {
	if _, recorded := idsOf(c.Path); !recorded {
		return nil
	}
	bucket := bucketOf(c.Path)
	if bucket == c.Path && c.Action == fsm.ActionDelete {
		return nil // its history goes with it
	}
	list := bucket.Child(plural)
	if h.excludes(c) {
		if bucket == c.Path && c.Action == fsm.ActionCreate { // the list has a time all the same
			c.Also(fsm.Op{Type: fsm.OpSetListTimestamp, Path: list, IfAbsent: true})
		}
		return nil
	}
	e := fsm.Op{Type: fsm.OpPutEntry, Path: list.Child(uuid.NewString()), Target: c.Path, Data: newMeta(c)}
	if h.explicit {
		var err error
		if e.ACL, err = readers(c, bucket); err != nil {
			return err
		}
	}
	c.Also(e)
	return h.trim(c, e.Path)
}

// excludes reports whether the settings keep a change out of the history.
func (h *History) excludes(c *plugins.Change) bool {
	if c.UserID != "" && slices.Contains(h.excludedUsers, c.UserID) {
		return true
	}
	if len(h.excluded) == 0 {
		return false
	}
	for p := c.Path; p != ""; p = p.Parent() {
		if slices.Contains(h.excluded, string(p)) {
			return true
		}
	}
	return false
}

// readers are those who may read the entry of a change whatever comes: who could
// read the object, its collection or its bucket when it was written.
func readers(c *plugins.Change, bucket fsm.Path) (fsm.ACL, error) {
	var who []string
	add := func(acl fsm.ACL) {
		acl.Each(func(permission, principal []byte) bool {
			if p := string(permission); p == "read" || p == "write" {
				who = append(who, string(principal))
			}
			return true
		})
	}
	if c.New != nil {
		add(c.New.ACL)
	}
	for p := c.Path; p != bucket; {
		p = p.Parent()
		o, err := c.View.Get(p)
		if err != nil {
			return nil, err
		}
		add(o.ACL)
	}
	return fsm.NewACL(map[string][]string{"read": who}), nil
}
