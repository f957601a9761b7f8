package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of shrinking a sequence that differs.
const (
	shrinkTime   = 40 * time.Second
	maxShrunk    = 6 // sequences of one pair of servers; more have most likely the same causes
	maxShrinkRun = 400
)

// Finding is a generated sequence in which an unexplained difference was found, made as small as the time allowed.
type Finding struct {
	Seed     uint64
	Text     string // a scenario that can be put into a file of scenarios
	Outcomes []Outcome
}

// runGenerated runs the sequences on one pair of servers and shrinks the first that differ.
func (s *Suite) runGenerated(ctx context.Context, sequences []sequence) ([][]Outcome, []Finding) {
	s.client = newHTTPClient()
	defer s.client.CloseIdleConnections()
	outcomes := make([][]Outcome, len(sequences))
	queue := make(chan int)
	var workers sync.WaitGroup
	for range s.Workers {
		workers.Go(func() {
			for i := range queue {
				outcomes[i] = s.runScenario(ctx, i, sequences[i].scenario())
			}
		})
	}
	for i := range sequences {
		if ctx.Err() == nil {
			queue <- i
		}
	}
	close(queue)
	workers.Wait()
	var found []Finding
	s.trials = len(sequences)
	for i, q := range sequences {
		if firstKind(outcomes[i]) == "" || len(found) == maxShrunk || ctx.Err() != nil {
			continue
		}
		s.trials++
		again := s.runScenario(ctx, s.trials, q.scenario())
		if firstKind(again) == "" { // see Suite.repeat
			s.Chance = append(s.Chance, chance(outcomes[i]))
			outcomes[i] = again
			continue
		}
		found = append(found, s.shrink(ctx, q, again))
	}
	return outcomes, found
}

// firstKind names the first unexplained difference of a run so that it is known again in a smaller sequence, "" when there is none.
func firstKind(outcomes []Outcome) string {
	for _, o := range outcomes {
		if len(o.Diffs) > 0 {
			d := o.Diffs[0]
			return fmt.Sprintf("%s %d %d", listIndex.ReplaceAllString(d.Field, "[]"), o.Answers[0].Status, o.Answers[1].Status)
		}
	}
	return ""
}

// shrink takes steps, headers, parameters and members of bodies away as long as the difference stays.
func (s *Suite) shrink(ctx context.Context, q sequence, outcomes []Outcome) Finding {
	kind := firstKind(outcomes)
	best := outcomes
	deadline, runs := time.Now().Add(shrinkTime), 0
	holds := func(smaller sequence) bool {
		if runs++; runs > maxShrinkRun || time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		s.trials++
		again := s.runScenario(ctx, s.trials, smaller.scenario())
		if firstKind(again) != kind {
			return false
		}
		best = again
		return true
	}
	last := outcomes[len(outcomes)-1].Request.Label
	end := slices.IndexFunc(q.steps, func(st step) bool { return st.label() == last }) + 1
	q.steps = q.steps[:end]
	q = smallest(q, holds)
	q.steps = slices.DeleteFunc(slices.Clone(q.steps), func(st step) bool { // those that were not even sent
		return !slices.ContainsFunc(best, func(o Outcome) bool { return o.Request.Label == st.label() })
	})
	return Finding{Seed: q.seed, Text: scenarioText(q, best), Outcomes: best}
}

// smallest reduces a sequence as long as it holds.
func smallest(q sequence, holds func(sequence) bool) sequence {
	for size := len(q.steps) / 2; size > 0; size /= 2 {
		for at := 0; at < len(q.steps); {
			if smaller := q.without(at, min(at+size, len(q.steps))); len(smaller.steps) > 0 && holds(smaller) {
				q = smaller
			} else {
				at += size
			}
		}
	}
	for i := 0; i < len(q.steps); i++ {
		for again := true; again; {
			again = false
			for _, st := range simpler(q.steps[i]) {
				if smaller := q.with(i, st); holds(smaller) {
					q, again = smaller, true
					break
				}
			}
		}
	}
	return q
}

// without leaves some steps out, and those that need their answers.
func (q sequence) without(from, to int) sequence {
	gone := map[string]bool{}
	var kept []step
	for i, st := range q.steps {
		if i >= from && i < to || slices.ContainsFunc(refersTo(st.request()), func(label string) bool { return gone[label] }) {
			gone[st.label()] = true
			continue
		}
		kept = append(kept, st)
	}
	q.steps = kept
	return q
}

func (q sequence) with(i int, st step) sequence {
	q.steps = slices.Clone(q.steps)
	q.steps[i] = st
	return q
}

// simpler gives variants of a step with one thing less each.
func simpler(st step) []step {
	var all []step
	for i := range st.header {
		less := st
		less.header = slices.Delete(slices.Clone(st.header), i, i+1)
		all = append(all, less)
	}
	for i := range st.query {
		less := st
		less.query = slices.Delete(slices.Clone(st.query), i, i+1)
		all = append(all, less)
	}
	if st.body != nil {
		less := st
		less.body = nil
		all = append(all, less)
		for _, body := range lessOf(st.body) {
			less.body = body
			all = append(all, less)
		}
	}
	if st.user != "alice" {
		less := st
		less.user = "alice"
		all = append(all, less)
	}
	return all
}

// lessOf gives a JSON value with one member or element less, at any depth.
func lessOf(value any) []any {
	var all []any
	switch at := value.(type) {
	case map[string]any:
		for _, key := range sortedKeys(at) {
			less := map[string]any{}
			for k, v := range at {
				if k != key {
					less[k] = v
				}
			}
			all = append(all, less)
			for _, inner := range lessOf(at[key]) {
				changed := map[string]any{key: inner}
				for k, v := range less {
					changed[k] = v
				}
				all = append(all, changed)
			}
		}
	case []any:
		for i := range at {
			all = append(all, slices.Delete(slices.Clone(at), i, i+1))
			for _, inner := range lessOf(at[i]) {
				changed := slices.Clone(at)
				changed[i] = inner
				all = append(all, changed)
			}
		}
	}
	return all
}

// printFindings shows each difference as a scenario, with both answers to its last request.
func printFindings(w io.Writer, found []Finding) {
	for _, f := range found {
		fmt.Fprintf(w, "\nFAIL seed %d: the smallest sequence that still differs\n\n%s", f.Seed, f.Text)
		for _, o := range f.Outcomes {
			if len(o.Diffs) > 0 {
				fmt.Fprintln(w, strings.Repeat("-", 20))
				printOutcome(w, o, true)
			}
		}
	}
}
