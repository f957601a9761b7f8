package accounts

import (
	"container/list"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"quinto/plugins"
)

// maxVerified bounds the remembered pairs of hash and password, those that match
// and those that do not each.
const maxVerified = 10_000

// pair names a stored hash and a password by an HMAC whose key dies with the
// process. A changed password is another hash, and so another pair: nothing has to
// be forgotten for a change to hold at once.
type pair [sha256.Size]byte

// verifier verifies passwords: at most once per pair and time to live, however many
// requests ask, and however they end. What it remembers is kept on this node only,
// since it follows from the state.
type verifier struct {
	key   []byte
	keep  time.Duration // a match is remembered this long after its last use
	clock func() time.Time
	gate  *gate

	mu      sync.Mutex
	right   recent // pairs that match
	wrong   recent // pairs that do not
	flights map[pair]*flight
}

// flight is a verification that is under way.
type flight struct {
	done  chan struct{}
	match bool
	err   error
}

func newVerifier(keep time.Duration) *verifier {
	v := &verifier{key: make([]byte, sha256.Size), keep: keep, clock: time.Now, gate: newGate(), flights: map[pair]*flight{}}
	rand.Read(v.key) // never fails: crypto/rand ends the program instead
	return v
}

// pairOf gives the name of a pair; user is part of it so that the absent accounts,
// which share a hash, are as many pairs as those that exist.
func (v *verifier) pairOf(user, hash, password string) (p pair) {
	mac := hmac.New(sha256.New, v.key)
	for _, part := range []string{user, hash, password} {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		mac.Write([]byte(part))
	}
	mac.Sum(p[:0])
	return p
}

// known returns what is remembered of a pair.
func (v *verifier) known(ctx context.Context, p pair) (match, ok bool) {
	if found, kept := plugins.Recall(ctx, p); kept {
		match, ok = found.(bool)
		return match, ok
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.clock()
	if v.right.use(p, now, v.keep) {
		return true, true
	}
	return false, v.wrong.use(p, now, v.keep)
}

// verify finds out whether hash and password match, and remembers it. The error is
// errQueue or ctx's.
func (v *verifier) verify(ctx context.Context, p pair, hash, password string) error {
	for {
		v.mu.Lock()
		f, running := v.flights[p]
		if !running {
			f = &flight{done: make(chan struct{})}
			v.flights[p] = f
			v.mu.Unlock()
			v.run(ctx, p, f, hash, password)
		} else {
			v.mu.Unlock()
			select {
			case <-f.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if running && f.err != nil && ctx.Err() == nil && !errors.Is(f.err, errQueue) {
			continue // whoever was first gave up waiting
		}
		if f.err == nil {
			plugins.Remember(ctx, p, f.match)
		}
		return f.err
	}
}

func (v *verifier) run(ctx context.Context, p pair, f *flight, hash, password string) {
	f.err = v.gate.do(ctx, func() { f.match = matches(hash, password) })
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.flights, p)
	close(f.done)
	switch {
	case f.err != nil || v.keep <= 0:
	case f.match:
		v.right.add(p, v.clock().Add(v.keep))
	default:
		v.wrong.add(p, v.clock().Add(v.keep))
	}
}

// recent is a set of pairs with a time to live, of which those least recently used
// are forgotten first. The zero value is empty.
type recent struct {
	places map[pair]*list.Element
	order  list.List // of *place, the latest in front
}

type place struct {
	pair  pair
	until time.Time
}

// use reports whether p is there, and keeps it for another while.
func (r *recent) use(p pair, now time.Time, keep time.Duration) bool {
	e, ok := r.places[p]
	if !ok {
		return false
	}
	at := e.Value.(*place)
	if !now.Before(at.until) {
		r.order.Remove(e)
		delete(r.places, p)
		return false
	}
	at.until = now.Add(keep)
	r.order.MoveToFront(e)
	return true
}

func (r *recent) add(p pair, until time.Time) {
	if r.places == nil {
		r.places = map[pair]*list.Element{}
	}
	if e, ok := r.places[p]; ok {
		e.Value.(*place).until = until
		r.order.MoveToFront(e)
		return
	}
	for len(r.places) >= maxVerified {
		last := r.order.Back()
		delete(r.places, last.Value.(*place).pair)
		r.order.Remove(last)
	}
	r.places[p] = r.order.PushFront(&place{p, until})
}
