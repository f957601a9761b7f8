package command

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	_ "quinto/plugins/changes"
)

// get sends a GET of bench's and returns status, header and decoded body.
func get(t *testing.T, url, user string, header ...string) (int, http.Header, map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		r.Header.Set("Authorization", as(user))
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body map[string]any
	_ = json.NewDecoder(res.Body).Decode(&body) // a redirect has a page
	return res.StatusCode, res.Header, body
}

// What the tests of kinto-changes 4.1.2 say (tests/test_changes.py, test_changeset.py).
func TestKintoChanges(t *testing.T) {
	url, records, _ := liveNode(t, `kinto.includes = kinto_changes
kinto.changes.resources = /buckets/b /buckets/none/collections/none
kinto.http_host = www.kinto-storage.org
kinto.monitor.changes.record_cache_expires_seconds = 60
kinto.monitor.changes.record_cache_maximum_expires_seconds = 1234
`)
	api := url[:strings.Index(url, "/v1/")] + "/v1/"
	do(t, 201, "alice", "PUT", records+"/a", `{"data":{"dev-edition":true}}`)
	_, header, _ := get(t, records, "alice")
	etag := header.Get("ETag")
	list := api + "buckets/monitor/collections/changes/records"
	status, header, body := get(t, list, "")
	data, _ := body["data"].([]any)
	if status != 200 || len(data) != 1 || header.Get("ETag") != etag || header.Get("Cache-Control") != "max-age=60" {
		t.Fatalf("%d %v %v, want ETag %s", status, header, body, etag)
	}
	entry, _ := data[0].(map[string]any)
	// The id that kinto_changes.utils.changes_object gives.
	want := map[string]any{"id": "6ba47f48-76b6-6157-46b6-39cb24d2838a", "bucket": "b", "collection": "c", "host": "www.kinto-storage.org"}
	for name, value := range want {
		if entry[name] != value {
			t.Errorf("%s is %v, want %v", name, entry[name], value)
		}
	}
	for query, count := range map[string]int{"?bucket=b": 1, "?bucket=x": 0, "?_since=" + etag: 0, "?collection=c&_expected=1": 1, "?_limit=1": 1} {
		if status, _, body := get(t, list+query, ""); status != 200 || len(body["data"].([]any)) != count {
			t.Errorf("%s: %d %v, want %d", query, status, body, count)
		}
	}
	if status, header, _ := get(t, list+"?_expected=1", ""); status != 200 || header.Get("Cache-Control") != "max-age=1234" {
		t.Errorf("%d %v", status, header)
	}
	if status, _, _ := get(t, list, "", "If-None-Match", etag); status != 304 {
		t.Errorf("If-None-Match: %d", status)
	}
	if status, _, _ := get(t, list, "", "If-None-Match", "*"); status != 412 {
		t.Errorf("If-None-Match: *: %d", status)
	}
	if status, header, _ := get(t, list+`?_since="42"&_expected=3`, ""); status != 307 || header.Get("Location") != "https://www.kinto-storage.org/v1/buckets/monitor/collections/changes/records?_expected=3" ||
		header.Get("Cache-Control") != "max-age=86400" {
		t.Errorf("an old _since: %d %v", status, header)
	}
	if status, _, _ := get(t, list+"?unknown=3", ""); status != 400 {
		t.Errorf("an unknown filter: %d", status)
	}
	set := api + "buckets/b/collections/c/changeset"
	if status, _, body := get(t, set+"?_expected=42", "alice"); status != 200 || len(body["changes"].([]any)) != 1 ||
		body["metadata"].(map[string]any)["id"] != "c" || etag != `"`+jsonNumber(body["timestamp"])+`"` {
		t.Errorf("%d %v", status, body)
	}
	do(t, 200, "alice", "DELETE", records+"/a", "")
	do(t, 201, "alice", "PUT", records+"/b", "")
	if _, _, body := get(t, set+"?_expected=42&_since="+etag, "alice"); len(body["changes"].([]any)) != 2 {
		t.Errorf("since: %v", body)
	}
	if _, _, body := get(t, set+"?_expected=42&_limit=1", "alice"); len(body["changes"].([]any)) != 1 {
		t.Errorf("limit: %v", body)
	}
	for query, want := range map[string]int{"": 400, "?_expected=1&_since=abc": 400, "?_expected=1&_since=42": 400, `?_expected=1&_since="42"&_extra=x`: 200} {
		if status, _, body := get(t, set+query, "alice"); status != want {
			t.Errorf("%s: %d %v, want %d", query, status, body, want)
		}
	}
	for user, want := range map[string]int{"": 401, "bob": 403} {
		if status, _, _ := get(t, set+"?_expected=1", user); status != want {
			t.Errorf("%q: %d, want %d", user, status, want)
		}
	}
	if status, _, _ := get(t, api+"buckets/b/collections/none/changeset?_expected=1", "alice"); status != 404 {
		t.Errorf("an unknown collection: %d", status)
	}
	monitor := api + "buckets/monitor/collections/changes/changeset?_expected=1"
	if status, _, body := get(t, monitor, ""); status != 200 || len(body["changes"].([]any)) != 1 || len(body["metadata"].(map[string]any)) != 0 {
		t.Errorf("%d %v", status, body)
	}
	if status, _, body := get(t, monitor+"&bucket=x", ""); status != 200 || len(body["changes"].([]any)) != 0 {
		t.Errorf("%d %v", status, body)
	}
}

func jsonNumber(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var n json.Number
	_ = json.Unmarshal(b, &n) // of a number
	return n.String()
}
