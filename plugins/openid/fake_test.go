package openid

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"quinto/plugins"
)

// fake is a provider that can be made to misbehave, which a real one cannot.
type fake struct {
	*httptest.Server
	mu      sync.Mutex
	keys    map[string]*rsa.PrivateKey // published, by kid
	answers map[string]http.HandlerFunc
	calls   map[string]int
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{keys: map[string]*rsa.PrivateKey{}, answers: map[string]http.HandlerFunc{}, calls: map[string]int{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	f.answers["/.well-known/openid-configuration"] = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":"%[1]s/auth","token_endpoint":"%[1]s/token","userinfo_endpoint":"%[1]s/me","jwks_uri":"%[1]s/jwks"}`, f.URL)
	}
	f.answers["/jwks"] = func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		s := &oidctest.Server{}
		for id, key := range f.keys {
			s.PublicKeys = append(s.PublicKeys, oidctest.PublicKey{PublicKey: key.Public(), KeyID: id, Algorithm: oidc.RS256})
		}
		s.SetIssuer(f.URL)
		r.URL.Path = "/keys"
		s.ServeHTTP(w, r)
	}
	f.answers["/me"] = text(`{"sub":"alice","email":"a@example.org"}`)
	f.rotate(t, "k1")
	return f
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// endless sends until the other side has enough.
func endless(w http.ResponseWriter, r *http.Request) {
	_, _ = w.Write([]byte(`{"sub":"`))
	for block := make([]byte, 64<<10); r.Context().Err() == nil; {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// slow answers when the other side has gone.
func slow(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.calls[r.URL.Path]++
	answer := f.answers[r.URL.Path]
	f.mu.Unlock()
	if answer == nil {
		answer = status(http.StatusNotFound)
	}
	answer(w, r)
}

func (f *fake) set(path string, answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[path] = answer
}

func (f *fake) called(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[path]
}

// rotate publishes a new key in place of all others.
func (f *fake) rotate(t *testing.T, kid string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys = map[string]*rsa.PrivateKey{kid: key}
}

// sign makes a JWT with the published key kid.
func (f *fake) sign(t *testing.T, kid string, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": f.URL, "aud": "api", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return oidctest.SignIDToken(f.keys[kid], kid, oidc.RS256, string(b))
}

// lookup gives the settings of a policy called p at the provider.
func (f *fake) lookup(more map[string]string) plugins.Settings {
	all := map[string]string{"multiauth.policies": "p", "multiauth.policy.p.use": policyClass, "multiauth.policy.p.issuer": f.URL,
		"multiauth.policy.p.client_id": "cid", "multiauth.policy.p.client_secret": "secret"}
	for name, value := range more {
		all["multiauth.policy.p."+name] = value
	}
	return plugins.Settings{Name: "p", Log: slog.New(slog.DiscardHandler),
		Lookup: func(name string) (string, bool) { value, ok := all[name]; return value, ok }}
}

// clock is a time that only a test moves.
type clock struct {
	mu    sync.Mutex
	begin time.Time
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begin.Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

func newPolicy(t *testing.T, f *fake, more map[string]string) (*Policy, *clock) {
	t.Helper()
	p, c := new(Policy), &clock{begin: time.Now()}
	if err := p.Provision(context.Background(), f.lookup(more)); err != nil {
		t.Fatal(err)
	}
	p.provider.clock = c.now
	t.Cleanup(func() { _ = p.Close() })
	return p, c
}

// who asks the policy as the server does: again after the slow work. "" is nobody.
func who(t *testing.T, p *Policy, authorization string) string {
	t.Helper()
	ctx := plugins.WithMemo(context.Background())
	for range 3 {
		user, ok, err := p.Authenticate(ctx, authorization, nil)
		if err == nil {
			if !ok {
				return ""
			}
			return user
		}
		var later *plugins.Later
		if !errors.As(err, &later) {
			t.Fatal(err)
		}
		if err := later.Work(ctx); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the policy keeps asking for work")
	return ""
}
