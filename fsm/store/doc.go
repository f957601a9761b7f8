// Package store is the storage engine below the state machine: one directory
// that holds a live Pebble database and the newest Raft snapshot, and one
// commit file, CURRENT, that names both together, so that the state and Raft's
// idea of it can never part.
//
// The Raft log is the write-ahead log: Pebble runs without its own. A local
// snapshot copies nothing, it flushes the database and records where it
// stands. A snapshot for a follower is a stream over a Pebble checkpoint; the
// follower unpacks it aside, verifies it and swaps it in with one rename. A
// crash at any point leaves the old state or the new one.
//
// The package knows no vocabulary of the service. Keys belong to its user,
// except those that begin with ReservedPrefix.
package store

import "errors"

// ReservedPrefix is the first byte of the keys that belong to this package.
// They describe one node, not the replicated state: leave them out of a state
// hash.
const ReservedPrefix byte = 0x00

// The per-node keys; each holds one big-endian uint64.
//
// applied is the index of the last command or configuration entry whose
// effects are in the database; the state machine writes it in the same batch
// as the effects. floor is the index up to which the database is known to hold
// everything: a snapshot's index may count no-op and barrier entries, which a
// state machine never sees, so applied alone may lie below a valid snapshot.
// received is the index up to which the state came from another node: the stream of
// a snapshot may hold more than the snapshot's index says, which this node's own log
// then does not have.
const (
	appliedKey  = "\x00applied"
	floorKey    = "\x00floor"
	receivedKey = "\x00received"
)

// Errors that a caller may test for with errors.Is.
var (
	// ErrLocked: another process, or another Store of this one, has the directory.
	ErrLocked = errors.New("data directory is in use by another process")
	// ErrStateBehind: the database lacks entries that the newest snapshot covers
	// and that the Raft log may no longer have. The node must not start; it has
	// to be emptied and to join again.
	ErrStateBehind = errors.New("state is behind its snapshot")
	// ErrCorrupt: CURRENT or a reserved key is damaged or missing.
	ErrCorrupt = errors.New("data directory is damaged")
	// ErrArchive: a snapshot stream is truncated, altered or malformed.
	ErrArchive = errors.New("damaged snapshot stream")
	// ErrArchiveVersion: a snapshot stream was made by a build with another format.
	ErrArchiveVersion = errors.New("unknown snapshot stream version")
	// ErrMismatch: a replica stream does not belong to the snapshot it came with.
	ErrMismatch = errors.New("snapshot stream does not match its metadata")
	// ErrOldSnapshot: a snapshot's index lies below that of the current one.
	ErrOldSnapshot = errors.New("snapshot is older than the current one")
	// ErrNotEmpty: a backup can only fill a store that holds nothing.
	ErrNotEmpty = errors.New("the store holds a state already")
	// ErrNoSnapshot: the store has no snapshot yet.
	ErrNoSnapshot = errors.New("no snapshot")
	// ErrSuperseded: the database of the handle was replaced by an install.
	ErrSuperseded = errors.New("database was replaced")
	// ErrFlushTimeout: the database could not be made durable in time; as a rule
	// the disk is full or hangs.
	ErrFlushTimeout = errors.New("flush did not finish in time")
	// ErrForeign: a sink or a reader was not made by this package.
	ErrForeign = errors.New("not a sink or reader of this store")
	// ErrSink: a snapshot sink was used against its rules.
	ErrSink = errors.New("snapshot sink misused")
	// ErrBroken: a commit failed halfway, so that memory and disk may differ. The
	// process must stop; the next Open finds a whole state.
	ErrBroken = errors.New("store is broken, the process must stop")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrHandlesHeld: Close waited in vain for handles that others hold.
	ErrHandlesHeld = errors.New("store closed while handles are held")
)
