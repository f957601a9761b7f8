package resource

import (
	"context"
	"errors"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// Reauthenticate asks the policies again who sends the Authorization header, when
// that can have changed without a change of an object: tokens expire. It reports
// whether it is still this user. It may be called while another method runs.
// A ticket knows of no expiry: its stream holds for TicketStream.
func (w *Watch) Reauthenticate(ctx context.Context, v *fsm.View, user string) (bool, error) {
	header := w.request.Header["authorization"]
	if w.ticket != "" {
		return time.Since(w.opened) < TicketStream, nil
	}
	if header == "" {
		return true, nil
	}
	same, failed := true, error(nil)
	_, err := w.s.patiently(ctx, func(ctx context.Context) (*Response, *plugins.Later) {
		who, err := identify(ctx, w.s.policies, header, v, w.s.meter)
		if wish := later(err); wish != nil {
			return nil, wish
		}
		if failed = err; err == nil {
			same = who.user == user
		}
		return nil, nil
	})
	return same, errors.Join(failed, err)
}
