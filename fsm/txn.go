package fsm

// Limits of what one transaction may carry; passing one is ErrTooLarge or a
// decode error, so no leader can log an entry that others refuse.
const (
	MaxTxnBytes       = 7 << 20 // one Txn (a batch of 4 MiB with its escapes, a list DELETE with its history), alone in its entry
	MaxGroupBytes     = 512 << 10
	MaxGroupTxns      = 256
	MaxRequestIDBytes = 64
	MaxOps            = 24_000 // a list DELETE of storage_max_fetch_size with its history
	MaxCompares       = 50_000
)

// CompareKind says what a Compare looks at. Numbers are for ever.
type CompareKind uint8

// The kinds of Compare.
const (
	// CompareObject: the row at Key has Revision, tombstones included (0: no row at all).
	CompareObject CompareKind = 1
	// CompareList: the list at Key was last changed by Revision (0: never).
	CompareList CompareKind = 2
	// CompareMember: the group memberships of principal Key last changed at Revision.
	CompareMember CompareKind = 3
)

// Compare is one fact that a transaction was decided on. Apply refuses the
// transaction when it no longer holds.
type Compare struct {
	Kind     CompareKind
	Key      string
	Revision Revision
}

// OpType says what an Op does. Numbers are for ever: append, never reuse.
type OpType uint8

// The operations of the log.
const (
	OpPut              OpType = 1  // create or replace an object
	OpPutTombstone     OpType = 2  // import: a tombstone with its exact time (HasTime)
	OpDelete           OpType = 3  // object → tombstone; nothing when it is absent
	OpDeleteTree       OpType = 4  // object → tombstone, everything under it vanishes; one revision
	OpSetListTimestamp OpType = 5  // raise (or, IfAbsent, create) a list's timestamp
	OpPurgeTombstones  OpType = 6  // drop a list's tombstones at or below LastModified (HasTime)
	OpTrimEvents       OpType = 7  // drop events and versions below Revision
	OpRegisterNotifier OpType = 8  // Name, Value = hash of its filter; starts at the current revision
	OpForgetNotifier   OpType = 9  // Name
	OpAdvanceCursor    OpType = 10 // Name, Revision, Lanes
	OpSetFeatureLevel  OpType = 11 // Level; never lowered
	OpSetSetting       OpType = 12 // Name, Value (nil removes)
	OpFlush            OpType = 13 // every object and list vanishes; one revision. Members: prefixes of settings that go too
	OpPutEntry         OpType = 14 // create or replace an entry: an object that is no event and has no version; it refers to Target as it stands now
	OpDropEntries      OpType = 15 // the entries of the list Path whose ids are Members vanish without tombstones
	OpBeginLife        OpType = 16 // revisions go on at the next multiple of LifeStep; what lies between is a life that was lost
)

// Op is one operation of a transaction. Which fields count depends on Type.
type Op struct {
	Type         OpType
	Path         Path
	Data         []byte    // OpPut, OpPutEntry: canonical JSON object without id and last_modified
	ACL          ACL       // OpPut, OpPutEntry
	Members      []string  // OpPut: sorted, unique; OpFlush: see there; OpDropEntries: ids
	LastModified Timestamp // with HasTime: the time a client asked for
	HasTime      bool
	Fresh        bool     // OpPut: the id is a random UUID drawn for this object, so nobody looks for what it replaces
	Exact        bool     // OpPut: keep LastModified as it is, even when it equals the list's (import)
	IfAbsent     bool     // OpSetListTimestamp: only when the list has none
	Inherited    []string // principals that may read the object through its parents, for the event
	Name         string
	Value        []byte
	Revision     Revision
	Level        uint32
	Lanes        []Lane
	// Target of OpPutEntry is the object whose state the entry records, as the
	// operations before it left it: in the root object that holds the entry, or
	// that itself. Empty: the entry stands for itself (import).
	Target Path
}

// Lane is a collection whose deliveries lag behind its notifier's cursor:
// everything of it below or at Revision is delivered.
type Lane struct {
	Key      string
	Revision Revision
}

// Txn is the unit of atomicity: what was read, what is written, by whom and
// when. It is what the log holds.
type Txn struct {
	RequestID   []byte    // unique per request; empty: not remembered
	RequestHash []byte    // of method, path and body: the same id with another request is refused above
	UserID      string    // principal that wrote, for events
	Now         Timestamp // the leader's clock, ms
	Compares    []Compare
	Ops         []Op
	Reply       []byte // opaque to the state machine: how to render the answer again
	Quiet       bool   // no notifier is told (import)
}

// Changes reports whether t has anything to apply.
func (t *Txn) Changes() bool { return len(t.Ops) > 0 }

// Group is the content of one log entry: transactions that are checked in
// order, each against the effects of those before it. A group without any is
// the empty command that a new leader applies before it decides.
type Group struct {
	ClusterID string // the cluster that logged it; a foreign one halts
	Txns      []Txn
}

// Result is what a transaction did.
type Result struct {
	// Revision of the state after the transaction.
	Revision Revision
	// Objects holds one object per Op, in order: the new version or tombstone
	// with its assigned Revision and LastModified. Ops that touch no object
	// have an empty one.
	Objects []Object
	// Conflict names the first Compare that no longer held; nothing was done.
	Conflict *Compare
	// Replayed is set when the RequestID was known: nothing was done, and this
	// is what the first one did.
	Replayed *StoredRequest
}

// StoredRequest is a remembered effect: what is needed to render the same
// answer again for a retried request.
type StoredRequest struct {
	Hash     []byte
	Revision Revision
	Now      Timestamp
	Reply    []byte
	Refs     []Ref // one per Op
}

// Ref points at a version, or at a tombstone.
type Ref struct {
	Path         Path
	Revision     Revision
	LastModified Timestamp
	Deleted      bool
}

// Action is what an Event says happened. Numbers are for ever.
type Action uint8

// The actions of events.
const (
	ActionCreate     Action = 1
	ActionUpdate     Action = 2
	ActionDelete     Action = 3
	ActionDeleteTree Action = 4 // a delete that took everything under it along
	ActionFlush      Action = 5 // everything is gone; Path is empty and there are no bodies
)

// String returns Kinto's word for a; a flush is none of Kinto's three writes.
func (a Action) String() string {
	switch a {
	case ActionCreate:
		return "create"
	case ActionUpdate:
		return "update"
	case ActionFlush:
		return "flush"
	default:
		return "delete"
	}
}

// Event is one change as the log ordered it. Bodies are found with
// View.Version(Path, Revision) and View.Version(Path, OldRevision).
type Event struct {
	Revision        Revision
	Action          Action
	Path            Path
	Position        int // of the Op in its Txn
	RequestID       []byte
	UserID          string
	Time            Timestamp // the leader's clock, ms
	LastModified    Timestamp // of the new version or tombstone
	OldRevision     Revision  // 0: there was none
	OldLastModified Timestamp
	OldACL          ACL
	NewACL          ACL
	Inherited       []string // principals that could read it through its parents
	Quiet           bool     // no notifier is told; feeds show it
}

// Notifier is a registered consumer of events and how far it has come.
type Notifier struct {
	Name   string
	Hash   []byte   // of its filter
	Start  Revision // events above it are its own
	Cursor Revision // every event up to it is delivered, but for Lanes
	Lanes  []Lane
}
