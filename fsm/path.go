package fsm

import (
	"errors"
	"strings"
)

// MaxPathBytes bounds a path, in bytes. Kinto sets no limit on ids; the key of
// a store needs one, and 2 KiB is far above what its clients make.
const MaxPathBytes = 2048

// ErrBadPath is returned for a path that does not name an object or a list.
var ErrBadPath = errors.New("fsm: bad path")

// Path names an object or a list by its URI without the version prefix:
// "/buckets/b/collections/c" is an object, "/buckets/b/collections" the list
// that holds it, "/buckets/b" its parent. Segments alternate between the
// plural name of a kind and an id.
type Path string

// Child returns the path of the object id in the list p, or of the list named
// plural under the object p.
func (p Path) Child(segment string) Path { return p + "/" + Path(segment) }

// List returns the list that holds the object p: "/buckets/b" → "/buckets".
func (p Path) List() Path {
	if i := strings.LastIndexByte(string(p), '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

// ID returns the last segment: the id of an object, the plural name of a list.
func (p Path) ID() string { return string(p[strings.LastIndexByte(string(p), '/')+1:]) }

// Parent returns the object that owns the list which holds p, or "" for an
// object of a root list: "/buckets/b/groups/g" → "/buckets/b".
func (p Path) Parent() Path { return p.List().List() }

// Depth returns the number of segments: 2 for "/buckets/b". Objects have an
// even depth, lists an odd one.
func (p Path) Depth() int { return strings.Count(string(p), "/") }

// Under reports whether p lies strictly below root.
func (p Path) Under(root Path) bool {
	return len(p) > len(root) && p[len(root)] == '/' && p[:len(root)] == root
}

// IsObject reports whether p can name an object.
func (p Path) IsObject() bool { return p.check(0) == nil }

// CheckObject returns ErrBadPath unless p can name an object.
func (p Path) CheckObject() error { return p.check(0) }

// CheckList returns ErrBadPath unless p can name a list.
func (p Path) CheckList() error { return p.check(1) }

func (p Path) check(parity int) error {
	if len(p) < 2 || len(p) > MaxPathBytes || p[0] != '/' || p[len(p)-1] == '/' {
		return ErrBadPath
	}
	if p.Depth()%2 != parity || strings.Contains(string(p), "//") || strings.IndexByte(string(p), 0) >= 0 {
		return ErrBadPath
	}
	return nil
}
