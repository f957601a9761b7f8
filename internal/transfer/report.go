package transfer

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"quinto/fsm"
)

// Counts are what became of one kind's objects.
type Counts struct {
	Objects, Tombstones, Refused int64
	Earlier                      int64 // dealt with by an earlier run, which was interrupted
}

// Refused is one object that was not taken.
type Refused struct {
	Path   fsm.Path
	Reason string
}

// Difference is a list that is not here what it was in the source.
type Difference struct {
	List         fsm.Path
	Source, Here Digest
}

// Report says what an import did.
type Report struct {
	Source             string
	Dry                bool
	Kinds              map[string]*Counts // by plural
	Refused            []Refused
	Written, Unchanged int64 // items, timestamps of lists among them
	LeftOut            []string
	Equal              int          // lists
	Differ             []Difference // lists
	Moved              []fsm.Path   // lists that changed between an interrupted run and this one
}

func (r *Report) count(i *Item) *Counts {
	kind := i.list().ID()
	if r.Kinds[kind] == nil {
		r.Kinds[kind] = &Counts{}
	}
	return r.Kinds[kind]
}

func (r *Report) refuse(i *Item, reason string) {
	r.count(i).Refused++
	r.Refused = append(r.Refused, Refused{i.Path, reason})
}

func (r *Report) sort() {
	slices.SortFunc(r.Differ, func(a, b Difference) int { return strings.Compare(string(a.List), string(b.List)) })
}

// Whole reports whether everything that was asked for is here.
func (r *Report) Whole() bool {
	return len(r.Refused) == 0 && len(r.Differ) == 0 && len(r.Moved) == 0
}

// Print writes the report for a reader.
func (r *Report) Print(w io.Writer) error {
	verb := "imported from"
	if r.Dry {
		verb = "would import from"
	}
	fmt.Fprintf(w, "%s %s\n\n", verb, r.Source)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tobjects\ttombstones\trefused\tearlier run\t")
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		c := r.Kinds[kind]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t\n", kind, c.Objects, c.Tombstones, c.Refused, c.Earlier)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%d written, %d unchanged\n", r.Written, r.Unchanged)
	for _, f := range r.Refused {
		fmt.Fprintf(w, "refused %s: %s\n", f.Path, f.Reason)
	}
	for _, what := range r.LeftOut {
		fmt.Fprintf(w, "left out: %s\n", what)
	}
	for _, list := range r.Moved {
		fmt.Fprintf(w, "changed between the two runs: %s: import again\n", list)
	}
	for _, d := range r.Differ {
		fmt.Fprintf(w, "differs: %s: the source gave %d objects and %d tombstones up to %d, here are %d and %d up to %d\n",
			d.List, d.Source.Objects, d.Source.Tombstones, d.Source.Timestamp, d.Here.Objects, d.Here.Tombstones, d.Here.Timestamp)
	}
	if !r.Dry {
		fmt.Fprintf(w, "compared: %d lists equal, %d differ\n", r.Equal, len(r.Differ))
	}
	return nil
}
