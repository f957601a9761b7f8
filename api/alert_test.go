package api

import (
	"net/http"
	"testing"
	"time"
)

func TestEndOfService(t *testing.T) {
	s := start(t, func(o *Options) {
		o.Config.EOS.Date, o.Config.EOS.At, o.Config.EOS.Message = "2099-01-02", time.Now().Add(time.Hour), `so "long"`
	})
	const soft = `{"code":"soft-eol","message":"so \"long\"","url":"https://kinto.readthedocs.io/"}`
	for path, status := range map[string]int{"/v1/buckets": 200, "/v1/__lbheartbeat__": 200, "/v2/": 404, "/": 307} {
		if a := s.send(t, "GET", path, nil, ""); a.StatusCode != status || a.Header.Get("Alert") != soft {
			t.Errorf("%s: %d %v", path, a.StatusCode, a.Header)
		}
	}
	s = start(t, func(o *Options) { o.Config.EOS.Date, o.Config.EOS.At = "2001-01-02", time.Unix(1, 0) })
	const hard = `{"code":"hard-eol","message":null,"url":"https://kinto.readthedocs.io/"}`
	for _, path := range []string{"/v1/buckets", "/v1/__heartbeat__", "/v2/", "/"} {
		a := s.send(t, "PUT", path, http.Header{"Origin": {"http://a"}}, "")
		const body = `{"code":410,"errno":202,"error":"Gone","message":"The service you are trying to connect no longer exists at this location."}`
		if a.StatusCode != http.StatusGone || string(a.body) != body || a.Header.Get("Alert") != hard || a.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %v", path, a.Header)
		}
	}
	if a := s.send(t, "GET", "/v1"+ClusterPath, nil, ""); a.StatusCode == http.StatusGone {
		t.Error("who operates the cluster must still see it")
	}
	if n := len(s.service.requests()); n != 0 {
		t.Errorf("the service was asked %d times", n)
	}
}

func TestRedirectSettings(t *testing.T) {
	s := start(t, func(o *Options) {
		o.Config.Redirects.Version, o.Config.Redirects.SlashSeconds = false, 0
		o.Config.CORS.Origins = []string{"http://a.example"}
	})
	checkError(t, s.send(t, "GET", "/buckets", nil, ""), 404, 116)
	a := s.send(t, "GET", "/v1/buckets/", http.Header{"Origin": {"http://a.example"}}, "")
	if a.StatusCode != http.StatusTemporaryRedirect || a.Header.Get("Pragma") != "no-cache" || a.Header.Get("Last-Modified") == "" || a.Header.Get("Access-Control-Allow-Origin") != "http://a.example" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	s = start(t, func(o *Options) { o.Config.Redirects.Slash, o.Config.Redirects.VersionSeconds = false, 5 })
	if a := s.send(t, "GET", "/buckets", nil, ""); a.StatusCode != http.StatusTemporaryRedirect || a.Header.Get("Cache-Control") != "max-age=5" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	checkError(t, s.send(t, "GET", "/v1", nil, ""), 404, 111)
	s.send(t, "GET", "/v1/buckets/", nil, "")
	if r := s.service.requests(); len(r) != 1 || r[0].Path != "/buckets/" {
		t.Errorf("%d requests reached the service", len(r))
	}
}

func TestCORSAtTheEdge(t *testing.T) {
	s := start(t, func(o *Options) {
		o.Config.CORS.Origins, o.Config.Project.VersionNeedsFile, o.Config.Project.VersionJSONPath = []string{"http://*.example"}, true, "/nonexistent"
	})
	from := func(origin string, more ...string) http.Header {
		h := http.Header{"Origin": {origin}}
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	checkError(t, s.send(t, "GET", "/v1/__version__", nil, ""), 500, 999)
	if a := s.send(t, "GET", "/v1/__lbheartbeat__", from("http://a.other"), ""); a.StatusCode != http.StatusBadRequest || a.Header.Get("Access-Control-Expose-Headers") == "" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	if a := s.send(t, "GET", "/v1/contribute.json", from("http://a.example"), ""); a.StatusCode != http.StatusOK || a.Header.Get("Access-Control-Allow-Origin") != "http://a.example" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	a := s.send(t, "OPTIONS", "/v1/__heartbeat__", from("http://a.example", "Access-Control-Request-Method", "GET"), "")
	if a.StatusCode != http.StatusOK || a.Header.Get("Access-Control-Allow-Methods") != "GET,HEAD,OPTIONS" || string(a.body) != "null" {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
	a = s.send(t, "GET", "/v1/buckets/%ff", from("http://a.example"), "")
	if a.StatusCode != http.StatusBadRequest || a.Header.Get("Access-Control-Expose-Headers") == "" || a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v: where no endpoint is, there are no patterns", a.StatusCode, a.Header)
	}
}
