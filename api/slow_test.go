package api

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// Slow connections, of any kind, hold up nobody: `make slow` measures thousands.
func TestSlowConnectionsHoldUpNobody(t *testing.T) { onBothPorts(t, slowConnections) }

func slowConnections(t *testing.T, s *testServer) {
	heads := []string{"", "GET /v1/b HTTP/1.1\r\nHost: h\r\nX-A: ", post("/v1/b", "Content-Length: 5000\r\n", "a"),
		post("/v1/b", fmt.Sprintf("Content-Length: %d\r\n", s.limits.BodyBytes), "a"), post("/v1/b", "Transfer-Encoding: chunked\r\n", "5\r\na")}
	for i := range 400 {
		c, err := s.slow(i)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write([]byte(heads[i%len(heads)])); err != nil {
			t.Fatal(err)
		}
	}
	c, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // for all of them
	r := bufio.NewReader(c)
	for range 100 {
		if _, err := c.Write([]byte(post("/v1/b", "Content-Length: 3\r\n", "abc"))); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _ = answer.Body.Close(); answer.StatusCode != http.StatusOK {
			t.Fatal(answer.Status)
		}
		if _, err := r.Discard(r.Buffered()); err != nil {
			t.Fatal(err)
		}
	}
}

// slow opens a connection of the port's kind; behind a handshake every eighth only,
// since the others are to hang within it.
func (s *testServer) slow(i int) (net.Conn, error) {
	if i%8 == 0 {
		return s.dial()
	}
	return net.Dial("tcp", s.addr)
}
