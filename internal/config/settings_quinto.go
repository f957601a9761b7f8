package config

import (
	"regexp"
	"time"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// nodeName is what a node may be called: it stands in URLs, files and logs.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// quintoSettings are the settings that Kinto does not have.
func quintoSettings() []Setting {
	rows := append(append(clusterSettings(), wireSettings()...), limitSettings()...)
	rows = append(rows, healthSettings()...)
	rows = append(rows, timeoutSettings()...)
	return append(append(append(rows, raftSettings()...), storeSettings()...), backupSettings()...)
}

func clusterSettings() []Setting {
	return []Setting{
		{Name: "quinto.data_dir", Default: "data", check: notEmpty, Doc: "Folder of everything that outlives the process.",
			field: func(c *Config) any { return &c.Cluster.DataDir }},
		{Name: "quinto.cluster", check: peerAddress, Doc: "HOST:PORT of the cluster port, as other nodes reach it; needed with `quinto.join` or `quinto.expect`.",
			field: func(c *Config) any { return &c.Cluster.Address }},
		{Name: "quinto.gossip", check: peerAddress, Doc: "HOST:PORT of discovery, as other nodes reach it; needed with `quinto.join` or `quinto.expect`.",
			field: func(c *Config) any { return &c.Cluster.Gossip }},
		{Name: "quinto.name", Doc: "The node's name, for ever; empty: made at the first start.",
			check: func(text string) (string, bool) {
				return "up to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit", text == "" || nodeName.MatchString(text)
			}, field: func(c *Config) any { return &c.Cluster.Name }},
		{Name: "quinto.join", Doc: "Gossip addresses of nodes to join (HOST:PORT, split at blanks or commas).", field: func(c *Config) any { return &c.Cluster.Join }},
		{Name: "quinto.expect", Default: "0", Optional: true, Max: 9, Doc: "How many empty nodes found a cluster together; 0: a single node bootstraps itself.",
			field: func(c *Config) any { return &c.Cluster.Expect }},
		{Name: "quinto.expose_revision_header", Default: "false", Doc: "Let browsers read `Quinto-Revision`.", field: func(c *Config) any { return &c.ExposeRevision }},
		{Name: "quinto.version_needs_file", Default: "false", Doc: "Answer `__version__` with 500 when `version_json_path` does not exist, as Kinto does; else it tells the program's own version.",
			field: func(c *Config) any { return &c.Project.VersionNeedsFile }},
		{Name: "quinto.schema_backtracking", Default: "false", Doc: "Match the patterns of JSON schemas that have lookaround or back references, as Kinto does, each for 20 ms at most; else such a schema is refused while schemas are validated.",
			field: func(c *Config) any { return &c.SchemaBacktracking }},
		{Name: "quinto.last_modified_ahead_hours", Default: "24", Min: 1, Max: 1_000_000, Unit: time.Hour, Doc: "How far ahead of the clock a client's `last_modified` may be; more is 400. Kinto has no bound: one such write, and the list's clock stands there.",
			field: func(c *Config) any { return &c.Limits.Ahead }},
		{Name: "quinto.cluster_status_principals", Doc: "Who may read the cluster's status over HTTP from elsewhere than the machine itself, and how event listeners stand (`/__hooks__`).",
			field: func(c *Config) any { return &c.StatusPrincipals }},
		{Name: "quinto.hooks_principals", Doc: "Who may steer event listeners over HTTP (`POST /__hooks__/NAME/pause` and its kin), and see how they stand.",
			field: func(c *Config) any { return &c.HooksPrincipals }},
	}
}

func limitSettings() []Setting {
	limit := func(name, initial string, least, most int64, doc string, field func(c *Config) any) Setting {
		return Setting{Name: "quinto.limit_" + name, Default: initial, Min: least, Max: most, Doc: doc, field: field}
	}
	return []Setting{
		limit("body_bytes", "4194304", kib, 64*mib, "Body of a request (compressed ones are refused); more is 413.", func(c *Config) any { return &c.Limits.BodyBytes }),
		limit("record_bytes", "1048576", kib, 4*mib, "One object's compact JSON; more is 413.", func(c *Config) any { return &c.Limits.RecordBytes }),
		limit("query_bytes", "8192", 256, mib, "Path and query string; more is 414.", func(c *Config) any { return &c.Limits.QueryBytes }),
		limit("header_bytes", "16384", kib, mib, "All header lines together; more is 431.", func(c *Config) any { return &c.Limits.HeaderBytes }),
		limit("depth", "500", 8, 10000, "Nesting of arrays and objects in a body; more is 400.", func(c *Config) any { return &c.Limits.JSONDepth }),
		limit("members", "100000", 100, 10_000_000, "Members and elements of all objects and arrays of a body together; more is 400.", func(c *Config) any { return &c.Limits.JSONMembers }),
		limit("key_bytes", "1024", 64, mib, "One key of an object; more is 400.", func(c *Config) any { return &c.Limits.JSONKeyBytes }),
		limit("connections", "10000", 1, 1_000_000, "Open client connections of one node.", func(c *Config) any { return &c.Limits.Connections }),
		limit("streams", "10000", 0, 1_000_000, "Live streams of one node, beside its connections; more are 503.", func(c *Config) any { return &c.Limits.Streams }),
		limit("user_streams", "1000", 0, 1_000_000, "Those of one user on one node; of an address that sends no credentials, half of all.", func(c *Config) any { return &c.Limits.UserStreams }),
		limit("pending_writes", "8192", 1, 1_000_000, "Writes that wait for the log on the leader; more are 503.", func(c *Config) any { return &c.Limits.PendingWrites }),
		limit("listeners", "64", 1, 10000, "Configured notifiers.", func(c *Config) any { return &c.Limits.Listeners }),
	}
}

func timeoutSettings() []Setting {
	timeout := func(name, initial string, unit time.Duration, doc string, field func(c *Config) any) Setting {
		return Setting{Name: "quinto." + name, Default: initial, Min: 1, Max: int64(time.Hour / unit), Unit: unit, Doc: doc, field: field}
	}
	return []Setting{
		timeout("read_timeout_seconds", "10", time.Second, "Receiving one request.", func(c *Config) any { return &c.Timeouts.Read }),
		timeout("write_timeout_seconds", "60", time.Second, "Sending one answer.", func(c *Config) any { return &c.Timeouts.Write }),
		timeout("idle_timeout_seconds", "60", time.Second, "A connection without requests.", func(c *Config) any { return &c.Timeouts.Idle }),
		timeout("request_timeout_seconds", "30", time.Second, "The work on one request, on all nodes together.", func(c *Config) any { return &c.Timeouts.Request }),
		timeout("leader_wait_ms", "2000", time.Millisecond, "Waiting for a leader before 503.", func(c *Config) any { return &c.Timeouts.LeaderWait }),
		timeout("session_wait_ms", "500", time.Millisecond, "A session read waits for the client's token before the leader is asked.", func(c *Config) any { return &c.Timeouts.SessionWait }),
		timeout("shutdown_timeout_seconds", "15", time.Second, "Running requests after SIGTERM.", func(c *Config) any { return &c.Timeouts.Shutdown }),
	}
}

func raftSettings() []Setting {
	millis := func(name, initial string, most int64, doc string, field func(c *Config) any) Setting {
		return Setting{Name: "quinto." + name, Default: initial, Min: 5, Max: most, Unit: time.Millisecond, Doc: doc, field: field}
	}
	return []Setting{
		millis("commit_timeout_ms", "10", 1000, "A follower hears of an idle leader's last commit after 1 to 2 times this.", func(c *Config) any { return &c.Raft.CommitTimeout }),
		millis("heartbeat_timeout_ms", "750", 60000, "Silence of the leader before a follower stands for election, which it does after 1 to 3 times this.", func(c *Config) any { return &c.Raft.HeartbeatTimeout }),
		millis("election_timeout_ms", "750", 60000, "A candidate waits for votes; not less than `quinto.heartbeat_timeout_ms`.", func(c *Config) any { return &c.Raft.ElectionTimeout }),
		millis("lease_timeout_ms", "500", 60000, "A leader without a quorum steps down; not more than `quinto.heartbeat_timeout_ms`.", func(c *Config) any { return &c.Raft.LeaseTimeout }),
		{Name: "quinto.snapshot_log_bytes", Default: "16777216", Min: kib, Max: 16 * gib, Doc: "New log that leads to a snapshot.", field: func(c *Config) any { return &c.Raft.SnapshotLogBytes }},
		{Name: "quinto.snapshot_entries", Default: "100000", Min: 16, Max: 100_000_000, Doc: "New entries that lead to a snapshot.", field: func(c *Config) any { return &c.Raft.SnapshotEntries }},
		{Name: "quinto.trailing_entries", Default: "10240", Min: 16, Max: 100_000_000, Doc: "Entries kept behind a snapshot for followers that lag.", field: func(c *Config) any { return &c.Raft.TrailingEntries }},
		{Name: "quinto.trailing_log_bytes", Default: "100663296", Min: kib, Max: 16 * gib, Doc: "Bound of their size.", field: func(c *Config) any { return &c.Raft.TrailingLogBytes }},
	}
}

func storeSettings() []Setting {
	return []Setting{
		{Name: "quinto.log_store", Default: "bolt", check: func(text string) (string, bool) { return "bolt or wal", text == "bolt" || text == "wal" },
			Doc: "Library that keeps the Raft log, `bolt` or `wal`: chosen when the data folder is made, kept for ever.", field: func(c *Config) any { return &c.Store.Log }},
		{Name: "quinto.cache_bytes", Default: "134217728", Min: mib, Max: 1024 * gib, Doc: "Block cache of the store.", field: func(c *Config) any { return &c.Store.CacheBytes }},
		{Name: "quinto.events_retained", Default: "100000", Min: 1000, Max: 1_000_000_000, Doc: "Events kept at least for notifiers and feeds.", field: func(c *Config) any { return &c.Store.EventsRetained }},
		{Name: "quinto.events_maximum", Default: "1000000", Min: 1000, Max: 1_000_000_000, Doc: "Events kept at most for a notifier that lags; beyond, it is told that it missed some.", field: func(c *Config) any { return &c.Store.EventsMaximum }},
		{Name: "quinto.events_retained_hours", Default: "0", Max: 24 * 365 * 10, Unit: time.Hour, Doc: "How long more than the least number of events are kept; 0: only their number counts.", field: func(c *Config) any { return &c.Store.EventsAge }},
	}
}
