package openid

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"quinto/fsm"
	"quinto/plugins"
)

// Bounds of verification.
const (
	// maxTokenBytes bounds a token.
	maxTokenBytes = 16 << 10
	// maxCalls bounds the tokens that a policy verifies at a time; who comes then is
	// told to come again.
	maxCalls = 64
	// verifyTimeout bounds all calls for one token together.
	verifyTimeout = 10 * time.Second
	// maxVerified and maxVerifiedBytes bound the remembered tokens and profiles.
	maxVerified      = 10_000
	maxVerifiedBytes = 32 << 20
	// warnPause is the least time between two warnings that a provider cannot be asked.
	warnPause = 10 * time.Second
)

// errBusy is answered with 503.
var errBusy = fmt.Errorf("openid: more than %d tokens are being verified: %w", maxCalls, fsm.ErrOverloaded)

// tokenForm is the b64token of RFC 6750, 2.1: nothing else is a token.
var tokenForm = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// Policy tells who somebody is by an access token of an OpenID provider (Kinto 6.4).
// A token that is not good, or cannot be verified now, is no error: the next policy is
// asked. Who has a good one is remembered on this node, as Kinto does in its cache.
type Policy struct {
	provider *provider
	log      *slog.Logger
	flights  singleflight.Group
	calls    atomic.Int64
	warned   atomic.Int64 // Unix ms

	mu   sync.Mutex
	good recent[tokenKey, *verified]
}

type tokenKey [sha256.Size]byte

// memoKey is under which a request remembers what a policy found out of a token.
type memoKey struct {
	policy *Policy
	token  tokenKey
}

// profileKey is under which a request remembers the profile of a user.
type profileKey struct{ user string }

var (
	_ plugins.Authenticator = (*Policy)(nil)
	_ plugins.Provisioner   = (*Policy)(nil)
	_ plugins.Secured       = (*Policy)(nil)
)

// Provision takes the parameters of the policy.
func (p *Policy) Provision(_ context.Context, s plugins.Settings) error {
	c, err := readSettings(&s, s.Name)
	if err != nil {
		return err
	}
	p.provider, p.log = newProvider(c), s.Log
	p.good = recent[tokenKey, *verified]{most: maxVerified, mostBytes: maxVerifiedBytes}
	return nil
}

// Close ends calls that are under way.
func (p *Policy) Close() error {
	if p.provider != nil {
		p.provider.close()
	}
	return nil
}

// Name implements plugins.Authenticator: user ids begin with the policy's name.
func (p *Policy) Name() string { return strings.ToLower(p.provider.name) }

// Challenge is what a 401 says.
func (p *Policy) Challenge() string {
	return p.provider.headerType + ` realm="` + p.provider.realm + `"`
}

// Security implements plugins.Secured. The provider is asked where users log in;
// while it does not answer, nothing is told.
func (p *Policy) Security() string {
	ctx, cancel := context.WithTimeout(p.provider.base, callTimeout)
	defer cancel()
	m, err := p.provider.discover(ctx)
	if err != nil {
		return ""
	}
	b, err := json.Marshal(map[string]string{"type": "oauth2", "authorizationUrl": m.Authorization})
	if err != nil {
		return ""
	}
	return string(b)
}

// Authenticate implements plugins.Authenticator. A token that is not known is verified
// by a *plugins.Later.
func (p *Policy) Authenticate(ctx context.Context, authorization string, _ fsm.Reader) (string, bool, error) {
	scheme, token, found := strings.Cut(authorization, " ")
	if !found || !strings.EqualFold(scheme, p.provider.headerType) || len(token) > maxTokenBytes || !tokenForm.MatchString(token) {
		return "", false, nil
	}
	key := tokenKey(sha256.Sum256([]byte(token)))
	v, known := p.known(ctx, key)
	if !known {
		return "", false, &plugins.Later{Work: func(ctx context.Context) error { return p.verify(ctx, key, token) }}
	}
	if v == nil {
		return "", false, nil
	}
	plugins.Remember(ctx, profileKey{p.Name() + ":" + v.user}, v.profile)
	return v.user, true, nil
}

// known returns what was found out of a token: nil when it is not good.
func (p *Policy) known(ctx context.Context, key tokenKey) (v *verified, ok bool) {
	if found, kept := plugins.Recall(ctx, memoKey{p, key}); kept {
		v, ok = found.(*verified)
		return v, ok
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.provider.clock()
	v, ok = p.good.get(key, now, time.Duration(p.provider.keepSeconds)*time.Second)
	if ok && !v.expires.IsZero() && !now.Before(v.expires) {
		return nil, false // it is asked for once more, and refused
	}
	return v, ok
}

// verify finds out whose a token is, once for all requests that ask at a time. A
// refused token is remembered for the request alone, and so is a provider that does
// not answer: nobody is let in then, and nobody gets an error of the server. The error
// is errBusy or ctx's.
func (p *Policy) verify(ctx context.Context, key tokenKey, token string) error {
	flight := p.flights.DoChan(string(key[:]), func() (any, error) {
		defer p.calls.Add(-1)
		if p.calls.Add(1) > maxCalls {
			return nil, errBusy
		}
		ctx, cancel := context.WithTimeout(p.provider.base, verifyTimeout)
		defer cancel()
		v, err := p.provider.whose(ctx, token)
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if keep := time.Duration(p.provider.keepSeconds) * time.Second; keep > 0 {
			p.good.put(key, v, len(v.profile), p.provider.clock().Add(keep))
		}
		return v, nil
	})
	select {
	case r := <-flight:
		v, _ := r.Val.(*verified)
		switch {
		case errors.Is(r.Err, errBusy):
			return r.Err
		case errors.Is(r.Err, errRefused):
			p.log.Debug("token", "policy", p.provider.name, "error", r.Err)
		case r.Err != nil:
			p.warn(r.Err)
		}
		plugins.Remember(ctx, memoKey{p, key}, v)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// warn logs that the provider cannot be asked, now and then.
func (p *Policy) warn(err error) {
	now, last := p.provider.clock().UnixMilli(), p.warned.Load()
	if now-last >= warnPause.Milliseconds() && p.warned.CompareAndSwap(last, now) {
		p.log.Warn("an OpenID provider cannot be asked: its users are not let in", "policy", p.provider.name, "error", err)
	}
}
