package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"quinto/api/resource"
	"quinto/internal/config"
	"quinto/plugins"
)

// recorder is a plugin that writes down what is measured.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (m *recorder) add(kind, name string, labels []plugins.Label) {
	line := kind + " " + name
	for _, l := range labels {
		line += " " + l.Name + "=" + l.Value
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, line)
}

func (m *recorder) Count(name string, _ int, labels []plugins.Label)    { m.add("count", name, labels) }
func (m *recorder) Time(name string, _ float64, labels []plugins.Label) { m.add("time", name, labels) }
func (m *recorder) Observe(name string, _ float64, labels []plugins.Label) {
	m.add("observe", name, labels)
}
func (m *recorder) Figures(func() []plugins.Figure) {}

func (m *recorder) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.lines
	m.lines = nil
	return taken
}

// observing starts a server whose user is basicauth:a:b.
func observing(t *testing.T, change func(*Options)) *testServer {
	s := start(t, change)
	s.service.answer = func(_ context.Context, r *resource.Request) *resource.Response {
		switch r.Path {
		case "/buckets/gone":
			return &resource.Response{Status: 404, Body: []byte(`{"code":404,"errno":110,"error":"Not Found"}`), UserID: "basicauth:a:b"}
		case "/unknown":
			return &resource.Response{Status: 404, Body: []byte(`{"code":404,"errno":111,"error":"Not Found"}`)}
		}
		return &resource.Response{Status: 200, Body: []byte(`{}`), UserID: "basicauth:a:b"}
	}
	return s
}

func TestMeasurementsOfRequests(t *testing.T) {
	m := &recorder{}
	s := observing(t, func(o *Options) { o.Meter = plugins.NewMeter([]plugins.Metrics{m}) })
	user := []string{"count users auth=basicauth userid=a.b", "count authentication type=basicauth"}
	ids := func(bucket string) string { return " bucket_id=" + bucket + " collection_id= group_id= record_id=" }
	for request, want := range map[string][2]string{
		"GET /v1/":                  {"method=get endpoint=hello" + ids(""), "200"},
		"GET /v1/buckets/b":         {"method=get endpoint=bucket-object" + ids("b"), "200"},
		"PUT /v1/buckets/gone":      {"method=put endpoint=bucket-object" + ids(""), "404"},
		"GET /v1/unknown":           {"method=get endpoint=unknown" + ids(""), "404"},
		"GET /v1/__lbheartbeat__":   {"method=get endpoint=lbheartbeat" + ids(""), "200"},
		"GET /buckets":              {"method=get endpoint=redirect_to_version" + ids(""), "307"},
		"GET /v1":                   {"method=get endpoint=unnamed" + ids(""), "307"},
		"GET /v3/x":                 {"method=get endpoint=unknown" + ids(""), "404"},
		"BREW /v1/":                 {"method=other endpoint=hello" + ids(""), "200"},
		"GET /v1/buckets/b?a=%ff":   {"method=get endpoint=unnamed" + ids(""), "400"},
		"DELETE /v1/__heartbeat__":  {"method=delete endpoint=heartbeat" + ids(""), "405"},
		"GET /v1/buckets/b/":        {"method=get endpoint=bucket-object bucket_id=b/ collection_id= group_id= record_id=", "307"},
		"GET http://h/v1/buckets/b": {"method=get endpoint=bucket-object" + ids("b"), "200"},
	} {
		method, path, _ := strings.Cut(request, " ")
		if got := s.raw(t, method+" "+path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false); len(got) != 1 {
			t.Fatalf("%s: %d answers", request, len(got))
		}
		var all []string
		if (want[1] == "200" || strings.Contains(path, "gone")) && !strings.Contains(path, "__") {
			all = slices.Clone(user)
		}
		all = append(all, "count request_summary "+want[0]+" status="+want[1], "time request_duration_seconds "+want[0], "observe request_size "+want[0])
		if got := m.take(); !slices.Equal(got, all) {
			t.Errorf("%s:\n%q, want\n%q", request, got, all)
		}
	}
}

func TestRequestLog(t *testing.T) {
	var out bytes.Buffer
	for name, logging := range map[string]config.Logging{"text": {Requests: true}, "JSON": {Requests: true, JSON: true}} {
		t.Run(name, func(t *testing.T) {
			out.Reset()
			s := observing(t, func(o *Options) {
				o.Config.Logging = logging
				o.RequestLog = NewRequestLog(o.Config, &out)
			})
			header := http.Header{"User-Agent": {`ag"ent`}, "X-Request-Id": {"r1"}, "Accept-Language": {"de"}, "Authorization": {"Basic secret"}}
			s.send(t, "PATCH", "/v1/buckets/gone?_limit=1&a=%0A", header, "body")
			line := out.String()
			if strings.Count(line, "\n") != 1 || strings.Contains(line, "secret") || strings.Contains(line, "body") {
				t.Fatalf("%q", line)
			}
			if logging.JSON {
				checkJSON(t, line)
				return
			}
			head, rest, _ := strings.Cut(line, " agent=")
			if head != `"PATCH /v1/buckets/gone?_limit=1&a=%0A" 404 (0 ms)` || !strings.HasPrefix(rest, `ag"ent authn_type=basicauth errno=110 lang=de rid=r1 time=`) ||
				!strings.HasSuffix(rest, " uid=a:b\n") {
				t.Errorf("%q", line)
			}
		})
	}
}

func checkJSON(t *testing.T, line string) {
	var got struct {
		Type, Logger, EnvVersion string
		Severity, Pid, Timestamp int64
		Fields                   map[string]any
	}
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if got.Type != "request.summary" || got.Logger != "kinto" || got.EnvVersion != "2.0" || got.Severity != 6 || got.Pid == 0 || got.Timestamp < 1e18 {
		t.Errorf("%+v", got)
	}
	f := got.Fields
	if f["time"] == nil || f["t"] == nil {
		t.Errorf("%v", f)
	}
	delete(f, "time")
	delete(f, "t")
	want := `map[agent:ag"ent authn_type:basicauth code:404 errno:110 lang:de method:PATCH path:/v1/buckets/gone querystring:map[_limit:1 a:` + "\n" + `] rid:r1 uid:a:b]`
	if fmt.Sprint(f) != want {
		t.Errorf("%v, want\n%s", f, want)
	}
}

// Nobody who reads the log in a terminal is at the mercy of clients.
func TestLogLinesOfClients(t *testing.T) {
	b := appendText(nil, []field{{name: "method", text: "GET"}, {name: "path", text: "/a\nb"}, {name: "agent", text: "x\x1b[31m\r"}, number("t", 3)})
	if got := string(b); got != "\"GET   /a\uFFFDb?\" ? (3 ms) agent=x\uFFFD[31m\uFFFD\n" {
		t.Errorf("%q", got)
	}
}

func BenchmarkUnobserved(b *testing.B) {
	s := start(b, nil)
	for b.Loop() {
		s.begin(nil)()
	}
}
