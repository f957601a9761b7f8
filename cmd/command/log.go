package command

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// handler writes what plugins log through slog to the node's logger.
type handler struct {
	log   hclog.Logger
	group string
}

var _ slog.Handler = (*handler)(nil)

func hcLevel(l slog.Level) hclog.Level {
	switch {
	case l >= slog.LevelError:
		return hclog.Error
	case l >= slog.LevelWarn:
		return hclog.Warn
	case l >= slog.LevelInfo:
		return hclog.Info
	}
	return hclog.Debug
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool {
	return hcLevel(l) >= h.log.GetLevel()
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var args []any
	r.Attrs(func(a slog.Attr) bool {
		args = append(args, h.group+a.Key, a.Value.Any())
		return true
	})
	h.log.Log(hcLevel(r.Level), r.Message, args...)
	return nil
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var args []any
	for _, a := range attrs {
		args = append(args, h.group+a.Key, a.Value.Any())
	}
	return &handler{log: h.log.With(args...), group: h.group}
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{log: h.log, group: h.group + name + "."}
}
