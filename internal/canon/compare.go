package canon

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// Equal reports deep equality as Kinto's PostgreSQL sees it: strict in types, 1 equal to 1.0, objects without regard to order.
func Equal(a, b Value) bool { return Compare(a, b) == 0 }

// Compare orders any two values: null < string < number < boolean < array < object < missing, strings by code point,
// arrays by length and then by element, objects by size and then by sorted members, as PostgreSQL's jsonb does.
// One wart of jsonb is left out: there an empty array sorts before null.
func Compare(a, b Value) int {
	if bytes.Equal(a, b) {
		return 0
	}
	kind := a.Kind()
	if c := cmp.Compare(kind, b.Kind()); c != 0 {
		return c
	}
	switch kind {
	case String:
		return compareStrings(a, b)
	case Number:
		return compareNumbers(a, b)
	case Bool:
		return bytes.Compare(a[:1], b[:1]) // f < t
	case Array:
		return compareArrays(a, b)
	case Object:
		return compareObjects(a, b)
	}
	return 0
}

// compareStrings orders by code point, which is the byte order of UTF-8; escapes have another order, so they are decoded.
func compareStrings(a, b []byte) int {
	if bytes.IndexByte(a, '\\') < 0 && bytes.IndexByte(b, '\\') < 0 {
		return bytes.Compare(a[1:max(1, len(a)-1)], b[1:max(1, len(b)-1)])
	}
	return strings.Compare(unquote(a), unquote(b))
}

func compareArrays(a, b Value) int {
	x, y := elements(a), elements(b)
	if c := cmp.Compare(len(x), len(y)); c != 0 {
		return c
	}
	return slices.CompareFunc(x, y, Compare)
}

func elements(v Value) []Value {
	var all []Value
	v.Elements(func(e Value) bool { all = append(all, e); return true })
	return all
}

func compareObjects(a, b Value) int {
	x, y := sortedMembers(a), sortedMembers(b)
	if c := cmp.Compare(len(x), len(y)); c != 0 {
		return c
	}
	return slices.CompareFunc(x, y, func(m, n sortedMember) int {
		if c := compareKeys(m.key, n.key); c != 0 {
			return c
		}
		return Compare(m.val, n.val)
	})
}

type sortedMember struct {
	key string
	val Value
}

func sortedMembers(v Value) []sortedMember {
	var all []sortedMember
	v.Each(func(key string, val Value) bool {
		all = append(all, sortedMember{key, val})
		return true
	})
	slices.SortFunc(all, func(m, n sortedMember) int { return compareKeys(m.key, n.key) })
	return all
}

// compareKeys is the order in which jsonb keeps the members of an object: shorter keys first.
func compareKeys(a, b string) int {
	if c := cmp.Compare(len(a), len(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// Contains reports whether a contains b as PostgreSQL's jsonb operator @> does below the top level: objects member by member,
// arrays as sets whose containers may contain more, scalars by equality.
func Contains(a, b Value) bool {
	kind := b.Kind()
	if a.Kind() != kind {
		return false
	}
	switch kind {
	case Object:
		all := true
		b.each(func(m rawMember) bool {
			val, ok := a.getRaw(m.key)
			all = ok && Contains(val, m.val)
			return all
		})
		return all
	case Array:
		have := elements(a)
		all := true
		b.Elements(func(want Value) bool {
			all = slices.ContainsFunc(have, func(v Value) bool { return Contains(v, want) })
			return all
		})
		return all
	}
	return Equal(a, b)
}
