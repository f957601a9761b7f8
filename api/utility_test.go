package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"quinto/api/resource"
)

func TestHeartbeat(t *testing.T) {
	s := start(t, nil)
	a := s.send(t, "GET", "/v1/__heartbeat__", nil, "")
	want := `{"storage":true,"permission":true,"cache":true,"ready":true,"writable":true,"leader":true,"revision":0,"role":"leader","lag":0}`
	if a.StatusCode != http.StatusOK || string(a.body) != want {
		t.Errorf("%d %s, want %s", a.StatusCode, a.body, want)
	}
	s.node.full = errors.New("disk full")
	if a := s.send(t, "GET", "/v1/__heartbeat__", nil, ""); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("full disk: %d %s", a.StatusCode, a.body)
	}
	s.node.full, s.node.broken = nil, errors.New("no leader")
	a = s.send(t, "GET", "/v1/__heartbeat__", nil, "")
	want = `{"storage":false,"permission":false,"cache":true,"ready":false,"writable":true,"leader":false,"revision":0,"role":"leader","lag":0}`
	if a.StatusCode != http.StatusServiceUnavailable || string(a.body) != want {
		t.Errorf("%d %s, want %s", a.StatusCode, a.body, want)
	}
	if a := s.send(t, "GET", "/v1/__lbheartbeat__", nil, ""); a.StatusCode != http.StatusOK || string(a.body) != "{}" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestVersion(t *testing.T) {
	s := start(t, nil)
	var v Version
	if a := s.send(t, "GET", "/v1/__version__", nil, ""); json.Unmarshal(a.body, &v) != nil || v.Name != "quinto" || v.Version != "1.2.3" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	file := filepath.Join(t.TempDir(), "version.json")
	if err := os.WriteFile(file, []byte(`{ "name": "mine" }`), 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, func(o *Options) { o.Config.Project.VersionJSONPath = file })
	if a := s.send(t, "GET", "/v1/__version__", nil, ""); string(a.body) != `{"name":"mine"}` {
		t.Errorf("the file does not win: %s", a.body)
	}
}

func TestClusterStatus(t *testing.T) {
	s := start(t, func(o *Options) { o.Config.StatusPrincipals = []string{"basicauth:admin"} })
	a := s.send(t, "GET", "/v1/__cluster__", nil, "")
	want := `{"leader":"n1","term":7,"revision":3,"members":[{"name":"n1","role":"leader","suffrage":"voter","http":"","cluster":"","revision":3,"lag":0,"ready":true}]}`
	if a.StatusCode != http.StatusOK || string(a.body) != want {
		t.Errorf("%d %s, want %s", a.StatusCode, a.body, want)
	}
	var hash NodeHash
	a = s.send(t, "GET", "/v1/__cluster__/hash?revision=0", nil, "")
	if err := json.Unmarshal(a.body, &hash); err != nil || a.StatusCode != http.StatusOK || hash.Name != "n1" || len(hash.State) != 64 || len(hash.Full) != 64 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	checkError(t, s.send(t, "GET", "/v1/__cluster__/hash?revision=x", nil, ""), 400, 107)
}

// A proxy on the same machine speaks for clients that are not.
func TestClusterStatusIsGuarded(t *testing.T) {
	s := start(t, func(o *Options) { o.Config.StatusPrincipals = []string{"basicauth:admin"} })
	proxied := http.Header{"X-Forwarded-For": {"203.0.113.9"}}
	s.service.answer = func(_ context.Context, r *resource.Request) *resource.Response {
		if r.Path != "/" || r.Method != http.MethodGet {
			t.Errorf("%s %s", r.Method, r.Path)
		}
		if r.Header["authorization"] == "yes" {
			return &resource.Response{Status: 200, Body: []byte(`{"user":{"id":"basicauth:admin","principals":["basicauth:admin","system.Everyone"]}}`)}
		}
		return &resource.Response{Status: 200, Body: []byte(`{"project_name":"kinto"}`)}
	}
	for _, path := range []string{ClusterPath, HashPath} {
		checkError(t, s.send(t, "GET", prefix+path, proxied, ""), 403, 121)
		checkError(t, s.send(t, "GET", prefix+path, http.Header{"Forwarded": {"for=203.0.113.9"}}, ""), 403, 121)
		proxied.Set("Authorization", "yes")
		if a := s.send(t, "GET", prefix+path, proxied, ""); a.StatusCode != http.StatusOK {
			t.Errorf("an allowed principal: %d %s", a.StatusCode, a.body)
		}
		proxied.Del("Authorization")
	}
}

func TestBatchesReachTheUtilities(t *testing.T) {
	s := start(t, nil)
	for path, want := range map[string]int{"/__lbheartbeat__": 200, "/__heartbeat__": 200, "/__version__": 200, ClusterPath: 0, HashPath: 0, "/nope": 0} {
		got := s.BatchPart(t.Context(), &resource.Request{Method: "GET", Path: path, Client: "127.0.0.1"})
		if (got == nil) != (want == 0) || got != nil && got.Status != want {
			t.Errorf("%s: %+v", path, got)
		}
	}
}
