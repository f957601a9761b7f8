package webhook_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"quinto/cmd/command"
	"quinto/internal/config"
	"quinto/plugins"
	_ "quinto/plugins/flush"
	_ "quinto/plugins/history"
	_ "quinto/plugins/webhook"
)

func secretOf(n byte) string {
	key := make([]byte, 32)
	key[31] = n
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}

// taken is one delivery.
type taken struct {
	id, uri, action string
	keys            []byte // the secrets that verify it
}

// receiver is an HTTPS server that verifies what it gets.
type receiver struct {
	*httptest.Server
	status atomic.Int32
	delay  atomic.Int64 // of an answer
	asked  atomic.Int32

	mu  sync.Mutex
	got []taken
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.status.Store(204)
	r.Server = httptest.NewTLSServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	r.asked.Add(1)
	select {
	case <-time.After(time.Duration(r.delay.Load())):
	case <-q.Context().Done():
		return
	}
	status := int(r.status.Load())
	if status <= 299 {
		var m struct{ URI, Action string }
		_ = json.Unmarshal(body, &m)
		one := taken{id: q.Header.Get("webhook-id"), uri: m.URI, action: m.Action}
		for n := range byte(4) {
			if v, err := standardwebhooks.NewWebhook(secretOf(n)); err == nil && v.Verify(body, q.Header) == nil {
				one.keys = append(one.keys, n)
			}
		}
		r.mu.Lock()
		r.got = append(r.got, one)
		r.mu.Unlock()
	}
	w.WriteHeader(status)
}

func (r *receiver) all() []taken {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *receiver) uris() (all []string) {
	for _, g := range r.all() {
		all = append(all, g.action+" "+g.uri)
	}
	return all
}

func port(s *httptest.Server) string {
	u, _ := url.Parse(s.URL)
	return u.Port()
}

const metadataINI = `[server:main]
host = 127.0.0.1
[app:main]
kinto.userid_hmac_secret = s3cr3t
kinto.multiauth.policies = basicauth
kinto.bucket_create_principals = system.Authenticated
kinto.storage_backend = kinto.core.storage.memory
quinto.cluster_status_principals = system.Authenticated
kinto.experimental_collection_schema_validation = true
kinto.includes = kinto.plugins.history quinto.webhooks kinto.plugins.flush
`

// house is a node of one and a client of it.
type house struct {
	t    *testing.T
	node *command.Node
}

func open(t *testing.T, more string) *house {
	t.Helper()
	ini := filepath.Join(t.TempDir(), "quinto.ini")
	if err := os.WriteFile(ini, []byte(metadataINI+more), 0o600); err != nil {
		t.Fatal(err)
	}
	known := plugins.Registered()
	c, err := config.Load(config.Options{Path: ini, Flags: map[string]string{config.PortKey: "0"}, Policies: known.Policies(), Plugins: known.Plugins(), Effective: known.SettingPatterns()})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Unknown)+len(c.NoEffect) > 0 {
		t.Errorf("unknown: %v, without effect: %v", c.Unknown, c.NoEffect)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, err := command.OpenNode(ctx, command.NodeOptions{Config: c, Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: quiet{t}}), Stderr: quiet{t}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	if err := node.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return &house{t, node}
}

// trusting opens a node that may call the receivers.
func trusting(t *testing.T, more string, to ...*receiver) *house {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text, ports := []byte{}, ""
	for _, r := range to {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})...)
		ports += " " + port(r.Server)
	}
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, "webhooks.allow_networks = 127.0.0.0/8\nwebhooks.ca_file = "+ca+"\nwebhooks.ports ="+ports+"\n"+more)
}

// ask sends a request; no answer ever has a secret.
func (h *house) ask(want int, method, path, body string) string {
	h.t.Helper()
	return h.askAs("a", want, method, path, body)
}

// askAs is ask of a user, or of nobody.
func (h *house) askAs(user string, want int, method, path, body string) string {
	h.t.Helper()
	r, err := http.NewRequest(method, strings.TrimSuffix(h.node.URL(), "/")+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if user != "" {
		r.SetBasicAuth(user, "b")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != want {
		h.t.Errorf("%s %s: %d %s %v, want %d", method, path, res.StatusCode, answer, err, want)
	}
	if shows(string(answer)) {
		h.t.Errorf("%s %s shows a secret: %s", method, path, answer)
	}
	return string(answer)
}

func (h *house) wait(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatal(what)
		}
	}
}

// shows reports whether a text has one of the secrets that the tests send.
func shows(text string) bool {
	return strings.Contains(text, "whsec_A") || strings.Contains(text, "whsec_short")
}

// quiet is a log that is looked through for secrets.
type quiet struct {
	t *testing.T
}

func (q quiet) Write(line []byte) (int, error) {
	if shows(string(line)) || strings.Contains(string(line), "token=1") {
		q.t.Errorf("the log shows a secret: %s", line)
	}
	return len(line), nil
}

func hookBody(name, members string) string {
	return fmt.Sprintf(`{"data":{"quinto":{"webhooks":{"%s":{%s}}}}}`, name, members)
}

func (h *house) reports() (all []report) {
	var a struct{ Listeners []report }
	if err := json.Unmarshal([]byte(h.ask(200, "GET", "/__hooks__", "")), &a); err != nil {
		h.t.Error(err)
	}
	return a.Listeners
}

type report struct {
	Name, State string
	Delivered   int
	DeadLetters int `json:"dead_letters"`
	Declared    struct{ Of, Hook, URL string }
}

// A hook hears of every change after the one that declared it, within its scope and
// filters, signed by the secrets of the moment, until it is taken out; and nobody ever
// sees a secret.
func TestMetadataWebhook(t *testing.T) {
	r, second := newReceiver(t), newReceiver(t)
	h := trusting(t, "", r, second)
	member := func(url, secret, more string) string {
		return fmt.Sprintf(`"url":"%s/in?token=1","secret":"%s"%s`, url, secret, more)
	}
	h.ask(201, "PUT", "/buckets/b", `{"permissions":{"read":["system.Everyone"]}}`)
	h.ask(201, "PUT", "/buckets/b/collections/c", hookBody("n", member(r.URL, secretOf(1), `,"resources":["record"],"actions":["create","delete"],"ids":["r*"]`)))
	h.ask(201, "PUT", "/buckets/b/collections/other", "")
	for _, path := range []string{"c/records/r1", "c/records/x", "other/records/r9"} {
		h.ask(201, "PUT", "/buckets/b/collections/"+path, `{"data":{"a":1}}`)
	}
	h.ask(200, "PATCH", "/buckets/b/collections/c/records/r1", `{"data":{"a":2}}`)
	h.ask(200, "DELETE", "/buckets/b/collections/c/records/r1", "")
	const c = "/buckets/b/collections/c"
	want := []string{"create " + c + "/records/r1", "delete " + c + "/records/r1"}
	h.wait("deliveries", func() bool { return len(r.all()) >= 2 })
	if got := r.uris(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if k := r.all()[0].keys; !slices.Equal(k, []byte{1}) {
		t.Errorf("verified by %v", k)
	}

	// Another write keeps it, and a rotation signs with both.
	h.ask(200, "PATCH", c, `{"data":{"title":"t"}}`)
	h.ask(200, "PATCH", c, hookBody("n", member(r.URL, secretOf(2)+" "+secretOf(1), "")))
	h.wait("the rotation", func() bool {
		h.ask(201, "POST", c+"/records", `{"data":{}}`)
		got := r.all()
		return slices.Equal(got[len(got)-1].keys, []byte{1, 2})
	})

	// While the receiver is away its address changes: nothing is lost.
	r.status.Store(500)
	h.ask(201, "PUT", c+"/records/late", `{}`)
	h.wait("an attempt", func() bool { return h.reports()[0].State == "delivering" && r.asked.Load() > 0 })
	h.ask(200, "PUT", c, hookBody("n", fmt.Sprintf(`"url":"%s"`, second.URL)))
	h.wait("the new address", func() bool { return slices.Contains(second.uris(), "create "+c+"/records/late") })
	if got := h.reports(); len(got) != 1 || got[0].Declared.Of != c || got[0].Declared.Hook != "n" || got[0].Declared.URL != second.URL || !strings.HasPrefix(got[0].Name, "meta-") {
		t.Errorf("%+v", got)
	}
	for _, path := range []string{c, "/buckets/b/collections", "/buckets/b/history?_limit=50", "/buckets/b/collections?_sort=quinto", "/changes", "/"} {
		h.ask(map[bool]int{true: 200}[true], "GET", path, "")
	}

	// Declared anew it is another one, which starts there.
	name := h.reports()[0].Name
	h.ask(200, "PUT", c, `{"data":{}}`)
	h.wait("the end", func() bool { return len(h.reports()) == 0 })
	h.ask(400, "PUT", c, hookBody("n", fmt.Sprintf(`"url":"%s"`, second.URL)))
	h.ask(200, "PUT", c, hookBody("n", member(second.URL, secretOf(3), "")))
	h.wait("a new one", func() bool { l := h.reports(); return len(l) == 1 && l[0].Name != name })

	// It ends with its bucket.
	h.ask(200, "DELETE", "/buckets/b", "")
	h.wait("the end with the bucket", func() bool { return len(h.reports()) == 0 })
}

// A hook of a bucket hears of what is in it, by the patterns of its collections; a
// flush ends it.
func TestMetadataWebhookOfABucket(t *testing.T) {
	r := newReceiver(t)
	h := trusting(t, "", r)
	body := hookBody("n", fmt.Sprintf(`"url":"%s","secret":"%s","collections":["a*"],"resources":["record"],"fields":["title"]`, r.URL, secretOf(1)))
	batch := fmt.Sprintf(`{"requests":[{"method":"PUT","path":"/buckets/b","body":%s},{"method":"PUT","path":"/buckets/b/collections/a1","body":{}},
		{"method":"PUT","path":"/buckets/b/collections/a1/records/one","body":{"data":{"title":"x"}}},{"method":"PUT","path":"/buckets/b","body":%s}]}`,
		body, strings.Replace(body, `"secret":"`+secretOf(1)+`",`, "", 1))
	h.ask(200, "POST", "/batch", batch)
	h.ask(201, "PUT", "/buckets/b/collections/z", "")
	h.ask(201, "PUT", "/buckets/b/collections/z/records/no", `{"data":{"title":"x"}}`)
	h.ask(201, "PUT", "/buckets/b/collections/a1/records/no", `{"data":{"body":"x"}}`)
	h.ask(201, "PUT", "/buckets/b/collections/a1/records/two", `{"data":{"title":"x"}}`)
	h.wait("deliveries", func() bool { return len(r.all()) >= 2 })
	const c = "create /buckets/b/collections/a1/records/"
	if got := r.uris(); !slices.Equal(got, []string{c + "one", c + "two"}) {
		t.Errorf("%q", got)
	}
	h.ask(202, "POST", "/__flush__", "")
	h.wait("the end by a flush", func() bool { return len(h.reports()) == 0 })
	h.ask(201, "PUT", "/buckets/b", "")
	h.ask(400, "PATCH", "/buckets/b", strings.Replace(body, `"secret":"`+secretOf(1)+`",`, "", 1))
}

// One that is dead, and one that hangs, hold up no other; 410 pauses it until its
// address changes.
func TestMetadataWebhooksStandAlone(t *testing.T) {
	dead, slow, good, gone := newReceiver(t), newReceiver(t), newReceiver(t), newReceiver(t)
	dead.status.Store(500)
	gone.status.Store(410)
	slow.delay.Store(int64(time.Hour))
	h := trusting(t, "webhooks.timeout_seconds = 1\n", dead, slow, good, gone)
	one := func(name string, r *receiver) string {
		return fmt.Sprintf(`"%s":{"url":"%s","secret":"%s"}`, name, r.URL, secretOf(1))
	}
	h.ask(201, "PUT", "/buckets/b", fmt.Sprintf(`{"data":{"quinto":{"webhooks":{%s,%s,%s,%s}}}}`, one("dead", dead), one("slow", slow), one("good", good), one("gone", gone)))
	for i := range 10 {
		h.ask(201, "PUT", fmt.Sprintf("/buckets/b/collections/c%d", i), "")
		h.ask(201, "PUT", fmt.Sprintf("/buckets/b/collections/c%d/records/r", i), "{}")
	}
	h.wait("the good one", func() bool { return len(good.all()) >= 20 })
	h.wait("the pause", func() bool {
		return slices.ContainsFunc(h.reports(), func(r report) bool { return r.Declared.Hook == "gone" && r.State == "paused" })
	})
	h.ask(200, "PATCH", "/buckets/b", hookBody("gone", fmt.Sprintf(`"url":"%s/moved"`, gone.URL)))
	gone.status.Store(204)
	h.wait("the one that moved", func() bool { return len(gone.all()) >= 20 })
	if len(slow.all())+len(dead.all()) > 0 {
		t.Error("the dead answered")
	}
}

// What cannot work is refused, with the place and without quoting it.
func TestBadMetadataWebhooks(t *testing.T) {
	h := open(t, "webhooks.max_hooks = 12\n")
	h.ask(201, "PUT", "/buckets/b", "")
	good := `"url":"https://example.com/x","secret":"` + secretOf(1) + `"`
	for _, bad := range []struct{ place, members string }{
		{"n.url", `"secret":"` + secretOf(1) + `"`},
		{"n.secret", `"url":"https://example.com/"`},
		{"n.secret", `"url":"https://example.com/","secret":"whsec_short"`},
		{"n.secret", `"url":"https://example.com/","secret":7`},
		{"n.url", `"secret":"","url":"http://example.com/"`},
		{"n.url", `"url":"https://user:pw@example.com/"`},
		{"n.url", `"url":"https://example.com:25/"`},
		{"n.url", `"url":"https://127.0.0.1/"`},
		{"n.url", `"url":"https://[::ffff:10.0.0.1]/"`},
		{"n.url", `"url":"https://169.254.169.254/latest"`},
		{"n.url", `"url":"` + strings.Repeat("x", 3000) + `"`},
		{"n.url", `"url":["https://example.com"]`},
		{"n.actions", good + `,"actions":["read"]`},
		{"n.resources", good + `,"resources":["account"]`},
		{"n.ids", good + `,"ids":["[a"]`},
		{"n.ids", good + `,"ids":["a b"]`},
		{"n.fields", good + `,"fields":"title"`},
		{"n", good + `,"feilds":[]`},
	} {
		var a struct {
			Errno   int
			Details []struct{ Location, Name string }
		}
		answer := h.ask(400, "PATCH", "/buckets/b", hookBody("n", bad.members))
		if err := json.Unmarshal([]byte(answer), &a); err != nil || a.Errno != 107 || len(a.Details) != 1 || a.Details[0].Name != "data.quinto.webhooks."+bad.place || a.Details[0].Location != "body" {
			t.Errorf("%s: %s", bad.members, answer)
		}
	}
	h.ask(400, "PUT", "/buckets/b/collections/c", hookBody("n", good+`,"collections":["a"]`))
	h.ask(400, "PUT", "/buckets/b", `{"data":{"quinto":{"webhooks":[]}}}`)
	h.ask(400, "PUT", "/buckets/b", hookBody("a b", good))
	var many []string
	for i := range 11 {
		many = append(many, fmt.Sprintf(`"n%d":{%s}`, i, good))
	}
	h.ask(400, "PUT", "/buckets/b", `{"data":{"quinto":{"webhooks":{`+strings.Join(many, ",")+`}}}}`)
	h.ask(200, "PUT", "/buckets/b", `{"data":{"quinto":{"webhooks":{`+strings.Join(many[:10], ",")+`}}}}`)
	h.ask(403, "PUT", "/buckets/b2", `{"data":{"quinto":{"webhooks":{`+strings.Join(many[:3], ",")+`}}}}`)
	h.ask(201, "PUT", "/buckets/b3", `{"data":{"quinto":{"mine":1}}}`)
}

// A name that resolves to an address inside is not called.
func TestMetadataWebhookGuard(t *testing.T) {
	r := newReceiver(t)
	h := open(t, "webhooks.ports = "+port(r.Server)+"\n")
	h.ask(201, "PUT", "/buckets/b", hookBody("n", fmt.Sprintf(`"url":"https://localhost:%s/","secret":"%s"`, port(r.Server), secretOf(1))))
	h.ask(201, "PUT", "/buckets/b/collections/c", "")
	h.wait("a refusal", func() bool {
		for _, l := range h.reports() {
			if strings.Contains(h.ask(200, "GET", "/__hooks__/"+l.Name, ""), "the address is not public") {
				return true
			}
		}
		return false
	})
	if r.asked.Load() > 0 {
		t.Error("it was called")
	}
}
