package resource

import (
	"fmt"
	"strings"
	"testing"

	"quinto/internal/canon"
)

// TestPermissionsInABatch: the list shows what the parts before it leave.
func TestPermissionsInABatch(t *testing.T) {
	c, _ := newClient(t, map[string]string{"experimental_permissions_endpoint": "true"})
	c.want(201, "", "alice", "PUT /buckets/x", "")
	body := string(c.want(200, "", "alice", "POST /batch", `{"requests":[{"method":"PUT","path":"/buckets/y"},{"path":"/permissions?_fields=uri"},
		{"method":"DELETE","path":"/buckets/x"},{"path":"/permissions?_fields=uri"}]}`).Body)
	for uri, want := range map[string]int{`"uri":"/buckets/y"`: 2, `"uri":"/buckets/x"`: 1, `"uri":"/"`: 2} {
		if got := strings.Count(body, uri); got != want {
			t.Errorf("%s is there %d times, want %d: %s", uri, got, want, body)
		}
	}
}

// TestPermissionsPages: pages in any order show every entry once.
func TestPermissionsPages(t *testing.T) {
	c, _ := newClient(t, map[string]string{"experimental_permissions_endpoint": "true"})
	for i := range 7 {
		c.want(201, "", "alice", fmt.Sprintf("PUT /buckets/p%d", i), "")
	}
	for _, order := range []string{"uri", "-uri", "resource_name", "id", "-id,resource_name"} {
		seen := map[string]bool{}
		next := "/permissions?_limit=3&_sort=" + order
		for next != "" {
			r := c.want(200, "", "alice", "GET "+next, "")
			data, _ := canon.Value(r.Body).Get("data")
			data.Elements(func(e canon.Value) bool {
				uri, _ := e.Get("uri")
				if seen[string(uri)] {
					t.Errorf("%s: %s twice", order, uri)
				}
				seen[string(uri)] = true
				return true
			})
			if _, next, _ = strings.Cut(r.Get("Next-Page"), "/permissions"); next != "" {
				next = "/permissions" + next
			}
		}
		if len(seen) != 8 {
			t.Errorf("%s: %d entries", order, len(seen))
		}
	}
}

// TestUserData: what is only his goes, from the rest he is taken out, also from the
// members of groups, and the others' times stay.
func TestUserData(t *testing.T) {
	c, _ := newClient(t, map[string]string{"user-data_delete_principals": "system.Authenticated"})
	me := func(user string) string {
		id, _ := canon.Value(c.want(200, "", user, "GET /", "").Body).GetPath("user", "id")
		text, _ := id.String()
		return text
	}
	eve := me("eve")
	c.want(201, "", "eve", "PUT /buckets/own", "")
	c.want(201, "", "eve", "PUT /buckets/own/collections/c", "")
	c.want(201, "", "alice", "PUT /buckets/others", `{"permissions":{"read":["`+eve+`"],"write":["`+eve+`"]}}`)
	c.want(201, "", "alice", "PUT /buckets/others/groups/g", `{"data":{"n":1,"members":["x","`+eve+`"]}}`)
	before := c.want(200, "", "alice", "GET /buckets/others", "").Get("ETag")
	c.want(200, eve, "alice", "DELETE /__user_data__/"+eve, "")
	r := c.want(200, "", "alice", "GET /buckets/others", "")
	if strings.Contains(string(r.Body), eve) || r.Get("ETag") != before {
		t.Errorf("%s, ETag %s, was %s", r.Body, r.Get("ETag"), before)
	}
	c.want(200, `"members":["x"]`, "alice", "GET /buckets/others/groups/g", "")
	c.want(403, "", "eve", "GET /buckets/own", "")
	c.want(403, "", "eve", "GET /buckets/others", "")
	c.want(201, "", "eve", "PUT /buckets/own", "")
	c.want(200, `{"data":[]}`, "eve", "GET /buckets/own/collections", "")
}

// TestUserDataInSteps: more than one transaction should change is done in several,
// each of which says that there is more.
func TestUserDataInSteps(t *testing.T) {
	c, _ := newClient(t, map[string]string{"user-data_delete_principals": "system.Authenticated", "batch_max_requests": "10000"})
	c.want(201, "", "alice", "PUT /buckets/b1", "")
	c.want(201, "", "alice", "PUT /buckets/b1/collections/c", `{"permissions":{"record:create":["system.Authenticated"]}}`)
	id, _ := canon.Value(c.want(200, "", "eve", "GET /", "").Body).GetPath("user", "id")
	eve, _ := id.String()
	batch := make([]string, 0, MaxUserData+10)
	for i := range cap(batch) {
		batch = append(batch, fmt.Sprintf(`{"method":"PUT","path":"/buckets/b1/collections/c/records/r%d"}`, i))
	}
	c.want(200, "", "eve", "POST /batch", `{"requests":[`+strings.Join(batch, ",")+`]}`)
	c.want(202, eve, "alice", "DELETE /__user_data__/"+eve, "")
	c.want(200, eve, "alice", "DELETE /__user_data__/"+eve, "")
	c.want(200, `{"data":[]}`, "alice", "GET /buckets/b1/collections/c/records", "")
}
