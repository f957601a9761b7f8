package main

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"quinto/internal/checker"
)

// sample draws o.count of the harms that can be done here, by their weights.
func sample(all []*harm, o *options) []*harm {
	var pool []*harm
	for _, h := range all {
		if why := h.missing(o); why != "" {
			o.say("SKIPPED %s: %s", h.name, why)
			continue
		}
		for range h.weight {
			pool = append(pool, h)
		}
	}
	r := rand.New(rand.NewPCG(o.seed, 3))
	r.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	var out []*harm
	taken := map[*harm]bool{}
	for _, h := range pool {
		if !taken[h] && len(out) < o.count {
			taken[h] = true
			out = append(out, h)
		}
	}
	return out
}

// check judges histories and prints the verdicts.
func check(paths []string) error {
	bad := false
	for _, path := range paths {
		h, err := checker.LoadFile(path)
		if err != nil {
			return err
		}
		r := checker.Check(h)
		fmt.Printf("%s: %s\n", path, r.Summary())
		for _, v := range r.Violations {
			fmt.Println("  " + v)
		}
		bad = bad || !r.OK()
	}
	if bad {
		return errHarmed
	}
	return nil
}

// firstPanic finds what a process must never print.
func firstPanic(log string) string {
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "DATA RACE") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
