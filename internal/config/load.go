package config

import (
	"maps"
	"slices"
	"strings"
)

const (
	// HostKey and PortKey are the names of [server:main]'s settings in Options.Flags.
	HostKey = serverPrefix + "host"
	// PortKey is the TCP port; as a flag it is also `%(http_port)s` of the file.
	PortKey = serverPrefix + "port"
	// DefaultPort is `%(http_port)s` unless a flag says otherwise, as in `kinto start`.
	DefaultPort = "8888"
)

// Options say where the settings come from.
type Options struct {
	// Path is the INI file; empty: none.
	Path string
	// Environ is the environment as os.Environ returns it.
	Environ []string
	// Flags are settings given on the command line, by their names in the table
	// (`quinto.data_dir`, HostKey, PortKey). They win over everything.
	Flags map[string]string
	// Policies are the classes of authentication policies that the program has beside BasicAuthPolicy.
	Policies []string
	// Plugins are the names that `includes` may load.
	Plugins []string
	// Effective are patterns of further names that have an effect, those of plugins (`history.*`).
	Effective []string
	// Beside: a command reads the settings of a node that may have been given the rest
	// of them by flags. What concerns only its wires to other nodes need not be whole.
	Beside bool
}

// entry is one value and where it comes from, for errors.
type entry struct{ text, source, section, key string }

// loader gathers the values of one Load, by name without `kinto.`.
type loader struct {
	opts    Options
	env     map[string]string
	values  map[string]entry
	logging Logging
}

// Load reads the file, the environment and the flags. The error is one line and
// wraps ErrInvalid.
func Load(opts Options) (*Config, error) {
	l := &loader{opts: opts, env: environment(opts.Environ), values: map[string]entry{}}
	if err := l.readFile(); err != nil {
		return nil, err
	}
	rows := Settings()
	for _, row := range rows {
		if !strings.HasPrefix(row.Name, serverPrefix) {
			l.fromEnv(row.Name)
		}
	}
	for _, name := range slices.Collect(maps.Keys(l.values)) {
		if !strings.HasPrefix(name, serverPrefix) {
			l.fromEnv(name)
		}
	}
	for name, text := range opts.Flags {
		l.values[name] = entry{text: text, source: "command line", key: name}
	}
	c := &Config{Path: opts.Path, Principals: map[string][]string{}, lookup: l.lookup, Logging: l.logging,
		CacheExpires: map[string]int64{}, Disabled: map[string]bool{}, IDGenerators: map[string]string{}}
	for _, row := range rows {
		if err := l.assign(c, row); err != nil {
			return nil, err
		}
	}
	c.Memory = Text(l.values["storage_backend"].text) == memoryStorage
	c.EOS.At, _ = parseDate(c.EOS.Date) // checked by its row
	if err := l.edgeFamilies(c); err != nil {
		return nil, err
	}
	if err := l.policies(c); err != nil {
		return nil, err
	}
	if err := l.listeners(c); err != nil {
		return nil, err
	}
	l.sortOut(c)
	c.answers = l.answering()
	return c, l.crossChecks(c)
}

func (l *loader) readFile() error {
	if l.opts.Path == "" {
		return nil
	}
	f, err := readFile(l.opts.Path, map[string]string{"http_port": l.httpPort()})
	if err != nil {
		return err
	}
	l.logging = f.logging
	for _, key := range slices.Sorted(maps.Keys(f.app)) {
		name := strings.TrimPrefix(key, kintoPrefix)
		if other, twice := l.values[name]; twice && other.text != f.app[key] {
			return &SettingError{Source: f.path, Section: appSection, Key: key, Problem: "is in conflict with " + other.key, Allowed: "one of the two, or the same value"}
		}
		l.values[name] = entry{text: f.app[key], source: f.path, section: appSection, key: key}
	}
	if use := l.values["use"]; strings.HasPrefix(use.text, "config:") {
		return &SettingError{Source: f.path, Section: appSection, Key: use.key, Problem: "other files cannot be included", Allowed: "egg:kinto"}
	}
	// Other keys of this section are for Kinto's own HTTP server.
	for _, key := range []string{"host", "port"} {
		if text, ok := f.server[key]; ok {
			l.values[serverPrefix+key] = entry{text: text, source: f.path, section: serverSection, key: key}
		}
	}
	return nil
}

func (l *loader) httpPort() string {
	if port := l.opts.Flags[PortKey]; port != "" {
		return port
	}
	return DefaultPort
}

func environment(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok {
			env[name] = value
		}
	}
	return env
}

// lookup finds a setting that has no row.
func (l *loader) lookup(name string) (string, bool) {
	if from, ok := l.environ(name); ok {
		return from.text, true
	}
	from, ok := l.values[name]
	return from.text, ok
}

// fromEnv lets the environment replace a setting; with the prefix it wins over without.
func (l *loader) fromEnv(name string) {
	if from, ok := l.environ(name); ok {
		l.values[name] = from
	}
}

func (l *loader) environ(name string) (entry, bool) {
	variable := strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(name))
	for _, variable := range []string{"KINTO_" + variable, variable} {
		if text, ok := l.env[variable]; ok {
			return entry{text: text, source: "environment", key: variable}, true
		}
	}
	return entry{}, false
}

func (l *loader) assign(c *Config, row Setting) error {
	from, given := l.values[row.Name]
	if !given {
		from = entry{text: row.Default, source: "default", key: row.Name}
		if row.Name == PortKey {
			from.text = l.httpPort()
		}
	}
	if problem := row.assign(c, from.text); problem != nil {
		return from.fail(problem.Problem, problem.Allowed)
	}
	return nil
}

// fail makes the error about a value say where it stands.
func (e entry) fail(problem, allowed string) error {
	return &SettingError{Source: e.source, Section: e.section, Key: e.key, Problem: problem, Allowed: allowed}
}

// sortOut lists what the file or the environment says in vain.
func (l *loader) sortOut(c *Config) {
	knows := knowledge(l.opts.Effective)
	for name, from := range l.values {
		if strings.HasPrefix(name, serverPrefix) {
			continue
		}
		switch known, effect := knows(name); {
		case !known:
			c.Unknown = append(c.Unknown, from.key)
		case !effect && from.text != "":
			c.NoEffect = append(c.NoEffect, from.key)
		}
	}
	for _, plugin := range c.Includes {
		if !slices.Contains(l.opts.Plugins, plugin) {
			c.NoEffect = append(c.NoEffect, "includes "+plugin)
		}
	}
	slices.Sort(c.Unknown)
	slices.Sort(c.NoEffect)
}

// crossChecks are the rules about more than one setting.
func (l *loader) crossChecks(c *Config) error {
	c.Cluster.Join = splitCommas(c.Cluster.Join)
	if !l.opts.Beside {
		if err := l.wireChecks(c); err != nil {
			return err
		}
	}
	many, name := len(c.Cluster.Join) > 0, "quinto.join"
	if !many && c.Cluster.Expect > 0 {
		many, name = true, "quinto.expect"
	}
	switch {
	case many && c.Memory:
		return l.values[name].fail("a node whose storage backend is memory cannot be one of several", "a single node, or the durable storage backend")
	case many && !l.opts.Beside && (c.Cluster.Address == "" || c.Cluster.Gossip == ""):
		return l.values[name].fail("quinto.cluster or quinto.gossip is missing", "HOST:PORT for both")
	case c.Raft.ElectionTimeout < c.Raft.HeartbeatTimeout:
		return l.value("quinto.election_timeout_ms").fail("is less than quinto.heartbeat_timeout_ms", "at least that")
	case c.Raft.LeaseTimeout > c.Raft.HeartbeatTimeout:
		return l.value("quinto.lease_timeout_ms").fail("is more than quinto.heartbeat_timeout_ms", "at most that")
	case c.Health.StallExit <= c.Health.StallTimeout:
		return l.value("quinto.stall_exit_seconds").fail("is not more than quinto.stall_timeout_seconds", "more than that")
	case c.Health.ClockMax < c.Health.ClockWarn:
		return l.value("quinto.clock_max_seconds").fail("is less than quinto.clock_warn_seconds", "at least that")
	case c.Limits.RecordBytes > c.Limits.BodyBytes:
		return l.value("quinto.limit_record_bytes").fail("is more than quinto.limit_body_bytes", "at most that")
	case c.Backup.ArchiveLog && c.Backup.To == "":
		return l.value("quinto.archive_log").fail("quinto.backup_to is empty", "a place for the archives that the log goes with")
	case c.Store.EventsMaximum < c.Store.EventsRetained:
		return l.value("quinto.events_maximum").fail("is less than quinto.events_retained", "at least that")
	}
	return nil
}

// value is where a setting comes from, also if that is its default.
func (l *loader) value(name string) entry {
	if from, given := l.values[name]; given {
		return from
	}
	return entry{source: "default", key: name}
}

func splitCommas(list []string) []string {
	return strings.FieldsFunc(strings.Join(list, ","), func(r rune) bool { return r == ',' })
}
