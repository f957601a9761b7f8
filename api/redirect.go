package api

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"quinto/api/resource"
)

// outside answers a path that is not under /v1: Kinto's redirects to this version
// and its 404 for other versions.
func (s *Server) outside(ctx *fasthttp.RequestCtx, r *resource.Request) *resource.Response {
	raw, _, _ := strings.Cut(string(ctx.Request.Header.RequestURI()), "?")
	if target, e := originForm(raw); e == nil {
		raw = target
	}
	path, _ := decodePath(raw)
	redirects := s.options.Config.Redirects
	switch {
	case path == prefix && redirects.Slash:
		return s.redirect(r, prefix+"/", redirects.SlashSeconds)
	case strings.HasPrefix(path, prefix) && strings.HasSuffix(path, "/") && redirects.Slash: // "/v10/", "/v1x/"
		return s.redirect(r, strings.TrimRight(path, "/"), redirects.SlashSeconds)
	case strings.HasPrefix(path, prefix):
		return s.unrouted(r, s.problem(errNotFound))
	case versioned(path), !redirects.Version:
		return s.unrouted(r, s.problem(errVersion))
	case r.Method == fasthttp.MethodOptions: // "CORS responses should always have status 200"
		return s.unrouted(r, &resource.Response{Status: fasthttp.StatusOK,
			Header: []resource.HeaderField{{Name: "Content-Type", Value: "text/html; charset=UTF-8"}}})
	default:
		return s.redirect(r, prefix+"/"+strings.TrimLeft(path, "/"), redirects.VersionSeconds)
	}
}

// versioned reports whether path begins with "/v" and a digit.
func versioned(path string) bool {
	return len(path) > 2 && path[:2] == "/v" && '0' <= path[2] && path[2] <= '9'
}

// slashRedirect returns where a path with slashes at its end leads. No path with
// one exists but the root.
func slashRedirect(r *resource.Request) (string, bool) {
	if !strings.HasSuffix(r.Path, "/") {
		return "", false
	}
	path := strings.TrimRight(r.Path, "/")
	return prefix + path, path != ""
}

// unrouted adds to an answer what it has where no endpoint is.
func (s *Server) unrouted(r *resource.Request, answer *resource.Response) *resource.Response {
	answer.Header = append(answer.Header, s.cors.Unrouted(r.Header["origin"])...)
	return answer
}

// redirect is a 307 to path with r's query, and the page that Kinto's framework
// makes for it. It may be kept for so many seconds; if they are negative, it does
// not say so.
func (s *Server) redirect(r *resource.Request, path string, seconds int) *resource.Response {
	location := (&url.URL{Path: path}).EscapedPath()
	if r.Query != "" {
		location += "?" + r.Query
	}
	contentType, body := resource.RedirectPage(r.Header["accept"], location)
	answer := &resource.Response{Status: fasthttp.StatusTemporaryRedirect, Body: []byte(body), Header: []resource.HeaderField{
		{Name: "Content-Type", Value: contentType},
		{Name: "Location", Value: r.Scheme + "://" + r.Host + location},
	}}
	now := time.Now()
	switch expires := (resource.HeaderField{Name: "Expires", Value: httpDate(now.Add(time.Duration(seconds) * time.Second))}); {
	case seconds > 0:
		answer.Header = append(answer.Header, resource.HeaderField{Name: "Cache-Control", Value: "max-age=" + strconv.Itoa(seconds)}, expires)
	case seconds == 0:
		answer.Header = append(answer.Header, resource.HeaderField{Name: "Cache-Control", Value: "max-age=0, must-revalidate, no-cache, no-store"},
			expires, resource.HeaderField{Name: "Last-Modified", Value: httpDate(now)}, resource.HeaderField{Name: "Pragma", Value: "no-cache"})
	}
	return s.unrouted(r, answer)
}
