package resource

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// checkAnswer is what holds for every answer to anything.
func checkAnswer(t interface{ Fatalf(string, ...any) }, line string, r *Response) {
	if r.Status < 200 || r.Status >= 500 {
		t.Fatalf("%s: %d %s", line, r.Status, r.Body)
	}
	if r.Status != 304 && !json.Valid(r.Body) {
		t.Fatalf("%s: %d with a body that is no JSON: %s", line, r.Status, r.Body)
	}
	if r.Status >= 400 && r.Get("Quinto-Failed-Request") == "" {
		var e struct {
			Code, Errno int
			Error       string
		}
		if json.Unmarshal(r.Body, &e) != nil || e.Code != r.Status || e.Errno == 0 || e.Error == "" {
			t.Fatalf("%s: %d with the error body %s", line, r.Status, r.Body)
		}
	}
}

var pieces = []string{"buckets", "b", "collections", "c", "records", "r1", "groups", "g", "", ".", "..", " ", "\x00", "é", "__proto__", "batch", "%2F", "default",
	strings.Repeat("x", 600), "v1"}

// Every answer to any method, path, query, header and body is below 500 and is
// Kinto's JSON.
func TestGarbageIsAnswered(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(2)
	value := rapid.SampledFrom([]string{"", "null", "true", "1", "-1", "1.5", "1e400", "9223372036854775808", `"x"`, `""`, "[]", "{}", `["x",1,null]`, `{"a":{"b":[1]}}`,
		`"\u0000"`, `"\ud800"`, "NaN", `{"id":"r1"}`, `{"id":5}`, `{"members":["a"]}`, `{"last_modified":-9223372036854775808}`, `{"last_modified":0}`, `{"schema":{"type":[]}}`,
		`{"read":["system.Everyone"]}`, `{"read":null,"x":[]}`, `"/buckets/b"`, `[{"path":"/buckets/b"},{"path":"/","method":"PUT"}]`})
	key := rapid.SampledFrom([]string{"data", "permissions", "requests", "defaults", "transaction", "x", "DATA"})
	rapid.Check(t, func(rt *rapid.T) {
		method := rapid.SampledFrom([]string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", ""}).Draw(rt, "method")
		path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 7).Draw(rt, "path"), "/")
		if rapid.Bool().Draw(rt, "known") {
			path = rapid.SampledFrom([]string{"/batch", "/", "/buckets", "/buckets/b", records, records + "/r1", "/buckets/b/groups/g", "/buckets/b/collections/c"}).Draw(rt, "route")
		}
		body := value.Draw(rt, "body")
		if rapid.Bool().Draw(rt, "object") {
			body = `{"` + key.Draw(rt, "k1") + `":` + value.Draw(rt, "v1") + `,"` + key.Draw(rt, "k2") + `":` + value.Draw(rt, "v2") + `}`
		}
		name := rapid.SampledFrom([]string{"_limit", "_sort", "_token", "_since", "_before", "_fields", "_consistency", "last_modified", "id", "in_id", "like_a", "has_a", "n", "min_n", "contains_a", "not_n"}).Draw(rt, "param")
		query := rapid.SampledFrom([]string{"", name + "=" + value.Draw(rt, "pv"), name + "=%FF", name + "=-n,!x", name + "&&" + name + "=1", "%"}).Draw(rt, "query")
		headers := []string{
			rapid.SampledFrom([]string{"if-match", "if-none-match", "accept", "content-type", "quinto-consistency", "quinto-revision", "idempotency-key", "response-behavior"}).Draw(rt, "header"),
			rapid.SampledFrom([]string{"", "*", `"1"`, `"99999999999999999999"`, "W/\"1\"", "text/html", "application/json", "stale", "session", "application/merge-patch+json", "diff", "k\x00"}).Draw(rt, "hv"),
		}
		user := rapid.SampledFrom([]string{"", "alice", "bob"}).Draw(rt, "user")
		r := request(user, method+" "+path, body, headers...)
		r.Path, r.Query = path, query
		if r.Header["quinto-consistency"] == "session" {
			delete(r.Header, "quinto-revision")
		}
		checkAnswer(rt, method+" "+path+"?"+query+" "+body, c.s.Do(t.Context(), r))
	})
}

func FuzzBody(f *testing.F) {
	c, _ := newClient(f, nil)
	c.withRecords(1)
	f.Add(`{"data":{"a":1},"permissions":{"read":["x"]}}`)
	f.Add(`{"requests":[{"path":"/buckets","method":"POST","body":{"data":{}}}],"defaults":{"headers":{"a":"b"}}}`)
	f.Add(`{"data":{"schema":{"properties":{"a":{"type":"x"}}},"cache_expires":"1"}}`)
	lines := []string{"PUT " + records + "/r1", "PATCH " + records + "/r1", "POST " + records, "PUT /buckets/b/groups/g", "PATCH /buckets/b/collections/c", "POST /batch"}
	f.Fuzz(func(t *testing.T, body string) {
		c := &client{t, c.s}
		for _, line := range lines {
			checkAnswer(t, line, c.do("alice", line, body))
		}
	})
}

func BenchmarkGetRecord(b *testing.B) {
	c, _ := newClient(b, nil)
	c.withRecords(100)
	r := request("alice", "GET "+records+"/r50", "")
	for b.Loop() {
		if c.s.Do(b.Context(), r).Status != 200 {
			b.Fatal("not found")
		}
	}
}

func BenchmarkPageOf100(b *testing.B) {
	c, _ := newClient(b, nil)
	c.withRecords(300)
	r := request("alice", "GET "+records+"?_limit=100", "")
	for b.Loop() {
		if c.s.Do(b.Context(), r).Status != 200 {
			b.Fatal("not found")
		}
	}
}

func BenchmarkPlanPut(b *testing.B) {
	c, _ := newClient(b, nil)
	c.withRecords(1)
	r := request("alice", "PUT "+records+"/r1", `{"data":{"name":"x","n":1}}`)
	for b.Loop() {
		if c.s.Do(b.Context(), r).Status != 200 {
			b.Fatal("refused")
		}
	}
}
