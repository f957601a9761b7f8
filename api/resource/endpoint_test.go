package resource

import (
	"context"
	"testing"

	"quinto/fsm"
	"quinto/plugins"
)

// A plugin's endpoint answers, writes through the leader where it has a plan, and
// does both inside a batch.
func TestEndpoints(t *testing.T) {
	n := newNode(t)
	routes := []plugins.Route{
		{Method: "GET", Path: "/shout/:word", Handle: func(_ context.Context, r *plugins.RouteRequest) *plugins.RouteResponse {
			return &plugins.RouteResponse{Status: 200, Body: []byte(`"` + r.Params["word"] + `"`)}
		}},
		{Method: "POST", Path: "/mark", Plan: func(_ context.Context, r *plugins.RouteRequest) (*plugins.RoutePlan, error) {
			if r.UserID == "" {
				return nil, &plugins.Veto{Status: 401, Message: "who?"}
			}
			return &plugins.RoutePlan{Ops: []fsm.Op{{Type: fsm.OpSetSetting, Name: "mark", Value: r.Body}},
				Response: plugins.RouteResponse{Status: 202, Body: []byte("{}")}}, nil
		}},
		{Method: "GET", Path: "/static/*file", Handle: func(_ context.Context, r *plugins.RouteRequest) *plugins.RouteResponse {
			return &plugins.RouteResponse{Status: 200, Header: map[string]string{"Content-Type": "text/plain"}, Body: []byte(r.Params["file"])}
		}},
	}
	c := &client{t, newServiceOf(t, Options{Node: n, Endpoints: routes})}
	c.want(200, `"hi"`, "", "GET /shout/hi", "")
	c.want(200, `"hi"`, "", "HEAD /shout/hi", "")
	c.want(404, "", "", "GET /shout", "")
	c.want(404, "", "", "GET /shout/hi/there", "")
	if got := c.want(405, "", "", "PUT /shout/hi", "").Get("Allow"); got != "GET, HEAD, OPTIONS" {
		t.Errorf("Allow: %s", got)
	}
	c.want(401, "who?", "", "POST /mark", "x")
	c.want(202, "{}", "alice", "POST /mark", "x")
	if got := c.want(200, "css/a.css", "", "GET /static/css/a.css", "").Get("Content-Type"); got != "text/plain" {
		t.Errorf("Content-Type: %s", got)
	}
	c.want(200, "", "", "GET /static/", "")
	c.want(200, `"status":202`, "alice", "POST /batch", `{"requests":[{"method":"POST","path":"/mark"},{"path":"/shout/ho"}]}`)
	v, err := n.View(t.Context(), fsm.Freshness{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if value, err := v.Setting("mark"); err != nil || value != nil {
		t.Errorf("%q, %v", value, err) // the batch's was empty
	}
}

type noter struct{}

func (noter) BeforeCommit(_ context.Context, c *plugins.Change) error {
	c.Also(fsm.Op{Type: fsm.OpSetSetting, Name: "seen", Value: []byte(c.Path)})
	return nil
}

// A hook's operation is part of the transaction; a plugin's kind is served.
func TestKindsAndHooksOfPlugins(t *testing.T) {
	n := newNode(t)
	note := &plugins.Kind{Name: "note", Plural: "notes", Permissions: []string{"read", "write"}, ObjectMethods: []string{"GET", "HEAD", "PUT"},
		Check: func(data []byte) ([]byte, []plugins.Flaw) {
			if string(data) == "{}" {
				return data, []plugins.Flaw{{Name: "text", Description: "Required"}}
			}
			return data, nil
		}}
	o := Options{Node: n, Kinds: append(Kinds(), FromPlugin(note)), Hooks: []plugins.BeforeCommit{noter{}},
		Config: testConfig(t, nil)}
	o.Config.Principals["note_create"] = []string{Authenticated}
	c := &client{t, newServiceOf(t, o)}
	c.want(400, "data.text in body: Required", "alice", "PUT /notes/a", `{"data":{}}`)
	c.want(201, `"text":1`, "alice", "PUT /notes/a", `{"data":{"text":1}}`)
	c.want(403, "", "bob", "GET /notes/a", "")
	if got := c.want(405, "", "alice", "DELETE /notes/a", "").Get("Allow"); got != "GET, HEAD, PUT, OPTIONS" {
		t.Errorf("Allow: %s", got)
	}
	v, err := n.View(t.Context(), fsm.Freshness{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if value, err := v.Setting("seen"); err != nil || string(value) != "/notes/a" {
		t.Errorf("%q, %v", value, err)
	}
}
