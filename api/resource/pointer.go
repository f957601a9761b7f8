package resource

import (
	"regexp"
	"strconv"
	"strings"

	"quinto/internal/canon"
)

// pointer is a JSON Pointer (RFC 6901) cut into its unescaped tokens.
type pointer []string

var (
	badEscape    = regexp.MustCompile(`~[^01]|~$`)
	arrayIndex   = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
	unescapeStep = strings.NewReplacer("~1", "/", "~0", "~")
)

// patchError is why a patch failed, in the words of Python's jsonpointer and
// jsonpatch, which Kinto shows.
type patchError string

func (e patchError) Error() string { return string(e) }

// parsePointer reads a pointer that starts with a slash.
func parsePointer(text string) (pointer, error) {
	if bad := badEscape.FindString(text); bad != "" {
		return nil, patchError("Found invalid escape " + bad)
	}
	steps := strings.Split(text, "/")[1:]
	for i := range steps {
		steps[i] = unescapeStep.Replace(steps[i])
	}
	return steps, nil
}

func (p pointer) last() string { return p[len(p)-1] }

// under reports whether p lies below q.
func (p pointer) under(q pointer) bool { return len(p) > len(q) && p[:len(q)].equal(q) }

func (p pointer) equal(q pointer) bool {
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i] != q[i] {
			return false
		}
	}
	return true
}

// pythonType is the name of the type that a value has in Kinto.
func pythonType(v canon.Value) string {
	switch v.Kind() {
	case canon.Null:
		return "<class 'NoneType'>"
	case canon.Bool:
		return "<class 'bool'>"
	case canon.Number:
		if v.IsInt() {
			return "<class 'int'>"
		}
		return "<class 'float'>"
	case canon.String:
		return "<class 'str'>"
	case canon.Array:
		return "<class 'list'>"
	}
	return "<class 'dict'>"
}

// checkStep reports why step cannot be a step into v. Whether it exists is
// another question.
func checkStep(v canon.Value, step string) error {
	switch v.Kind() {
	case canon.Object:
		return nil
	case canon.String:
		return patchError("Cannot apply token '" + step + "' to non-container type <class 'str'>")
	case canon.Array:
		if step != "-" && !arrayIndex.MatchString(step) {
			return patchError("'" + step + "' is not a valid sequence index")
		}
		return nil
	}
	return patchError("Document '" + pythonType(v) + "' does not support indexing, must be mapping/sequence or support __getitem__")
}

// find gives the value at a step that is valid for v; ok is false when there is none.
func find(v canon.Value, step string) (found canon.Value, ok bool) {
	if v.Kind() == canon.Object {
		return v.Get(step)
	}
	n := index(step)
	v.Elements(func(e canon.Value) bool {
		if n == 0 {
			found, ok = e, true
		}
		n--
		return !ok
	})
	return found, ok
}

// index is the number of an array's element; one that is too large for anything
// for "-" and for numbers beyond an int.
func index(step string) int {
	n, err := strconv.Atoi(step)
	if err != nil {
		return int(^uint(0) >> 1)
	}
	return n
}

// walk gives the value at a step, or says why there is none.
func walk(v canon.Value, step string) (canon.Value, error) {
	if err := checkStep(v, step); err != nil {
		return nil, err
	}
	found, ok := find(v, step)
	switch {
	case ok:
		return found, nil
	case v.Kind() == canon.Object:
		return nil, patchError("member '" + step + "' not found in " + canon.Python(v))
	case step == "-":
		return nil, patchError("Document '<class 'jsonpointer.EndOfList'>' does not support indexing, must be mapping/sequence or support __getitem__")
	}
	return nil, patchError("index '" + step + "' is out of bounds")
}

// edit gives v with the container of the last step replaced by what f makes of
// it. v itself is not changed.
func (p pointer) edit(v canon.Value, f func(container canon.Value, last string) (canon.Value, error)) (canon.Value, error) {
	if len(p) == 1 {
		if err := checkStep(v, p[0]); err != nil {
			return nil, err
		}
		return f(v, p[0])
	}
	child, err := walk(v, p[0])
	if err != nil {
		return nil, err
	}
	if child, err = p[1:].edit(child, f); err != nil {
		return nil, err
	}
	return replaceAt(v, p[0], child), nil
}

// replaceAt gives v with another value at a step that exists.
func replaceAt(v canon.Value, step string, val canon.Value) canon.Value {
	if v.Kind() == canon.Object {
		return canon.Set(v, step, val)
	}
	return splice(v, index(step), val, true)
}

// removeAt gives v without the value at a step that exists.
func removeAt(v canon.Value, step string) canon.Value {
	if v.Kind() == canon.Object {
		return canon.Delete(v, step)
	}
	return splice(v, index(step), nil, true)
}

// splice gives an array with val before element n, in its place when drop is
// set; n may be the length. A nil val only drops.
func splice(v canon.Value, n int, val canon.Value, drop bool) canon.Value {
	out := append(make(canon.Value, 0, len(v)+len(val)+1), '[')
	put := func(e canon.Value) {
		if e == nil {
			return
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, e...)
	}
	i := 0
	v.Elements(func(e canon.Value) bool {
		if i == n {
			put(val)
		}
		if i != n || !drop {
			put(e)
		}
		i++
		return true
	})
	if i == n {
		put(val)
	}
	return append(out, ']')
}
