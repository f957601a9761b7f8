package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"quinto/api/openapi"
	"quinto/api/resource"
	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/internal/config"
)

func TestMain(m *testing.M) {
	// fasthttp's clock never ends, and its janitor only notices after ten seconds.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// fakeService remembers what it was asked, without copying: whatever belongs to
// the server's buffers changes under it.
type fakeService struct {
	mu     sync.Mutex
	asked  []*resource.Request
	answer func(ctx context.Context, r *resource.Request) *resource.Response
}

func (f *fakeService) Do(ctx context.Context, r *resource.Request) *resource.Response {
	f.mu.Lock()
	f.asked = append(f.asked, r)
	f.mu.Unlock()
	if f.answer != nil {
		return f.answer(ctx, r)
	}
	return &resource.Response{Status: 200, Body: []byte(`{"data":[]}`), Header: []resource.HeaderField{
		{Name: "Content-Type", Value: "application/json"}, {Name: "ETag", Value: `"12"`}}}
}

func (f *fakeService) Serves(path string) bool { return path == "/static/" }

func (f *fakeService) Endpoint(path string) resource.Endpoint {
	if path == "/" {
		return resource.Endpoint{Name: "hello"}
	}
	if id, ok := strings.CutPrefix(path, "/buckets/"); ok {
		return resource.Endpoint{Name: "bucket-object", IDs: map[string]string{"bucket_id": id}}
	}
	return resource.Endpoint{}
}

func (f *fakeService) Document() openapi.Document {
	return openapi.Document{Title: "t", Version: "1.23"}
}

func (f *fakeService) Parts(*resource.Request, *resource.Response) []resource.Part { return nil }

func (f *fakeService) requests() []*resource.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// fakeNode is a node without peers.
type fakeNode struct {
	state   *fsm.FSM
	broken  error // of linearizable views
	full    error
	members []fsm.Member
}

func (n *fakeNode) View(_ context.Context, f fsm.Freshness) (*fsm.View, error) {
	if f.Level == fsm.Linearizable && n.broken != nil {
		return nil, n.broken
	}
	return n.state.View()
}

func (n *fakeNode) Leader() (fsm.Member, bool)                    { return fsm.Member{Name: "n1"}, n.broken == nil }
func (n *fakeNode) Members(context.Context) ([]fsm.Member, error) { return n.members, nil }
func (n *fakeNode) Term() uint64                                  { return 7 }
func (n *fakeNode) Ready() error                                  { return n.broken }
func (n *fakeNode) WriteError() error                             { return n.full }
func (n *fakeNode) Standing() (string, uint64)                    { return "leader", 0 }

func newNode(t testing.TB) *fakeNode {
	t.Helper()
	st, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	state, err := fsm.Open(st)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fakeNode{state: state, members: []fsm.Member{{Name: "n1", Role: "leader", Suffrage: "voter", Revision: 3, Ready: true}}}
}

type testServer struct {
	*Server
	addr    string
	service *fakeService
	node    *fakeNode
}

func (s *testServer) url(path string) string { return "http://" + s.addr + path }

// onBothPorts runs a test against a port that speaks HTTP and one that speaks HTTPS.
func onBothPorts(t *testing.T, test func(t *testing.T, s *testServer)) {
	t.Run("HTTP", func(t *testing.T) { test(t, start(t, nil)) })
	t.Run("HTTPS", func(t *testing.T) { test(t, start(t, overTLS)) })
}

// overTLS gives the port a certificate, which nobody checks.
func overTLS(o *Options) {
	other := httptest.NewTLSServer(nil)
	defer other.Close()
	o.TLS = &tls.Config{Certificates: other.TLS.Certificates, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
}

// dial opens a connection of the port's kind.
func (s *testServer) dial() (interface {
	net.Conn
	CloseWrite() error
}, error) {
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	if s.options.TLS == nil {
		return c.(*net.TCPConn), nil
	}
	secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	return secure, secure.Handshake() // CloseWrite wants it done
}

// start serves on a free loopback port until the test ends.
func start(t testing.TB, change func(*Options)) *testServer {
	t.Helper()
	c, err := config.Load(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{service: &fakeService{}, node: newNode(t)}
	o := Options{Service: s.service, Node: s.node, State: s.node.state, Config: c, Name: "n1", Version: BuildVersion("1.2.3")}
	c.Project.VersionJSONPath = ""
	if change != nil {
		change(&o)
	}
	s.Server = New(o)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

// answer is what came back over a raw connection.
type answer struct {
	*http.Response
	body []byte
}

// raw sends bytes as they are, closes the sending side if told to, and reads
// answers until the server closes, or is silent for a moment where it need not close.
func (s *testServer) raw(t testing.TB, sent string, half bool) []answer {
	t.Helper()
	c, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(c, sent) // the server may close first
		if half {
			_ = c.CloseWrite()
		}
	}()
	var all []answer
	r := bufio.NewReader(c)
	for {
		if n := len(all); n > 0 && !half && !all[n-1].Close {
			if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Peek(1); err != nil {
				return all
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		head, err := http.ReadResponse(r, nil)
		if err != nil {
			return all
		}
		body, err := io.ReadAll(head.Body)
		_ = head.Body.Close()
		if err != nil {
			t.Errorf("an answer breaks off: %v", err)
		}
		all = append(all, answer{head, body})
	}
}

// checkError fails unless a is Kinto's error body for the status.
func checkError(t testing.TB, a answer, status, errno int) {
	t.Helper()
	var body struct {
		Code    int
		Errno   int
		Error   string
		Message string
	}
	if a.StatusCode != status {
		t.Errorf("status %d, want %d: %s", a.StatusCode, status, a.body)
	}
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	if err := json.Unmarshal(a.body, &body); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	if body.Code != status || errno != 0 && body.Errno != errno || body.Error != http.StatusText(status) || body.Message == "" {
		t.Errorf("body %s, want code %d, errno %d", a.body, status, errno)
	}
	if a.Header.Get("Quinto-Revision") == "" && a.StatusCode != http.StatusServiceUnavailable { // a connection too many gets a fixed answer
		t.Errorf("Quinto-Revision is missing: %v", a.Header)
	}
	if a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("Content-Security-Policy") != strings.TrimSpace(contentSecurityPolicy) {
		t.Errorf("headers of every answer are missing: %v", a.Header)
	}
}

func (s *testServer) send(t testing.TB, method, path string, header http.Header, body string) answer {
	t.Helper()
	r, err := http.NewRequest(method, s.url(path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	got, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(got.Body)
	_ = got.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return answer{got, text}
}

func filled(n int, c byte) string { return string(bytes.Repeat([]byte{c}, n)) }

func post(path, more, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\n%s\r\n%s", path, more, body)
}
