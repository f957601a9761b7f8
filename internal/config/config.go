// Package config turns Kinto's INI file and environment into one typed Config.
//
// Names, syntax and precedence are Kinto's: [server:main] says where to listen,
// [app:main] everything else, with `%(name)s` interpolation; a key may carry the
// prefix `kinto.` or not; the environment (upper case, `.` and `-` as `_`, with or
// without KINTO_) wins over the file, and a flag of the command line over both.
// quinto's own keys start with `quinto.`. One table (settings.go, settings_kinto.go,
// settings_quinto.go) names each setting with its default, bounds and meaning: the
// parser, the list of known names and docs/settings.md all come from it.
//
// The package imports nothing of the project: a Config is plain data that is made
// once at the start and only read afterwards.
package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrInvalid is wrapped by every error about a setting that cannot be used. Its
// text is one line: where it stands, which key, what is wrong, what is allowed.
var ErrInvalid = errors.New("invalid setting")

// SettingError says which setting is wrong. It wraps ErrInvalid.
type SettingError struct {
	// Source is where the value comes from: a file's path, "environment" or "command line".
	Source string
	// Section is the INI section ("app:main"), empty outside a file.
	Section string
	// Key is the name as it was written there.
	Key string
	// Problem says what is wrong, in words.
	Problem string
	// Allowed says what would be right; it may be empty.
	Allowed string
}

// Error is one line that says where, which key, what is wrong and what is allowed.
func (e *SettingError) Error() string {
	parts := []string{e.Source}
	if e.Section != "" {
		parts = append(parts, "["+e.Section+"]")
	}
	if e.Key != "" {
		parts = append(parts, e.Key)
	}
	parts = append(parts, e.Problem)
	text := strings.Join(parts, ": ")
	if e.Allowed != "" {
		text += " (allowed: " + e.Allowed + ")"
	}
	return strings.ReplaceAll(text, "\n", " ")
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *SettingError) Unwrap() error { return ErrInvalid }

// Config is everything a node is told before it starts.
type Config struct {
	// Path is the INI file that was read, empty if there was none.
	Path string

	// HTTP is where the node listens and how it names itself in URLs.
	HTTP HTTP
	// Project is what the hello view says about the service.
	Project Project
	// CORS is what browsers on other sites are allowed.
	CORS CORS
	// EOS is the end of the service.
	EOS EOS
	// Redirects say which URLs lead to another.
	Redirects Redirects
	// CacheExpires are the seconds for which the anonymous may keep answers, by resource ("record"), and for records also
	// by "<bucket>.record", "<bucket>.<collection>.record" and the older forms with `_` (Kinto 8.4).
	CacheExpires map[string]int64
	// Disabled holds what EndpointEnabled asks for.
	Disabled map[string]bool
	// IDGenerators are Kinto's classes of generators of ids, by resource.
	IDGenerators map[string]string
	// Auth is who may be whom.
	Auth Auth
	// Principals are permissions granted by settings (Kinto 5.3), by
	// "<resource>_<permission>", for example "bucket_create". Use Granted to read it.
	Principals map[string][]string

	// Memory is true if the storage backend is named `…memory`: nothing outlives the process.
	Memory bool
	// ReadOnly refuses every write with 405 (Kinto 8.2).
	ReadOnly bool
	// Backoff asks clients to wait that many seconds between requests; 0: nothing (Kinto 8.3).
	Backoff int
	// BackoffPercentage is how many of a hundred answers carry Backoff.
	BackoffPercentage int
	// SchemaValidation checks writes by the JSON schemas of collection and bucket (Kinto 4.9).
	SchemaValidation bool
	// SchemaBacktracking matches patterns of schemas that RE2 leaves out, each for a bounded time.
	SchemaBacktracking bool
	// PermissionsEndpoint serves `/permissions` (Kinto 5.4).
	PermissionsEndpoint bool
	// ExplicitPermissions adds the creator to an object's `write` permission (Kinto 5.2).
	ExplicitPermissions bool
	// Includes are the plugins to load, by Kinto's module names, in order.
	Includes []string
	// Listeners are the configured notifiers (`event_listeners`), in order.
	Listeners []Listener

	// Limits bound what one request, one node and one queue may hold.
	Limits Limits
	// Timeouts bound how long anything may take.
	Timeouts Timeouts
	// Cluster says where the node lives and with whom.
	Cluster Cluster
	// Raft holds the timing of the replicated log and when it is cut.
	Raft Raft
	// Health says when the cluster finds fault with itself.
	Health Health
	// Store holds the sizes of the local store and of the event log.
	Store Store
	// Backup says when and where archives are made.
	Backup Backup

	// ExposeRevision lets browsers read Quinto-Revision (Access-Control-Expose-Headers).
	ExposeRevision bool
	// MetricsFields are the ids of a URL that become labels of its measurements.
	MetricsFields []string
	// Logging says whether and how requests are logged.
	Logging Logging

	// StatusPrincipals may read the cluster's status over HTTP from elsewhere than the machine itself.
	StatusPrincipals []string
	// HooksPrincipals may look at event listeners and steer them over HTTP.
	HooksPrincipals []string

	// Unknown are the keys of the file that nobody knows, sorted.
	Unknown []string
	// NoEffect are keys, plugins and policies of Kinto that are accepted and do nothing yet, sorted.
	NoEffect []string

	lookup  func(name string) (string, bool)
	answers map[string]string // settings that change answers, for Marks
}

// Lookup returns the text of any setting of [app:main] by its name without `kinto.`,
// with the precedence of all others; ok is false if nobody gave it. It is for
// plugins, whose settings are not in the table.
func (c *Config) Lookup(name string) (text string, ok bool) {
	if c.lookup == nil {
		return "", false
	}
	return c.lookup(name)
}

// HTTP is the public port.
type HTTP struct {
	// Host is the address or name to listen on.
	Host string
	// Port is the TCP port to listen on; 0 takes a free one.
	Port int
	// PublicScheme replaces the scheme in URLs that the server makes ("http" or "https"); empty: the request's.
	PublicScheme string
	// PublicHost replaces host and port in URLs that the server makes; empty: the request's.
	PublicHost string
	// TLSCert and TLSKey are PEM files; with them the port speaks HTTPS only.
	TLSCert, TLSKey string
}

// Project is what the hello view and the errors say about the service.
type Project struct {
	// Name is `project_name` in the hello view.
	Name string
	// Version is `project_version`; empty: the program's own version.
	Version string
	// Docs is `url` in the hello view.
	Docs string
	// ErrorInfoLink is `info` in the body of an error.
	ErrorInfoLink string
	// VersionJSONPath is the file that `__version__` sends.
	VersionJSONPath string
	// VersionNeedsFile answers 500 without that file, as Kinto does.
	VersionNeedsFile bool
	// RootCacheExpires is how long the hello view may be cached.
	RootCacheExpires time.Duration
}

// Auth holds the authentication policies, in the order in which they are tried.
type Auth struct {
	// UserIDSecret keys the HMAC that makes a basic auth user id (Kinto 6.2).
	UserIDSecret string
	// Policies are tried in order; the first that yields a user wins (Kinto 6.1).
	// Those whose class is not supported yet are left out and listed in Config.NoEffect.
	Policies []Policy
}

// Policy is one entry of `multiauth.policies`.
type Policy struct {
	// Name prefixes the user ids that the policy yields.
	Name string
	// Use is the class, by Kinto's dotted name.
	Use string
	// Params are the other `multiauth.policy.<name>.*` settings.
	Params map[string]string
}

// Listener is one entry of `event_listeners` (Kinto 12.4).
type Listener struct {
	// Name is unique among the listeners.
	Name string
	// Use names the module, for example `quinto.webhook`.
	Use string
	// Actions are those listened to: create, update, delete, read.
	Actions []string
	// Resources are those listened to (record, collection, …); none means all.
	Resources []string
	// URL is the receiver's address.
	URL string
	// Secret signs what is sent.
	Secret string
	// Params are all other `event_listeners.<name>.*` settings.
	Params map[string]string
}

// Limits are the named bounds of what is accepted and held.
type Limits struct {
	// BodyBytes bounds the body of a request, after decompression.
	BodyBytes int
	// Ahead is how far beyond the clock a client may put a last_modified.
	Ahead time.Duration
	// RecordBytes bounds one stored object's compact JSON.
	RecordBytes int
	// QueryBytes bounds path and query string together.
	QueryBytes int
	// HeaderBytes bounds all header lines together, without the request line.
	HeaderBytes int
	// JSONDepth bounds how deep arrays and objects nest in a body.
	JSONDepth int
	// JSONMembers bounds the members and elements of all objects and arrays of a body together.
	JSONMembers int
	// JSONKeyBytes bounds one key of an object.
	JSONKeyBytes int
	// BatchRequests bounds the requests of one batch.
	BatchRequests int
	// PaginateBy is the default and largest page; 0: none, so FetchSize alone counts.
	PaginateBy int
	// FetchSize is the hard bound of one page, whatever the client asks for.
	FetchSize int
	// Connections bounds the open client connections of one node.
	Connections int
	// Streams bounds the live streams of the node, UserStreams those of one user.
	Streams, UserStreams int
	// PendingWrites bounds the writes that wait for the log on the leader; more get 503.
	PendingWrites int
	// Listeners bounds the number of configured notifiers.
	Listeners int
}

// Timeouts are the named bounds of time.
type Timeouts struct {
	// Read bounds receiving one request.
	Read time.Duration
	// Write bounds sending one answer.
	Write time.Duration
	// Idle closes a connection without requests.
	Idle time.Duration
	// Request bounds the work on one request, on all nodes together.
	Request time.Duration
	// LeaderWait is how long a request waits for a leader to be elected before 503.
	LeaderWait time.Duration
	// SessionWait is how long a session read waits for the client's token before the leader is asked.
	SessionWait time.Duration
	// Shutdown is how long running requests may go on after SIGTERM.
	Shutdown time.Duration
	// Heartbeat bounds each check of `__heartbeat__`.
	Heartbeat time.Duration
	// RetryAfter is the Retry-After of 503 and 409 answers.
	RetryAfter time.Duration
	// PageToken is how long the `_token` of a paginated DELETE is valid.
	PageToken time.Duration
}

// Cluster says where the node's data is and which nodes it belongs to.
type Cluster struct {
	// DataDir is the folder of everything that must outlive the process.
	DataDir string
	// Address is HOST:PORT of the cluster port (Raft, forwarding, cluster calls); empty: a single node.
	Address string
	// Gossip is HOST:PORT of discovery; empty: a single node.
	Gossip string
	// Name identifies the node for ever; empty: taken from the data folder, or made at the first start.
	Name string
	// Join are gossip addresses of nodes to join.
	Join []string
	// Expect is how many empty nodes found a cluster together; 0: do not wait for others.
	Expect int
	// Wires is how the traffic between nodes is protected.
	Wires Wires
}

// Alone reports whether the node bootstraps itself as a cluster of one.
func (c Cluster) Alone() bool { return len(c.Join) == 0 && c.Expect <= 1 }

// Raft holds the replicated log's timing and the sizes at which it is cut.
type Raft struct {
	// CommitTimeout bounds how long a follower waits to hear of an idle leader's last commit.
	CommitTimeout time.Duration
	// HeartbeatTimeout is how long a follower waits for its leader before it stands for election.
	HeartbeatTimeout time.Duration
	// ElectionTimeout is how long a candidate waits for votes.
	ElectionTimeout time.Duration
	// LeaseTimeout is how long a leader without a quorum goes on.
	LeaseTimeout time.Duration
	// SnapshotLogBytes of new log lead to a snapshot.
	SnapshotLogBytes int64
	// SnapshotEntries of new log lead to a snapshot.
	SnapshotEntries int
	// TrailingEntries are kept behind a snapshot for followers that lag.
	TrailingEntries int
	// TrailingLogBytes bounds those entries' size.
	TrailingLogBytes int64
}

// Store holds the local store's sizes.
type Store struct {
	// Log is the library that keeps the Raft log: "bolt" or "wal".
	Log string
	// CacheBytes is the block cache.
	CacheBytes int64
	// EventsRetained is how many events are kept at least for notifiers and feeds.
	EventsRetained int
	// EventsMaximum is how many events are kept at most, for a notifier that lags.
	EventsMaximum int
	// EventsAge is how long events beyond EventsRetained are kept; 0: only their number counts.
	EventsAge time.Duration
}

// Granted returns the principals to whom a setting gives a permission on every
// object of a resource (`bucket_create_principals`, Kinto 5.3). It may be nil; the
// caller must not change it.
func (c *Config) Granted(resource, permission string) []string {
	return c.Principals[resource+"_"+permission]
}

// Warnings are lines for the log at the start, without a newline: at most one for
// keys that are unknown or without effect, and one for each doubtful choice.
func (c *Config) Warnings() []string {
	var lines, parts []string
	if len(c.Unknown) > 0 {
		parts = append(parts, "unknown settings ignored: "+strings.Join(c.Unknown, ", "))
	}
	if len(c.NoEffect) > 0 {
		parts = append(parts, "known to Kinto but without effect here yet: "+strings.Join(c.NoEffect, ", "))
	}
	if len(parts) > 0 {
		lines = append(lines, strings.Join(parts, "; "))
	}
	for _, policy := range c.Auth.Policies {
		if policy.Use == BasicAuthPolicy && c.Auth.UserIDSecret == "" {
			lines = append(lines, fmt.Sprintf("policy %s: userid_hmac_secret is empty, so anybody can compute user ids", policy.Name))
		}
	}
	if c.Cluster.Wires.InsecurePlaintext {
		lines = append(lines, insecureWarning)
	}
	if len(c.Auth.Policies) == 0 {
		lines = append(lines, "no authentication policy is in force: everybody is anonymous")
	}
	return lines
}
