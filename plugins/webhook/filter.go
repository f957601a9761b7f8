package webhook

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"quinto/fsm"
	"quinto/plugins"
)

// filter chooses events. An empty list accepts everything.
type filter struct {
	actions     []string
	resources   []string
	buckets     []string // ids; * stands for any characters
	collections []string
}

func newFilter(s plugins.Settings) filter {
	f := filter{
		actions:     slices.DeleteFunc(slices.Clone(s.Actions), func(a string) bool { return a == "read" }),
		resources:   slices.Clone(s.Resources),
		buckets:     strings.Fields(s.Params["bucket"]),
		collections: strings.Fields(s.Params["collection"]),
	}
	if len(f.actions) == 0 && len(s.Actions) > 0 {
		f.actions = []string{"none"} // only reads were asked for
	}
	for _, list := range [][]string{f.actions, f.resources, f.buckets, f.collections} {
		slices.Sort(list)
	}
	return f
}

func (f *filter) validate() error {
	for _, p := range slices.Concat(f.buckets, f.collections) {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("bucket, collection: %q is no pattern", p)
		}
	}
	return nil
}

// String is equal for filters that choose the same events by the same words.
func (f *filter) String() string {
	return fmt.Sprintf("1|%q|%q|%q|%q", f.actions, f.resources, f.buckets, f.collections)
}

func (f *filter) match(e *fsm.Event) bool {
	if e.Action == fsm.ActionFlush { // only for whoever asks: Kinto's listeners never hear of it
		return slices.Contains(f.actions, e.Action.String())
	}
	if !accepts(f.actions, e.Action.String()) || !accepts(f.resources, plugins.KindName(e.Path)) {
		return false
	}
	if len(f.buckets) == 0 && len(f.collections) == 0 {
		return true
	}
	bucket, collection := len(f.buckets) == 0, len(f.collections) == 0
	plugins.Segments(e.Path, func(plural, id string) bool {
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

func accepts(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }

func likeOne(patterns []string, id string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, id)
		return ok
	})
}
