package resource

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

const (
	// MaxIdempotencyKeyBytes bounds a client's Idempotency-Key.
	MaxIdempotencyKeyBytes = 256
	// maxConflicts is how often a plan is made again before the proposer itself
	// makes it, with nothing in flight.
	maxConflicts = 3
	// retryPause is how long to wait before another node or the same is asked
	// again, with jitter of as much.
	retryPause = 25 * time.Millisecond
)

// write answers a request that may write: it is decided on the leader, here or
// over there. While the time of the request allows, it is tried again with the
// same id, so that it is done at most once.
func (s *Service) write(ctx context.Context, r *Request) *Response {
	if key := r.Header["idempotency-key"]; len(key) > MaxIdempotencyKeyBytes {
		return s.finish(nil, invalid(problem{location: "header", name: "Idempotency-Key",
			description: fmt.Sprintf("Longer than %d bytes", MaxIdempotencyKeyBytes)}), nil, s.staleRevision(ctx))
	}
	attempt := *r
	noLeaderBy := time.Now().Add(s.cfg.Timeouts.LeaderWait)
	for {
		resp := s.writeOnce(ctx, &attempt)
		switch resp.outcome {
		case outcomeDone:
			return resp
		case outcomeUnknown:
			attempt.retry = true
		case outcomeNotLeader:
			if time.Now().After(noLeaderBy) && !attempt.retry {
				return s.finish(nil, fsm.ErrNoLeader, nil, s.staleRevision(ctx))
			}
		}
		select {
		case <-time.After(retryPause + rand.N(retryPause)):
		case <-ctx.Done():
			err := fsm.ErrNoLeader
			if attempt.retry {
				err = fsm.ErrUnknownOutcome
			}
			return s.finish(nil, err, nil, s.staleRevision(context.WithoutCancel(ctx)))
		}
	}
}

// writeOnce decides on this node if it leads, else forwards.
func (s *Service) writeOnce(ctx context.Context, r *Request) *Response {
	if s.node.IsLeader() {
		if resp := s.decide(ctx, r); resp.outcome != outcomeNotLeader {
			return resp
		}
	}
	if r.Hop >= MaxHops {
		return &Response{outcome: outcomeNotLeader}
	}
	forwarded := *r
	forwarded.Hop++
	answer, err := s.node.Forward(ctx, EncodeRequest(&forwarded))
	switch {
	case err == nil:
		resp, err := DecodeResponse(answer)
		if err != nil {
			s.log.Error("answer of the leader", "error", err)
			return &Response{outcome: outcomeUnknown}
		}
		return resp
	case errors.Is(err, fsm.ErrNoLeader), errors.Is(err, fsm.ErrNotLeader):
		return &Response{outcome: outcomeNotLeader}
	case errors.Is(err, fsm.ErrOverloaded), errors.Is(err, fsm.ErrTooLarge):
		return s.undone(ctx, r, err)
	}
	return &Response{outcome: outcomeUnknown}
}

// undone answers an error that means that nothing was done by this attempt.
func (s *Service) undone(ctx context.Context, r *Request, err error) *Response {
	if r.retry {
		return &Response{outcome: outcomeUnknown} // by this one, but an earlier one may have
	}
	return s.finish(nil, err, nil, s.staleRevision(ctx))
}

// Serve answers a request that another node forwarded. It is what Node.Handle
// is given.
func (s *Service) Serve(ctx context.Context, request []byte) []byte {
	r, err := DecodeRequest(request)
	if err != nil {
		s.log.Error("forwarded request", "error", err)
		return EncodeResponse(s.finish(nil, err, nil, 0))
	}
	r.Hop = max(r.Hop, MaxHops)
	return EncodeResponse(s.decide(ctx, r))
}

// decide plans and proposes r on the leader. Requests on one object, and those
// with one Idempotency-Key, wait for each other: the first saves them a
// conflict, the second is the promise of the key.
func (s *Service) decide(ctx context.Context, r *Request) *Response {
	var spec *batchSpec
	if r.Path == batchPath {
		var err error
		if spec, err = s.batchSpec(r); err != nil {
			return s.finish(nil, err, nil, s.staleRevision(ctx))
		}
	}
	resp, err := s.patiently(ctx, func(ctx context.Context) (*Response, *plugins.Later) {
		return s.decideLocked(ctx, r, spec)
	})
	if err != nil {
		return s.undone(ctx, r, err)
	}
	return resp
}

// decideLocked decides under the locks of the request. It returns without an answer
// when a plugin has to do slow work first.
func (s *Service) decideLocked(ctx context.Context, r *Request, spec *batchSpec) (*Response, *plugins.Later) {
	for _, key := range s.lockKeys(r) {
		unlock, err := s.locks.lock(ctx, key)
		if err != nil {
			return s.undone(ctx, r, err), nil
		}
		defer unlock()
	}
	if !r.retry {
		for range maxConflicts {
			resp, wish, conflict := s.propose(ctx, r, spec)
			if !conflict {
				return resp, wish
			}
		}
	}
	return s.proposeExclusive(ctx, r, spec)
}

func (s *Service) lockKeys(r *Request) (keys []string) {
	switch {
	case r.Header["idempotency-key"] != "":
		keys = append(keys, "key\x00"+r.Header["authorization"]+"\x00"+r.Header["idempotency-key"])
	case r.Hop > 0 || r.retry:
		keys = append(keys, "id\x00"+string(r.ID))
	}
	switch r.Method {
	case http.MethodPut, http.MethodPatch, http.MethodDelete:
		keys = append(keys, r.Path)
	}
	return keys
}

// decision is what a plan came to: a transaction and the outline of its answer;
// or, without ops, the finished answer; or the wish to do slow work first.
type decision struct {
	wish *plugins.Later
	txn  fsm.Txn
	out  *outline
	resp *Response
}

// decideOn plans r on v, which must be fresh from LeaderView or the proposer.
// What was remembered of the request's id is answered before anything else is
// looked at: a retried request must not be refused for its own effect.
func (s *Service) decideOn(ctx context.Context, v *fsm.View, r *Request, spec *batchSpec) (d decision) {
	v.Record()
	p := s.newWriter(ctx, v, s.node.Now())
	defer func() {
		if d.resp != nil {
			d.resp.UserID = p.user()
		}
	}()
	done := func(err error) decision {
		if wish := later(err); wish != nil {
			return decision{wish: wish}
		}
		return decision{resp: s.finish(nil, err, nil, v.Revision())}
	}
	who, err := p.identify(r)
	if err != nil {
		return done(err)
	}
	id, hash := requestID(r, who), requestHash(r)
	// A first attempt has done nothing before. Should it come late, behind its own
	// retry, Apply knows its id, and nobody waits for the answer any more.
	if r.retry || r.Header["idempotency-key"] != "" {
		stored, err := v.Request(id)
		if err != nil {
			return done(err)
		}
		if stored != nil {
			return decision{resp: s.again(v, stored, hash)}
		}
	}
	out, err := p.run(r, spec)
	if err != nil {
		return done(err)
	}
	if len(p.ops) == 0 {
		return decision{resp: s.finish(out, nil, result(nil), v.Revision())}
	}
	compares, err := p.compares()
	if err != nil {
		return done(err)
	}
	return decision{out: out, txn: fsm.Txn{RequestID: id, RequestHash: hash, UserID: who.user, Now: p.now, Compares: compares,
		Ops: p.ops, Reply: out.encode()}}
}

// propose plans r and proposes it; conflict asks for another plan.
func (s *Service) propose(ctx context.Context, r *Request, spec *batchSpec) (resp *Response, wish *plugins.Later, conflict bool) {
	v, term, err := s.node.LeaderView()
	if err != nil {
		return s.failed(ctx, r, err), nil, false
	}
	d := s.decideOn(ctx, v, r, spec)
	seen := v.Applied()
	v.Close()
	if d.resp != nil {
		if d, err = s.settle(ctx, r, spec, term, seen, d); err != nil {
			return s.failed(ctx, r, err), nil, false
		}
	}
	if d.wish != nil || d.resp != nil {
		return d.resp, d.wish, false
	}
	begun := s.meter.Now()
	res, err := s.node.Propose(ctx, d.txn)
	s.meterStorage(begun, r)
	if err != nil {
		return s.failed(ctx, r, err), nil, false
	}
	if res.Conflict != nil {
		return nil, nil, true
	}
	return s.committed(ctx, r, &d, &res), nil, false
}

// settle makes sure that d, an answer without a transaction, was decided on a state that
// has all that was committed when the request came. The leader is the first to know that
// an entry is committed, but may be the last to apply it: a follower could have shown it
// already. seen is the last entry of the view that d was decided on. If there are more by
// now, it is decided again, and may then want to write.
func (s *Service) settle(ctx context.Context, r *Request, spec *batchSpec, term, seen uint64, d decision) (decision, error) {
	if err := s.node.Confirm(ctx, term); err != nil {
		return d, err
	}
	v, err := s.node.View(ctx, fsm.Freshness{Level: fsm.Stale}) // Confirm has waited for it
	if err != nil {
		return d, err
	}
	defer v.Close()
	if v.Applied() == seen {
		return d, nil
	}
	return s.decideOn(ctx, v, r, spec), nil
}

// proposeExclusive has the plan made by the proposer, where it cannot lose.
func (s *Service) proposeExclusive(ctx context.Context, r *Request, spec *batchSpec) (*Response, *plugins.Later) {
	v, term, err := s.node.LeaderView()
	if err != nil {
		return s.failed(ctx, r, err), nil
	}
	v.Close()
	var d decision
	res, err := s.node.ProposeExclusive(ctx, func(v *fsm.View) (fsm.Txn, error) {
		d = s.decideOn(ctx, v, r, spec)
		return d.txn, nil
	})
	switch {
	case err != nil:
		return s.failed(ctx, r, err), nil
	case d.wish != nil:
		return nil, d.wish
	case d.resp != nil:
		if err := s.node.Confirm(ctx, term); err != nil {
			return s.failed(ctx, r, err), nil
		}
		return d.resp, nil
	case res.Conflict != nil: // the leader changed under the plan
		return &Response{outcome: outcomeNotLeader}, nil
	}
	return s.committed(ctx, r, &d, &res), nil
}

// committed renders the answer of an applied transaction. A transaction that
// Apply knew already answers as the first one did.
func (s *Service) committed(ctx context.Context, r *Request, d *decision, res *fsm.Result) *Response {
	if res.Replayed == nil {
		out := d.out
		if out.unstored != nil {
			out = out.unstored
		}
		resp := s.finish(out, nil, result(res.Objects), res.Revision)
		resp.UserID = d.txn.UserID
		return resp
	}
	v, _, err := s.node.LeaderView()
	if err != nil {
		return &Response{outcome: outcomeUnknown} // it was done: ask again for its answer
	}
	defer v.Close()
	return s.again(v, res.Replayed, d.txn.RequestHash)
}

// failed answers an error of the node.
func (s *Service) failed(ctx context.Context, r *Request, err error) *Response {
	switch {
	case errors.Is(err, fsm.ErrNotLeader), errors.Is(err, fsm.ErrNoLeader):
		return &Response{outcome: outcomeNotLeader}
	case errors.Is(err, fsm.ErrOverloaded), errors.Is(err, fsm.ErrTooLarge), errors.Is(err, fsm.ErrNoSpace),
		errors.Is(err, fsm.ErrHalted), errors.Is(err, fsm.ErrClosed):
		return s.undone(ctx, r, err)
	}
	if !errors.Is(err, fsm.ErrUnknownOutcome) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		s.log.Error("write", "error", err)
	}
	return &Response{outcome: outcomeUnknown}
}

// again renders the answer of a remembered transaction.
func (s *Service) again(v *fsm.View, stored *fsm.StoredRequest, hash []byte) *Response {
	if !bytes.Equal(stored.Hash, hash) {
		return s.finish(nil, invalid(problem{location: "header", name: "Idempotency-Key",
			description: "The key was used for another request"}), nil, v.Revision())
	}
	out, err := decodeOutline(stored.Reply)
	if err == nil {
		var resp *Response
		if resp, err = out.render(s.shown(&replay{v, stored.Refs})); err == nil {
			return s.finish(&outline{status: resp.Status, fields: resp.Header, parts: []part{{literal: resp.Body}}}, nil, nil, stored.Revision)
		}
	}
	if errors.Is(err, fsm.ErrTrimmed) {
		err = &Failure{Status: 409, Errno: ErrnoConstraint, Message: "The request was done before, and what it wrote is no longer kept."}
	}
	return s.finish(nil, err, nil, v.Revision())
}

// requestID is what makes a request unique: the client's key per user, else the
// id that the receiving node gave it.
func requestID(r *Request, who *identity) []byte {
	key := r.Header["idempotency-key"]
	if key == "" {
		return r.ID
	}
	sum := sha256.Sum256([]byte(who.user + "\x00" + key))
	return sum[:]
}

// requestHash tells requests with the same id apart. It is stored, so it leaves out
// a body that may hold a password, which could be guessed from a plain hash.
func requestHash(r *Request) []byte {
	h := sha256.New()
	for _, part := range []string{r.Method, r.Path, r.Query, r.Header["content-type"]} {
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		_, _ = h.Write([]byte(part))
	}
	if !bytes.Contains(r.Body, []byte("password")) {
		_, _ = h.Write(r.Body)
	}
	return h.Sum(nil)
}
