package statsd

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quinto/plugins"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(settings map[string]string) (*StatsD, error) {
	p, err := plugins.Registered().Load(context.Background(), plugins.Settings{Name: "s", Use: "kinto.plugins.statsd",
		Lookup: func(name string) (string, bool) { text, ok := settings[name]; return text, ok }})
	if err != nil {
		return nil, err
	}
	return p.(*StatsD), nil
}

// receive returns the lines that a real server gets, until there are n.
func receive(t *testing.T, server net.PacketConn, n int) (lines []string) {
	t.Helper()
	b := make([]byte, 64<<10)
	if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for len(lines) < n {
		size, _, err := server.ReadFrom(b)
		if err != nil {
			t.Fatalf("%v after %q", err, lines)
		}
		lines = append(lines, strings.Split(strings.TrimSpace(string(b[:size])), "\n")...)
	}
	slices.Sort(lines)
	return lines
}

func TestPackets(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	s, err := load(map[string]string{"statsd_url": "udp://" + server.LocalAddr().String(), "project_name": "proj"})
	if err != nil {
		t.Fatal(err)
	}
	s.Count("cache_hits", 2, nil)
	s.Count("request_summary", 1, []plugins.Label{{Name: "method", Value: "get"}, {Name: "bucket_id", Value: "a:b|c\nd"}, {Name: "status", Value: "200"}})
	s.Time("backend.storage.seconds", 0.25, []plugins.Label{{Name: "method", Value: "get"}})
	s.Observe("request_size", 321, []plugins.Label{{Name: "method", Value: "get"}})
	value := 3.0
	s.Figures(func() []plugins.Figure {
		return []plugins.Figure{{Name: "raft.term", Value: 5}, {Name: "dispatch.failures", Counter: true, Value: value, Labels: []plugins.Label{{Name: "notifier", Value: "n"}}}}
	})
	want := []string{"proj.backend.storage.seconds.method.get:250.000000|ms", "proj.cache_hits:2|c", "proj.dispatch.failures.notifier.n:3|c",
		"proj.raft.term:5|g", "proj.request_size:321|g", "proj.request_summary:method.get.bucket_id.abcd.status.200|s"}
	if got := receive(t, server, len(want)); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		settings map[string]string
		prefix   string
		address  string
		refused  string
	}{
		"default prefix": {map[string]string{"statsd_url": "udp://127.0.0.1:99"}, "kinto", "127.0.0.1:99", ""},
		"no project":     {map[string]string{"statsd_url": "udp://127.0.0.1", "project_name": "", "statsd_prefix": "p"}, "p", "127.0.0.1:8125", ""},
		"no url":         {nil, "", "", "statsd_url"},
		"another scheme": {map[string]string{"statsd_url": "http://127.0.0.1:99"}, "", "", "statsd_url"},
		"no port number": {map[string]string{"statsd_url": "udp://127.0.0.1:x"}, "", "", "statsd_url"},
		"backend":        {map[string]string{"statsd_url": "udp://127.0.0.1:99", "statsd_backend": "my.own"}, "", "", "statsd_backend"},
	} {
		s, err := load(c.settings)
		switch {
		case c.refused != "":
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		default:
			if s.prefix != c.prefix || s.address != c.address {
				t.Errorf("%s: %q, %q", name, s.prefix, s.address)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
