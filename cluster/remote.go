package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// Outcome is what a transaction did that was proposed on any node.
type Outcome struct {
	// Revision of the state after it.
	Revision fsm.Revision
	// Conflict: a compare no longer held, and nothing was done.
	Conflict bool
}

// ProposeAnywhere replicates t through the leader, whichever node that is, with
// the leader's clock. It is for the administrator's own writes: nobody's
// permissions are looked at. It waits up to 2 s for a leader. Nothing was done:
// fsm.ErrNoLeader, ErrOverloaded, ErrTooLarge, ErrNoSpace or ErrRefused. Perhaps
// something was: fsm.ErrUnknownOutcome. On success this node's own state is at
// least at the returned revision.
func (n *Node) ProposeAnywhere(ctx context.Context, t fsm.Txn) (Outcome, error) {
	payload, err := encodeTxn(&t, fsm.FeatureCurrent) // the leader knows the level
	if err != nil {
		return Outcome{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ForwardTimeout)
	defer cancel()
	var out Outcome
	err = n.askLeader(ctx, func(ctx context.Context, l leader) error {
		if l.self {
			t.Now = n.Now()
			r, err := n.Propose(ctx, t)
			out = Outcome{Revision: r.Revision, Conflict: r.Conflict != nil}
			return err
		}
		f, err := n.client.call(ctx, l.name, l.addr, callPropose, payload)
		switch {
		case errors.Is(err, fsm.ErrOverloaded): // by this node's own bound
			return err
		case errors.Is(err, errUnsent):
			return fmt.Errorf("%w: %w", fsm.ErrNotLeader, err)
		case err != nil:
			return fmt.Errorf("%w: %w", fsm.ErrUnknownOutcome, err)
		case f.status == statusRefused:
			return fmt.Errorf("%w: the leader: %s", ErrRefused, f.payload)
		}
		if err := forwardStatus(f); err != nil {
			return err
		}
		out, err = decodeOutcome(f.payload)
		return err
	})
	if err == nil {
		err = n.fsm.Wait(ctx, out.Revision)
	}
	return out, err
}

// servePropose is the other end.
func (n *Node) servePropose(ctx context.Context, payload []byte) (callStatusCode, []byte) {
	t, err := fsm.DecodeTxn(payload)
	if err != nil {
		return statusRefused, []byte(err.Error())
	}
	t.Now = n.Now()
	r, err := n.Propose(ctx, t)
	switch {
	case err == nil:
		return statusOK, (&Outcome{Revision: r.Revision, Conflict: r.Conflict != nil}).encode()
	case errors.Is(err, fsm.ErrNotLeader):
		return statusNotLeader, nil
	case errors.Is(err, fsm.ErrOverloaded):
		return statusOverloaded, nil
	case errors.Is(err, fsm.ErrUnknownOutcome):
		return statusFailed, []byte(err.Error())
	default:
		return statusRefused, []byte(err.Error())
	}
}

func (o *Outcome) encode() []byte {
	return appendBool(binary.AppendUvarint(nil, uint64(o.Revision)), o.Conflict)
}

func decodeOutcome(b []byte) (Outcome, error) {
	d := decoder{b: b}
	o := Outcome{Revision: fsm.Revision(d.uint()), Conflict: d.bool()}
	return o, d.err
}

// StoredMembers returns the names of the members as this node's own log and
// snapshot have them, nil when the directory has never belonged to a cluster. Call
// it between Open and Start: it is how a command knows whether a stopped node may
// be started alone.
func (n *Node) StoredMembers() ([]string, error) {
	var c raft.Configuration
	if meta, ok := n.store.SnapshotMeta(); ok {
		c = meta.Configuration
	}
	first, err := n.logs.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := n.logs.LastIndex()
	if err != nil {
		return nil, err
	}
	var l raft.Log
	for i := last; i >= first && i > 0; i-- {
		if err := n.logs.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			break
		} else if err != nil {
			return nil, err
		}
		if l.Type == raft.LogConfiguration {
			c = raft.DecodeConfiguration(l.Data)
			break
		}
	}
	var names []string
	for _, s := range c.Servers {
		names = append(names, string(s.ID))
	}
	if names == nil {
		for _, f := range n.ident.get().Bootstrap {
			names = append(names, f.Name)
		}
	}
	return names, nil
}
