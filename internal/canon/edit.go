package canon

import (
	"bytes"
	"strconv"
)

// Set gives a new object with the member key set to val: in place if the key exists, else at the end.
// A value that is not an object counts as {}.
func Set(obj Value, key string, val Value) Value {
	return Merge(obj, member1(key, val))
}

// member1 builds the object of one member.
func member1(key string, val Value) Value {
	m := append(make([]byte, 0, len(key)+len(val)+8), '{')
	m = append(AppendString(m, key), ':')
	return append(append(m, val...), '}')
}

// Delete gives a new object without the member key. A value that is not an object counts as {}.
func Delete(obj Value, key string) Value {
	var buf [64]byte
	drop := AppendString(buf[:0], key)
	out := append(make([]byte, 0, len(obj)+2), '{')
	obj.each(func(m rawMember) bool {
		if !bytes.Equal(m.key, drop) {
			out = appendMember(out, m)
		}
		return true
	})
	return append(out, '}')
}

// Merge gives a new object with the members of patch laid over those of obj, shallowly: Kinto's PATCH of application/json,
// where null is a value like others. Known keys keep their place, new ones follow. What is not an object counts as {}.
func Merge(obj, patch Value) Value {
	changes := collect(patch)
	out := append(make([]byte, 0, len(obj)+len(patch)+2), '{')
	obj.each(func(m rawMember) bool {
		if i := changes.find(m.key); i >= 0 {
			m.val = changes.members[i].val
			changes.used[i] = true
		}
		out = appendMember(out, m)
		return true
	})
	for i, m := range changes.members {
		if !changes.used[i] {
			out = appendMember(out, m)
		}
	}
	return append(out, '}')
}

// memberSet finds the members of a patch by key: one by one while they are few, else by a map, so that merging stays linear.
type memberSet struct {
	members []rawMember
	used    []bool
	index   map[string]int
}

func collect(v Value) memberSet {
	var s memberSet
	v.each(func(m rawMember) bool { s.members = append(s.members, m); return true })
	s.used = make([]bool, len(s.members))
	if len(s.members) > smallObject {
		s.index = make(map[string]int, len(s.members))
		for i, m := range s.members {
			s.index[string(m.key)] = i
		}
	}
	return s
}

func (s *memberSet) find(key []byte) int {
	if s.index != nil {
		if i, ok := s.index[string(key)]; ok {
			return i
		}
		return -1
	}
	for i := range s.members {
		if bytes.Equal(s.members[i].key, key) {
			return i
		}
	}
	return -1
}

// appendMember appends a member to an object under construction that ends with { or with its last member.
func appendMember(out []byte, m rawMember) []byte {
	if out[len(out)-1] != '{' {
		out = append(out, ',')
	}
	out = append(append(out, m.key...), ':')
	return append(out, m.val...)
}

// Splice appends obj to dst with id and last_modified (in ms) added at its end, as Kinto's PostgreSQL backend answers.
// The bytes of obj are copied as they are; it must be an object that has neither of the two members.
func Splice(dst []byte, id string, lastModified int64, obj Value) []byte {
	if len(obj) > 2 {
		dst = append(append(dst, obj[:len(obj)-1]...), ',')
	} else {
		dst = append(dst, '{')
	}
	dst = append(dst, `"id":`...)
	dst = AppendString(dst, id)
	dst = append(dst, `,"last_modified":`...)
	dst = strconv.AppendInt(dst, lastModified, 10)
	return append(dst, '}')
}
