package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"quinto/internal/mutants"
	"quinto/internal/testcluster"
)

const mutantSeeds = 6 // tries, each with another seed, before a mutant counts as not found

// provoke is the harm that brings a mutant out.
type provoke struct {
	harm  string
	times int
	hold  time.Duration
}

var provocations = map[string]provoke{
	"fsync-skipped":                {harm: "power-cut-all", times: 1},
	"acknowledged-before-commit":   {harm: "isolate-leader", times: 3, hold: 3 * time.Second},
	"stale-read-on-leader":         {harm: "pause-leader", times: 5, hold: 3500 * time.Millisecond},
	"412-of-a-deposed-leader":      {harm: "pause-leader", times: 5, hold: 3500 * time.Millisecond},
	"etag-and-list-from-two-views": {harm: "kill-follower"},
	"chance-in-apply":              {harm: "kill-follower"},
	"request-table-dropped":        {harm: "kill-leader"},
}

// found is what became of a mutant.
type found struct {
	mutant *mutants.Mutant
	out    *outcome // the run that found it, or the last
	tries  int
	err    error // it could not be built
}

func (f *found) caught() bool { return f.err == nil && f.out.bad() }

// by says what found it.
func (f *found) by() string {
	switch {
	case f.err != nil:
		return "not built: " + oneLine(f.err)
	case f.out.skipped != "":
		return "skipped: " + f.out.skipped
	case !f.out.bad():
		return "nothing"
	}
	var parts []string
	if f.out.err != nil {
		parts = append(parts, "a cluster that does not come to rest")
	}
	if f.out.report == nil {
		return "a failed run: " + oneLine(f.out.err)
	}
	for _, name := range slices.Sorted(maps.Keys(f.out.report.Counts)) {
		parts = append(parts, fmt.Sprintf("%s (%d)", name, f.out.report.Counts[name]))
	}
	return strings.Join(parts, ", ")
}

func (o *options) runMutants(ctx context.Context) error {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	var all []*found
	missed := false
	for _, m := range mutants.All() {
		if !only.MatchString(m.Name) {
			continue
		}
		f := o.hunt(ctx, m)
		all = append(all, f)
		missed = missed || !f.caught() && (f.err != nil || f.out.skipped == "")
		o.say("%s: found in run %d by: %s", m.Name, f.tries, f.by())
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(mutantsPage(all)), 0o644); err != nil {
			return err
		}
	}
	if missed {
		return errors.New("a mutant was not found")
	}
	return nil
}

// hunt builds a mutant and runs it under its harm until it is found.
func (o *options) hunt(ctx context.Context, m *mutants.Mutant) *found {
	f := &found{mutant: m}
	dir := filepath.Join(o.keep, "mutant-"+m.Name)
	if f.err = errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); f.err != nil {
		return f
	}
	var root string
	if root, f.err = mutants.Root(); f.err != nil {
		return f
	}
	var flags []string
	if flags, f.err = m.Plant(root, dir); f.err != nil {
		return f
	}
	run := *o
	run.faultsBuild, run.keepAll = true, true
	if run.binary, f.err = testcluster.Build(ctx, dir, append(flags, "-tags", "faults")...); f.err != nil {
		return f
	}
	run.keep = dir
	by := provocations[m.Name]
	h := *harmNamed(by.harm)
	h.times, h.hold = max(by.times, 1), by.hold
	for f.tries = 1; ; f.tries++ {
		f.out = play(ctx, &run, &h, 3, o.seed+uint64(f.tries)-1)
		if f.caught() || f.out.skipped != "" || f.tries == mutantSeeds || ctx.Err() != nil {
			break
		}
	}
	if f.caught() && !o.keepAll {
		_ = os.RemoveAll(dir)
	}
	return f
}

func harmNamed(name string) *harm {
	for _, h := range harms() {
		if h.name == name {
			return h
		}
	}
	panic("no harm is called " + name) // the table of mutants is checked by a test
}
