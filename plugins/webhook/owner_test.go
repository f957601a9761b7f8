package webhook_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// own is what the writer of an object is told of a hook.
type own struct {
	Name, URL, State string
	Lag              uint64
	Waiting, Failing int
	Delivered        int
	Errors           []struct{ Lane, Error string }
	Paused           *struct{ Reason string }
	DeadLetters      []struct{ Path string } `json:"dead_letters"`
}

func (h *house) own(user, path string) (all []own) {
	h.t.Helper()
	var a struct{ Data []own }
	text := h.askAs(user, 200, "GET", path+"/webhooks", "")
	if err := json.Unmarshal([]byte(text), &a); err != nil || a.Data == nil || strings.Contains(text, "token=1") {
		h.t.Errorf("%s %v", text, err)
	}
	return a.Data
}

// Whoever may write a bucket or a collection sees how its own hooks stand, and nobody
// else does: neither who only reads it, nor who writes another one.
func TestWritersSeeTheirWebhooks(t *testing.T) {
	good, dead, gone := newReceiver(t), newReceiver(t), newReceiver(t)
	dead.status.Store(500)
	gone.status.Store(410)
	h := trusting(t, "", good, dead, gone)
	one := func(name string, r *receiver) string {
		return fmt.Sprintf(`"%s":{"url":"%s/in?token=1","secret":"%s"}`, name, r.URL, secretOf(1))
	}
	writer, reader := h.principal("writer"), h.principal("reader")
	const c = "/buckets/b/collections/c"
	h.ask(201, "PUT", "/buckets/b", fmt.Sprintf(`{"data":{"quinto":{"webhooks":{%s}}}}`, one("all", good)))
	h.ask(201, "PUT", c, fmt.Sprintf(`{"data":{"quinto":{"webhooks":{%s,%s,%s}}},"permissions":{"write":[%q],"read":[%q]}}`, one("good", good), one("dead", dead), one("gone", gone), writer, reader))
	h.ask(201, "PUT", "/buckets/b/collections/other", "")
	h.ask(201, "PUT", c+"/records/r", `{"data":{}}`)

	h.wait("the states", func() bool {
		all := h.own("writer", c)
		return len(all) == 3 && all[0].Failing == 1 && all[1].State == "paused" && all[2].Delivered == 1
	})
	all := h.own("writer", c)
	if d := all[0]; d.Name != "dead" || d.URL != dead.URL+"/in" || d.Waiting != 1 || len(d.Errors) != 1 || d.Errors[0].Lane != c || !strings.Contains(d.Errors[0].Error, "answered 500") || d.Lag == 0 {
		t.Errorf("%+v", d)
	}
	if g := all[1]; g.Name != "gone" || g.Paused == nil || !strings.Contains(g.Paused.Reason, "410") {
		t.Errorf("%+v", g)
	}
	h.wait("no lag", func() bool { g := h.own("writer", c)[2]; return g.Name == "good" && g.Lag == 0 && g.Waiting == 0 })
	if of := h.own("a", "/buckets/b"); len(of) != 1 || of[0].Name != "all" {
		t.Errorf("%+v", of)
	}
	if none := h.own("a", "/buckets/b/collections/other"); len(none) != 0 {
		t.Errorf("%+v", none)
	}

	h.askAs("", 401, "GET", c+"/webhooks", "")
	for user, paths := range map[string][]string{
		"reader": {c, "/buckets/b", "/buckets/b/collections/other"},
		"writer": {"/buckets/b", "/buckets/b/collections/other", "/buckets/none", "/buckets/b/collections/none"},
	} {
		for _, path := range paths {
			h.askAs(user, 403, "GET", path+"/webhooks", "")
		}
	}
	h.ask(404, "GET", "/buckets/b/collections/none/webhooks", "")
	h.ask(405, "POST", c+"/webhooks", "{}")

	// Who may write no more sees no more.
	h.ask(200, "PATCH", c, fmt.Sprintf(`{"permissions":{"write":[%q]}}`, reader))
	h.askAs("writer", 403, "GET", c+"/webhooks", "")
	if all := h.own("reader", c); len(all) != 3 {
		t.Errorf("%+v", all)
	}
}

// No address of the network that a hook's name leads to is told.
func TestWritersSeeNoAddresses(t *testing.T) {
	r := newReceiver(t)
	h := open(t, "webhooks.ports = "+port(r.Server)+"\n")
	h.ask(201, "PUT", "/buckets/b", fmt.Sprintf(`{"data":{"quinto":{"webhooks":{"inside":{"url":"https://localhost:%s/","secret":"%s"},"nowhere":{"url":"https://no-such-host.invalid:%s/","secret":"%s"}}}}}`,
		port(r.Server), secretOf(1), port(r.Server), secretOf(1)))
	h.ask(201, "PUT", "/buckets/b/collections/c", "")
	h.wait("the errors", func() bool {
		return !slices.ContainsFunc(h.own("a", "/buckets/b"), func(o own) bool { return len(o.Errors) == 0 })
	})
	for _, o := range h.own("a", "/buckets/b") {
		want := map[string]string{"inside": "dial: the address is not public", "nowhere": "lookup: "}[o.Name]
		if e := o.Errors[0].Error; !strings.Contains(e, want) || strings.ContainsAny(e, "0123456789") {
			t.Errorf("%s: %s", o.Name, e)
		}
	}
}

// principal is the id of a user.
func (h *house) principal(user string) string {
	var a struct{ User struct{ ID string } }
	if err := json.Unmarshal([]byte(h.askAs(user, 200, "GET", "/", "")), &a); err != nil || a.User.ID == "" {
		h.t.Fatalf("%s: %v", user, err)
	}
	return a.User.ID
}
