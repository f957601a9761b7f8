package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

func faults(results []result) (n int) {
	for _, r := range results {
		if r.Fault != nil {
			n++
		}
	}
	return n
}

// table has a row for each kind.
func table(results []result, row func(kind string, count map[string]int)) {
	byKind := map[string]map[string]int{}
	var names []string
	for _, r := range results {
		if byKind[r.Kind] == nil {
			byKind[r.Kind] = map[string]int{}
			names = append(names, r.Kind)
		}
		c := byKind[r.Kind]
		c["all"]++
		if r.Fault != nil {
			c["fault"]++
		} else {
			c[r.Outcome]++
		}
	}
	slices.Sort(names)
	for _, k := range names {
		row(k, byKind[k])
	}
}

func summary(results []result) string {
	var b strings.Builder
	table(results, func(k string, c map[string]int) {
		fmt.Fprintf(&b, "%-12s %4d mutations: %4d refused, %4d halted, %4d kept, %4d equal, %d faults\n", k, c["all"], c[refused], c[halted], c[kept], c[equal], c["fault"])
	})
	return b.String()
}

var numbers = regexp.MustCompile(`"[^"]*"|(?:/[^\s/]+){2,}|\b[0-9a-f]*[0-9][0-9a-f-]*\b`)

// page is docs/results/corruption.md.
func page(f *flags, results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Mutations of a node's files\n\n"+
		"Written by `make corruption` (seed %d). One of three nodes is stopped, mostly by SIGKILL; one of its files gets a bit flipped, a sector or page\n"+
		"of zeroes, is cut, emptied or deleted; the node starts again while a client goes on writing. %d mutations, %d faults.\n\n"+
		"- **refused**: the process ends at its start with exit code 1 or 2 and one line that says why.\n"+
		"- **halted**: it started, met the damage later, said so and ended; until then no answer was wrong.\n"+
		"- **kept**: a certificate or key changed while it ran; it said that the file cannot be used and went on with the old one.\n"+
		"- **equal**: it serves; hashes and content are equal on all nodes. The damage was in what nobody reads, or was made good from the log or the others.\n"+
		"- **faults**: a wrong answer, another state than the others', a trace instead of a line, neither end nor service.\n\n"+
		"| file | mutations | refused | halted | kept | equal | faults |\n| --- | --- | --- | --- | --- | --- | --- |\n", f.seed, len(results), faults(results))
	table(results, func(k string, c map[string]int) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d |\n", k, c["all"], c[refused], c[halted], c[kept], c[equal], c["fault"])
	})
	b.WriteString("\nWhat the nodes said, numbers and names left out:\n\n| times | line |\n| --- | --- |\n")
	said := map[string]int{}
	var lines []string
	for _, r := range results {
		if r.Outcome == equal || r.Outcome == kept {
			continue
		}
		line := numbers.ReplaceAllString(strings.ReplaceAll(r.Line, "|", "\\|"), "…")
		if said[line]++; said[line] == 1 {
			lines = append(lines, line)
		}
	}
	slices.SortFunc(lines, func(x, y string) int { return said[y] - said[x] })
	for _, l := range lines[:min(len(lines), 30)] {
		fmt.Fprintf(&b, "| %d | %.200s |\n", said[l], l)
	}
	return b.String()
}
