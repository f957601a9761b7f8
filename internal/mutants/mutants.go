// Package mutants plants known faults in binaries that are built aside, to prove that
// the tests of clusters find them. Nothing of it is in the product: an altered copy of
// one file takes the place of the real one while the binary is built.
package mutants

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Mutant is one planted fault.
type Mutant struct {
	Name, What string
	Edits      []Edit
}

// Edit replaces Old, which has to be there exactly once, by New in a file of the
// project, or of a module when one is named.
type Edit struct {
	Module, File, Old, New string
}

const raftModule = "github.com/hashicorp/raft"

// All are the faults that every test of clusters has to find.
func All() []*Mutant {
	return []*Mutant{
		{Name: "fsync-skipped", What: "the Raft log is not synced to disk", Edits: []Edit{
			{File: "cluster/logopen.go", Old: "raftboltdb.Options{Path: path, ", New: "raftboltdb.Options{Path: path, NoSync: true, "},
		}},
		{Name: "acknowledged-before-commit", What: "an entry counts as committed when the leader alone has it", Edits: []Edit{
			{Module: raftModule, File: "commitment.go", Old: "matched[(len(matched)-1)/2]", New: "matched[len(matched)-1]"},
		}},
		{Name: "stale-read-on-leader", What: "a leader answers linearizable reads without asking whether it still leads", Edits: []Edit{
			{File: "cluster/reads.go", Old: "if err := n.proveTerm(t); err != nil {", New: "if err := error(nil); err != nil {"},
		}},
		{Name: "412-of-a-deposed-leader", What: "a leader answers 4xx without asking whether it still leads", Edits: []Edit{
			{File: "cluster/reads.go", Old: "c, err := n.confirms.do(ctx)\n\tif err == nil && c.term != term {", New: "c, err := confirmed{term: term}, error(nil)\n\tif err == nil && c.term != term {"},
		}},
		{Name: "etag-and-list-from-two-views", What: "a list's ETag comes from a view that is opened 3 ms after the list's own", Edits: []Edit{
			{File: "api/resource/list.go", Old: "info, err := c.state.List(c.route.list)\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tif info.Timestamp, err = c.scopedTime", New: "time.Sleep(3 * time.Millisecond)\n\tnewer, err := c.s.node.View(context.Background(), fsm.Freshness{Level: fsm.Stale})\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tdefer newer.Close()\n\tinfo, err := newer.List(c.route.list)\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tif info.Timestamp, err = c.scopedTime"},
			{File: "api/resource/list.go", Old: "import (\n\t\"bytes\"\n\t\"cmp\"\n", New: "import (\n\t\"bytes\"\n\t\"cmp\"\n\t\"context\"\n\t\"time\"\n"},
		}},
		{Name: "chance-in-apply", What: "last_modified depends on the node that applies the entry", Edits: []Edit{
			{File: "fsm/mutate.go", Old: "o.LastModified, l.Timestamp = Bump(l.Timestamp, t.Now, op.LastModified, op.HasTime, op.Exact)", New: "o.LastModified, l.Timestamp = Bump(l.Timestamp, t.Now+Timestamp(time.Now().UnixNano()/100%2), op.LastModified, op.HasTime, op.Exact)"},
			{File: "fsm/mutate.go", Old: "import (\n", New: "import (\n\t\"time\"\n"},
		}},
		{Name: "request-table-dropped", What: "a request that was done is not remembered", Edits: []Edit{
			{File: "fsm/apply.go", Old: "if len(t.RequestID) > 0 && !a.seen.fresh(&a.meta, t.RequestID) {", New: "if false {"},
			{File: "fsm/requests.go", Old: "v, found, err := readCopy(r, key(spaceRequest, string(id)))", New: "v, found, err := []byte(nil), false, error(nil)"},
		}},
	}
}

// ErrStale says that the text to replace is not, or not once, where an Edit looks for it.
var ErrStale = errors.New("a mutant does not fit the source any more")

// apply returns the text with the edit.
func (e *Edit) apply(text string) (string, error) {
	if n := strings.Count(text, e.Old); n != 1 {
		return "", fmt.Errorf("%w: %q is in %s %d times", ErrStale, e.Old, e.File, n)
	}
	return strings.Replace(text, e.Old, e.New, 1), nil
}

// Plant writes altered copies of files of the project at root into dir and returns the
// flags of go build that use them. ErrStale, or the system's errors.
func (m *Mutant) Plant(root, dir string) ([]string, error) {
	replaced := map[string]string{}
	for i := range m.Edits {
		e := &m.Edits[i]
		if e.Module != "" {
			return e.plantModule(root, dir)
		}
		path := filepath.Join(root, e.File)
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
		replaced[path] = filepath.Join(dir, strings.ReplaceAll(e.File, "/", "_"))
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
func (e *Edit) plantModule(root, dir string) ([]string, error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", e.Module)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", e.Module, err)
	}
	copied := filepath.Join(dir, "module")
	if err := os.CopyFS(copied, os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		return nil, err
	}
	path := filepath.Join(copied, e.File)
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
	mod = fmt.Appendf(mod, "\nreplace %s => %s\n", e.Module, copied)
	modfile := filepath.Join(dir, "mutant.mod")
	return []string{"-modfile", modfile}, errors.Join(os.Remove(path), os.WriteFile(path, []byte(changed), 0o600),
		os.WriteFile(modfile, mod, 0o600), os.WriteFile(filepath.Join(dir, "mutant.sum"), sum, 0o600))
}

// Root is the folder of go.mod above the working directory.
func Root() (string, error) {
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
