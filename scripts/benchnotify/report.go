package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

type target struct {
	aim, found string
	reached    bool
}

func median(in []float64) float64 {
	sorted := slices.Sorted(slices.Values(in))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// spread is "median (least..most)".
func spread(in []float64, digits int) string {
	return fmt.Sprintf("%.*f (%.*f..%.*f)", digits, median(in), digits, slices.Min(in), digits, slices.Max(in))
}

func each[T any](rounds []T, f func(T) float64) []float64 {
	all := make([]float64, len(rounds))
	for i := range rounds {
		all[i] = f(rounds[i])
	}
	return all
}

// part reads one percentile of the rounds, in ms.
func part[T any](rounds []T, of func(T) []time.Duration, percent int) []float64 {
	return each(rounds, func(one T) float64 { return ms(at(of(one), percent)) })
}

func sending(l latencyRound) []time.Duration { return l.sending }
func answer(l latencyRound) []time.Duration  { return l.answer }

// ratios divides the rounds of one side by those of the other.
func ratios(with, without []float64) []float64 {
	all := make([]float64, len(with))
	for i := range with {
		all[i] = with[i] / without[i]
	}
	return all
}

// compared are the figures of the rounds with and without dead receivers.
func compared() []struct {
	what string
	of   func([]deadRound) []float64
} {
	write := func(percent int) func([]deadRound) []float64 {
		return func(r []deadRound) []float64 {
			return part(r, func(d deadRound) []time.Duration { return d.write }, percent)
		}
	}
	delivered := func(percent int) func([]deadRound) []float64 {
		return func(r []deadRound) []float64 {
			return part(r, func(d deadRound) []time.Duration { return d.sending }, percent)
		}
	}
	return []struct {
		what string
		of   func([]deadRound) []float64
	}{
		{"a write, p50 ms", write(50)}, {"a write, p99 ms", write(99)}, {"from a write to its delivery, p50 ms", delivered(50)},
		{"from a write to its delivery, p99 ms", delivered(99)},
		{"a burst until all is delivered, ms", func(r []deadRound) []float64 { return each(r, func(d deadRound) float64 { return ms(d.burst) }) }},
	}
}

func (r *results) targets() []target {
	steady := each(r.steady, func(s steadyRound) float64 { return s.delivered })
	p50 := part(r.latency, sending, 50)
	oldest := each(r.failovers, func(f failoverRound) float64 { return f.oldest.Seconds() })
	all := []target{
		{fmt.Sprintf("%d waiting events of %d collections: ≥ %d delivered a second", r.size.waiting, collections, aimRate), spread(r.waiting, 0), median(r.waiting) >= aimRate},
		{fmt.Sprintf("%d events a second written by batches of %d meanwhile: ≥ %d delivered a second", r.size.steadyRate, batchSize, aimRate), spread(steady, 0), median(steady) >= aimRate},
		{fmt.Sprintf("from commit to delivery at %d writes a second: p50 ≤ %d ms, counted from the sending of the write", r.size.paceRate, aimLatency.Milliseconds()),
			spread(p50, 1) + " ms", median(p50) <= ms(aimLatency)},
	}
	for i, c := range compared() {
		if i%2 == 1 {
			continue // p99 stands in the table below
		}
		ratio := ratios(c.of(r.with), c.of(r.without))
		all = append(all, target{fmt.Sprintf("two dead receivers, %s: ≤ %.1f times that without", strings.TrimSuffix(strings.TrimSuffix(c.what, " ms"), ","), aimDead), spread(ratio, 2), median(ratio) <= aimDead})
	}
	return append(all, target{fmt.Sprintf("kill -9 of the leader with %d events in a dead lane: what is repeated of the others is ≤ %g s old", r.size.deadLane, aimRepeats.Seconds()),
		spread(oldest, 2) + " s", slices.Max(oldest) <= aimRepeats.Seconds()})
}

func (r *results) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Webhooks in figures\n\nMade by `make %s`, %s: three nodes, clients and the receiver on %s; %d rounds, medians (least..most); %.0f s in all.\n\n",
		r.size.target, time.Now().UTC().Format("2006-01-02"), r.machine, r.size.rounds, r.took.Seconds())
	fmt.Fprintf(&b, "Each of the %d changes came, with a good signature, in the order of its collection; what came twice had the id of the first.\n\n", r.deliveries)
	b.WriteString("| target | found | reached |\n| --- | --- | --- |\n")
	for _, t := range r.targets() {
		reached := "**no**"
		if t.reached {
			reached = "yes"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", t.aim, t.found, reached)
	}
	fmt.Fprintf(&b, "\n## From a write to its delivery\n\n%d single writes a second through all nodes. The commit lies between the sending of a write and its answer; a delivery may come before the answer does (0).\n\n",
		r.size.paceRate)
	b.WriteString("| counted from | p50 ms | p99 ms |\n| --- | --- | --- |\n")
	fmt.Fprintf(&b, "| sending | %s | %s |\n| answer | %s | %s |\n", spread(part(r.latency, sending, 50), 1), spread(part(r.latency, sending, 99), 1),
		spread(part(r.latency, answer, 50), 1), spread(part(r.latency, answer, 99), 1))
	fmt.Fprintf(&b, "\n## Dead receivers\n\nTwo more listeners that want every change: one whose receiver refuses connections, one whose receiver never answers. %d rounds without and with them, in turn, on two clusters; a burst is %d events.\n\n",
		len(r.with), r.size.burst)
	b.WriteString("| | without | with | ratio of the rounds |\n| --- | --- | --- | --- |\n")
	for _, c := range compared() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.what, spread(c.of(r.without), 1), spread(c.of(r.with), 1), spread(ratios(c.of(r.with), c.of(r.without)), 2))
	}
	fmt.Fprintf(&b, "\n## Failover beside a dead lane\n\nOne collection is refused with %d events waiting, the others get %d events a second, the leader is killed.\n\n", r.size.deadLane, r.size.failoverRate)
	b.WriteString("| delivered in the seconds before | came twice | the oldest of them, before the kill | that is, of the rate | until the next delivery |\n| --- | --- | --- | --- | --- |\n")
	for _, f := range r.failovers {
		fmt.Fprintf(&b, "| %d | %d | %.2f s | %.2f s | %.2f s |\n", f.delivered, f.repeats, f.oldest.Seconds(), float64(f.repeats)/f.rate, f.gap.Seconds())
	}
	fmt.Fprintf(&b, "\nTaken again, the lane that was dead gets %s events a second: a collection has one delivery under way.\n", spread(r.lane, 0))
	return b.String()
}
