package resource

import (
	"strings"
	"testing"
)

// Kinto 8.2: whatever the path or the body, a write is 405; hello may be cached.
func TestReadOnlyRefusesWritesOnly(t *testing.T) {
	c, n := newClient(t, map[string]string{"readonly": "true", "root_cache_expires_seconds": "60"})
	for _, line := range []string{"PUT /buckets/b", "POST /buckets", "PATCH /buckets/b", "DELETE /buckets/b", "DELETE /buckets", "POST /batch", "POST /nowhere"} {
		c.want(405, `"errno":115`, "alice", line, `{}`)
	}
	if n.proposed+n.exclusive != 0 {
		t.Errorf("%d proposals, %d exclusive", n.proposed, n.exclusive)
	}
	c.want(403, "", "alice", "GET /buckets/b", "")
	if got := c.want(200, `"readonly":true`, "", "GET /", "").Get("Cache-Control"); got != "max-age=60" {
		t.Errorf("Cache-Control of hello: %q", got)
	}
}

// Kinto 8.3: what is answered inside a batch asks for the same backoff.
func TestBackoffOfPartsOfABatch(t *testing.T) {
	c, _ := newClient(t, map[string]string{"backoff": "10"})
	const batch = `{"requests":[{"method":"PUT","path":"/buckets/b"}]}`
	c.want(200, `"Backoff":"10"`, "alice", "POST /batch", batch)
	c, _ = newClient(t, map[string]string{"backoff": "10", "backoff_percentage": "0"})
	if r := c.want(200, "", "alice", "POST /batch", batch); string(r.Body) == "" || strings.Contains(string(r.Body), `"Backoff":`) {
		t.Errorf("backoff of no answer: %s", r.Body)
	}
}
