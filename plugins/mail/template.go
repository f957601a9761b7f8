package mail

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"quinto/internal/canon"
	"quinto/plugins"
)

func tooMany(n int) error {
	return plugins.Permanent(fmt.Errorf("mail: %d recipients, up to %d are allowed", n, MaxRecipients))
}

// contextOfSettings is what templates know of the server. Who sent the request is not
// known when a mail is made: its address and its browser are empty.
func contextOfSettings(s *plugins.Settings) map[string]canon.Value {
	values := map[string]canon.Value{"client_address": quoted(""), "user_agent": quoted(""), "event": quoted("kinto.core.events.ResourceChanged")}
	root := ""
	if host := s.Text("http_host", ""); host != "" {
		root = s.Text("http_scheme", "http") + "://" + host + "/v1/"
	}
	values["root_url"] = quoted(root)
	settings := canon.Value("{}")
	for _, name := range []string{"project_name", "project_version"} {
		if text, ok := s.Lookup(name); ok {
			settings = canon.Set(settings, name, quoted(text))
		}
	}
	values["settings"] = settings
	return values
}

func quoted(s string) canon.Value { return canon.AppendString(nil, s) }

// values are the placeholders of a change: Kinto's payload, its objects, and the
// settings'.
func (m *Mail) values(d *plugins.Delivery) map[string]canon.Value {
	values := map[string]canon.Value{"record_id": quoted("{record_id}"), "collection_id": quoted("{collection_id}")}
	canon.Value(plugins.Payload(d)).Each(func(name string, v canon.Value) bool {
		values[name] = v
		return true
	})
	for name, v := range m.context {
		values[name] = v
	}
	values["id"] = quoted(d.Event.Path.ID())
	return values
}

// format fills the placeholders of Python's str.format: {name}, {name[key][0]}, {{
// and }}. What is none of ours stays as it is written. The result ends at most bytes.
func format(text string, values map[string]canon.Value, most int) string {
	var b strings.Builder
	for text != "" && b.Len() < most {
		at := strings.IndexAny(text, "{}")
		if at < 0 {
			b.WriteString(text)
			break
		}
		b.WriteString(text[:at])
		text = text[at:]
		end := strings.IndexByte(text, '}')
		switch {
		case strings.HasPrefix(text, "{{"), strings.HasPrefix(text, "}}"):
			b.WriteByte(text[0])
			text = text[2:]
		case text[0] == '}' || end < 0:
			b.WriteByte(text[0])
			text = text[1:]
		default:
			if v, ok := find(text[1:end], values); ok {
				b.WriteString(shown(v))
			} else {
				b.WriteString(text[:end+1])
			}
			text = text[end+1:]
		}
	}
	if b.Len() > most {
		return strings.ToValidUTF8(b.String()[:most], "")
	}
	return b.String()
}

// find follows name[key][0].
func find(field string, values map[string]canon.Value) (v canon.Value, ok bool) {
	name, rest, _ := strings.Cut(field, "[")
	if v, ok = values[name]; !ok || (rest == "" && len(field) > len(name)) {
		return nil, false
	}
	for rest != "" {
		key, after, closed := strings.Cut(rest, "]")
		if !closed {
			return nil, false
		}
		if v.Kind() == canon.Array {
			at, err := strconv.Atoi(key)
			if err != nil || at < 0 || at >= v.Len() {
				return nil, false
			}
			v.Elements(func(e canon.Value) bool {
				v = e
				at--
				return at >= 0
			})
		} else if v, ok = v.Get(key); !ok {
			return nil, false
		}
		if after == "" {
			break
		}
		if rest, ok = strings.CutPrefix(after, "["); !ok {
			return nil, false
		}
	}
	return v, true
}

// shown is Python's str().
func shown(v canon.Value) string {
	if s, ok := v.String(); ok {
		return s
	}
	return canon.Python(v)
}

// oneLine makes a text fit for a header.
func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s))
}
