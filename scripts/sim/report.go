package main

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
)

// String is an outcome in words.
func (o *outcome) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d nodes, %.1f s", o.Seed, o.Nodes, o.Seconds)
	if o.Report != nil {
		fmt.Fprintf(&b, ": %s", o.Report.Summary())
	}
	b.WriteByte('\n')
	if o.Error != "" {
		fmt.Fprintf(&b, "  FAILED: %s\n", o.Error)
	}
	if o.Report != nil {
		for _, v := range o.Report.Violations {
			fmt.Fprintf(&b, "  %s\n", v)
		}
	}
	if o.bad() {
		for _, e := range o.Events {
			fmt.Fprintf(&b, "    %s\n", e)
		}
	}
	return b.String()
}

// totals sums up outcomes.
type totals struct {
	o      *options
	done   int
	bad    []*outcome
	faults map[string]int

	acked, retried, replayed, decided, unknown, reads, polls, deliveries int
	told                                                                 time.Time
}

func newTotals(o *options) *totals { return &totals{o: o, faults: map[string]int{}, told: time.Now()} }

func (t *totals) take(o *outcome) {
	t.done++
	if r := o.Report; r != nil {
		t.acked, t.retried, t.replayed, t.decided, t.unknown = t.acked+r.Acked, t.retried+r.Retried, t.replayed+r.Replayed, t.decided+r.Decided, t.unknown+r.Unknown
		t.reads, t.polls, t.deliveries = t.reads+r.Reads, t.polls+r.Polls, t.deliveries+r.Deliveries
	}
	for _, e := range o.Events {
		_, what, _ := strings.Cut(e, " s  ")
		if name, whom, ok := strings.Cut(what, ": "); ok && whom != "over" && slices.ContainsFunc(kinds, func(k kind) bool { return k.name == name }) {
			t.faults[name]++
		}
	}
	if o.bad() {
		t.bad = append(t.bad, o)
		fmt.Print(o)
	}
	if time.Since(t.told) > 10*time.Second {
		t.told = time.Now()
		fmt.Printf("[%3.0f s] %d seeds, %d failed\n", time.Since(t.o.begun).Seconds(), t.done, len(t.bad))
	}
}

// line is the last one that is printed.
func (t *totals) line() string {
	n := 0
	for _, k := range t.faults {
		n += k
	}
	return fmt.Sprintf("%d seeds, %d faults in %.0f s: %d writes acknowledged (%d after retries, %d replayed), %d decided 4xx, %d unknown, %d reads, %d polls, %d deliveries: %d seeds failed",
		t.done, n, time.Since(t.o.begun).Seconds(), t.acked, t.retried, t.replayed, t.decided, t.unknown, t.reads, t.polls, t.deliveries, len(t.bad))
}

// page is the report in Markdown.
func (t *totals) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Simulated clusters\n\nMade by `make sim` on %s/%s with %d processors: [what is simulated, and how to run a seed again](../faults.md#simulated-clusters).\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Fprintf(&b, "%s.\n\n", t.line())
	for _, o := range t.bad {
		fmt.Fprintf(&b, "```\n%s```\n\n", o)
	}
	b.WriteString("| fault | times |\n| --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(t.faults)) {
		fmt.Fprintf(&b, "| %s | %d |\n", name, t.faults[name])
	}
	return b.String()
}
