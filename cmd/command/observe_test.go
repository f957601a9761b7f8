package command

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "quinto/plugins/admin"
	_ "quinto/plugins/prometheus"
	_ "quinto/plugins/statsd"
)

// A whole node measures itself and its deliveries, and logs requests as the file of
// `kinto init` says.
func TestMeasuredNode(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	defer receiver.Close()
	ini := filepath.Join(t.TempDir(), "kinto.ini")
	text := `[server:main]
port = 0
[app:main]
kinto.storage_backend = kinto.core.storage.memory
kinto.userid_hmac_secret = a
kinto.includes = kinto.plugins.prometheus kinto.plugins.statsd kinto.plugins.admin
kinto.statsd_url = udp://127.0.0.1:9
multiauth.policies = basicauth
event_listeners = hook
event_listeners.hook.use = quinto.webhook
event_listeners.hook.url = ` + receiver.URL + `
event_listeners.hook.secret = whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
[loggers]
keys = root
[logger_root]
level = INFO
handlers = console
[handler_console]
args = (sys.stdout,)
`
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, "--ini", ini)
	if code, body := send(t, "PUT", p.url+"buckets/b", ""); code != 201 {
		t.Fatalf("%d %s", code, body)
	}
	want := []string{"kinto_raft_term ", "kinto_raft_leader 1", "kinto_store_disk_bytes ", `kinto_dispatch_deliveries_total{notifier="hook"} 1`,
		`kinto_listeners_hook_seconds_count 1`, `kinto_backend_storage_seconds_count{method="update"} 1`, `endpoint="bucket-object"`}
	var body string
	for range 500 { // the delivery follows the answer, and its count a second later
		time.Sleep(20 * time.Millisecond)
		if _, body = send(t, "GET", p.url+"__metrics__", ""); !missing(body, want) {
			break
		}
	}
	if missing(body, want) {
		t.Errorf("of %q something is missing in:\n%s", want, body)
	}
	if code, body := send(t, "GET", p.url+"admin/", ""); code != 200 || !strings.Contains(body, "admin_assets_path") {
		t.Errorf("%d %s", code, body)
	}
	if lines := p.out.String(); !strings.Contains(lines, `"PUT   /v1/buckets/b?" 201 (`) {
		t.Errorf("log %q", lines)
	}
	p.end(t)
	if errs := p.errs.String(); strings.Contains(errs, "without effect") {
		t.Errorf("%s", errs)
	}
}

func missing(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return true
		}
	}
	return false
}
