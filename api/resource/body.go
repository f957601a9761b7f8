package resource

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
)

// MaxMembers bounds the members of a group; each is a row of the store.
const MaxMembers = 10_000

// mediaType is a Content-Type without its parameters.
func mediaType(value string) string {
	media, _, _ := strings.Cut(value, ";")
	return strings.TrimSpace(media)
}

func isJSONType(media string) bool {
	rest, ok := strings.CutPrefix(media, "application/")
	return media == "" || ok && strings.HasSuffix(rest, "json")
}

// parsed is a request's body: the canonical document, or what is wrong with it.
type parsed struct {
	done  bool
	empty bool
	value canon.Value
	fault *problem // not JSON, or a scalar
	err   *Failure // beyond a limit
}

// parse reads the body once. Whether it counts is the caller's business: Kinto
// looks for data.id in any body before it looks at the Content-Type.
func (p *parsed) parse(body []byte, limits canon.Limits) {
	if p.done {
		return
	}
	p.done, p.empty = true, len(body) == 0
	if p.empty {
		return
	}
	text, err := canon.Canonical(body, limits)
	v := canon.Value(text)
	var limit *canon.LimitError
	switch {
	case errors.As(err, &limit):
		p.err = invalid(problem{location: "body", description: limit.Error()})
	case err != nil:
		p.fault = &problem{location: "body", description: err.Error()}
	case v.Kind() != canon.Object && v.Kind() != canon.Array:
		p.fault = &problem{location: "body", description: "Should be a JSON object or an array"}
	default:
		p.value = v
	}
}

// payload is the validated body of a write.
type payload struct {
	empty       bool                // neither data nor permissions
	hasData     bool                // data was sent
	data        canon.Value         // without id and last_modified
	id          canon.Value         // data.id; Missing when absent
	modified    canon.Value         // data.last_modified; Missing when absent
	permissions map[string][]string // without those that are null
	nulls       []string            // known permissions that are null, which a merge patch removes
}

// mapping is Kinto's complaint about a value that is not an object.
func mapping(v canon.Value) string {
	return `"` + pythonString(v) + `" is not a mapping type: Does not implement dict-like functionality.`
}

// pythonString is Python's str(): a string as itself, anything else as repr().
func pythonString(v canon.Value) string {
	if s, ok := v.String(); ok {
		return s
	}
	return canon.Python(v)
}

func unrecognized(keys canon.Value) string {
	return `Unrecognized keys in mapping: "` + canon.Python(keys) + `"`
}

// unknownKeys gives the members of v that are not known, as an object; nil when
// there are none.
func unknownKeys(v canon.Value, known ...string) canon.Value {
	out := objectBuilder{}
	v.Each(func(key string, val canon.Value) bool {
		if !slices.Contains(known, key) && len(out) < maxDescription {
			out.add(key, val)
		}
		return true
	})
	if len(out) == 0 {
		return nil
	}
	return out.value()
}

// objectBuilder builds a canonical object from members with unique keys.
type objectBuilder []byte

func (b *objectBuilder) add(key string, val canon.Value) {
	*b = append(*b, ',')
	*b = append(append(canon.AppendString(*b, key), ':'), val...)
}

func (b objectBuilder) value() canon.Value {
	if len(b) == 0 {
		return canon.Value("{}")
	}
	b[0] = '{'
	return append(canon.Value(b), '}')
}

// validate checks the body of a PUT, POST or PATCH against the kind, as
// Kinto's colander schemas do: names and texts of the problems are theirs.
func (p *parsed) validate(k *Kind, patch bool) (pl payload, problems []problem) {
	body := func(name, description string) {
		problems = append(problems, problem{location: "body", name: name, description: description})
	}
	if p.fault != nil {
		return pl, []problem{*p.fault, {location: "body", description: "Required"}}
	}
	if p.empty {
		pl.empty = true
		if k.NeedsData && !patch {
			body("data", "Required")
		}
		return pl, problems
	}
	if p.value.Kind() != canon.Object {
		body("", mapping(p.value))
		return pl, problems
	}
	if u := unknownKeys(p.value, "data", "permissions"); u != nil {
		body("", unrecognized(u))
		return pl, problems
	}
	data, hasData := p.value.Get("data")
	given, hasPermissions := p.value.Get("permissions")
	pl.empty, pl.hasData = !hasData && !hasPermissions, hasData
	if !hasData && k.NeedsData && !patch {
		body("data", "Required")
	}
	if hasData && data.Kind() != canon.Object {
		body("data", mapping(data))
	} else if hasData {
		problems = append(problems, pl.takeData(k, data, patch)...)
	}
	if hasPermissions {
		var found []problem
		pl.permissions, found = readPermissions(k, given)
		problems = append(problems, found...)
		for _, name := range k.Permissions {
			if v, ok := given.Get(name); ok && v.Kind() == canon.Null {
				pl.nulls = append(pl.nulls, name)
			}
		}
	}
	return pl, problems
}

func (pl *payload) takeData(k *Kind, data canon.Value, patch bool) (problems []problem) {
	if !patch && k.Check != nil {
		var flaws []Flaw
		data, flaws = k.Check(data)
		for _, f := range flaws {
			problems = append(problems, problem{location: "body", name: "data." + f.Name, description: f.Description})
		}
	}
	var ok bool
	if pl.id, ok = data.Get("id"); ok {
		data = canon.Delete(data, "id")
	}
	if pl.modified, ok = data.Get("last_modified"); ok {
		data = canon.Delete(data, "last_modified")
	}
	pl.data = data
	return problems
}

// readPermissions checks a permissions object: known names, lists of strings.
// A permission that is null is left out, as Kinto's PATCH and PUT do.
func readPermissions(k *Kind, v canon.Value) (map[string][]string, []problem) {
	fault := func(name, description string) []problem {
		return []problem{{location: "body", name: name, description: description}}
	}
	if v.Kind() != canon.Object {
		return nil, fault("permissions", mapping(v))
	}
	out := map[string][]string{}
	var problems []problem
	v.Each(func(name string, principals canon.Value) bool {
		if principals.Kind() == canon.Null {
			return true
		}
		if !slices.Contains(k.Permissions, name) {
			problems = fault("permissions", fmt.Sprintf(`"%s" is not one of %s`, name, strings.Join(k.Permissions, ", ")))
			return false
		}
		list, flaws := stringList("permissions."+name, principals, checkPrincipal)
		for _, f := range flaws {
			problems = append(problems, fault(f.Name, f.Description)...)
		}
		out[name] = list
		return true
	})
	return out, problems
}

// checkPrincipal refuses what cannot be a key of the store.
func checkPrincipal(s string) string {
	if len(s) > fsm.MaxNameBytes {
		return fmt.Sprintf("Longer than %d bytes", fsm.MaxNameBytes)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "Invalid character 0x00"
	}
	return ""
}

// stringList reads a list of non-empty strings as colander does.
func stringList(name string, v canon.Value, check func(string) string) (out []string, flaws []Flaw) {
	if v.Kind() != canon.Array {
		return nil, []Flaw{{Name: name, Description: `"` + pythonString(v) + `" is not iterable`}}
	}
	i := 0
	v.Elements(func(e canon.Value) bool {
		at := name + "." + strconv.Itoa(i)
		i++
		s, ok := e.String()
		switch {
		case falsy(e):
			flaws = append(flaws, Flaw{Name: at, Description: "Required"})
		case !ok:
			flaws = append(flaws, Flaw{Name: at, Description: canon.Python(e) + " is not a string: {'': ''}"})
		default:
			if why := check(s); why != "" {
				flaws = append(flaws, Flaw{Name: at, Description: why})
			}
			out = append(out, s)
		}
		return true
	})
	return out, flaws
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
	return len(v) == 2 || v.Kind() == canon.Null || v.Kind() == canon.Missing // "", [], {}
}

// checkMember refuses members that are not users (Kinto 4.2).
func checkMember(s string) string {
	if strings.HasPrefix(s, "/buckets/") || s == Everyone {
		return "'" + s + "' is not a valid user ID."
	}
	return checkPrincipal(s)
}

func checkGroup(data canon.Value) (canon.Value, []Flaw) {
	members, ok := data.Get("members")
	if !ok {
		return canon.Set(data, "members", canon.Value("[]")), nil
	}
	if members.Len() > MaxMembers {
		return data, []Flaw{{Name: "members", Description: fmt.Sprintf("More than %d members", MaxMembers)}}
	}
	_, flaws := stringList("members", members, checkMember)
	return data, flaws
}

// groupMembers gives the members of a group that was checked.
func groupMembers(data canon.Value) []string {
	members, _ := data.Get("members")
	var out []string
	members.Elements(func(e canon.Value) bool {
		if s, ok := e.String(); ok {
			out = append(out, s)
		}
		return true
	})
	slices.Sort(out)
	return slices.Compact(out)
}

func checkBucket(data canon.Value) (canon.Value, []Flaw) {
	var flaws []Flaw
	for _, name := range bucketSchemas {
		flaws = append(flaws, checkSchemaField(data, name)...)
	}
	return data, flaws
}

func checkCollection(data canon.Value) (canon.Value, []Flaw) {
	flaws := checkSchemaField(data, "schema")
	expires, ok := data.Get("cache_expires")
	if !ok {
		return data, flaws
	}
	if falsy(expires) && expires.Kind() != canon.Number && expires.Kind() != canon.Bool {
		return canon.Delete(data, "cache_expires"), flaws
	}
	n, ok := coerceInt(expires)
	if !ok {
		return data, append(flaws, Flaw{Name: "cache_expires", Description: `"` + pythonString(expires) + `" is not a number`})
	}
	return canon.Set(data, "cache_expires", n), flaws
}

// coerceInt is Python's int() where it gives a number that fits.
func coerceInt(v canon.Value) (canon.Value, bool) {
	switch v.Kind() {
	case canon.Bool:
		if v[0] == 't' {
			return canon.Value("1"), true
		}
		return canon.Value("0"), true
	case canon.Number:
		if f, _ := v.Float(); !v.IsInt() && math.Abs(f) < 1<<62 {
			return strconv.AppendInt(nil, int64(f), 10), true
		}
		return v, true
	case canon.String:
		s, _ := v.String()
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		return strconv.AppendInt(nil, n, 10), err == nil
	}
	return nil, false
}
