package resource

import (
	"fmt"
	"strings"
	"testing"
)

// The parts of a request that the service itself costs: one node, a state
// machine in memory, no network and no log.
func benchClient(b *testing.B) *client {
	c, _ := newClient(b, nil)
	c.want(201, "", "alice", "PUT /buckets/b", "")
	c.want(201, "", "alice", "PUT /buckets/b/collections/c", "")
	return c
}

var benchRecord = `{"data":{"name":"` + strings.Repeat("x", 250) + `","population":120,"location":{"lat":1.25,"lon":-7.5}}}`

func BenchmarkCreate(b *testing.B) {
	c := benchClient(b)
	for b.Loop() {
		c.want(201, "", "alice", "POST /buckets/b/collections/c/records", benchRecord)
	}
}

func BenchmarkSinceNothing(b *testing.B) {
	c := benchClient(b)
	r := c.want(201, "", "alice", "PUT /buckets/b/collections/c/records/r", benchRecord)
	since := "GET /buckets/b/collections/c/records?_since=" + strings.Trim(r.Get("ETag"), `"`)
	for b.Loop() {
		c.want(200, "", "alice", since, "")
	}
}

func BenchmarkSinceTen(b *testing.B) {
	c := benchClient(b)
	r := c.want(201, "", "alice", "PUT /buckets/b/collections/c/records/r", benchRecord)
	since := "GET /buckets/b/collections/c/records?_since=" + strings.Trim(r.Get("ETag"), `"`)
	for i := range 10 {
		c.want(201, "", "alice", fmt.Sprintf("PUT /buckets/b/collections/c/records/r%d", i), benchRecord)
	}
	for b.Loop() {
		c.want(200, "", "alice", since, "")
	}
}

func BenchmarkBatchOf25(b *testing.B) {
	c := benchClient(b)
	parts := make([]string, 25)
	for i := range parts {
		parts[i] = fmt.Sprintf(`{"method":"POST","path":"/buckets/b/collections/c/records","body":%s}`, benchRecord)
	}
	body := `{"requests":[` + strings.Join(parts, ",") + `]}`
	for b.Loop() {
		c.want(200, "", "alice", "POST /batch", body)
	}
}
