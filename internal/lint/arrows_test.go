package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "quinto"

// arrow says what one package, or with `/*` each package right below a folder, may
// import of the project. `*` among allowed means everything.
type arrow struct {
	from    string
	allowed []string
	why     string
}

// arrows are the house (design, section 3). internal/canon is bottom: everyone may use it.
// The first row that matches a package counts; a package without a row is refused.
var arrows = []arrow{
	{"cmd/quinto", []string{"cmd/command", "plugins/*"}, "main only calls cmd/command, so that a binary with plugins of its own is ten lines"},
	{"cmd/command", []string{"fsm", "fsm/store", "cluster", "api", "api/*", "plugins", "plugins/*", "internal/config", "internal/certs", "internal/transfer", "internal/backup"}, "the wiring knows all parts, but no script and no test house"},
	{"fsm/store", nil, "the store is the lowest floor: bytes in, bytes out"},
	{"fsm", []string{"fsm/store"}, "the state machine is the ground floor: whatever decides or serves stands above it, else replicas could differ by it"},
	{"cluster", []string{"fsm", "fsm/store", "internal/config", "internal/certs"}, "cluster replicates commands, serves views and hands the store's snapshots to Raft; it meets api only in interfaces that their user declares"},
	{"api", []string{"api/*", "plugins", "fsm", "internal/config"}, "api and cluster meet only in small interfaces declared by api, so that api can be tested without a cluster"},
	{"api/resource", []string{"api/openapi", "api/query", "plugins", "fsm", "internal/config", "internal/jsonschema"}, "Kinto's meaning is written once, without HTTP and without the cluster"},
	{"api/openapi", nil, "the description of the API is made of rows that its user gives"},
	{"api/auth", []string{"plugins", "fsm", "internal/config"}, "an authenticator knows credentials and views, no routes"},
	{"api/live", []string{"api/resource", "fsm"}, "streams know what may be seen and how it is sent; the HTTP port hands them connections"},
	{"api/query", []string{"fsm"}, "filters, sort and pages are pure"},
	{"plugins", []string{"fsm", "internal/config"}, "what a plugin's author reads must not pull in the server"},
	{"plugins/*", []string{"plugins", "fsm", "api", "api/query", "internal/config", "internal/outbound"}, "a plugin is one folder: two plugins never know each other, and none knows the cluster"},
	{"internal/canon", nil, "canonical JSON is bottom: everyone may use it, so it uses no one"},
	{"internal/jsonschema", nil, "JSON Schema knows values, and nothing of who asks"},
	{"internal/config", nil, "settings are plain data: they know none of the parts that they set"},
	{"internal/certs", nil, "certificates and keys are files and mathematics: they know nobody who uses them"},
	{"internal/outbound", nil, "a call to a receiver is the same whoever makes it"},
	{"internal/transfer", []string{"fsm", "api/resource"}, "data comes in by Kinto's own rules about kinds and ids, through the log, and by no other way"},
	{"internal/backup", []string{"fsm", "fsm/store"}, "an archive is made of bytes of the store: what is done with it is wired above"},
	{"internal/testcluster", []string{"*"}, ""},
	{"internal/clients", []string{"internal/checker"}, "the clients of the tests know the protocol and what a history is, and reach nodes as they are told"},
	{"internal/checker", nil, "the judge knows what is promised, not how it is done"},
	{"internal/freeport", nil, "ports for tests and scripts depend on nothing that is tested"},
	{"internal/mutants", nil, "planted faults are texts: they know what they spoil by its file only"},
	{"internal/lint", nil, "the rules do not depend on what they judge"},
	{"scripts/*", []string{"*"}, ""},
}

// ban forbids an import from outside the project, with everything below it.
type ban struct {
	path string
	// from are the packages that may not use it, or with except those that alone may.
	from   []string
	except bool
	why    string
}

var bans = []ban{
	{"time", []string{"fsm"}, false, "Apply must give the same result on every node and at every replay: the time is in the command (Txn.Now)"},
	{"math/rand", []string{"fsm", "fsm/store"}, false, "chance makes replicas differ: what is random is drawn by the leader and travels in the command"},
	{"crypto/rand", []string{"fsm", "fsm/store"}, false, "chance makes replicas differ: what is random is drawn by the leader and travels in the command"},
	{"github.com/google/uuid", []string{"fsm", "fsm/store"}, false, "new ids are chance: they are drawn by the leader and travel in the command"},
	{"net", []string{"fsm", "fsm/store"}, false, "the state machine asks nobody: what it needs is in the command"},
	{"github.com/gofiber", []string{"api", "plugins/*", "scripts/*"}, true, "Fiber reuses its buffers after the handler: bytes are copied once at the border, and nothing below it sees a context"},
}

func matches(pattern, path string) bool {
	if folder, ok := strings.CutSuffix(pattern, "/*"); ok {
		rest, below := strings.CutPrefix(path, folder+"/")
		return below && !strings.Contains(rest, "/")
	}
	return pattern == "*" || pattern == path
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, path) })
}

// checkImports returns what is wrong with the imports of the package at path, which
// is relative to the module.
func checkImports(path string, imports []string) []string {
	var found []string
	row := slices.IndexFunc(arrows, func(a arrow) bool { return matches(a.from, path) })
	if row < 0 {
		return []string{fmt.Sprintf("%s is not in the table of internal/lint: say there what it may import, and why", path)}
	}
	for _, imported := range imports {
		if own, ok := strings.CutPrefix(imported, module+"/"); ok {
			if own != "internal/canon" && !matchesAny(arrows[row].allowed, own) {
				found = append(found, fmt.Sprintf("%s must not import %s: %s", path, own, arrows[row].why))
			}
			continue
		}
		for _, b := range bans {
			under := imported == b.path || strings.HasPrefix(imported, b.path+"/")
			if under && matchesAny(b.from, path) != b.except {
				found = append(found, fmt.Sprintf("%s must not import %s: %s", path, imported, b.why))
			}
		}
	}
	return found
}

type listedPackage struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []listedPackage {
	t.Helper()
	command := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	command.Dir = root
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, complaint.String())
	}
	var all []listedPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// Imports go only the way the design allows; each wrong one prints why.
func TestArrows(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, problem := range checkImports(strings.TrimPrefix(p.ImportPath, module+"/"), p.Imports) {
			t.Error(problem)
		}
	}
}

func TestArrowsAreProved(t *testing.T) {
	cases := []struct {
		from, imported string
		refused        bool
	}{
		{"fsm", "time", true},
		{"fsm/store", "time", false},
		{"fsm", "math/rand/v2", true},
		{"fsm/store", "crypto/rand", true},
		{"fsm", "net/http", true},
		{"fsm", "quinto/fsm/store", false},
		{"fsm/store", "quinto/fsm", true},
		{"fsm", "quinto/internal/canon", false},
		{"fsm", "quinto/internal/config", true},
		{"cluster", "quinto/fsm", false},
		{"cluster", "quinto/api", true},
		{"cluster", "quinto/fsm/store", false},
		{"api", "quinto/fsm/store", true},
		{"api", "quinto/cluster", true},
		{"api", "github.com/gofiber/fiber/v2", false},
		{"api/resource", "github.com/gofiber/fiber/v2", true},
		{"api/resource", "quinto/api", true},
		{"cluster", "github.com/gofiber/fiber/v2", true},
		{"plugins/webhook", "quinto/plugins", false},
		{"plugins/webhook", "quinto/plugins/history", true},
		{"plugins/webhook", "quinto/cluster", true},
		{"plugins", "quinto/api", true},
		{"internal/config", "quinto/fsm", true},
		{"internal/testcluster", "quinto/cluster", false},
		{"cmd/command", "quinto/internal/testcluster", true},
		{"scripts/conformance", "quinto/internal/canon", false},
		{"elsewhere", "fmt", true},
	}
	for _, c := range cases {
		if got := checkImports(c.from, []string{c.imported}); (len(got) > 0) != c.refused {
			t.Errorf("%s imports %s: %q, want refused = %v", c.from, c.imported, got, c.refused)
		}
	}
}
