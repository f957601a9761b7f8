package resource

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"quinto/fsm"
	"quinto/plugins"
)

// client sends requests to a Service in the short form of the tests:
// "METHOD path[?query]", headers as "name: value" pairs.
type client struct {
	t testing.TB
	s *Service
}

func request(user, line, body string, headers ...string) *Request {
	method, target, _ := strings.Cut(line, " ")
	path, query, _ := strings.Cut(target, "?")
	decoded, err := url.PathUnescape(path)
	if err != nil {
		decoded = path
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	r := &Request{ID: id, Method: method, Path: decoded, Query: query, Header: Header{}, Body: []byte(body),
		Scheme: "http", Host: "example.org", Prefix: "/v1"}
	if user != "" {
		r.Header["authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"))
	}
	if body != "" {
		r.Header["content-type"] = "application/json"
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header[headers[i]] = headers[i+1]
	}
	return r
}

func (c *client) do(user, line, body string, headers ...string) *Response {
	c.t.Helper()
	return c.s.Do(context.Background(), request(user, line, body, headers...))
}

// want sends a request and fails unless the answer has the status and, if
// given, its body contains text.
func (c *client) want(status int, text, user, line, body string, headers ...string) *Response {
	c.t.Helper()
	r := c.do(user, line, body, headers...)
	if r.Status != status || !strings.Contains(string(r.Body), text) {
		c.t.Errorf("%s %s: got %d %s\nwant %d with %s", line, body, r.Status, r.Body, status, text)
	}
	return r
}

func newClient(t testing.TB, flags map[string]string, hooks ...plugins.BeforeCommit) (*client, *loneNode) {
	n := newNode(t)
	return &client{t, newService(t, n, flags, hooks...)}, n
}

const records = "/buckets/b/collections/c/records"

// withRecords makes a bucket and a collection of alice with records r1 to rn,
// each with its number in n.
func (c *client) withRecords(n int) {
	c.t.Helper()
	c.want(201, "", "alice", "PUT /buckets/b", "")
	c.want(201, "", "alice", "PUT /buckets/b/collections/c", "")
	for i := 1; i <= n; i++ {
		c.want(201, "", "alice", fmt.Sprintf("PUT %s/r%d", records, i), fmt.Sprintf(`{"data":{"n":%d}}`, i))
	}
}

func ids(t testing.TB, body []byte) string {
	t.Helper()
	var list struct{ Data []struct{ ID string } }
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	out := make([]string, len(list.Data))
	for i := range list.Data {
		out[i] = list.Data[i].ID
	}
	return strings.Join(out, " ")
}

// Texts were taken from Kinto 26.5; the whole is compared with it by
// scripts/conformance.
func TestAnswersAreKintos(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(2)
	cases := []struct {
		status           int
		text, user, line string
		body             string
		headers          []string
	}{
		{404, `{"code":404,"errno":111,"error":"Not Found","message":"The resource you are looking for could not be found."}`, "", "GET /nope", "", nil},
		{405, `"errno":115`, "", "PATCH /buckets", "", nil},
		{401, `{"code":401,"errno":104,"error":"Unauthorized","message":"Please authenticate yourself to use this endpoint."}`, "", "GET /buckets/b", "", nil},
		{403, `{"code":403,"errno":121,"error":"Forbidden","message":"This user cannot access this resource."}`, "bob", "GET /buckets/b", "", nil},
		{403, "", "bob", "GET /buckets/none", "", nil},
		{404, `{"code":404,"errno":110,"error":"Not Found","details":{"id":"none","resource_name":"record"}}`, "alice", "GET " + records + "/none", "", nil},
		{404, `"details":{"id":"zz","resource_name":"collection"}`, "", "PUT /buckets/b/collections/zz/records/r", "{}", nil},
		{400, `{"location":"path","name":null,"description":"Invalid object id"}`, "alice", "GET " + records + "/%20", "", nil},
		{400, `"message":"path: Invalid object id"`, "", "POST " + records, `{"data":{"id":""}}`, nil},
		{400, `"message":"Object id does not match existing object"`, "alice", "PUT " + records + "/r1", `{"data":{"id":"x"}}`, nil},
		{400, `data in body: \"None\" is not a mapping type: Does not implement dict-like functionality.`, "alice", "PUT " + records + "/r1", `{"data":null}`, nil},
		{400, `Unrecognized keys in mapping: \"{'foo': 1, 'bar': {'a': 'x'}}\"`, "alice", "PUT " + records + "/r1", `{"foo":1,"bar":{"a":"x"}}`, nil},
		{400, `"description":"Required"}]`, "alice", "PUT " + records + "/r1", `{bad`, nil},
		{400, `permissions.read.0 in body: 1 is not a string: {'': ''}`, "alice", "PUT " + records + "/r1", `{"permissions":{"read":[1]}}`, nil},
		{400, `permissions in body: \"foo\" is not one of read, write`, "alice", "PUT " + records + "/r1", `{"permissions":{"foo":[]}}`, nil},
		{400, `data.members.0 in body: 'system.Everyone' is not a valid user ID.`, "alice", "PUT /buckets/b/groups/g", `{"data":{"members":["system.Everyone"]}}`, nil},
		{400, `data.schema in body: type'zz' is not valid under any of the given schemas`, "alice", "PUT /buckets/b/collections/d", `{"data":{"schema":{"type":"zz"}}}`, nil},
		{400, `properties[] is not of type 'object'`, "alice", "PUT /buckets/b/collections/d", `{"data":{"schema":{"type":5,"properties":[]}}}`, nil},
		{400, `Provide at least one of data or permissions`, "alice", "PATCH " + records + "/r1", `{}`, nil},
		{400, `If-Match in header: The value should be integer between double quotes.`, "alice", "GET " + records + "/r1", "", []string{"if-match", `W/"1"`}},
		{400, `last_modified in querystring: \"1x\" is not a number`, "alice", "DELETE " + records + "/r1?last_modified=1x", "", nil},
		{400, `is more than 24 hours in the future`, "alice", "PUT " + records + "/r9", `{"data":{"last_modified":9223372036854775808}}`, nil},
		{412, `"details":{"existing":{"n":1,"id":"r1","last_modified":`, "alice", "PUT " + records + "/r1", `{}`, []string{"if-none-match", "*"}},
		{412, `"message":"Resource was modified meanwhile"}`, "alice", "POST " + records, `{}`, []string{"if-match", "*"}},
		{406, `Accept header should be one of ['application/json']`, "alice", "GET " + records, "", []string{"accept", "text/html"}},
		{200, ``, "alice", "GET " + records, "", []string{"accept", "text/html, */*;q=0.1"}},
		{415, `Content-Type header should be one of ['application/json']`, "", "PUT " + records + "/r1", "{}", []string{"content-type", "text/plain"}},
		{400, `was` + `received. Please make sure your requests are encoded in UTF-8: x=%FF`, "", "GET /buckets?x=%FF", "", nil},
		{400, `_token has invalid content`, "alice", "GET " + records + "?_token=x", "", nil},
		{400, `requests in body: Required`, "", "POST /batch", "", nil},
		{400, `requests.0.path in body: Required`, "", "POST /batch", `{"requests":[{}]}`, nil},
		{400, `Recursive call on /batch endpoint is forbidden.`, "", "POST /batch", `{"requests":[{"path":"/v1/batch/"}]}`, nil},
		{400, `{"location":"header","name":"Quinto-Consistency"`, "", "GET /buckets", "", []string{"quinto-consistency", "maybe"}},
	}
	for _, tc := range cases {
		r := c.want(tc.status, tc.text, tc.user, tc.line, tc.body, tc.headers...)
		if r.Get("Quinto-Revision") == "" {
			t.Errorf("%s: no Quinto-Revision", tc.line)
		}
	}
}

func TestWritesAreSeen(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(1)
	put := c.want(200, `"data":{"a":[1,2.0,100000.0],"id":"r1","last_modified":`, "alice", "PUT "+records+"/r1", `{"data": {"a": [1, 2.0, 1e5]}}`)
	c.want(200, `{"permissions":{"write":["basicauth:`, "alice", "GET "+records+"/r1", "")
	c.want(304, "", "alice", "GET "+records+"/r1", "", "if-none-match", put.Get("ETag"))
	c.want(200, `"data":{"a":null,"b":1,"id":"r1"`, "alice", "PATCH "+records+"/r1", `{"data":{"a":null,"b":1}}`)
	c.want(412, "", "alice", "DELETE "+records+"/r1", "", "if-match", put.Get("ETag"))
	c.want(200, `"deleted":true}`, "alice", "DELETE "+records+"/r1", "")
	c.want(200, `{"data":[{"id":"r1","last_modified":`, "alice", "GET "+records+"?_since=0", "")
	c.want(200, `{"data":[]}`, "alice", "GET "+records, "")
	// Deleting the bucket takes all; what is made again starts empty.
	c.want(200, "", "alice", "DELETE /buckets/b", "")
	c.withRecords(0)
	c.want(200, `{"data":[]}`, "alice", "GET "+records+"?_since=0", "")
}

func TestPermissionsOfListsAndGroups(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(3)
	bob := "basicauth:" + strings.TrimPrefix(userOf(t, c, "bob"), "basicauth:")
	c.want(200, "", "alice", "PUT "+records+"/r2", `{"permissions":{"read":["`+bob+`"]}}`)
	shared := c.want(200, "", "bob", "GET "+records, "")
	if got := ids(t, shared.Body); got != "r2" {
		t.Errorf("bob sees %q", got)
	}
	if h := c.do("bob", "HEAD "+records, ""); h.Get("Total-Objects") != "1" {
		t.Errorf("bob counts %s", h.Get("Total-Objects"))
	}
	c.want(403, "", "bob", "DELETE "+records, "")
	c.want(200, `"permissions":{},`, "bob", "GET "+records+"/r2", "")
	// A group gives its principal at once and takes it back at once.
	c.want(201, "", "alice", "PUT /buckets/b/groups/g", `{"data":{"members":["`+bob+`"]}}`)
	c.want(200, "", "alice", "PATCH /buckets/b/collections/c", `{"permissions":{"read":["/buckets/b/groups/g"]}}`)
	c.want(200, `"id":"r1"`, "bob", "GET "+records, "")
	c.want(200, "", "alice", "DELETE /buckets/b/groups/g", "")
	if got := ids(t, c.want(200, "", "bob", "GET "+records, "").Body); got != "r2" {
		t.Errorf("bob sees %q after the group is gone", got)
	}
	// Who may only create gets an empty list, and no content of what exists.
	c.want(200, "", "alice", "PATCH /buckets/b/collections/c", `{"permissions":{"record:create":["`+userOf(t, c, "carol")+`"]}}`)
	c.want(200, `{"data":[]}`, "carol", "GET "+records, "")
	if r := c.want(412, "", "carol", "PUT "+records+"/r1", "{}", "if-none-match", "*"); strings.Contains(string(r.Body), "existing") {
		t.Errorf("a creator reads what exists: %s", r.Body)
	}
	c.want(403, "", "carol", "GET "+records+"/r1", "")
}

func userOf(t testing.TB, c *client, user string) string {
	t.Helper()
	var hello struct {
		User struct{ ID string }
	}
	if err := json.Unmarshal(c.want(200, "", user, "GET /", "").Body, &hello); err != nil {
		t.Fatal(err)
	}
	return hello.User.ID
}

func TestPagesVisitEachRecordOnce(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(7)
	for _, query := range []string{"?_limit=2", "?_limit=3&_sort=n", "?_limit=2&_sort=-n", "?_limit=4&_sort=last_modified", "?_limit=2&id=r3", "?_limit=2&in_id=r1,r2,r5"} {
		var seen []string
		for line := "GET " + records + query; line != ""; {
			r := c.want(200, "", "alice", line, "")
			if s := ids(t, r.Body); s != "" {
				seen = append(seen, s)
			}
			next := r.Get("Next-Page")
			line = ""
			if next != "" {
				line = "GET " + strings.TrimPrefix(next, "http://example.org/v1")
			}
		}
		want := map[string]string{"?_limit=2": "r7 r6 r5 r4 r3 r2 r1", "?_limit=3&_sort=n": "r1 r2 r3 r4 r5 r6 r7", "?_limit=2&_sort=-n": "r7 r6 r5 r4 r3 r2 r1",
			"?_limit=4&_sort=last_modified": "r1 r2 r3 r4 r5 r6 r7", "?_limit=2&id=r3": "r3", "?_limit=2&in_id=r1,r2,r5": "r5 r2 r1"}[query]
		if got := strings.Join(seen, " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	if r := c.do("alice", "HEAD "+records+"?min_n=3&_limit=1", ""); r.Get("Total-Objects") != "5" || r.Get("Next-Page") != "" {
		t.Errorf("HEAD: %v", r.Header)
	}
	if r := c.do("alice", "HEAD "+records, ""); r.Get("Total-Records") != "7" {
		t.Errorf("HEAD: %v", r.Header)
	}
}

// Kinto builds the token of a list DELETE from the tombstone and so skips rows
// when the sort is on a data field; here every row goes, and a token works once.
func TestDeleteByPages(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(5)
	first := c.want(200, "", "alice", "DELETE "+records+"?_limit=2&_sort=n", "")
	next := "DELETE " + strings.TrimPrefix(first.Get("Next-Page"), "http://example.org/v1")
	second := c.want(200, "", "alice", next, "")
	if got := ids(t, first.Body) + " " + ids(t, second.Body); got != "r1 r2 r3 r4" {
		t.Errorf("deleted %s", got)
	}
	c.want(400, "_token was already used or has expired.", "alice", next, "")
	c.want(200, "", "alice", "DELETE "+records, "")
	c.want(200, `{"data":[]}`, "alice", "GET "+records, "")
}

func TestBatch(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(1)
	r := c.want(200, "", "alice", "POST /batch", `{"defaults":{"method":"PUT","body":{"data":{"q":1}}},"requests":[
		{"path":"`+records+`/a"},{"path":"/v1`+records+`/b?x=1","body":{"data":{"z":2}}},{"path":"/buckets/none/collections/x"},
		{"path":"`+records+`/a","method":"GET","body":{}},{"path":"`+records+`","method":"HEAD"},{"path":"`+records+`?_sort=id","method":"GET"}]}`)
	var out struct {
		Responses []struct {
			Path    string
			Status  int
			Headers map[string]string
			Body    json.RawMessage
		}
	}
	if err := json.Unmarshal(r.Body, &out); err != nil {
		t.Fatalf("%v: %s", err, r.Body)
	}
	var status []int
	for _, e := range out.Responses {
		status = append(status, e.Status)
	}
	if got := fmt.Sprint(status); got != "[201 201 403 200 200 200]" {
		t.Fatalf("statuses %s in %s", got, r.Body)
	}
	if e := out.Responses[1]; e.Path != "/v1"+records+"/b" || !strings.Contains(string(e.Body), `"z":2`) || !strings.Contains(string(e.Body), `"q":1`) {
		t.Errorf("defaults are merged without overriding: %s %s", e.Path, e.Body)
	}
	if out.Responses[3].Headers["ETag"] != out.Responses[0].Headers["ETag"] {
		t.Errorf("a batch sees its own writes at their times: %s", r.Body)
	}
	if e := out.Responses[4]; string(e.Body) != `""` || e.Headers["Total-Objects"] != "3" {
		t.Errorf("HEAD: %s %v", e.Body, e.Headers)
	}
	if got := ids(t, out.Responses[5].Body); got != "a b r1" {
		t.Errorf("list inside the batch: %s", got)
	}
	c.want(200, `"q":1`, "alice", "GET "+records+"/a", "")
}

func TestBatchAsTransaction(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(1)
	r := c.want(412, `"status":424`, "alice", "POST /batch", `{"transaction":true,"requests":[{"method":"PUT","path":"`+records+`/a"},
		{"method":"PUT","path":"`+records+`/r1","headers":{"If-None-Match":"*"}},{"method":"PUT","path":"`+records+`/b"}]}`)
	if r.Get("Quinto-Failed-Request") != "1" || strings.Count(string(r.Body), `"status":424`) != 2 {
		t.Errorf("%v %s", r.Header, r.Body)
	}
	if got := ids(t, c.want(200, "", "alice", "GET "+records, "").Body); got != "r1" {
		t.Errorf("something of a failed transaction was done: %s", got)
	}
	c.want(200, `"status":201`, "alice", "POST /batch", `{"transaction":true,"requests":[{"method":"PUT","path":"`+records+`/a"}]}`)
}

type hook func(c *plugins.Change) error

func (h hook) BeforeCommit(_ context.Context, c *plugins.Change) error { return h(c) }

func TestHooksMayEditAndRefuse(t *testing.T) {
	var c *client
	c, _ = newClient(t, nil, hook(func(ch *plugins.Change) error {
		switch {
		case ch.Kind != "record":
			return nil
		case ch.Action == fsm.ActionDelete && ch.Old.Path.ID() == "r1":
			return &plugins.Veto{Status: 403, Message: "r1 stays"}
		case ch.Action == fsm.ActionCreate && ch.Old == nil:
			ch.New.Data = []byte(`{"edited": true}`)
		case ch.Action == fsm.ActionUpdate:
			panic("boom")
		}
		return nil
	}))
	c.withRecords(2)
	c.want(200, `{"edited":true,"id":"r2"`, "alice", "GET "+records+"?id=r2", "")
	c.want(403, `"errno":121,"error":"Forbidden","message":"r1 stays"`, "alice", "DELETE "+records+"/r1", "")
	c.want(403, "r1 stays", "alice", "DELETE "+records, "")
	c.want(500, `"errno":999`, "alice", "PUT "+records+"/r1", "{}")
	if r := c.want(500, `"errno":999`, "alice", "POST /batch", `{"requests":[{"method":"PUT","path":"`+records+`/new"},{"method":"PUT","path":"`+records+`/r1"}]}`); r.Status == 500 {
		c.want(404, "", "alice", "GET "+records+"/new", "") // a 5xx inside undoes the whole
	}
}
