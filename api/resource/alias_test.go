package resource

import (
	"context"
	"strings"
	"sync"
	"testing"

	"quinto/fsm"
	"quinto/plugins"
)

// mine makes /mine an alias of a bucket named after the user, with its
// collections.
type mine struct{}

func (mine) Covers(path string) bool { return path == "/mine" || strings.HasPrefix(path, "/mine/") }

func (mine) Resolve(r *plugins.AliasRequest) (*plugins.AliasTarget, error) {
	bucket := fsm.Path("/buckets/of-" + r.UserID[len(r.UserID)-6:])
	rest := strings.TrimPrefix(r.Path, "/mine")
	t := &plugins.AliasTarget{Path: string(bucket) + rest, Ensure: []fsm.Path{bucket}, OldID: "mine", NewID: bucket.ID(), EmptyBody: []byte(`{"data":{}}`)}
	if tail, ok := strings.CutPrefix(rest, "/collections/"); ok {
		id, _, _ := strings.Cut(tail, "/")
		t.Ensure = append(t.Ensure, bucket.Child("collections").Child(id))
	}
	if rest == "/forbidden" {
		return nil, &plugins.Veto{Status: 403, Message: "not this one"}
	}
	return t, nil
}

// asked notes what hooks are asked about, and writes beside it.
type asked struct {
	mu    *sync.Mutex // requests are decided side by side
	paths *[]string
}

func (a asked) BeforeCommit(_ context.Context, c *plugins.Change) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	*a.paths = append(*a.paths, c.Action.String()+" "+c.Kind)
	c.Also(fsm.Op{Type: fsm.OpSetSetting, Name: "seen/" + c.Kind, Value: []byte("1")})
	return nil
}

func newAliased(t *testing.T, flags map[string]string) (*client, *loneNode, *[]string) {
	n, paths := newNode(t), &[]string{}
	return &client{t, newServiceOf(t, Options{Config: testConfig(t, flags), Node: n, Aliases: []plugins.Alias{mine{}}, Hooks: []plugins.BeforeCommit{asked{new(sync.Mutex), paths}}})}, n, paths
}

// A read that has to create writes, once; one that finds everything does not.
func TestAliasCreatesOnRead(t *testing.T) {
	c, n, hooks := newAliased(t, nil)
	c.want(401, "", "", "GET /mine/collections/c/records", "")
	if n.machine.Revision() != 0 {
		t.Fatal("nobody's access has written")
	}
	c.want(200, `{"data":[]}`, "alice", "GET /mine/collections/c/records", "")
	if got := strings.Join(*hooks, ", "); got != "create bucket, create collection" {
		t.Errorf("hooks: %s", got)
	}
	v, err := n.View(t.Context(), fsm.Freshness{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, name := range []string{"seen/bucket", "seen/collection"} {
		if value, _ := v.Setting(name); value == nil {
			t.Errorf("%s: what a hook wanted to write is not there", name)
		}
	}
	at := n.machine.Applied()
	for _, line := range []string{"GET /mine/collections/c/records", "HEAD /mine/collections/c", "GET /mine"} {
		c.want(200, "", "alice", line, "")
	}
	c.want(200, `"path":"/v1/mine"`, "alice", "POST /batch", `{"requests":[{"path":"/mine"},{"path":"/mine/collections/c/records"}]}`)
	if n.machine.Applied() != at {
		t.Error("a read that found everything has written")
	}
	c.want(200, `{"data":[]}`, "alice", "GET /mine/collections/c/records?_consistency=session&_since=5", "")
}

// A refusal keeps what the access has made; a path or method that there is not, a
// bad id and a veto make nothing.
func TestAliasAndRefusals(t *testing.T) {
	c, n, _ := newAliased(t, nil)
	for line, status := range map[string]int{"GET /mine/nowhere": 404, "PUT /mine/collections": 405, "GET /mine/collections/bad!": 400, "GET /mine/forbidden": 403} {
		c.want(status, "", "alice", line, "")
		c.want(200, `"status":`, "alice", "POST /batch", `{"requests":[{"method":"`+strings.Replace(line, " ", `","path":"`, 1)+`"}]}`)
	}
	if n.machine.Revision() != 0 {
		t.Fatal("refused before anything was there, and written")
	}
	c.want(404, `"resource_name":"record"`, "alice", "GET /mine/collections/c/records/none", "")
	c.want(200, `"id":"c"`, "alice", "GET /mine/collections", "")
	c.want(200, `"status":404`, "bob", "POST /batch", `{"requests":[{"path":"/mine/collections/c/records/none"},{"path":"/mine/collections"}]}`)
	c.want(200, `"id":"c"`, "bob", "GET /mine/collections", "")
	at := n.machine.Revision()
	c.want(404, `"status":404`, "carol", "POST /batch", `{"transaction":true,"requests":[{"path":"/mine/collections/c/records/none"}]}`)
	if n.machine.Revision() != at {
		t.Error("a transaction that failed has made something")
	}
}

// The body's id is that of the path, and no body is an empty object.
func TestAliasBodies(t *testing.T) {
	c, _, _ := newAliased(t, nil)
	c.want(200, `"a":1`, "alice", "PUT /mine", `{"data":{"id":"mine","a":1}}`)
	c.want(400, "does not match", "alice", "PUT /mine", `{"data":{"id":"other"}}`)
	c.want(200, `"a":1`, "alice", "PUT /mine", `{}`)
	if r := c.want(200, "", "alice", "PUT /mine", ""); strings.Contains(string(r.Body), `"a":1`) {
		t.Errorf("no body kept the data: %s", r.Body)
	}
	c.want(400, "Invalid JSON", "alice", "PUT /mine", `{"data":{"id":"mine"`)
	c.want(400, "", "alice", "POST /mine/collections", `["mine"]`)
}

// The retry of a request that created gets the answer of the first.
func TestAliasIsIdempotent(t *testing.T) {
	c, n, _ := newAliased(t, nil)
	first := c.want(200, "", "alice", "GET /mine", "", "idempotency-key", "k")
	at := n.machine.Revision()
	again := c.want(200, string(first.Body), "alice", "GET /mine", "", "idempotency-key", "k")
	if n.machine.Revision() != at || again.Get("ETag") != first.Get("ETag") {
		t.Errorf("revision %d after %d: %v", n.machine.Revision(), at, again.Header)
	}
}

func TestAliasOfReadonly(t *testing.T) {
	c, _, _ := newAliased(t, map[string]string{"readonly": "true"})
	c.want(405, "", "alice", "GET /mine", "")
	c.want(401, "", "", "GET /mine", "")
}

// Many who come first at once make one bucket.
func TestAliasTogether(t *testing.T) {
	c, n, _ := newAliased(t, nil)
	done := make(chan int)
	for range 8 {
		go func() { done <- c.do("alice", "GET /mine/collections/c/records", "").Status }()
	}
	for range 8 {
		if status := <-done; status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if r := n.machine.Revision(); r > 6 { // bucket, collection and the times of their lists
		t.Errorf("revision %d", r)
	}
}
