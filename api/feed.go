package api

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"quinto/api/live"
	"quinto/api/resource"
	"quinto/fsm"
)

// Limits of the feeds of changes.
const (
	MaxFeedWait     = 25 * time.Second // that a feed waits for a change, below the time of a request
	DefaultFeedPage = 100
	MaxFeedPage     = 1000
	maxFeedBytes    = 4 << 20 // of a page; one change is always shown
	maxFeedEvents   = 20_000  // of the log, looked at for one page
)

// feed answers GET of the changes that the user may see, after a revision.
func (s *Server) feed(ctx context.Context, r *resource.Request) *resource.Response {
	return s.cors.Endpoint(r, utilityMethods, func() *resource.Response {
		f, bad := readFeed(r)
		if bad != "" {
			return s.problem(&edgeError{fasthttp.StatusBadRequest, resource.ErrnoInvalidParameters, bad, false})
		}
		return s.answerFeed(ctx, r, f)
	})
}

// feedQuery is what a feed is asked.
type feedQuery struct {
	since   fsm.Revision
	mark    string
	resumes bool
	limit   int
	wait    time.Duration
}

func readFeed(r *resource.Request) (f feedQuery, bad string) {
	values, err := url.ParseQuery(r.Query)
	if err != nil {
		return f, "The query is not well formed."
	}
	f.limit = DefaultFeedPage
	if text := values.Get(resource.SinceParam); text != "" {
		if f.since, f.mark, err = live.ParseID(text); err != nil {
			return f, resource.SinceParam + " in querystring: not the id of a change."
		}
		f.resumes = true
	}
	if text := values.Get("_limit"); text != "" {
		if f.limit, err = strconv.Atoi(text); err != nil || f.limit < 1 {
			return f, "_limit in querystring: a number above 0 is needed."
		}
		f.limit = min(f.limit, MaxFeedPage)
	}
	if text := values.Get(resource.WaitParam); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return f, resource.WaitParam + " in querystring: a number of seconds is needed."
		}
		f.wait = min(time.Duration(seconds)*time.Second, MaxFeedWait)
	}
	return f, ""
}

func (s *Server) answerFeed(ctx context.Context, r *resource.Request, f feedQuery) *resource.Response {
	watch, v, refusal := s.options.Live.Watch(ctx, r, f.since)
	if refusal != nil {
		return refusal
	}
	wait, cancel := context.WithTimeout(ctx, f.wait)
	defer cancel()
	for {
		p, err := s.feedPage(ctx, watch, v, f)
		v.Close()
		if err != nil {
			s.logger.Error("a feed of changes could not be read", "error", err)
			return s.problem(errInternal)
		}
		if p.count > 0 || p.more || f.wait == 0 || p.reset {
			return p.response(watch)
		}
		err = s.options.Live.Await(wait, watch, p.at)
		switch {
		case errors.Is(err, fsm.ErrOverloaded):
			return s.problem(errBusy)
		case err != nil: // time is up, or the node stops
			return p.response(watch)
		}
		f.since, f.mark, f.resumes = p.at, "", true
		if v, err = s.options.Live.View(); err != nil {
			return p.response(watch)
		}
	}
}

// page is a piece of a feed.
type page struct {
	body  []byte
	count int
	at    fsm.Revision // shown up to it
	mark  string
	more  bool
	reset bool
}

func (p *page) response(w *resource.Watch) *resource.Response {
	next := live.EventID(p.at, p.mark)
	b := append(p.body, `],"next":"`+next+`","more":`...)
	b = strconv.AppendBool(b, p.more)
	if p.reset {
		b = append(b, `,"reset":true`...)
	}
	resp := jsonResponse(fasthttp.StatusOK, append(b, '}'))
	resp.Header = append(resp.Header, resource.HeaderField{Name: fasthttp.HeaderCacheControl, Value: "no-store"},
		resource.HeaderField{Name: revisionHeader, Value: strconv.FormatUint(uint64(p.at), 10)})
	resp.UserID = w.User()
	return resp
}

// feedPage reads a page. Without a point to go on from, it is an empty one that
// says where the feed stands; where the log no longer has that point, too, and it
// says reset.
func (s *Server) feedPage(ctx context.Context, w *resource.Watch, v *fsm.View, f feedQuery) (*page, error) {
	p := &page{body: []byte(`{"data":[`), at: f.since, mark: live.HistoryMark(v)}
	if !f.resumes || live.Lost(v, f.since, f.mark) != "" {
		p.at, p.reset = v.Revision(), f.resumes
		return p, nil
	}
	seen := 0
	var failed error
	err := v.Events(f.since, func(e *fsm.Event) bool {
		if p.more = p.count >= f.limit || p.count > 0 && len(p.body) > maxFeedBytes || seen >= maxFeedEvents; p.more {
			return false
		}
		seen++
		var b []byte
		if b, failed = s.options.Live.Show(ctx, w, v, e); failed != nil {
			return false
		}
		if b != nil {
			if p.count++; p.count > 1 {
				p.body = append(p.body, ',')
			}
			p.body = append(p.body, b...)
		}
		p.at = e.Revision
		return true
	})
	if live.StartsOver(failed) {
		return &page{body: []byte(`{"data":[`), at: v.Revision(), mark: p.mark, reset: true}, nil
	}
	if err = errors.Join(err, failed); err == nil && !p.more {
		p.at = v.Revision()
	}
	return p, err
}
