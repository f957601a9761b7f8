// Package checker judges what clients saw of a cluster while it was harmed: a
// history of requests with their answers, of polls and deliveries, against what
// docs/consistency.md promises. It knows nothing of quinto's code.
package checker

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// maxLineBytes bounds a line of a history: a poll of all records is the longest.
const maxLineBytes = 16 << 20

// Line is one line of a history file; exactly one field is set.
type Line struct {
	Run   *Run   `json:"run,omitempty"`
	Op    *Op    `json:"op,omitempty"`
	Poll  *Poll  `json:"poll,omitempty"`
	Hook  *Hook  `json:"hook,omitempty"`
	Fault *Fault `json:"fault,omitempty"`
	Hash  *Hash  `json:"hash,omitempty"`
	Final *Final `json:"final,omitempty"`
}

// Run says how a history was made.
type Run struct {
	Name  string `json:"name"`
	Seed  uint64 `json:"seed"`
	Nodes int    `json:"nodes"`
	// RecoverWithin bounds, in nanoseconds, the time from the end of a fault to the
	// first acknowledged write.
	RecoverWithin int64 `json:"recover_within"`
	// Start is the wall clock's time, in milliseconds, at time 0 of the history.
	Start int64 `json:"start"`
}

// Kind is what a part of a request asks for.
type Kind string

// The kinds. A guarded read is one by a user who may read the object only while its
// value begins with Granted.
const (
	Put         Kind = "put"
	Create      Kind = "create" // PUT with If-None-Match: *
	Post        Kind = "post"   // the server chooses the id: Object is set by the answer
	Patch       Kind = "patch"
	Delete      Kind = "delete"
	Read        Kind = "read"
	GuardedRead Kind = "guarded-read"
)

// Granted begins the values of guarded objects that the other user may read.
const Granted = "granted-"

// Op is one request of a client, with all its tries, and what was answered last.
type Op struct {
	Client string `json:"client"`
	Node   string `json:"node"`
	Key    string `json:"key,omitempty"` // Idempotency-Key
	// Call is when the first try was sent, Return when the last was answered, in
	// nanoseconds since the start of the run.
	Call   int64  `json:"call"`
	Return int64  `json:"return"`
	Tries  int    `json:"tries"`
	Parts  []Part `json:"parts"` // more than one: a batch in one transaction
	// Status of the whole answer; 0 without one.
	Status int `json:"status"`
	// Unknown: the outcome is not known. Unsure: it is not known of an earlier try.
	Unknown  bool   `json:"unknown,omitempty"`
	Unsure   bool   `json:"unsure,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
	Stale    bool   `json:"stale,omitempty"`
	// Digest of status, ETag and body, and the same of answers to the same request
	// sent again under the same key.
	Digest  string   `json:"digest,omitempty"`
	Replays []string `json:"replays,omitempty"`
}

// Part is one object that an Op writes or reads.
type Part struct {
	Object  string `json:"object"`
	Kind    Kind   `json:"kind"`
	V       string `json:"v,omitempty"` // written by a put or create, unique in the history
	P       string `json:"p,omitempty"` // written by a patch, unique in the history
	IfMatch int64  `json:"if_match,omitempty"`
	Status  int    `json:"status,omitempty"`
	Seen    *Value `json:"seen,omitempty"` // the object in the answer
}

// Value is an object as somebody saw it.
type Value struct {
	Object   string `json:"object,omitempty"`
	V        string `json:"v,omitempty"`
	P        string `json:"p,omitempty"`
	Modified int64  `json:"modified"`
	Deleted  bool   `json:"deleted,omitempty"`
}

// Poll is one run of a client that follows the changes of the collection.
type Poll struct {
	Client string `json:"client"`
	Since  int64  `json:"since"` // 1: from the beginning
	Call   int64  `json:"call"`
	Return int64  `json:"return"`
	Level  string `json:"level"`
	Status int    `json:"status"`
	ETag   int64  `json:"etag"`
	// Complete: all pages were read. An incomplete poll changes nothing for the client.
	Complete bool   `json:"complete"`
	Limit    int    `json:"limit"`
	Pages    []Page `json:"pages,omitempty"`
}

// Page of a Poll; each comes from another node.
type Page struct {
	Node     string  `json:"node"`
	Revision uint64  `json:"revision"`
	Entries  []Value `json:"entries"`
}

// Hook is one delivery to the webhook's receiver.
type Hook struct {
	At       int64  `json:"at"`
	ID       string `json:"id"`
	Revision uint64 `json:"revision"`
	Action   string `json:"action"`
	Lane     string `json:"lane"` // what deliveries are in order within
	Value    Value  `json:"value"`
	Refused  bool   `json:"refused,omitempty"` // the receiver answered with an error
}

// Fault is one harm: from Begin until Healed, when all is as before.
type Fault struct {
	Name   string `json:"name"`
	Target string `json:"target,omitempty"`
	Begin  int64  `json:"begin"`
	Healed int64  `json:"healed"`
}

// Hash is the state of a node at rest.
type Hash struct {
	Node     string `json:"node"`
	Applied  uint64 `json:"applied"`
	Revision uint64 `json:"revision"`
	State    string `json:"state"`
	Full     string `json:"full"`
}

// Final is the whole collection through one node, after the load.
type Final struct {
	Node     string  `json:"node"`
	Revision uint64  `json:"revision"`
	ETag     int64   `json:"etag"`
	Values   []Value `json:"values"`
}

// History is a whole run.
type History struct {
	Run    Run
	Ops    []*Op
	Polls  []*Poll
	Hooks  []*Hook
	Faults []*Fault
	Hashes []*Hash
	Finals []*Final
}

// Add puts a line into the history. It is not safe for concurrent use.
func (h *History) Add(l *Line) {
	switch {
	case l.Run != nil:
		h.Run = *l.Run
	case l.Op != nil:
		h.Ops = append(h.Ops, l.Op)
	case l.Poll != nil:
		h.Polls = append(h.Polls, l.Poll)
	case l.Hook != nil:
		h.Hooks = append(h.Hooks, l.Hook)
	case l.Fault != nil:
		h.Faults = append(h.Faults, l.Fault)
	case l.Hash != nil:
		h.Hashes = append(h.Hashes, l.Hash)
	case l.Final != nil:
		h.Finals = append(h.Finals, l.Final)
	}
}

// Lines are what a Recorder is given to write the history.
func (h *History) Lines() []*Line {
	all := []*Line{{Run: &h.Run}}
	for _, o := range h.Ops {
		all = append(all, &Line{Op: o})
	}
	for _, p := range h.Polls {
		all = append(all, &Line{Poll: p})
	}
	for _, k := range h.Hooks {
		all = append(all, &Line{Hook: k})
	}
	for _, f := range h.Faults {
		all = append(all, &Line{Fault: f})
	}
	for _, k := range h.Hashes {
		all = append(all, &Line{Hash: k})
	}
	for _, f := range h.Finals {
		all = append(all, &Line{Final: f})
	}
	return all
}

// Load reads a history. A last line that was cut off is an error too: such a run
// says nothing.
func Load(r io.Reader) (*History, error) {
	h := &History{}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 1<<20), maxLineBytes)
	for n := 1; s.Scan(); n++ {
		var l Line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("checker: line %d: %w", n, err)
		}
		h.Add(&l)
	}
	return h, s.Err()
}

// LoadFile reads a history from a file.
func LoadFile(path string) (*History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Load(f)
}

// Recorder writes a history. Its methods may be called from any goroutine.
type Recorder struct {
	mu   sync.Mutex
	file *os.File
	w    *bufio.Writer
	err  error
}

// NewRecorder makes or empties the file at path.
func NewRecorder(path string) (*Recorder, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &Recorder{file: f, w: bufio.NewWriterSize(f, 1<<20)}, nil
}

// Add appends a line; an error is kept for Close.
func (r *Recorder) Add(l *Line) {
	b, err := json.Marshal(l)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		_, err = r.w.Write(append(b, '\n'))
	}
	r.err = errors.Join(r.err, err)
}

// Close flushes the file and returns the first error.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.w.Flush(), r.file.Close())
}
