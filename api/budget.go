package api

import (
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"quinto/internal/config"
)

const (
	// bodiesInFlight times the largest body is the memory that bodies may take at
	// one time; requests beyond it get 503.
	bodiesInFlight = 64
	// freeBody bytes of body are not counted: fasthttp's buffers hold as much.
	freeBody = 16 << 10
)

// budget bounds the memory of the bodies being received and worked on. fasthttp
// allocates what Content-Length claims before a byte of it has come, so a few
// thousand slow connections could claim all memory.
type budget struct {
	most  int           // bytes in all
	whole int           // of one body whose length is not known
	stale time.Duration // a reservation this old was left by a connection that broke

	mu   sync.Mutex
	used int
	held map[*fasthttp.RequestHeader]reservation // a header belongs to one connection at a time
}

type reservation struct {
	bytes   int
	refused bool
	since   time.Time
}

func newBudget(c *config.Config) *budget {
	return &budget{
		most:  bodiesInFlight * c.Limits.BodyBytes,
		whole: c.Limits.BodyBytes,
		stale: 2 * (c.Timeouts.Read + c.Timeouts.Request),
		held:  map[*fasthttp.RequestHeader]reservation{},
	}
}

// reserve is fasthttp's hook between head and body. It refuses by a body limit of
// one byte, which leads to parseError.
func (b *budget) reserve(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	n := h.ContentLength()
	if n >= 0 && n <= freeBody || n > b.whole || n < -1 { // none, small, or refused by BodyLimit
		return fasthttp.RequestConfig{}
	}
	if n == -1 { // chunked
		n = b.whole
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(h)
	if b.used+n > b.most {
		b.sweep()
	}
	if b.used+n > b.most {
		b.held[h] = reservation{refused: true, since: time.Now()}
		return fasthttp.RequestConfig{MaxRequestBodySize: 1}
	}
	b.used += n
	b.held[h] = reservation{bytes: n, since: time.Now()}
	return fasthttp.RequestConfig{}
}

// refused reports whether reserve refused the request of h.
func (b *budget) refused(h *fasthttp.RequestHeader) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held[h].refused
}

// release gives back what the request of h holds.
func (b *budget) release(h *fasthttp.RequestHeader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(h)
}

func (b *budget) drop(h *fasthttp.RequestHeader) {
	if r, ok := b.held[h]; ok {
		b.used -= r.bytes
		delete(b.held, h)
	}
}

// sweep drops what a connection left that broke between head and handler:
// fasthttp calls no hook then.
func (b *budget) sweep() {
	for h, r := range b.held {
		if time.Since(r.since) > b.stale {
			b.drop(h)
		}
	}
}
