package jsonschema

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"quinto/internal/canon"
)

// registry finds schemas by what they are called. It never asks anybody: what is
// not in the schema itself, or is no meta-schema, does not resolve.
type registry struct {
	below     *registry // the meta-schemas
	resources map[string]*node
	anchors   map[anchorKey]anchor
}

type anchorKey struct{ uri, name string }

type anchor struct {
	schema  *node
	dynamic bool
}

func newRegistry(below *registry) *registry {
	return &registry{below: below, resources: map[string]*node{}, anchors: map[anchorKey]anchor{}}
}

// add takes in a document and every schema in it that names itself.
func (g *registry) add(root *node, d *draft) (uri string) {
	d = draftOf(root, d)
	uri = strings.TrimRight(d.name(root), "#")
	g.resources[uri] = root
	type todo struct {
		uri    string
		schema *node
		draft  *draft
	}
	queue := []todo{{uri, root, d}}
	for len(queue) > 0 {
		t := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if name := strings.TrimRight(t.draft.name(t.schema), "#"); name != "" {
			t.uri = join(t.uri, name)
			g.resources[t.uri] = t.schema
		}
		g.addAnchors(t.uri, t.schema, t.draft)
		t.draft.schemasIn(t.schema, func(s *node) {
			if s.is(canon.Object) {
				queue = append(queue, todo{t.uri, s, draftOf(s, t.draft)})
			}
		})
	}
	return uri
}

func (g *registry) addAnchors(uri string, schema *node, d *draft) {
	if d.legacy {
		if id := schema.get(d.id); id != nil && strings.HasPrefix(id.text, "#") {
			g.anchors[anchorKey{uri, id.text[1:]}] = anchor{schema, false}
		}
		return
	}
	if a := schema.get("$anchor"); a.is(canon.String) {
		g.anchors[anchorKey{uri, a.text}] = anchor{schema, false}
	}
	if a := schema.get("$dynamicAnchor"); a.is(canon.String) && d == draft2020 {
		g.anchors[anchorKey{uri, a.text}] = anchor{schema, true}
	}
}

// name is what a schema calls itself, "" when it does not.
func (d *draft) name(schema *node) string {
	id := schema.get(d.id)
	if !id.is(canon.String) || d.legacy && (schema.get("$ref") != nil || strings.HasPrefix(id.text, "#")) {
		return ""
	}
	return id.text
}

// schemasIn calls f for each schema right inside a schema.
func (d *draft) schemasIn(schema *node, f func(*node)) {
	for _, key := range d.inValue {
		f(schema.get(key))
	}
	array := func(n *node) {
		if n.is(canon.Array) {
			for _, e := range n.elems {
				f(e)
			}
		}
	}
	for _, key := range d.inArray {
		array(schema.get(key))
	}
	object := func(n *node) {
		if n.is(canon.Object) {
			for _, key := range n.keys {
				f(n.members[key])
			}
		}
	}
	for _, key := range d.inObject {
		object(schema.get(key))
	}
	if !d.crazy {
		return
	}
	items := schema.get("items")
	f(items)
	array(items)
	if d.legacy {
		object(schema.get("dependencies"))
	}
}

func (g *registry) resource(uri string) *node {
	for ; g != nil; g = g.below {
		if n := g.resources[uri]; n != nil {
			return n
		}
	}
	return nil
}

// anchor finds an anchor in a resource, which may be known under another name.
func (g *registry) anchor(uri, name string, d *draft) (anchor, bool) {
	uris := []string{uri}
	if id := d.name(g.resource(uri)); id != "" {
		uris = append(uris, strings.TrimRight(id, "#"))
	}
	for _, u := range uris {
		for r := g; r != nil; r = r.below {
			if a, ok := r.anchors[anchorKey{u, name}]; ok {
				return a, true
			}
		}
	}
	return anchor{}, false
}

// join resolves ref against base as RFC 3986 says. What is no URI stays as it is.
func join(base, ref string) string {
	b, err := url.Parse(base)
	r, err2 := url.Parse(ref)
	if base == "" || err != nil || err2 != nil || b.Opaque != "" && !strings.HasPrefix(ref, "#") {
		return ref
	}
	return b.ResolveReference(r).String()
}

// place is where a schema stands: what its references are relative to, and the
// resources that led there, newest first.
type place struct {
	base  string
	via   *passage
	draft *draft
}

type passage struct {
	uri  string
	next *passage
}

// to is the place after following a reference into the resource uri.
func (at place) to(uri string) place {
	if at.base != "" && (at.via == nil || uri != at.base) {
		at.via = &passage{at.base, at.via}
	}
	at.base = uri
	return at
}

// into is the place inside schema, which may name itself.
func (at place) into(schema *node) place {
	if schema.get("$schema") != nil {
		at.draft = draftOf(schema, at.draft)
	}
	if id := schema.get(at.draft.id); id != nil {
		if name := at.draft.name(schema); name != "" {
			at.base = join(at.base, strings.TrimRight(name, "#"))
		}
	}
	return at
}

// lookup finds what a $ref refers to, and the place there. The error is an
// *Unresolvable with the text of Python's referencing.
func (g *registry) lookup(ref string, at place) (*node, place, error) {
	full := at.base + ref
	if !strings.HasPrefix(ref, "#") {
		full = join(at.base, ref)
	}
	uri, fragment, _ := strings.Cut(full, "#")
	doc := g.resource(uri)
	if doc == nil {
		return nil, at, &Unresolvable{"Unresolvable: " + ref}
	}
	there := at.to(uri)
	switch {
	case strings.HasPrefix(fragment, "/"):
		return g.pointer(doc, fragment, there)
	case fragment == "":
		there.draft = draftOf(doc, there.draft)
		return doc, there, nil
	}
	a, ok := g.anchor(uri, fragment, at.draft)
	if !ok && strings.Contains(fragment, "/") {
		return nil, at, &Unresolvable{fmt.Sprintf("InvalidAnchor: '#%s' is not a valid anchor, neither as a plain name anchor nor as a JSON Pointer. "+
			"You may have intended to use '#/%[1]s', as the slash is required *before each segment* of a JSON pointer.", fragment)}
	}
	if !ok {
		return nil, at, &Unresolvable{"NoSuchAnchor: " + repr(fragment) + " does not exist within " + doc.repr()}
	}
	if !a.dynamic {
		return a.schema, there, nil
	}
	// The outermost resource on the way here that has the dynamic anchor wins.
	found := a.schema
	for p := there.via; p != nil; p = p.next {
		if other, ok := g.anchor(p.uri, fragment, at.draft); ok && other.dynamic {
			found = other.schema
		}
	}
	return found, there.into(found), nil
}

// recursive is $recursiveRef of 2019-09.
func (g *registry) recursive(at place) (*node, place, error) {
	found, there, err := g.lookup("#", at)
	if err != nil || !found.get("$recursiveAnchor").isTrue() {
		return found, there, err
	}
	for p := at.via; p != nil; p = p.next {
		n, next, lost := g.lookup(p.uri, at)
		if lost != nil || !n.get("$recursiveAnchor").isTrue() {
			break
		}
		found, there = n, next
	}
	return found, there, err
}

// pointer follows a JSON pointer.
func (g *registry) pointer(doc *node, fragment string, at place) (*node, place, error) {
	nowhere := func() (*node, place, error) {
		return nil, at, &Unresolvable{"PointerToNowhere: " + repr(fragment) + " does not exist within " + doc.repr()}
	}
	path := fragment[1:]
	if plain, err := url.PathUnescape(path); err == nil {
		path = plain
	}
	n := doc
	for segment := range strings.SplitSeq(path, "/") {
		switch n.kind {
		case canon.Array:
			i, err := strconv.Atoi(segment)
			if err != nil || i < 0 || i >= len(n.elems) {
				return nowhere()
			}
			n = n.elems[i]
		case canon.Object:
			next := n.members[strings.ReplaceAll(strings.ReplaceAll(segment, "~1", "/"), "~0", "~")]
			if next == nil {
				return nowhere()
			}
			n = next
		default:
			return nowhere()
		}
		at = at.into(n)
	}
	return n, at, nil
}
