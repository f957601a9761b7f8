package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
)

// Bounds of one batch: an entry of the log that holds nobody up.
const (
	batchItems = 400
	batchBytes = 384 << 10
	maxObject  = 4 << 20 // the most that quinto.limit_record_bytes can allow
)

var errOtherItems = errors.New("the node answers for items that it was not sent")

// Source gives items in order: each list oldest first, parents before what lies in
// them, the timestamp of a list behind its objects.
type Source interface {
	// Name is how messages call it, without a password.
	Name() string
	// Total is how many objects and tombstones there are, -1: unknown.
	Total(ctx context.Context) (int64, error)
	// Items calls yield for each. resume tells how far a list was read in an earlier
	// run, and whether whole; a source may begin there or before.
	Items(ctx context.Context, resume func(list fsm.Path) (at place, whole bool), yield func(*Item) error) error
	// LeftOut names what the source has and an import does not bring over.
	LeftOut() []string
	// Close gives the source free.
	Close(ctx context.Context) error
}

// From says what to read.
type From struct {
	Address     string // URL, PostgreSQL's DSN, or the name of a file
	Permissions string // DSN of the permissions, if they are in another database
	User        string // "name:password" for HTTP
	Selected    Selection
}

// Open opens a source by its address.
func Open(ctx context.Context, f From) (Source, error) {
	scheme, _, ok := strings.Cut(f.Address, "://")
	switch {
	case !ok:
		return &fileSource{f.Address}, nil
	case strings.HasPrefix(scheme, "postgres"):
		return openPostgres(ctx, f.Address, f.Permissions, f.Selected)
	case scheme == "http" || scheme == "https":
		return openKinto(ctx, f.Address, f.User, f.Selected)
	}
	return nil, fmt.Errorf("--from %s: a URL (http, https), postgresql://…, or a file of quinto export", redact(f.Address))
}

// Target is the cluster that takes the items.
type Target interface {
	// Plurals names the kinds of objects that there are, as lists are called.
	Plurals(ctx context.Context) ([]string, error)
	// Take writes items and says what became of them; with dry nothing is written.
	Take(ctx context.Context, items []Item, dry bool) (Done, error)
	// Export gives what the cluster has, in the form of Export.
	Export(ctx context.Context, selected Selection, read func(io.Reader) error) error
}

// Options say how to import.
type Options struct {
	Source     Source
	Target     Target
	Selected   Selection
	Dry        bool
	Limits     canon.Limits
	Checkpoint *Checkpoint // nil: none is kept
	// Progress is told of each object and tombstone that was dealt with; nil: nobody.
	Progress func(n int)
}

// run is one import under way.
type run struct {
	Options
	report  *Report
	batch   []Item
	bytes   int
	sums    map[fsm.Path]*Digest
	parents map[fsm.Path]bool // objects that were seen, in a dry run
	without bool              // the cluster keeps no history
	entries int               // of the history that were left out

	redacted int // objects of which the node has taken something out
}

// Run imports everything that the source gives and compares the outcome. The report
// is never nil; the error is one that stopped the import, which can be run again.
func Run(ctx context.Context, o Options) (*Report, error) {
	r := &run{Options: o, sums: map[fsm.Path]*Digest{}, parents: map[fsm.Path]bool{},
		report: &Report{Source: o.Source.Name(), Dry: o.Dry, LeftOut: o.Source.LeftOut(), Kinds: map[string]*Counts{}}}
	if o.Progress == nil {
		r.Progress = func(int) {}
	}
	plurals, err := o.Target.Plurals(ctx)
	if err != nil {
		return r.report, err
	}
	r.without = !slices.Contains(plurals, historyPlural)
	err = o.Source.Items(ctx, o.Checkpoint.at, func(i *Item) error { return r.add(ctx, i) })
	if err == nil {
		err = r.flush(ctx)
	}
	if r.entries > 0 {
		r.report.LeftOut = append(r.report.LeftOut, fmt.Sprintf("%d entries of the history: kinto.plugins.history is not in kinto.includes", r.entries))
	}
	r.noteRedacted()
	if err == nil && !o.Dry {
		err = r.verify(ctx)
	}
	return r.report, err
}

func (r *run) add(ctx context.Context, i *Item) error {
	if !r.Selected.wants(i.Path) {
		return nil
	}
	if r.without && i.list().ID() == historyPlural {
		if !i.List {
			r.entries++
			r.Progress(1)
		}
		return nil
	}
	if !i.List {
		at, whole := r.Checkpoint.at(i.list())
		if whole || !(place{i.LastModified, i.Path.ID()}).after(at) && at != (place{}) {
			r.report.count(i).Earlier++
			r.Progress(1)
			return nil
		}
		if i.Refused == "" && len(i.Data) > maxObject {
			i.Refused = fmt.Sprintf("%d bytes of JSON, the limit is %d", len(i.Data), maxObject)
		}
		if i.Refused != "" {
			r.report.refuse(i, i.Refused)
			r.Progress(1)
			return nil
		}
	}
	if len(r.batch) > 0 && r.bytes+len(i.Data) > batchBytes {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	r.batch = append(r.batch, *i)
	r.bytes += len(i.Data) + len(i.Path)
	if len(r.batch) >= batchItems {
		return r.flush(ctx)
	}
	return nil
}

// flush writes the batch and remembers that it is written.
func (r *run) flush(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	done, err := r.Target.Take(ctx, r.batch, r.Dry)
	if err != nil {
		return err
	}
	reasons := map[int]string{}
	for _, f := range done.Refused {
		if f.Item < 0 || f.Item >= len(r.batch) {
			return errOtherItems
		}
		reasons[f.Item] = f.Reason
	}
	if err := r.redact(done.Redacted); err != nil {
		return err
	}
	r.report.Written += int64(done.Written)
	r.report.Unchanged += int64(done.Unchanged)
	lists := map[fsm.Path]bool{}
	for n := range r.batch {
		i := &r.batch[n]
		if slices.Contains(done.Ignored, n) {
			continue
		}
		lists[i.list()] = true
		r.settle(i, reasons[n])
	}
	for list := range lists {
		if err := r.Checkpoint.note(list, r.sums[list]); err != nil {
			return err
		}
	}
	r.batch, r.bytes = r.batch[:0], 0
	return nil
}

// settle counts an item that the node has dealt with.
func (r *run) settle(i *Item, reason string) {
	list := i.list()
	d := r.sums[list]
	if d == nil {
		d = r.Checkpoint.digest(list)
		r.sums[list] = d
	}
	if i.List {
		if earlier, whole := r.Checkpoint.timestamp(list); whole && earlier != i.LastModified {
			r.report.Moved = append(r.report.Moved, list)
		}
		d.Timestamp = i.LastModified
		r.Checkpoint.finish(list)
		return
	}
	r.Progress(1)
	r.Checkpoint.reach(list, place{i.LastModified, i.Path.ID()})
	if r.Dry && reason == "" && !i.Deleted {
		if parent := i.Path.Parent(); parent != "" && !r.parents[parent] {
			reason = fmt.Sprintf("%s: %s", errNoParent, parent)
		} else if i.Path.List().ID() != "records" {
			r.parents[i.Path] = true
		}
	}
	if reason != "" {
		r.report.refuse(i, reason)
		return
	}
	c := r.report.count(i)
	if i.Deleted {
		c.Tombstones++
	} else {
		c.Objects++
	}
	d.addItem(i, r.Limits)
}

// verify reads everything back and compares it list by list.
func (r *run) verify(ctx context.Context) error {
	var here map[fsm.Path]*Digest
	err := r.Target.Export(ctx, r.Selected, func(in io.Reader) (err error) {
		here, err = digests(in, r.Selected, r.Limits)
		return err
	})
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	for list, d := range r.sums {
		h := here[list]
		if h == nil {
			h = &Digest{}
		}
		if d.Objects == h.Objects && d.Tombstones == h.Tombstones && d.Sum == h.Sum && h.Timestamp >= d.Timestamp {
			r.report.Equal++
			continue
		}
		r.report.Differ = append(r.report.Differ, Difference{list, *d, *h})
	}
	r.report.sort()
	return nil
}

// Batch is what a command sends to a node.
type Batch struct {
	Dry    bool   `json:"dry"`
	Notify bool   `json:"notify"` // event listeners are told
	Mode   Mode   `json:"mode"`
	Items  []Item `json:"items"`
}
