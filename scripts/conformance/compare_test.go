package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// exchange is one request with the answer that real Kinto 26.5.0 gave to it. In the texts, BASE, ID, T1 < T2 < T3 and N stand for
// what differs from server to server and from run to run.
type exchange struct {
	req    Request
	status int
	header string
	body   string
}

const recordedNow = 1795318000000

func recorded() []exchange {
	return []exchange{
		{Request{Label: "1", Method: "PUT", Target: "/buckets/b/collections/c/records/r1"}, 201,
			"ETag: \"T1\"\nLast-Modified: D1\nContent-Length: 164\nContent-Type: application/json\nX-Content-Type-Options: nosniff",
			`{"permissions":{"read":["basicauth:x","system.Everyone"],"write":["basicauth:a"]},"data":{"n":1.0,"s":"1","id":"r1","last_modified":T1}}`},
		{Request{Label: "2", Method: "POST", Target: "/buckets/b/collections/c/records"}, 201,
			"ETag: \"T2\"\nLast-Modified: D2\nContent-Type: application/json",
			`{"permissions":{"write":["basicauth:a"]},"data":{"l":["x","y"],"id":"ID","last_modified":T2}}`},
		{Request{Label: "3", Method: "GET", Target: "/buckets/b/collections/c/records?_limit=2"}, 200,
			"ETag: \"T2\"\nLast-Modified: D2\nCache-Control: no-cache, no-store\nNext-Page: BASE/v1/buckets/b/collections/c/records?_limit=2&_token=N",
			`{"data":[{"l":["x","y"],"id":"ID","last_modified":T2},{"n":1.0,"s":"1","id":"r1","last_modified":T1}]}`},
		{Request{Label: "4", Method: "HEAD", Target: "/buckets/b/collections/c/records"}, 200,
			"ETag: \"T2\"\nLast-Modified: D2\nContent-Length: 11\nTotal-Objects: 2\nTotal-Records: 2", ``},
		{Request{Label: "5", Method: "PUT", Target: "/buckets/b/collections/c/records/r1"}, 412,
			"ETag: \"T1\"\nLast-Modified: D1\nContent-Type: application/json",
			`{"code":412,"errno":114,"error":"Precondition Failed","message":"Resource was modified meanwhile","details":{"existing":{"n":1.0,"id":"r1","last_modified":T1}}}`},
		{Request{Label: "6", Method: "POST", Target: "/batch"}, 200, "Content-Type: application/json",
			`{"responses":[{"path":"/v1/buckets/b/collections/c/records/ID","status":200,"headers":{"ETag":"\"T3\"","Last-Modified":"D3","Content-Length":"20","Date":"N"},"body":{"data":{"id":"ID","last_modified":T3}}}]}`},
	}
}

// variant is what differs between two servers that behave the same.
type variant struct {
	base, id, nonce string
	times           [3]int64
}

var (
	kintoSide  = variant{"http://127.0.0.1:21001", "677a2fa2-9bfd-419c-9f86-b354410a0bd6", "eyJh", [3]int64{recordedNow + 1000, recordedNow + 2500, recordedNow + 9000}}
	targetSide = variant{"http://127.0.0.1:21002", "0aa3b1c4-1b2d-4e5f-8a9b-0c1d2e3f4a5b", "Zm9v", [3]int64{recordedNow + 1003, recordedNow + 1004, recordedNow + 4100}}
)

func (v variant) fill(text string) string {
	pairs := []string{"BASE", v.base, "ID", v.id, "_token=N", "_token=" + v.nonce, `"N"`, `"` + v.nonce + `"`}
	for i, at := range v.times {
		pairs = append(pairs, fmt.Sprintf("T%d", i+1), fmt.Sprint(at), fmt.Sprintf("D%d", i+1), httpTime(at))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func (v variant) answer(e exchange) Answer {
	a := Answer{Status: e.status, Header: http.Header{}, Body: []byte(v.fill(e.body))}
	for _, line := range strings.Split(v.fill(e.header), "\n") {
		name, value, _ := strings.Cut(line, ": ")
		a.Header.Set(name, value)
	}
	return a
}

// compareAll compares two recordings request by request and gives "label field" of every difference.
func compareAll(kinto, target []exchange, other variant) []string {
	rel := newRelations("/buckets/b/collections/c/records/r1", recordedNow, kintoSide.base, other.base)
	var found []string
	for i := range kinto {
		for _, d := range compareAnswers(rel, &kinto[i].req, kintoSide.answer(kinto[i]), other.answer(target[i]), false) {
			found = append(found, kinto[i].req.Label+" "+d.Field)
		}
	}
	return found
}

func TestEqualAnswersAreEqualByRelation(t *testing.T) {
	if found := compareAll(recorded(), recorded(), targetSide); len(found) != 0 {
		t.Fatalf("differences between equal servers: %v", found)
	}
}

// plantedDifference is one change of the target's answers that must be reported as a difference of this field.
type plantedDifference struct {
	name  string
	plant func([]exchange, *variant)
	want  string
}

func plantedDifferences() []plantedDifference {
	body := func(i int, old, new string) func([]exchange, *variant) {
		return func(e []exchange, _ *variant) {
			if !strings.Contains(e[i].body, old) {
				panic("not in the recorded body: " + old)
			}
			e[i].body = strings.Replace(e[i].body, old, new, 1)
		}
	}
	header := func(i int, old, new string) func([]exchange, *variant) {
		return func(e []exchange, _ *variant) {
			if !strings.Contains(e[i].header, old) {
				panic("not in the recorded header: " + old)
			}
			e[i].header = strings.Replace(e[i].header, old, new, 1)
		}
	}
	return []plantedDifference{
		{"status", func(e []exchange, _ *variant) { e[0].status = 200 }, "1 status"},
		{"errno", body(4, `"errno":114`, `"errno":115`), "5 errno"},
		{"header missing", header(0, "\nX-Content-Type-Options: nosniff", ""), "1 header:X-Content-Type-Options"},
		{"header added", header(1, "Content-Type", "Pragma: no-cache\nContent-Type"), "2 header:Pragma"},
		{"header value", header(2, "no-store", "no-cache"), "3 header:Cache-Control"},
		{"content type", header(1, "application/json", "application/json; charset=utf-8"), "2 header:Content-Type"},
		{"order of a list of objects", func(e []exchange, _ *variant) {
			e[2].body = `{"data":[{"n":1.0,"s":"1","id":"r1","last_modified":T1},{"l":["x","y"],"id":"ID","last_modified":T2}]}`
		}, "3 body.data[0].id"},
		{"order of a list of texts", body(1, `["x","y"]`, `["y","x"]`), "2 body.data.l[0]"},
		{"length of a list", body(2, `{"l":["x","y"],"id":"ID","last_modified":T2},`, ``), "3 body.data"},
		{"ETag equal where it must rise", func(_ []exchange, v *variant) { v.times[1] = v.times[0] }, "2 body.data.last_modified"},
		{"ETag falls where it must rise", func(_ []exchange, v *variant) { v.times[2] = v.times[0] - 1 }, "6 body.responses[0].body.data.last_modified"},
		{"ETag rises where it must be equal", header(3, `"T2"`, `"T3"`), "4 header:ETag"},
		{"ETag of another form", header(0, `"T1"`, `T1`), "1 header:ETag"},
		{"time of the body is not that of the ETag", body(0, `"last_modified":T1`, `"last_modified":T2`), "1 header:ETag"},
		{"Last-Modified is not the instant of the ETag", header(1, "D2", "D3"), "2 header:Last-Modified"},
		{"principal of an ACL", body(0, "system.Everyone", "system.Authenticated"), "1 body.permissions.read[1]"},
		{"permission of an ACL", body(0, `"read"`, `"record:create"`), "1 body.permissions.read"},
		{"ACL shown or not", body(1, `{"write":["basicauth:a"]}`, `{}`), "2 body.permissions.write"},
		{"body key missing", body(0, `"s":"1",`, ``), "1 body.data.s"},
		{"body key added", body(0, `"s":"1",`, `"s":"1","t":null,`), "1 body.data.t"},
		{"form of a number", body(0, `"n":1.0`, `"n":1`), "1 body.data.n"},
		{"string for a number", body(0, `"n":1.0`, `"n":"1.0"`), "1 body.data.n"},
		{"number for a string", body(0, `"s":"1"`, `"s":1`), "1 body.data.s"},
		{"null for an object", body(4, `{"existing":{"n":1.0,"id":"r1","last_modified":T1}}`, `null`), "5 body.details"},
		{"Next-Page missing", header(2, "Next-Page", "X-Next-Page"), "3 header:Next-Page"},
		{"Next-Page of another limit", header(2, "_limit=2", "_limit=3"), "3 header:Next-Page"},
		{"Next-Page of another server", header(2, "BASE", "http://example.org"), "3 header:Next-Page"},
		{"Total-Objects", header(3, "Total-Objects: 2", "Total-Objects: 3"), "4 header:Total-Objects"},
		{"length of a HEAD", header(3, "Content-Length: 11", "Content-Length: 12"), "4 header:Content-Length"},
		{"length of an equal body", header(0, "Content-Length: 164", "Content-Length: 165"), "1 header:Content-Length"},
		{"message", body(4, "modified meanwhile", "changed"), "5 body.message"},
		{"another generated id", body(2, `"id":"ID"`, `"id":"11111111-1b2d-4e5f-8a9b-0c1d2e3f4a5b"`), "3 body.data[0].id"},
		{"generated id of another form", func(_ []exchange, v *variant) { v.id = "aB3_x-9q" }, "2 body.data.id"},
		{"id that the scenario chose", body(0, `"id":"r1"`, `"id":"r2"`), "1 body.data.id"},
		{"status inside a batch", body(5, `"status":200`, `"status":201`), "6 body.responses[0].status"},
		{"header inside a batch", body(5, `"Content-Length":"20"`, `"Content-Length":"21"`), "6 body.responses[0].headers.Content-Length"},
		{"ETag inside a batch", body(5, `"ETag":"\"T3\"",`, ``), "6 body.responses[0].headers.ETag"},
		{"no JSON at all", body(4, `{"code":412`, `<html>{"code":412`), "5 body"},
	}
}

func TestEveryPlantedDifferenceIsReported(t *testing.T) {
	for _, tt := range plantedDifferences() {
		t.Run(tt.name, func(t *testing.T) {
			planted, other := recorded(), targetSide
			tt.plant(planted, &other)
			found := compareAll(recorded(), planted, other)
			for _, field := range found {
				if field == tt.want {
					return
				}
			}
			t.Errorf("not reported: want %q, got %v", tt.want, found)
		})
	}
}

func TestQuintoRevisionIsWantedOfQuinto(t *testing.T) {
	e := recorded()[0]
	rel := newRelations("", recordedNow, kintoSide.base, targetSide.base)
	with := targetSide.answer(e)
	with.Header.Set("Quinto-Revision", "7")
	if diffs := compareAnswers(rel, &e.req, kintoSide.answer(e), with, true); len(diffs) != 0 {
		t.Errorf("with the header: %v", diffs)
	}
	diffs := compareAnswers(rel, &e.req, kintoSide.answer(e), targetSide.answer(e), true)
	if len(diffs) != 1 || diffs[0].Field != "header:Quinto-Revision" {
		t.Errorf("without the header: %v", diffs)
	}
}

func TestDirectivesLoosenOnlyWhatTheyName(t *testing.T) {
	compare := func(req Request, a, b string) int {
		rel := newRelations("", recordedNow, "http://k", "http://q")
		answer := func(body string) Answer { return Answer{Status: 200, Header: http.Header{}, Body: []byte(body)} }
		req.Label, req.Target = "1", "/__heartbeat__"
		return len(compareAnswers(rel, &req, answer(a), answer(b), false))
	}
	for _, tt := range []struct {
		name string
		req  Request
		a, b string
		want int
	}{
		{"extra booleans and names", Request{IsExt: true, Extra: []string{"revision"}}, `{"a":true}`, `{"a":true,"raft":true,"revision":5}`, 0},
		{"extra of another kind", Request{IsExt: true}, `{"a":true}`, `{"a":true,"revision":5}`, 1},
		{"extra does not excuse what Kinto has", Request{IsExt: true}, `{"a":true}`, `{"b":true}`, 1},
		{"extra does not excuse other values", Request{IsExt: true}, `{"a":true}`, `{"a":false}`, 1},
		{"typed", Request{Typed: []string{"body.a"}}, `{"a":"x"}`, `{"a":"y"}`, 0},
		{"typed of another type", Request{Typed: []string{"body.a"}}, `{"a":"x"}`, `{"a":1}`, 1},
		{"any", Request{Any: []string{"body.a"}}, `{"a":null}`, `{"a":{"b":1}}`, 0},
		{"any that is missing", Request{Any: []string{"body.a"}}, `{"a":null}`, `{}`, 1},
		{"words", Request{Words: true}, `{"m":"Invalid JSON: at 5"}`, `{"m":"Invalid JSON: here"}`, 0},
		{"words of another message", Request{Words: true}, `{"m":"Invalid JSON: at 5"}`, `{"m":"Bad JSON: at 5"}`, 1},
		{"escapes do not count", Request{}, `{"m":"\u00E9"}`, `{"m":"é"}`, 0},
		{"raw escapes count", Request{Raw: true}, `{"m":"\u00E9"}`, `{"m":"é"}`, 1},
		{"raw escapes of another case", Request{Raw: true}, `{"m":"\u00E9"}`, `{"m":"\u00e9"}`, 1},
		{"sets that Python prints", Request{}, `{"m":"one of ['a', 'b']"}`, `{"m":"one of ['b', 'a']"}`, 0},
		{"the order of principals in an ACL", Request{}, `{"permissions":{"read":["a","b"]}}`, `{"permissions":{"read":["b","a"]}}`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := compare(tt.req, tt.a, tt.b); got != tt.want {
				t.Errorf("got %d differences, want %d", got, tt.want)
			}
		})
	}
}

func TestTwoListsOfOneBatchHaveTwoClocks(t *testing.T) {
	rel := newRelations("", recordedNow, "http://k", "http://q")
	first := place{request: "1", field: "a", list: "buckets"}
	rel.relate(first, recordedNow, recordedNow)
	if _, _, ok := rel.relate(place{request: "1", field: "b", list: "buckets/b/collections"}, recordedNow+3, recordedNow); !ok {
		t.Error("another list in the same request has no order to the first")
	}
	if _, _, ok := rel.relate(place{request: "1", field: "c", list: "buckets"}, recordedNow+4, recordedNow-1); ok {
		t.Error("the same list must rise on both sides")
	}
	if _, _, ok := rel.relate(place{request: "2", field: "d", list: "buckets/b/groups"}, recordedNow+5, recordedNow); ok {
		t.Error("another request is later on both sides")
	}
}

func TestTimesThatTheScenarioChoseAreComparedExactly(t *testing.T) {
	rel := newRelations(`{"last_modified": 1795318000123}`, recordedNow, "http://k", "http://q")
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"1500000000000", "1500000000000", true},
		{"1500000000000", "1500000000001", false},
		{"4102444800001", "4102444800001", true},
		{"4102444800001", "4102444800002", false},
		{"1795318000123", "1795318000124", false},
		{"1795318000200", "1795318000300", true},
	} {
		if _, _, ok := rel.same(place{request: "1"}, tt.a, tt.b); ok != tt.want {
			t.Errorf("same(%s, %s) = %v, want %v", tt.a, tt.b, ok, tt.want)
		}
	}
}

func TestLastModifiedIsTheInstantOfTheETag(t *testing.T) {
	for _, tt := range []struct{ date, etag, want string }{
		{"Sun, 22 Nov 2026 02:59:11 GMT", `"1795316351485"`, "‹instant of ETag›"},
		{"Sun, 22 Nov 2026 02:59:12 GMT", `"1795316351485"`, "Sun, 22 Nov 2026 02:59:12 GMT"},
		{"Thu, 01 Jan 1970 00:00:00 GMT", `"0"`, "‹instant of ETag›"},
		{"Sun, 22 Nov 2026 02:59:11 GMT", ``, "Sun, 22 Nov 2026 02:59:11 GMT"},
	} {
		if got := httpDate(tt.date, tt.etag); got != tt.want {
			t.Errorf("httpDate(%q, %q) = %q, want %q", tt.date, tt.etag, got, tt.want)
		}
	}
}
