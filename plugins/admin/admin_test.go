package admin

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quinto/plugins"
)

// bundle writes a small built console and returns its folder.
func bundle(t *testing.T, without ...string) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "bundle")
	files := map[string]string{"index.html": "<p>admin</p>", "VERSION": " 9.8.7\n", "static/js/a.js": "run()", "logo.svg": "<svg/>", "noext": "x"}
	for _, name := range without {
		delete(files, name)
	}
	for name, text := range files {
		path := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(filepath.Dir(folder), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	return folder
}

func open(folder string) (*Admin, error) {
	p, err := plugins.Registered().Load(context.Background(), plugins.Settings{Name: "a", Use: "kinto.plugins.admin",
		Lookup: func(name string) (string, bool) { return folder, name == "admin_assets_path" && folder != "" }})
	if err != nil {
		return nil, err
	}
	return p.(*Admin), nil
}

func get(a *Admin, path string, header map[string]string) *plugins.RouteResponse {
	r := &plugins.RouteRequest{Method: "GET", Path: path, Base: "http://h/v1", Header: header, Now: 1_800_000_000_000}
	routes := a.Routes()
	if path == "/admin" {
		return routes[0].Handle(context.Background(), r)
	}
	r.Params = map[string]string{"subpath": strings.TrimPrefix(path, "/admin/")}
	return routes[1].Handle(context.Background(), r)
}

func TestFiles(t *testing.T) {
	a, err := open(bundle(t))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		status      int
		media, body string
	}{
		"/admin":                       {307, "text/plain; charset=UTF-8", "307 "},
		"/admin/":                      {200, "text/html; charset=UTF-8", "<p>admin</p>"},
		"/admin/index.html":            {200, "text/html; charset=UTF-8", "<p>admin</p>"},
		"/admin/static/js/a.js":        {200, "text/javascript; charset=UTF-8", "run()"},
		"/admin/logo.svg":              {200, "image/svg+xml; charset=UTF-8", "<svg/>"},
		"/admin/noext":                 {200, "application/octet-stream", "x"},
		"/admin/static":                {404, "", ""},
		"/admin/static/":               {404, "", ""},
		"/admin/link":                  {404, "", ""},
		"/admin/../secret":             {404, "", ""},
		"/admin/static/../../secret":   {404, "", ""},
		"/admin//etc/passwd":           {404, "", ""},
		"/admin/static/js/a.js\x00.js": {404, "", ""},
		"/admin/nope":                  {404, "", ""},
	} {
		got := get(a, path, nil)
		if got.Status != want.status || got.Header["Content-Type"] != want.media || want.body != "" && !strings.HasPrefix(string(got.Body), want.body) {
			t.Errorf("%q: %d %q %q", path, got.Status, got.Header["Content-Type"], got.Body)
		}
		if strings.Contains(string(got.Body), "secret") {
			t.Errorf("%q led out of the folder", path)
		}
	}
	if to := get(a, "/admin", nil).Header["Location"]; to != "http://h/v1/admin/" {
		t.Errorf("Location %q", to)
	}
	if got := a.Capabilities()[0]; got.Body != `{"description":"Serves the admin console.","url":"https://github.com/Kinto/kinto-admin/","version":"9.8.7"}` {
		t.Errorf("capability %s", got.Body)
	}
}

func TestCaching(t *testing.T) {
	a, err := open(bundle(t))
	if err != nil {
		t.Fatal(err)
	}
	first := get(a, "/admin/static/js/a.js", nil)
	h := first.Header
	if h["Cache-Control"] != "max-age=3600" || h["Expires"] != "Fri, 15 Jan 2027 09:00:00 GMT" || h["Content-Security-Policy"] != "" {
		t.Errorf("headers %v", h)
	}
	if page := get(a, "/admin/", nil).Header; page["Content-Security-Policy"] != contentSecurityPolicy || page["Cache-Control"] != "" {
		t.Errorf("headers of the page %v", page)
	}
	for name, c := range map[string]struct {
		header map[string]string
		status int
	}{
		"same tag":    {map[string]string{"if-none-match": h["ETag"]}, 304},
		"one of tags": {map[string]string{"if-none-match": `"a", W/` + h["ETag"]}, 304},
		"any":         {map[string]string{"if-none-match": "*"}, 304},
		"another tag": {map[string]string{"if-none-match": `"a"`, "if-modified-since": h["Last-Modified"]}, 200},
		"same date":   {map[string]string{"if-modified-since": h["Last-Modified"]}, 304},
		"older date":  {map[string]string{"if-modified-since": "Fri, 01 Jan 2010 00:00:00 GMT"}, 200},
		"no date":     {map[string]string{"if-modified-since": "x"}, 200},
	} {
		if got := get(a, "/admin/static/js/a.js", c.header); got.Status != c.status || c.status == 304 && (len(got.Body) > 0 || got.Header["ETag"] != h["ETag"]) {
			t.Errorf("%s: %d %v", name, got.Status, got.Header)
		}
	}
}

func TestWithoutBundle(t *testing.T) {
	a, err := open("")
	if err != nil {
		t.Fatal(err)
	}
	if got := get(a, "/admin/", nil); got.Status != 200 || !strings.Contains(string(got.Body), "admin_assets_path") {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	if got := get(a, "/admin/x", nil); got.Status != 404 {
		t.Errorf("%d", got.Status)
	}
	noIndex, err := open(bundle(t, "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	if got := get(noIndex, "/admin/", nil); !strings.Contains(string(got.Body), "admin_assets_path") {
		t.Errorf("%s", got.Body)
	}
	for name, folder := range map[string]string{"no VERSION": bundle(t, "VERSION"), "no folder": filepath.Join(t.TempDir(), "none")} {
		if _, err := open(folder); err == nil || !strings.Contains(err.Error(), "admin_assets_path") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
