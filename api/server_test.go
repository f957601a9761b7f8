package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"quinto/api/resource"
)

// The server reuses its buffers: what the service keeps must not change when
// other requests come (reliability: 172 of 200 log entries differed without a copy).
func TestRequestsOwnTheirBytes(t *testing.T) {
	s := start(t, nil)
	const clients, each = 16, 50
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				mark := fmt.Sprintf("%03d-%03d", c, i)
				a := s.send(t, "PUT", "/v1/buckets/b/records/"+mark+"?q="+mark, http.Header{"Idempotency-Key": {mark}},
					`{"data":{"mark":"`+mark+`","fill":"`+filled(i*7, 'x')+`"}}`)
				if a.StatusCode != http.StatusOK {
					t.Errorf("status %d", a.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	seen, ids := map[string]bool{}, map[string]bool{}
	for _, r := range s.service.requests() {
		mark := strings.TrimPrefix(r.Path, "/buckets/b/records/")
		seen[mark], ids[string(r.ID)] = true, true
		if r.Query != "q="+mark || r.Header["idempotency-key"] != mark || r.Method != http.MethodPut || r.Host != s.addr || r.Client != "127.0.0.1" ||
			!strings.HasPrefix(string(r.Body), `{"data":{"mark":"`+mark+`"`) || !strings.HasSuffix(string(r.Body), `"}}`) {
			t.Fatalf("request %q changed: query %q, header %v, body %q", mark, r.Query, r.Header, r.Body)
		}
	}
	if len(seen) != clients*each || len(ids) != clients*each {
		t.Fatalf("%d requests with %d ids, want %d", len(seen), len(ids), clients*each)
	}
}

func TestRequestIsParsedOnce(t *testing.T) {
	tests := []struct{ target, path, query string }{
		{"/v1/", "/", ""},
		{"/v1/buckets/b%2Fc?x=%2F", "/buckets/b/c", "x=%2F"},
		{"/v1/buckets/%2562", "/buckets/%62", ""}, // once, not twice
		{"/v1/buckets/%zz%", "/buckets/%zz%", ""},
		{"/v1/buckets//c/../d/./", "", ""}, // a slash at the end: redirected
		{"/v1/buckets//c/../d", "/buckets//c/../d", ""},
		{"/v1/BUCKETS/B", "/BUCKETS/B", ""},
		{"/v1/buckets/%C3%A9", "/buckets/é", ""},
		{"/v1/buckets?", "/buckets", ""},
		{"/v1/buckets?a=?b", "/buckets", "a=?b"},
		{"http://other/v1/buckets?a=1", "/buckets", "a=1"},
	}
	s := start(t, nil)
	for _, test := range tests {
		before := len(s.service.requests())
		got := s.raw(t, "GET "+test.target+" HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a:2 \r\nConnection: close\r\nQuinto-Node: evil\r\nQuinto-Revision: 5\r\n\r\n", false)
		after := s.service.requests()
		if len(got) != 1 || (len(after) == before+1) != (test.path != "") {
			t.Errorf("%s: %d answers, %d requests", test.target, len(got), len(after)-before)
			continue
		}
		if test.path == "" {
			continue
		}
		r := after[before]
		if r.Path != test.path || r.Query != test.query || r.Prefix != "/v1" || r.Scheme != "http" || r.Host != "h" || len(r.ID) != 16 {
			t.Errorf("%s: %+v", test.target, r)
		}
		if len(r.Header) != 2 || r.Header["x-a"] != "1, 2" || r.Header["quinto-revision"] != "5" {
			t.Errorf("%s: headers %v", test.target, r.Header)
		}
	}
}

func TestErrorsBeforeTheService(t *testing.T) {
	tests := []struct {
		method, path  string
		header        http.Header
		status, errno int
	}{
		{"GET", "/v2/", nil, 404, 116},
		{"GET", "/v0/buckets", nil, 404, 116},
		{"GET", "/v1x", nil, 404, 111},
		{"GET", "/v10/x", nil, 404, 111},
		{"GET", "/v1/buckets/%ff", nil, 400, 107},
		{"GET", "/v1/buckets?a=%ff", nil, 400, 107},
		{"POST", "/v1/buckets", http.Header{"Content-Encoding": {"gzip"}}, 415, 107},
		{"POST", "/v1/__heartbeat__", nil, 405, 115},
		{"PUT", "/v1/__lbheartbeat__", nil, 405, 115},
		{"GET", "/v1/buckets?" + filled(9000, 'a'), nil, 414, 107},
	}
	s := start(t, nil)
	for _, test := range tests {
		a := s.send(t, test.method, test.path, test.header, "")
		t.Run(test.method+test.path[:min(len(test.path), 30)], func(t *testing.T) { checkError(t, a, test.status, test.errno) })
		if test.status == 405 && a.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("Allow: %v", a.Header)
		}
	}
	if n := len(s.service.requests()); n != 0 {
		t.Errorf("the service was asked %d times", n)
	}
	a := s.send(t, "GET", "/v1/buckets/%ff", nil, "")
	if want := `{"code":400,"errno":107,"error":"Bad Request","message":"Invalid URL path."}`; string(a.body) != want {
		t.Errorf("%s, want %s", a.body, want)
	}
}

// The page, to the byte, that real Kinto sends.
func TestRedirects(t *testing.T) {
	page := func(to string) string {
		return "<html>\n <head>\n  <title>307 Temporary Redirect</title>\n </head>\n <body>\n  <h1>307 Temporary Redirect</h1>\n" +
			"  The resource has been moved to " + to + "; you should be redirected automatically.\n\n\n </body>\n</html>"
	}
	tests := []struct{ path, to, cache string }{
		{"/", "/v1/", ""},
		{"/v1", "/v1/", "max-age=3600"},
		{"/foo?a=b", "/v1/foo?a=b", ""},
		{"//evil.example/x", "/v1/evil.example/x", ""},
		{"/v1/buckets/", "/v1/buckets", "max-age=3600"},
		{"/v10/", "/v10", "max-age=3600"},
		{"/v1/__heartbeat__/?a=1", "/v1/__heartbeat__?a=1", "max-age=3600"},
	}
	s := start(t, nil)
	for _, test := range tests {
		a := s.send(t, "GET", test.path, http.Header{"Accept": {"*/*"}}, "")
		if a.StatusCode != http.StatusTemporaryRedirect || a.Header.Get("Location") != s.url(test.to) || a.Header.Get("Cache-Control") != test.cache ||
			(a.Header.Get("Expires") != "") != (test.cache != "") || string(a.body) != page(test.to) {
			t.Errorf("%s: %d %v %s", test.path, a.StatusCode, a.Header, a.body)
		}
	}
	if a := s.send(t, "GET", "/", http.Header{"Accept": {"*/*"}}, ""); len(a.body) != 203 || a.Header.Get("Content-Type") != "text/html; charset=UTF-8" {
		t.Errorf("Kinto's page has 203 bytes: %d %v", len(a.body), a.Header)
	}
	if a := s.send(t, "OPTIONS", "/foo", nil, ""); a.StatusCode != http.StatusOK || len(a.body) != 0 {
		t.Errorf("OPTIONS: %d %s", a.StatusCode, a.body)
	}
	for _, got := range s.raw(t, "GET /\"<script> HTTP/1.1\r\nHost: h\r\n\r\nGET /%0d%0aX:%20y HTTP/1.1\r\nHost: h\r\n\r\n", false) {
		if strings.Contains(string(got.body), "<script") || got.Header.Get("X") != "" {
			t.Errorf("injected: %v %s", got.Header, got.body)
		}
	}
}

func TestHeadHasTheLengthOfGet(t *testing.T) {
	s := start(t, nil)
	for _, path := range []string{"/v1/buckets", "/v1/__lbheartbeat__", "/v1/__heartbeat__", "/v2/"} {
		get, head := s.send(t, "GET", path, nil, ""), s.send(t, "HEAD", path, nil, "")
		if head.StatusCode != get.StatusCode || head.ContentLength != int64(len(get.body)) || len(head.body) != 0 ||
			head.Header.Get("ETag") != get.Header.Get("ETag") || head.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: HEAD %d %v, GET %d %v", path, head.ContentLength, head.Header, len(get.body), get.Header)
		}
	}
}

func TestAnswersAreRenderedAsTheyCome(t *testing.T) {
	s := start(t, nil)
	s.service.answer = func(_ context.Context, r *resource.Request) *resource.Response {
		if r.Path == "/304" {
			return &resource.Response{Status: 304, Header: []resource.HeaderField{{Name: "ETag", Value: `"1"`}}}
		}
		return &resource.Response{Status: 401, Body: []byte("{}"), Header: []resource.HeaderField{
			{Name: "WWW-Authenticate", Value: `Basic realm="Realm"`}, {Name: "WWW-Authenticate", Value: `Bearer realm="Realm"`},
			{Name: "Content-Type", Value: "application/json"}}}
	}
	if a := s.send(t, "GET", "/v1/x", nil, ""); a.StatusCode != http.StatusUnauthorized || len(a.Header.Values("WWW-Authenticate")) != 2 {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	if a := s.send(t, "GET", "/v1/304", nil, ""); a.StatusCode != http.StatusNotModified || a.Header.Get("ETag") != `"1"` || a.Header.Get("Content-Type") != "" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	for _, method := range []string{"FOO", "PROPFIND", "TRACE"} { // the resource says 405, and what is allowed
		if a := s.send(t, method, "/v1/x", nil, ""); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s did not reach the service: %d %s", method, a.StatusCode, a.body)
		}
	}
}

func TestPanicIsA500(t *testing.T) {
	s := start(t, nil)
	s.service.answer = func(context.Context, *resource.Request) *resource.Response { panic("secret detail") }
	a := s.send(t, "GET", "/v1/buckets", nil, "")
	checkError(t, a, 500, 999)
	if strings.Contains(string(a.body), "secret") || !strings.Contains(string(a.body), `"info":`) {
		t.Errorf("%s", a.body)
	}
	s.service.answer = nil
	if a := s.send(t, "GET", "/v1/buckets", nil, ""); a.StatusCode != http.StatusOK {
		t.Errorf("after the panic: %d", a.StatusCode)
	}
}

func TestDeadlineReachesTheService(t *testing.T) {
	s := start(t, func(o *Options) { o.Config.Timeouts.Request = 20 * time.Millisecond })
	s.service.answer = func(ctx context.Context, _ *resource.Request) *resource.Response {
		<-ctx.Done()
		return &resource.Response{Status: 503}
	}
	if a := s.send(t, "GET", "/v1/buckets", nil, ""); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%d", a.StatusCode)
	}
}

func TestShutdownWaitsForRequests(t *testing.T) {
	s := start(t, nil)
	entered := make(chan struct{})
	s.service.answer = func(context.Context, *resource.Request) *resource.Response {
		close(entered)
		time.Sleep(200 * time.Millisecond)
		return &resource.Response{Status: 200, Body: []byte("{}")}
	}
	var got answer
	var wg sync.WaitGroup
	wg.Go(func() { got = s.send(t, "GET", "/v1/buckets", nil, "") })
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if got.StatusCode != http.StatusOK || !got.Close {
		t.Errorf("%d, close %v", got.StatusCode, got.Close)
	}
	if c, err := net.Dial("tcp", s.addr); err == nil {
		_ = c.Close()
		t.Error("still accepts connections")
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	s := start(t, func(o *Options) { o.Config.Limits.Connections = 2 })
	var held []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	got := s.raw(t, "", false) // the server accepts in order
	if len(got) != 1 {
		t.Fatalf("%d answers beyond the limit", len(got))
	}
	checkError(t, got[0], 503, 201)
	for _, c := range held {
		_ = c.Close()
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got := s.raw(t, "GET /v1/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false); len(got) == 1 && got[0].StatusCode == http.StatusOK {
			return
		}
	}
	t.Error("closed connections keep their places")
}

func TestOneAddressCannotTakeAllConnections(t *testing.T) {
	l := &countedListener{most: 4, by: map[string]int{}}
	for i, want := range []bool{true, true, false} {
		if l.take("10.0.0.1") != want {
			t.Errorf("connection %d of one address: %v", i, !want)
		}
	}
	if !l.take("10.0.0.2") || !l.take("") || l.take("10.0.0.3") {
		t.Error("the limit in all")
	}
	l.give("10.0.0.1")
	if !l.take("10.0.0.3") || l.open != 4 {
		t.Error("a freed place cannot be taken")
	}
}

// An endpoint may end in a slash; anything else is redirected.
func TestSlashOfAnEndpoint(t *testing.T) {
	s := start(t, nil)
	if a := s.send(t, "GET", "/v1/static/", nil, ""); a.StatusCode != http.StatusOK {
		t.Errorf("%d", a.StatusCode)
	}
}

// fasthttp forgets a shutdown that comes before its listener; Serve then never
// ended. start's cleanup waits for that end.
func TestShutdownRightAfterServe(t *testing.T) {
	for range 20 {
		if err := start(t, nil).Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// The second shutdown finds a listener that is closed already, known to fasthttp
// or not.
func TestShutdownTwice(t *testing.T) {
	for range 20 {
		s := start(t, nil)
		for range 2 {
			if err := s.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
