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
//	event_listeners.hook.timeout_seconds = 10
//	event_listeners.hook.grouped = true
package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"quinto/fsm"
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
	MaxSecrets       = 4
	MinSecretBytes   = 24 // of the decoded key, as Standard Webhooks asks
	MaxSecretBytes   = 64
	MaxResponseBytes = 64 << 10  // read and dropped, so that the connection can be used again
	GonePause        = time.Hour // between attempts once a receiver has answered 410
	maxConnections   = 64
	dialTimeout      = 5 * time.Second
	idleTimeout      = 30 * time.Second
)

const (
	secretPrefix = "whsec_"
	userAgent    = "quinto-webhook"
)

func init() {
	for _, name := range []string{Name, LongName} {
		plugins.Register(plugins.Module{Name: name, New: func() any { return new(Webhook) }})
	}
}

// Webhook is a notifier that posts each change to one URL.
type Webhook struct {
	settings plugins.Settings
	log      *slog.Logger
	url      *url.URL
	signers  []*standardwebhooks.Webhook
	filter   filter
	grouped  bool
	timeout  time.Duration
	client   *http.Client
}

// Provision reads the settings. Errors name the setting, never a secret.
func (w *Webhook) Provision(_ context.Context, s plugins.Settings) error {
	w.settings, w.log = s, s.Log.With("webhook", s.Name)
	w.filter = newFilter(s)
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
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("url: http://HOST/PATH or https://HOST/PATH is needed")
	}
	u.Fragment = ""
	w.url = u
	if err := w.readSecrets(s.Secret); err != nil {
		return err
	}
	// The address is the operator's word, also when it is private or loopback.
	// A proxy from the environment is not, and a redirect would leave it.
	w.client = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:    dialTimeout,
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        maxConnections,
			MaxIdleConnsPerHost:    maxConnections,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: MaxResponseBytes,
			DisableCompression:     true,
		},
	}
	return nil
}

// readSecrets takes several secrets while one is replaced by another: each
// signs, and the receiver accepts any.
func (w *Webhook) readSecrets(text string) error {
	secrets := strings.Fields(text)
	if len(secrets) == 0 || len(secrets) > MaxSecrets {
		return fmt.Errorf("secret: %s and 24 to 64 random bytes in base64 are needed, up to %d of them separated by spaces", secretPrefix, MaxSecrets)
	}
	for _, s := range secrets {
		encoded, ok := strings.CutPrefix(s, secretPrefix)
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(key) < MinSecretBytes || len(key) > MaxSecretBytes {
			return fmt.Errorf("secret: %s and %d to %d random bytes in base64 are needed", secretPrefix, MinSecretBytes, MaxSecretBytes)
		}
		signer, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			return err
		}
		w.signers = append(w.signers, signer)
	}
	return nil
}

// Validate warns about settings without effect.
func (w *Webhook) Validate() error {
	for name := range w.settings.Params {
		if !slices.Contains([]string{"timeout_seconds", "bucket", "collection", "grouped"}, name) {
			w.log.Warn("unknown setting of a webhook", "setting", name)
		}
	}
	if slices.Contains(w.settings.Actions, "read") {
		w.log.Warn("reads are not notified; the action is ignored", "action", "read")
	}
	for _, a := range w.settings.Actions {
		if !slices.Contains([]string{"create", "update", "delete", "read", "flush"}, a) {
			return fmt.Errorf("actions: %q is none of create, update, delete, flush", a)
		}
	}
	for _, r := range w.settings.Resources {
		if !slices.Contains([]string{"bucket", "group", "collection", "record"}, r) {
			w.log.Warn("a resource that is none of Kinto's", "resource", r)
		}
	}
	return w.filter.validate()
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
func (w *Webhook) Match(e *fsm.Event) bool { return w.filter.match(e) }

// Lane implements plugins.Notifier: order is kept within a collection.
func (w *Webhook) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

// Grouped implements plugins.Grouping: Kinto's events, if the setting grouped says so.
func (w *Webhook) Grouped() bool { return w.grouped }

// Deliver posts d. Any 2xx means taken. A redirect is a failure. 410 pauses
// for GonePause; another status is tried again as the dispatcher or the
// receiver's Retry-After says.
func (w *Webhook) Deliver(ctx context.Context, d plugins.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	req, err := w.request(ctx, d, time.Now())
	if err != nil {
		return plugins.Permanent(err)
	}
	res, err := w.client.Do(req)
	if err != nil {
		var u *url.Error // it quotes the URL, which may hold a token
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("webhook: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, MaxResponseBytes) // only to use the connection again
	if res.StatusCode >= 200 && res.StatusCode <= 299 {
		return nil
	}
	err = fmt.Errorf("webhook: receiver answered %d", res.StatusCode)
	after := retryAfter(res.Header.Get("Retry-After"), time.Now())
	if res.StatusCode == http.StatusGone {
		after = max(after, GonePause)
	}
	if after > 0 {
		return &plugins.RetryAfter{After: after, Err: err}
	}
	return err
}

func (w *Webhook) request(ctx context.Context, d plugins.Delivery, now time.Time) (*http.Request, error) {
	body := plugins.Payload(&d)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("webhook: bad request")
	}
	signatures := make([]string, len(w.signers))
	for i, s := range w.signers {
		if signatures[i], err = s.Sign(d.ID, now, body); err != nil {
			return nil, err
		}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set(standardwebhooks.HeaderWebhookID, d.ID)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return req, nil
}

// retryAfter reads the header of RFC 9110, 10.2.3: seconds or a date; 0 when
// there is none to be understood.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

var (
	_ plugins.Notifier    = (*Webhook)(nil)
	_ plugins.Grouping    = (*Webhook)(nil)
	_ plugins.Provisioner = (*Webhook)(nil)
	_ plugins.Validator   = (*Webhook)(nil)
	_ io.Closer           = (*Webhook)(nil)
)
