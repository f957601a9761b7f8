package main

import (
	"context"
	"encoding/json"
	"strings"

	"quinto/fsm"
	"quinto/internal/checker"
	"quinto/internal/clients"
	"quinto/plugins"
)

// hook is a notifier that writes each delivery to the history: the product's own word
// of what was committed.
type hook struct{ p *process }

// Name implements plugins.Notifier.
func (h *hook) Name() string { return "history" }

// FilterHash implements plugins.Notifier.
func (h *hook) FilterHash() []byte { return []byte("all") }

// Match implements plugins.Notifier.
func (h *hook) Match(*fsm.Event) bool { return true }

// Lane implements plugins.Notifier.
func (h *hook) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

// Deliver implements plugins.Notifier.
func (h *hook) Deliver(ctx context.Context, d plugins.Delivery) error {
	if err := h.p.awake(ctx); err != nil {
		return err
	}
	w, e := h.p.m.w, d.Event
	line := &checker.Hook{At: w.load.Now(), ID: d.ID, Revision: uint64(e.Revision), Action: e.Action.String(), Lane: h.Lane(e)}
	if id, ok := strings.CutPrefix(string(e.Path), clients.RecordsPath+"/"); ok {
		r := clients.Record{ID: id, Modified: int64(e.LastModified), Deleted: d.New == nil}
		if d.New != nil {
			if err := json.Unmarshal(d.New.Data, &r); err != nil {
				return err
			}
		}
		line.Value = r.Value()
	}
	w.add(&checker.Line{Hook: line})
	w.noteRevision(line.Revision)
	return nil
}
