// Package dispatch delivers committed changes to notifiers: on the leader,
// from the replicated event log, at least once, in order within a lane.
//
// # How it works
//
// The event log is the queue: Apply writes an event with each change, so no
// change can be committed and not queued. What is replicated for a notifier is
// its cursor (every event up to it is delivered) and a bounded table of lagging
// lanes (in that lane, everything up to its revision is delivered). Everything
// else is memory of the leader, and may be lost: a new leader goes on from the
// cursor and the table, so that changes are repeated, with the same id, but
// never left out.
//
// For each notifier one goroutine (runner) owns all its state. It reads events
// beyond its frontier, sorts them into lanes and hands the head of each lane to
// a worker; a lane has one delivery in flight at most. A lane that fails keeps
// its head only, waits out its backoff, and reads the rest from the store when
// it recovers: it holds neither memory, nor other lanes, nor the cursor.
//
// A delivery needs the leadership of the term in which the dispatcher began,
// checked with the view from which the bodies are read. A deposed leader that
// does not know it yet may still repeat deliveries; it cannot move the cursor,
// since that is an entry of the log.
//
// # Trade-offs
//
// The cursor is logged about once a second, and when all is delivered after a
// second without: a crash repeats up to about a second of deliveries. Backoff and failure counts are not replicated: a new
// leader tries at once. Retention ends at a hard cap even when a notifier has
// not seen the events; that notifier is then marked as lagged, loudly.
package dispatch
