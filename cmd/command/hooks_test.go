package command

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The operator sees what a webhook does, and stops, tries and repeats it, through the
// node's folder; the secret is shown nowhere.
func TestHooksByCommand(t *testing.T) {
	t.Parallel()
	var taken, status atomic.Int32
	status.Store(204)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		taken.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	defer srv.Close()
	dir := t.TempDir()
	secret := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	ini := fmt.Sprintf("[app:main]\nkinto.userid_hmac_secret = x\nkinto.multiauth.policies = basicauth\nkinto.bucket_create_principals = system.Authenticated\n"+
		"quinto.cluster_status_principals = system.Authenticated\n"+
		"kinto.event_listeners = hook\nkinto.event_listeners.hook.use = quinto.webhook\nkinto.event_listeners.hook.url = %s/token\nkinto.event_listeners.hook.secret = %s\n", srv.URL, secret)
	if err := os.WriteFile(filepath.Join(dir, "quinto.ini"), []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, "--data", dir, "--port", "0")
	hooks := func(want string, args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, append(append([]string{"hooks"}, args...), "--data", dir)...)
		if code != ExitOK || !strings.Contains(stdout, want) || strings.Contains(stdout+stderr, "whsec") || strings.Contains(stdout, "/token") {
			t.Errorf("%v: exit %d, %q %q, want %q", args, code, stdout, stderr, want)
		}
		return stdout
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	shown := func() hooksAnswer {
		var a hooksAnswer
		if err := json.Unmarshal([]byte(hooks(`"hook"`, "list", "--json")), &a); err != nil || len(a.Listeners) != 1 {
			t.Fatalf("%+v %v", a, err)
		}
		return a
	}
	wait("registration", func() bool { return strings.Contains(hooks("", "list"), "delivering") })
	hooks("the receiver has taken the test", "test", "hook")
	send(t, "PUT", p.url+"buckets/b", "")
	wait("the first delivery", func() bool { return shown().Listeners[0].Delivered == 1 })
	hooks("/buckets/b", "deliveries", "hook")
	status.Store(410)
	send(t, "PUT", p.url+"buckets/c", "")
	wait("the pause", func() bool { return shown().Listeners[0].Paused != nil })
	hooks("answered 410", "state", "hook")
	status.Store(204)
	hooks("resumed", "resume", "hook")
	wait("the second delivery", func() bool { return shown().Listeners[0].Delivered == 2 })
	before := taken.Load()
	hooks("delivers again", "replay", "hook", "--from", "1")
	wait("the replay", func() bool { return taken.Load() == before+2 })
	hooks("paused", "pause", "hook", "--reason", "works")
	wait("the pause", func() bool { return shown().Listeners[0].State == "paused" })
	hooks("REVISION", "dead", "hook")
	if code, body := send(t, "GET", p.url+"__hooks__/hook", ""); code != 200 || !strings.Contains(body, `"works"`) || !strings.Contains(body, "/buckets/b") {
		t.Errorf("%d %s", code, body)
	}
	for _, args := range [][]string{{"state", "other"}, {"redeliver", "hook", "--all"}, {"forget", "hook"}, {"test", "other"}} {
		if code, _, stderr := run(t, append(append([]string{"hooks"}, args...), "--data", dir)...); code != ExitFailure || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, %q", args, code, stderr)
		}
	}
	p.end(t)
}
