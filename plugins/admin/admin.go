// Package admin is Kinto's plugin kinto.plugins.admin: it serves the built web
// console kinto-admin below /admin/. The bundle is not part of this program: the
// setting admin_assets_path names the folder that holds it.
package admin

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"quinto/plugins"
)

func init() {
	plugins.Register(plugins.Module{Name: "kinto.plugins.admin", Settings: "admin_assets_path", New: func() any { return new(Admin) }})
}

// Release is the version of kinto-admin that Kinto 26.5 comes with; it is shown as
// long as no bundle says another.
const Release = "6.6.0"

const (
	indexFile   = "index.html"
	versionFile = "VERSION"
	// cacheSeconds is how long a browser may keep a file, as with Kinto.
	cacheSeconds = 3600
)

// contentSecurityPolicy lets the console's page run the scripts of this server and
// nobody else's, in Kinto's words.
const contentSecurityPolicy = "default-src 'self'; img-src data: *; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"

//go:embed help.html
var helpPage []byte

// Admin serves a bundle that was read whole at the start: what is not in it cannot
// be reached by any path, and a request reads no disk.
type Admin struct {
	files   map[string]*file // by the path below /admin/, with slashes
	home    *file
	version string
}

// Provision reads the bundle.
func (a *Admin) Provision(_ context.Context, s plugins.Settings) error {
	a.home, a.version = newFile("help.html", helpPage, time.Time{}), Release
	folder := s.Text("admin_assets_path", "")
	if folder == "" {
		return nil
	}
	var err error
	if a.files, err = readBundle(folder); err != nil {
		return fmt.Errorf("admin_assets_path: %w", err)
	}
	version := a.files[versionFile]
	if version == nil {
		return fmt.Errorf("admin_assets_path: no file %s in %s (allowed: the folder of a built kinto-admin)", versionFile, folder)
	}
	a.version = strings.TrimSpace(string(version.data))
	if index := a.files[indexFile]; index != nil {
		a.home = index
	}
	return nil
}

// Capabilities implements plugins.CapabilityProvider, in Kinto's words.
func (a *Admin) Capabilities() []plugins.Capability {
	body, err := json.Marshal(struct {
		Description string `json:"description"`
		URL         string `json:"url"`
		Version     string `json:"version"`
	}{"Serves the admin console.", "https://github.com/Kinto/kinto-admin/", a.version})
	if err != nil {
		return nil
	}
	return []plugins.Capability{{Name: "admin", Body: string(body)}}
}

// Routes implements plugins.RouteProvider.
func (a *Admin) Routes() []plugins.Route {
	return []plugins.Route{
		{Method: http.MethodGet, Path: "/admin", Name: "admin_redirect", Local: true, Handle: redirect},
		{Method: http.MethodGet, Path: "/admin/*subpath", Name: "catchall_static", Local: true, Handle: a.serve},
	}
}

func redirect(_ context.Context, r *plugins.RouteRequest) *plugins.RouteResponse {
	return &plugins.RouteResponse{Status: http.StatusTemporaryRedirect,
		Header: map[string]string{"Location": r.Base + "/admin/", "Content-Type": "text/plain; charset=UTF-8"},
		Body:   []byte("307 Temporary Redirect\n\nThe resource has been moved to /v1/admin/; you should be redirected automatically.\n\n")}
}

const notFound = `{"code":404,"errno":111,"error":"Not Found","message":"The resource you are looking for could not be found."}`

// serve answers the page and the files.
func (a *Admin) serve(_ context.Context, r *plugins.RouteRequest) *plugins.RouteResponse {
	path := r.Params["subpath"]
	if path == "" {
		answer := a.home.answer(r)
		answer.Header["Content-Security-Policy"] = contentSecurityPolicy
		return answer
	}
	f := a.files[path]
	if f == nil {
		return &plugins.RouteResponse{Status: http.StatusNotFound, Body: []byte(notFound)}
	}
	answer := f.answer(r)
	answer.Header["Cache-Control"] = fmt.Sprintf("max-age=%d", cacheSeconds)
	answer.Header["Expires"] = httpTime(time.UnixMilli(int64(r.Now + cacheSeconds*1000)))
	if !f.changed.IsZero() {
		answer.Header["Last-Modified"] = httpTime(f.changed)
	}
	return answer
}

// answer is the file, or 304 for a client that has it.
func (f *file) answer(r *plugins.RouteRequest) *plugins.RouteResponse {
	header := map[string]string{"ETag": f.etag}
	if f.held(r.Header) {
		return &plugins.RouteResponse{Status: http.StatusNotModified, Header: header}
	}
	header["Content-Type"] = f.media
	return &plugins.RouteResponse{Status: http.StatusOK, Header: header, Body: f.data}
}

// held reports whether the client has this very content (RFC 9110 §13.1): its tags
// count before its date.
func (f *file) held(h map[string]string) bool {
	if tags, ok := h["if-none-match"]; ok {
		for tag := range strings.SplitSeq(tags, ",") {
			if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == f.etag || tag == "*" {
				return true
			}
		}
		return false
	}
	since, err := http.ParseTime(h["if-modified-since"])
	return err == nil && !f.changed.IsZero() && !f.changed.Truncate(time.Second).After(since)
}

func httpTime(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

var (
	_ plugins.Provisioner        = (*Admin)(nil)
	_ plugins.CapabilityProvider = (*Admin)(nil)
	_ plugins.RouteProvider      = (*Admin)(nil)
)
