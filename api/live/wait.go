package live

import (
	"context"
	"fmt"

	"quinto/api/resource"
	"quinto/fsm"
)

// Await returns when there may be something for w after a revision, or with ctx's
// error. fsm.ErrOverloaded when MaxWaits others wait already. It may return early.
func (h *Hub) Await(ctx context.Context, w *resource.Watch, after fsm.Revision) error {
	select {
	case h.waits <- struct{}{}:
		defer func() { <-h.waits }()
	default:
		return fmt.Errorf("%w: %d feeds wait for a change", fsm.ErrOverloaded, MaxWaits)
	}
	st := &Stream{hub: h, watch: w, user: w.User(), signal: make(chan struct{}, 1)}
	again, err := st.join(after)
	if err != nil || again {
		return err
	}
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		st.leave()
	}()
	select {
	case <-st.signal:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.base.Done():
		return fsm.ErrClosed
	}
}

// Watch is Service.Watch for a feed.
func (h *Hub) Watch(ctx context.Context, r *resource.Request, since fsm.Revision) (*resource.Watch, *fsm.View, *resource.Response) {
	return h.o.Service.Watch(ctx, r, "", since)
}

// View returns the node's own state; the caller closes it.
func (h *Hub) View() (*fsm.View, error) { return h.o.State.View() }

// Watches reports whether there are streams at a path.
func (h *Hub) Watches(path string) bool { return h.o.Service.Watches(path) }

// Header are the headers of CORS of a stream.
func (h *Hub) Header(r *resource.Request) []resource.HeaderField { return h.o.Service.SharedHeader(r) }

// Claim uses a ticket and returns whom it stands for. The answer, when not nil, is
// the refusal.
func (h *Hub) Claim(ctx context.Context, r *resource.Request, ticket string) (string, *resource.Response) {
	return h.o.Service.ClaimTicket(ctx, r, ticket)
}

// Show is what a watch is told of an event of the log, a JSON object; nil: nothing.
// An error for which StartsOver holds: what is known has to be read again.
func (h *Hub) Show(ctx context.Context, w *resource.Watch, v *fsm.View, e *fsm.Event) ([]byte, error) {
	return show(ctx, h.o.Service, w, v, e)
}

// Lost says why nobody can go on after a revision of the history that mark is of
// (empty: not known); empty: it can be done.
func Lost(v *fsm.View, since fsm.Revision, mark string) string { return lost(v, since, mark) }

// StartsOver reports whether an error of Show means that the client has to read
// again what it watches.
func StartsOver(err error) bool {
	_, is := restart(err)
	return is
}
