package api

import (
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"quinto/api/resource"
)

// The lifetimes of the two redirects, Kinto's defaults for version_prefix_redirect_ttl_seconds
// (negative: no cache header) and trailing_slash_redirect_ttl_seconds.
const (
	versionRedirectTTL = -time.Second
	slashRedirectTTL   = time.Hour
)

// outside answers a path that is not under /v1: Kinto's redirects to this version
// and its 404 for other versions.
func (s *Server) outside(ctx *fasthttp.RequestCtx, r *resource.Request) *resource.Response {
	raw, _, _ := strings.Cut(string(ctx.Request.Header.RequestURI()), "?")
	if target, e := originForm(raw); e == nil {
		raw = target
	}
	path, _ := decodePath(raw)
	switch {
	case path == prefix:
		return redirect(r, prefix+"/", slashRedirectTTL)
	case strings.HasPrefix(path, prefix): // "/v10", "/v1x"
		return s.problem(errNotFound)
	case versioned(path):
		return s.problem(errVersion)
	case r.Method == fasthttp.MethodOptions: // "CORS responses should always have status 200"
		return &resource.Response{Status: fasthttp.StatusOK,
			Header: []resource.HeaderField{{Name: "Content-Type", Value: "text/html; charset=UTF-8"}}}
	default:
		return redirect(r, prefix+"/"+strings.TrimLeft(path, "/"), versionRedirectTTL)
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

// redirect is a 307 to path with r's query, and the page that Kinto's framework
// makes for it. A ttl of zero or more may be cached.
func redirect(r *resource.Request, path string, ttl time.Duration) *resource.Response {
	location := (&url.URL{Path: path}).EscapedPath()
	if r.Query != "" {
		location += "?" + r.Query
	}
	contentType, body := redirectPage(r.Header["accept"], location)
	answer := &resource.Response{Status: fasthttp.StatusTemporaryRedirect, Body: []byte(body), Header: []resource.HeaderField{
		{Name: "Content-Type", Value: contentType},
		{Name: "Location", Value: r.Scheme + "://" + r.Host + location},
	}}
	if ttl >= 0 {
		answer.Header = append(answer.Header,
			resource.HeaderField{Name: "Cache-Control", Value: "max-age=" + strconv.Itoa(int(ttl.Seconds()))},
			resource.HeaderField{Name: "Expires", Value: httpDate(time.Now().Add(ttl))})
	}
	return answer
}

func redirectPage(accept, location string) (contentType, body string) {
	const text = "The resource has been moved to %s; you should be redirected automatically."
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(accept, p) {
				return true
			}
		}
		return false
	}
	switch {
	case accept == "" || has("text/html", "text/*", "*/*"):
		return "text/html; charset=UTF-8", fmt.Sprintf("<html>\n <head>\n  <title>307 Temporary Redirect</title>\n </head>\n <body>\n"+
			"  <h1>307 Temporary Redirect</h1>\n  "+text+"\n\n\n </body>\n</html>", html.EscapeString(location))
	case has("application/json", "application/*"):
		message, _ := json.Marshal(fmt.Sprintf(text, location) + "\n\n\n") // a string always has JSON
		return "application/json", fmt.Sprintf(`{"message": %s, "code": "307 Temporary Redirect", "title": "Temporary Redirect"}`, message)
	default:
		return "text/plain; charset=UTF-8", "307 Temporary Redirect\n\n" + fmt.Sprintf(text, location) + "\n\n\n"
	}
}
