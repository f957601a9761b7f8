// Package auth holds the authentication policies: each turns the Authorization
// header of a request into a user id, or leaves the request to the next one
// (Kinto's multiauth.policies). Nothing here refuses a request: who yields no
// user is anonymous, and permissions decide what he may do.
package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strings"
	"sync"

	"quinto/fsm"
	"quinto/plugins"
)

// Challenger is an authenticator that says in a 401 how to authenticate.
type Challenger interface {
	// Challenge is a WWW-Authenticate value.
	Challenge() string
}

// Basic is Kinto's BasicAuthAuthenticationPolicy: whoever sends a non-empty
// user name is a user, whose id is an HMAC of name and password.
type Basic struct {
	name string
	macs sync.Pool // of hash.Hash: a keyed one that is reset costs half of a new one
}

var (
	_ plugins.Authenticator = (*Basic)(nil)
	_ Challenger            = (*Basic)(nil)
)

// NewBasic returns the policy called name, whose ids are keyed by secret
// (userid_hmac_secret).
func NewBasic(name, secret string) *Basic {
	return &Basic{name: strings.ToLower(name), macs: sync.Pool{New: func() any { return hmac.New(sha256.New, []byte(secret)) }}}
}

// Name implements plugins.Authenticator.
func (b *Basic) Name() string { return b.name }

// Security implements plugins.Secured.
func (b *Basic) Security() string { return `{"type":"basic"}` }

// Challenge implements Challenger.
func (b *Basic) Challenge() string { return `Basic realm="Realm"` }

// Authenticate implements plugins.Authenticator.
func (b *Basic) Authenticate(_ context.Context, authorization string, _ fsm.Reader) (string, bool, error) {
	user, password, ok := plugins.Credentials(authorization)
	if !ok || user == "" {
		return "", false, nil
	}
	mac := b.macs.Get().(hash.Hash) // the pool makes nothing else
	defer b.macs.Put(mac)
	mac.Reset()
	mac.Write([]byte(user + ":" + password))
	var sum [sha256.Size]byte
	return hex.EncodeToString(mac.Sum(sum[:0])), true, nil
}
