package canon

import (
	"bytes"
	"math"
	"strconv"
)

// Value is one canonical JSON value. Its methods trust the bytes to come from Canonical, AppendString, AppendFloat or the edits
// of this package; on other bytes they give some answer, never a panic. Keys are compared exactly: never by case folding.
type Value []byte

// Kind is the JSON type of a Value. The numbers are the order of mixed types in Kinto's PostgreSQL (jsonb) comparisons.
type Kind uint8

// The kinds, smallest first. Missing is an empty Value: a member that is absent, which sorts after all others.
const (
	Null Kind = iota
	String
	Number
	Bool
	Array
	Object
	Missing
)

// Kind gives the JSON type of v, from its first byte.
func (v Value) Kind() Kind {
	if len(v) == 0 {
		return Missing
	}
	switch v[0] {
	case 'n':
		return Null
	case '"':
		return String
	case 't', 'f':
		return Bool
	case '[':
		return Array
	case '{':
		return Object
	}
	return Number
}

// String gives the text of a string; false for other kinds.
func (v Value) String() (string, bool) {
	if v.Kind() != String {
		return "", false
	}
	return unquote(v), true
}

// Int gives a number that was written as an integer and fits int64; false for all others, also for 1.0.
func (v Value) Int() (int64, bool) {
	if v.Kind() != Number {
		return 0, false
	}
	i, err := strconv.ParseInt(string(v), 10, 64)
	return i, err == nil
}

// IsInt reports whether v is a number without fraction and exponent, which Kinto reads as a Python int.
func (v Value) IsInt() bool { return v.Kind() == Number && !bytes.ContainsAny(v, ".e") }

// Float gives any number as a double; false for other kinds.
func (v Value) Float() (float64, bool) {
	if v.Kind() != Number {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

// Bool gives a boolean; the second result is false for other kinds.
func (v Value) Bool() (value, ok bool) {
	return len(v) > 0 && v[0] == 't', v.Kind() == Bool
}

// Each calls fn for each member of an object, in order, until fn returns false. Other kinds have no members.
func (v Value) Each(fn func(key string, val Value) bool) {
	v.each(func(m rawMember) bool { return fn(unquote(m.key), m.val) })
}

// Elements calls fn for each element of an array, in order, until fn returns false. Other kinds have no elements.
func (v Value) Elements(fn func(val Value) bool) {
	if v.Kind() != Array {
		return
	}
	for i := 1; i < len(v) && v[i] != ']'; {
		end := skip(v, i)
		if !fn(v[i:end:end]) {
			return
		}
		if i = end; i < len(v) && v[i] == ',' {
			i++
		}
	}
}

// Len gives the number of members of an object or elements of an array; 0 for other kinds.
func (v Value) Len() int {
	n := 0
	switch v.Kind() {
	case Object:
		v.each(func(rawMember) bool { n++; return true })
	case Array:
		v.Elements(func(Value) bool { n++; return true })
	}
	return n
}

// Get gives the member of an object with exactly this key.
func (v Value) Get(key string) (Value, bool) {
	if v.Kind() != Object {
		return nil, false
	}
	var buf [64]byte
	return v.getRaw(AppendString(buf[:0], key))
}

func (v Value) getRaw(key []byte) (found Value, ok bool) {
	v.each(func(m rawMember) bool {
		if bytes.Equal(m.key, key) {
			found, ok = m.val, true
		}
		return !ok
	})
	return found, ok
}

// GetPath descends through nested objects. An empty path gives v itself.
func (v Value) GetPath(path ...string) (Value, bool) {
	for _, key := range path {
		var ok bool
		if v, ok = v.Get(key); !ok {
			return nil, false
		}
	}
	return v, true
}

// rawMember is one member of an object: its key with the quotes, its value, and the offset of the key in the object.
type rawMember struct {
	key []byte
	val Value
	at  int
}

func (v Value) each(fn func(rawMember) bool) {
	if v.Kind() != Object {
		return
	}
	for i := 1; i < len(v) && v[i] == '"'; {
		key := skip(v, i)
		if key >= len(v) {
			return
		}
		end := skip(v, key+1)
		if !fn(rawMember{key: v[i:key], val: v[key+1 : end : end], at: i}) {
			return
		}
		if i = end; i < len(v) && v[i] == ',' {
			i++
		}
	}
}

// skip gives the offset behind the canonical value that starts at b[i]. It always advances, and never beyond len(b).
func skip(b []byte, i int) int {
	depth := 0
	for start := i; i < len(b); {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':':
			if depth == 0 {
				return max(i, start+1)
			}
			i++
			continue
		default:
			i = skipWord(b, i)
		}
		if depth <= 0 {
			return i
		}
	}
	return min(max(i, 0), len(b))
}

func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// skipWord skips a number or a literal.
func skipWord(b []byte, i int) int {
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && b[i] != ':' {
		i++
	}
	return i
}
