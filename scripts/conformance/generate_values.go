package main

import (
	"fmt"
	"strconv"
	"strings"
)

// bare is JSON text that is written as it is: a placeholder that stands for a number.
type bare string

var (
	fieldLists      = []string{"n", "s", "n,s", "o.k", "o", "id", "last_modified", "missing", "n,o.k,missing.x", "", "v,l"}
	sortFields      = []string{"n", "-n", "+n", "s", "-s", "last_modified", "-last_modified", "o.k", "-o.k", "missing", "!x", ""}
	texts           = []string{"", "a", "b", "B", "ab", "é", "Ünï😀", "1", "true", "null", "a b", "x/y", "\\\"q\\\"", "\u007f", "日本", "a'b", "<&>"}
	likes           = []string{"a", "A*", "*b", "*", "a*b", "é", "zz", "", "\"1\"", "1", "b*B"}
	filterOperators = []string{"", "", "eq_", "not_", "gt_", "min_", "lt_", "max_", "in_", "exclude_", "like_", "has_", "contains_", "contains_any_"}
)

// permissionNames are those of each kind, the last one is wrong.
var permissionNames = map[string][]string{
	"bucket":     {"read", "write", "collection:create", "group:create", "record:create"},
	"collection": {"read", "write", "record:create", "group:create"},
	"group":      {"read", "write", "foo"},
	"record":     {"read", "write", "record:create"},
}

var principals = []string{
	"{me:alice}", "{me:bob}", "{me:bob}", "{me:carol}", "system.Everyone", "system.Authenticated", "/buckets/{b}/groups/g", "/buckets/{b2}/groups/g",
	"/buckets/{b}/groups/h", "basicauth:nobody", "x",
}

// body puts data and permissions together; nil leaves one out.
func (m *maker) body(_ string, data, permissions any) any {
	body := map[string]any{}
	if data != nil {
		body["data"] = data
	}
	if permissions != nil {
		body["permissions"] = permissions
	}
	return body
}

// write draws the body of a PUT.
func (m *maker) write(kind string) any {
	switch n := m.r.IntN(24); {
	case n < 2:
		return nil
	case n == 2:
		return map[string]any{}
	case n == 3:
		return pick(m, []any{map[string]any{"data": nil}, map[string]any{"data": []any{}}, []any{}, map[string]any{"foo": 1}, map[string]any{"permissions": nil},
			map[string]any{"data": map[string]any{}, "permissions": []any{}}, map[string]any{"data": "x"}})
	case n < 15:
		return m.body(kind, m.data(kind), nil)
	case n < 18:
		return m.body(kind, nil, m.permissions(kind))
	}
	return m.body(kind, m.data(kind), m.permissions(kind))
}

// post draws the body of a POST: with an id of the client's unless ids may be drawn.
func (m *maker) post(kind string) any {
	data := m.data(kind)
	if !m.drawn || m.chance(3) {
		data["id"] = pick(m, m.ids(kind))
		if m.chance(20) {
			data["id"] = pick(m, []any{"", nil, 5, "a.b", "-x", []any{}})
		}
	} else {
		delete(data, "id")
	}
	if kind == "bucket" {
		delete(data, "id")
	}
	if m.chance(3) {
		return m.body(kind, data, m.permissions(kind))
	}
	return m.body(kind, data, nil)
}

// data draws the attributes of an object. l holds lists only and s texts only: see avoided.
func (m *maker) data(kind string) map[string]any {
	data := map[string]any{}
	if !m.chance(4) {
		data["n"] = m.number()
	}
	if m.chance(2) {
		data["s"] = pick(m, texts)
	}
	if m.chance(3) {
		data["o"] = m.inner()
	}
	if m.chance(4) {
		data["v"] = m.odd()
	}
	if m.chance(5) {
		data["l"] = m.items()
	}
	if kind == "group" && !m.chance(4) {
		data["members"] = m.members()
	}
	if kind == "collection" && m.chance(10) {
		data["cache_expires"] = pick(m, []any{10, "12", "x", nil, 1.5, -3, true})
	}
	if kind != "bucket" && m.chance(10) { // the list of buckets is shared: no clock of it must run ahead
		data["last_modified"] = m.stampValue()
	}
	if m.backend == "postgresql" && m.chance(30) {
		data["deleted"] = true
	}
	return data
}

func (m *maker) members() any {
	members := []any{}
	for range m.r.IntN(4) {
		members = append(members, pick(m, principals[:4]))
	}
	if m.chance(15) {
		members = append(members, pick(m, []any{"/buckets/{b}/groups/h", "system.Everyone", 5, nil}))
	}
	if m.chance(30) {
		return pick(m, []any{"x", nil, map[string]any{}})
	}
	return members
}

// permissions draws an ACL.
func (m *maker) permissions(kind string) any {
	if m.chance(3) {
		return nil
	}
	acl := map[string]any{}
	names := permissionNames[kind]
	for range 1 + m.r.IntN(2) {
		name := names[m.r.IntN(len(names)-1)]
		if m.chance(25) {
			name = names[len(names)-1]
		}
		who := []any{}
		for range m.r.IntN(3) {
			who = append(who, pick(m, principals))
		}
		acl[name] = who
	}
	if m.chance(40) {
		acl["read"] = pick(m, []any{"x", nil, []any{5}, map[string]any{}, []any{nil}})
	}
	return acl
}

func (m *maker) number() any {
	return pick(m, []any{0, 1, 2, 3, 4, 5, 2, 3, -1, 2.5, -0.5, 10, 100, bare("3.0"), bare("1e3"), bare("9007199254740993"), bare("0.1"), bare("-7.25")})
}

// odd draws a value of any kind.
func (m *maker) odd() any {
	odd := []any{nil, true, false, "", "m", 7, 2.5, -3, []any{}, map[string]any{}, []any{2, "x"}, map[string]any{"k": nil}, []any{[]any{3}, map[string]any{"z": "y"}},
		"é😀", bare("9223372036854775807"), bare("-9223372036854775808"), bare("1E-5"), bare("123456.789"), m.deep()}
	if m.backend != "postgresql" {
		odd = append(odd, bare("-0.0"), bare("1e22"), bare("9223372036854775808"), bare("18446744073709551615"), "a\\u0000b")
	}
	return pick(m, odd)
}

// deep nests objects and lists.
func (m *maker) deep() any {
	var value any = "end"
	for i := range 2 + m.r.IntN(12) {
		if i%2 == 0 {
			value = map[string]any{"k" + strconv.Itoa(i): value}
		} else {
			value = []any{value}
		}
	}
	return value
}

func (m *maker) inner() any {
	inner := map[string]any{"k": pick(m, []any{2, 3, 4, "k", 2.5})}
	if m.chance(3) {
		inner["x"] = map[string]any{"y": m.r.IntN(3) + 2}
	}
	return inner
}

func (m *maker) items() any {
	items := []any{}
	for range m.r.IntN(4) {
		items = append(items, pick(m, []any{2, 3, "x", "y", "2"}))
	}
	return items
}

// stamp draws a time for ?last_modified and data.last_modified: past, near an earlier answer, or somewhat ahead.
func (m *maker) stamp() string {
	switch m.r.IntN(4) {
	case 0:
		return fmt.Sprintf("{now+%d}", 100000*(1+m.r.IntN(3)))
	case 1:
		if len(m.steps) > 0 {
			offset := ""
			if m.backend == "postgresql" { // never the list's own time
				offset = "-1"
			}
			return fmt.Sprintf("{ts:g%d%s}", 1+m.r.IntN(min(len(m.steps), 5)), offset)
		}
	case 2:
		if m.backend != "postgresql" {
			return "1500000000000"
		}
	}
	m.past++
	return strconv.FormatInt(1500000000000+m.past, 10)
}

func (m *maker) stampValue() any {
	if m.chance(6) {
		return pick(m, []any{"x", 1.5, nil, "1500000000000", []any{}})
	}
	return bare(m.stamp())
}

// filter draws one condition on a list.
func (m *maker) filter(kind string) [2]string {
	op := pick(m, filterOperators)
	field := pick(m, []string{"n", "n", "s", "s", "o.k", "v", "l", "id", "last_modified", "missing", "o", "deleted"})
	memory := m.backend != "postgresql"
	switch {
	case op == "like_":
		if memory {
			field = pick(m, []string{"id", "id", "s"})
		}
		return [2]string{op + field, pick(m, likes)}
	case op == "contains_" || op == "contains_any_":
		if memory {
			field = pick(m, []string{"l", "missing"})
		}
		return [2]string{op + field, pick(m, []string{"2", `"x"`, "x", `["x",2]`, "[]", "[3]", `["2"]`, `"2"`})}
	case op == "has_" && memory:
		op = "not_"
	case op == "has_":
		return [2]string{op + field, pick(m, []string{"true", "false", "1", "0", "null", "", "x"})}
	}
	switch field {
	case "last_modified":
		quoted := `"` + m.time() + `"`
		if memory && op != "" {
			quoted = m.time()
		}
		return [2]string{op + field, pick(m, []string{m.time(), m.time(), quoted, "x", ""})}
	case "id":
		if m.drawn && strings.ContainsAny(op, "gtmlx") && op != "not_" {
			op = pick(m, []string{"", "in_", "not_"})
		}
		return [2]string{op + field, pick(m, []string{"r1", "r2", "g", "c", "{b}", `"r3"`, "r1,r2", "5", `"5"`})}
	}
	return [2]string{op + field, m.filterValue(op, field)}
}

// filterValue draws what a field is compared with.
func (m *maker) filterValue(op, field string) string {
	switch field {
	case "s":
		return pick(m, []string{"a", "b", `"a"`, "é", "%C3%A9", `""`, "ab", "1", `"1"`, "a,b", "B"})
	case "v", "o", "l":
		if op == "" || op == "eq_" || op == "not_" {
			return pick(m, []string{"null", "true", "m", "7", `{"k":2}`, `[2,"x"]`, "[]", "{}", "2.5", `{"k":null}`})
		}
		if m.backend == "postgresql" {
			return pick(m, []string{"null", "true", "m", "7", `[2,"x"]`, `{"k":3}`, `{"a":1,"b":2}`, "2.5", "[2]"})
		}
		return pick(m, []string{"m", "7", "2.5", "x"})
	}
	if op == "in_" || op == "exclude_" {
		values := []string{"2", "2,3", "2.5,3", "5,a", `"2"`, "10,null"}
		if m.backend == "postgresql" {
			values = append(values, "1", "1.0,true", "0,false")
		}
		return pick(m, values)
	}
	return pick(m, []string{"0", "1", "2", "2.0", "2.5", "3", "-1", `"2"`, "x", "null", "true", "1e3", "k", "9007199254740993"})
}

// time draws a time for a filter.
func (m *maker) time() string {
	if len(m.steps) > 0 && !m.chance(4) {
		offset := pick(m, []string{"", "", "-1", "+1"})
		return fmt.Sprintf("{ts:g%d%s}", 1+m.r.IntN(len(m.steps)), offset)
	}
	return pick(m, []string{"0", "1", "1500000000000", "{now-1000}"})
}

// bound draws _since, _before or _to.
func (m *maker) bound() [2]string {
	name := pick(m, []string{"_since", "_since", "_since", "_before", "_to"})
	value := m.time()
	switch m.r.IntN(10) {
	case 0, 1:
		value = `"` + value + `"`
	case 2:
		value = pick(m, []string{"", "x", "-1", "true", "1.5", "99999999999999999999", `"x"`, "[1]"})
	}
	return [2]string{name, value}
}

func (m *maker) sort() string {
	order := pick(m, sortFields)
	if m.chance(3) {
		order += "," + pick(m, sortFields)
	}
	if !m.drawn && m.chance(4) {
		order = pick(m, []string{"id", "-id", "n,id", "s,-id"})
	}
	if m.backend == "postgresql" && m.chance(6) {
		order = pick(m, []string{"v", "-v", "l", "o,-n"})
	}
	return order
}

// patch draws one of the three kinds of PATCH.
func (m *maker) patch(s *step, kind string) {
	s.method = "PATCH"
	switch m.r.IntN(5) {
	case 0:
		s.header = append(s.header, [2]string{"Content-Type", "application/merge-patch+json"})
		s.body = m.body(kind, m.mergeData(kind), nil)
		if m.chance(4) {
			s.body = m.body(kind, m.mergeData(kind), m.permissions(kind))
		}
	case 1:
		s.header = append(s.header, [2]string{"Content-Type", "application/json-patch+json"})
		s.body = m.operations()
	default:
		s.body = m.write(kind)
	}
	if m.chance(6) {
		s.header = append(s.header, [2]string{"Response-Behavior", pick(m, []string{"light", "diff", "full", "light", "diff", "x"})})
	}
}

// mergeData draws the data of a merge patch: null takes a field away.
func (m *maker) mergeData(kind string) any {
	data := m.data(kind)
	for _, name := range []string{"n", "s", "l"} {
		if m.chance(5) {
			data[name] = nil
		}
	}
	if inner, ok := data["o"].(map[string]any); ok && m.chance(2) {
		inner["k"] = nil
	}
	delete(data, "v") // an object over a value that is none is a 500 of Kinto's
	return data
}

// operations draws a JSON patch.
func (m *maker) operations() any {
	ops := []any{}
	for range 1 + m.r.IntN(3) {
		who := strings.ReplaceAll(pick(m, principals), "/", "~1")
		path := pick(m, []string{"/data/n", "/data/n", "/data/s", "/data/new", "/data/o/k", "/data/o", "/data/l/0", "/data/l/-", "/permissions/read/" + who,
			"/permissions/write/" + who})
		op := map[string]any{"op": pick(m, []string{"add", "add", "replace", "remove", "test"}), "path": path}
		if op["op"] != "remove" {
			op["value"] = pick(m, []any{2, "a", 3, nil, "x", []any{}})
			if path == "/data/o" {
				op["value"] = m.inner()
			}
		}
		if m.chance(8) {
			op = map[string]any{"op": pick(m, []string{"move", "copy"}), "from": "/data/n", "path": "/data/s2"}
		}
		if m.chance(25) {
			op = pick(m, []map[string]any{{"op": "foo", "path": "/data/n"}, {"op": "add"}, {"op": "add", "path": "data/n", "value": 2}, {"path": "/data/n"},
				{"op": "replace", "path": "/data/id", "value": "other"}})
		}
		ops = append(ops, op)
	}
	return ops
}
