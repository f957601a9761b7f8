package main

import (
	"fmt"
	"html"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"quinto/internal/checker"
)

// plot is what a report shows of a run: acknowledged writes over time, and the
// faults.
type plot struct {
	perBucket []int
	faults    []*checker.Fault
	outage    time.Duration // the longest time without an acknowledged write from a fault's begin on
	recovery  time.Duration // the longest time from a fault's end to the next acknowledged write
}

const plotBucket = 250 * time.Millisecond

func newPlot(h *checker.History) *plot {
	p := &plot{faults: h.Faults}
	var acks []int64
	for _, o := range h.Ops {
		if len(o.Parts) > 0 && o.Parts[0].Kind != checker.Read && o.Parts[0].Kind != checker.GuardedRead && o.Status >= 200 && o.Status < 300 && !o.Unknown {
			acks = append(acks, o.Return)
		}
	}
	slices.Sort(acks)
	for _, at := range acks {
		b := int(at / int64(plotBucket))
		for len(p.perBucket) <= b {
			p.perBucket = append(p.perBucket, 0)
		}
		p.perBucket[b]++
	}
	for _, f := range h.Faults {
		last := f.Begin
		for _, at := range acks {
			if at >= f.Begin {
				p.outage = max(p.outage, time.Duration(at-last))
				last = at
			}
		}
		if i, _ := slices.BinarySearch(acks, f.Healed); i < len(acks) {
			p.recovery = max(p.recovery, time.Duration(acks[i]-f.Healed))
		}
	}
	return p
}

// verdict is one word or line about an outcome.
func (out *outcome) verdict() string {
	switch {
	case out.skipped != "":
		return "skipped: " + out.skipped
	case out.err != nil:
		return "FAILED: " + oneLine(out.err)
	case !out.report.OK():
		return "VIOLATED: " + strings.Join(out.report.Violations, "; ")
	}
	return "no violation"
}

// report prints the sum and writes what was asked for.
func (o *options) report(all []*outcome) error {
	var ran, bad, skipped int
	for _, out := range all {
		switch {
		case out.skipped != "":
			skipped++
		case out.bad():
			bad++
			ran++
		default:
			ran++
		}
	}
	o.say("%d runs, %d bad, %d skipped", ran, bad, skipped)
	if o.html != "" {
		if err := os.WriteFile(o.html, []byte(o.page(all)), 0o644); err != nil {
			return err
		}
	}
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(o.table(all)), 0o644); err != nil {
			return err
		}
	}
	if bad > 0 {
		return errHarmed
	}
	return nil
}

// table is the report in Markdown.
func (o *options) table(all []*outcome) string {
	var b strings.Builder
	load := loadOptions(0, time.Time{}, nil)
	var acked, retried, replayed, unknown, reads, polls, deliveries int
	for _, out := range all {
		if r := out.report; r != nil {
			acked, retried, replayed, unknown = acked+r.Acked, retried+r.Retried, replayed+r.Replayed, unknown+r.Unknown
			reads, polls, deliveries = reads+r.Reads, polls+r.Polls, deliveries+r.Deliveries
		}
	}
	fmt.Fprintf(&b, `# Faults

Made by %s on %s/%s with %d processors. %d writers, %d pollers that change the node at each request, a webhook; each run has its own
cluster, of which every node is a process in its own network namespace. After the run the history is held against the invariants: durability, order,
linearizability of each object (porcupine), compare and set, changes since, atomic batches, equal states, exactly once on retry, webhooks, liveness,
authorization. An outage is the longest time without an acknowledged write from the begin of the fault on, and so at least as long as a fault that takes
the majority; recovery is from the end of the fault to the next acknowledged write.

In all: %d writes acknowledged (%d after retries, %d sent again once more to compare the answer), %d of unknown outcome, %d reads, %d polls,
%d deliveries.

| fault | nodes | acknowledged | unknown | longest outage | recovery | verdict |
| --- | --- | --- | --- | --- | --- | --- |
`, "`make faults`", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), load.Writers, load.Pollers, acked, retried, replayed, unknown, reads, polls, deliveries)
	for _, out := range all {
		if out.report == nil {
			fmt.Fprintf(&b, "| %s | %d | | | | | %s |\n", out.harm.name, out.nodes, out.verdict())
			continue
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d ms | %d ms | %s |\n", out.harm.name, out.nodes, out.report.Acked, out.report.Unknown, out.plot.outage.Milliseconds(), out.plot.recovery.Milliseconds(), out.verdict())
	}
	return b.String()
}

// page is the report in HTML: one file, no scripts.
func (o *options) page(all []*outcome) string {
	var b strings.Builder
	b.WriteString(`<!doctype html><meta charset="utf-8"><title>quinto: faults</title>
<style>body{font:15px/1.4 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}svg{width:100%;height:9rem;background:#fafafa}
h2{font-size:1rem;margin:1.5rem 0 .2rem}p{margin:.2rem 0}.bad{color:#b00020;font-weight:bold}.bar{fill:#3b7dd8}.fault{fill:#f6c7c7}text{font-size:11px;fill:#555}</style>
<h1>quinto: faults</h1><p>Acknowledged writes per quarter of a second; red is the time of a fault.</p>
`)
	for _, out := range all {
		class := ""
		if out.bad() {
			class = ` class="bad"`
		}
		fmt.Fprintf(&b, "<h2>%s, %d nodes, seed %d</h2>\n", html.EscapeString(out.harm.name), out.nodes, out.seed)
		if out.report != nil {
			fmt.Fprintf(&b, "<p>longest outage %d ms, recovery %d ms; %s</p>\n", out.plot.outage.Milliseconds(), out.plot.recovery.Milliseconds(), html.EscapeString(out.report.Summary()))
			out.plot.draw(&b)
		}
		fmt.Fprintf(&b, "<p%s>%s</p>\n", class, html.EscapeString(out.verdict()))
	}
	return b.String()
}

// draw is one plot as SVG.
func (p *plot) draw(b *strings.Builder) {
	const step, height = 8, 120
	top := max(1, slices.Max(append([]int{0}, p.perBucket...)))
	width := max(1, len(p.perBucket)) * step
	x := func(ns int64) float64 { return float64(ns) / float64(plotBucket) * step }
	fmt.Fprintf(b, `<svg viewBox="0 0 %d %d" preserveAspectRatio="none">`, width, height+14)
	for _, f := range p.faults {
		fmt.Fprintf(b, `<rect class="fault" x="%.1f" y="0" width="%.1f" height="%d"><title>%s %s</title></rect>`, x(f.Begin), max(2, x(f.Healed)-x(f.Begin)), height, html.EscapeString(f.Name), html.EscapeString(f.Target))
	}
	for i, n := range p.perBucket {
		h := float64(n) / float64(top) * height
		fmt.Fprintf(b, `<rect class="bar" x="%d" y="%.1f" width="%d" height="%.1f"/>`, i*step, height-h, step-1, h)
	}
	for s := 0; s*4 < len(p.perBucket); s += 5 {
		fmt.Fprintf(b, `<text x="%d" y="%d">%d s</text>`, s*4*step, height+12, s)
	}
	b.WriteString("</svg>\n")
}

func mutantsPage(all []*found) string {
	var b strings.Builder
	b.WriteString("# The checker finds planted faults\n\nMade by `make mutants`. Each fault is planted in a binary built aside, which then runs under the harm that brings it out; the judge is that of\n`make faults` ([faults.md](../faults.md)).\n\n")
	b.WriteString("| planted | harm | found in run | by violations of |\n| --- | --- | --- | --- |\n")
	for _, f := range all {
		fmt.Fprintf(&b, "| %s | %s | %d | %s |\n", f.mutant.What, provocations[f.mutant.Name].harm, f.tries, f.by())
	}
	return b.String()
}
