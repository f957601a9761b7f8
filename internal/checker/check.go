package checker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The invariants, as docs/results/faults.md names them.
const (
	Durability    = "1 durability"
	Order         = "2 order"
	Linearizable  = "3 linearizable"
	CAS           = "4 compare and set"
	Changes       = "5 changes since"
	Atomicity     = "6 batches are atomic"
	Identity      = "7 equal states"
	Once          = "8 exactly once"
	Webhooks      = "9 webhooks"
	Liveness      = "10 liveness"
	Authorization = "11 authorization"
)

// maxPerInvariant bounds the violations of one invariant that a report names; all
// are counted.
const maxPerInvariant = 10

// Report is the verdict on a history.
type Report struct {
	Counts     map[string]int // violations by invariant
	Violations []string       // the first ones of each, with the invariant's name
	// What was judged, so that an empty history is not taken for a good one.
	Acked, Decided, Refused, Unknown, Retried, Replayed int
	Reads, Polls, Deliveries                            int
}

// OK says that nothing is violated.
func (r *Report) OK() bool { return len(r.Counts) == 0 }

// Summary is one line.
func (r *Report) Summary() string {
	verdict := "no violation"
	if !r.OK() {
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(r.Counts)) {
			parts = append(parts, fmt.Sprintf("%s: %d", name, r.Counts[name]))
		}
		verdict = "VIOLATED: " + strings.Join(parts, ", ")
	}
	return fmt.Sprintf("%d writes acknowledged (%d after retries, %d replayed), %d decided 4xx, %d refused, %d unknown; %d reads, %d polls, %d deliveries: %s",
		r.Acked, r.Retried, r.Replayed, r.Decided, r.Refused, r.Unknown, r.Reads, r.Polls, r.Deliveries, verdict)
}

type check struct {
	h      *History
	report Report
	log    *commits
}

func (c *check) violated(invariant, format string, args ...any) {
	c.report.Counts[invariant]++
	if c.report.Counts[invariant] <= maxPerInvariant {
		c.report.Violations = append(c.report.Violations, invariant+": "+fmt.Sprintf(format, args...))
	}
}

// Check judges a history.
func Check(h *History) *Report {
	c := &check{h: h, report: Report{Counts: map[string]int{}}}
	c.count()
	c.webhooks() // also what was committed, for the others
	c.durability()
	c.order()
	c.compareAndSet()
	c.changes()
	c.exactReads()
	c.atomicity()
	c.identity()
	c.once()
	c.liveness()
	c.linearizable()
	return &c.report
}

func (c *check) count() {
	r := &c.report
	for _, o := range c.h.Ops {
		switch {
		case o.reads():
			r.Reads++
		case o.Unknown:
			r.Unknown++
		case o.Acked():
			r.Acked++
			if o.Tries > 1 {
				r.Retried++
			}
			r.Replayed += len(o.Replays)
		case o.refused():
			r.Refused++
		default:
			r.Decided++
		}
	}
	r.Polls, r.Deliveries = len(c.h.Polls), len(c.h.Hooks)
	if r.Acked == 0 {
		c.violated(Liveness, "no write was acknowledged: the run says nothing")
	}
}

func (o *Op) reads() bool {
	return len(o.Parts) == 1 && (o.Parts[0].Kind == Read || o.Parts[0].Kind == GuardedRead)
}

// answered: the state decided, for or against.
func (o *Op) answered() bool { return !o.Unknown && o.Status >= 200 && o.Status < 500 }

// Acked says that o is a write, which has an effect.
func (o *Op) Acked() bool { return !o.reads() && !o.Unknown && o.Status >= 200 && o.Status < 300 }

// refused writes were said to have none, whatever the state.
func (o *Op) refused() bool { return !o.reads() && !o.Unknown && o.Status >= 500 }

// effectless writes were said to have none: no try of them may show anywhere.
func (o *Op) effectless() bool {
	return !o.reads() && !o.Unknown && !o.Unsure && o.Status >= 400
}

// String is the request and its answer on one line.
func (o *Op) String() string {
	var parts []string
	for _, p := range o.Parts {
		s := fmt.Sprintf("%s %s", p.Kind, p.Object)
		if p.V+p.P != "" {
			s += "=" + p.V + p.P
		}
		if p.IfMatch > 0 {
			s += fmt.Sprintf(" if %d", p.IfMatch)
		}
		parts = append(parts, s)
	}
	return fmt.Sprintf("%s via %s [%.3f s to %.3f s] %s → %d rev %d", o.Client, o.Node, seconds(o.Call), seconds(o.Return), strings.Join(parts, " + "), o.Status, o.Revision)
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }
