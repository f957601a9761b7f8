package plugins_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// block is the Go source in docs/plugins.md that begins with the package clause.
func block(t *testing.T, page, clause string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "```go\n"+clause+"\n")
	source, _, closed := strings.Cut(rest, "```\n")
	if !ok || !closed {
		t.Fatalf("docs/plugins.md has no block of %q", clause)
	}
	return clause + "\n" + source
}

// settings is the block of settings in docs/plugins.md that begins with a line.
func settings(t *testing.T, page, first string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "```ini\n"+first+"\n")
	text, _, closed := strings.Cut(rest, "```\n")
	if !ok || !closed {
		t.Fatalf("docs/plugins.md has no settings %q", first)
	}
	return first + "\n" + text
}

// offline is what "go mod tidy" says when it reaches no network.
var offline = regexp.MustCompile(`dial tcp|no such host|lookup disabled|connection refused|timeout|network is unreachable`)

// asOnThePage runs the commands that make a module, as docs/plugins.md has them. The
// error is that of a machine without a network; any other fails the test.
func asOnThePage(t *testing.T, page, dir, root string) (said string, err error) {
	t.Helper()
	commands := regexp.MustCompile(`(?m)^\$ (go mod .*)$`).FindAllStringSubmatch(page, -1)
	if len(commands) != 3 {
		t.Fatalf("docs/plugins.md has %d commands that make a module", len(commands))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, c := range commands {
		sh := exec.CommandContext(ctx, "sh", "-c", strings.ReplaceAll(c[1], "=../quinto", "="+root))
		sh.Dir, sh.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
		if out, err := sh.CombinedOutput(); err != nil {
			if !offline.Match(out) && ctx.Err() == nil {
				t.Fatalf("%s: %v: %s", c[1], err, out)
			}
			return string(out), err
		}
	}
	return "", nil
}

// A module of somebody else's with the main.go and the plugin of docs/plugins.md
// builds, and the binary does what the page says.
func TestABinaryWithOnesOwnPlugin(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("it links the whole program: only without -short and -race")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	page := read("../docs/plugins.md")
	write("main.go", block(t, page, "package main"))
	write("shout/shout.go", block(t, page, "package shout"))
	write("tally/tally.go", block(t, page, "package tally"))
	write("more.go", "package main\n\nimport _ \"example.com/mine/tally\"\n")
	if out, err := asOnThePage(t, page, dir, root); err != nil {
		t.Logf("the commands of the page, without a network: %v: %s", err, out)
		// What "go mod tidy" would write.
		write("go.mod", regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(read("../go.mod"), "module example.com/mine\n\nrequire quinto v0.0.0\n\nreplace quinto => "+root))
		write("go.sum", read("../go.sum"))
	}
	write("data/quinto.ini", "[app:main]\nuse = egg:kinto\nkinto.userid_hmac_secret = x\nkinto.bucket_create_principals = system.Authenticated\n"+
		"event_listeners = shout\nevent_listeners.shout.use = example.shout\nevent_listeners.shout.path = "+filepath.Join(dir, "out")+"\n"+settings(t, page, "kinto.includes = example.tally"))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", "mine", ".")
	build.Dir, build.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := exec.CommandContext(ctx, filepath.Join(dir, "mine"), "start", "--data", filepath.Join(dir, "data"), "--port", "0")
	out, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(os.Interrupt)
		_, _ = io.Copy(io.Discard, out)
		if err := server.Wait(); err != nil {
			t.Error(err)
		}
	}()
	url := ""
	for lines := bufio.NewScanner(out); url == "" && lines.Scan(); {
		url = strings.TrimSuffix(regexp.MustCompile(`http://127\.0\.0\.1:\d+/v1/`).FindString(lines.Text()), "/")
	}
	ask := func(method, path, body, authorization string) string {
		r, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("a", "b")
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Status + string(answer)
	}
	put := func(path, body string) string { return ask(http.MethodPut, path, body, "") }
	put("/buckets/b", "{}")
	put("/buckets/b/collections/c", "{}")
	if got := put("/buckets/b/collections/c/records/r", `{"data":{"title":"hello"}}`); !strings.Contains(got, `"HELLO"`) {
		t.Error(got)
	}
	if got := put("/buckets/b/collections/c/records/s", `{"data":{}}`); !strings.Contains(got, "a record needs a title") {
		t.Error(got)
	}
	const ann = "Key d2hhdGV2ZXI"
	for _, c := range []struct{ method, path, body, authorization, want string }{
		{"GET", "/", "", ann, `"id":"keys:ann"`},
		{"PUT", "/notes/n", `{"data":{"text":"x"}}`, ann, "201 Created"},
		{"GET", "/notes", "", ann, `"text":"x"`},
		{"PUT", "/notes/o", `{"data":{}}`, ann, "text in body: Required"},
		{"GET", "/notes/n", "", "", "403"},
		{"GET", "/__tally__", "", ann, `{"counted":`},
		{"GET", "/__tally__", "", "Key wrong", "401"},
	} {
		if got := ask(c.method, c.path, c.body, c.authorization); !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, c.want)
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if text, err := os.ReadFile(filepath.Join(dir, "out")); err == nil && strings.Contains(string(text), "create /buckets/b/collections/c/records/r\n") {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the notifier wrote nothing")
		}
	}
}
