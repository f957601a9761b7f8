package config

import (
	"path/filepath"
	"strings"
)

// InitOptions are what `quinto init` can be told.
type InitOptions struct {
	// Host is the address to listen on.
	Host string
	// Memory keeps nothing beyond the process.
	Memory bool
}

// WriteInit writes a commented INI with Kinto's choices (accounts, default bucket;
// kinto/config/kinto.tpl) to path, as WriteDefault does. The data folder is `data`
// beside the file, or beside the folder `config` that holds it.
func WriteInit(path string, o InitOptions) error {
	data := "%(here)s/data"
	if absolute, err := filepath.Abs(path); err == nil && filepath.Base(filepath.Dir(absolute)) == "config" {
		data = "%(here)s/../data"
	}
	storage := "# kinto.storage_backend = " + memoryStorage
	if o.Memory {
		storage = "kinto.storage_backend = " + memoryStorage
	}
	return writeNew(path, strings.NewReplacer("{host}", o.Host, "{data}", data, "{storage}", storage,
		"{userid_secret}", newSecret(), "{bucket_secret}", newSecret()).Replace(initINI))
}

const initINI = `# Settings of a quinto server, in the form and with the names of Kinto's.
# All of them: docs/settings.md. The environment wins over this file (KINTO_READONLY=true,
# QUINTO_DATA_DIR=/var/lib/quinto), a flag over both.
# Keep this file: the secrets below decide the ids of users and of their default buckets.
# All nodes of a cluster need the same ones.

[server:main]
host = {host}
# 8888, or what --port says.
port = %(http_port)s


[app:main]
use = egg:kinto

# Where everything is kept. %(here)s is the folder of this file.
quinto.data_dir = {data}
# The library that keeps the Raft log, chosen when the folder is made: bolt or wal.
# quinto.log_store = bolt

# Features
#
# kinto.readonly = false
# kinto.batch_max_requests = 25
# kinto.paginate_by =
# kinto.storage_max_fetch_size = 10000
# kinto.experimental_collection_schema_validation = false
# kinto.experimental_permissions_endpoint = false

# Plugins
#
kinto.includes = kinto.plugins.default_bucket
                 kinto.plugins.accounts
#                kinto.plugins.history
#                kinto.plugins.admin

# Storage: durable and replicated unless said otherwise. There is no database to set
# up, and no separate store for permissions and cache.
#
{storage}

# Authentication
#
multiauth.policies = account
multiauth.policy.account.use = kinto.plugins.accounts.AccountsPolicy
kinto.userid_hmac_secret = {userid_secret}
# Ids of default buckets.
kinto.default_bucket_hmac_secret = {bucket_secret}
# Anyone may create accounts; account:admin, which quinto create-user makes, may
# change all of them.
kinto.account_create_principals = system.Everyone
kinto.account_write_principals = account:admin

# Permissions
#
# Who may create buckets.
kinto.bucket_create_principals = account:admin

# Notifications: webhooks, signed as Standard Webhooks.
#
# kinto.event_listeners = hook
# kinto.event_listeners.hook.use = quinto.webhook
# kinto.event_listeners.hook.url = https://example.com/hook
# kinto.event_listeners.hook.secret = whsec_…
# kinto.event_listeners.hook.actions = create update delete
# kinto.event_listeners.hook.resources = record

# Several nodes: each with its own data folder, addresses and name, best as flags.
#
# quinto.cluster = 127.0.0.1:7881
# quinto.gossip = 127.0.0.1:7981
# quinto.join = 127.0.0.1:7981 127.0.0.1:7982 127.0.0.1:7983
# quinto.expect = 3

# Behind a proxy: how the server names itself in URLs.
#
# kinto.http_scheme = https
# kinto.http_host = kinto.example.com

# What the service says about itself, and asks of clients.
#
# kinto.project_name = kinto
# kinto.error_info_link = https://github.com/Kinto/kinto/issues/
# kinto.retry_after_seconds = 3
# kinto.backoff =
`
