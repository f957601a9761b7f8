package gatekeeper_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"quinto/cmd/command"
	"quinto/internal/config"
	"quinto/plugins"
	_ "quinto/plugins/gatekeeper"
)

var secret = "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))

// gate is a receiver whose behaviour changes.
type gate struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
	mu     sync.Mutex
	bodies []map[string]any
}

func newGate(t *testing.T) *gate {
	g := &gate{}
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var decoded map[string]any
		if json.Unmarshal(body, &decoded) != nil || verifier.Verify(body, r.Header) != nil {
			t.Errorf("not signed, or no JSON: %s", body)
		}
		g.mu.Lock()
		g.bodies = append(g.bodies, decoded)
		g.mu.Unlock()
		(*g.answer.Load())(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *gate) does(f http.HandlerFunc) { g.answer.Store(&f) }

func (g *gate) take() (all []map[string]any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	all, g.bodies = g.bodies, nil
	return all
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const gateINI = `[server:main]
host = 127.0.0.1
[app:main]
use = egg:kinto
kinto.userid_hmac_secret = s3cr3t
kinto.multiauth.policies = basicauth
kinto.bucket_create_principals = system.Authenticated
kinto.storage_backend = kinto.core.storage.memory
kinto.event_listeners = gate
kinto.event_listeners.gate.use = quinto.gatekeeper
kinto.event_listeners.gate.resources = record
kinto.event_listeners.gate.secret = %s
kinto.event_listeners.gate.url = %s
kinto.event_listeners.gate.timeout_seconds = 0.5
kinto.event_listeners.gate.failure = %s
`

// start opens a node of one with a gatekeeper, and a collection in it.
func start(t *testing.T, g *gate, failure string) func(method, path, body string) (int, string, http.Header) {
	t.Helper()
	ini := filepath.Join(t.TempDir(), "quinto.ini")
	if err := os.WriteFile(ini, fmt.Appendf(nil, gateINI, secret, g.URL, failure), 0o600); err != nil {
		t.Fatal(err)
	}
	known := plugins.Registered()
	c, err := config.Load(config.Options{Path: ini, Flags: map[string]string{config.PortKey: "0"}, Policies: known.Policies(), Plugins: known.Plugins(), Effective: known.SettingPatterns()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, err := command.OpenNode(ctx, command.NodeOptions{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	if err := node.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body string) (int, string, http.Header) {
		t.Helper()
		r, err := http.NewRequest(method, strings.TrimSuffix(node.URL(), "/")+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth("a", "b")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(answer), resp.Header
	}
	ask("PUT", "/buckets/b", "")
	if status, answer, _ := ask("PUT", "/buckets/b/collections/c", ""); status != 201 {
		t.Fatalf("%d %s", status, answer)
	}
	return ask
}

const (
	list   = "/buckets/b/collections/c/records"
	record = list + "/r"
)

// It lets pass, refuses and edits; a batch is asked part by part, and a POST without
// id keeps the one that was asked about.
func TestVerdicts(t *testing.T) {
	g := newGate(t)
	ask := start(t, g, "closed")
	g.does(says(204, ""))
	if status, answer, _ := ask("PUT", record, `{"data":{"a":1}}`); status != 201 {
		t.Fatalf("pass: %d %s", status, answer)
	}
	got := g.take()
	if len(got) != 1 || got[0]["action"] != "create" || got[0]["uri"] != record || got[0]["new"].(map[string]any)["a"] != 1.0 || got[0]["old"] != nil {
		t.Errorf("asked %v", got)
	}
	g.does(says(422, `{"message":"too rude"}`))
	status, answer, _ := ask("PATCH", record, `{"data":{"a":2}}`)
	if status != 422 || !strings.Contains(answer, "too rude") {
		t.Errorf("veto: %d %s", status, answer)
	}
	if status, answer, _ = ask("DELETE", record, ""); status != 422 {
		t.Errorf("veto of a delete: %d %s", status, answer)
	}
	g.does(says(200, `{"data":{"id":"x","last_modified":3,"edited":true}}`))
	g.take()
	status, answer, _ = ask("POST", list, `{"data":{"a":3}}`)
	if got = g.take(); status != 201 || !strings.Contains(answer, `"edited":true`) || strings.Contains(answer, `"a":3`) || len(got) != 1 ||
		!strings.Contains(answer, fmt.Sprintf(`"id":%q`, got[0]["record_id"])) {
		t.Errorf("edit: %d %s, asked %v", status, answer, got)
	}
	status, answer, _ = ask("POST", "/batch", `{"defaults":{"method":"POST","path":"/v1`+list+`"},"requests":[{"body":{"data":{"n":1}}},{"body":{"data":{"n":2}}}]}`)
	if status != 200 || strings.Count(answer, `"edited":true`) != 2 || len(g.take()) != 2 {
		t.Errorf("batch: %d %s", status, answer)
	}
	if status, answer, _ = ask("PUT", "/buckets/b/collections/d", ""); status != 201 || len(g.take()) != 0 {
		t.Errorf("another resource: %d %s", status, answer)
	}
}

// A receiver that fails in any way costs its requests one bounded time and an answer
// that says why; others are not held up, and what is let through by policy is written.
func TestFailures(t *testing.T) {
	end := make(chan struct{})
	failures := map[string]http.HandlerFunc{
		"it answered 500":         says(500, ""),
		"it answered 302":         says(302, ""),
		"it answered 429":         says(429, ""),
		"no JSON object":          says(200, "[1]"),
		"too long":                endless,
		"does not answer":         func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"did not answer within":   func(_ http.ResponseWriter, r *http.Request) { hang(r, end) },
		"its data is no JSON obj": says(200, `{"data":7}`),
	}
	for _, policy := range []string{"closed", "open"} {
		g := newGate(t)
		ask := start(t, g, policy)
		for why, f := range failures {
			g.does(f)
			status, answer, header := ask("PUT", record, `{"data":{}}`)
			if policy == "open" {
				if status != 201 && status != 200 {
					t.Errorf("%s: %d %s", why, status, answer)
				}
				continue
			}
			if status != 503 || header.Get("Retry-After") == "" || !strings.Contains(answer, why) || !strings.Contains(answer, "gate") || strings.Contains(answer, "127.0.0.1") {
				t.Errorf("%s: %d %s", why, status, answer)
			}
			if status, answer, _ := ask("GET", record, ""); status != 404 {
				t.Errorf("%s: written: %d %s", why, status, answer)
			}
		}
	}
	close(end)
}

// While a receiver hangs, writes that it is not asked about go on at once.
func TestOthersAreNotHeld(t *testing.T) {
	g := newGate(t)
	ask := start(t, g, "closed")
	end, entered := make(chan struct{}), make(chan struct{}, 10)
	g.does(func(_ http.ResponseWriter, r *http.Request) { entered <- struct{}{}; hang(r, end) })
	done := make(chan int, 1)
	go func() {
		status, _, _ := ask("PUT", record, `{"data":{}}`)
		done <- status
	}()
	<-entered
	for i := range 5 {
		if status, answer, _ := ask("PUT", fmt.Sprintf("/buckets/b/collections/c%d", i), ""); status != 201 {
			t.Errorf("%d %s", status, answer)
		}
	}
	if status := <-done; status != 503 {
		t.Errorf("the held one: %d", status)
	}
	close(end)
}

// More objects than it can be asked about are refused, not half done.
func TestManyObjects(t *testing.T) {
	g := newGate(t)
	ask := start(t, g, "closed")
	g.does(says(204, ""))
	for i := range 4 {
		var parts []string
		for k := range 25 {
			parts = append(parts, fmt.Sprintf(`{"path":"/v1%s/r%d"}`, list, 25*i+k))
		}
		if status, answer, _ := ask("POST", "/batch", `{"defaults":{"method":"PUT"},"requests":[`+strings.Join(parts, ",")+`]}`); status != 200 {
			t.Fatalf("%d %s", status, answer)
		}
	}
	if status, answer, _ := ask("DELETE", list, ""); status != 413 || !strings.Contains(answer, "gate") {
		t.Errorf("%d %.300s", status, answer)
	}
	if status, answer, _ := ask("DELETE", list+"?_limit=10", ""); status != 200 {
		t.Errorf("%d %.300s", status, answer)
	}
}

func hang(r *http.Request, end chan struct{}) {
	select {
	case <-r.Context().Done():
	case <-end:
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			return
		}
	}
}

// A refusal that says nothing tells the client at least who refused, also with a status
// that has no name.
func TestRefusalWithoutWords(t *testing.T) {
	g := newGate(t)
	ask := start(t, g, "closed")
	for status, title := range map[int]string{403: "Forbidden", 499: "Refused", 410: "Gone"} {
		for _, said := range []string{"", "no", `{"message": ""}`, `{"message": 5}`} {
			g.does(says(status, said))
			got, answer, _ := ask("PUT", record, `{"data":{"a":1}}`)
			if got != status || !strings.Contains(answer, `"error":"`+title+`"`) || !strings.Contains(answer, `refused by gatekeeper \"gate\"`) {
				t.Errorf("%d %q: %d %s", status, said, got, answer)
			}
		}
	}
}
