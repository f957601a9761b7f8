package query

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"quinto/internal/canon"
)

// param is one name of the query string with all its values, in the order of the first appearance.
type param struct {
	name   string
	values []string
}

// parseParams splits and decodes a query string as WebOb does: "+" is a space, a bad %-escape stands for itself, a name
// without "=" has an empty value, an empty piece is skipped.
func parseParams(raw string) ([]param, error) {
	if len(raw) > MaxQueryBytes {
		return nil, refuseUnnamed(fmt.Sprintf("Query string is longer than %d bytes", MaxQueryBytes))
	}
	var params []param
	at := map[string]int{}
	for piece := range strings.SplitSeq(raw, "&") {
		if piece == "" {
			continue
		}
		name, value, _ := strings.Cut(piece, "=")
		name, value = unescape(name), unescape(value)
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, &EncodingError{Query: strings.Clone(raw)}
		}
		i, ok := at[name]
		if !ok {
			i = len(params)
			at[name] = i
			params = append(params, param{name: name})
		}
		params[i].values = append(params[i].values, value)
	}
	return params, nil
}

// unescape decodes a name or value into fresh bytes.
func unescape(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			c = ' '
		} else if c == '%' && i+2 < len(s) {
			high, low := unhex(s[i+1]), unhex(s[i+2])
			if high >= 0 && low >= 0 {
				c = byte(high<<4 | low)
				i += 2
			}
		}
		out = append(out, c)
	}
	return string(out)
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func escape(s string) string { return url.QueryEscape(s) }

// stringValue is s as a JSON string.
func stringValue(s string) canon.Value { return canon.AppendString(nil, s) }

// native reads a value as JSON if it parses, else as the text itself. Several values of one name are a list of texts.
func (a *param) native() (canon.Value, error) {
	if len(a.values) > 1 {
		return stringList(a.values), nil
	}
	return nativeText(a.name, a.values[0])
}

// nativeText fails only for JSON beyond the limits, on which Kinto answers 500.
func nativeText(name, text string) (canon.Value, error) {
	lim := canon.Limits{KeyBytes: MaxQueryBytes}
	if strings.HasPrefix(name, "contains_") {
		lim.Members = MaxContainsValues
	}
	v, err := canon.Canonical([]byte(text), lim)
	if err == nil {
		return v, nil
	}
	limitError := &canon.LimitError{}
	if errors.As(err, &limitError) {
		return nil, refuseValue(name)
	}
	return stringValue(text), nil
}

func stringList(texts []string) canon.Value {
	list := []byte{'['}
	for i, text := range texts {
		if i > 0 {
			list = append(list, ',')
		}
		list = canon.AppendString(list, text)
	}
	return append(list, ']')
}

// fieldList reads a comma separated list; the empty items go. Several values of one name are the items themselves.
func (a *param) fieldList() []string {
	items := a.values
	if len(items) == 1 {
		items = strings.Split(items[0], ",")
	}
	var out []string
	for _, item := range items {
		if item != "" {
			out = append(out, item)
		}
	}
	return out
}

// listValues gives the values of in_ and exclude_: split first, then each read as JSON.
func (a *param) listValues() (canon.Value, error) {
	list := []byte{'['}
	for i, item := range a.fieldList() {
		if i == MaxInValues {
			return nil, refuse(a.name, fmt.Sprintf("More than %d values for %s", MaxInValues, a.name))
		}
		v, err := nativeText(a.name, item)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, v...)
	}
	return append(list, ']'), nil
}

// schema checks the parameters that Kinto's schema types and reads the values of all. Its errors come together, sorted by name.
func (p *parse) schema() error {
	p.values = make([]canon.Value, len(p.q.params))
	p.ints, p.texts = map[string]int64{}, map[string]string{}
	var details []Detail
	for i := range p.q.params {
		a := &p.q.params[i]
		value, err := p.value(a)
		if err != nil {
			return err
		}
		var why string
		switch a.name {
		case "_limit", "_since", "_to", "_before", fieldModified:
			value, why = p.intParam(a, value)
		case "_token", fieldID:
			value, why = p.textParam(a, value)
		}
		if why != "" {
			details = append(details, Detail{Name: a.name, Description: why})
		}
		p.values[i] = value
	}
	if len(details) > 0 {
		return newError(details...)
	}
	return nil
}

func (p *parse) value(a *param) (canon.Value, error) {
	switch {
	case strings.HasPrefix(a.name, "contains_"):
		v, err := a.native()
		if err == nil && v.Kind() != canon.Array {
			v = append(append(canon.Value{'['}, v...), ']')
		}
		if v.Len() > MaxContainsValues {
			err = refuseValue(a.name)
		}
		return v, err
	case strings.HasPrefix(a.name, "in_"), strings.HasPrefix(a.name, "exclude_"):
		return a.listValues()
	}
	return a.native()
}

// untyped undoes the reading of true and false, which Kinto's schema takes as texts.
func untyped(a *param, value canon.Value) canon.Value {
	if value.Kind() == canon.Bool {
		return stringValue(a.values[0])
	}
	return value
}

// falsy is Python's "not value".
func falsy(v canon.Value) bool {
	switch v.Kind() {
	case canon.Number:
		f, _ := v.Float()
		return f == 0
	case canon.Bool:
		return v[0] == 'f'
	}
	return v.Kind() == canon.Null || len(v) == 2 // "", [] or {}
}

// maxInteger is Kinto's POSTGRESQL_MAX_INTEGER_VALUE.
var maxInteger = new(big.Int).Lsh(big.NewInt(1), 63)

// intParam reads an integer as colander does. An empty value counts as absent and keeps its untyped value.
func (p *parse) intParam(a *param, value canon.Value) (result canon.Value, why string) {
	typed := untyped(a, value)
	if falsy(typed) && typed.Kind() != canon.Number {
		return value, ""
	}
	n, ok := pythonInt(typed)
	switch {
	case !ok:
		return value, fmt.Sprintf(`"%s" is not a number`, pythonStr(typed))
	case n.Sign() < 0:
		return value, fmt.Sprintf("%s is less than minimum value 0", n)
	case n.Cmp(maxInteger) > 0:
		return value, fmt.Sprintf("%s is greater than maximum value %s", n, maxInteger)
	}
	i := int64(math.MaxInt64) // 2^63 is as good as infinite
	if n.IsInt64() {
		i = n.Int64()
	}
	p.ints[a.name] = i
	return canon.Value(n.String()), ""
}

// textParam reads a text as colander does. An empty value counts as absent and keeps its untyped value.
func (p *parse) textParam(a *param, value canon.Value) (result canon.Value, why string) {
	typed := untyped(a, value)
	if falsy(typed) {
		return value, ""
	}
	text, ok := typed.String()
	if !ok {
		return value, fmt.Sprintf("%s is not a string: {'%s': ''}", pythonStr(typed), a.name)
	}
	p.texts[a.name] = text
	return typed, ""
}

// pythonStr is Python's str().
func pythonStr(v canon.Value) string {
	if text, ok := v.String(); ok {
		return text
	}
	return canon.Python(v)
}

// pythonInt is Python's int(): it truncates floats and reads texts with white space, a sign and single underscores.
func pythonInt(v canon.Value) (*big.Int, bool) {
	switch v.Kind() {
	case canon.Number:
		if v.IsInt() {
			return new(big.Int).SetString(string(v), 10)
		}
		f, _ := v.Float()
		n, _ := big.NewFloat(f).Int(nil)
		return n, true
	case canon.String:
		text, _ := v.String()
		text = strings.TrimSpace(text)
		if !digitsWithUnderscores(strings.TrimLeft(text[:min(1, len(text))], "+-") + text[min(1, len(text)):]) {
			return nil, false
		}
		return new(big.Int).SetString(strings.ReplaceAll(text, "_", ""), 10)
	}
	return nil, false
}

func digitsWithUnderscores(s string) bool {
	for part := range strings.SplitSeq(s, "_") {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return false
		}
	}
	return true
}

// isFieldName reports whether s is one or more of Python's \w and dots.
func isFieldName(s string) bool {
	for _, r := range s {
		if r != '_' && r != '.' && !unicode.IsLetter(r) && !unicode.IsNumber(r) {
			return false
		}
	}
	return s != ""
}
