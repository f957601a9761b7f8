package config

import (
	"strings"
	"time"
)

const maxSeconds = 10 * 365 * 24 * 3600 // ten years: no sensible setting is longer

func serverSettings() []Setting {
	return []Setting{
		{Name: "server.host", Default: "127.0.0.1", Doc: "Address or name to listen on.",
			check: notEmpty, field: func(c *Config) any { return &c.HTTP.Host }},
		{Name: "server.port", Default: "%(http_port)s", Max: 65535, Doc: "TCP port to listen on; `%(http_port)s` is 8888 unless a flag says otherwise; 0 takes a free one.",
			field: func(c *Config) any { return &c.HTTP.Port }},
	}
}

// kintoSettings are Kinto's names that have an effect here, with Kinto's defaults
// (kinto/__init__.py over kinto/core/__init__.py), except for storage_backend: a
// backend that is not named is durable.
func kintoSettings() []Setting {
	return append(append(append(append(requestSettings(), edgeSettings()...), backendSettings()...), projectSettings()...), observeSettings()...)
}

func requestSettings() []Setting {
	return []Setting{
		{Name: "readonly", Default: "false", Doc: "Refuse every write with 405.",
			field: func(c *Config) any { return &c.ReadOnly }},
		{Name: "backoff", Optional: true, Min: 1, Max: maxSeconds, Doc: "Seconds that clients are asked to wait between requests, by the header `Backoff`; empty: none.",
			field: func(c *Config) any { return &c.Backoff }},
		{Name: "backoff_percentage", Default: "100", Max: 100, Doc: "How many of a hundred answers carry `Backoff`, at random.",
			field: func(c *Config) any { return &c.BackoffPercentage }},
		{Name: "batch_max_requests", Default: "25", Min: 1, Max: 10000, Doc: "Requests in one batch.",
			field: func(c *Config) any { return &c.Limits.BatchRequests }},
		{Name: "paginate_by", Optional: true, Max: 1_000_000, Doc: "Default and largest page; empty: no default.",
			field: func(c *Config) any { return &c.Limits.PaginateBy }},
		{Name: "storage_max_fetch_size", Default: "10000", Min: 1, Max: 1_000_000, Doc: "Hard bound of one page.",
			field: func(c *Config) any { return &c.Limits.FetchSize }},
		{Name: "pagination_token_validity_seconds", Default: "600", Min: 1, Max: maxSeconds, Unit: time.Second, Doc: "How long the token of a paginated DELETE is valid.",
			field: func(c *Config) any { return &c.Timeouts.PageToken }},
		{Name: "explicit_permissions", Default: "true", Doc: "Add the creator to the `write` permission of what he creates.",
			field: func(c *Config) any { return &c.ExplicitPermissions }},
		{Name: "experimental_collection_schema_validation", Default: "false", Doc: "Check records, collections and groups by the JSON schemas of their collection and bucket.",
			field: func(c *Config) any { return &c.SchemaValidation }},
		{Name: "experimental_permissions_endpoint", Default: "false", Doc: "Serve `/permissions`, which lists what a user may do; the admin plugin needs it and switches it on.",
			field: func(c *Config) any { return &c.PermissionsEndpoint }},
		{Name: "heartbeat_timeout_seconds", Default: "10", Min: 1, Max: 3600, Unit: time.Second, Doc: "Bound of each check of `__heartbeat__`.",
			field: func(c *Config) any { return &c.Timeouts.Heartbeat }},
		{Name: "retry_after_seconds", Default: "3", Min: 1, Max: maxSeconds, Unit: time.Second, Doc: "`Retry-After` of answers that ask to come again.",
			field: func(c *Config) any { return &c.Timeouts.RetryAfter }},
		{Name: "http_scheme", Doc: "Scheme of the URLs that the server makes; empty: the request's.", check: oneOf("", "http", "https"),
			field: func(c *Config) any { return &c.HTTP.PublicScheme }},
		{Name: "http_host", Doc: "Host and port of the URLs that the server makes; empty: the request's.", check: noSpace,
			field: func(c *Config) any { return &c.HTTP.PublicHost }},
	}
}

func backendSettings() []Setting {
	// The three backends share a place: all that remains of them is Config.Memory,
	// which Load derives from the storage backend's name.
	ignored := func(*Config) any { return new(string) }
	return []Setting{
		{Name: "includes", Doc: "Plugins to load, by Kinto's names.", field: func(c *Config) any { return &c.Includes }},
		{Name: "userid_hmac_secret", Secret: true, Doc: "Key of the HMAC that makes a basic auth user's id.",
			field: func(c *Config) any { return &c.Auth.UserIDSecret }},
		{Name: "multiauth.policies", Doc: "Names of the authentication policies, in the order in which they are tried; none: everybody is anonymous.",
			field: func(*Config) any { return new([]string) }},
		{Name: "event_listeners", Doc: "Names of the notifiers.", field: func(*Config) any { return new([]string) }},
		{Name: "storage_backend", check: storageBackend, Doc: "Empty: durable and replicated; `" + memoryStorage + "`: nothing outlives the process, and a single node only.", field: ignored},
		{Name: "permission_backend", check: permissionBackend, Doc: "Empty or `" + memoryPermission + "`; permissions live with the objects either way.", field: ignored},
		{Name: "cache_backend", check: cacheBackend, Doc: "Empty or `" + memoryCache + "`; what Kinto would cache is in the replicated store either way.", field: ignored},
	}
}

func projectSettings() []Setting {
	return []Setting{
		{Name: "project_name", Default: "kinto", Doc: "Name in the hello view.", field: func(c *Config) any { return &c.Project.Name }},
		{Name: "project_version", Doc: "Version in the hello view; empty: the program's.", field: func(c *Config) any { return &c.Project.Version }},
		{Name: "project_docs", Default: "https://kinto.readthedocs.io/", Doc: "`url` in the hello view.", field: func(c *Config) any { return &c.Project.Docs }},
		{Name: "error_info_link", Default: "https://github.com/Kinto/kinto/issues/", Doc: "`info` in the body of an error.",
			field: func(c *Config) any { return &c.Project.ErrorInfoLink }},
		{Name: "version_json_path", Default: "version.json", Doc: "File that `__version__` sends.", field: func(c *Config) any { return &c.Project.VersionJSONPath }},
		{Name: "root_cache_expires_seconds", Default: "86400", Max: maxSeconds, Unit: time.Second, Doc: "How long the hello view may be cached.",
			field: func(c *Config) any { return &c.Project.RootCacheExpires }},
	}
}

// principalSettings are the grants by settings of Kinto 5.3, one row for each
// resource and permission.
func principalSettings() []Setting {
	var rows []Setting
	for _, resource := range []string{"account", "bucket", "collection", "group", "record"} {
		for _, permission := range []string{"create", "read", "write"} {
			key := resource + "_" + permission
			row := Setting{Name: key + "_principals", Doc: "Who may " + permission + " " + resource + "s, whatever their own permissions say.",
				field: func(c *Config) any { return grant{c.Principals, key} }}
			if key == "bucket_create" {
				row.Default = "system.Authenticated"
			}
			rows = append(rows, row)
		}
	}
	return append(rows,
		Setting{Name: "permissions_read_principals", Default: "system.Everyone", Doc: "Who may read `/permissions`, each his own.",
			field: func(c *Config) any { return grant{c.Principals, "permissions_read"} }},
		Setting{Name: "user-data_delete_principals", Doc: "Who may delete all data of a user, by `/__user_data__/{principal}`.",
			field: func(c *Config) any { return grant{c.Principals, "user-data_delete"} }})
}

// nameGroup lists names of Kinto that are accepted and have no effect yet.
type nameGroup struct{ names, what string }

// kintoOfPlugins holds the names of Kinto that its built-in plugins read: they have
// an effect when the plugin is in includes, see plugins.Module.
func kintoOfPlugins() []nameGroup {
	return []nameGroup{
		{"default_bucket_hmac_secret", "`kinto.plugins.default_bucket`: secret of the ids of personal buckets"},
		{"history.exclude_resources history.exclude_user_ids", "`kinto.plugins.history`: URIs and users of which no history is kept"},
		{"account_cache_ttl_seconds", "the policies of `kinto.plugins.accounts`: how long a verified password is remembered"},
		{"multiauth.policy.*.issuer multiauth.policy.*.client_id multiauth.policy.*.client_secret multiauth.policy.*.audience multiauth.policy.*.userid_field " +
			"multiauth.policy.*.header_type multiauth.policy.*.realm multiauth.policy.*.verification_ttl_seconds multiauth.policy.*.state_ttl_seconds " +
			"multiauth.policy.*.state_length multiauth.policy.*.allowed_scopes multiauth.policy.*.trusted_callback_urls", "`kinto.plugins.openid.OpenIDConnectPolicy`: see operations.md"},
		{"multiauth.policy.*.ask_userinfo multiauth.policy.*.verify_id_token multiauth.policy.*.trust_unverified_email", "the same policy; quinto's own"},
		{"admin_assets_path", "`kinto.plugins.admin`: folder of the built admin"},
		{"prometheus_* statsd_*", "`kinto.plugins.prometheus`, `kinto.plugins.statsd`: names, labels and receivers of metrics"},
		{"mail.*", "`kinto_emailer`: the SMTP server, as pyramid_mailer names it; see plugins.md"},
		{"history.auto_trim_max_count history.auto_trim_threshold history.auto_trim_user_ids", "`kinto.plugins.history`: how much of it is kept"},
	}
}

// kintoWithoutEffect must hold every name that Kinto documents and that no row has,
// so that a file that works for Kinto is not called wrong. `*` stands for any text.
// Specific names come before the patterns that would match them too.
func kintoWithoutEffect() []nameGroup {
	return []nameGroup{
		{"storage_url permission_url cache_url *_pool_size *_max_overflow *_pool_recycle *_pool_timeout *_max_backlog *_poolclass " +
			"*_max_size_bytes cache_prefix cache_hosts sqlalchemy.*", "Kinto's databases"},
		{"account_validation* account_password_*", "accounts"},
		{"*_principals", "grants on other resources"},
		{"multiauth.authorization_policy multiauth.groupfinder", "authorization, always Kinto's own rules"},
		{"id_generator *_id_generator", "generators of ids of other resources, always Kinto's own"},
		{"cornice.*", "CORS"},
		{"attachment.* signer.* kinto-emailer.* quotas.* changes.* openid.*", "plugins"},
		{"sentry_* newrelic_* profiler_enabled profiler_dir", "tracing of the Python server; docs/operations.md says what to use instead"},
		{"settings_prefix http_api_version initialization_sequence json_renderer logging_renderer transaction_per_request tm.* retry.* pyramid.* " +
			"debugtoolbar.* handle_exceptions available_languages swagger_file", "internals of the Python server"},
	}
}

func notEmpty(text string) (string, bool) { return "a text that is not empty", text != "" }

func noSpace(text string) (string, bool) {
	return "HOST or HOST:PORT", !strings.ContainsAny(text, " \t\r\n/")
}

func oneOf(values ...string) func(string) (string, bool) {
	return func(text string) (string, bool) {
		for _, value := range values {
			if text == value {
				return "", true
			}
		}
		return strings.Join(values[1:], ", ") + ", or empty", false
	}
}
