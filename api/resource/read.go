package resource

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"

	"quinto/api/query"
	"quinto/fsm"
	"quinto/plugins"
)

const (
	consistencyHeader = "quinto-consistency"
	consistencyParam  = "_consistency"
	stalenessHeader   = "Quinto-Staleness" // ms since the leader was heard, on stale answers
)

// freshness reads how fresh the answer must be: query parameter before header;
// linearizable when neither says anything.
func freshness(r *Request) (fsm.Freshness, error) {
	level, location, name := r.Header[consistencyHeader], "header", "Quinto-Consistency"
	if strings.Contains(r.Query, consistencyParam) {
		values, _ := url.ParseQuery(r.Query)
		if v := values.Get(consistencyParam); v != "" {
			level, location, name = v, "querystring", consistencyParam
		}
	}
	switch level {
	case "", "linearizable":
		return fsm.Freshness{}, nil
	case "stale":
		return fsm.Freshness{Level: fsm.Stale}, nil
	case "session":
		f := fsm.Freshness{Level: fsm.Session}
		if token := r.Header["quinto-revision"]; token != "" {
			n, err := strconv.ParseUint(token, 10, 64)
			if err != nil {
				return f, invalid(problem{location: "header", name: revisionHeader, description: "The value should be an integer."})
			}
			f.Revision = fsm.Revision(n)
		}
		return f, nil
	}
	return fsm.Freshness{}, invalid(problem{location: location, name: name,
		description: `"` + level + `" is not one of linearizable, session, stale`})
}

// read answers a request, or a batch, that does not write.
func (s *Service) read(ctx context.Context, r *Request, spec *batchSpec) *Response {
	fresh, err := freshness(r)
	if err != nil {
		return s.finish(nil, err, nil, s.staleRevision(ctx))
	}
	stale := fresh.Level == fsm.Stale
	if s.endpoints.local(r.Path) {
		fresh.Level = fsm.Stale
	}
	resp, err := s.patiently(ctx, func(ctx context.Context) (*Response, *plugins.Later) {
		return s.readOnce(ctx, r, spec, fresh, stale)
	})
	switch {
	case err != nil:
		return s.finish(nil, err, nil, s.staleRevision(ctx))
	case resp == nil: // not with the view of the read in hand, which would hold its memory meanwhile
		return s.write(ctx, r)
	}
	return resp
}

// readOnce answers from one view, or not at all when a plugin has to do slow work
// first, or nothing at all when the answer has to be written. stale says that the
// client asked for no better.
func (s *Service) readOnce(ctx context.Context, r *Request, spec *batchSpec, fresh fsm.Freshness, stale bool) (*Response, *plugins.Later) {
	begun := s.meter.Now()
	v, err := s.view(ctx, r, spec, fresh)
	if err != nil && r.Path == "/" {
		// Who asks what the server is gets an answer without a leader too.
		fresh.Level = fsm.Stale
		v, err = s.node.View(ctx, fresh)
	}
	if err != nil {
		return s.finish(nil, err, nil, s.staleRevision(ctx)), nil
	}
	defer v.Close()
	if fresh.Revision > 0 { // a session that shows what it has seen
		if err := checkLife(v, fresh.Revision); err != nil {
			return s.finish(nil, err, nil, v.Revision()), nil
		}
	}
	p := s.newReader(ctx, v, s.node.Now())
	out, err := p.run(r, spec)
	if wish := later(err); wish != nil {
		return nil, wish
	}
	if errors.Is(err, errWrites) {
		return nil, nil
	}
	s.meterStorage(begun, r)
	resp := s.finish(out, err, result(nil), v.Revision())
	resp.UserID = p.user()
	if stale || fresh.Level == fsm.Stale && r.Path == "/" {
		resp.Header = append(resp.Header, HeaderField{stalenessHeader, strconv.FormatInt(s.node.Staleness().Milliseconds(), 10)})
	}
	return resp, nil
}

// view gives the state for a read. A session that shows a revision which this
// node has not, or a time above that of a list it asks for, waits a little for the node to catch up; then the leader
// is asked, and what it says holds: a list that was made anew is a fact.
func (s *Service) view(ctx context.Context, r *Request, spec *batchSpec, f fsm.Freshness) (*fsm.View, error) {
	if f.Level != fsm.Session {
		return s.node.View(ctx, f)
	}
	wait, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.SessionWait)
	defer cancel()
	shown := allShownBy(r, spec, s.node.Now(), &f)
	v, err := s.node.View(wait, f)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return s.node.View(ctx, fsm.Freshness{Level: fsm.Linearizable})
	}
	for err == nil {
		var has bool
		if has, err = s.hasShown(ctx, v, shown); has {
			return v, nil
		}
		next := fsm.Freshness{Level: fsm.Session, Revision: v.Revision() + 1}
		v.Close()
		if err != nil {
			break
		}
		if v, err = s.node.View(wait, next); err != nil {
			return s.node.View(ctx, fsm.Freshness{Level: fsm.Linearizable})
		}
	}
	return nil, err
}

// shownTime is a time that a request, or a part of a batch, shows to have seen.
type shownTime struct {
	request *Request
	seen    fsm.Timestamp
}

// allShownBy is what a request shows, or each part of a batch, whose one view has to
// be as fresh as its most demanding part.
func allShownBy(r *Request, spec *batchSpec, now fsm.Timestamp, f *fsm.Freshness) (all []shownTime) {
	parts := []*Request{r}
	if spec != nil {
		parts = nil
		for i := range spec.requests {
			if part, _, ok := spec.requests[i].build(r); ok {
				parts = append(parts, part)
			}
		}
	}
	for _, part := range parts {
		if seen, ok := shownBy(part, now, f); ok {
			all = append(all, shownTime{part, seen})
		}
	}
	return all
}

// hasShown reports whether a view is as new as all that was shown of the lists.
func (s *Service) hasShown(ctx context.Context, v *fsm.View, shown []shownTime) (bool, error) {
	for _, t := range shown {
		list, ok, err := s.listOf(ctx, v, t.request)
		if err != nil {
			return false, err
		}
		if !ok {
			continue
		}
		if l, err := v.List(list); err != nil || l.Timestamp < t.seen {
			return false, err
		}
	}
	return true, nil
}

// checkLife refuses a revision that was given out by a life which a restore has undone.
func checkLife(v *fsm.View, shown fsm.Revision) error {
	lives, err := v.Lives()
	if err == nil && lives.Lost(shown) {
		err = errLostLife()
	}
	return err
}

// shownBy is the highest timestamp that a request shows to have seen. A page's token
// shows a revision too, which f is raised to: the client keeps the ETag of the first
// page, so a later page of an older state would lose for ever what came between.
func shownBy(r *Request, now fsm.Timestamp, f *fsm.Freshness) (seen fsm.Timestamp, ok bool) {
	for _, name := range []string{"if-match", "if-none-match"} {
		if c, valid := parseCondition(r.Header[name]); valid && c.given && !c.any && !c.never {
			seen, ok = max(seen, c.time), true
		}
	}
	if q, err := query.Parse(r.Query, query.Options{Now: int64(now)}); err == nil {
		if t, shown := q.SeenTimestamp(); shown {
			seen, ok = max(seen, fsm.Timestamp(t)), true
		}
		if q.Token != nil {
			f.Revision = max(f.Revision, fsm.Revision(q.Token.Revision))
		}
	}
	return seen, ok
}
