package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/valyala/fasthttp"
)

const secret = "whsec_YmVuY2htYXJrIHNlY3JldCBvZiBubyB3b3J0aA=="

// arrival is the first delivery of a change that was taken.
type arrival struct {
	id         string // of the delivery
	collection string
	at         time.Time
}

// repeat is a further one.
type repeat struct {
	first, again time.Time
	collection   string
}

// receiver takes webhooks, checks their signatures, their order and their ids, and
// refuses those of the collection "dead" if it is told to.
type receiver struct {
	listener net.Listener
	server   *fasthttp.Server
	verify   *standardwebhooks.Webhook
	refuse   atomic.Bool

	mu      sync.Mutex
	records map[string]arrival // by the id of the record
	ids     map[string]string  // id of the delivery: of which record
	last    map[string]uint64  // revision of the newest first arrival, by collection
	repeats []repeat
	wrong   error
}

func newReceiver() (*receiver, error) {
	verify, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{listener: l, verify: verify, records: map[string]arrival{}, ids: map[string]string{}, last: map[string]uint64{}}
	r.server = &fasthttp.Server{Handler: r.serve, NoDefaultDate: true}
	go func() { _ = r.server.Serve(l) }() // until close
	return r, nil
}

func (r *receiver) url() string { return "http://" + r.listener.Addr().String() + "/" }

func (r *receiver) close() { _ = r.server.Shutdown() }

func (r *receiver) serve(c *fasthttp.RequestCtx) {
	body := c.PostBody()
	parts := strings.Split(string(between(body, `"uri":"`, `"`)), "/")
	revision, err := strconv.ParseUint(string(between(body, `"revision":`, ",")), 10, 64)
	if len(parts) != 7 || err != nil {
		r.blame(fmt.Errorf("an unexpected body: %.300s", body))
		return
	}
	if r.refuse.Load() && parts[4] == deadName {
		c.SetStatusCode(http.StatusInternalServerError)
		return
	}
	header := http.Header{}
	for _, name := range []string{standardwebhooks.HeaderWebhookID, standardwebhooks.HeaderWebhookTimestamp, standardwebhooks.HeaderWebhookSignature} {
		header.Set(name, string(c.Request.Header.Peek(name)))
	}
	if err := r.verify.Verify(body, header); err != nil {
		r.blame(err)
	}
	r.note(header.Get(standardwebhooks.HeaderWebhookID), parts[4], parts[6], revision)
}

func between(b []byte, before, after string) []byte {
	_, b, _ = bytes.Cut(b, []byte(before))
	b, _, _ = bytes.Cut(b, []byte(after))
	return b
}

// note keeps an arrival: a change has one id, an id one change, and the first arrivals of
// a collection rise.
func (r *receiver) note(id, collection, record string, revision uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if first, ok := r.records[record]; ok {
		if first.id != id {
			r.wrong = errors.Join(r.wrong, fmt.Errorf("%s came as %s and as %s", record, first.id, id))
		}
		r.repeats = append(r.repeats, repeat{first.at, now, collection})
		return
	}
	if other, ok := r.ids[id]; ok {
		r.wrong = errors.Join(r.wrong, fmt.Errorf("%s and %s came as %s", other, record, id))
	}
	if revision <= r.last[collection] {
		r.wrong = errors.Join(r.wrong, fmt.Errorf("in %s revision %d first came after %d", collection, revision, r.last[collection]))
	}
	r.records[record], r.ids[id], r.last[collection] = arrival{id, collection, now}, record, revision
}

func (r *receiver) blame(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = errors.Join(r.wrong, err)
}

// fault is what was wrong with a delivery.
func (r *receiver) fault() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wrong
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.records)
}

// times are when records first came; a record that has not come is left out.
func (r *receiver) times(records []string) map[string]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]time.Time, len(records))
	for _, name := range records {
		if a, ok := r.records[name]; ok {
			all[name] = a.at
		}
	}
	return all
}

// wait returns once all the records have come.
func (r *receiver) wait(ctx context.Context, records []string, limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		for len(records) > 0 {
			if _, ok := r.records[records[len(records)-1]]; !ok {
				break
			}
			records = records[:len(records)-1]
		}
		r.mu.Unlock()
		if err := r.fault(); err != nil || len(records) == 0 {
			return err
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s has not come within %v", records[len(records)-1], limit)
		}
	}
}

// silent is a receiver that reads and never answers.
type silent struct {
	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
}

func newSilent() (*silent, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &silent{listener: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
		}
	}()
	return s, nil
}

func (s *silent) url() string { return "http://" + s.listener.Addr().String() + "/" }

func (s *silent) close() {
	_ = s.listener.Close() // nobody accepts any more
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close() // nothing is left to be said
	}
}

// closedPort is a URL at which nobody listens.
func closedPort() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return "http://" + l.Addr().String() + "/", l.Close()
}
