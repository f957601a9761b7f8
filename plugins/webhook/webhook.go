// Package webhook is the notifier that sends changes to a URL as signed
// Standard Webhooks (https://www.standardwebhooks.com).
//
// Its settings are those of a listener:
//
//	event_listeners = hook
//	event_listeners.hook.use = quinto.webhook
//	event_listeners.hook.url = https://example.com/hook
//	event_listeners.hook.secret = whsec_…
//	event_listeners.hook.actions = create update delete
//	event_listeners.hook.resources = record
//	event_listeners.hook.bucket = blog
//	event_listeners.hook.collection = articles comments-*
//	event_listeners.hook.fields = title author.name
//	event_listeners.hook.public_only = true
//	event_listeners.hook.allow_networks = 10.1.0.0/16
//	event_listeners.hook.timeout_seconds = 10
//	event_listeners.hook.grouped = true
package webhook

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"quinto/fsm"
	"quinto/internal/outbound"
	"quinto/plugins"
)

// Names under which the module is registered.
const (
	Name     = "quinto.webhook"
	LongName = "quinto.plugins.webhook"
)

// Limits of a webhook.
const (
	DefaultTimeout   = 10 * time.Second // of one attempt; setting timeout_seconds
	MaxTimeout       = 30 * time.Second
	MaxSecrets       = outbound.MaxSecrets
	MaxResponseBytes = 64 << 10  // read and dropped, so that the connection can be used again
	GonePause        = time.Hour // asked of a dispatcher that would not stop, once a receiver has answered 410
)

func init() {
	for _, name := range []string{Name, LongName} {
		plugins.Register(plugins.Module{Name: name, New: func() any { return new(Webhook) }})
	}
}

var testBody = []byte(`{"action":"test"}`)

// Webhook is a notifier that posts each change to one URL.
type Webhook struct {
	settings plugins.Settings
	log      *slog.Logger
	url      *url.URL
	signers  outbound.Signers
	filter   plugins.Filter
	grouped  bool
	timeout  time.Duration
	client   *http.Client
}

// Provision reads the settings. Errors name the setting, never a secret.
func (w *Webhook) Provision(_ context.Context, s plugins.Settings) error {
	w.settings, w.log = s, s.Log.With("webhook", s.Name)
	var err error
	if w.filter, err = plugins.NewFilter(s); err != nil {
		return err
	}
	switch text := s.Params["grouped"]; text {
	case "", "false":
	case "true":
		w.grouped = true
	default:
		return fmt.Errorf("grouped = %q: true or false", text)
	}
	w.timeout = DefaultTimeout
	if text := s.Params["timeout_seconds"]; text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		w.timeout = time.Duration(seconds * float64(time.Second))
		if err != nil || w.timeout <= 0 || w.timeout > MaxTimeout {
			return fmt.Errorf("timeout_seconds = %q: a number above 0, up to %v", text, MaxTimeout.Seconds())
		}
	}
	if w.url, err = outbound.ParseURL(s.URL); err != nil {
		return err
	}
	if w.signers, err = outbound.ReadSecrets(s.Secret); err != nil {
		return err
	}
	// The address is the operator's word, also when it is private or loopback, unless
	// he says that only public ones are meant.
	guard, err := readGuard(s.Params)
	w.client = outbound.NewClient(guard)
	return err
}

// readGuard reads the settings public_only and allow_networks; nil: no guard.
func readGuard(params map[string]string) (*outbound.Guard, error) {
	switch text := params["public_only"]; text {
	case "", "false":
		if params["allow_networks"] != "" {
			return nil, errors.New("allow_networks: has a meaning with public_only = true alone")
		}
		return nil, nil
	case "true":
		guard, err := outbound.NewGuard(strings.Fields(params["allow_networks"]))
		if err != nil {
			return nil, fmt.Errorf("allow_networks: %w", err)
		}
		return guard, nil
	default:
		return nil, fmt.Errorf("public_only = %q: true or false", text)
	}
}

// Validate warns about settings without effect.
func (w *Webhook) Validate() error {
	for name := range w.settings.Params {
		if !slices.Contains(append(plugins.FilterSettings[:], "timeout_seconds", "grouped", "public_only", "allow_networks"), name) {
			w.log.Warn("unknown setting of a webhook", "setting", name)
		}
	}
	if slices.Contains(w.settings.Actions, "read") {
		w.log.Warn("reads are not notified; the action is ignored", "action", "read")
	}
	for _, r := range w.settings.Resources {
		if !slices.Contains([]string{"bucket", "group", "collection", "record"}, r) {
			w.log.Warn("a resource that is none of Kinto's", "resource", r)
		}
	}
	return nil
}

// Close gives the idle connections up.
func (w *Webhook) Close() error {
	if w.client != nil {
		w.client.CloseIdleConnections()
	}
	return nil
}

// Name returns the listener's name.
func (w *Webhook) Name() string { return w.settings.Name }

// FilterHash covers what Match looks at; URL and secret may change freely.
func (w *Webhook) FilterHash() []byte {
	sum := sha256.Sum256([]byte(w.filter.String()))
	return sum[:16]
}

// Match implements plugins.Notifier.
func (w *Webhook) Match(e *fsm.Event) bool { return w.filter.Match(e) }

// Lane implements plugins.Notifier: order is kept within a collection.
func (w *Webhook) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

// Grouped implements plugins.Grouping: Kinto's events, if the setting grouped says so.
func (w *Webhook) Grouped() bool { return w.grouped }

// Deliver posts d. Any 2xx means taken. A redirect is a failure. 410 stops all
// deliveries until the operator resumes them; another status is tried again as the dispatcher or the
// receiver's Retry-After says.
func (w *Webhook) Deliver(ctx context.Context, d plugins.Delivery) error {
	if !w.filter.Choose(&d) {
		return nil
	}
	return w.post(ctx, d.ID, plugins.Payload(&d))
}

// Test implements plugins.Tester: it posts {"action":"test"} once.
func (w *Webhook) Test(ctx context.Context, id string) error {
	return w.post(ctx, id, testBody)
}

// Lost implements plugins.Losing.
func (w *Webhook) Lost(ctx context.Context, l plugins.Loss) error {
	return w.post(ctx, l.ID, plugins.LossPayload(l))
}

func (w *Webhook) post(ctx context.Context, id string, body []byte) error {
	return poster{w.client, w.timeout, outbound.Plain}.post(ctx, w.url, w.signers, id, body)
}

var (
	_ plugins.Notifier    = (*Webhook)(nil)
	_ plugins.Grouping    = (*Webhook)(nil)
	_ plugins.Tester      = (*Webhook)(nil)
	_ plugins.Losing      = (*Webhook)(nil)
	_ plugins.Provisioner = (*Webhook)(nil)
	_ plugins.Validator   = (*Webhook)(nil)
	_ io.Closer           = (*Webhook)(nil)
)
