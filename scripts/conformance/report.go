package main

import (
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
)

// maxShown bounds how much of one value or body a report prints.
const maxShown = 1500

// Limits of the summary of frequent differences.
const (
	maxFrequent = 30
	maxKind     = 48
)

var (
	listIndex = regexp.MustCompile(`\[\d+\]`)
	digits    = regexp.MustCompile(`\d{4,}`)
)

// tally counts requests by their outcome.
type tally struct {
	scenarios, requests, equal, deviations, unexplained int
}

// report prints every difference, then the two lines a machine may read. stale are deviations that matched nothing.
func report(w io.Writer, outcomes [][]Outcome, stale []*Deviation, verbose bool) tally {
	var t tally
	failed := map[string]int{}
	for _, scenario := range outcomes {
		t.scenarios++
		header := false
		for _, o := range scenario {
			t.requests++
			switch {
			case len(o.Diffs) > 0:
				t.unexplained++
				failed[o.Scenario.File]++
				if !header {
					fmt.Fprintf(w, "\nFAIL %s:%d scenario %q (rows %s)\n", o.Scenario.File, o.Scenario.Line, o.Scenario.Name, strings.Join(o.Scenario.Rows, " "))
					header = true
				}
				printOutcome(w, o, verbose)
			case len(o.Deviation) > 0:
				t.deviations++
				printDeviations(w, o, verbose)
			default:
				t.equal++
			}
		}
	}
	for _, d := range stale {
		t.unexplained++
		fmt.Fprintf(w, "\nFAIL deviations.txt:%d matches no difference any more: scenario %q request %s field %s\n", d.Line, d.Scenario, d.Request, d.Field)
	}
	printFiles(w, failed)
	printFrequent(w, outcomes)
	fmt.Fprintf(w, "\nconformance: %d scenarios, %d requests, equal %d, deviations on purpose %d, unexplained %d\n", t.scenarios, t.requests, t.equal, t.deviations, t.unexplained)
	fmt.Fprintf(w, "%d passed, %d failed\n", t.equal+t.deviations, t.unexplained)
	return t
}

func printOutcome(w io.Writer, o Outcome, verbose bool) {
	fmt.Fprintf(w, "  request %s  %s %s user=%s  (%s:%d)\n", o.Request.Label, o.Request.Method, o.Request.Target, or(o.Request.User, "anonymous"), o.Request.File, o.Request.Line)
	for _, d := range o.Diffs {
		fmt.Fprintf(w, "    %s\n      kinto   %s\n      target  %s\n", d.Field, short(d.Kinto), short(d.Target))
	}
	if !verbose {
		return
	}
	fmt.Fprintf(w, "    --- sent\n%s", indent(sentText(o.Sent[0])))
	fmt.Fprintf(w, "    --- kinto answered\n%s", indent(answerText(o.Answers[0])))
	fmt.Fprintf(w, "    --- target answered\n%s", indent(answerText(o.Answers[1])))
}

func printDeviations(w io.Writer, o Outcome, verbose bool) {
	if !verbose {
		return
	}
	for _, d := range o.Deviation {
		fmt.Fprintf(w, "deviation on purpose: %q request %s field %s: %s\n", d.Scenario, d.Request, d.Field, d.Reason)
	}
}

func printFiles(w io.Writer, failed map[string]int) {
	if len(failed) == 0 {
		return
	}
	names := sortedKeys(failed)
	sort.SliceStable(names, func(i, j int) bool { return failed[names[i]] > failed[names[j]] })
	fmt.Fprint(w, "\nunexplained by file:")
	for _, name := range names {
		fmt.Fprintf(w, " %s %d", name, failed[name])
	}
	fmt.Fprintln(w)
}

// printFrequent groups the unexplained differences of one kind, the most frequent first: one cause often shows in many places.
func printFrequent(w io.Writer, outcomes [][]Outcome) {
	count, example := map[string]int{}, map[string]string{}
	for _, scenario := range outcomes {
		for _, o := range scenario {
			for _, d := range o.Diffs {
				kind := fmt.Sprintf("%s: %s ≠ %s", listIndex.ReplaceAllString(d.Field, "[]"), kindOfText(d.Kinto), kindOfText(d.Target))
				if count[kind]++; example[kind] == "" {
					example[kind] = fmt.Sprintf("%s:%d", o.Request.File, o.Request.Line)
				}
			}
		}
	}
	kinds := sortedKeys(count)
	sort.SliceStable(kinds, func(i, j int) bool { return count[kinds[i]] > count[kinds[j]] })
	for i, kind := range kinds {
		if i == 0 {
			fmt.Fprintf(w, "\nmost frequent differences (kinto ≠ target), of %d kinds:\n", len(kinds))
		}
		if i == maxFrequent {
			break
		}
		fmt.Fprintf(w, "%6d  %s  (%s)\n", count[kind], kind, example[kind])
	}
}

// kindOfText cuts a value to what several differences of one cause share.
func kindOfText(text string) string {
	text = digits.ReplaceAllString(strings.SplitN(text, "\n", 2)[0], "N")
	if runes := []rune(text); len(runes) > maxKind {
		return string(runes[:maxKind]) + "…"
	}
	return text
}

// printAnswers lists what the reference said to every request, for writing scenarios.
func printAnswers(w io.Writer, outcomes [][]Outcome) {
	for _, scenario := range outcomes {
		for i, o := range scenario {
			if i == 0 {
				fmt.Fprintf(w, "\nscenario %q\n", o.Scenario.Name)
			}
			fmt.Fprintf(w, "%s:%d %s %s => %d\n%s", o.Request.File, o.Request.Line, o.Request.Method, o.Sent[0].Target, o.Answers[0].Status, indent(answerText(o.Answers[0])))
		}
	}
}

func sentText(s Sent) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s\n", s.Method, s.Target)
	for _, h := range s.Header {
		fmt.Fprintf(&text, "%s: %s\n", h[0], h[1])
	}
	text.Write(s.Body)
	return text.String()
}

func answerText(a Answer) string {
	if a.Err != nil {
		return a.Err.Error()
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d\n", a.Status)
	flat := flatHeader(a.Header)
	for _, name := range sortedKeys(flat) {
		if ignoredHeaders[name] == "" {
			fmt.Fprintf(&text, "%s: %s\n", displayName(name), flat[name])
		}
	}
	text.WriteString(short(string(a.Body)))
	return text.String()
}

func indent(text string) string {
	return "      " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n      ") + "\n"
}

func short(text string) string {
	if len(text) > maxShown {
		return text[:maxShown] + "…"
	}
	return text
}

func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
