//go:build linux

package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

func verdict(ok bool) string {
	if ok {
		return "holds"
	}
	return "does not hold"
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func ofOpen(l *leg) *sample   { return &l.open }
func ofClosed(l *leg) *sample { return &l.closed }

func (m *measurement) report() string {
	open := compare(took(m.without, ofOpen), took(m.with, ofOpen), 0.99)
	closed := compare(took(m.without, ofClosed), took(m.with, ofClosed), 0.99)
	fan := slices.Max(m.fanOut)
	var b strings.Builder
	fmt.Fprintf(&b, "# Live streams\n\nOne node and all its clients on %d cores, %d streams of Server-Sent Events, by `make bench-live`, %s.\n\n",
		runtime.NumCPU(), m.size.streams, time.Now().UTC().Format("2006-01-02"))
	fmt.Fprintf(&b, "| what | measured | asked for | |\n| --- | --- | --- | --- |\n")
	fmt.Fprintf(&b, "| memory of the node for each stream | %.1f KiB | ≤ %d KiB | %s |\n", float64(m.perStream)/1024, boundMemory>>10, verdict(m.perStream <= boundMemory))
	fmt.Fprintf(&b, "| one write until all streams have it, slowest of %d | %d ms | ≤ %d ms | %s |\n", fanOuts, fan.Milliseconds(), boundFanOut.Milliseconds(), verdict(fan <= boundFanOut))
	row := func(how string, c comparison) {
		fmt.Fprintf(&b, "| writers' p99 with %d idle streams and %d on what is written, of that without: %s | %.2f (%.2f..%.2f): %.2f ms, %.2f ms without | ≤ %.1f | %s |\n",
			m.size.streams-watchers, watchers, how, c.ratio, c.low, c.high, ms(c.with), ms(c.without), boundWriters, verdict(c.ratio <= boundWriters))
	}
	row(fmt.Sprintf("%.0f writes a second", m.rate), open)
	row(fmt.Sprintf("%d writers as fast as they can", closedWriters), closed)
	m.method(&b)
	m.details(&b)
	return b.String()
}

func (m *measurement) method(b *strings.Builder) {
	fmt.Fprintf(b, "\n## What is measured\n\n")
	fmt.Fprintf(b, "%d legs with streams and %d without take turns, on one node; the ratio is that of the p99 of all writes of the legs with streams and of those without. In brackets, where 95 of 100 draws\n"+
		"of a bootstrap over whole legs lie. Streams are opened before each leg that has them and closed after it; %.0f s pass before it writes.\n\n", len(m.with), len(m.without), settle.Seconds())
	fmt.Fprintf(b, "Each leg writes in two ways:\n\n")
	fmt.Fprintf(b, "- **At a fixed rate**, for %.0f s: %.0f writes a second, %.0f%% of what the other way reached without streams before the first leg. The moments at which writes are due are drawn\n"+
		"  beforehand (a Poisson process), and are the same with streams and without. Time counts from when a write was due, so that a write which has to wait is not left out. This is how a node is used that has room left,\n"+
		"  and what it takes there is what streams add to the time of a write.\n", m.size.open.Seconds(), m.rate, rateShare*100)
	fmt.Fprintf(b, "- **As fast as they can**, for %.0f s: %d writers, each of which sends as soon as its last write is answered. Where that keeps the cores busy, what the streams\n"+
		"  and their receiver compute is taken from the writers.\n\n", m.size.closed.Seconds(), closedWriters)
	fmt.Fprintf(b, "The clients are two processes on the same cores, each one thread that waits for its sockets: one has all streams, one writes. In each leg with streams each write came to each of the %d streams on the\n"+
		"written collection exactly once; a run in which one is missing fails.\n", watchers)
}

func (m *measurement) details(b *strings.Builder) {
	fmt.Fprintf(b, "\n## The legs\n\n| | without streams | with |\n| --- | --- | --- |\n")
	list := func(legs []leg, text func(*leg) string) string {
		var all []string
		for i := range legs {
			all = append(all, text(&legs[i]))
		}
		return strings.Join(all, ", ")
	}
	row := func(name string, text func(*leg) string) {
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, list(m.without, text), list(m.with, text))
	}
	at := func(of func(*leg) *sample, q float64) func(*leg) string {
		return func(l *leg) string {
			return fmt.Sprintf("%.2f", float64(quantile([][]int64{of(l).Took}, q))/1000)
		}
	}
	row("fixed rate: p50, ms", at(ofOpen, 0.5))
	row("fixed rate: p99, ms", at(ofOpen, 0.99))
	row("of that, p99 of how late the client sent, ms", func(l *leg) string {
		return fmt.Sprintf("%.2f", float64(quantile([][]int64{l.open.Late}, 0.99))/1000)
	})
	row("fixed rate: CPU of the node, % of one core", func(l *leg) string { return fmt.Sprintf("%.0f", 100*l.nodeCPU.Seconds()/l.open.Lasted.Seconds()) })
	row("as fast as they can: p50, ms", at(ofClosed, 0.5))
	row("as fast as they can: p99, ms", at(ofClosed, 0.99))
	row("as fast as they can: writes a second", func(l *leg) string { return fmt.Sprintf("%.0f", float64(len(l.closed.Took))/l.closed.Lasted.Seconds()) })
	var fans []string
	for _, d := range m.fanOut {
		fans = append(fans, fmt.Sprintf("%d ms", d.Milliseconds()))
	}
	fmt.Fprintf(b, "\nOne write until all streams had it: %s.\n", strings.Join(fans, ", "))
}
