package api

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"quinto/api/resource"
)

// edgeError is a failure that the service never sees, in Kinto's terms.
type edgeError struct {
	status, errno int
	message       string
	close         bool // what follows on the connection cannot be trusted
}

// The failures of this package. Kinto's errno where it has one for the case.
var (
	errMalformed    = &edgeError{400, resource.ErrnoInvalidParameters, "The request could not be understood.", true}
	errPath         = &edgeError{400, resource.ErrnoInvalidParameters, "Invalid URL path.", false}
	errForbidden    = &edgeError{403, resource.ErrnoForbidden, "This user cannot access this resource.", false}
	errNotFound     = &edgeError{404, resource.ErrnoMissingResource, "The resource you are looking for could not be found.", false}
	errVersion      = &edgeError{404, resource.ErrnoVersion, "The requested API version is not available on this server.", false}
	errMethod       = &edgeError{405, resource.ErrnoMethodNotAllowed, "Method not allowed on this endpoint.", false}
	errSlow         = &edgeError{408, resource.ErrnoInvalidParameters, "The request did not arrive in time.", true}
	errGone         = &edgeError{410, resource.ErrnoServiceDeprecated, "The service you are trying to connect no longer exists at this location.", false}
	errBodyTooLarge = &edgeError{413, resource.ErrnoTooLarge, "The request body is too large.", true}
	errURITooLong   = &edgeError{414, resource.ErrnoInvalidParameters, "The URL is too long.", true}
	errEncoding     = &edgeError{415, resource.ErrnoInvalidParameters, "Content-Encoding is not supported: send the body as it is.", false}
	errHeaders      = &edgeError{431, resource.ErrnoInvalidParameters, "The request headers are too large.", true}
	errInternal     = &edgeError{500, resource.ErrnoUndefined, "A programmatic error occurred, developers have been informed.", true}
	errBusy         = &edgeError{503, resource.ErrnoBackend, busyMessage, true}
)

const busyMessage = "Service temporary unavailable due to overloading or maintenance, please retry later."

func malformed(why string) *edgeError {
	return &edgeError{errMalformed.status, errMalformed.errno, errMalformed.message + " " + why, true}
}

func badQuery(raw string) *edgeError {
	return &edgeError{400, resource.ErrnoInvalidParameters, "A request with an incorrect encoding in the querystring was" + // no blank in Kinto's either
		"received. Please make sure your requests are encoded in UTF-8: " + strings.ToValidUTF8(raw, "\uFFFD"), false}
}

// fail writes e as the answer.
func (s *Server) fail(ctx *fasthttp.RequestCtx, e *edgeError) {
	answer := s.problem(e)
	answer.Header = append(answer.Header, s.cors.Unrouted(string(ctx.Request.Header.Peek(fasthttp.HeaderOrigin)))...)
	s.render(ctx, answer)
	if e.close {
		ctx.SetConnectionClose()
		if e != errSlow { // nothing more is coming
			lingerOn(ctx.Conn(), lingerBodies*s.limits.BodyBytes)
		}
	}
}

// problem is e as an answer.
func (s *Server) problem(e *edgeError) *resource.Response {
	f := resource.Failure{Status: e.status, Errno: e.errno, Message: e.message}
	if e == errInternal {
		f.Info = s.options.Config.Project.ErrorInfoLink
	}
	r := jsonResponse(e.status, f.Body())
	if e.status == fasthttp.StatusServiceUnavailable {
		seconds := int(s.options.Config.Timeouts.RetryAfter.Seconds())
		r.Header = append(r.Header, resource.HeaderField{Name: "Retry-After", Value: strconv.Itoa(seconds)})
	}
	return r
}

func jsonResponse(status int, body []byte) *resource.Response {
	return &resource.Response{Status: status, Body: body,
		Header: []resource.HeaderField{{Name: "Content-Type", Value: "application/json"}}}
}

// parseError is fasthttp's error hook: the bytes received are no request that
// this server takes. The connection is closed after the answer.
func (s *Server) parseError(ctx *fasthttp.RequestCtx, err error) {
	busy := s.bodies.refused(&ctx.Request.Header)
	s.bodies.release(&ctx.Request.Header)
	var small *fasthttp.ErrSmallBuffer
	var timeout net.Error
	switch {
	case errors.As(err, &small):
		s.fail(ctx, errHeaders)
	case errors.Is(err, fasthttp.ErrBodyTooLarge) && busy:
		s.fail(ctx, errBusy)
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		s.fail(ctx, errBodyTooLarge)
	case errors.As(err, &timeout) && timeout.Timeout():
		s.fail(ctx, errSlow)
	default:
		s.fail(ctx, errMalformed)
	}
}

// fiberError answers what Fiber or a plugin's route refuses.
func (s *Server) fiberError(c *fiber.Ctx, err error) error {
	var f *fiber.Error
	e := errInternal
	if errors.As(err, &f) {
		switch {
		case f.Code == fiber.StatusNotFound:
			e = errNotFound
		case f.Code == fiber.StatusMethodNotAllowed:
			e = errMethod
		case f.Code < fiber.StatusInternalServerError:
			e = &edgeError{f.Code, resource.ErrnoInvalidParameters, f.Message, false}
		}
	}
	if e == errInternal {
		s.logger.Error("route failed", "method", c.Method(), "path", c.Path(), "error", err)
	}
	allow := string(c.Response().Header.Peek(fiber.HeaderAllow))
	s.fail(c.Context(), e)
	if allow != "" {
		c.Set(fiber.HeaderAllow, allow)
	}
	return nil
}

// refusal is the whole answer, as bytes, to a connection beyond the limit.
func refusal(retryAfter time.Duration) []byte {
	body := resource.ErrorBody(errBusy.status, errBusy.errno, errBusy.message)
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"Retry-After: %d\r\nConnection: close\r\nX-Content-Type-Options: %s\r\nContent-Security-Policy: %s\r\n\r\n%s",
		len(body), int(retryAfter.Seconds()), contentTypeOptions, contentSecurityPolicy, body)
}
