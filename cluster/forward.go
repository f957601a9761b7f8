package cluster

import (
	"context"
	"errors"
	"fmt"

	"quinto/fsm"
)

// Handler decides a forwarded request on the leader and returns the answer. It
// must not keep request. A nil answer says that this node turned out not to
// lead and that nothing was done: the caller may try again elsewhere.
type Handler func(ctx context.Context, request []byte) []byte

// Handle sets what Forward reaches on the leader. Call it before Start.
func (n *Node) Handle(h func(ctx context.Context, request []byte) []byte) { n.handler = h }

// Forward takes a whole request to the leader's handler and returns its answer:
// one hop, with the deadline of ctx (at most ForwardTimeout). It waits up to 2 s
// for a leader. Nothing was done: fsm.ErrNoLeader, ErrOverloaded, ErrTooLarge.
// Perhaps something was: fsm.ErrUnknownOutcome; send again only with the same
// request id. On the leader itself the handler is called directly.
func (n *Node) Forward(ctx context.Context, request []byte) ([]byte, error) {
	if len(request) > MaxCallBytes {
		return nil, fmt.Errorf("%w: request of %d bytes", fsm.ErrTooLarge, len(request))
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ForwardTimeout)
	defer cancel()
	var answer []byte
	err := n.askLeader(ctx, func(ctx context.Context, l leader) error {
		if l.self {
			if n.handler == nil {
				return fsm.ErrNotLeader
			}
			if answer = n.handler(ctx, request); answer == nil {
				return fsm.ErrNotLeader
			}
			return nil
		}
		f, err := n.client.call(ctx, l.name, l.addr, callForward, request)
		switch {
		case errors.Is(err, fsm.ErrOverloaded): // by this node's own bound
			return err
		case errors.Is(err, errUnsent):
			return fmt.Errorf("%w: %w", fsm.ErrNotLeader, err)
		case err != nil:
			return fmt.Errorf("%w: %w", fsm.ErrUnknownOutcome, err)
		}
		answer = f.payload
		return forwardStatus(f)
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func forwardStatus(f *frame) error {
	switch f.status {
	case statusOK:
		return nil
	case statusOverloaded:
		return fmt.Errorf("%w: the leader", fsm.ErrOverloaded)
	case statusNotLeader, statusUnknown: // unknown: of this stranger, or to an older node
		return fsm.ErrNotLeader
	default:
		return fmt.Errorf("%w: the leader says %q", fsm.ErrUnknownOutcome, f.payload)
	}
}

// serveForward is the other end. A node that does not lead never passes a
// request on: two nodes that take each other for the leader would play ball.
func (n *Node) serveForward(ctx context.Context, request []byte) (callStatusCode, []byte) {
	if !n.IsLeader() || n.handler == nil {
		return statusNotLeader, nil
	}
	answer := n.handler(ctx, request)
	if answer == nil {
		return statusNotLeader, nil
	}
	return statusOK, answer
}
