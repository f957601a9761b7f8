package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// spread is a figure over the rounds.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(values))
	middle := s[len(s)/2]
	if len(s)%2 == 0 {
		middle = (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return spread{middle, s[0], s[len(s)-1]}
}

// String is "median (least..most)".
func (s spread) String() string {
	return fmt.Sprintf("%s (%s..%s)", figure(s.median), figure(s.least), figure(s.most))
}

// figure writes a number with about three digits.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func pick(cells []cell, f func(cell) float64) spread {
	var values []float64
	for _, c := range cells {
		values = append(values, f(c))
	}
	return spreadOf(values)
}

func rates(cells []cell) spread { return pick(cells, func(c cell) float64 { return c.Rate }) }

// latencies is "p50 / p99" in ms, medians of the rounds.
func latencies(cells []cell) string {
	p50 := pick(cells, func(c cell) float64 { return milliseconds(c.P50) })
	p99 := pick(cells, func(c cell) float64 { return milliseconds(c.P99) })
	return figure(p50.median) + " / " + figure(p99.median)
}

// processor is the server's processor time for one operation in ms, the median of the rounds.
func processor(cells []cell) string {
	return figure(pick(cells, func(c cell) float64 { return milliseconds(c.ServerCPU) }).median)
}

// failures is the share of operations that failed, with the first reason.
func failures(cells []cell) string {
	failed, all, first := 0, 0, ""
	for _, c := range cells {
		failed += c.Errors
		all += c.Errors + c.Done
		if first == "" {
			first = c.FirstErr
		}
	}
	if failed == 0 {
		return "0"
	}
	return fmt.Sprintf("%d of %d (%s %%)", failed, all, figure(100*float64(failed)/float64(all)))
}

// ratio is quinto's rate by Kinto's best, of each round.
func (r *row) ratio(conns int) spread {
	var values []float64
	for i, c := range r.Quinto[conns] {
		if i < len(r.Kinto) && r.Kinto[i].Rate > 0 {
			values = append(values, c.Rate/r.Kinto[i].Rate)
		}
	}
	return spreadOf(values)
}

// print writes the tables of the comparison.
func (v *versus) print(w io.Writer) {
	fmt.Fprintln(w, "| workload | connections | quinto /s | p50 / p99 ms | CPU ms | errors | Kinto /s at its best | p50 / p99 ms | CPU ms | errors | ratio of each round |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, r := range v.Rows {
		for _, conns := range r.workload.conns {
			q := r.Quinto[conns]
			fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %s | %s at %d | %s | %s | %s | **%s** |\n",
				r.workload.what, conns, rates(q), latencies(q), processor(q), failures(q),
				rates(r.Kinto), r.BestConns, latencies(r.Kinto), processor(r.Kinto), failures(r.Kinto), r.ratio(conns))
		}
	}
	fmt.Fprintln(w)
	if failed := v.firstFailures(); len(failed) > 0 {
		fmt.Fprintf(w, "First failure of each cell that had one:\n\n%s\n", strings.Join(failed, ""))
	}
	fmt.Fprintln(w, "Kinto's best number of connections, from a short round before (operations per second):")
	fmt.Fprintln(w)
	for _, r := range v.Rows {
		var tried []string
		for _, c := range r.Scouted {
			tried = append(tried, fmt.Sprintf("%d: %s", c.Conns, figure(c.Rate)))
		}
		fmt.Fprintf(w, "- %s: **%d** (%s)\n", r.workload.what, r.BestConns, strings.Join(tried, ", "))
	}
	if len(v.Syncs) > 0 {
		fmt.Fprintf(w, "\nfdatasync of an appended 4 KiB on the same disk, right after create at one connection: p50 %s ms.\n", v.syncs())
	}
	fmt.Fprintf(w, "This client used up to %s cores while quinto was measured, %s while Kinto was.\n\n", figure(v.client(true)), figure(v.client(false)))
	printTargets(w, v.targets())
}

func (v *versus) firstFailures() []string {
	var out []string
	add := func(name string, conns int, cells []cell) {
		for _, c := range cells {
			if c.FirstErr != "" {
				text := strings.NewReplacer("\n", " ", "`", "'").Replace(c.FirstErr)
				out = append(out, fmt.Sprintf("- %s at %d: `%s`\n", name, conns, text))
				return
			}
		}
	}
	for _, r := range v.Rows {
		for _, conns := range r.workload.conns {
			add("quinto, "+r.workload.name, conns, r.Quinto[conns])
		}
		add("Kinto, "+r.workload.name, r.BestConns, r.Kinto)
	}
	return out
}

// client is the most that this program itself used, in cores, in any cell.
func (v *versus) client(quinto bool) float64 {
	most := 0.0
	for _, r := range v.Rows {
		cells := r.Kinto
		if quinto {
			cells = slices.Concat(slices.Collect(maps.Values(r.Quinto))...)
		}
		for _, c := range cells {
			most = max(most, c.ClientCPU)
		}
	}
	return most
}

func (v *versus) syncs() spread {
	var values []float64
	for _, s := range v.Syncs {
		values = append(values, milliseconds(s))
	}
	return spreadOf(values)
}

// target is one aim and what became of it.
type target struct {
	aim, found string
	reached    bool
}

func printTargets(w io.Writer, targets []target) {
	if len(targets) == 0 {
		return
	}
	fmt.Fprintln(w, "| target | found | reached |")
	fmt.Fprintln(w, "| --- | --- | --- |")
	for _, t := range targets {
		reached := "**no**"
		if t.reached {
			reached = "yes"
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", t.aim, t.found, reached)
	}
	fmt.Fprintln(w)
}

// aims are the ratios to reach: at this number of connections, or, as Kinto's are, at the best of those measured.
var aims = []struct {
	workload string
	conns    int // 0: the best
	ratio    float64
}{{"create", 64, 20}, {"read", 0, 50}, {"since0", 0, 50}, {"since10", 0, 50}, {"batch", 0, 50}}

// createOverhead is what one create may take beyond two syncs.
const createOverhead = 3 * time.Millisecond

// targets judges the medians.
func (v *versus) targets() []target {
	var out []target
	for _, aim := range aims {
		i := slices.IndexFunc(v.Rows, func(r *row) bool { return r.workload.name == aim.workload })
		if i < 0 {
			continue
		}
		r := v.Rows[i]
		conns := aim.conns
		if conns == 0 {
			conns = r.best()
		}
		found, errors := r.ratio(conns), 0
		for _, c := range r.Quinto[conns] {
			errors += c.Errors
		}
		out = append(out, target{
			fmt.Sprintf("%s, %d connections: ≥ %.0f times Kinto's best, no error", r.workload.what, conns, aim.ratio),
			fmt.Sprintf("%s times, %d errors", found, errors), found.median >= aim.ratio && errors == 0,
		})
		if aim.workload == "create" {
			out = append(out, v.latencyTarget(r))
		}
	}
	return out
}

// best is the number of connections at which quinto did most.
func (r *row) best() int {
	return slices.MaxFunc(r.workload.conns, func(a, b int) int {
		return cmp.Compare(rates(r.Quinto[a]).median, rates(r.Quinto[b]).median)
	})
}

func (v *versus) latencyTarget(r *row) target {
	p50 := pick(r.Quinto[1], func(c cell) float64 { return milliseconds(c.P50) })
	limit := 2*v.syncs().median + milliseconds(createOverhead)
	return target{
		"create, 1 connection: p50 ≤ two fdatasyncs + 3 ms = " + figure(limit) + " ms",
		p50.String() + " ms", p50.median <= limit,
	}
}

// document is docs/results/bench.md.
type document struct {
	Machine, Quinto string
	Options         options
	Versus          *versus
	Hooks           *hooksResult
	Big             *bigResult
}

// write makes the file anew. A part that was not measured now stays as the file has it.
func (d *document) write(path string) error {
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	var b strings.Builder
	b.WriteString(introduction)
	for _, part := range []struct {
		name string
		has  bool
		text func(io.Writer)
	}{{"versus", d.Versus != nil, d.versusPart}, {"hooks", d.Hooks != nil, d.hooksPart}, {"big", d.Big != nil, d.bigPart}} {
		begin, end := "<!-- begin "+part.name+" -->\n", "<!-- end "+part.name+" -->\n"
		var text strings.Builder
		if part.has {
			part.text(&text)
		} else {
			_, kept, _ := strings.Cut(string(old), begin)
			kept, _, _ = strings.Cut(kept, end)
			text.WriteString(kept)
		}
		b.WriteString("\n" + begin + strings.TrimRight(text.String(), "\n") + "\n" + end)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func (d *document) head(w io.Writer) {
	fmt.Fprintf(w, "%s. %s. Machine: %s.\n\n", time.Now().UTC().Format("2006-01-02"), d.Quinto, d.Machine)
}

func (d *document) versusPart(w io.Writer) {
	v := d.Versus
	fmt.Fprintf(w, "## Beside Kinto, %d records\n\n", v.Records)
	d.head(w)
	fmt.Fprintf(w, "%d interleaved rounds, cells of %g s after a warm-up; medians (least..most). %s, %s.\n\n", v.Rounds, v.Seconds, v.Kinto, v.Postgres)
	v.print(w)
	fmt.Fprintf(w, "Settings, beside defaults:\n\n- PostgreSQL: `%s`\n- granian: `%s`\n- Kinto: `%s`\n- quinto: the same authentication; three nodes, `--expect 3`, everything else its default\n",
		strings.Join(postgresSettings, " "), strings.Join(granianSettings, " "), strings.Join(kintoSettings("…")[1:], "`, `"))
}

func (d *document) bigPart(w io.Writer) {
	fmt.Fprintf(w, "## One node with %d records\n\n", d.Big.Records)
	d.head(w)
	d.Big.print(w)
}

const introduction = `# Benchmarks

This page is written by ` + "`make bench`" + ` (the part about hooks alone by ` + "`make bench-hooks`" + `, the last one by ` + "`go run ./scripts/bench --big`" + `).

How it is measured: closed loops over keep-alive connections from one client program (fasthttp's client, one connection a
loop) on the same machine as the servers; every answer is checked, and what is not the answer the workload asks for is an
error and no operation. quinto: three nodes, the connections spread over all of them (fewer connections than nodes take
turns), default consistency, which is linearizable. Kinto: at the number of connections that does most in a short round
before. Both on one disk, both syncing every commit, basic auth and permissions on, records of about 300 B in a collection
that the user owns. "CPU ms" is the processor time that all the processes of a server (nodes; workers and database) used
for one operation: it says more than the rates when the machine has other work. A ratio compares two cells of one round; absolute figures are this machine's. Kinto answers 409 to some
concurrent writes to one collection; they count as errors of it, not as operations.
`
