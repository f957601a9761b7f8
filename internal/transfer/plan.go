package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"quinto/api/resource"
	"quinto/fsm"
	"quinto/internal/canon"
)

// Planner decides on a node what items become in its log.
type Planner struct {
	Kinds       []*resource.Kind
	Limits      canon.Limits
	RecordBytes int // of one object's JSON
	Mode        Mode
}

// Mode says how what comes in yields to what is there.
type Mode struct {
	// Revive puts an object back where a newer tombstone is.
	Revive bool `json:"revive,omitempty"`
	// Overwrite also replaces what is newer.
	Overwrite bool `json:"overwrite,omitempty"`
	// Touch gives each list the present time, so that clients notice.
	Touch bool `json:"touch,omitempty"`
}

// Refusal names one item that was not taken, by its place among the items.
type Refusal struct {
	Item   int    `json:"item"`
	Reason string `json:"reason"`
}

// Done says what became of some items.
type Done struct {
	Written   int       `json:"written"`
	Unchanged int       `json:"unchanged"`
	Refused   []Refusal `json:"refused"`
	// Ignored are timestamps of lists whose object does not exist.
	Ignored []int `json:"ignored"`
	// Redacted are those that are written without what nobody is to read.
	Redacted []Redacted `json:"redacted,omitempty"`
}

// NewerHere is the reason for an object that was changed after its import.
const NewerHere = "it is newer here; delete it here to import it again"

// Plan returns the operations that make the state of r hold items, and what becomes
// of each: what is there already needs none, and what is newer in r stays as it is.
// anyParent skips the check that an object's parent exists.
func (p *Planner) Plan(r fsm.Reader, items []Item, anyParent bool) ([]fsm.Op, Done, error) {
	done := Done{Refused: []Refusal{}, Ignored: []int{}}
	var ops []fsm.Op
	made := map[fsm.Path]bool{}
	for i := range items {
		op, err := p.item(r, &items[i], made, anyParent)
		if errors.Is(err, errNoParent) && items[i].List {
			done.Ignored = append(done.Ignored, i)
			continue
		}
		var refused refusal
		if errors.As(err, &refused) {
			done.Refused = append(done.Refused, Refusal{i, err.Error()})
			continue
		}
		switch {
		case err != nil:
			return nil, done, err
		case op == nil:
			done.Unchanged++
		default:
			ops = append(ops, *op)
			done.Written++
		}
		if !items[i].List && !items[i].Deleted {
			made[items[i].Path] = true
		}
	}
	return ops, done, nil
}

// item is one item's operation, nil when the state has it already.
func (p *Planner) item(r fsm.Reader, i *Item, made map[fsm.Path]bool, anyParent bool) (*fsm.Op, error) {
	if i.List {
		return p.list(r, i, made, anyParent)
	}
	kind, err := p.kindOf(i.Path)
	if err != nil {
		return nil, err
	}
	if err := hasParent(r, i, made, anyParent); err != nil {
		return nil, err
	}
	old, err := r.Get(i.Path)
	if err != nil {
		return nil, err
	}
	yields := p.Mode.Overwrite || p.Mode.Revive && old.Deleted
	if old.Revision != 0 && old.LastModified > i.LastModified && !yields {
		return nil, refusal{NewerHere}
	}
	if i.Deleted {
		return tombstone(&old, i), nil
	}
	return p.object(kind, &old, i)
}

// errNoParent is why an object is refused whose parent is not there.
var errNoParent = refusal{"the object that it lies in does not exist"}

func hasParent(r fsm.Reader, i *Item, made map[fsm.Path]bool, anyParent bool) error {
	parent := i.list().List()
	if parent == "" || made[parent] || anyParent {
		return nil
	}
	o, err := r.Get(parent)
	if err == nil && !o.Exists() {
		err = fmt.Errorf("%w: %s", errNoParent, parent)
	}
	return err
}

func tombstone(old *fsm.Object, i *Item) *fsm.Op {
	if old.Deleted && old.LastModified == i.LastModified {
		return nil
	}
	return &fsm.Op{Type: fsm.OpPutTombstone, Path: i.Path, LastModified: i.LastModified, HasTime: true}
}

func (p *Planner) object(kind *resource.Kind, old *fsm.Object, i *Item) (*fsm.Op, error) {
	data, err := i.canonical(p.Limits)
	if err != nil {
		return nil, refusal{err.Error()}
	}
	if len(data) > p.RecordBytes {
		return nil, refusef("%d bytes of JSON, the limit is %d (quinto.limit_record_bytes)", len(data), p.RecordBytes)
	}
	for name := range i.Permissions {
		if !slices.Contains(kind.Permissions, name) && name != "read" && name != "write" {
			return nil, refusef("a %s has no permission %q", kind.Name, name)
		}
	}
	op := &fsm.Op{Type: fsm.OpPut, Path: i.Path, Data: data, ACL: fsm.NewACL(i.Permissions), LastModified: i.LastModified, HasTime: true, Exact: true}
	if kind.Members != nil {
		op.Members = kind.Members(data)
	}
	if old.Exists() && old.LastModified == i.LastModified && bytes.Equal(old.Data, op.Data) && bytes.Equal(old.ACL, op.ACL) {
		return nil, nil
	}
	return op, nil
}

// list gives a list its timestamp; one whose object does not exist has none.
func (p *Planner) list(r fsm.Reader, i *Item, made map[fsm.Path]bool, anyParent bool) (*fsm.Op, error) {
	if err := hasParent(r, i, made, anyParent); err != nil {
		return nil, err
	}
	l, err := r.List(i.Path)
	if err != nil {
		return nil, err
	}
	op := &fsm.Op{Type: fsm.OpSetListTimestamp, Path: i.Path, LastModified: i.LastModified, HasTime: true}
	if i.LastModified == 0 { // as when its parent is made: now
		op.HasTime, op.IfAbsent = false, true
	}
	if p.Mode.Touch {
		op.HasTime, op.IfAbsent, op.LastModified = false, false, 0
		return op, i.Path.CheckList()
	}
	if l.Timestamp >= i.LastModified && (l.Timestamp != 0 || l.Revision != 0) {
		return nil, nil
	}
	return op, i.Path.CheckList()
}

// kindOf finds the kind of the object at path and checks its id.
func (p *Planner) kindOf(path fsm.Path) (*resource.Kind, error) {
	if path.CheckObject() != nil {
		return nil, refusef("the path is longer than %d bytes, or no path", fsm.MaxPathBytes)
	}
	var kind *resource.Kind
	parts := strings.Split(string(path[1:]), "/")
	for at := 0; at < len(parts); at += 2 {
		parent := ""
		if kind != nil {
			parent = kind.Name
		}
		k := slices.IndexFunc(p.Kinds, func(k *resource.Kind) bool { return k.Parent == parent && k.Plural == parts[at] })
		if k < 0 {
			return nil, refusef("there are no %s here: is the plugin in kinto.includes?", parts[at])
		}
		kind = p.Kinds[k]
		if !kind.ValidID(parts[at+1]) {
			return nil, refusef("%q cannot be the id of a %s", parts[at+1], kind.Name)
		}
	}
	return kind, nil
}
