package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/settings.md")

// write puts an INI file with the given [app:main] lines into a folder of its own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kinto.ini")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, opts Options) *Config {
	t.Helper()
	c, err := Load(opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t, Options{})
	got := []any{c.HTTP.Host, c.HTTP.Port, c.Project.Name, c.Project.Docs, c.Memory, c.ReadOnly, c.ExplicitPermissions,
		c.Limits.BatchRequests, c.Limits.PaginateBy, c.Limits.FetchSize, c.Timeouts.PageToken, c.Timeouts.RetryAfter,
		c.Granted("bucket", "create"), c.Limits.BodyBytes, c.Limits.HeaderBytes, c.Timeouts.Read, c.Raft.CommitTimeout,
		c.Cluster.Alone()}
	want := []any{"127.0.0.1", 8888, "kinto", "https://kinto.readthedocs.io/", false, false, true,
		25, 0, 10000, 10 * time.Minute, 3 * time.Second,
		[]string{"system.Authenticated"}, 4 << 20, 16384, 10 * time.Second, 10 * time.Millisecond,
		true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// The file that real Kinto writes must start quinto, with what has no effect said in one line.
func TestFileOfKintoInit(t *testing.T) {
	c := mustLoad(t, Options{Path: "testdata/kinto_init.ini"})
	if !c.Memory || c.HTTP.Host != "127.0.0.1" || c.HTTP.Port != 8888 || len(c.Auth.UserIDSecret) != 64 {
		t.Errorf("memory %v, host %s, port %d, secret of %d", c.Memory, c.HTTP.Host, c.HTTP.Port, len(c.Auth.UserIDSecret))
	}
	includes := []string{"kinto.plugins.default_bucket", "kinto.plugins.admin", "kinto.plugins.accounts"}
	if !reflect.DeepEqual(c.Includes, includes) {
		t.Errorf("a comment between continued lines changed the list: %q", c.Includes)
	}
	if got := c.Granted("bucket", "create"); !reflect.DeepEqual(got, []string{"account:admin"}) {
		t.Errorf("bucket_create %q", got)
	}
	if len(c.Unknown) > 0 {
		t.Errorf("unknown to quinto: %q", c.Unknown)
	}
	warning := c.Warnings()[0]
	for _, part := range []string{"policy account (kinto.plugins.accounts.AccountsPolicy)", "includes kinto.plugins.admin", "kinto.default_bucket_hmac_secret"} {
		if !strings.Contains(warning, part) {
			t.Errorf("the warning lacks %q: %s", part, warning)
		}
	}
	with := mustLoad(t, Options{Path: "testdata/kinto_init.ini", Policies: kintoPolicies[:], Plugins: includes})
	if len(with.Auth.Policies) != 1 || with.Auth.Policies[0].Name != "account" {
		t.Errorf("policies %+v", with.Auth.Policies)
	}
}

func TestFileSyntax(t *testing.T) {
	path := write(t, `
[DEFAULT]
place = berlin
[server:main]
use = egg:waitress#main
host = 127.0.0.1
port: %(http_port)s
threads = 4
[app:main]
use = egg:kinto
# a comment
Kinto.Case = 1
kinto.project_name = "quoted %(place)s"
project_version = 1.10
kinto.bucket_create_principals = system.Authenticated
    # a comment inside
    /buckets/b/groups/%(mine)s

    account:bob
mine = g ; no comment
kinto.error_info_link = https://example.com/?a=b#c
quinto.data_dir = %(here)s/data
kinto.userid_hmac_secret = a%%b\
kinto.paginate_by =
includes =
    a
    ; another
    b
kinto.record_read_principals = ["system.Everyone", "account:bob"]
[logger_root]
format = %(asctime)s %(missing)s
`)
	c := mustLoad(t, Options{Path: path, Flags: map[string]string{PortKey: "9000"}})
	got := []any{c.HTTP.Port, c.Project.Name, c.Project.Version, c.Granted("bucket", "create"), c.Project.ErrorInfoLink,
		c.Cluster.DataDir, c.Auth.UserIDSecret, c.Limits.PaginateBy, c.Granted("record", "read"), c.Includes, c.Unknown}
	want := []any{9000, "quoted berlin", "1.10", []string{"system.Authenticated", "/buckets/b/groups/g", ";", "no", "comment", "account:bob"},
		"https://example.com/?a=b#c", filepath.Dir(path) + "/data", `a%b\`, 0, []string{"system.Everyone", "account:bob"}, []string{"a", "b"}, []string{"Kinto.Case", "mine"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A list may be as long as the file: no line of it may get lost.
func TestLongList(t *testing.T) {
	const lines = 5000
	text := "[app:main]\nbucket_create_principals =\n" + strings.Repeat("    basicauth:0123456789abcdef0123456789abcdef\n", lines) + "readonly = true\n"
	c := mustLoad(t, Options{Path: write(t, text)})
	if got := len(c.Granted("bucket", "create")); got != lines || !c.ReadOnly {
		t.Errorf("%d of %d lines, readonly %v", got, lines, c.ReadOnly)
	}
}

func TestPrecedence(t *testing.T) {
	path := write(t, "[app:main]\nkinto.project_name = file\nquinto.data_dir = file\n"+
		"kinto.storage_max_fetch_size = 7\nstorage_max_fetch_size = 7\nmy-thing_write_principals = x\n")
	environ := []string{"KINTO_PROJECT_NAME=env", "PROJECT_NAME=bare", "READONLY=true", "KINTO_BATCH_MAX_REQUESTS=30",
		"QUINTO_DATA_DIR=env", "KINTO_QUINTO_NAME=n1", `BUCKET_CREATE_PRINCIPALS=["a", "b"]`, "KINTO_MULTIAUTH_POLICIES=basicauth",
		"KINTO_EVENT_LISTENERS=hook", "KINTO_EVENT_LISTENERS_HOOK_USE=quinto.webhook", "EVENT_LISTENERS_HOOK_SECRET=s", "PORT=1"}
	c := mustLoad(t, Options{Path: path, Environ: environ, Flags: map[string]string{"quinto.data_dir": "flag"}})
	got := []any{c.Project.Name, c.ReadOnly, c.Limits.BatchRequests, c.Cluster.DataDir, c.Cluster.Name, c.Limits.FetchSize,
		c.Granted("bucket", "create"), c.Auth.Policies[0].Use, c.Listeners[0].Use, c.Listeners[0].Secret, c.HTTP.Port, c.NoEffect}
	want := []any{"env", true, 30, "flag", "n1", 7, []string{"a", "b"}, BasicAuthPolicy, "quinto.webhook", "s", 8888, []string{"my-thing_write_principals"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestPoliciesAndListeners(t *testing.T) {
	path := write(t, `[app:main]
multiauth.policies = first second
multiauth.policy.first.use = kinto.core.authentication.BasicAuthAuthenticationPolicy
multiauth.policy.first.realm = r
kinto.multiauth.policy.second.use = example.Policy
event_listeners = hook
                  kinto_redis.listeners
event_listeners.hook.use = quinto.webhook
event_listeners.hook.url = http://127.0.0.1:1/
event_listeners.hook.actions = create delete
event_listeners.hook.resources = record
                                 collection
event_listeners.hook.timeout = 5
`)
	c := mustLoad(t, Options{Path: path, Policies: []string{"example.Policy"}})
	policies := []Policy{{"first", BasicAuthPolicy, map[string]string{"realm": "r"}}, {"second", "example.Policy", map[string]string{}}}
	if !reflect.DeepEqual(c.Auth.Policies, policies) {
		t.Errorf("policies %+v", c.Auth.Policies)
	}
	listeners := []Listener{
		{Name: "hook", Use: "quinto.webhook", Actions: []string{"create", "delete"}, Resources: []string{"record", "collection"},
			URL: "http://127.0.0.1:1/", Params: map[string]string{"timeout": "5"}},
		{Name: "listeners", Use: "kinto_redis.listeners", Actions: []string{"create", "update", "delete"},
			Resources: []string{}, Params: map[string]string{}},
	}
	if !reflect.DeepEqual(c.Listeners, listeners) {
		t.Errorf("listeners %+v", c.Listeners)
	}
	if got := c.Warnings(); len(got) != 1 || !strings.Contains(got[0], "userid_hmac_secret is empty") {
		t.Errorf("an empty secret must be warned about: %q", got)
	}
}

// Every bad value stops the start with one line that names file, section, key, mistake and cure.
func TestBadSettings(t *testing.T) {
	cases := map[string]struct{ app, want string }{
		"number":      {"batch_max_requests = many", `kinto.ini: [app:main]: batch_max_requests: "many" is not a whole number (allowed: 1 to 10000)`},
		"bounds":      {"quinto.limit_depth = 1", `quinto.limit_depth: 1 is out of bounds (allowed: 8 to 10000)`},
		"empty":       {"retry_after_seconds =", `retry_after_seconds: "" is not a whole number`},
		"bool":        {"kinto.readonly = ture", `kinto.readonly: "ture" is neither true nor false`},
		"conflict":    {"kinto.readonly = true\nreadonly = false", `readonly: is in conflict with kinto.readonly`},
		"twice":       {"readonly = true\nreadonly = true", `readonly: is given twice`},
		"postgresql":  {"storage_backend = kinto.core.storage.postgresql", "remove the line: quinto has its own replicated and durable store and needs no database; bring the data over with: quinto import --from postgresql"},
		"redis":       {"cache_backend = kinto.core.cache.redis", "cache_backend"},
		"scheme":      {"http_scheme = ftp", "(allowed: http, https, or empty)"},
		"class":       {"multiauth.policies = x\nmultiauth.policy.x.use = a.B", `multiauth.policy.x.use: authentication policy "a.B" is not supported (allowed: kinto.core.auth`},
		"undefined":   {"multiauth.policies = x", `policy "x" is not defined (allowed: multiauth.policy.x.use`},
		"listener":    {"event_listeners = x", `listener "x" is not defined`},
		"action":      {"event_listeners = x\nevent_listeners.x.use = y\nevent_listeners.x.actions = made", `"made" is not an action`},
		"percent":     {"project_name = 100%", "percent sign that stands alone"},
		"name":        {"project_name = %(nope)s", "uses %(nope)s, which is not defined"},
		"loop":        {"project_name = %(project_name)s", "nests deeper than 10"},
		"public":      {"quinto.cluster = 10.0.0.1:7000", `quinto.cluster: "10.0.0.1:7000" lies off this machine, in plaintext (allowed: 127.0.0.1, ::1 or localhost; elsewhere quinto.cluster_tls_ca`},
		"no port":     {"quinto.gossip = 127.0.0.1", "HOST:PORT"},
		"join":        {"quinto.join = 127.0.0.1:1,8.8.8.8:1\nquinto.cluster=127.0.0.1:2\nquinto.gossip=127.0.0.1:3", `quinto.join: "8.8.8.8:1"`},
		"memory":      {"storage_backend = kinto.core.storage.memory\nquinto.expect = 3", "storage backend is memory"},
		"no cluster":  {"quinto.expect = 3", "quinto.cluster or quinto.gossip is missing"},
		"node name":   {"quinto.name = a/b", "letters, digits"},
		"election":    {"quinto.heartbeat_timeout_ms = 2000", "default: quinto.election_timeout_ms: is less than"},
		"lease":       {"quinto.lease_timeout_ms = 1500", "is more than quinto.heartbeat_timeout_ms"},
		"hung disk":   {"quinto.stall_exit_seconds = 4", "is not more than quinto.stall_timeout_seconds"},
		"clocks":      {"quinto.clock_max_seconds = 2", "is less than quinto.clock_warn_seconds"},
		"record size": {"quinto.limit_body_bytes = 2048", "quinto.limit_record_bytes: is more than"},
		"events":      {"quinto.events_retained = 2000000", "default: quinto.events_maximum: is less"},
		"other file":  {"use = config:other.ini", "cannot be included"},
		"origin":      {"cors_origins = https://[z-a].example", "cors_origins: \"https://[z-a].example\" cannot be used"},
		"end":         {"eos = soon", `eos: "soon" cannot be used (allowed: a date such as 2030-01-31`},
		"ttl":         {"trailing_slash_redirect_ttl_seconds = -2", "-2 is out of bounds (allowed: -1 to"},
		"lifetime":    {"b.record_cache_expires_seconds = long", `b.record_cache_expires_seconds: "long" is not a whole number`},
		"endpoint":    {"object_record_put_enabled = maybe", `object_record_put_enabled: "maybe" is neither true nor false`},
		"generator":   {"record_id_generator = my.Generator", `record_id_generator: "my.Generator" cannot be used (allowed: kinto.views.NameGenerator, kinto.views.RelaxedUUID, kinto.core.storage.generators.UUID4`},
		"no divider":  {"readonly", "is not an INI file"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Options{Path: write(t, "[app:main]\n"+test.app+"\n")})
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	for name, opts := range map[string]Options{
		"environment: KINTO_READONLY: ":   {Environ: []string{"KINTO_READONLY=2"}},
		"command line: server.port: ":     {Flags: map[string]string{PortKey: "http"}},
		"has no section [app:main]":       {Path: write(t, "[server:main]\n")},
		"absent.ini: cannot be read: ":    {Path: filepath.Join(t.TempDir(), "absent.ini")},
		"larger than 262144 bytes":        {Path: write(t, strings.Repeat("# comment\n", 1<<17))},
		"[server:main]: port: 70000 is o": {Path: write(t, "[server:main]\nport=70000\n[app:main]\n")},
	} {
		if _, err := Load(opts); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}

// Every name of Kinto's documentation must be known, so that a working file is not called wrong.
func TestKnownNames(t *testing.T) {
	for _, name := range strings.Fields(`readonly batch_max_requests paginate_by storage_max_fetch_size pagination_token_validity_seconds includes
		bucket_create_principals permissions_read_principals explicit_permissions experimental_collection_schema_validation
		experimental_permissions_endpoint userid_hmac_secret default_bucket_hmac_secret account_create_principals account_write_principals
		account_read_principals account_cache_ttl_seconds multiauth.policies multiauth.policy.x.use multiauth.authorization_policy
		multiauth.groupfinder storage_backend permission_backend cache_backend storage_url permission_url cache_url storage_pool_size
		storage_max_overflow cache_pool_recycle permission_pool_timeout storage_max_backlog cache_prefix cache_max_size_bytes cache_hosts
		record_id_generator http_scheme http_host cors_origins cors_max_age_seconds backoff backoff_percentage retry_after_seconds eos
		eos_message eos_url trailing_slash_redirect_enabled trailing_slash_redirect_ttl_seconds version_prefix_redirect_enabled
		version_prefix_redirect_ttl_seconds heartbeat_timeout_seconds root_cache_expires_seconds record_cache_expires_seconds
		blog_article_record_cache_expires_seconds project_name project_version project_docs error_info_link version_json_path
		event_listeners event_listeners.a.use history.exclude_resources attachment.base_url prometheus_prefix metrics_matchdict_fields
		statsd_url statsd_prefix statsd_backend sentry_dsn newrelic_config profiler_enabled profiler_dir admin_assets_path
		transaction_per_request tm.annotate_user json_renderer initialization_sequence logging_renderer plural_bucket_post_enabled
		object_record_delete_enabled user-data_delete_principals use`) {
		if known, _ := Known(name); !known {
			t.Errorf("%s is not known", name)
		}
	}
	for _, name := range []string{"quinto.nothing", "server.host", "readonly2", ""} {
		if known, _ := Known(name); known {
			t.Errorf("%s is known", name)
		}
	}
}

func TestTableOfSettings(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range Settings() {
		if seen[row.Name] || row.Doc == "" || !strings.HasSuffix(row.Doc, ".") {
			t.Errorf("%s: twice, or without a sentence", row.Name)
		}
		seen[row.Name] = true
		if row.Name != PortKey {
			if err := row.assign(&Config{Principals: map[string][]string{}, IDGenerators: map[string]string{}}, row.Default); err != nil {
				t.Errorf("%s: the default is refused: %v", row.Name, err)
			}
		}
	}
}

func TestDocs(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "settings.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != Markdown() {
		t.Errorf("docs/settings.md is not up to date (%v): go test ./internal/config -run TestDocs -update", err)
	}
}

func TestWriteDefault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "quinto.ini")
	if err := WriteDefault(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	c := mustLoad(t, Options{Path: path})
	if c.Memory || c.Cluster.DataDir != filepath.Dir(path) || len(c.Auth.UserIDSecret) != 2*secretBytes || len(c.Auth.Policies) != 1 {
		t.Errorf("%+v", c)
	}
	if len(c.Unknown) > 0 || len(c.Warnings()) > 1 {
		t.Errorf("warnings %q", c.Warnings())
	}
	if err := WriteDefault(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the file was written again: %v", err)
	}
	other := filepath.Join(t.TempDir(), "quinto.ini")
	if err := WriteDefault(other); err != nil {
		t.Fatal(err)
	}
	if mustLoad(t, Options{Path: other}).Auth.UserIDSecret == c.Auth.UserIDSecret {
		t.Error("two files have one secret")
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// No text of a file or of the environment may make Load panic.
func FuzzLoad(f *testing.F) {
	f.Add("[app:main]\nkinto.readonly = true\n", "x")
	f.Add("[DEFAULT]\na = %(b)s\n[app:main]\nb = %(a)s\n   more\n", `["a"]`)
	f.Add("[app:main]\nmultiauth.policies = a\nmultiauth.policy.a.use = b\n", "null")
	folder := f.TempDir()
	f.Fuzz(func(t *testing.T, text, value string) {
		path := filepath.Join(folder, "fuzz.ini")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(Options{Path: path, Environ: []string{"KINTO_INCLUDES=" + value, "PAGINATE_BY=" + value}})
		if (c == nil) == (err == nil) && err == nil {
			t.Error("neither settings nor an error")
		}
	})
}

// Marks tell settings that change answers apart, and nothing else, without saying them.
func TestMarks(t *testing.T) {
	load := func(app string, o Options) map[string][]byte {
		o.Path = write(t, "[app:main]\n"+app)
		return mustLoad(t, o).Marks([]byte("cluster"))
	}
	differ := func(a, b map[string][]byte) (names []string) {
		for name := range a {
			if !reflect.DeepEqual(a[name], b[name]) {
				names = append(names, name)
			}
		}
		for name := range b {
			if a[name] == nil {
				names = append(names, name)
			}
		}
		return names
	}
	base := load("kinto.userid_hmac_secret = a", Options{})
	for app, want := range map[string]string{
		"userid_hmac_secret = a":                                                       "",
		"userid_hmac_secret = b":                                                       "userid_hmac_secret",
		"userid_hmac_secret = a\npaginate_by = 5":                                      "paginate_by",
		"userid_hmac_secret = a\nquinto.limit_depth = 50":                              "quinto.limit_depth",
		"userid_hmac_secret = a\nquinto.data_dir = x\nquinto.name = n":                 "",
		"userid_hmac_secret = a\nblog_write_principals = system.Everyone":              "",
		"userid_hmac_secret = a\nbucket_create_principals = account:a":                 "bucket_create_principals",
		"userid_hmac_secret = a\nbucket_create_principals =\n  system.Authenticated\n": "",
	} {
		if got := strings.Join(differ(base, load(app, Options{})), " "); got != want {
			t.Errorf("%q: %q differ, want %q", app, got, want)
		}
	}
	if got := load("userid_hmac_secret = secret-of-mine", Options{})["userid_hmac_secret"]; len(got) != markBytes || strings.Contains(string(got), "secret") {
		t.Errorf("%q", got)
	}
}

// What leaves the machine is protected, or the operator says that it is not to be.
func TestWires(t *testing.T) {
	const away = "quinto.cluster = 10.0.0.1:7000\nquinto.gossip = node.example:7001\nquinto.join = 10.0.0.2:7001, 10.0.0.3:7001\nquinto.expect = 3\n"
	const tls = "quinto.cluster_tls_ca = a\nquinto.cluster_tls_cert = b\nquinto.cluster_tls_key = c\n"
	for name, test := range map[string]struct{ app, want, warning string }{
		"protected":   {away + tls + "quinto.gossip_key_file = k", "", ""},
		"told so":     {away + "quinto.insecure_plaintext_cluster = true", "", "--insecure-plaintext-cluster"},
		"no key":      {away + tls, "in plaintext", ""},
		"no TLS":      {away + "quinto.gossip_key_file = k", "in plaintext", ""},
		"half TLS":    {"quinto.cluster_tls_cert = b", "is given without quinto.cluster_tls_key", ""},
		"half HTTPS":  {"quinto.http_tls_key = b", "is given without quinto.http_tls_cert", ""},
		"all":         {"quinto.insecure_plaintext_cluster = true\nquinto.cluster = 0.0.0.0:7000", "as other nodes reach it", ""},
		"label":       {"quinto.cluster_label = a b", "letters, digits", ""},
		"empty host":  {"quinto.insecure_plaintext_cluster = true\nquinto.gossip = :7000", "as other nodes reach it", ""},
		"one of many": {"quinto.cluster = 127.0.0.1:1\nquinto.gossip = 127.0.0.1:2\nquinto.join = 127.0.0.1:3 10.0.0.2:3", `"10.0.0.2:3" lies off this machine`, ""},
	} {
		c, err := Load(Options{Path: write(t, "[app:main]\n"+test.app+"\n")})
		if test.want != "" {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || test.warning != "" != strings.Contains(strings.Join(c.Warnings(), "\n"), insecureWarning) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
