package openid

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"quinto/fsm"
	"quinto/plugins"
)

func TestUserInfo(t *testing.T) {
	f := newFake(t)
	f.set("/me", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"sub": "alice", "n": 1.0, "email": "a@example.org"}`))
	})
	p, c := newPolicy(t, f, map[string]string{"verification_ttl_seconds": "100"})
	for header, want := range map[string]string{"Bearer good": "alice", "bearer good": "alice", "Bearer bad": "", "Basic good": "", "Bearer": "", "Bearer ": "",
		"Bearer  good": "", "Bearer go od": "", "Bearer good\x00": "", "Bearer " + strings.Repeat("a", maxTokenBytes+1): "", "": ""} {
		if got := who(t, p, header); got != want {
			t.Errorf("%.40q: %q, want %q", header, got, want)
		}
	}
	before := f.called("/me")
	for range 5 { // each use prolongs its time, as in Kinto
		c.advance(90 * time.Second)
		if who(t, p, "Bearer good") != "alice" {
			t.Error("forgotten")
		}
	}
	if got := f.called("/me"); got != before {
		t.Errorf("%d calls about a token that is known", got-before)
	}
	c.advance(101 * time.Second)
	if who(t, p, "Bearer good") != "alice" || f.called("/me") != before+1 {
		t.Error("after its time a token is asked for again")
	}
}

func TestUserIDs(t *testing.T) {
	f := newFake(t)
	for _, c := range []struct {
		field, profile, allow, want string
	}{
		{"sub", `{"sub":"a"}`, "", "a"},
		{"sub", `{"sub":"a/b|c ü"}`, "", "a/b|c ü"},
		{"sub", `{"sub":1}`, "", ""},
		{"sub", `{"sub":""}`, "", ""},
		{"sub", `{"sub":null}`, "", ""},
		{"sub", `{"email":"a"}`, "", ""},
		{"sub", `{"sub":"a\u0000b"}`, "", ""},
		{"sub", `{"sub":"` + strings.Repeat("x", maxUserIDBytes+1) + `"}`, "", ""},
		{"sub", `[1]`, "", ""},
		{"sub", `<html>`, "", ""},
		{"sub", ``, "", ""},
		{"sub", `{"sub":"a","x":"` + strings.Repeat("x", maxProfileBytes) + `"}`, "", ""},
		{"email", `{"sub":"a","email":"a@x.org"}`, "", "a@x.org"},
		{"email", `{"sub":"a","email":"a@x.org","email_verified":true}`, "", "a@x.org"},
		{"email", `{"sub":"a","email":"a@x.org","email_verified":false}`, "", ""},
		{"email", `{"sub":"a","email":"a@x.org","email_verified":"False"}`, "", ""},
		{"email", `{"sub":"a","email":"a@x.org","email_verified":false}`, "true", "a@x.org"},
	} {
		f.set("/me", text(c.profile))
		p, _ := newPolicy(t, f, map[string]string{"userid_field": c.field, "trust_unverified_email": c.allow})
		if got := who(t, p, "Bearer t"); got != c.want {
			t.Errorf("%s of %.60s: %q, want %q", c.field, c.profile, got, c.want)
		}
	}
}

// Whatever a provider does, nobody is let in and nothing fails.
func TestProviderMisbehaves(t *testing.T) {
	for name, break_ := range map[string]func(f *fake){
		"endless profile": func(f *fake) { f.set("/me", endless) },
		"slow profile":    func(f *fake) { f.set("/me", slow) },
		"profile 500":     func(f *fake) { f.set("/me", status(500)) },
		"profile 204":     func(f *fake) { f.set("/me", status(204)) },
		"redirects for ever": func(f *fake) {
			f.set("/me", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/me", http.StatusFound) })
		},
		"down":                func(f *fake) { f.Close() },
		"endless metadata":    func(f *fake) { f.set("/.well-known/openid-configuration", endless) },
		"slow metadata":       func(f *fake) { f.set("/.well-known/openid-configuration", slow) },
		"metadata no JSON":    func(f *fake) { f.set("/.well-known/openid-configuration", text("<html>")) },
		"metadata of numbers": func(f *fake) { f.set("/.well-known/openid-configuration", text(`{"issuer":1}`)) },
		"metadata empty":      func(f *fake) { f.set("/.well-known/openid-configuration", text(`{}`)) },
		"foreign scheme": func(f *fake) {
			f.set("/.well-known/openid-configuration", text(`{"issuer":"x","authorization_endpoint":"http://x/","userinfo_endpoint":"file:///etc/passwd"}`))
		},
		"no userinfo": func(f *fake) {
			f.set("/.well-known/openid-configuration", text(`{"issuer":"x","authorization_endpoint":"http://x/"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			break_(f)
			p, _ := newPolicy(t, f, nil)
			p.provider.client.Timeout = time.Second
			if got := who(t, p, "Bearer t"); got != "" {
				t.Errorf("let in %q", got)
			}
		})
	}
}

// A provider that was down is asked again, and a token that could not be verified is
// good as soon as it can be.
func TestProviderComesBack(t *testing.T) {
	f := newFake(t)
	good := f.answers["/.well-known/openid-configuration"]
	f.set("/.well-known/openid-configuration", status(503))
	p, c := newPolicy(t, f, nil)
	if who(t, p, "Bearer t") != "" || who(t, p, "Bearer u") != "" {
		t.Error("let in")
	}
	if n := f.called("/.well-known/openid-configuration"); n != 1 {
		t.Errorf("asked %d times at once", n)
	}
	f.set("/.well-known/openid-configuration", good)
	c.advance(metadataPause + time.Second)
	if who(t, p, "Bearer t") != "alice" {
		t.Error("not let in")
	}
	// Discovery is asked again after its time; what it said holds while it fails.
	f.set("/.well-known/openid-configuration", status(503))
	c.advance(metadataAge + time.Second)
	if who(t, p, "Bearer v") != "alice" {
		t.Error("forgot the metadata")
	}
}

func TestJWT(t *testing.T) {
	f := newFake(t)
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	good := f.sign(t, "k1", nil)
	parts := strings.Split(good, ".")
	none := encode([]byte(`{"alg":"none"}`)) + "." + parts[1]
	claims := fmt.Sprintf(`{"iss":%q,"aud":"api","sub":"mallory","exp":%d}`, f.URL, time.Now().Add(time.Hour).Unix())
	for name, c := range map[string]struct {
		token string
		want  string
	}{
		"good":             {good, "alice"},
		"one of audiences": {f.sign(t, "k1", map[string]any{"aud": []string{"x", "api"}}), "alice"},
		"other audience":   {f.sign(t, "k1", map[string]any{"aud": "other"}), ""},
		"no audience":      {f.sign(t, "k1", map[string]any{"aud": nil}), ""},
		"other issuer":     {f.sign(t, "k1", map[string]any{"iss": "https://evil.example"}), ""},
		"issuer, slash":    {f.sign(t, "k1", map[string]any{"iss": f.URL + "/"}), ""},
		"expired":          {f.sign(t, "k1", map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}), ""},
		"no expiry":        {f.sign(t, "k1", map[string]any{"exp": nil}), ""},
		"not yet":          {f.sign(t, "k1", map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), ""},
		"none":             {none + ".", ""},
		"none, signed":     {none + "." + parts[2], ""},
		"HS256":            {encode([]byte(`{"alg":"HS256","kid":"k1"}`)) + "." + parts[1] + "." + parts[2], ""},
		"other payload":    {parts[0] + "." + encode([]byte(claims)) + "." + parts[2], ""},
		"foreign key":      {oidctest.SignIDToken(foreign, "k1", oidc.RS256, claims), ""},
		"unknown kid":      {oidctest.SignIDToken(foreign, "k9", oidc.RS256, claims), ""},
		"opaque":           {"abcdef", ""},
		"two parts":        {parts[0] + "." + parts[1], ""},
	} {
		for _, info := range []string{"true", "false"} {
			p, _ := newPolicy(t, f, map[string]string{"audience": "api", "ask_userinfo": info})
			before := f.called("/me")
			if got := who(t, p, "Bearer "+c.token); got != c.want {
				t.Errorf("%s, ask_userinfo %s: %q, want %q", name, info, got, c.want)
			}
			if asked := f.called("/me") - before; asked > 0 && (info == "false" || c.want == "") {
				t.Errorf("%s, ask_userinfo %s: the provider was asked whose it is", name, info)
			}
		}
	}
}

// A token is good no longer than it says, however often it is used; Kinto prolongs it.
func TestExpiryIsKept(t *testing.T) {
	f := newFake(t)
	p, c := newPolicy(t, f, map[string]string{"audience": "api"})
	token := "Bearer " + f.sign(t, "k1", map[string]any{"exp": time.Now().Add(time.Hour).Unix()})
	for range 3 {
		if who(t, p, token) != "alice" {
			t.Error("refused")
		}
		c.advance(18 * time.Minute)
	}
	c.advance(18 * time.Minute)
	if who(t, p, token) != "" {
		t.Error("an expired token is let in")
	}
}

// New keys are fetched for a token that names one, and not for each that names none.
func TestKeyRotation(t *testing.T) {
	f := newFake(t)
	p, c := newPolicy(t, f, map[string]string{"audience": "api", "ask_userinfo": "false"})
	old := f.sign(t, "k1", nil)
	if who(t, p, "Bearer "+old) != "alice" || f.called("/jwks") != 1 {
		t.Error("not let in, or not by the first fetch")
	}
	f.rotate(t, "k2")
	fresh := f.sign(t, "k2", map[string]any{"sub": "bob"})
	if who(t, p, "Bearer "+fresh) != "bob" || f.called("/jwks") != 2 {
		t.Error("the new key is not known")
	}
	gone := f.sign(t, "k2", map[string]any{"jti": "other"})
	f.rotate(t, "k3")
	if who(t, p, "Bearer "+f.sign(t, "k3", nil)) != "alice" || who(t, p, "Bearer "+gone) != "" {
		t.Error("a key that was taken back is trusted")
	}
	before := f.called("/jwks")
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		who(t, p, "Bearer "+oidctest.SignIDToken(foreign, fmt.Sprint("x", i), oidc.RS256, `{}`))
	}
	if n := f.called("/jwks") - before; n > keysBurst {
		t.Errorf("%d fetches for 20 unknown keys", n)
	}
	f.rotate(t, "k4")
	if who(t, p, "Bearer "+f.sign(t, "k4", nil)) != "" {
		t.Error("the fetches are not bounded")
	}
	c.advance(keysPause)
	if who(t, p, "Bearer "+f.sign(t, "k4", nil)) != "alice" {
		t.Error("keys are not fetched after a pause")
	}
}

// Many requests with one token are one call; too many tokens at a time are a 503.
func TestCallsAreBounded(t *testing.T) {
	f := newFake(t)
	release := make(chan struct{})
	f.set("/me", func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = w.Write([]byte(`{"sub":"alice"}`))
	})
	p, _ := newPolicy(t, f, nil)
	ask := func(token string) error {
		ctx := plugins.WithMemo(context.Background())
		_, _, err := p.Authenticate(ctx, "Bearer "+token, nil)
		var later *plugins.Later
		if !errors.As(err, &later) {
			return err
		}
		return later.Work(ctx)
	}
	var all sync.WaitGroup
	results := make(chan error, 4*maxCalls)
	for i := range 2 * maxCalls {
		all.Go(func() { results <- ask(fmt.Sprint("t", i)) })
		all.Go(func() { results <- ask("same") })
	}
	busy := 0
	for range maxCalls { // refused at once: the others hang
		if err := <-results; errors.Is(err, fsm.ErrOverloaded) {
			busy++
		}
	}
	if busy != maxCalls {
		t.Errorf("%d of %d were told to come again", busy, maxCalls)
	}
	close(release)
	all.Wait()
	if n := f.called("/me"); n > maxCalls {
		t.Errorf("%d calls", n)
	}
}

func TestSettings(t *testing.T) {
	f := newFake(t)
	for setting, want := range map[[2]string]string{
		{"issuer", ""}:                     "multiauth.policy.p.issuer is needed",
		{"client_id", ""}:                  "multiauth.policy.p.client_id is needed",
		{"issuer", "example.org"}:          `multiauth.policy.p.issuer: "example.org" cannot be used`,
		{"issuer", "ftp://example.org"}:    "multiauth.policy.p.issuer",
		{"verification_ttl_seconds", "-1"}: "multiauth.policy.p.verification_ttl_seconds",
		{"state_ttl_seconds", "x"}:         "multiauth.policy.p.state_ttl_seconds",
		{"state_length", "1"}:              "multiauth.policy.p.state_length",
		{"ask_userinfo", "false"}:          "needs multiauth.policy.p.audience",
		{"verify_id_token", "maybe"}:       "multiauth.policy.p.verify_id_token",
	} {
		for _, plugin := range []plugins.Provisioner{new(Policy), new(OpenID)} {
			err := plugin.Provision(context.Background(), f.lookup(map[string]string{setting[0]: setting[1]}))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s = %q: %v, want %s", setting[0], setting[1], err, want)
			}
		}
	}
	p, _ := newPolicy(t, f, map[string]string{"header_type": "Token", "realm": "R"})
	if p.Challenge() != `Token realm="R"` || p.Name() != "p" || who(t, p, "token x") != "alice" || who(t, p, "Bearer x") != "" {
		t.Errorf("challenge %s of %s", p.Challenge(), p.Name())
	}
	if got := p.Security(); got != `{"authorizationUrl":"`+f.URL+`/auth","type":"oauth2"}` {
		t.Error(got)
	}
}
