package resource

import (
	"fmt"
	"testing"

	"quinto/fsm"
)

// What Kinto answers while its storage is down, seen in 26.5.0.
const kintoUnavailable = `{"code":503,"errno":201,"error":"Service Unavailable","message":"Service temporary unavailable due to overloading or maintenance, please retry later."}`

// Without a leader the answer is that of a Kinto whose storage is down.
func TestUnavailable(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(0)
	n.answer = func(error) error { return fsm.ErrNoLeader }
	r := c.want(503, `"errno":201`, "alice", "POST "+records, "{}")
	if string(r.Body) != kintoUnavailable || r.Get("Retry-After") != "3" {
		t.Errorf("%s, Retry-After %q", r.Body, r.Get("Retry-After"))
	}
}

// A batch is one event for each object that it writes, in its order, where Kinto
// tells its listeners of all that are alike at once.
func TestBatchEvents(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(0)
	before, err := n.machine.View()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	c.want(200, "", "alice", "POST /batch", `{"defaults":{"method":"PUT"},"requests":[{"path":"`+records+`/a"},{"path":"`+records+`/b"},
		{"path":"`+records+`/a","body":{"data":{"x":1}}},{"path":"`+records+`/b","method":"DELETE"},{"path":"`+records+`/none","method":"DELETE"}]}`)
	v, err := n.machine.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var got []string
	request := ""
	if err := v.Events(before.Revision(), func(e *fsm.Event) bool {
		got = append(got, e.Action.String()+" "+e.Path.ID())
		if request == "" {
			request = string(e.RequestID)
		}
		return request == string(e.RequestID)
	}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != "[create a create b update a delete b]" {
		t.Errorf("got %q", got)
	}
}
