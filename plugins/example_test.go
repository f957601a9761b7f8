package plugins_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quinto/fsm"
	"quinto/plugins"
)

// The example of docs/plugins.md, from here

func init() {
	plugins.Register(plugins.Module{Name: "example.shout", New: func() any { return new(Shout) }})
}

// Shout refuses records without a title, writes titles in capitals, and appends
// every change of a record to a file.
type Shout struct {
	name, path string
}

// Provision takes the settings event_listeners.<name>.*.
func (s *Shout) Provision(_ context.Context, c plugins.Settings) error {
	s.name, s.path = c.Name, c.Params["path"]
	return nil
}

// Validate refuses settings that cannot work.
func (s *Shout) Validate() error {
	if s.path == "" {
		return fmt.Errorf("path is needed")
	}
	return nil
}

// BeforeCommit runs on the leader while a write is decided, maybe twice.
func (s *Shout) BeforeCommit(_ context.Context, c *plugins.Change) error {
	if c.Kind != "record" || c.New == nil {
		return nil
	}
	var record map[string]any
	if err := json.Unmarshal(c.New.Data, &record); err != nil {
		return err
	}
	title, _ := record["title"].(string)
	if title == "" {
		return &plugins.Veto{Status: 400, Message: "a record needs a title"}
	}
	record["title"] = strings.ToUpper(title)
	data, err := json.Marshal(record)
	c.New.Data = data
	return err
}

// Name is where the progress is stored: the listener's name.
func (s *Shout) Name() string { return s.name }

// FilterHash changes with Match.
func (s *Shout) FilterHash() []byte { return []byte("records") }

// Match chooses the changes.
func (s *Shout) Match(e *fsm.Event) bool { return plugins.KindName(e.Path) == "record" }

// Lane keeps the order within a collection.
func (s *Shout) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

// Deliver may see the same d.ID again after a failover.
func (s *Shout) Deliver(_ context.Context, d plugins.Delivery) error {
	f, err := os.OpenFile(s.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, d.ID, d.Event.Action, d.Event.Path)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

var (
	_ plugins.Provisioner  = (*Shout)(nil)
	_ plugins.Validator    = (*Shout)(nil)
	_ plugins.BeforeCommit = (*Shout)(nil)
	_ plugins.Notifier     = (*Shout)(nil)
)

// to here.

func TestExample(t *testing.T) {
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "out")
	if _, err := plugins.Registered().Load(ctx, plugins.Settings{Name: "shout", Use: "example.shout"}); err == nil {
		t.Error("no path, and no complaint")
	}
	set, err := plugins.Registered().Open(ctx, []plugins.Settings{{Name: "shout", Use: "example.shout", Params: map[string]string{"path": path}}})
	if err != nil {
		t.Fatal(err)
	}
	change := &plugins.Change{Kind: "record", New: &fsm.Object{Data: []byte(`{"title":"hello"}`)}}
	if err := plugins.RunBefore(ctx, set.BeforeCommit, change); err != nil || string(change.New.Data) != `{"title":"HELLO"}` {
		t.Errorf("%s, %v", change.New.Data, err)
	}
	change.New.Data = []byte(`{}`)
	if err := plugins.RunBefore(ctx, set.BeforeCommit, change); err == nil {
		t.Error("a record without title was accepted")
	}
	e := &fsm.Event{Revision: 1, Action: fsm.ActionCreate, Path: "/buckets/b/collections/c/records/r"}
	if err := set.Notifiers[0].Deliver(ctx, plugins.Delivery{ID: "msg_1", Event: e}); err != nil {
		t.Fatal(err)
	}
	if out, err := os.ReadFile(path); err != nil || string(out) != "msg_1 create /buckets/b/collections/c/records/r\n" {
		t.Errorf("%q, %v", out, err)
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
}

// What the page shows is what is compiled here.
func TestTheDocsShowTheExample(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(source), "from here\n")
	example, _, ok := strings.Cut(rest, "// to here.")
	page, err := os.ReadFile("../docs/plugins.md")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if !strings.Contains(string(page), strings.TrimSpace(example)) {
		t.Error("docs/plugins.md does not hold the example as it is in example_test.go")
	}
}
