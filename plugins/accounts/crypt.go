package accounts

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"quinto/fsm"
)

const (
	// hashCost is that of Kinto's hashes (bcrypt.gensalt): about a quarter of a second.
	hashCost = 12
	// maxPasswordBytes is how much of a password bcrypt looks at.
	maxPasswordBytes = 72
	// maxHashQueue bounds the requests that wait for their turn to have a password
	// hashed or verified; who comes later is told to come again.
	maxHashQueue = 32
)

// absentHash is verified for an account that does not exist, so that it costs what
// one that exists costs. It is the hash of random bytes that nobody kept.
const absentHash = "$2b$12$uF4xQ3a0m8yHkT1dPzVrNeBq7cWj5LsXoG2iYb6tKhR9vUeCwMfDa"

// errQueue is answered with 503.
var errQueue = fmt.Errorf("accounts: more than %d passwords wait to be verified: %w", maxHashQueue, fsm.ErrOverloaded)

// gate lets few requests at a time use the processor for passwords, so that a flood
// of wrong ones leaves the node to everybody else.
type gate struct {
	slots   chan struct{}
	waiting atomic.Int64
}

// newGate returns a gate for half of the processors, at least one.
func newGate() *gate { return &gate{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))} }

// do runs f when it is its turn: errQueue when too many wait, or ctx's error.
func (g *gate) do(ctx context.Context, f func()) error {
	select {
	case g.slots <- struct{}{}:
	default:
		if g.waiting.Add(1) > maxHashQueue {
			g.waiting.Add(-1)
			return errQueue
		}
		select {
		case g.slots <- struct{}{}:
			g.waiting.Add(-1)
		case <-ctx.Done():
			g.waiting.Add(-1)
			return ctx.Err()
		}
	}
	defer func() { <-g.slots }()
	f()
	return nil
}

// hashPassword makes a hash as Kinto's, down to the version in its prefix, which
// names the same algorithm. An error is about the length alone.
func hashPassword(password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), hashCost)
	if err != nil {
		return "", err
	}
	return strings.Replace(string(hash), "$2a$", "$2b$", 1), nil
}

// matches reports whether password is that of hash. As bcrypt always did, it looks
// at the first 72 bytes.
func matches(hash, password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
}
