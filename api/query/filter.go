package query

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"quinto/internal/canon"
)

// op is the operator of a filter.
type op uint8

const (
	opEq op = iota
	opNot
	opLt
	opMax
	opMin
	opGt
	opIn
	opExclude
	opLike
	opHas
	opContains
	opContainsAny
)

// operators are the prefixes in the order in which Kinto tries them.
var operators = []struct {
	prefix string
	op     op
}{
	{"lt_", opLt}, {"min_", opMin}, {"max_", opMax}, {"not_", opNot}, {"eq_", opEq}, {"gt_", opGt}, {"in_", opIn},
	{"exclude_", opExclude}, {"like_", opLike}, {"has_", opHas}, {"contains_any_", opContainsAny}, {"contains_", opContains},
}

// filter is one condition on a field other than the bounds of last_modified.
type filter struct {
	field string
	path  []string // field split at its dots
	op    op
	value canon.Value
	list  []canon.Value // of in and exclude, sorted; of contains_any, the elements
	glob  []string      // of like: lower-case pieces between the stars
}

// splitOperator reads `op_field`; a name that is no such thing is a field that must be equal.
func splitOperator(name string) (op, string) {
	for _, o := range operators {
		if field, ok := strings.CutPrefix(name, o.prefix); ok && isFieldName(field) {
			return o.op, field
		}
	}
	return opEq, name
}

// filters reads all parameters that are filters.
func (p *parse) filters() error {
	count := 0
	for i := range p.q.params {
		name, value := strings.TrimSpace(p.q.params[i].name), p.values[i]
		if strings.HasPrefix(name, "_") && name != "_since" && name != "_to" && name != "_before" {
			continue
		}
		if count++; count > MaxFilters {
			return refuseUnnamed(fmt.Sprintf("More than %d filters", MaxFilters))
		}
		var err error
		if name[:min(1, len(name))] == "_" {
			err = p.bound(name, value)
		} else {
			err = p.filter(name, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bound reads _since, _before and _to. null is a no-op, as Kinto documents it.
func (p *parse) bound(name string, value canon.Value) error {
	p.q.DeprecatedTo = p.q.DeprecatedTo || name == "_to"
	if value.Kind() == canon.Null {
		return nil
	}
	ts, ok := p.timestamp(value)
	if !ok {
		return refuseValue(name)
	}
	if name == "_since" {
		p.q.seen = max(p.q.seen, int64(ts))
		return p.modified(opGt, value)
	}
	return p.modified(opLt, value)
}

func (p *parse) filter(name string, value canon.Value) error {
	o, field := splitOperator(name)
	if !p.known(field) {
		return refuse(name, fmt.Sprintf("Unknown filter field '%s'", name))
	}
	if err := p.checkFilter(name, o, field, value); err != nil {
		return err
	}
	if field == fieldModified && p.Key != "" {
		return nil
	}
	if field == fieldModified {
		p.q.tombstones = true
		if o != opNot && o != opLike && o != opHas {
			return p.modified(o, value)
		}
		if o == opNot {
			value = timestampNumber(value)
		}
	}
	if slices.Contains(p.TextFields, field) && (value.IsInt() || value.Kind() == canon.Bool) {
		value = stringValue(canon.Python(value))
	}
	f := filter{field: field, path: strings.Split(field, "."), op: o, value: value}
	switch o {
	case opIn, opExclude, opContainsAny:
		value.Elements(func(v canon.Value) bool { f.list = append(f.list, v); return true })
		if o != opContainsAny {
			slices.SortFunc(f.list, canon.Compare)
		}
	case opLike:
		text, _ := value.String()
		f.glob = compileGlob(text)
	case opHas:
	default:
		if field == fieldID && (value.IsInt() || value.Kind() == canon.Bool) {
			f.value = stringValue(canon.Python(value))
		}
	}
	p.q.filters = append(p.q.filters, f)
	return nil
}

// checkFilter refuses what Kinto refuses, in its order.
func (p *parse) checkFilter(name string, o op, field string, value canon.Value) error {
	if o == opLike && value.Kind() != canon.String {
		return refuseValue(name)
	}
	if (o == opIn || o == opExclude) && field == fieldID {
		ok := true
		value.Elements(func(v canon.Value) bool { ok = v.Kind() == canon.String; return ok })
		if !ok {
			return refuseValue(name)
		}
	}
	if strings.Contains(field, "\x00") || hasNUL(value) {
		return refuse(name, "Invalid character 0x00")
	}
	if field == fieldModified {
		// A list is no timestamp, so in_, exclude_ and contains_ always fail here.
		if _, ok := p.timestamp(value); !ok {
			return refuseValue(name)
		}
	}
	if field == fieldID && (o == opContains || o == opContainsAny) {
		return refuse(name, "Field 'id' is not an array")
	}
	return nil
}

// hasNUL looks for the escape of U+0000: an odd number of backslashes before u0000.
func hasNUL(v canon.Value) bool {
	for s := string(v); ; {
		i := strings.Index(s, `\u0000`)
		if i < 0 {
			return false
		}
		if before := s[:i]; (len(before)-len(strings.TrimRight(before, `\`)))%2 == 0 {
			return true
		}
		s = s[i+2:]
	}
}

// timestamp accepts what Kinto does: a number, truncated, or digits in a text, with or without double quotes; from 0 to
// less than a day from now.
func (p *parse) timestamp(v canon.Value) (float64, bool) {
	n := timestampNumber(v)
	if n == nil {
		return 0, false
	}
	f, ok := n.Float()
	f = math.Trunc(f)
	return f, ok && f >= 0 && f < float64(p.Now+dayMillis)
}

// timestampNumber gives the number that stands in v; nil if there is none.
func timestampNumber(v canon.Value) canon.Value {
	if v.Kind() == canon.Number {
		return v
	}
	text, ok := v.String()
	if !ok {
		return nil
	}
	if len(text) > 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return nil
	}
	number, err := canon.Canonical([]byte(strings.TrimLeft(text[:len(text)-1], "0")+text[len(text)-1:]), canon.Limits{})
	if err != nil {
		return nil
	}
	return number
}

// modified narrows the bounds of last_modified by a comparison with a valid timestamp.
func (p *parse) modified(o op, value canon.Value) error {
	q := p.q
	if p.Key != "" {
		return nil
	}
	q.tombstones = true
	f, _ := timestampNumber(value).Float()
	floor, ceil := int64(math.Floor(f)), int64(math.Ceil(f))
	switch o {
	case opGt:
		q.since = max(q.since, floor)
	case opMin:
		q.since = max(q.since, ceil-1)
	case opLt:
		q.before = min(q.before, ceil)
	case opMax:
		q.before = min(q.before, floor+1)
	case opEq:
		// A fraction leaves nothing between the bounds.
		q.since, q.before = max(q.since, ceil-1), min(q.before, floor+1)
	}
	return nil
}

// Match reports whether obj passes all filters. The page token plays no part: HEAD counts all matches that are not Deleted.
func (q *Query) Match(obj Object) bool {
	if obj.Deleted && !q.tombstones || obj.LastModified <= q.since || obj.LastModified >= q.before {
		return false
	}
	for i := range q.filters {
		if f := &q.filters[i]; !f.match(field(&obj, f.field, f.path)) {
			return false
		}
	}
	return true
}

// tombstoneData is what a tombstone holds besides id and last_modified.
var tombstoneData = canon.Value(`{"deleted":true}`)

// field looks up a field by name and its path; nil if it is missing.
func field(obj *Object, name string, path []string) canon.Value {
	switch name {
	case fieldID:
		return stringValue(obj.ID)
	case fieldModified:
		return strconv.AppendInt(nil, obj.LastModified, 10)
	}
	data := obj.Data
	if obj.Deleted {
		data = tombstoneData
	}
	return nested(data, path)
}

// nested descends by the path as PostgreSQL does. Only what is missing there is searched as Kinto's memory backend does:
// keys may hold dots themselves, longer keys first.
func nested(v canon.Value, path []string) canon.Value {
	if found, ok := v.GetPath(path...); ok {
		return found
	}
	for n := len(path); n > 1; n-- {
		root, ok := v.Get(strings.Join(path[:n], "."))
		if ok && n == len(path) {
			return root
		}
		if ok {
			return nested(root, path[n:])
		}
	}
	if len(path) > 1 {
		if root, ok := v.Get(path[0]); ok {
			return nested(root, path[1:])
		}
	}
	return nil
}

// match applies the operator. A missing value compares above all others, which is what Kinto's rules for it come to.
func (f *filter) match(left canon.Value) bool {
	switch f.op {
	case opEq:
		return canon.Equal(left, f.value)
	case opNot:
		return !canon.Equal(left, f.value)
	case opLt:
		return canon.Compare(left, f.value) < 0
	case opMax:
		return canon.Compare(left, f.value) <= 0
	case opMin:
		return canon.Compare(left, f.value) >= 0
	case opGt:
		return canon.Compare(left, f.value) > 0
	case opIn, opExclude:
		_, found := slices.BinarySearchFunc(f.list, left, canon.Compare)
		return found == (f.op == opIn)
	case opLike:
		text, ok := canon.Text(left)
		return ok && matchGlob(f.glob, strings.ToLower(text))
	case opHas:
		return (left != nil) == !falsy(f.value)
	case opContains:
		return left.Kind() == canon.Array && canon.Contains(left, f.value)
	case opContainsAny:
		found := false
		left.Elements(func(e canon.Value) bool {
			found = slices.ContainsFunc(f.list, func(v canon.Value) bool { return canon.Equal(e, v) })
			return !found
		})
		return found
	}
	return false
}

// compileGlob splits a pattern at its stars. Without a star it may stand anywhere.
func compileGlob(pattern string) []string {
	if !strings.Contains(pattern, "*") {
		pattern = "*" + pattern + "*"
	}
	return strings.Split(strings.ToLower(pattern), "*")
}

// matchGlob reports whether text consists of the pieces with anything between them. The leftmost place for each piece is the
// best one, so there is no backtracking.
func matchGlob(pieces []string, text string) bool {
	last := len(pieces) - 1
	if !strings.HasPrefix(text, pieces[0]) {
		return false
	}
	text = text[len(pieces[0]):]
	for _, piece := range pieces[1:last] {
		i := strings.Index(text, piece)
		if i < 0 {
			return false
		}
		text = text[i+len(piece):]
	}
	return strings.HasSuffix(text, pieces[last])
}
