package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"quinto/internal/testcluster"
)

// mutant is a fault that is planted to prove that the checker finds it. Nothing of it
// is in the product: an altered copy of one file takes the place of the real one while
// a binary is built aside.
type mutant struct {
	name, what string
	edits      []edit
	// The harm that brings it out.
	harm  string
	times int
	hold  time.Duration
}

// edit replaces old, which has to be there exactly once, in a file of the project, or
// of a module when one is named.
type edit struct {
	module, file, old, new string
}

const mutantSeeds = 6 // tries, each with another seed, before a mutant counts as not found

const raftModule = "github.com/hashicorp/raft"

func mutants() []*mutant {
	return []*mutant{
		{name: "fsync-skipped", what: "the Raft log is not synced to disk", harm: "power-cut-all", times: 1, edits: []edit{
			{file: "cluster/logopen.go", old: "raftboltdb.Options{Path: path, ", new: "raftboltdb.Options{Path: path, NoSync: true, "},
		}},
		{name: "acknowledged-before-commit", what: "an entry counts as committed when the leader alone has it", harm: "isolate-leader", times: 3, hold: 3 * time.Second, edits: []edit{
			{module: raftModule, file: "commitment.go", old: "matched[(len(matched)-1)/2]", new: "matched[len(matched)-1]"},
		}},
		{name: "stale-read-on-leader", what: "a leader answers linearizable reads without asking whether it still leads", harm: "pause-leader", times: 5, hold: 3500 * time.Millisecond, edits: []edit{
			{file: "cluster/reads.go", old: "if err := n.proveTerm(t); err != nil {", new: "if err := error(nil); err != nil {"},
		}},
		{name: "412-of-a-deposed-leader", what: "a leader answers 4xx without asking whether it still leads", harm: "pause-leader", times: 5, hold: 3500 * time.Millisecond, edits: []edit{
			{file: "cluster/reads.go", old: "c, err := n.confirms.do(ctx)\n\tif err == nil && c.term != term {", new: "c, err := confirmed{term: term}, error(nil)\n\tif err == nil && c.term != term {"},
		}},
		{name: "etag-and-list-from-two-views", what: "a list's ETag comes from a view that is opened 3 ms after the list's own", harm: "kill-follower", edits: []edit{
			{file: "api/resource/list.go", old: "info, err := c.state.List(c.route.list)\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tif info.Timestamp, err = c.scopedTime", new: "time.Sleep(3 * time.Millisecond)\n\tnewer, err := c.s.node.View(context.Background(), fsm.Freshness{Level: fsm.Stale})\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tdefer newer.Close()\n\tinfo, err := newer.List(c.route.list)\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tif info.Timestamp, err = c.scopedTime"},
			{file: "api/resource/list.go", old: "import (\n\t\"bytes\"\n\t\"cmp\"\n", new: "import (\n\t\"bytes\"\n\t\"cmp\"\n\t\"context\"\n\t\"time\"\n"},
		}},
		{name: "chance-in-apply", what: "last_modified depends on the node that applies the entry", harm: "kill-follower", edits: []edit{
			{file: "fsm/mutate.go", old: "o.LastModified, l.Timestamp = Bump(l.Timestamp, t.Now, op.LastModified, op.HasTime, op.Exact)", new: "o.LastModified, l.Timestamp = Bump(l.Timestamp, t.Now+Timestamp(time.Now().UnixNano()/100%2), op.LastModified, op.HasTime, op.Exact)"},
			{file: "fsm/mutate.go", old: "import (\n", new: "import (\n\t\"time\"\n"},
		}},
		{name: "request-table-dropped", what: "a request that was done is not remembered", harm: "kill-leader", edits: []edit{
			{file: "fsm/apply.go", old: "if len(t.RequestID) > 0 && !a.seen.fresh(&a.meta, t.RequestID) {", new: "if false {"},
			{file: "fsm/requests.go", old: "v, found, err := readCopy(r, key(spaceRequest, string(id)))", new: "v, found, err := []byte(nil), false, error(nil)"},
		}},
	}
}

var errMutant = errors.New("a mutant does not fit the source any more")

// apply returns the text with the edit.
func (e *edit) apply(text string) (string, error) {
	if n := strings.Count(text, e.old); n != 1 {
		return "", fmt.Errorf("%w: %q is in %s %d times", errMutant, e.old, e.file, n)
	}
	return strings.Replace(text, e.old, e.new, 1), nil
}

// plant writes altered copies into dir and returns the flags of go build that use
// them.
func (m *mutant) plant(root, dir string) ([]string, error) {
	replaced := map[string]string{}
	for i := range m.edits {
		e := &m.edits[i]
		if e.module != "" {
			return e.plantModule(root, dir)
		}
		path := filepath.Join(root, e.file)
		source := path
		if replaced[path] != "" {
			source = replaced[path]
		}
		text, err := os.ReadFile(source)
		if err != nil {
			return nil, err
		}
		changed, err := e.apply(string(text))
		if err != nil {
			return nil, err
		}
		replaced[path] = filepath.Join(dir, strings.ReplaceAll(e.file, "/", "_"))
		if err := os.WriteFile(replaced[path], []byte(changed), 0o600); err != nil {
			return nil, err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "overlay.json")
	return []string{"-overlay", path}, os.WriteFile(path, overlay, 0o600)
}

// plantModule copies a module and builds with the copy.
func (e *edit) plantModule(root, dir string) ([]string, error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", e.module)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", e.module, err)
	}
	copied := filepath.Join(dir, "module")
	if err := os.CopyFS(copied, os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		return nil, err
	}
	path := filepath.Join(copied, e.file)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	changed, err := e.apply(string(text))
	if err != nil {
		return nil, err
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return nil, err
	}
	mod = fmt.Appendf(mod, "\nreplace %s => %s\n", e.module, copied)
	modfile := filepath.Join(dir, "mutant.mod")
	return []string{"-modfile", modfile}, errors.Join(os.Remove(path), os.WriteFile(path, []byte(changed), 0o600),
		os.WriteFile(modfile, mod, 0o600), os.WriteFile(filepath.Join(dir, "mutant.sum"), sum, 0o600))
}

// found is what became of a mutant.
type found struct {
	mutant *mutant
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
	for _, m := range mutants() {
		if !only.MatchString(m.name) {
			continue
		}
		f := o.hunt(ctx, m)
		all = append(all, f)
		missed = missed || !f.caught() && (f.err != nil || f.out.skipped == "")
		o.say("%s: found in run %d by: %s", m.name, f.tries, f.by())
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
func (o *options) hunt(ctx context.Context, m *mutant) *found {
	f := &found{mutant: m}
	dir := filepath.Join(o.keep, "mutant-"+m.name)
	if f.err = errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); f.err != nil {
		return f
	}
	var root string
	if root, f.err = projectRoot(); f.err != nil {
		return f
	}
	var flags []string
	if flags, f.err = m.plant(root, dir); f.err != nil {
		return f
	}
	run := *o
	run.faultsBuild, run.keepAll = true, true
	if run.binary, f.err = testcluster.Build(ctx, dir, append(flags, "-tags", "faults")...); f.err != nil {
		return f
	}
	run.keep = dir
	h := *harmNamed(m.harm)
	h.times, h.hold = max(m.times, 1), m.hold
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

// projectRoot is the folder of go.mod above the working directory.
func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}
