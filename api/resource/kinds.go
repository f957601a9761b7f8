package resource

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/internal/config"
	"quinto/plugins"
)

// Grant is one way to be allowed an action.
type Grant = plugins.Grant

// Kind is one row of the table of resources. Routes, permissions, batch and
// events derive from it (Kinto's PERMISSIONS_INHERITANCE_TREE and viewsets).
type Kind struct {
	// Name in the singular, as errors and events say it: "bucket".
	Name string
	// Plural is the segment of URLs: "buckets".
	Plural string
	// Parent is the name of the kind that holds it; "" for a root list.
	Parent string
	// NeedsParent answers 404 when the parent does not exist. Kinto checks that
	// for records only.
	NeedsParent bool
	// Permissions that may be given on an object, in the order errors list them.
	Permissions []string
	// Grants says by what each action on an object is allowed: "read", "write",
	// "read:attributes" (GET of the object; "read" when absent) and
	// "<child>:create".
	Grants map[string][]Grant
	// Children are the plural names of the lists below an object. They get their
	// timestamp when the object is created, so that no read ever writes.
	Children []string
	// NewID makes an id for a POST without one.
	NewID func() string
	// ValidID reports whether an id can name an object of this kind.
	ValidID func(string) bool
	// Check validates and completes the data of a PUT or POST, or the merged
	// data of a PATCH; it returns the data to store and what is wrong, with
	// names relative to the data. nil: anything is fine.
	Check func(data canon.Value) (canon.Value, []Flaw)
	// ListMethods and ObjectMethods are those that exist, in the order of the Allow
	// header; nil: all.
	ListMethods, ObjectMethods []string
	// Fields are those that a query may name; nil: any.
	Fields []string
	// TextFields, PlainHead, Show and Late: see plugins.Kind.
	TextFields []string
	PlainHead  bool
	Show       func(r fsm.Reader, o *fsm.Object, whole bool) ([]byte, error)
	Late       string
	// NeedsData, Scope, Complete and Hidden are those of plugins.Kind.
	NeedsData bool
	Scope     func(r *plugins.ScopeRequest) (plugins.Scope, error)
	Complete  func(ctx context.Context, d *plugins.Draft) ([]byte, error)
	Hidden    []string
	// Doc tells of the data in the API document.
	Doc plugins.KindDoc
	// Members gives the principals that get the object as a principal; nil: the
	// kind has none.
	Members func(data canon.Value) []string
}

// Flaw is one thing that is wrong with an object's data.
type Flaw = plugins.Flaw

// FromPlugin makes a row of the table of a plugin's kind.
func FromPlugin(p *plugins.Kind) *Kind {
	k := &Kind{Name: p.Name, Plural: p.Plural, Parent: p.Parent, NeedsParent: p.NeedsParent, Permissions: p.Permissions, Grants: p.Grants,
		Children: p.Children, NewID: p.NewID, ValidID: p.ValidID, ListMethods: p.ListMethods, ObjectMethods: p.ObjectMethods, Fields: p.Fields,
		TextFields: p.TextFields, PlainHead: p.PlainHead, Show: p.Show, Late: p.Late,
		NeedsData: p.NeedsData, Scope: p.Scope, Complete: p.Complete, Hidden: p.Hidden, Doc: p.Doc}
	if k.Grants == nil {
		k.Grants = map[string][]Grant{"write": on(p.Name, "write"), "read": on(p.Name, "write", "read")}
	}
	if k.NewID == nil {
		k.NewID = NewName
	}
	if k.ValidID == nil {
		k.ValidID = ValidName
	}
	if p.Check != nil {
		k.Check = func(data canon.Value) (canon.Value, []Flaw) {
			checked, flaws := p.Check(data)
			return checked, flaws
		}
	}
	return k
}

// idAlphabet is what generated ids are made of; the first 62 may come first.
const idAlphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// NewName makes an id as Kinto's NameGenerator: 8 characters, the first one
// alphanumeric.
func NewName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[0] = idAlphabet[int(b[0])%62]
	for i := 1; i < len(b); i++ {
		b[i] = idAlphabet[b[i]&63]
	}
	return string(b[:])
}

// NewUUID makes a random UUID, the id of a record (Kinto's RelaxedUUID).
func NewUUID() string { return uuid.NewString() }

// randomUUID reports whether a made id is a version 4 UUID: 122 random bits.
func randomUUID(id string) bool { return len(id) == 36 && id[8] == '-' && id[14] == '4' }

// MaxIDBytes bounds an id, so that the deepest path fits fsm.MaxPathBytes.
const MaxIDBytes = 512

// ValidName reports whether id matches Kinto's ^[a-zA-Z0-9][a-zA-Z0-9_-]*$.
func ValidName(id string) bool {
	if id == "" || len(id) > MaxIDBytes {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '-') {
			return false
		}
	}
	return true
}

func on(kind string, permissions ...string) (out []Grant) {
	for _, p := range permissions {
		out = append(out, Grant{Kind: kind, Permission: p})
	}
	return out
}

// uuidForm is that of UUID4 (kinto.core.storage.generators).
const uuidForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"

// ValidUUID reports whether id has the form of a UUID in lower case.
func ValidUUID(id string) bool {
	if len(id) != len(uuidForm) {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if digit := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'; digit != (uuidForm[i] == 'x') || !digit && c != '-' {
			return false
		}
	}
	return true
}

// Kinds returns the kinds of Kinto's core, each call a fresh table.
func Kinds() []*Kind {
	join := func(parts ...[]Grant) (out []Grant) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	write := on("bucket", "write")
	read := on("bucket", "write", "read")
	return []*Kind{{
		Name: "bucket", Plural: "buckets", Permissions: []string{"read", "write", "collection:create", "group:create"},
		Grants: map[string][]Grant{
			"write":             write,
			"read":              read,
			"read:attributes":   on("bucket", "write", "read", "collection:create", "group:create"),
			"group:create":      on("bucket", "write", "group:create"),
			"collection:create": on("bucket", "write", "collection:create"),
		},
		Children: []string{"collections", "groups"}, NewID: NewName, ValidID: ValidName, Check: checkBucket, Doc: plugins.KindDoc{Properties: bucketProperties},
	}, {
		Name: "group", Plural: "groups", Parent: "bucket", Permissions: []string{"read", "write"},
		Grants: map[string][]Grant{
			"write": join(write, on("group", "write")),
			"read":  join(read, on("group", "write", "read")),
		},
		NewID: NewName, ValidID: ValidName, Check: checkGroup, Members: groupMembers, Doc: plugins.KindDoc{Properties: groupProperties},
	}, {
		Name: "collection", Plural: "collections", Parent: "bucket", Permissions: []string{"read", "write", "record:create"},
		Grants: map[string][]Grant{
			"write":           join(write, on("collection", "write")),
			"read":            join(read, on("collection", "write", "read")),
			"read:attributes": join(read, on("collection", "write", "read", "record:create")),
			"record:create":   join(write, on("collection", "write", "record:create")),
		},
		Children: []string{"records"}, NewID: NewName, ValidID: ValidName, Check: checkCollection, Doc: plugins.KindDoc{Properties: collectionProperties},
	}, {
		Name: "record", Plural: "records", Parent: "collection", NeedsParent: true, Permissions: []string{"read", "write"},
		Grants: map[string][]Grant{
			"write": join(write, on("collection", "write"), on("record", "write")),
			"read":  join(read, on("collection", "write", "read"), on("record", "write", "read")),
		},
		NewID: NewUUID, ValidID: ValidName,
	}}
}

// readGrants is what allows GET of an object.
func (k *Kind) readGrants() []Grant {
	if g, ok := k.Grants["read:attributes"]; ok {
		return g
	}
	return k.Grants["read"]
}

// own returns the permissions of grants that lie on the kind itself.
func (k *Kind) own(grants []Grant) (out []string) {
	for _, g := range grants {
		if g.Kind == k.Name {
			out = append(out, g.Permission)
		}
	}
	return out
}

// table finds kinds by where they stand in a path.
type table struct {
	kinds   []*Kind // in their order
	byPlace map[place]*Kind
	offered map[offer]methods
}

// offer is one of the two endpoints of a kind.
type offer struct {
	kind   *Kind
	object bool
}

// methods are those of an endpoint, in Kinto's order.
type methods struct {
	names []string
	// plainHead: HEAD of the list is only GET without its body (Kind.PlainHead, or
	// HEAD as such is turned off).
	plainHead bool
}

type place struct{ parent, plural string }

// CheckKinds returns an error about the first row that cannot be.
func CheckKinds(kinds []*Kind) error {
	_, err := newTable(kinds, &config.Config{})
	return err
}

// generators are Kinto's, by the class that a setting names.
var generators = map[string]struct {
	newID   func() string
	validID func(string) bool
}{
	config.NameGenerator: {NewName, ValidName},
	config.RelaxedUUID:   {NewUUID, ValidName},
	config.UUID4:         {NewUUID, ValidUUID},
}

// newTable makes the table of kinds as cfg has them; it sets what makes their ids.
func newTable(kinds []*Kind, cfg *config.Config) (*table, error) {
	t := &table{kinds: kinds, byPlace: map[place]*Kind{}, offered: map[offer]methods{}}
	names := map[string]bool{"": true}
	for _, k := range kinds {
		if g, ok := generators[cfg.IDGenerators[k.Name]]; ok {
			k.NewID, k.ValidID = g.newID, g.validID
		}
		at := place{k.Parent, k.Plural}
		if k.Name == "" || k.Plural == "" || names[k.Name] || t.byPlace[at] != nil {
			return nil, fmt.Errorf("resource: kind %q at %q is empty or there twice", k.Name, k.Plural)
		}
		if !names[k.Parent] {
			return nil, fmt.Errorf("resource: kind %q comes before its parent %q", k.Name, k.Parent)
		}
		if k.NewID == nil || k.ValidID == nil {
			return nil, fmt.Errorf("resource: kind %q has no rule for ids", k.Name)
		}
		names[k.Name] = true
		t.byPlace[at] = k
		t.offered[offer{k, false}] = offeredMethods(cfg, "plural", k, k.ListMethods, listMethods)
		t.offered[offer{k, true}] = offeredMethods(cfg, "object", k, k.ObjectMethods, objectMethods)
	}
	return t, nil
}

var (
	helloMethods  = []string{"GET", "HEAD"}
	batchMethods  = []string{"POST"}
	listMethods   = []string{"HEAD", "GET", "POST", "DELETE"}
	objectMethods = []string{"GET", "PUT", "PATCH", "DELETE"}
)

// offeredMethods leaves out what settings turn off (Kinto 8.2, 8.5). GET brings
// HEAD along.
func offeredMethods(cfg *config.Config, endpoint string, k *Kind, own, all []string) (m methods) {
	m.plainHead = endpoint == "plural" && k.PlainHead
	if own != nil {
		all = own
	}
	for _, method := range all {
		safe := method == "GET" || method == "HEAD"
		if cfg.ReadOnly && !safe || !cfg.EndpointEnabled(endpoint, k.Name, method) || endpoint == "object" && method == "HEAD" ||
			slices.Contains(m.names, method) {
			continue
		}
		m.names = append(m.names, method)
		if method == "GET" && !slices.Contains(m.names, "HEAD") {
			m.names = append(m.names, "HEAD")
			m.plainHead = endpoint == "plural"
		}
	}
	return m
}

// link is one object on the way from a root list to what a request addresses.
type link struct {
	kind *Kind
	id   string
	path fsm.Path
}

// route is what a path addresses: a list, or an object in it.
type route struct {
	kind   *Kind
	links  []link // ancestors; for an object, it is the last
	list   fsm.Path
	object bool
	offers methods
}

// maxSegments bounds the depth of a path: records lie at 6.
const maxSegments = 16

// route finds what path addresses; ok is false when no kind answers there.
func (t *table) route(path string) (rt route, ok bool) {
	if len(path) < 2 || path[0] != '/' || strings.Count(path, "/") > maxSegments {
		return rt, false
	}
	parent, rest, at := "", path[1:], 0
	for {
		plural, tail, more := strings.Cut(rest, "/")
		at += 1 + len(plural)
		rt.kind = t.byPlace[place{parent, plural}]
		if rt.kind == nil {
			return rt, false
		}
		rt.list = fsm.Path(path[:at])
		if !more {
			rt.offers = t.offered[offer{rt.kind, false}]
			return rt, exists(rt.kind.ListMethods)
		}
		id, tail, more := strings.Cut(tail, "/")
		at += 1 + len(id)
		if id == "" {
			return rt, false
		}
		rt.links = append(rt.links, link{rt.kind, id, fsm.Path(path[:at])})
		if !more {
			rt.object = true
			rt.offers = t.offered[offer{rt.kind, true}]
			return rt, exists(rt.kind.ObjectMethods)
		}
		parent, rest = rt.kind.Name, tail
	}
}

// exists reports whether there is an endpoint with a kind's own methods: nil are
// Kinto's, empty none. What settings turn off is there still, and answers 405.
func exists(own []string) bool { return own == nil || len(own) > 0 }

// parents are the links above what is addressed.
func (rt *route) parents() []link {
	if rt.object {
		return rt.links[:len(rt.links)-1]
	}
	return rt.links
}

// methods are those that the route has.
func (rt *route) methods() []string { return rt.offers.names }

func (rt *route) allows(method string) bool { return slices.Contains(rt.offers.names, method) }
