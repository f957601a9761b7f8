package openid

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/sync/singleflight"

	"quinto/internal/canon"
)

const (
	// metadataAge is how long what discovery told is used before it is asked again; if
	// that fails, the old is used on.
	metadataAge = time.Hour
	// metadataPause is the least time between two attempts at discovery.
	metadataPause = 3 * time.Second
	// maxProfileBytes bounds what a provider tells of a user, maxTokenAnswer what it
	// gives for a code.
	maxProfileBytes = 16 << 10
	maxTokenAnswer  = 16 << 10
)

// algorithms are those that a JWT may be signed with: asymmetric ones alone. What is
// signed with "none", or with a secret that both sides know, is refused.
var algorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}

var (
	// errRefused is what a provider, or the verification of a JWT, says of a token.
	errRefused = errors.New("the token is refused")
	// errMetadata is a discovery document that cannot be used.
	errMetadata = errors.New("the discovery document cannot be used")
)

// metadata is what discovery tells of a provider (OpenID Connect Discovery 1.0, 4.2).
type metadata struct {
	Issuer        string `json:"issuer"`
	Authorization string `json:"authorization_endpoint"`
	Token         string `json:"token_endpoint"`
	UserInfo      string `json:"userinfo_endpoint"`
	Keys          string `json:"jwks_uri"`

	keySet *oidc.RemoteKeySet
	at     time.Time
}

// provider is the other side: it is asked for its metadata, its keys, who has a
// token, and tokens. It is safe for concurrent use.
type provider struct {
	*settings
	client *http.Client
	idle   func()
	keys   *http.Client // with a pause between two calls
	base   context.Context
	cancel context.CancelFunc
	clock  func() time.Time

	flights singleflight.Group
	mu      sync.Mutex
	meta    *metadata // the latest; nil: none yet
	tried   time.Time // the last attempt; zero: none yet
	failure error     // of that
}

func newProvider(s *settings) *provider {
	p := &provider{settings: s, clock: time.Now}
	p.base, p.cancel = context.WithCancel(context.Background())
	p.client, p.idle = newClient(p.base)
	keys := *p.client
	keys.Transport = &paused{next: p.client.Transport, clock: func() time.Time { return p.clock() }}
	p.keys = &keys
	return p
}

// close ends calls that are under way.
func (p *provider) close() {
	p.cancel()
	p.idle()
}

// current returns the metadata at hand, nil for none, and whether they should be
// asked for (again) now.
func (p *provider) current() (m *metadata, ask bool, failure error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	old := p.meta == nil || now.Sub(p.meta.at) > metadataAge
	return p.meta, old && (p.tried.IsZero() || now.Sub(p.tried) > metadataPause), p.failure
}

// asked reports whether discovery was ever attempted.
func (p *provider) asked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.tried.IsZero()
}

// refresh has the metadata asked for if it is time, and does not wait.
func (p *provider) refresh() *metadata {
	m, ask, _ := p.current()
	if ask {
		p.flights.DoChan("metadata", p.fetchMetadata)
	}
	return m
}

// discover returns the metadata, asking for them when there are none.
func (p *provider) discover(ctx context.Context) (*metadata, error) {
	m, ask, failure := p.current()
	if m == nil && !ask {
		return nil, failure
	}
	if !ask {
		return m, nil
	}
	select {
	case r := <-p.flights.DoChan("metadata", p.fetchMetadata):
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*metadata), nil // fetchMetadata returns nothing else
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fetchMetadata asks for the metadata and keeps them; when it fails, the old ones.
func (p *provider) fetchMetadata() (any, error) {
	fresh, err := p.askMetadata()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried, p.failure = p.clock(), err
	switch {
	case err == nil:
		fresh.at = p.tried
		if p.meta != nil && p.meta.Keys == fresh.Keys {
			fresh.keySet = p.meta.keySet // with the keys that it knows
		} else {
			fresh.keySet = oidc.NewRemoteKeySet(oidc.ClientContext(p.base, p.keys), fresh.Keys)
		}
		p.meta = fresh
	case p.meta == nil:
		return nil, err
	}
	return p.meta, nil
}

func (p *provider) askMetadata() (*metadata, error) {
	body, err := p.get(p.base, strings.TrimRight(p.issuer, "/")+"/.well-known/openid-configuration", "")
	if err != nil {
		return nil, err
	}
	m := new(metadata)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errMetadata, err)
	}
	for name, text := range map[string]string{"authorization_endpoint": m.Authorization, "token_endpoint": m.Token,
		"userinfo_endpoint": m.UserInfo, "jwks_uri": m.Keys} {
		u, err := url.Parse(text)
		secure := err == nil && (u.Scheme == "https" || u.Scheme == "http" && strings.HasPrefix(p.issuer, "http:"))
		if text != "" && (!secure || u.Host == "") {
			return nil, fmt.Errorf("%w: its %s is no URL as secure as the issuer's", errMetadata, name)
		}
	}
	if m.Issuer == "" || m.Authorization == "" {
		return nil, fmt.Errorf("%w: it has no issuer or no authorization_endpoint", errMetadata)
	}
	return m, nil
}

// get reads a URL, with a token when there is one. errRefused when the answer is a
// 4xx that is about the token.
func (p *provider) get(ctx context.Context, url, token string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := p.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch s := resp.StatusCode; {
	case s == http.StatusOK:
		return io.ReadAll(resp.Body)
	case token != "" && s >= 400 && s < 500 && s != http.StatusTooManyRequests && s != http.StatusRequestTimeout:
		return nil, fmt.Errorf("%w: %s", errRefused, resp.Status)
	default:
		return nil, fmt.Errorf("%s answers %s", url, resp.Status)
	}
}

// verifier returns what verifies JWTs of the provider for an audience.
func (p *provider) verifier(m *metadata, audience string) *oidc.IDTokenVerifier {
	issuer := p.issuer
	if strings.TrimRight(m.Issuer, "/") == strings.TrimRight(issuer, "/") {
		issuer = m.Issuer // a slash at the end is a matter of taste, but not in a token
	}
	return oidc.NewVerifier(issuer, m.keySet, &oidc.Config{ClientID: audience, SupportedSigningAlgs: algorithms, Now: p.clock})
}

// verified is what was found out about a token.
type verified struct {
	user    string    // without the policy's name
	profile []byte    // a canonical JSON object
	expires time.Time // of the token; zero: not known
}

// whose finds out whose a token is. errRefused: it is not good. Any other error: it
// could not be found out.
func (p *provider) whose(ctx context.Context, token string) (*verified, error) {
	m, err := p.discover(ctx)
	if err != nil {
		return nil, err
	}
	v, profile := &verified{}, []byte(nil)
	if p.audience != "" {
		id, err := p.verifier(m, p.audience).Verify(ctx, token)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRefused, err)
		}
		var claims json.RawMessage
		if err := id.Claims(&claims); err != nil {
			return nil, fmt.Errorf("%w: %w", errRefused, err)
		}
		v.expires, profile = id.Expiry, claims
	}
	if p.askUserInfo {
		if m.UserInfo == "" {
			return nil, fmt.Errorf("%w: it has no userinfo_endpoint", errMetadata)
		}
		if profile, err = p.get(ctx, m.UserInfo, token); err != nil {
			return nil, err
		}
	}
	return v, v.read(profile, p.settings)
}

// exchange trades a code for what the provider gives for it: JSON, also when it is an
// error of OAuth 2.0. nonce, when not empty, must be that of the ID token, if there is
// one.
func (p *provider) exchange(ctx context.Context, code, redirectURI, nonce string) ([]byte, error) {
	m, err := p.discover(ctx)
	if err != nil {
		return nil, err
	}
	form := url.Values{"code": {code}, "client_id": {p.clientID}, "client_secret": {p.clientSecret},
		"redirect_uri": {redirectURI}, "grant_type": {"authorization_code"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.Token, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	resp, err := p.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	value, err := canon.Canonical(body, canon.Limits{})
	if err != nil || canon.Value(value).Kind() != canon.Object || len(body) > maxTokenAnswer {
		return nil, fmt.Errorf("the token endpoint answers %s with %d bytes that are no JSON object, or too many", resp.Status, len(body))
	}
	token, given := canon.Value(value).Get("id_token")
	if !given || nonce == "" {
		return body, nil
	}
	text, _ := token.String()
	id, err := p.verifier(m, p.clientID).Verify(ctx, text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: ID token: %w (verify_id_token = false forwards it all the same)", errRefused, err)
	case id.Nonce != nonce:
		return nil, fmt.Errorf("%w: the ID token is of another login", errRefused)
	}
	return body, nil
}

// encodeAnswer is how a client's callback gets the provider's answer: as Kinto's
// urllib.parse.quote(base64).
func encodeAnswer(body []byte) string {
	return strings.NewReplacer("+", "%2B", "=", "%3D").Replace(base64.StdEncoding.EncodeToString(body))
}
