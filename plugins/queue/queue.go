// Package queue has the notifiers that put changes into a queue: Kinto's Redis list,
// a Redis stream, a NATS JetStream.
//
//	event_listeners = redis
//	event_listeners.redis.use = kinto_redis.listeners
//	event_listeners.redis.url = redis://:password@localhost:6379/0
//	event_listeners.redis.listname = kinto.core.events
//	event_listeners.redis.actions = create update
//	event_listeners.redis.resources = record
//
// A further queue is one file: a backend and its row in backends.
package queue

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// Limits of a queue.
const (
	DefaultTimeout = 10 * time.Second // of one attempt; setting timeout_seconds
	MaxTimeout     = 30 * time.Second
	MaxNameBytes   = 1024 // of a list, a stream, a subject
)

// message is one change as a queue takes it.
type message struct {
	id   string // of the delivery: equal in each attempt
	body []byte // JSON
}

// sender is a connection to one queue. It is used by several goroutines.
type sender interface {
	// send returns nil once the queue has acknowledged m. It must return soon after
	// ctx ends. An error of plugins.Permanent means that m can never be taken.
	send(ctx context.Context, m message) error
	io.Closer
}

// backend is a kind of queue.
type backend struct {
	module string
	params []string // names of its own settings
	// short sends Kinto's payload without objects, one for each of Kinto's events.
	short bool
	// check reads the settings and connects to nobody. What it returns connects with
	// its first message, or with the call.
	check func(s *plugins.Settings) (connect func(ctx context.Context) (sender, error), err error)
}

// backends are all there are.
func backends() []backend {
	return []backend{redisList(), redisStream(), jetStream()}
}

func init() {
	for _, b := range backends() {
		plugins.Register(plugins.Module{Name: b.module, New: func() any { return &Queue{backend: b} }})
	}
}

// Queue is a notifier that puts each change into one queue.
type Queue struct {
	backend
	name    string
	filter  plugins.Filter
	grouped bool
	timeout time.Duration
	secrets []string // that no error may show
	connect func(ctx context.Context) (sender, error)

	mu     sync.Mutex
	sender sender // nil: not connected
	closed bool
}

// Provision reads the settings. Errors name the setting, never a password.
func (q *Queue) Provision(_ context.Context, s plugins.Settings) (err error) {
	q.name, q.secrets = s.Name, passwords(s.URL)
	if q.filter, err = plugins.NewFilter(s); err != nil {
		return err
	}
	if q.timeout, err = seconds(&s, "timeout_seconds", DefaultTimeout); err != nil {
		return err
	}
	switch text := s.Params["grouped"]; text {
	case "":
		q.grouped = q.short // as Kinto
	case "true", "false":
		q.grouped = text == "true"
	default:
		return fmt.Errorf("grouped = %q: true or false", text)
	}
	for name := range s.Params {
		if !slices.Contains(slices.Concat(plugins.FilterSettings[:], []string{"grouped", "timeout_seconds"}, q.params), name) {
			s.Log.Warn("unknown setting of a queue", "setting", name)
		}
	}
	q.connect, err = q.check(&s)
	return q.hide(err)
}

// seconds reads a setting up to MaxTimeout.
func seconds(s *plugins.Settings, name string, otherwise time.Duration) (time.Duration, error) {
	text := s.Params[name]
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	d := time.Duration(n * float64(time.Second))
	if err != nil || d <= 0 || d > MaxTimeout {
		return 0, fmt.Errorf("%s = %q: a number above 0, up to %v", name, text, MaxTimeout.Seconds())
	}
	return d, nil
}

// number reads a whole number within bounds.
func number(s *plugins.Settings, name string, otherwise, least, most int64) (int64, error) {
	text := s.Params[name]
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s = %q: a number from %d to %d", name, text, least, most)
	}
	return n, nil
}

// text reads the name of a list, a stream or a subject.
func text(s *plugins.Settings, name, otherwise string) (string, error) {
	value := s.Params[name]
	if value == "" {
		value = otherwise
	}
	if len(value) > MaxNameBytes {
		return "", fmt.Errorf("%s: %d bytes, up to %d", name, len(value), MaxNameBytes)
	}
	return value, nil
}

// passwords finds what of some URLs is secret, as written and as meant.
func passwords(urls string) (all []string) {
	for _, text := range strings.FieldsFunc(urls, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		if user, host, ok := cutLast(text, "@"); ok && host != "" {
			_, user, _ = strings.Cut(user, "://")
			name, password, ok := strings.Cut(user, ":")
			if !ok {
				password = name // a token
			}
			plain, _ := url.PathUnescape(password)
			all = append(all, password, plain)
		}
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

func cutLast(s, separator string) (before, after string, ok bool) {
	if at := strings.LastIndex(s, separator); at >= 0 {
		return s[:at], s[at+len(separator):], true
	}
	return s, "", false
}

// hide keeps passwords out of an error that a library has made.
func (q *Queue) hide(err error) error {
	if err == nil {
		return nil
	}
	shown := err.Error()
	for _, secret := range q.secrets {
		shown = strings.ReplaceAll(shown, secret, "***")
	}
	if shown == err.Error() {
		return err
	}
	if plugins.IsPermanent(err) {
		return plugins.Permanent(errors.New(shown))
	}
	return errors.New(shown)
}

// Name returns the listener's name.
func (q *Queue) Name() string { return q.name }

// FilterHash covers what Match looks at; the queue may change freely.
func (q *Queue) FilterHash() []byte {
	sum := sha256.Sum256([]byte(q.filter.String()))
	return sum[:16]
}

// Match implements plugins.Notifier.
func (q *Queue) Match(e *fsm.Event) bool { return q.filter.Match(e) }

// Lane implements plugins.Notifier: order is kept within a collection.
func (q *Queue) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

// Grouped implements plugins.Grouping: Kinto's events for Kinto's list, and where
// the setting grouped says so.
func (q *Queue) Grouped() bool { return q.grouped }

// Deliver returns nil when the queue has acknowledged d.
func (q *Queue) Deliver(ctx context.Context, d plugins.Delivery) error {
	if !q.filter.Choose(&d) {
		return nil
	}
	if q.short {
		return q.put(ctx, message{id: d.ID, body: plugins.ShortPayload(&d)})
	}
	return q.put(ctx, message{id: d.ID, body: plugins.Payload(&d)})
}

// Lost implements plugins.Losing.
func (q *Queue) Lost(ctx context.Context, l plugins.Loss) error {
	return q.put(ctx, message{id: l.ID, body: plugins.LossPayload(l)})
}

// Test implements plugins.Tester: it puts {"action":"test"} there once.
func (q *Queue) Test(ctx context.Context, id string) error {
	return q.put(ctx, message{id: id, body: fmt.Appendf(nil, `{"action":"test","delivery_id":%q}`, id)})
}

func (q *Queue) put(ctx context.Context, m message) error {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	s, err := q.open(ctx)
	if err == nil {
		err = s.send(ctx, m)
	}
	if err != nil {
		return q.hide(fmt.Errorf("queue: %w", err))
	}
	return nil
}

// open connects, once for all lanes.
func (q *Queue) open(ctx context.Context) (sender, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, errors.New("closed")
	}
	if q.sender == nil {
		s, err := q.connect(ctx)
		if err != nil {
			return nil, err
		}
		q.sender = s
	}
	return q.sender, nil
}

// Close ends the connections.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.sender == nil {
		return nil
	}
	err := q.sender.Close()
	q.sender = nil
	return err
}

var (
	_ plugins.Notifier    = (*Queue)(nil)
	_ plugins.Grouping    = (*Queue)(nil)
	_ plugins.Losing      = (*Queue)(nil)
	_ plugins.Tester      = (*Queue)(nil)
	_ plugins.Provisioner = (*Queue)(nil)
	_ io.Closer           = (*Queue)(nil)
)
