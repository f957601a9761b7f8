package mail

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/dlclark/regexp2"

	"quinto/fsm"
	"quinto/internal/canon"
)

// metadata is the member of a collection or bucket that has the hooks.
const metadata = "kinto-emailer"

// matchTime bounds one match of a pattern.
const matchTime = 20 * time.Millisecond

// filters are the fields of a hook that choose events.
var filters = [...]string{"event", "action", "resource_name", "id", "record_id", "collection_id"}

// The patterns of kinto_emailer/__init__.py; white space is Python's.
var (
	groupPattern = regexp.MustCompile(`^/buckets/[^/]+/groups/[^/]+$`)
	emailPattern = regexp.MustCompile(`^(?:.*<[^@<>\s\pZ]+@[^@<>\s\pZ]+>|[^@<>\s\pZ]+@[^@<>\s\pZ]+$)`)
)

// hook is one entry of the list of hooks.
type hook struct {
	filters                   map[string]string
	template, subject, sender string
	recipients                []string
}

// hooksOf reads the hooks of a collection or bucket of the bucket with this id. why
// says what is wrong, in kinto-emailer's words where it has some. What Kinto notices
// only while it sends, with a 500 or not at all, is refused here too.
func hooksOf(data canon.Value, bucket string) (all []hook, why string) {
	emailer, ok := data.Get(metadata)
	if !ok {
		return nil, ""
	}
	list, ok := emailer.Get("hooks")
	if !ok {
		return nil, `Missing "hooks".`
	}
	if list.Kind() != canon.Array {
		return nil, `Invalid "hooks": a list is needed.`
	}
	list.Elements(func(v canon.Value) bool {
		if len(all) == MaxHooks {
			why = fmt.Sprintf(`Invalid "hooks": up to %d are allowed.`, MaxHooks)
			return false
		}
		var h hook
		h, why = readHook(v, "/buckets/"+bucket+"/")
		all = append(all, h)
		return why == ""
	})
	return all, why
}

func readHook(v canon.Value, bucket string) (h hook, why string) {
	if v.Kind() != canon.Object {
		return h, `Invalid "hooks": a list of objects is needed.`
	}
	if _, ok := v.Get("template"); !ok {
		return h, `Missing "template".`
	}
	h.subject, h.filters = "New message", map[string]string{}
	for _, f := range []struct {
		name string
		to   *string
		most int
	}{{"template", &h.template, MaxTemplateBytes}, {"subject", &h.subject, MaxLineBytes}, {"sender", &h.sender, MaxLineBytes}} {
		given, ok := v.Get(f.name)
		if !ok || (f.name == "sender" && given.Kind() == canon.Null) {
			continue
		}
		if *f.to, ok = given.String(); !ok || len(*f.to) > f.most {
			return h, fmt.Sprintf("Invalid %q: a text of up to %d bytes is needed.", f.name, f.most)
		}
	}
	for _, name := range filters {
		given, ok := v.Get(name)
		if !ok {
			continue
		}
		text, ok := given.String()
		if !ok || len(text) > MaxLineBytes || !readable(text) {
			return h, fmt.Sprintf("Invalid %q: a text or a regular expression of up to %d bytes is needed.", name, MaxLineBytes)
		}
		h.filters[name] = text
	}
	if h.sender != "" {
		if _, err := parseAddress(h.sender); err != nil {
			return h, "Invalid sender " + h.sender
		}
	}
	return h, h.readRecipients(v, bucket)
}

func (h *hook) readRecipients(v canon.Value, bucket string) (why string) {
	list, _ := v.Get("recipients")
	var invalid, foreign []string
	texts := list.Kind() == canon.Array
	if texts {
		list.Elements(func(e canon.Value) bool {
			text, ok := e.String()
			switch {
			case !ok:
				texts = false
				return false
			case groupPattern.MatchString(text):
				if !strings.HasPrefix(text, bucket) { // kinto-emailer forgets the slash
					foreign = append(foreign, text)
				}
			default:
				if _, err := parseAddress(text); err != nil || !emailPattern.MatchString(text) {
					invalid = append(invalid, text)
				}
			}
			h.recipients = append(h.recipients, text)
			return true
		})
	}
	switch {
	case len(list) > 0 && !texts:
		return "Invalid recipients: a list of texts is needed."
	case len(h.recipients) == 0:
		return "Empty list of recipients."
	case len(h.recipients) > MaxAddresses:
		return fmt.Sprintf("Too many recipients: up to %d are allowed.", MaxAddresses)
	case len(invalid) > 0:
		return "Invalid recipients " + strings.Join(invalid, ", ")
	case len(foreign) > 0:
		return "Invalid bucket for groups " + strings.Join(foreign, ", ")
	}
	return ""
}

// parseAddress reads `a@b` or `Name <a@b>`, also where the name is not quoted as RFC
// 5322 wants it. Nothing that ends a header or a command gets through.
func parseAddress(text string) (*mail.Address, error) {
	if len(text) > MaxLineBytes || strings.IndexFunc(text, unicode.IsControl) >= 0 {
		return nil, fmt.Errorf("%q is no address", text)
	}
	if a, err := mail.ParseAddress(text); err == nil {
		return a, nil
	}
	name, address, ok := strings.Cut(text, "<")
	if !ok || !strings.HasSuffix(address, ">") {
		return nil, fmt.Errorf("%q is no address", text)
	}
	a, err := mail.ParseAddress("<" + address)
	if err != nil {
		return nil, err
	}
	a.Name = strings.TrimSpace(name)
	return a, nil
}

// readable reports whether a filter can be used: a plain text, or a pattern.
func readable(filter string) bool {
	_, err := pattern(filter)
	return !strings.HasPrefix(filter, "^") || err == nil
}

// pattern is one of Python's re.match, lookaround included.
func pattern(text string) (*regexp2.Regexp, error) {
	re, err := regexp2.Compile(`\A(?:`+text+`)`, regexp2.RE2) // with the names of groups that Python has
	if err == nil {
		re.MatchTimeout = matchTime
	}
	return re, err
}

// errPattern is a pattern that takes too long: whether it matches is not known.
var errPattern = fmt.Errorf("a pattern of a hook takes more than %v", matchTime)

// matches reports whether an event with these values passes all filters; errPattern.
func (h *hook) matches(values map[string]canon.Value) (bool, error) {
	var slow error
	for name, filter := range h.filters {
		value, _ := values[name].String()
		switch {
		case name == "event" && filter == "kinto.core.events.AfterResourceChanged":
			continue // the name in kinto-emailer's documentation
		case !strings.HasPrefix(filter, "^"):
			if value != filter {
				return false, nil
			}
			continue
		}
		re, err := pattern(filter)
		if err != nil {
			return false, err
		}
		switch ok, err := re.MatchString(value); {
		case err != nil:
			slow = fmt.Errorf("%w: %q: %.100q", errPattern, name, filter) // another filter may say no
		case !ok:
			return false, nil
		}
	}
	return slow == nil, slow
}

// expand puts the members of groups in the place of their URIs, each address once.
func (m *Mail) expand(r fsm.Reader, h *hook, values map[string]canon.Value, bucket string) (to []string, err error) {
	seen := map[string]bool{}
	add := func(address string) {
		if _, err := parseAddress(address); err == nil && emailPattern.MatchString(address) && !seen[address] {
			seen[address] = true
			to = append(to, address)
		}
	}
	for _, text := range h.recipients {
		if !groupPattern.MatchString(text) {
			add(text)
			continue
		}
		uri := format(text, values, MaxLineBytes)
		if !groupPattern.MatchString(uri) || !strings.HasPrefix(uri, "/buckets/"+bucket+"/") {
			continue
		}
		group, err := r.Get(fsm.Path(uri))
		if err != nil {
			return nil, err
		}
		if !group.Exists() {
			continue
		}
		members, _ := canon.Value(group.Data).Get("members")
		members.Elements(func(v canon.Value) bool {
			member, _ := v.String()
			if _, rest, ok := strings.Cut(member, ":"); ok {
				member = rest
			}
			add(member)
			return true
		})
	}
	if len(to) > MaxRecipients {
		return nil, tooMany(len(to))
	}
	return to, nil
}
