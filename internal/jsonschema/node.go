package jsonschema

import (
	"errors"
	"strconv"
	"strings"

	"quinto/internal/canon"
)

// node is one value of a schema or of an instance, taken apart once: keywords look
// members up by name, and messages show the value as it was written.
type node struct {
	val     canon.Value
	kind    canon.Kind
	text    string           // of a string
	keys    []string         // of an object, in order
	members map[string]*node // of an object
	elems   []*node          // of an array
}

// grow takes v apart; it counts the values in *count and stops when *left is used up.
func grow(v canon.Value, left *int) *node {
	n := &node{val: v, kind: v.Kind()}
	if *left--; *left < 0 {
		return n
	}
	switch n.kind {
	case canon.String:
		n.text, _ = v.String()
	case canon.Array:
		v.Elements(func(e canon.Value) bool {
			n.elems = append(n.elems, grow(e, left))
			return *left >= 0
		})
	case canon.Object:
		n.members = map[string]*node{}
		v.Each(func(key string, e canon.Value) bool {
			if _, twice := n.members[key]; !twice {
				n.keys = append(n.keys, key)
			}
			n.members[key] = grow(e, left)
			return *left >= 0
		})
	}
	return n
}

// errTooMany is what tree returns for a value of more than MaxValues values.
var errTooMany = errors.New("more than " + strconv.Itoa(MaxValues) + " values")

// tree takes a whole document apart and says of how many values it is.
func tree(v canon.Value) (n *node, size int, err error) {
	left := MaxValues
	if n = grow(v, &left); left < 0 {
		return nil, 0, errTooMany
	}
	return n, MaxValues - left, nil
}

func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	return n.members[key]
}

func (n *node) is(kind canon.Kind) bool { return n != nil && n.kind == kind }

// isTrue and isFalse are about the literals, which are schemas too.
func (n *node) isTrue() bool  { return n.is(canon.Bool) && n.val[0] == 't' }
func (n *node) isFalse() bool { return n.is(canon.Bool) && n.val[0] == 'f' }

// repr is Python's repr().
func (n *node) repr() string { return canon.Python(n.val) }

// truthy is Python's bool().
func (n *node) truthy() bool {
	switch {
	case n == nil:
		return false
	case n.kind == canon.Number:
		f, ok := n.val.Float()
		return !ok || f != 0
	case n.kind == canon.Bool:
		return n.val[0] == 't'
	}
	return n.kind != canon.Null && len(n.val) > 2 // "", [], {}
}

// number gives a count such as minItems; 0 for what is none.
func (n *node) number() float64 {
	if n == nil {
		return 0
	}
	f, _ := n.val.Float()
	return f
}

func repr(s string) string { return canon.Python(canon.AppendString(nil, s)) }

// reprs joins the texts of several values with commas.
func reprs(names []string) string {
	out := make([]string, len(names))
	for i, s := range names {
		out[i] = repr(s)
	}
	return strings.Join(out, ", ")
}

// wasWere is the list that a message about unexpected things ends with.
func wasWere(list string, n int) string {
	if n == 1 {
		return list + " was"
	}
	return list + " were"
}
