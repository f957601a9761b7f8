// Package plugins is what the author of a plugin reads: the interfaces that a
// plugin may implement, how it is registered, and what it is handed.
//
// A plugin is one folder. Its init calls Register with a name and a
// constructor; the configuration names it; the server makes it (New), sets it
// up (Provision), lets it refuse its settings (Validate), uses it by the
// interfaces it implements, and at the end closes it (Close).
//
//	BeforeCommit   on the leader, inside the decision on a write: may refuse or edit it
//	Notifier       on the leader, after commit: at least once, in order, across failovers
//	Observer       on every node, after a change was applied: best effort
//	Authenticator  who is the sender of a request
//	KindProvider   further kinds of objects
//	RouteProvider  further endpoints
//
// The delivery to notifiers is package plugins/dispatch. docs/plugins.md has a
// complete example.
package plugins
