package accounts

import (
	"context"
	"time"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// maxCacheSeconds bounds account_cache_ttl_seconds: a day.
const maxCacheSeconds = 24 * 3600

// Policy tells who somebody is by the name and password of an account, sent as HTTP
// Basic (Kinto 6.3). Wrong credentials are no error: the next policy is asked.
type Policy struct{ verifier *verifier }

var (
	_ plugins.Authenticator = (*Policy)(nil)
	_ plugins.Provisioner   = (*Policy)(nil)
)

// Provision takes account_cache_ttl_seconds.
func (p *Policy) Provision(_ context.Context, s plugins.Settings) error {
	seconds, err := s.Number("account_cache_ttl_seconds", 30, 0, maxCacheSeconds)
	p.verifier = newVerifier(time.Duration(seconds) * time.Second)
	return err
}

// Name implements plugins.Authenticator: whatever the settings call the policy, its
// users are account:<name>, as in Kinto.
func (*Policy) Name() string { return policyName }

// Challenge is what a 401 says to browsers.
func (*Policy) Challenge() string { return `Basic realm="Realm"` }

// Authenticate implements plugins.Authenticator. It asks for the verification of a
// pair that is not known by a *plugins.Later. An account that does not exist costs
// what a wrong password costs, so the time does not tell who has one.
func (p *Policy) Authenticate(ctx context.Context, authorization string, r fsm.Reader) (string, bool, error) {
	user, password, ok := plugins.Credentials(authorization)
	if !ok || user == "" {
		return "", false, nil
	}
	hash, err := storedHash(user, r)
	if err != nil {
		return "", false, err
	}
	exists := hash != ""
	if !exists {
		hash = absentHash
	}
	pair := p.verifier.pairOf(user, hash, password)
	match, known := p.verifier.known(ctx, pair)
	if !known {
		return "", false, &plugins.Later{Work: func(ctx context.Context) error { return p.verifier.verify(ctx, pair, hash, password) }}
	}
	return user, match && exists, nil
}

// storedHash gives the hash of an account, or "".
func storedHash(user string, r fsm.Reader) (string, error) {
	if !validID(user) {
		return "", nil
	}
	o, err := r.Get(root.Child(user))
	if err != nil || !o.Exists() {
		return "", err
	}
	password, _ := canon.Value(o.Data).Get(passwordField)
	hash, _ := password.String()
	return hash, nil
}
