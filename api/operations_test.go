package api

import "testing"

// Kinto 8.2 and 8.3: readonly answers 405 before it looks at the path or the
// body, and every answer asks for the backoff.
func TestReadOnlyAndBackoffOnEveryAnswer(t *testing.T) {
	s := start(t, func(o *Options) { o.Config.ReadOnly, o.Config.Backoff, o.Config.BackoffPercentage = true, 10, 100 })
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "/v1/buckets/b", `{"data":`, 405}, {"POST", "/v1/nowhere", "", 405}, {"DELETE", "/", "", 405},
		{"PUT", "/v1/__heartbeat__", "", 405}, {"GET", "/v1/__lbheartbeat__", "", 200}, {"GET", "/v2/", "", 404},
	} {
		a := s.send(t, c.method, c.path, nil, c.body)
		if a.StatusCode != c.status || a.Header.Get("Backoff") != "10" {
			t.Errorf("%s %s: %d, Backoff %q, want %d", c.method, c.path, a.StatusCode, a.Header.Get("Backoff"), c.status)
		}
	}
	if len(s.service.requests()) != 0 {
		t.Error("a refused write reached the service")
	}
}
