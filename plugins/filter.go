package plugins

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
)

// FilterSettings are the names in Settings.Params that NewFilter reads.
var FilterSettings = [...]string{"bucket", "collection", "id", "fields"}

// Filter chooses changes, as the settings actions, resources, bucket, collection, id and
// fields of a listener say. An empty list accepts everything.
type Filter struct {
	actions     []string
	resources   []string
	buckets     []string // ids; * stands for any characters
	collections []string
	ids         []string // of the object itself
	fields      []string // names in the data, with dots for what lies deeper
}

// NewFilter reads the filter of a listener. The error names the setting.
func NewFilter(s Settings) (Filter, error) {
	f := Filter{
		actions:     slices.DeleteFunc(slices.Clone(s.Actions), func(a string) bool { return a == "read" }),
		resources:   slices.Clone(s.Resources),
		buckets:     strings.Fields(s.Params["bucket"]),
		collections: strings.Fields(s.Params["collection"]),
		ids:         strings.Fields(s.Params["id"]),
		fields:      strings.Fields(s.Params["fields"]),
	}
	if len(f.actions) == 0 && len(s.Actions) > 0 {
		f.actions = []string{"none"} // only reads were asked for
	}
	for _, list := range [][]string{f.actions, f.resources, f.buckets, f.collections, f.ids} {
		slices.Sort(list)
	}
	for _, a := range s.Actions {
		if !slices.Contains([]string{"create", "update", "delete", "read", "flush"}, a) {
			return f, fmt.Errorf("actions: %q is none of create, update, delete, flush", a)
		}
	}
	for _, p := range slices.Concat(f.buckets, f.collections, f.ids) {
		if _, err := path.Match(p, ""); err != nil {
			return f, fmt.Errorf("bucket, collection, id: %q is no pattern", p)
		}
	}
	return f, nil
}

// String is equal for filters that choose the same events by the same words: it is
// for FilterHash. Fields are not in it, since Match does not look at them.
func (f *Filter) String() string {
	text := fmt.Sprintf("1|%q|%q|%q|%q", f.actions, f.resources, f.buckets, f.collections)
	if len(f.ids) > 0 {
		text += fmt.Sprintf("|%q", f.ids)
	}
	return text
}

// Match is for Notifier.Match.
func (f *Filter) Match(e *fsm.Event) bool {
	if e.Action == fsm.ActionFlush { // only for whoever asks: Kinto's listeners never hear of it
		return slices.Contains(f.actions, e.Action.String())
	}
	return f.Accepts(e.Action, e.Path)
}

// Accepts tells whether an action on the object at p is chosen, whatever its data.
func (f *Filter) Accepts(action fsm.Action, p fsm.Path) bool {
	if !accepts(f.actions, action.String()) || !accepts(f.resources, KindName(p)) || len(f.ids) > 0 && !likeOne(f.ids, p.ID()) {
		return false
	}
	if len(f.buckets) == 0 && len(f.collections) == 0 {
		return true
	}
	bucket, collection := len(f.buckets) == 0, len(f.collections) == 0
	Segments(p, func(plural, id string) bool {
		switch plural {
		case "buckets":
			bucket = bucket || likeOne(f.buckets, id)
		case "collections":
			collection = collection || likeOne(f.collections, id)
			return false
		}
		return true
	})
	return bucket && collection
}

// Concerns tells whether the change from old to new, nil where there is none, is
// about one of the fields: it adds, removes or changes it.
func (f *Filter) Concerns(old, new *fsm.Object) bool {
	if len(f.fields) == 0 {
		return true
	}
	return slices.ContainsFunc(f.fields, func(name string) bool {
		before, was := field(old, name)
		after, is := field(new, name)
		return was != is || is && !canon.Equal(before, after)
	})
}

// Choose leaves of a delivery what Concerns it, and false when that is nothing.
func (f *Filter) Choose(d *Delivery) bool {
	if d.Event.Action == fsm.ActionFlush {
		return true
	}
	if d.Impacted == nil {
		return f.Concerns(d.Old, d.New)
	}
	d.Impacted = slices.DeleteFunc(slices.Clone(d.Impacted), func(i Impacted) bool { return !f.Concerns(i.Old, i.New) })
	if len(d.Impacted) == 0 {
		return false
	}
	d.Event, d.Old, d.New = d.Impacted[0].Event, d.Impacted[0].Old, d.Impacted[0].New
	return true
}

func field(o *fsm.Object, name string) (canon.Value, bool) {
	if o == nil {
		return nil, false
	}
	return canon.Value(o.Data).GetPath(strings.Split(name, ".")...)
}

func accepts(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }

func likeOne(patterns []string, id string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, id)
		return ok
	})
}
