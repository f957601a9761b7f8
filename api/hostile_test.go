package api

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"quinto/internal/config"
)

// Requests that two parsers read differently (E6 of the reliability notes): never
// a 2xx or 5xx, never a second answer, so that nothing can hide in a body.
func TestSmuggling(t *testing.T) {
	inner := "GET /v1/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
	chunks := "0\r\n\r\n" + inner
	tests := map[string]string{
		"length and chunks":         post("/v1/b", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks),
		"chunks and length":         post("/v1/b", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunks),
		"chunks, other length":      post("/v1/b", "transfer-encoding: chunked\r\ncontent-length: 0\r\n", chunks),
		"two encodings":             post("/v1/b", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks),
		"chunked, identity":         post("/v1/b", "Transfer-Encoding: chunked, identity\r\n", chunks),
		"identity":                  post("/v1/b", "Transfer-Encoding: identity\r\nContent-Length: 0\r\n", inner),
		"identity alone":            post("/v1/b", "Transfer-Encoding: identity\r\n", inner),
		"xchunked":                  post("/v1/b", "Transfer-Encoding: xchunked\r\n", chunks),
		"tab before chunked":        post("/v1/b", "Transfer-Encoding:\x0bchunked\r\n", chunks),
		"blank before colon":        post("/v1/b", "Transfer-Encoding : chunked\r\n", chunks),
		"blank before colon 2":      post("/v1/b", "Content-Length : 5\r\n", chunks),
		"folded encoding":           post("/v1/b", "Transfer-Encoding:\r\n chunked\r\n", chunks),
		"folded header":             post("/v1/b", "X-A: 1\r\n X-B: 2\r\n", ""),
		"folded by tab":             post("/v1/b", "X-A: 1\r\n\tContent-Length: 3\r\n", ""),
		"first line folded":         "GET /v1/b HTTP/1.1\r\n Host: h\r\n\r\n",
		"two lengths":               post("/v1/b", "Content-Length: 0\r\nContent-Length: 40\r\n", inner),
		"two equal lengths":         post("/v1/b", "Content-Length: 0\r\nContent-Length: 0\r\n", inner),
		"list of lengths":           post("/v1/b", "Content-Length: 0, 0\r\n", inner),
		"signed length":             post("/v1/b", "Content-Length: +0\r\n", inner),
		"negative length":           post("/v1/b", "Content-Length: -1\r\n", inner),
		"hexadecimal length":        post("/v1/b", "Content-Length: 0x0\r\n", inner),
		"huge length":               post("/v1/b", "Content-Length: 99999999999999999999\r\n", inner),
		"chunks in 1.0":             "POST /v1/b HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"chunks in 1.0 kept":        "POST /v1/b HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"no host":                   "GET /v1/b HTTP/1.1\r\n\r\n",
		"two hosts":                 "GET /v1/b HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
		"bad host":                  "GET /v1/b HTTP/1.1\r\nHost: h/evil?\r\n\r\n",
		"user in host":              "GET /v1/b HTTP/1.1\r\nHost: a@b\r\n\r\n",
		"bare LF":                   "GET /v1/b HTTP/1.1\r\nHost: h\nX-A: 1\r\n\r\n",
		"bare LF at the end":        "GET /v1/b HTTP/1.1\r\nHost: h\n\n" + inner,
		"bare CR":                   "GET /v1/b HTTP/1.1\r\nHost: h\rX-A: 1\r\n\r\n",
		"NUL in header":             "GET /v1/b HTTP/1.1\r\nHost: h\r\nX-A: a\x00b\r\n\r\n",
		"NUL in name":               "GET /v1/b HTTP/1.1\r\nHost: h\r\nX\x00A: b\r\n\r\n",
		"no colon":                  "GET /v1/b HTTP/1.1\r\nHost: h\r\nX-A\r\n\r\n",
		"empty name":                "GET /v1/b HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n",
		"control in path":           "GET /v1/b\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
		"blank in path":             "GET /v1/b c HTTP/1.1\r\nHost: h\r\n\r\n",
		"fragment":                  "GET /v1/b#c HTTP/1.1\r\nHost: h\r\n\r\n",
		"HTTP/2 by name":            "GET /v1/b HTTP/2.0\r\nHost: h\r\n\r\n",
		"HTTP/2 preface":            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/0.9":                  "GET /v1/b\r\n\r\n",
		"TLS":                       "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"noise":                     "\x00\xff\xfe\r\n\r\n",
		"CONNECT":                   "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
		"asterisk":                  "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
		"relative":                  "GET v1/b HTTP/1.1\r\nHost: h\r\n\r\n",
		"chunk size with a sign":    post("/v1/b", "Transfer-Encoding: chunked\r\n", "+0\r\n\r\n"),
		"chunk size 0x":             post("/v1/b", "Transfer-Encoding: chunked\r\n", "0x0\r\n\r\n"),
		"LF in chunk extension":     post("/v1/b", "Transfer-Encoding: chunked\r\n", "0;a\nb\r\n\r\n"),
		"chunk without CRLF":        post("/v1/b", "Transfer-Encoding: chunked\r\n", "1\r\naX0\r\n\r\n"),
		"huge chunk":                post("/v1/b", "Transfer-Encoding: chunked\r\n", "FFFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n"),
		"negative chunk":            post("/v1/b", "Transfer-Encoding: chunked\r\n", "-1\r\na\r\n0\r\n\r\n"),
		"length cut by half-close":  post("/v1/b", "Content-Length: 500\r\n", "abc"),
		"chunks cut by half-close":  post("/v1/b", "Transfer-Encoding: chunked\r\n", "5\r\nab"),
		"headers cut by half-close": "GET /v1/b HTTP/1.1\r\nHost: h",
	}
	onBothPorts(t, func(t *testing.T, s *testServer) {
		for name, sent := range tests {
			t.Run(name, func(t *testing.T) {
				got := s.raw(t, sent, true)
				if len(got) > 1 {
					t.Fatalf("%d answers: %s", len(got), got[1].body)
				}
				if len(got) == 1 {
					if got[0].StatusCode < 400 || got[0].StatusCode > 499 {
						t.Fatalf("status %d: %s", got[0].StatusCode, got[0].body)
					}
					checkError(t, got[0], got[0].StatusCode, 0)
				}
			})
		}
		if asked := s.service.requests(); len(asked) > 0 {
			t.Errorf("the service was asked for %s", asked[0].Path)
		}
	})
}

// A trailer must not become a header: it comes after the body, past every check.
func TestTrailersAreDropped(t *testing.T) {
	onBothPorts(t, func(t *testing.T, s *testServer) {
		s.raw(t, post("/v1/b", "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n", "1\r\na\r\n0\r\nAuthorization: Basic eA==\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"), true)
		for _, r := range s.service.requests() {
			if r.Header["authorization"] != "" || r.Header["x-forwarded-for"] != "" {
				t.Errorf("a trailer became a header: %v", r.Header)
			}
		}
	})
}

func TestLimitsOfARequest(t *testing.T) {
	onBothPorts(t, limitsOfARequest)
	// What is slow is told so when its time is over, which is short here; what is too large
	// may take long to come on a slow machine.
	t.Run("slow", func(t *testing.T) {
		short := func(o *Options) { o.Config.Timeouts.Read = 300 * time.Millisecond }
		t.Run("HTTP", func(t *testing.T) { slowRequests(t, start(t, short)) })
		t.Run("HTTPS", func(t *testing.T) {
			slowRequests(t, start(t, func(o *Options) { o.Config.Timeouts.Read = 2 * time.Second; overTLS(o) })) // the handshake's too
		})
	})
}

func limitsOfARequest(t *testing.T, s *testServer) {
	limit := s.limits.BodyBytes
	lines := func(n int, line string) string { return strings.Repeat(line+"\r\n", n) }
	refused(t, s, []refusedRequest{
		{"header of 1 MB", post("/v1/b", "X-A: "+filled(1<<20, 'a')+"\r\n", ""), 431, 0},
		{"10,000 header lines", post("/v1/b", lines(10000, "a:b"), ""), 431, 0},
		{"3,000 header lines", post("/v1/b", lines(3000, "a:b"), ""), 431, 0},
		{"header of 17 KiB", post("/v1/b", "X-A: "+filled(17<<10, 'a')+"\r\n", ""), 431, 0},
		{"URL of 1 MB", "GET /v1/" + filled(1<<20, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n", 431, 0},
		{"URL of 9 KiB", "GET /v1/" + filled(9<<10, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n", 414, 0},
		{"length beyond the limit", post("/v1/b", fmt.Sprintf("Content-Length: %d\r\n", limit+1), ""), 413, 113},
		{"body beyond the limit", post("/v1/b", fmt.Sprintf("Content-Length: %d\r\n", limit+1), filled(limit+1, 'a')), 413, 113},
		{"chunks beyond the limit", post("/v1/b", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n", limit, filled(limit, 'a'))+"1\r\na\r\n0\r\n\r\n"), 413, 113},
		{"one chunk beyond the limit", post("/v1/b", "Transfer-Encoding: chunked\r\n", "7fffffff\r\na"), 413, 113},
		{"expected beyond the limit", post("/v1/b", fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n", limit+1), ""), 413, 113},
	})
}

func slowRequests(t *testing.T, s *testServer) {
	refused(t, s, []refusedRequest{
		{"head", "GET /v1/b HTTP/1.1\r\nHos", 408, 0},
		{"body", post("/v1/b", "Content-Length: 10\r\n", "abc"), 408, 0},
		{"chunks", post("/v1/b", "Transfer-Encoding: chunked\r\n", "5\r\nab"), 408, 0},
	})
}

// refusedRequest is a request, and the answer that it must get.
type refusedRequest struct {
	name, sent    string
	status, errno int
}

// refused sends each on a connection of its own, which the server has to close.
func refused(t *testing.T, s *testServer, tests []refusedRequest) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := s.raw(t, test.sent, false)
			if len(got) != 1 { // a connection that is reset loses the answer
				t.Fatalf("%d answers", len(got))
			}
			checkError(t, got[0], test.status, test.errno)
			if !got[0].Close {
				t.Error("the connection stays open")
			}
		})
	}
	if n := len(s.service.requests()); n != 0 {
		t.Errorf("the service was asked %d times", n)
	}
	s.Server.bodies.mu.Lock()
	defer s.Server.bodies.mu.Unlock()
	if s.Server.bodies.used != 0 {
		t.Errorf("%d bytes of bodies are held", s.Server.bodies.used)
	}
}

func TestLargeHeadPasses(t *testing.T) {
	s := start(t, nil)
	line := "GET /v1/b?q=" + filled(8192-len("/v1/b?q="), 'q') + " HTTP/1.1\r\n"
	head := "Host: h\r\nX-A: " + filled(16384-len("Host: h\r\nX-A: \r\n\r\n"), 'a') + "\r\n\r\n"
	got := s.raw(t, line+head, true)
	if len(head) != 16384 || len(got) != 1 || got[0].StatusCode != http.StatusOK {
		t.Fatalf("16 KiB of headers beside an 8 KiB URL: %d answers, %+v", len(got), got)
	}
	got = s.raw(t, post("/v1/b", "Expect: 100-continue\r\nContent-Length: 3\r\n", "abc"), true)
	if len(got) != 2 || got[0].StatusCode != http.StatusContinue || got[1].StatusCode != http.StatusOK {
		t.Errorf("100-continue: %d answers", len(got))
	}
}

func TestPipelining(t *testing.T) { onBothPorts(t, pipelining) }

func pipelining(t *testing.T, s *testServer) {
	var sent strings.Builder
	for i := range 100 {
		fmt.Fprintf(&sent, "POST /v1/b/%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n%03d", i, i)
	}
	got := s.raw(t, sent.String(), true)
	if len(got) != 100 {
		t.Fatalf("%d answers", len(got))
	}
	for i, r := range s.service.requests() {
		if r.Path != fmt.Sprintf("/b/%d", i) || string(r.Body) != fmt.Sprintf("%03d", i) {
			t.Fatalf("request %d: %s %s", i, r.Path, r.Body)
		}
	}
}

// 987 bytes on the wire became 512 MiB in memory with Ctx.Body (E9).
func TestCompressedBodiesStayCompressed(t *testing.T) {
	bomb := filled(64<<20, 0)
	for range 2 {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(bomb)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		bomb = b.String()
	}
	s := start(t, nil)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, encoding := range []string{"gzip, gzip", "gzip", "br", "deflate", "zstd", "x"} {
		got := s.raw(t, post("/v1/b", fmt.Sprintf("Content-Encoding: %s\r\nContent-Length: %d\r\n", encoding, len(bomb)), bomb), true)
		if len(got) != 1 {
			t.Fatalf("%d answers", len(got))
		}
		checkError(t, got[0], 415, 107)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated for %d bytes of body", grown, len(bomb))
	}
}

// Slow connections that claim large bodies get 503 once the memory for bodies is
// spoken for, and give it back.
func TestMemoryForBodiesIsBounded(t *testing.T) {
	s := start(t, func(o *Options) {
		o.Config.Limits.BodyBytes = 64 << 10
		o.Config.Timeouts.Read = 3 * time.Second // in which all of them are there, on any machine
	})
	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	for range bodiesInFlight + 8 {
		wg.Go(func() {
			got := s.raw(t, post("/v1/b", "Content-Length: 65536\r\n", "a"), false)
			mu.Lock()
			defer mu.Unlock()
			for _, a := range got {
				statuses[a.StatusCode]++
			}
		})
	}
	wg.Wait()
	if statuses[408] != bodiesInFlight || statuses[503] != 8 {
		t.Errorf("statuses %v, want %d × 408 and 8 × 503", statuses, bodiesInFlight)
	}
	if got := s.raw(t, post("/v1/b", "Content-Length: 65536\r\n", filled(65536, 'a')), true); len(got) != 1 || got[0].StatusCode != http.StatusOK {
		t.Error("memory was not given back")
	}
}

func TestBudgetForgetsBrokenConnections(t *testing.T) {
	b := newBudget(&config.Config{Limits: config.Limits{BodyBytes: 1 << 20}, Timeouts: config.Timeouts{Read: time.Millisecond}})
	for range 2 * bodiesInFlight {
		h := &fasthttp.RequestHeader{}
		h.SetContentLength(1 << 20)
		if b.reserve(h); b.refused(h) { // never released
			time.Sleep(5 * time.Millisecond)
			if b.reserve(h); b.refused(h) {
				t.Fatal("a broken connection keeps its memory")
			}
		}
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	s := start(t, func(o *Options) {
		o.Config.Timeouts.Read, o.Config.Timeouts.Idle = 100*time.Millisecond, 100*time.Millisecond
	})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	for err == nil {
		_, err = c.Read(buffer)
	}
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		t.Error("still open")
	}
}
