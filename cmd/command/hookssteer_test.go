package command

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "quinto/plugins/gatekeeper"
)

// hookedNode is a node with a webhook "hook" and a gatekeeper "gate" that call srv.
func hookedNode(t *testing.T, srv, settings string) (*program, string) {
	t.Helper()
	dir := t.TempDir()
	secret := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	ini := "[app:main]\nkinto.userid_hmac_secret = x\nkinto.multiauth.policies = basicauth\nkinto.bucket_create_principals = system.Authenticated\n" + settings + "kinto.event_listeners = hook gate\n"
	for _, l := range [][2]string{{"hook", "quinto.webhook"}, {"gate", "quinto.gatekeeper"}} {
		ini += fmt.Sprintf("kinto.event_listeners.%[1]s.use = %[2]s\nkinto.event_listeners.%[1]s.url = %[3]s/%[1]s\nkinto.event_listeners.%[1]s.secret = %[4]s\n", l[0], l[1], srv, secret)
	}
	if err := os.WriteFile(filepath.Join(dir, "quinto.ini"), []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	return startProgram(t, "--data", dir, "--port", "0"), dir
}

// The admin principal steers listeners over HTTP; who may only look, and everybody
// else, does not.
func TestHooksAreSteeredOverHTTP(t *testing.T) {
	t.Parallel()
	var status, hooked atomic.Int32
	status.Store(204)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hook" {
			hooked.Add(1)
			if status.Load() == 0 { // it hangs, until it is left
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
				return
			}
			w.WriteHeader(int(status.Load()))
		}
	}))
	defer srv.Close()
	for _, c := range []struct{ settings, pause, look string }{
		{"", "403", "403"},
		{"quinto.cluster_status_principals = system.Authenticated\n", "403", "200"},
	} {
		p, _ := hookedNode(t, srv.URL, c.settings)
		for place, want := range map[string]string{"POST __hooks__/hook/pause": c.pause, "POST __hooks__/hook/test": c.pause, "GET __hooks__": c.look} {
			method, path, _ := strings.Cut(place, " ")
			if code, body := send(t, method, p.url+path, ""); fmt.Sprint(code) != want {
				t.Errorf("%q: %s: %d %s, want %s", c.settings, place, code, body, want)
			}
		}
		p.end(t)
	}
	p, _ := hookedNode(t, srv.URL, "quinto.hooks_principals = system.Authenticated\n")
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	shown := func() string { _, body := send(t, "GET", p.url+"__hooks__/hook", ""); return body }
	until("registration", func() bool { return strings.Contains(shown(), `"delivering"`) })
	steer := func(do, body string, want int, says string) {
		t.Helper()
		if code, answer := send(t, "POST", p.url+"__hooks__/"+do, body); code != want || !strings.Contains(answer, says) {
			t.Errorf("%s %s: %d %s, want %d %s", do, body, code, answer, want, says)
		}
	}
	send(t, "PUT", p.url+"buckets/b", "")
	until("a delivery", func() bool { return hooked.Load() == 1 })
	steer("hook/pause", `{"reason": "works"}`, 202, `"works"`)
	until("the pause", func() bool { return strings.Contains(shown(), `"paused"`) && strings.Contains(shown(), "works") })
	send(t, "PUT", p.url+"buckets/c", "")
	steer("hook/resume", "", 202, `"resume"`)
	until("the next delivery", func() bool { return hooked.Load() == 2 })
	steer("hook/replay", `{"from": 1}`, 202, `"revision":1`)
	until("the replay", func() bool { return hooked.Load() == 4 })
	steer("hook/test", "", 200, `{"taken":true}`)
	status.Store(500)
	steer("hook/test", "", 200, `receiver answered 500`)
	if hooked.Load() != 6 {
		t.Errorf("%d calls for two tests", hooked.Load()-4)
	}
	steer("gate/test", "", 200, `{"taken":true}`)
	status.Store(0)
	steer("hook/test", "", 200, `{"taken":false,"error":"no answer within 8s"}`)
	status.Store(204)
	steer("hook/pause", "", 202, `paused by basicauth:`)
	for _, bad := range []struct {
		do, body string
		want     int
	}{
		{"other/pause", "", 404}, {"other/test", "", 404}, {"hook/explode", "", 404}, {"hook/replay", "", 400}, {"hook/replay", `{"from": -1}`, 400}, {"hook/replay", `{"from": 99999}`, 400},
		{"hook/redeliver", "", 400}, {"hook/redeliver", `{"all": true}`, 404}, {"hook/redeliver", `{"all": true, "revision": 3}`, 400}, {"hook/redeliver", `{"revision": 0}`, 400},
		{"hook/redeliver", `{"revision": 3}`, 404}, {"hook/forget", "", 409}, {"hook/resume", `{"reason": "x"}`, 400}, {"hook/pause", `[]`, 400}, {"hook/pause", `{}{}`, 400},
		{"hook/pause", `{"reson": "x"}`, 400}, {"hook/pause", `{"reason": "` + strings.Repeat("x", 501) + `"}`, 400},
	} {
		steer(bad.do, bad.body, bad.want, `"message"`)
	}
	p.end(t)
}

// A replay from what has not been is refused, and a gatekeeper can be tried out.
func TestHooksOrdersThatCannotBeDone(t *testing.T) {
	var down atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer srv.Close()
	p, dir := hookedNode(t, srv.URL, "")
	hooks := func(want int, says string, args ...string) {
		t.Helper()
		code, stdout, stderr := run(t, append(append([]string{"hooks"}, args...), "--data", dir)...)
		if code != want || !strings.Contains(stdout+stderr, says) {
			t.Errorf("%v: exit %d, %q %q, want %q", args, code, stdout, stderr, says)
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, stdout, _ := run(t, "hooks", "list", "--data", dir); strings.Contains(stdout, "delivering") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no registration")
		}
	}
	hooks(ExitFailure, "the newest is", "replay", "hook", "--from", "99999")
	hooks(ExitFailure, "500 bytes", "pause", "hook", "--reason", strings.Repeat("x", 501))
	hooks(ExitOK, "has taken the test", "test", "gate")
	down.Store(true)
	hooks(ExitFailure, "it answered 502", "test", "gate")
	p.end(t)
}
