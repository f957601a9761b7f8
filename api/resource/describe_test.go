package resource

import (
	"context"
	"fmt"
	"testing"

	"quinto/plugins"
)

func TestEndpointNames(t *testing.T) {
	handle := func(context.Context, *plugins.RouteRequest) *plugins.RouteResponse {
		return &plugins.RouteResponse{Status: 200, Body: []byte("{}")}
	}
	s := newServiceOf(t, Options{Node: newNode(t), Endpoints: []plugins.Route{{Method: "POST", Path: "/__flush__", Name: "flush", Handle: handle},
		{Method: "GET", Path: "/files/:file", Handle: handle}}})
	for path, want := range map[string]string{
		"/": "{hello map[]}", "/batch": "{batch map[]}", "/buckets": "{bucket-plural map[]}", "/buckets/b": "{bucket-object map[bucket_id:b]}",
		"/buckets/b/collections/c/records/r": "{record-object map[bucket_id:b collection_id:c record_id:r]}",
		"/buckets/b/groups":                  "{group-plural map[bucket_id:b]}", "/nope": "{ map[]}", "/__flush__": "{flush map[]}",
		"/files/x": "{files/:file map[file:x]}",
	} {
		if got := fmt.Sprint(s.Endpoint(path)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestPartsOfABatch(t *testing.T) {
	s := newServiceOf(t, Options{Node: newNode(t)})
	body := `{"defaults":{"method":"PUT"},"requests":[{"path":"/v1/buckets/a"},{"path":"/buckets/a","method":"GET","headers":{"Authorization":"x"}},` +
		`{"path":"/nope","method":"GET"},{"path":"/buckets/a","body":{"x":1}}]}`
	r := &Request{ID: make([]byte, 16), Method: "POST", Path: "/batch", Header: Header{"authorization": "Basic YTpi"}, Body: []byte(body), Prefix: "/v1"}
	resp := s.Do(t.Context(), r)
	if resp.Status != 200 || resp.UserID == "" {
		t.Fatalf("%d, user %q", resp.Status, resp.UserID)
	}
	got := ""
	for _, p := range s.Parts(r, resp) {
		got += fmt.Sprintln(p.Method, p.Path, p.Status, p.Errno, p.Bytes > 0, p.Counted, p.Inherits)
	}
	want := "PUT /buckets/a 201 0 true true true\nGET /buckets/a 401 104 true false false\nGET /nope 404 111 true false true\nPUT /buckets/a 400 107 true true true\n"
	if got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	if s.Parts(&Request{Method: "GET", Path: "/buckets"}, resp) != nil {
		t.Error("not a batch")
	}
}
