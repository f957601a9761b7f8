// Package backup is the archive of a cluster's state: its format, the places it
// is kept in (a folder, S3), and which of those archives are kept.
//
// An archive is one stream that can be written and read without seeking: a head
// of JSON that says what is in it, blocks with a checksum each, and an end with
// the totals. What the blocks carry is a stream of fsm/store. Because each block is
// checked by itself, a fault has a place: the byte of the archive and the file
// within the database. docs/adr/0013-backup-archives.md has the reasons.
package backup

import (
	"errors"
	"fmt"

	"quinto/fsm"
)

// Errors that a caller may test for with errors.Is.
var (
	// ErrForeign: the bytes are no archive of quinto.
	ErrForeign = errors.New("not a backup archive of quinto")
	// ErrNewer: the archive was made by a newer program.
	ErrNewer = errors.New("archive of a newer program")
	// ErrDamaged: the archive is cut off or altered.
	ErrDamaged = errors.New("damaged archive")
	// ErrNone: there is no archive in a place.
	ErrNone = errors.New("no archive there")
)

// Limits of an archive.
const (
	// MaxHeadBytes bounds the JSON of the head.
	MaxHeadBytes = 1 << 20
	// BlockBytes is the size of a block, and the most that one may have.
	BlockBytes = 64 << 10
)

// Fault says where an archive is damaged. It wraps ErrDamaged, ErrForeign or
// ErrNewer.
type Fault struct {
	// Offset is the byte of the archive at which the damaged part begins.
	Offset int64
	// Part is "head", "block N" or "end".
	Part string
	// Kind is one of the errors above.
	Kind error
	// Reason says what is wrong there.
	Reason string
}

// Error is one line with the place and the reason.
func (f *Fault) Error() string {
	return fmt.Sprintf("%v: %s at byte %d: %s", f.Kind, f.Part, f.Offset, f.Reason)
}

// Unwrap gives the kind of fault.
func (f *Fault) Unwrap() error { return f.Kind }

// KindState is the kind of content that there is: a whole state.
const KindState = "state"

// Head says what an archive holds. Fields are only ever added.
type Head struct {
	Kind     string       `json:"kind"`
	Cluster  string       `json:"cluster"`
	Revision fsm.Revision `json:"revision"` // of the state, or behind the last entry
	// Index and Term are of the last entry of the log in it, in the log of that cluster.
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	// Clock is the time of the newest write in it, Made when the archive was made, ms.
	Clock fsm.Timestamp `json:"clock"`
	Made  fsm.Timestamp `json:"made"`
	// Level is the feature level that a program must know to read the state.
	Level uint32 `json:"level"`
	// StateHash is the rolling hash of the state, hexadecimal.
	StateHash string `json:"state_hash,omitempty"`
	// Size is the length of the content in bytes.
	Size int64 `json:"size"`
	// Node made it; Program is its version.
	Node    string `json:"node"`
	Program string `json:"program"`
	// Confirmed: a leader has confirmed that everything acknowledged before is in it.
	Confirmed bool `json:"confirmed"`
}
