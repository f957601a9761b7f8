package fsm

import "errors"

// The errors that cross floors. api turns them into Kinto's error bodies in one
// table; cluster and the state machine return them wrapped with detail.
var (
	// ErrNotLeader: this node does not lead; nothing was done. Safe to retry.
	ErrNotLeader = errors.New("not the leader")
	// ErrNoLeader: no leader is known or reachable; nothing was done.
	ErrNoLeader = errors.New("no leader")
	// ErrUnknownOutcome: the write may or may not be committed. Retry only with
	// the same request id (Idempotency-Key).
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrOverloaded: a named limit on pending work was reached; nothing was done.
	ErrOverloaded = errors.New("overloaded")
	// ErrTooLarge: the transaction passes the size limit of one log entry.
	ErrTooLarge = errors.New("transaction too large")
	// ErrHalted: this node met an entry it must not skip and serves no more.
	ErrHalted = errors.New("state machine halted")
	// ErrClosed: the node or store is shut down.
	ErrClosed = errors.New("closed")
	// ErrTrimmed: the revision asked for lies below the retained events.
	ErrTrimmed = errors.New("revision was compacted")
	// ErrCorrupt: bytes read from disk or wire do not decode or fail their checksum.
	ErrCorrupt = errors.New("corrupt data")
	// ErrUnknownType: bytes are of a newer format than this binary knows.
	ErrUnknownType = errors.New("unknown type")
	// ErrFeatureLevel: an operation that a member of the cluster may not know yet;
	// nothing was done.
	ErrFeatureLevel = errors.New("beyond the cluster's feature level")
	// ErrNoSpace: the disk's free-space reserve is reached; writes are refused.
	ErrNoSpace = errors.New("no space left for writes")
)
