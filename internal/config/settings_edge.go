package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// CORS is what browsers on other sites are allowed (Kinto section 2).
type CORS struct {
	// Origins are the patterns of allowed origins, as OriginPattern reads them; none: CORS is off.
	Origins []string
	// MaxAge is how long a preflight may be remembered; 0: Access-Control-Max-Age is not sent.
	MaxAge time.Duration
}

// EOS is the end of the service (Kinto 8.3).
type EOS struct {
	// Date is `eos` as it was written; empty: no end is planned.
	Date string
	// At is Date as an instant.
	At time.Time
	// Message goes into the header Alert; empty: null there.
	Message string
	// URL goes into the header Alert; empty: Project.Docs.
	URL string
}

// Redirects say which URLs lead to another (Kinto 1.d).
type Redirects struct {
	// Version leads paths without a version to this one.
	Version bool
	// VersionSeconds is how long that may be cached; negative: no header says so.
	VersionSeconds int
	// Slash leads paths with a slash at the end to those without.
	Slash bool
	// SlashSeconds is how long that may be cached; negative: no header says so.
	SlashSeconds int
}

// The classes of Kinto's generators of ids.
const (
	NameGenerator = "kinto.views.NameGenerator"
	RelaxedUUID   = "kinto.views.RelaxedUUID"
	UUID4         = "kinto.core.storage.generators.UUID4"
)

func edgeSettings() []Setting {
	seconds := func(name, initial, doc string, field func(c *Config) any) Setting {
		return Setting{Name: name, Default: initial, Min: -1, Max: maxSeconds, Doc: doc, field: field}
	}
	rows := []Setting{
		{Name: "cors_origins", Default: "*", Doc: "Origins that browsers may come from; `*`, `?` and `[…]` stand for other characters, as in file names.",
			check: origins, field: func(c *Config) any { return &c.CORS.Origins }},
		{Name: "cors_max_age_seconds", Default: "3600", Optional: true, Max: maxSeconds, Unit: time.Second, Doc: "How long a browser may remember a preflight; empty or 0: it is not told.",
			field: func(c *Config) any { return &c.CORS.MaxAge }},
		{Name: "eos", Doc: "When the service ends (`2030-01-31`, `2030-01-31T12:00:00Z`; local time unless it says otherwise): before, every answer has an `Alert`, after it is 410.",
			check: endOfService, field: func(c *Config) any { return &c.EOS.Date }},
		{Name: "eos_message", Doc: "`message` of that `Alert`.", field: func(c *Config) any { return &c.EOS.Message }},
		{Name: "eos_url", Doc: "`url` of that `Alert`; empty: `project_docs`.", field: func(c *Config) any { return &c.EOS.URL }},
		{Name: "version_prefix_redirect_enabled", Default: "true", Doc: "Lead paths without a version to `/v1`.",
			field: func(c *Config) any { return &c.Redirects.Version }},
		seconds("version_prefix_redirect_ttl_seconds", "-1", "How long that may be cached; negative: no header says so.", func(c *Config) any { return &c.Redirects.VersionSeconds }),
		{Name: "trailing_slash_redirect_enabled", Default: "true", Doc: "Lead paths with a slash at the end to those without.",
			field: func(c *Config) any { return &c.Redirects.Slash }},
		seconds("trailing_slash_redirect_ttl_seconds", "3600", "How long that may be cached; negative: no header says so.", func(c *Config) any { return &c.Redirects.SlashSeconds }),
	}
	for _, g := range [][2]string{{"bucket", NameGenerator}, {"collection", NameGenerator}, {"group", NameGenerator}, {"record", RelaxedUUID}} {
		rows = append(rows, Setting{Name: g[0] + "_id_generator", Default: g[1], check: oneOf("", NameGenerator, RelaxedUUID, UUID4),
			Doc:   "Makes the ids of " + g[0] + "s, and says which are valid: `" + NameGenerator + "`, `" + RelaxedUUID + "` or `" + UUID4 + "`.",
			field: func(c *Config) any { return named{c.IDGenerators, g[0]} }})
	}
	return rows
}

// named is a place in a map of texts.
type named struct {
	into map[string]string
	key  string
}

// Families of names that have no row, since a bucket's or a resource's name is part of them.
const (
	cacheSuffix   = "_cache_expires_seconds"
	enabledSuffix = "_enabled"
)

var endpointSetting = regexp.MustCompile(`^(plural|object)_[a-z_]+_(head|get|post|put|patch|delete)_enabled$`)

// edgeFamily reports whether a name is one of the families.
func edgeFamily(name string) bool {
	return strings.HasSuffix(name, cacheSuffix) || endpointSetting.MatchString(name)
}

// edgeFamilies reads what clients may keep, and the endpoints that are disabled
// (Kinto 8.4, 8.5).
func (l *loader) edgeFamilies(c *Config) error {
	rows := map[string]bool{}
	for _, row := range Settings() {
		rows[row.Name] = true
	}
	for _, kind := range []string{"bucket", "collection", "group", "record"} {
		l.fromEnv(kind + cacheSuffix)
	}
	for _, name := range slices.Sorted(maps.Keys(l.values)) {
		if rows[name] || !edgeFamily(name) {
			continue
		}
		from := l.values[name]
		row := Setting{Name: name, Max: maxSeconds, Optional: true}
		text := strings.TrimSpace(Text(from.text))
		var problem *SettingError
		if of, cache := strings.CutSuffix(name, cacheSuffix); !cache {
			enabled := true
			problem = row.assignBool(&enabled, text)
			c.Disabled[strings.TrimSuffix(name, enabledSuffix)] = !enabled
		} else if text != "" {
			problem = row.assignNumber(text, func(n int64) { c.CacheExpires[of] = n })
		}
		if problem != nil {
			return from.fail(problem.Problem, problem.Allowed)
		}
	}
	return nil
}

// EndpointEnabled reports whether no setting turns a method off; endpoint is
// "plural" or "object" (Kinto 8.5).
func (c *Config) EndpointEnabled(endpoint, resource, method string) bool {
	return !c.Disabled[endpoint+"_"+resource+"_"+strings.ToLower(method)]
}

// origins says whether a list of patterns can be read.
func origins(text string) (string, bool) {
	for _, pattern := range List(text) {
		if _, err := OriginPattern(pattern); err != nil {
			return "origins such as https://example.com, with `*`, `?` and `[…]` for other characters", false
		}
	}
	return "", true
}

// OriginPattern makes the expression of a pattern of an origin. `*` stands for any
// text, `?` for any character, `[abc]` for one of some, `[!abc]` for one of all
// others (Python's fnmatch). The error says which class of characters is none.
func OriginPattern(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString(`\A(?s:`)
	for rest := pattern; rest != ""; {
		if class, tail, ok := characterClass(rest); ok {
			b.WriteString(class)
			rest = tail
			continue
		}
		c := []rune(rest)[0]
		switch c {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteByte('.')
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
		rest = rest[len(string(c)):]
	}
	b.WriteString(`)\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("origin %q: %w", pattern, err)
	}
	return re, nil
}

// characterClass reads the `[…]` that text begins with. One that is not closed is
// an ordinary bracket.
func characterClass(text string) (class, rest string, ok bool) {
	if text[0] != '[' {
		return "", text, false
	}
	from := 1
	if strings.HasPrefix(text[from:], "!") {
		from++
	}
	if len(text) <= from+1 {
		return "", text, false
	}
	end := strings.IndexByte(text[from+1:], ']') // one right at the start is a member
	if end < 0 {
		return "", text, false
	}
	end += from + 1
	members := strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `^`, `\^`, `&`, `\&`, `~`, `\~`).Replace(text[from:end])
	if from == 2 {
		members = "^" + members
	}
	return "[" + members + "]", text[end+1:], true
}

// dateLayouts are the forms of `eos`; those without a zone are in local time.
var dateLayouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04Z07:00", time.RFC1123, time.RFC1123Z,
	"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02", "2006/01/02",
	"2 January 2006", "January 2, 2006", "2 Jan 2006", "Jan 2, 2006"}

func endOfService(text string) (string, bool) {
	_, ok := parseDate(text)
	return "a date such as 2030-01-31 or 2030-01-31T12:00:00Z", text == "" || ok
}

func parseDate(text string) (time.Time, bool) {
	for _, layout := range dateLayouts {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
