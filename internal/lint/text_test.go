package lint

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the project's folder, seen from here.
const root = "../.."

// maxTextBytes: what is larger is data, and is not read.
const maxTextBytes = 4 << 20

// The patterns are put together from parts, so that this file does not find itself.
var (
	openEnd = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	issue   = regexp.MustCompile(`#\d+`)

	// registry finds the hosts of package registries: which one is asked is the
	// business of each machine's own settings.
	registry = regexp.MustCompile(`(?i)\b((proxy|sum|index)\.golang` + `\.org|registry\.(npmjs|yarnpkg)` + `\.(org|com)|(test\.)?pypi` + `\.org|pythonhosted` + `\.org|deb\.debian` + `\.org|goproxy` + `\.(io|cn))\b`)
	// ownPath finds folders that exist on one machine only.
	ownPath = regexp.MustCompile(`(^|[^\w.])(/(home|Us` + `ers)/[A-Za-z]\w*/|/ro` + `ot/\w|/wo` + `rk/\w)`)
)

// checkText returns what is wrong with a file's words.
func checkText(name string, text []byte) []string {
	var found []string
	number := 0
	for line := range bytes.Lines(text) {
		number++
		report := func(problem string) { found = append(found, fmt.Sprintf("%s:%d: %s", name, number, problem)) }
		if openEnd.Match(line) && !issue.Match(line) {
			report("an open end without the number of its issue")
		}
		if registry.Match(line) {
			report("names a package registry's host: leave that to the machine's settings")
		}
		if ownPath.Match(line) {
			report("names a folder that exists on one machine only")
		}
	}
	return found
}

// ignored are the folders at the root that git ignores (`/name/` in .gitignore).
func ignored(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	folders := map[string]bool{".git": true}
	for line := range strings.Lines(string(text)) {
		if name := strings.TrimSpace(line); strings.HasPrefix(name, "/") {
			folders[strings.Trim(name, "/")] = true
		}
	}
	return folders
}

// projectFiles are the project's text files, by name relative to the root.
func projectFiles(t *testing.T) map[string][]byte {
	t.Helper()
	skip, files := ignored(t), map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if skip[filepath.ToSlash(name)] {
				return fs.SkipDir
			}
			return nil
		}
		if info, err := entry.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > maxTextBytes {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.IndexByte(text, 0) < 0 {
			files[filepath.ToSlash(name)] = text
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// No file leaves an end open without an issue, or speaks of one machine only.
func TestText(t *testing.T) {
	for name, text := range projectFiles(t) {
		for _, problem := range checkText(name, text) {
			t.Error(problem)
		}
	}
}

func TestTextRulesAreProved(t *testing.T) {
	cases := map[string]bool{ // text → is something wrong with it?
		"// TO" + "DO: later":                        true,
		"// TO" + "DO(#12): later":                   false,
		"// FIX" + "ME":                              true,
		"X" + "XX":                                   true,
		"mktemp -d /tmp/quinto.XXXXXX":               false,
		"# via https://regis" + "try.npm" + "js.org": true,
		"GOPROXY=https://pro" + "xy.go" + "lang.org": true,
		"golang.org/x/sync":                          false,
		"cd /ro" + "ot/quinto":                       true,
		"see /home" + "/ann/quinto":                  true,
		"PATH=/wo" + "rk/main":                       true,
		"http://127.0.0.1/v1/home/":                  false,
		"docs/wo" + "rk/here":                        false,
		"/usr/lib/postgresql":                        false,
	}
	for text, wrong := range cases {
		if got := checkText("a", []byte(text)); (len(got) > 0) != wrong {
			t.Errorf("%q: %q, want wrong = %v", text, got, wrong)
		}
	}
}
