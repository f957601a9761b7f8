package resource

import (
	"strings"
	"testing"
)

// The answers of real Kinto are compared by scripts/conformance; these are the
// rules that a change could break unseen.
func TestCORSOfAnswers(t *testing.T) {
	c, n := newClient(t, map[string]string{"cors_origins": "http://good.example http://*.wild.example", "quinto.expose_revision_header": "true"})
	c.withRecords(1)
	const base = "Backoff, Retry-After, Alert, Content-Length, Content-Type"
	for _, test := range []struct {
		line, origin   string
		status         int
		allow, exposed string
	}{
		{"GET " + records, "http://good.example", 200, "http://good.example", base + ", Last-Modified, ETag, Cache-Control, Expires, Pragma, Next-Page, Quinto-Revision"},
		{"HEAD " + records, "http://a.wild.example", 200, "http://a.wild.example",
			base + ", Last-Modified, ETag, Cache-Control, Expires, Pragma, Next-Page, Total-Objects, Total-Records, Quinto-Revision"},
		{"GET " + records + "/r1", "", 200, "", base + ", Last-Modified, ETag, Cache-Control, Expires, Pragma, Quinto-Revision"},
		{"PUT " + records + "/r1", "http://good.example", 200, "http://good.example", base + ", Quinto-Revision"},
		{"PUT " + records + "/r2", "http://bad.example", 400, "", base + ", Quinto-Revision"},
		{"POST " + records + "/r1", "http://good.example", 405, "http://good.example", ""},
		{"GET /nowhere", "http://a.wild.example", 404, "", base + ", Quinto-Revision"},
		{"GET /nowhere", "http://good.example", 404, "http://good.example", base + ", Quinto-Revision"},
	} {
		r := c.want(test.status, "", "alice", test.line, "", "origin", test.origin)
		if r.Get("Access-Control-Allow-Origin") != test.allow || r.Get("Access-Control-Expose-Headers") != test.exposed {
			t.Errorf("%s from %q: %v", test.line, test.origin, r.Header)
		}
	}
	before := n.proposed
	c.want(400, "http://bad.example not allowed", "alice", "DELETE "+records+"/r1", "", "origin", "http://bad.example")
	c.want(400, "http://bad.example not allowed", "alice", "POST /batch", `{"requests":[]}`, "origin", "http://bad.example")
	if n.proposed != before {
		t.Error("a write from a foreign origin was done")
	}
	c.want(200, `"Access-Control-Allow-Origin":"http://good.example"`, "alice", "POST /batch", `{"requests":[{"path":"/buckets/b"}]}`, "origin", "http://good.example")
}

func TestPreflight(t *testing.T) {
	c, _ := newClient(t, map[string]string{"cors_max_age_seconds": "7"})
	ask := []string{"origin", "http://a.example", "access-control-request-method", "PUT", "access-control-request-headers", "X-A, ETag"}
	r := c.want(200, "null", "", "OPTIONS /buckets/b", "", ask...)
	if r.Get("Access-Control-Allow-Methods") != "GET,HEAD,PUT,PATCH,DELETE,OPTIONS" || r.Get("Access-Control-Max-Age") != "7" ||
		!strings.HasSuffix(r.Get("Access-Control-Allow-Headers"), ",ETag,Cache-Control,Expires,Pragma,X-A") || r.Get("Quinto-Revision") == "" {
		t.Errorf("%v", r.Header)
	}
	c.want(400, "Access-Control-Request-Method in header: Method not allowed", "", "OPTIONS /buckets", "", ask...)
	c.want(400, "this header is mandatory", "", "OPTIONS /batch", "")
	c.want(404, "", "", "OPTIONS /nowhere", "", ask...)
	c, _ = newClient(t, map[string]string{"cors_origins": ""})
	if r := c.want(405, "", "", "OPTIONS /buckets/b", "", ask...); r.Get("Allow") != "GET, HEAD, PUT, PATCH, DELETE" || r.Get("Access-Control-Expose-Headers") != "" {
		t.Errorf("without CORS: %v", r.Header)
	}
	c.want(200, "", "", "GET /", "", "origin", "http://a.example")
}

// What a batch stored about CORS is sent again with the answer.
func TestCORSOfReplayedBatch(t *testing.T) {
	c, _ := newClient(t, map[string]string{"cors_origins": "http://good.example"})
	again := []string{"origin", "http://good.example", "idempotency-key", "k"}
	const batch = `{"requests":[{"method":"PUT","path":"/buckets/b"},{"path":"/buckets/b"},{"path":"/nowhere"}]}`
	first := c.want(200, `"Access-Control-Allow-Origin":"http://good.example"`, "alice", "POST /batch", batch, again...)
	if second := c.want(200, "", "alice", "POST /batch", batch, again...); string(second.Body) != string(first.Body) {
		t.Errorf("%s\n%s", first.Body, second.Body)
	}
}

func TestCaching(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(1)
	c.want(200, "", "alice", "PATCH /buckets/b", `{"permissions":{"read":["system.Everyone"]}}`)
	const none = "no-cache, no-store"
	const never = "max-age=0, must-revalidate, no-cache, no-store"
	for _, test := range []struct {
		settings   map[string]int64
		own        string // cache_expires of the collection
		user, path string
		want       string
	}{
		{nil, "null", "", records, none},
		{map[string]int64{"record": 60}, "null", "", records + "/r1", "max-age=60"},
		{map[string]int64{"record": 60}, "null", "alice", records + "/r1", none},
		{map[string]int64{"record": 60, "b.record": 50}, "null", "", records, "max-age=50"},
		{map[string]int64{"record": 60, "b.record": 50, "b.c.record": 0}, "null", "", records, never},
		{map[string]int64{"record": 60, "b_c_record": 50}, "null", "", records, "max-age=60"},
		{map[string]int64{"b_record": 40, "b_c_record": 50}, "null", "", records, "max-age=50"},
		{map[string]int64{"record": 60}, "70", "", records, "max-age=70"},
		{map[string]int64{"record": 60}, "50", "", records, "max-age=60"},
		{nil, "0", "", records, never},
		{nil, "70", "", "/buckets/b/collections/c", none},
		{map[string]int64{"bucket": 0}, "0", "", "/buckets/b", none},
		{map[string]int64{"bucket": 3}, "0", "", "/buckets/b", "max-age=3"},
	} {
		c.want(200, "", "alice", "PATCH /buckets/b/collections/c", `{"data":{"cache_expires":`+strings.Replace(test.own, "null", "-1", 1)+`}}`)
		if test.own == "null" {
			c.want(200, "", "alice", "PUT /buckets/b/collections/c", `{"data":{}}`)
		}
		cfg := testConfig(t, nil)
		cfg.CacheExpires = test.settings
		at := &client{t, newServiceOf(t, Options{Node: n, Config: cfg})}
		if r := at.want(200, "", test.user, "GET "+test.path, ""); r.Get("Cache-Control") != test.want || (r.Get("Expires") == "") != (test.want == none) {
			t.Errorf("%v, %s, %s: %v", test.settings, test.own, test.path, r.Header)
		}
	}
}

func TestDisabledEndpointsAndGenerators(t *testing.T) {
	cfg := testConfig(t, map[string]string{"record_id_generator": "kinto.core.storage.generators.UUID4"})
	cfg.Disabled = map[string]bool{"object_record_patch": true, "plural_record_head": true, "plural_bucket_get": true}
	c := &client{t, newServiceOf(t, Options{Node: newNode(t), Config: cfg})}
	c.want(201, "", "alice", "PUT /buckets/b", "")
	c.want(201, "", "alice", "PUT /buckets/b/collections/c", "")
	c.want(400, "Invalid object id", "alice", "PUT "+records+"/named", "")
	c.want(201, "", "alice", "PUT "+records+"/472be9ec-26fe-461b-8282-9c4e4b207ab3", "")
	if r := c.want(405, "", "alice", "PATCH "+records+"/472be9ec-26fe-461b-8282-9c4e4b207ab3", "{}"); r.Get("Allow") != "GET, HEAD, PUT, DELETE, OPTIONS" {
		t.Errorf("%v", r.Header)
	}
	if r := c.want(200, "", "alice", "HEAD "+records, ""); r.Get("Total-Objects") != "" || !strings.Contains(string(r.Body), "472be9ec") {
		t.Errorf("HEAD that is GET without its body: %v %s", r.Header, r.Body)
	}
	c.want(405, "", "alice", "GET /buckets", "")
	c.want(200, "", "alice", "HEAD /buckets", "")
	for id, want := range map[string]bool{"472be9ec-26fe-461b-8282-9c4e4b207ab3": true, "472BE9EC-26fe-461b-8282-9c4e4b207ab3": false,
		"472be9ec-26fe-461b-8282-9c4e4b207ab": false, "472be9ec026fe-461b-8282-9c4e4b207ab3": false, "-72be9ec-26fe-461b-8282-9c4e4b207ab3": false, "": false} {
		if ValidUUID(id) != want {
			t.Errorf("%s: not %t", id, want)
		}
	}
}
