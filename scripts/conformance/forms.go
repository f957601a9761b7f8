package main

import (
	"regexp"
	"slices"
	"sort"
	"strings"
)

// only returns the part of a JSON value that keys lead to; nil where there is none.
func only(tree any, keys []string) any {
	for _, key := range keys {
		object, ok := tree.(map[string]any)
		if !ok {
			return nil
		}
		tree = object[key]
	}
	return tree
}

// unordered sorts every list in a JSON value by the text of its items: for documents
// whose lists are sets.
func unordered(tree any) any {
	switch at := tree.(type) {
	case map[string]any:
		for key, value := range at {
			at[key] = unordered(value)
		}
	case []any:
		for i := range at {
			at[i] = unordered(at[i])
		}
		return sortedText(at)
	}
	return tree
}

var sampleLine = regexp.MustCompile(`^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? \S+$`)

var sampleLabel = regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"`)

// samples lists what a Prometheus text has of the metrics with the given names: the
// type of each, and every series by its name and labels in one order, without the
// value. A series of histograms is listed once for each bucket.
func samples(text string, names []string) []string {
	var all []string
	for line := range strings.SplitSeq(text, "\n") {
		if kind, ok := strings.CutPrefix(line, "# TYPE "); ok {
			if name, _, _ := strings.Cut(kind, " "); slices.Contains(names, name) {
				all = append(all, "type "+kind)
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || !slices.ContainsFunc(names, func(name string) bool {
			return m[1] == name || m[1] == name+"_bucket" || m[1] == name+"_sum" || m[1] == name+"_count"
		}) {
			continue
		}
		var labels []string
		for _, l := range sampleLabel.FindAllStringSubmatch(m[2], -1) {
			labels = append(labels, l[1]+"="+l[2])
		}
		if slices.Contains(labels, "endpoint=heartbeat") { // asked by the run itself until a server is up
			continue
		}
		sort.Strings(labels)
		all = append(all, m[1]+"{"+strings.Join(labels, ",")+"}")
	}
	sort.Strings(all)
	return slices.Compact(all)
}
