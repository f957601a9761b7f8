package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quinto/api"
	"quinto/internal/config"
	"quinto/internal/freeport"
)

func TestMain(m *testing.M) {
	// fasthttp's clock never ends, its janitor only notices after ten seconds, and
	// Pebble's and net/http's helpers end in their own time.
	// memberlist's Shutdown does not wait for a probe under way.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// output is a buffer that the program writes while a test reads.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// run runs a command to its end.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var out, errs output
	code = Main(ctx, args, &out, &errs)
	return code, out.String(), errs.String()
}

// program is a running `quinto start`.
type program struct {
	url         string
	out, errs   output
	stop        context.CancelFunc
	code        chan int
	alreadyDone bool
}

func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{code: make(chan int, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	go func() { p.code <- Main(ctx, append([]string{"start"}, args...), &p.out, &p.errs) }()
	t.Cleanup(func() { p.end(t) })
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if _, url, ok := strings.Cut(p.errs.String(), " is ready: "); ok {
			p.url = strings.TrimSpace(url)
			return p
		}
		select {
		case code := <-p.code:
			p.alreadyDone = true
			t.Fatalf("ended with %d: %s", code, p.errs.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("not ready: %s", p.errs.String())
	return nil
}

func (p *program) end(t *testing.T) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections()
	p.stop()
	if p.alreadyDone {
		return
	}
	p.alreadyDone = true
	select {
	case code := <-p.code:
		if code != ExitOK {
			t.Errorf("ended with %d: %s", code, p.errs.String())
		}
	case <-time.After(time.Minute):
		t.Fatalf("does not end: %s", p.errs.String())
	}
}

func send(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("alice", "secret")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(text)
}

// The first start needs nothing but a folder, and what it prints works; the second
// finds everything again.
func TestFirstStartAndRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	p := startProgram(t, "--data", dir, "--port", "0")
	ini, err := os.ReadFile(filepath.Join(dir, iniName))
	if err != nil || !strings.Contains(string(ini), "userid_hmac_secret") {
		t.Fatalf("%v: %s", err, ini)
	}
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(p.out.String(), "curl") && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if want := "curl -u alice:secret -X PUT " + p.url + "buckets/first"; !strings.Contains(p.out.String(), want) {
		t.Fatalf("printed %q, want %q", p.out.String(), want)
	}
	if status, body := send(t, "PUT", p.url+"buckets/first", ""); status != 201 {
		t.Fatalf("the line it prints does not work: %d %s", status, body)
	}
	p.end(t)
	p = startProgram(t, "--data", dir, "--port", "0")
	if status, body := send(t, "GET", p.url+"buckets/first", ""); status != 200 {
		t.Fatalf("after a restart: %d %s", status, body)
	}
	if strings.Contains(p.out.String(), "curl") || strings.Contains(p.errs.String(), "wrote") {
		t.Errorf("a later start is no first one: %s %s", p.out.String(), p.errs.String())
	}
}

func TestMemoryBackendLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ini := filepath.Join(dir, "k.ini")
	text := "[app:main]\nkinto.storage_backend = kinto.core.storage.memory\nkinto.userid_hmac_secret = x\nmultiauth.policies = basicauth\n"
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	p := startProgram(t, "--ini", ini, "--data", data, "--port", "0")
	if status, body := send(t, "PUT", p.url+"buckets/b", ""); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	p.end(t)
	if left, err := os.ReadDir(data); err == nil && len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	p = startProgram(t, "--ini", ini, "--data", data, "--port", "0")
	if status, _ := send(t, "GET", p.url+"buckets/b", ""); status != 403 {
		t.Errorf("the bucket outlived the process: %d", status)
	}
}

// Whatever is wrong is said in one line, and nothing is begun.
func TestBadStart(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	file := filepath.Join(dir, "file")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("file", "")
	memory := write("memory.ini", "[app:main]\nkinto.storage_backend = kinto.core.storage.memory\n")
	listener := write("listener.ini", "[app:main]\nevent_listeners = x\nevent_listeners.x.use = no.such.module\n")
	hook := write("hook.ini", "[app:main]\nevent_listeners = x\nevent_listeners.x.use = quinto.webhook\nevent_listeners.x.url = ftp://x\n")
	old := write("old.ini", "[app:main]\nkinto.storage_backend = kinto.core.storage.postgresql\n")
	plain := write("plain.ini", "[app:main]\n")
	data := filepath.Join(dir, "data")
	tests := map[string][]string{
		"unknown flag":       {"--wrong"},
		"unknown argument":   {"now"},
		"port no number":     {"--port", "x"},
		"port out of range":  {"--port", "70000"},
		"both port and http": {"--port", "1", "--http", "127.0.0.1:1"},
		"http no address":    {"--http", "8888"},
		"port taken":         {"--http", taken.Addr().String()},
		"no such ini":        {"--ini", filepath.Join(dir, "none.ini")},
		"data is a file":     {"--data", file},
		"data in a file":     {"--data", filepath.Join(file, "x")},
		"off loopback":       {"--ini", plain, "--cluster", "10.0.0.1:7000", "--gossip", "127.0.0.1:7001", "--expect", "3"},
		"no cluster address": {"--ini", plain, "--expect", "3"},
		"secrets differ":     {"--cluster", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--expect", "3"},
		"memory, several":    {"--ini", memory, "--cluster", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--expect", "3"},
		"unknown module":     {"--ini", listener},
		"bad webhook":        {"--ini", hook},
		"PostgreSQL":         {"--ini", old},
		"bad name":           {"--ini", plain, "--name", "a b"},
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(strings.Join(args, " "), "--data") {
				args = append(args, "--data", filepath.Join(data, strings.ReplaceAll(name, " ", "-")))
			}
			if !strings.Contains(strings.Join(args, " "), "--port") && !strings.Contains(strings.Join(args, " "), "--http") {
				args = append(args, "--port", "0")
			}
			code, stdout, stderr := run(t, append([]string{"start"}, args...)...)
			var problems []string
			for line := range strings.Lines(stderr) {
				if !strings.HasPrefix(line, "quinto: warning:") && !strings.HasPrefix(line, "quinto: wrote") {
					problems = append(problems, line)
				}
			}
			if code != ExitUsage || stdout != "" || len(problems) != 1 || !strings.HasPrefix(problems[0], "quinto: ") {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
			}
			t.Log(stderr)
		})
	}
	if begun, err := filepath.Glob(filepath.Join(data, "*", "raft.db")); err != nil || len(begun) > 0 {
		t.Errorf("a refused start has begun a log: %v %v", begun, err)
	}
}

// A word that is no command fails, at every level: a script must not take the help for
// success.
func TestUnknownCommandsFail(t *testing.T) {
	for _, group := range []string{"", "cluster", "certs", "hooks", "backup"} {
		args := append(strings.Fields(group), "removee")
		if code, stdout, stderr := run(t, args...); code == ExitOK || stdout != "" {
			t.Errorf("%v: exit %d, %q %q", args, code, stdout, stderr)
		}
	}
	if code, stdout, _ := run(t, "cluster"); code != ExitOK || !strings.Contains(stdout, "promote") {
		t.Errorf("a group alone shows its help: %d %q", code, stdout)
	}
}

func TestDataFolderHasOneProcess(t *testing.T) {
	dir := t.TempDir()
	startProgram(t, "--data", dir, "--port", "0")
	code, _, stderr := run(t, "start", "--data", dir, "--port", "0")
	if code != ExitUsage || !strings.Contains(stderr, "in use") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := run(t, "version")
	if code != ExitOK || !strings.HasPrefix(stdout, "quinto ") {
		t.Errorf("%d %q", code, stdout)
	}
}

func TestStatusWithoutAnswer(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/closed") {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = io.WriteString(w, "<html>")
	})}
	go func() { _ = server.Serve(other) }()
	defer func() { _ = server.Close() }()
	tests := []struct {
		url, want string
		code      int
	}{
		{"http://127.0.0.1:1", "http://127.0.0.1:1 does not answer: ", ExitFailure},
		{other.Addr().String(), "is not a quinto node", ExitFailure},
		{other.Addr().String() + "/closed", "--auth", ExitFailure},
		{"ftp://x", "not the URL of a node", ExitUsage},
		{"http://", "not the URL of a node", ExitUsage},
	}
	for _, sub := range []string{"status", "hash"} {
		for _, test := range tests {
			code, stdout, stderr := run(t, "cluster", sub, "--http", test.url)
			if code != test.code || stdout != "" || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s %s: exit %d, %q", sub, test.url, code, stderr)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestBaseURL(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:8888": "http://127.0.0.1:8888", "http://h:1/": "http://h:1", "http://h:1/v1": "http://h:1",
		"https://h/v1/": "https://h", "http://h/prefix/v1/": "http://h/prefix",
	} {
		if got, err := baseURL(text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// Three nodes by their flags are one service: what one takes all show, and their
// content is the same.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ini := filepath.Join(dir, "k.ini")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	gossip := []string{freePort(t), freePort(t), freePort(t)}
	programs := make([]*program, 3)
	var wg sync.WaitGroup
	for i := range programs {
		peer := freePort(t)
		wg.Go(func() {
			programs[i] = startProgram(t, "--ini", ini, "--data", filepath.Join(dir, fmt.Sprint(i)), "--port", "0", "--name", fmt.Sprintf("n%d", i),
				"--cluster", peer, "--gossip", gossip[i], "--join", strings.Join(gossip, ","), "--expect", "3")
		})
	}
	wg.Wait()
	for i, p := range programs {
		if p == nil {
			t.Fatal("a node did not start")
		}
		if status, body := send(t, "PUT", p.url+fmt.Sprintf("buckets/b%d", i), ""); status != 201 {
			t.Fatalf("through %d: %d %s", i, status, body)
		}
	}
	for i, p := range programs {
		if status, body := send(t, "GET", p.url+"buckets", ""); status != 200 || strings.Count(body, `"id"`) != 3 {
			t.Errorf("from %d: %d %s", i, status, body)
		}
	}
	code, stdout, stderr := run(t, "cluster", "status", "--json", "--http", programs[1].url)
	var s api.ClusterStatus
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != ExitOK || len(s.Members) != 3 || s.Leader == "" || s.Revision < 3 {
		t.Errorf("%d %s %s %v", code, stdout, stderr, err)
	}
	if code, stdout, stderr = run(t, "cluster", "status", "--http", programs[0].url); code != ExitOK || strings.Count(stdout, "voter") != 3 {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
	if code, stdout, stderr = run(t, "cluster", "hash", "--http", programs[2].url); code != ExitOK || !strings.Contains(stdout, "all nodes that answered are equal") {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
	// All but the last go, each handing over what it leads.
	for _, p := range programs[:1] {
		p.end(t)
	}
	if status, body := send(t, "PUT", programs[2].url+"buckets/after", ""); status != 201 {
		t.Errorf("with two of three nodes: %d %s", status, body)
	}
	if code, _, stderr := run(t, "cluster", "hash", "--http", programs[2].url); code != ExitFailure || !strings.Contains(stderr, "not all members answered") {
		t.Errorf("hash without one of three: %d %s", code, stderr)
	}
}

// Hostile input through the whole of a node: a 4xx with Kinto's error body.
func TestHostileBodies(t *testing.T) {
	p := startProgram(t, "--data", t.TempDir(), "--port", "0")
	send(t, "PUT", p.url+"buckets/b", "")
	send(t, "PUT", p.url+"buckets/b/collections/c", "")
	records := p.url + "buckets/b/collections/c/records"
	deep := strings.Repeat("[", 100_000)
	bodies := map[string]string{
		"deep arrays":     `{"data":{"a":` + deep + strings.Repeat("]", 100_000) + `}}`,
		"deep objects":    `{"data":` + strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000) + `}`,
		"unclosed":        `{"data":{"a":` + deep,
		"case variant":    `{"Data":{"a":1}}`,
		"long s":          `{"permiſſions":{}}`,
		"surrogate":       `{"data":{"a":"\ud800"}}`,
		"bad UTF-8":       "{\"data\":{\"a\":\"\xff\"}}",
		"NaN":             `{"data":{"a":NaN}}`,
		"beyond float":    `{"data":{"a":1e400}}`,
		"BOM":             "\ufeff{}",
		"large record":    `{"data":{"a":"` + strings.Repeat("x", 1<<20) + `"}}`,
		"over the limit":  `{"data":{"a":"` + strings.Repeat("x", 5<<20) + `"}}`,
		"many members":    `{"data":{"a":[` + strings.Repeat("1,", 1_500_000) + `1]}}`,
		"no object":       `1`,
		"member twice ok": `{"data":{"a":1,"a":2}}`,
	}
	for name, body := range bodies {
		status, text := send(t, "POST", records, body)
		if name == "member twice ok" {
			if status != 201 || !strings.Contains(text, `"a":2`) {
				t.Errorf("%s: the last counts: %d %s", name, status, text)
			}
			continue
		}
		var e struct{ Code, Errno int }
		if err := json.Unmarshal([]byte(text), &e); err != nil || status < 400 || status > 499 || e.Code != status || e.Errno == 0 {
			t.Errorf("%s: %d %.200s", name, status, text)
		}
	}
	if status, text := send(t, "GET", p.url+"__heartbeat__", ""); status != 200 {
		t.Errorf("afterwards: %d %s", status, text)
	}
}
