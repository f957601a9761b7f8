package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"quinto/fsm"
	"quinto/internal/outbound"
	"quinto/plugins"
)

// TestMain lets two goroutines of fasthttp be: a cleaner ends some seconds after its
// server, a clock never.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// secret returns the n-th test secret.
func secret(n byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n}, 32))
}

func settings(url string) plugins.Settings {
	return plugins.Settings{Name: "hook", Use: Name, URL: url, Secret: secret(1), Params: map[string]string{}}
}

func load(t testing.TB, s plugins.Settings) *Webhook {
	t.Helper()
	p, err := plugins.Registered().Load(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	w := p.(*Webhook)
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func delivery() plugins.Delivery {
	path := fsm.Path("/buckets/b/collections/c/records/r")
	return plugins.Delivery{
		ID: "msg_1", Notifier: "hook", Cluster: "x", Attempt: 1,
		Event: &fsm.Event{Revision: 7, Action: fsm.ActionUpdate, Path: path, UserID: "basicauth:a", LastModified: 1500, OldRevision: 3},
		Old:   &fsm.Object{Path: path, Revision: 3, LastModified: 1400, Data: []byte(`{"a":1.0}`)},
		New:   &fsm.Object{Path: path, Revision: 7, LastModified: 1500, Data: []byte(`{}`)},
	}
}

// The library that receivers use accepts what is sent, with each secret that is
// in rotation, and refuses it with another or when it was altered.
func TestSignature(t *testing.T) {
	var header http.Header
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
	}))
	defer srv.Close()
	s := settings(srv.URL)
	s.Secret = secret(1) + "\n  " + secret(2)
	if err := load(t, s).Deliver(context.Background(), delivery()); err != nil {
		t.Fatal(err)
	}
	if header.Get("webhook-id") != "msg_1" || header.Get("Content-Type") != "application/json" || header.Get("User-Agent") != userAgent {
		t.Errorf("header %v", header)
	}
	for n, accepted := range map[byte]bool{1: true, 2: true, 3: false} {
		verifier, err := standardwebhooks.NewWebhook(secret(n))
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(body, header); (err == nil) != accepted {
			t.Errorf("secret %d: %v", n, err)
		}
		if err := verifier.Verify(append([]byte(" "), body...), header); err == nil {
			t.Error("an altered body was accepted")
		}
	}
}

// The body has the fields of Kinto's events, and stored JSON as it is stored.
// The hash of a password does not leave the service, whatever a webhook listens to.
func TestNoPasswordsInPayloads(t *testing.T) {
	account := &fsm.Object{Path: "/accounts/bob", LastModified: 5, Data: []byte(`{"age":3,"password":"$2b$12$x"}`)}
	d := plugins.Delivery{Event: &fsm.Event{Revision: 1, Action: fsm.ActionUpdate, Path: account.Path, LastModified: 5}, Old: account, New: account}
	if got := string(plugins.Payload(&d)); strings.Contains(got, "$2b$") || strings.Count(got, `"age":3`) != 2 {
		t.Error(got)
	}
}

func TestPayload(t *testing.T) {
	update := delivery()
	create := delivery()
	create.Old, create.Event.OldRevision, create.Event.Action, create.Event.UserID = nil, 0, fsm.ActionCreate, ""
	remove := delivery()
	remove.New, remove.Event.Action = nil, fsm.ActionDelete
	bucket := plugins.Delivery{Event: &fsm.Event{Revision: 1, Action: fsm.ActionCreate, Path: "/buckets/b", LastModified: 5}, New: &fsm.Object{Path: "/buckets/b", LastModified: 5, Data: []byte(`{"x":"é\n"}`)}}
	flush := plugins.Delivery{Event: &fsm.Event{Revision: 9, Action: fsm.ActionFlush, LastModified: 6}}
	for want, d := range map[string]plugins.Delivery{
		`{"timestamp":1500,"action":"update","uri":"/buckets/b/collections/c/records/r","user_id":"basicauth:a","resource_name":"record","bucket_id":"b","collection_id":"c","record_id":"r","revision":7,` +
			`"impacted_objects":[{"new":{"id":"r","last_modified":1500},"old":{"a":1.0,"id":"r","last_modified":1400}}]}`: update,
		`{"timestamp":1500,"action":"create","uri":"/buckets/b/collections/c/records/r","user_id":null,"resource_name":"record","bucket_id":"b","collection_id":"c","record_id":"r","revision":7,` +
			`"impacted_objects":[{"new":{"id":"r","last_modified":1500}}]}`: create,
		`{"timestamp":1500,"action":"delete","uri":"/buckets/b/collections/c/records/r","user_id":"basicauth:a","resource_name":"record","bucket_id":"b","collection_id":"c","record_id":"r","revision":7,` +
			`"impacted_objects":[{"new":{"deleted":true,"id":"r","last_modified":1500},"old":{"a":1.0,"id":"r","last_modified":1400}}]}`: remove,
		`{"timestamp":5,"action":"create","uri":"/buckets/b","user_id":null,"resource_name":"bucket","bucket_id":"b","revision":1,"impacted_objects":[{"new":{"x":"é\n","id":"b","last_modified":5}}]}`: bucket,
		`{"timestamp":6,"action":"flush","user_id":null,"revision":9,"impacted_objects":[]}`:                                                                                                            flush,
	} {
		if got := string(plugins.Payload(&d)); got != want || !json.Valid([]byte(got)) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	cases := map[string]struct {
		status     int
		retryAfter string
		ok         bool
		after      time.Duration
	}{
		"200":               {200, "", true, 0},
		"204":               {204, "", true, 0},
		"redirect":          {302, "", false, 0},
		"400":               {400, "", false, 0},
		"410":               {410, "", false, GonePause},
		"429 with seconds":  {429, "17", false, 17 * time.Second},
		"503 with nonsense": {503, "soon", false, 0},
		"500":               {500, "", false, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var hits atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				hits.Add(1)
				w.Header().Set("Location", "/elsewhere")
				if c.retryAfter != "" {
					w.Header().Set("Retry-After", c.retryAfter)
				}
				w.WriteHeader(c.status)
			}))
			defer srv.Close()
			err := load(t, settings(srv.URL)).Deliver(context.Background(), delivery())
			if (err == nil) != c.ok || hits.Load() != 1 {
				t.Errorf("%v after %d requests", err, hits.Load())
			}
			if plugins.IsGone(err) != (c.status == 410) {
				t.Errorf("gone: %v", err)
			}
			var after *plugins.RetryAfter
			if errors.As(err, &after) != (c.after > 0) || (after != nil && after.After != c.after) {
				t.Errorf("retry after %+v, want %v", after, c.after)
			}
		})
	}
}

func TestRetryAfterDate(t *testing.T) {
	now := time.Now()
	if got := retryAfter(now.Add(90*time.Second).UTC().Format(http.TimeFormat), now); got < 88*time.Second || got > 90*time.Second {
		t.Errorf("date: %v", got)
	}
	if got := retryAfter(now.Add(-time.Hour).UTC().Format(http.TimeFormat), now); got != 0 {
		t.Errorf("past: %v", got)
	}
}

// A receiver that hangs, sends without end or breaks off costs one bounded
// attempt, and errors never show the URL, which may hold a token.
func TestHostileReceivers(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-release
		case "/endless":
			w.WriteHeader(http.StatusInternalServerError)
			for {
				if _, err := w.Write(make([]byte, 1<<14)); err != nil {
					return
				}
			}
		case "/break":
			panic(http.ErrAbortHandler)
		}
	}))
	defer srv.Close()
	defer close(release)
	for _, path := range []string{"/hang", "/endless", "/break"} {
		s := settings(srv.URL + path + "?token=geheim")
		s.Params["timeout_seconds"] = "0.2"
		begun := time.Now()
		err := load(t, s).Deliver(context.Background(), delivery())
		if err == nil || strings.Contains(err.Error(), "geheim") || time.Since(begun) > 20*time.Second {
			t.Errorf("%s: %v after %v", path, err, time.Since(begun))
		}
	}
	if err := load(t, settings("http://127.0.0.1:1/?token=geheim")).Deliver(context.Background(), delivery()); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("refused connection: %v", err)
	}
}

func TestFilter(t *testing.T) {
	record, bucket := fsm.Path("/buckets/b/collections/c/records/r"), fsm.Path("/buckets/b")
	group := fsm.Path("/buckets/b/groups/g")
	cases := []struct {
		actions, resources  []string
		buckets, colls      string
		path                fsm.Path
		action              fsm.Action
		accepted, sameAsAll bool
	}{
		{path: record, action: fsm.ActionCreate, accepted: true, sameAsAll: true},
		{actions: []string{"create"}, path: record, action: fsm.ActionUpdate},
		{actions: []string{"delete", "read"}, path: bucket, action: fsm.ActionDeleteTree, accepted: true},
		{actions: []string{"read"}, path: record, action: fsm.ActionCreate},
		{resources: []string{"record"}, path: bucket, action: fsm.ActionCreate},
		{resources: []string{"record"}, path: record, action: fsm.ActionCreate, accepted: true},
		{resources: []string{"group"}, path: group, action: fsm.ActionCreate, accepted: true},
		{buckets: "a b", path: group, action: fsm.ActionCreate, accepted: true},
		{buckets: "a", path: group, action: fsm.ActionCreate},
		{colls: "c*", path: record, action: fsm.ActionCreate, accepted: true},
		{colls: "c*", path: bucket, action: fsm.ActionCreate},
		{buckets: "x", colls: "c", path: record, action: fsm.ActionCreate},
		{action: fsm.ActionFlush, sameAsAll: true},
		{actions: []string{"delete"}, action: fsm.ActionFlush},
		{actions: []string{"flush"}, resources: []string{"record"}, buckets: "a", action: fsm.ActionFlush, accepted: true},
	}
	all := load(t, settings("http://127.0.0.1:1/"))
	for i, c := range cases {
		s := settings("http://127.0.0.1:1/other")
		s.Actions, s.Resources, s.Params = c.actions, c.resources, map[string]string{"bucket": c.buckets, "collection": c.colls}
		w := load(t, s)
		if got := w.Match(&fsm.Event{Path: c.path, Action: c.action}); got != c.accepted {
			t.Errorf("case %d: %v", i, got)
		}
		if same := bytes.Equal(w.FilterHash(), all.FilterHash()); same != c.sameAsAll {
			t.Errorf("case %d: hash equal to that without filter: %v", i, same)
		}
	}
}

// A bad setting is one clear error that never shows a secret.
func TestBadSettings(t *testing.T) {
	for name, change := range map[string]func(*plugins.Settings){
		"no url":             func(s *plugins.Settings) { s.URL = "" },
		"other scheme":       func(s *plugins.Settings) { s.URL = "file:///etc/passwd" },
		"no secret":          func(s *plugins.Settings) { s.Secret = " " },
		"no prefix":          func(s *plugins.Settings) { s.Secret = strings.TrimPrefix(secret(1), "whsec_") },
		"not base64":         func(s *plugins.Settings) { s.Secret = "whsec_geheim!" },
		"short secret":       func(s *plugins.Settings) { s.Secret = "whsec_Z2VoZWlt" },
		"too many secrets":   func(s *plugins.Settings) { s.Secret = strings.Repeat(secret(1)+" ", MaxSecrets+1) },
		"timeout":            func(s *plugins.Settings) { s.Params["timeout_seconds"] = "-1" },
		"timeout not number": func(s *plugins.Settings) { s.Params["timeout_seconds"] = "NaN" },
		"action":             func(s *plugins.Settings) { s.Actions = []string{"made"} },
		"pattern":            func(s *plugins.Settings) { s.Params["bucket"] = "[" },
		"module":             func(s *plugins.Settings) { s.Use = "kinto_redis.listeners" },
	} {
		s := settings("http://127.0.0.1:1/")
		change(&s)
		_, err := plugins.Registered().Load(context.Background(), s)
		if err == nil || strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	var log bytes.Buffer
	s := settings("http://127.0.0.1:1/")
	s.Use, s.Log = LongName, slog.New(slog.NewTextHandler(&log, nil))
	s.Actions, s.Resources, s.Params = []string{"create", "read"}, []string{"recordz"}, map[string]string{"colour": "red"}
	load(t, s)
	for _, want := range []string{"colour", "recordz", "read"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no warning about %s in %s", want, log.String())
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer srv.Close()
	w := load(b, settings(srv.URL))
	d := delivery()
	d.New.Data = []byte(fmt.Sprintf(`{"text":%q}`, strings.Repeat("x", 300)))
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Deliver(context.Background(), d); err != nil {
			b.Fatal(err)
		}
	}
}

// A receiver is told, signed as ever, that changes are lost for it; so is that of a
// webhook in metadata.
func TestLoss(t *testing.T) {
	verifier, err := standardwebhooks.NewWebhook(secret(1))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := verifier.Verify(body, r.Header); err != nil {
			t.Error(err)
		}
		got = append(got, string(body))
	}))
	defer s.Close()
	set := settings(s.URL)
	set.Secret = secret(1)
	w := load(t, set)
	hook := &declared{sender: &poster{w.client, DefaultTimeout, outbound.Brief}}
	if err := hook.set(&definition{URL: s.URL, Secret: secret(1)}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []plugins.Losing{w, hook} {
		if err := n.Lost(context.Background(), plugins.Loss{ID: "msg_lost", After: 12, UpTo: 40, Time: 1500}); err != nil {
			t.Fatal(err)
		}
	}
	const want = `{"timestamp":1500,"action":"lost","after":12,"up_to":40,"delivery_id":"msg_lost"}`
	if len(got) != 2 || got[0] != want || got[1] != want {
		t.Errorf("%q", got)
	}
}
