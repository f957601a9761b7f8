package api

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"quinto/api/resource"
)

// Kinto sends these on every answer (kinto.core.initialization).
const (
	contentTypeOptions = "nosniff"
	// revisionHeader stands on every answer: this is the revision it shows or made.
	revisionHeader = "Quinto-Revision"
	// backoffHeader asks clients for seconds between requests (Kinto 8.3).
	backoffHeader         = "Backoff"
	contentSecurityPolicy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
)

// render writes r as the answer. To HEAD the server sends the head that GET would
// get; r may hold the body, or its length as a Content-Length header.
func (s *Server) render(ctx *fasthttp.RequestCtx, r *resource.Response) {
	ctx.Response.SetStatusCode(r.Status)
	if x := s.exchange(ctx); x != nil {
		x.answer = r
	}
	h := &ctx.Response.Header
	h.DisableNormalizing() // names go out as they are written: ETag, not Etag
	for _, f := range r.Header {
		switch {
		case strings.EqualFold(f.Name, fasthttp.HeaderContentType):
			h.SetContentType(f.Value)
		case strings.EqualFold(f.Name, fasthttp.HeaderContentLength):
			if n, err := strconv.Atoi(f.Value); err == nil && ctx.IsHead() {
				h.SetContentLength(n)
			}
		default:
			h.Add(f.Name, f.Value) // a name may repeat: WWW-Authenticate
		}
	}
	if len(h.Peek(fasthttp.HeaderXContentTypeOptions)) == 0 && r.Status != fasthttp.StatusGone { // as Kinto does
		h.Set(fasthttp.HeaderXContentTypeOptions, contentTypeOptions)
	}
	if len(h.Peek(fasthttp.HeaderContentSecurityPolicy)) == 0 {
		h.Set(fasthttp.HeaderContentSecurityPolicy, contentSecurityPolicy)
	}
	if len(h.Peek(revisionHeader)) == 0 { // an answer that the service did not make
		h.Set(revisionHeader, strconv.FormatUint(uint64(s.options.State.Revision()), 10))
	}
	if c := s.options.Config; c.Backoff > 0 && rand.IntN(100) < c.BackoffPercentage {
		h.Set(backoffHeader, strconv.Itoa(c.Backoff))
	}
	if text := s.alerts.at(time.Now()); text != "" {
		h.Set(alertHeader, text)
	}
	ctx.Response.SetBodyRaw(r.Body) // not copied: an answer is never changed
}
