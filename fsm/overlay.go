package fsm

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// Overlay lays the ops of one transaction over a Reader, so that the later
// parts of a batch are decided on the state that the earlier ones leave. It
// predicts times with Apply's own rule; whoever reads a predicted one depends
// on the list's timestamp, and Pins names the lists that must then be compared
// (docs/adr/0002-batch-overlay.md).
type Overlay struct {
	base    Reader
	now     Timestamp
	objects map[Path]*Object // zero: an entry that was dropped
	lists   map[Path]ListInfo
	trees   []Path // deleted with everything under them
	flushes int    // so many times all of it was flushed: of base, only the times of root lists are left
	pins    map[Path]struct{}
	made    []*Object // what was staged, in order: the version StagedRevision+i

	settings map[string][]byte // replicated settings; nil: taken away
	emptied  []string          // prefixes of those of base that a flush took along
}

// StagedRevision is the lowest of the revisions that an Overlay gives: those of
// Apply are below it.
const StagedRevision Revision = 1 << 63

var _ Reader = (*Overlay)(nil)

// NewOverlay returns an overlay on base for a transaction with this Now.
func NewOverlay(base Reader, now Timestamp) *Overlay {
	return &Overlay{base: base, now: now, objects: map[Path]*Object{}, lists: map[Path]ListInfo{}, pins: map[Path]struct{}{}, settings: map[string][]byte{}}
}

// Revision of the state below.
func (o *Overlay) Revision() Revision { return o.base.Revision() }

// Pins returns the lists whose predicted timestamps were read, sorted.
func (o *Overlay) Pins() []Path {
	out := make([]Path, 0, len(o.pins))
	for p := range o.pins {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// Stage lays op on top and returns the predicted new version (or tombstone) of
// the object it touches; its Revision is not predicted, it is one of the
// Overlay's own above all others. Errors are those of the Reader below.
func (o *Overlay) Stage(op Op) (Object, error) {
	switch op.Type {
	case OpPut, OpPutEntry, OpPutTombstone, OpDelete, OpDeleteTree:
		return o.stageObject(op)
	case OpFlush:
		o.stageFlush()
		o.flushSettings(op.Members)
		return Object{}, nil
	case OpSetSetting:
		o.settings[op.Name] = op.Value
		return Object{}, nil
	case OpDropEntries:
		return Object{}, o.stageDrop(op)
	case OpSetListTimestamp:
		l, err := o.list(op.Path)
		wish := o.now
		if op.HasTime {
			wish = op.LastModified
		}
		if l.Timestamp == 0 || (!op.IfAbsent && wish > l.Timestamp) {
			l.Timestamp = wish
		}
		o.lists[op.Path] = l
		return Object{}, err
	default:
		return Object{}, nil
	}
}

func (o *Overlay) stageObject(op Op) (Object, error) {
	old, err := o.replaced(&op)
	if err != nil {
		return Object{}, err
	}
	put := op.Type == OpPut || op.Type == OpPutEntry
	if op.Type == OpPutEntry && old.Exists() && old.Of == nil {
		return Object{}, nil
	}
	if !put && op.Type != OpPutTombstone && !old.Exists() {
		return Object{}, nil
	}
	l, err := o.list(op.Path.List())
	if err != nil {
		return Object{}, err
	}
	n := Object{Path: op.Path, Revision: StagedRevision + Revision(len(o.made)), Deleted: !put}
	if put {
		n.Data, n.ACL, n.Members = op.Data, op.ACL, op.Members
	}
	if op.Type == OpPutEntry {
		if n.Of, err = o.refer(op.Target); err != nil {
			return Object{}, err
		}
		n.Members = nil
	}
	n.LastModified, l.Timestamp = Bump(l.Timestamp, o.now, op.LastModified, op.HasTime, op.Exact || op.Type == OpPutTombstone)
	l.Count += count(put) - count(old.Exists())
	l.Tombstones += count(!put) - count(old.Deleted)
	o.lists[op.Path.List()] = l
	if op.Type == OpDeleteTree {
		o.dropTree(op.Path)
	}
	o.objects[op.Path] = &n
	o.made = append(o.made, &n)
	return n, nil
}

// refer is what an entry says of p as it stands now.
func (o *Overlay) refer(p Path) (*Ref, error) {
	if p == "" {
		return &Ref{}, nil
	}
	at, err := o.get(p)
	return indexEntry{at.LastModified, at.Revision, at.Deleted}.ref(p), err
}

// stageDrop takes entries away; in their place stands nothing.
func (o *Overlay) stageDrop(op Op) error {
	for _, id := range op.Members {
		p := op.Path.Child(id)
		old, err := o.get(p)
		if err != nil {
			return err
		}
		if !old.Exists() || old.Of == nil {
			continue
		}
		l, err := o.list(op.Path)
		if err != nil {
			return err
		}
		l.Count--
		o.lists[op.Path], o.objects[p] = l, &Object{}
	}
	return nil
}

// replaced is what op finds.
func (o *Overlay) replaced(op *Op) (Object, error) {
	if op.Fresh {
		return Object{}, nil
	}
	return o.get(op.Path)
}

func count(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (o *Overlay) dropTree(root Path) {
	o.trees = append(o.trees, root)
	maps.DeleteFunc(o.objects, func(p Path, _ *Object) bool { return p.Under(root) })
	maps.DeleteFunc(o.lists, func(p Path, _ ListInfo) bool { return p.Under(root) })
}

func (o *Overlay) stageFlush() {
	clear(o.objects)
	for p, l := range o.lists {
		if delete(o.lists, p); p.Depth() == 1 {
			o.lists[p] = l.flushed(o.now)
		}
	}
	o.trees = nil
	o.flushes++
}

// flushedRoot is what the flushes left of a root list of base.
func (o *Overlay) flushedRoot(l ListInfo) ListInfo {
	for range o.flushes {
		l = l.flushed(o.now)
	}
	return l
}

func (o *Overlay) dropped(p Path) bool {
	return o.flushes > 0 || slices.ContainsFunc(o.trees, p.Under)
}

func (o *Overlay) get(p Path) (Object, error) {
	if n, ok := o.objects[p]; ok {
		return *n, nil
	}
	if o.dropped(p) {
		return Object{}, nil
	}
	return o.base.Get(p)
}

func (o *Overlay) list(p Path) (ListInfo, error) {
	if l, ok := o.lists[p]; ok {
		return l, nil
	}
	if o.flushes > 0 && p.Depth() == 1 {
		l, err := o.base.List(p)
		return o.flushedRoot(l), err
	}
	if o.dropped(p) {
		return ListInfo{}, nil
	}
	return o.base.List(p)
}

// Get implements Reader.
func (o *Overlay) Get(p Path) (Object, error) {
	n, ok := o.objects[p]
	if ok {
		o.pin(p, n)
		return *n, nil
	}
	return o.get(p)
}

// pin notes that the staged object n at p was shown, and with an entry the
// object that it refers to.
func (o *Overlay) pin(p Path, n *Object) {
	o.pins[p.List()] = struct{}{}
	if n.Of != nil {
		if _, staged := o.objects[n.Of.Path]; staged {
			o.pins[n.Of.Path.List()] = struct{}{}
		}
	}
}

// Version implements Reader.
func (o *Overlay) Version(p Path, r Revision) (Object, error) {
	if r < StagedRevision {
		return o.base.Version(p, r)
	}
	if i := r - StagedRevision; i < Revision(len(o.made)) && o.made[i].Path == p {
		o.pins[p.List()] = struct{}{}
		return *o.made[i], nil
	}
	return Object{}, fmt.Errorf("%w: %s as nothing has staged it", ErrTrimmed, p)
}

// List implements Reader.
func (o *Overlay) List(p Path) (ListInfo, error) {
	if _, ok := o.lists[p]; ok || o.flushes > 0 && p.Depth() == 1 {
		o.pins[p] = struct{}{}
	}
	return o.list(p)
}

// Staged is the predicted time of the object that was staged at p, 0 when none
// was. Unlike Get it pins nothing: it is for what may be a little off.
func (o *Overlay) Staged(p Path) Timestamp {
	if n, ok := o.objects[p]; ok {
		return n.LastModified
	}
	return 0
}

// Lists implements Reader.
func (o *Overlay) Lists(f func(list Path, l ListInfo) bool) error {
	more := true
	err := o.base.Lists(func(p Path, l ListInfo) bool {
		_, over := o.lists[p]
		switch {
		case over:
		case o.flushes > 0 && p.Depth() == 1:
			more = f(p, o.flushedRoot(l))
		case !o.dropped(p):
			more = f(p, l)
		}
		return more
	})
	for _, p := range slices.Sorted(maps.Keys(o.lists)) {
		if err != nil || !more {
			break
		}
		more = f(p, o.lists[p])
	}
	return err
}

// Scan implements Reader.
func (o *Overlay) Scan(list Path, opt ScanOptions, f func(*Object) bool) error {
	var rows []Object
	for p, n := range o.objects {
		if p.List() == list && n.Revision != 0 && opt.contains(n) {
			o.pin(p, n)
			rows = append(rows, *n)
		}
	}
	if len(rows) == 0 && !o.touches(list) {
		if o.dropped(list) {
			return nil
		}
		return o.base.Scan(list, opt, f)
	}
	o.pins[list] = struct{}{}
	if !o.dropped(list) {
		opt.Borrow = false // they are sorted in among those of o
		err := o.base.Scan(list, opt, func(b *Object) bool {
			if _, over := o.objects[b.Path]; !over {
				rows = append(rows, *b)
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	sort.Slice(rows, func(i, j int) bool {
		if opt.Reverse {
			i, j = j, i
		}
		return before(&rows[i], rows[j].LastModified, rows[j].Path.ID())
	})
	for i := range rows {
		if !f(&rows[i]) {
			return nil
		}
	}
	return nil
}

// touches reports whether any staged object lies in list.
func (o *Overlay) touches(list Path) bool {
	for p := range o.objects {
		if p.List() == list {
			return true
		}
	}
	return false
}

func before(a *Object, t Timestamp, id string) bool {
	if a.LastModified != t {
		return a.LastModified < t
	}
	return strings.Compare(a.Path.ID(), id) < 0
}

func (s *ScanOptions) contains(o *Object) bool {
	if o.Deleted && !s.Tombstones {
		return false
	}
	if s.Start != nil && before(o, s.Start.LastModified, s.Start.ID) {
		return false
	}
	return s.End == nil || before(o, s.End.LastModified, s.End.ID)
}

// Groups implements Reader.
func (o *Overlay) Groups(principal string) ([]Path, error) {
	base, err := o.base.Groups(principal)
	if err != nil {
		return nil, err
	}
	var out []Path
	for _, p := range base {
		if _, over := o.objects[p]; !over && !o.dropped(p) {
			out = append(out, p)
		}
	}
	for p, n := range o.objects {
		if slices.Contains(n.Members, principal) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out, nil
}
