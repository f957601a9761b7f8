package config

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// Setting is one row of the table of settings.
type Setting struct {
	// Name is written without `kinto.`; rows of [server:main] are `server.<key>`.
	Name string
	// Default is the value as a file would say it.
	Default string
	// Doc says in one sentence what it is for.
	Doc string
	// Min and Max bound a number, in the unit that the name tells.
	Min, Max int64
	// Unit is what one of a duration's number is worth.
	Unit time.Duration
	// Optional allows an empty value where a number is expected; it means 0.
	Optional bool
	// Secret values are never repeated in an error.
	Secret bool

	// check refuses a text by saying what is allowed; nil accepts all.
	check func(text string) (allowed string, ok bool)
	// field returns where the value goes: a pointer to string, bool, int, int64,
	// []string or time.Duration, a grant or a named; nil: known, without effect.
	field func(c *Config) any
}

// grant is the place of a `<resource>_<permission>_principals` setting.
type grant struct {
	into map[string][]string
	key  string
}

const (
	serverPrefix = "server."
	kintoPrefix  = "kinto."

	policyPrefix   = "multiauth.policy."
	listenerPrefix = "event_listeners."
)

// Settings returns all rows in the order of the documentation.
func Settings() []Setting {
	rows := append(serverSettings(), kintoSettings()...)
	rows = append(rows, principalSettings()...)
	return append(rows, quintoSettings()...)
}

// Known reports whether a name (without `kinto.`) means something to quinto or to
// Kinto, and whether it has an effect here.
func Known(name string) (known, effect bool) { return knowledge(nil)(name) }

// knowledge is Known for many names: the table is made once. What matches one of
// effective has an effect.
func knowledge(effective []string) func(name string) (known, effect bool) {
	rows := map[string]bool{"use": true}
	for _, row := range Settings() {
		rows[row.Name] = !strings.HasPrefix(row.Name, serverPrefix)
	}
	groups := append(kintoOfPlugins(), kintoWithoutEffect()...)
	return func(name string) (known, effect bool) {
		if rows[name] || strings.HasPrefix(name, policyPrefix) || strings.HasPrefix(name, listenerPrefix) || edgeFamily(name) {
			return true, true
		}
		for _, pattern := range effective {
			if match, err := path.Match(pattern, name); err == nil && match {
				return true, true
			}
		}
		for _, group := range groups {
			for pattern := range strings.FieldsSeq(group.names) {
				if match, err := path.Match(pattern, name); err == nil && match {
					return true, false
				}
			}
		}
		return false, false
	}
}

// kind names the type of a row's value for the documentation.
func (s Setting) kind() string {
	switch s.field(&Config{}).(type) {
	case *bool:
		return "true or false"
	case *int, *int64, *time.Duration:
		text := fmt.Sprintf("whole number, %d to %d", s.Min, s.Max)
		if s.Optional {
			text += ", or empty"
		}
		return text
	case *[]string, grant:
		return "list"
	}
	return "text"
}

// Markdown renders the table as docs/settings.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# Settings

This page is made from the table in ` + "`internal/config`" + ` (` + "`go test ./internal/config -run TestDocs -update`" + `).

The file is Kinto's INI: ` + "`[server:main]`" + ` for host and port, ` + "`[app:main]`" + ` for all others, ` + "`%(name)s`" + ` for another key of
the section, of ` + "`[DEFAULT]`" + `, or ` + "`%(here)s`" + `, the file's folder. A name may start with ` + "`kinto.`" + `; both forms with different
values stop the start. A list is split at blanks and newlines. Every setting of ` + "`[app:main]`" + ` can come from the environment: its name in upper case,
` + "`.` and `-` as `_`, with or without `KINTO_`" + ` (` + "`KINTO_PAGINATE_BY`, `QUINTO_DATA_DIR`" + `); a value that is JSON is read as JSON.
A flag wins over the environment, the environment over the file, the file over the default. Unknown names are ignored, with one
line of warning that lists them.

`)
	section := func(title string, rows []Setting) {
		fmt.Fprintf(&b, "## %s\n\n| name | default | value | meaning |\n| --- | --- | --- | --- |\n", title)
		for _, row := range rows {
			value := row.Default
			if value != "" {
				value = "`" + value + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", strings.TrimPrefix(row.Name, serverPrefix), value, row.kind(), row.Doc)
		}
		b.WriteString("\n")
	}
	section("[server:main]", serverSettings())
	section("[app:main]: Kinto's settings", append(kintoSettings(), principalSettings()...))
	b.WriteString("Families: `multiauth.policy.<name>.use` and its parameters, for each name in `multiauth.policies`;\n" +
		"`event_listeners.<name>.use`, `.actions` (create update delete; flush), `.resources` (all), `.url`, `.secret` and further parameters,\nfor each name in `event_listeners`.\n\n" +
		"`<resource>_cache_expires_seconds`: how long the anonymous may keep answers about a resource (bucket, collection, group, record); 0 forbids it.\n" +
		"For records also `<bucket>.record_cache_expires_seconds` and `<bucket>.<collection>.record_cache_expires_seconds`, the narrowest counts, and the older forms with `_`;\n" +
		"a collection's attribute `cache_expires` counts if it is more. `plural_<resource>_<method>_enabled` and `object_<resource>_<method>_enabled`, `false`: that method\n" +
		"on the resource's list or objects answers 405.\n\n")
	section("[app:main]: quinto's own settings", quintoSettings())
	b.WriteString("## Settings of built-in plugins\n\nThey have an effect when `includes` names the plugin, or a policy uses it; see [plugins.md](plugins.md).\n\n| names | for |\n| --- | --- |\n")
	for _, group := range kintoOfPlugins() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.Join(strings.Fields(group.names), "` `"), group.what)
	}
	b.WriteString("\n## Known to Kinto, accepted, without effect yet\n\nA start with one of these says so in its line of warning.\n\n| names | for |\n| --- | --- |\n")
	for _, group := range kintoWithoutEffect() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.Join(strings.Fields(group.names), "` `"), group.what)
	}
	return b.String()
}
