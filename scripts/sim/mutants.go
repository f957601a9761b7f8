package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"quinto/internal/mutants"
)

// mutantSeeds are tried before a mutant counts as not found.
const mutantSeeds = 400

// provocations are the kinds of faults that bring a mutant out; none: all.
var provocations = map[string]string{
	"fsync-skipped":              "crash-majority,crash-all",
	"acknowledged-before-commit": "isolate,split,crash",
	"stale-read-on-leader":       "isolate,isolate-in,pause,split",
	"412-of-a-deposed-leader":    "isolate,isolate-in,pause,split",
}

// planted are the mutants of internal/mutants, but for the log's sync: the simulation
// has a log of its own, which then forgets what it confirmed last.
func planted() []*mutants.Mutant {
	all := mutants.All()
	for _, m := range all {
		if m.Name == "fsync-skipped" {
			m.Edits = []mutants.Edit{{File: "scripts/sim/disk.go", Old: "\tf.dead = true\n", New: "\tfor range 4 {\n\t\tif left.last > left.first {\n\t\t\tdelete(left.entries, left.last)\n\t\t\tleft.last--\n\t\t}\n\t}\n\tf.dead = true\n"}}
		}
	}
	return all
}

// hunted is what became of a mutant.
type hunted struct {
	mutant *mutants.Mutant
	tries  int
	found  *outcome // nil: none
}

// by says what found it.
func (h *hunted) by() string {
	if h.found == nil {
		return "nothing"
	}
	var parts []string
	if h.found.Report != nil {
		for _, name := range slices.Sorted(maps.Keys(h.found.Report.Counts)) {
			parts = append(parts, fmt.Sprintf("%s (%d)", name, h.found.Report.Counts[name]))
		}
	}
	if len(parts) == 0 {
		e := strings.Join(strings.Fields(h.found.Error), " ")
		return "a failed run: " + e[:min(len(e), 120)]
	}
	return strings.Join(parts, ", ")
}

// runMutants builds each mutant of this program and runs seeds until one fails.
func (o *options) runMutants(ctx context.Context) error {
	root, err := mutants.Root()
	if err != nil {
		return err
	}
	var all []*hunted
	var missed error
	for _, m := range planted() {
		if o.mutant != "" && o.mutant != m.Name {
			continue
		}
		h, err := o.hunt(ctx, root, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		all = append(all, h)
		fmt.Printf("%s: %d seeds, found by %s\n", m.Name, h.tries, h.by())
		if h.found == nil {
			missed = errors.Join(missed, fmt.Errorf("%s was not found", m.Name))
		}
	}
	if o.out != "" {
		return errors.Join(missed, os.WriteFile(o.out, []byte(mutantsPage(all)), 0o644))
	}
	return missed
}

func (o *options) hunt(ctx context.Context, root string, m *mutants.Mutant) (*hunted, error) {
	dir, err := filepath.Abs(filepath.Join(o.keep, "mutant-"+m.Name))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}
	flags, err := m.Plant(root, dir)
	if err != nil {
		return nil, err
	}
	run := *o
	run.binary, run.keep, run.only = filepath.Join(dir, "sim"), dir, provocations[m.Name]
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", run.binary}, flags...), "./scripts/sim")...)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	h := &hunted{mutant: m}
	ctx, found := context.WithCancel(ctx)
	defer found()
	run.each(ctx, mutantSeeds, func(i int) (uint64, string) {
		seed := o.from + uint64(i)
		return seed, filepath.Join(dir, fmt.Sprint(seed))
	}, func(out *outcome) {
		if h.found != nil {
			return // cancelled
		}
		if h.tries++; out.bad() {
			h.found = out
			found()
		}
	})
	if h.found != nil {
		err = os.RemoveAll(dir)
	}
	return h, err
}

func mutantsPage(all []*hunted) string {
	var b strings.Builder
	b.WriteString("# Planted faults in simulated clusters\n\nMade by `make sim-mutants`: each fault is planted in a build of the simulation, and seeds are run until one fails.\n\n| fault | seeds until it was found | by |\n| --- | --- | --- |\n")
	for _, h := range all {
		fmt.Fprintf(&b, "| %s | %d | %s |\n", h.mutant.What, h.tries, h.by())
	}
	return b.String()
}
