package resource

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
)

// MaxPatchOperations bounds the operations of a JSON patch.
const MaxPatchOperations = 100

// patchOperation is one operation of a JSON patch (RFC 6902).
type patchOperation struct {
	op       string
	path     pointer
	from     string      // "" when absent
	value    canon.Value // Missing when absent
	escapeOf error       // of path, reported before anything is applied
}

var patchOps = []string{"test", "add", "remove", "replace", "move", "copy"}

// readPatch validates the body of a JSON patch as Kinto's JsonPatchBodySchema
// does: names and texts of the problems are its own.
func (p *parsed) readPatch() (ops []patchOperation, problems []problem) {
	body := func(name, description string) {
		problems = append(problems, problem{location: "body", name: name, description: description})
	}
	switch {
	case p.fault != nil:
		return nil, []problem{*p.fault, {location: "body", description: "Required"}}
	case p.empty:
		body("", `"{}" is not iterable`)
	case p.value.Kind() != canon.Array:
		body("", `"`+pythonString(p.value)+`" is not iterable`)
	case p.value.Len() > MaxPatchOperations:
		body("", fmt.Sprintf("Number of operations is limited to %d", MaxPatchOperations))
	}
	p.value.Elements(func(e canon.Value) bool {
		if len(problems) > 0 && len(ops) >= MaxPatchOperations {
			return false
		}
		ops = append(ops, readOperation(strconv.Itoa(len(ops)), e, body))
		return true
	})
	return ops, problems
}

func readOperation(at string, v canon.Value, body func(name, description string)) (o patchOperation) {
	if v.Kind() != canon.Object {
		body(at, mapping(v))
		return o
	}
	if u := unknownKeys(v, "op", "path", "from", "value"); u != nil {
		body(at, unrecognized(u))
		return o
	}
	text := func(name string, required bool) string {
		given, ok := v.Get(name)
		s, isText := given.String()
		switch {
		case !ok || falsy(given):
			if required {
				body(at+"."+name, "Required")
			}
		case !isText:
			body(at+"."+name, canon.Python(given)+" is not a string: {'"+name+"': ''}")
		case name != "op" && s[0] != '/':
			body(at+"."+name, "String does not match expected pattern")
		default:
			return s
		}
		return ""
	}
	if o.op = text("op", true); o.op != "" && !slices.Contains(patchOps, o.op) {
		body(at+".op", `"`+o.op+`" is not one of `+strings.Join(patchOps, ", "))
	}
	path := text("path", true)
	o.from = text("from", false)
	o.value, _ = v.Get("value")
	if path == "" {
		return o
	}
	o.path, o.escapeOf = parsePointer(path)
	if o.escapeOf == nil && (strings.HasPrefix(path, "/permissions/read/") || strings.HasPrefix(path, "/permissions/write/")) {
		o.value = canon.AppendString(nil, o.path.last()) // a principal is its own value
	}
	return o
}

// applyPatch applies the operations to a document. What it copies may double
// with each operation, so the size is looked at after each. The error is a
// *Failure: a test or operation that failed, or a limit.
func applyPatch(doc canon.Value, ops []patchOperation, limit int) (canon.Value, error) {
	for i := range ops {
		if err := ops[i].escapeOf; err != nil {
			return nil, patchFailed(err)
		}
	}
	for i := range ops {
		var err error
		if doc, err = ops[i].apply(doc); err != nil {
			return nil, patchFailed(err)
		}
		if limit > 0 && len(doc) > limit {
			return nil, errTooLarge(fmt.Sprintf("Document of %d bytes after operation %d, the limit is %d", len(doc), i, limit))
		}
	}
	return doc, nil
}

func patchFailed(err error) error {
	return invalid(problem{location: "body", noName: true, description: "JSON Patch operation failed: " + err.Error()})
}

const errNoValue = patchError("The operation does not contain a 'value' member")

func (o *patchOperation) apply(doc canon.Value) (canon.Value, error) {
	switch o.op {
	case "test":
		return doc, o.test(doc)
	case "remove":
		return remove(doc, o.path)
	case "move", "copy":
		return o.transfer(doc)
	}
	if o.value == nil {
		return nil, errNoValue
	}
	if o.op == "add" {
		return add(doc, o.path, o.value)
	}
	return o.path.edit(doc, func(in canon.Value, last string) (canon.Value, error) {
		_, ok := find(in, last)
		switch {
		case ok:
			return replaceAt(in, last, o.value), nil
		case in.Kind() == canon.Object:
			return nil, patchError("can't replace a non-existent object '" + last + "'")
		case last == "-":
			return nil, patchError("'path' with '-' can't be applied to 'replace' operation")
		}
		return nil, patchError("can't replace outside of list")
	})
}

func (o *patchOperation) test(doc canon.Value) error {
	at := doc
	for i, step := range o.path {
		var err error
		if i == len(o.path)-1 && step == "-" && at.Kind() == canon.Array {
			return fmt.Errorf("EndOfList(%s) (<class 'jsonpointer.EndOfList'>) is not equal to tested value %s (%s)",
				canon.Python(at), pythonString(o.value), pythonType(o.value))
		}
		if at, err = walk(at, step); err != nil {
			return err
		}
	}
	if o.value == nil {
		return errNoValue
	}
	if !canon.Equal(at, o.value) {
		return fmt.Errorf("%s (%s) is not equal to tested value %s (%s)", pythonString(at), pythonType(at), pythonString(o.value), pythonType(o.value))
	}
	return nil
}

func add(doc canon.Value, path pointer, val canon.Value) (canon.Value, error) {
	return path.edit(doc, func(in canon.Value, last string) (canon.Value, error) {
		if in.Kind() == canon.Object {
			return canon.Set(in, last, val), nil
		}
		n := in.Len()
		if last == "-" {
			last = strconv.Itoa(n)
		}
		if index(last) > n {
			return nil, patchError("can't insert outside of list")
		}
		return splice(in, index(last), val, false), nil
	})
}

func remove(doc canon.Value, path pointer) (canon.Value, error) {
	return path.edit(doc, func(in canon.Value, last string) (canon.Value, error) {
		if in.Kind() == canon.Array && last == "-" {
			return nil, patchError("invalid array index '-'")
		}
		if _, ok := find(in, last); !ok {
			return nil, patchError("can't remove a non-existent object '" + last + "'")
		}
		return removeAt(in, last), nil
	})
}

// transfer is move or copy.
func (o *patchOperation) transfer(doc canon.Value) (canon.Value, error) {
	if o.from == "" {
		return nil, patchError("The operation does not contain a 'from' member")
	}
	from, err := parsePointer(o.from)
	if err != nil {
		return nil, err
	}
	if o.op == "move" && o.path.under(from) {
		return nil, patchError("Cannot move values into their own children")
	}
	var val canon.Value
	_, err = from.edit(doc, func(in canon.Value, last string) (canon.Value, error) {
		var ok bool
		if val, ok = find(in, last); ok {
			return in, nil
		}
		switch {
		case in.Kind() == canon.Object:
			return nil, patchError(canon.Python(canon.AppendString(nil, last)))
		case last == "-":
			return nil, patchError("invalid array index '-'")
		}
		return nil, patchError("list index out of range")
	})
	if err != nil || o.op == "move" && o.path.equal(from) {
		return doc, err
	}
	if o.op == "move" {
		if doc, err = remove(doc, from); err != nil {
			return nil, err
		}
	}
	return add(doc, o.path, val)
}

// jsonPatch applies a JSON patch to the addressed object as Kinto shows it to
// the user: `{"data": {…}, "permissions": {"read": {principal: principal}, …}}`.
func (c *call) jsonPatch(ops []patchOperation) (pl payload, err error) {
	shown := fsm.ACL(nil)
	if c.current.ACL.Grants(c.who.set, "write") {
		shown = c.current.ACL
	}
	before := permissionsDocument(shown)
	visible := c.s.visible(c.current)
	doc := appendObject([]byte(`{"data":`), &visible)
	doc = append(append(append(doc, `,"permissions":`...), before...), '}')
	after, err := applyPatch(doc, ops, c.patchLimit(len(doc)))
	if err != nil {
		return pl, err
	}
	data, _ := after.Get("data")
	permissions, _ := after.Get("permissions")
	if data.Kind() != canon.Object || permissions.Kind() != canon.Object {
		return pl, patchFailed(patchError("/data and /permissions must remain objects"))
	}
	var limit *canon.LimitError
	if _, err := canon.Canonical(data, c.s.jsonLimits()); errors.As(err, &limit) {
		return pl, invalid(problem{location: "body", description: limit.Error()})
	}
	pl.takeData(c.route.kind, data, true)
	pl.hasData = true
	pl.permissions, err = c.patchedPermissions(before, permissions)
	return pl, err
}

// patchLimit is the most bytes that a document may have between operations.
func (c *call) patchLimit(now int) int {
	limit := c.s.cfg.Limits.RecordBytes
	if limit <= 0 {
		limit = c.s.cfg.Limits.BodyBytes
	}
	if limit <= 0 {
		return 0
	}
	return limit + now
}

// permissionsDocument shows an ACL as JSON patches see it: principals are keys,
// and read and write are always there.
func permissionsDocument(acl fsm.ACL) canon.Value {
	named := acl.Map()
	doc := objectBuilder{}
	show := func(name string) {
		principals := objectBuilder{}
		for _, p := range named[name] {
			principals.add(p, canon.AppendString(nil, p))
		}
		doc.add(name, principals.value())
		delete(named, name)
	}
	show("read")
	show("write")
	names := make([]string, 0, len(named))
	for name := range named {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		show(name)
	}
	return doc.value()
}

// patchedPermissions gives the permissions that a patch changed. What the user
// was shown and took away goes, what he added comes, and what he was not shown
// stays: Kinto makes the ACL anew from what he saw, and so loses the rest.
func (c *call) patchedPermissions(before, after canon.Value) (map[string][]string, error) {
	stored := c.current.ACL.Map()
	changed := map[string][]string{}
	var problems []problem
	after.Each(func(name string, now canon.Value) bool {
		was, _ := before.Get(name)
		if canon.Equal(was, now) {
			return true
		}
		if now.Kind() == canon.Object {
			now = keysOf(now)
		}
		list := append([]byte{'{'}, canon.AppendString(nil, name)...)
		list = append(append(append(list, ':'), now...), '}')
		given, found := readPermissions(c.route.kind, canon.Value(list))
		problems = append(problems, found...)
		kept := slices.DeleteFunc(stored[name], func(p string) bool {
			_, shown := was.Get(p)
			return shown
		})
		changed[name] = append(slices.Clip(kept), given[name]...)
		return len(problems) == 0
	})
	if len(problems) > 0 {
		return nil, invalid(problems...)
	}
	return changed, nil
}

// keysOf gives the keys of an object as an array.
func keysOf(v canon.Value) canon.Value {
	out := canon.Value{'['}
	v.Each(func(key string, _ canon.Value) bool {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = canon.AppendString(out, key)
		return true
	})
	return append(out, ']')
}
