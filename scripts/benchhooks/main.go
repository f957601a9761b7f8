// Benchhooks is a quinto with two plugins that do nothing, made as docs/plugins.md says:
// the benchmark measures what they cost.
package main

import (
	"context"
	"os"
	"strings"

	"quinto/cmd/command"
	"quinto/fsm"
	"quinto/plugins"

	_ "quinto/plugins/exec"
	_ "quinto/plugins/gatekeeper"
)

func init() {
	plugins.Register(plugins.Module{Name: "bench.hook", New: func() any { return new(hook) }})
	plugins.Register(plugins.Module{Name: "bench.notifier", New: func() any { return new(notifier) }})
}

// below is the part of a path under which the records of a listener's collection lie.
func below(s plugins.Settings) string { return "/collections/" + s.Params["collection"] + "/records/" }

// hook lets each record of its collection pass.
type hook struct{ below string }

// Provision takes the collection.
func (h *hook) Provision(_ context.Context, s plugins.Settings) error {
	h.below = below(s)
	return nil
}

// BeforeCommit looks at the record, as any hook would, and lets it pass.
func (h *hook) BeforeCommit(_ context.Context, c *plugins.Change) error {
	if c.New != nil && strings.Contains(string(c.Path), h.below) && len(c.New.Data) == 0 {
		return &plugins.Veto{Message: "a record without data"}
	}
	return nil
}

// notifier takes each record of its collection at once.
type notifier struct{ name, below string }

// Provision takes name and collection.
func (n *notifier) Provision(_ context.Context, s plugins.Settings) error {
	n.name, n.below = s.Name, below(s)
	return nil
}

// Name implements plugins.Notifier.
func (n *notifier) Name() string { return n.name }

// FilterHash implements plugins.Notifier.
func (n *notifier) FilterHash() []byte { return []byte(n.below) }

// Match implements plugins.Notifier.
func (n *notifier) Match(e *fsm.Event) bool { return strings.Contains(string(e.Path), n.below) }

// Lane implements plugins.Notifier.
func (n *notifier) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

// Deliver implements plugins.Notifier.
func (n *notifier) Deliver(context.Context, plugins.Delivery) error { return nil }

var (
	_ plugins.BeforeCommit = (*hook)(nil)
	_ plugins.Notifier     = (*notifier)(nil)
)

func main() {
	os.Exit(command.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
