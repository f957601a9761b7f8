package query

import (
	"fmt"
	"slices"
	"strings"

	"quinto/internal/canon"
)

// Fields is a projection: the part of each object that _fields asks for. id and last_modified always belong to it.
type Fields struct {
	names []string
	root  fieldNode
}

// fieldNode is one level of the projection: all of a value, or some of its members.
type fieldNode struct {
	all      bool
	children map[string]*fieldNode
}

// ParseFields reads _fields alone, for the GET of one object, whose other parameters are ignored. It gives nil if the
// parameter is absent or empty, and the errors of Parse.
func ParseFields(rawQuery string, opt Options) (*Fields, error) {
	params, err := parseParams(rawQuery)
	if err != nil {
		return nil, err
	}
	p := &parse{Options: opt, q: &Query{params: params}}
	err = p.fields()
	return p.q.Fields, err
}

func (p *parse) fields() error {
	i := p.index("_fields")
	if i < 0 || p.Delete {
		return nil
	}
	names := p.q.params[i].fieldList()
	if len(names) == 0 {
		return nil
	}
	var unknown []string
	f := &Fields{names: names}
	for _, name := range names {
		if !p.known(name) {
			root, _, _ := strings.Cut(name, ".")
			unknown = append(unknown, root)
		}
		f.root.add(strings.Split(name, "."))
	}
	if unknown != nil {
		slices.Sort(unknown)
		return newError(Detail{Name: "Invalid _fields parameter", Location: "body", // Kinto's words
			Description: fmt.Sprintf("Fields %s do not exist", strings.Join(slices.Compact(unknown), ","))})
	}
	p.q.Fields = f
	return nil
}

func (n *fieldNode) add(path []string) {
	if len(path) == 0 {
		n.all = true
		return
	}
	if n.children == nil {
		n.children = map[string]*fieldNode{}
	}
	child := n.children[path[0]]
	if child == nil {
		child = &fieldNode{}
		n.children[path[0]] = child
	}
	child.add(path[1:])
}

// Names gives the fields as they were asked for.
func (f *Fields) Names() []string { return slices.Clone(f.names) }

// Project gives the part of obj's data that was asked for, as a new canonical object without id and last_modified, which
// canon.Splice adds. A tombstone shows its "deleted" only if asked for, as in Kinto.
func (f *Fields) Project(obj Object) canon.Value {
	data := obj.Data
	if obj.Deleted {
		data = tombstoneData
	}
	return f.root.appendTo(make([]byte, 0, len(data)+2), data)
}

func (n *fieldNode) appendTo(dst []byte, v canon.Value) canon.Value {
	if n.all || v.Kind() != canon.Object {
		// a.b where a is no object: Kinto gives all of a.
		return append(dst, v...)
	}
	dst = append(dst, '{')
	start := len(dst)
	v.Each(func(key string, val canon.Value) bool {
		child := n.children[key]
		if child == nil {
			return true
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(canon.AppendString(dst, key), ':')
		dst = child.appendTo(dst, val)
		return true
	})
	return append(dst, '}')
}
