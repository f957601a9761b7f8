// Package gatekeeper asks a program elsewhere, over HTTP, about each write before it
// is committed: it may let it pass, refuse it with a 4xx, or edit a record's data.
//
// Its settings are those of a listener:
//
//	event_listeners.gate.use = quinto.gatekeeper
//	event_listeners.gate.url = https://example.com/may
//	event_listeners.gate.secret = whsec_…
//	event_listeners.gate.failure = closed
//	event_listeners.gate.timeout_seconds = 3
//
// and the filters of the webhook. While the receiver is asked nothing is held: the
// request is decided again with what it has said.
package gatekeeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"quinto/fsm"
	"quinto/internal/outbound"
	"quinto/plugins"
)

// Name is what the configuration calls the module.
const Name = "quinto.gatekeeper"

// Limits of a gatekeeper.
const (
	DefaultTimeout   = 3 * time.Second
	MaxTimeout       = 10 * time.Second
	MaxAnswerBytes   = 2 << 20 // room for an edited record
	MaxMessageBytes  = 500     // of what a refusal tells the client
	MaxAsks          = 5       // about one object in one request, while others change it
	MaxObjects       = plugins.MaxWorks - MaxAsks
	userAgent        = "quinto-gatekeeper"
	policyOpen       = "open"
	policyClosed     = "closed"
	recordKind       = "record"
	settingFailure   = "failure"
	settingTimeout   = "timeout_seconds"
	logPause         = time.Second // between two lines about failures
	firstRefusal     = 400
	firstServerError = 500
)

// kinds are those that it is asked about: no passwords are among them.
var kinds = [...]string{"bucket", "group", "collection", recordKind}

func init() {
	plugins.Register(plugins.Module{Name: Name, New: func() any { return new(Gatekeeper) }})
}

// Gatekeeper is a hook that asks one URL.
type Gatekeeper struct {
	name    string
	log     *slog.Logger
	url     *url.URL
	signers outbound.Signers
	filter  plugins.Filter
	open    bool // what cannot be asked passes
	timeout time.Duration
	client  *http.Client
	quiet   pause
}

// Provision reads the settings. Errors name the setting, never a secret.
func (g *Gatekeeper) Provision(_ context.Context, s plugins.Settings) error {
	g.name, g.log, g.timeout = s.Name, s.Log.With("gatekeeper", s.Name), DefaultTimeout
	var err error
	if g.filter, err = plugins.NewFilter(s); err != nil {
		return err
	}
	for _, r := range s.Resources {
		if !slices.Contains(kinds[:], r) {
			return fmt.Errorf("resources: %q is none of bucket, group, collection, record", r)
		}
	}
	if text := s.Params[settingTimeout]; text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		g.timeout = time.Duration(seconds * float64(time.Second))
		if err != nil || g.timeout <= 0 || g.timeout > MaxTimeout {
			return fmt.Errorf("%s = %q: a number above 0, up to %v", settingTimeout, text, MaxTimeout.Seconds())
		}
	}
	switch text := s.Params[settingFailure]; text {
	case "", policyClosed:
	case policyOpen:
		g.open = true
	default:
		return fmt.Errorf("%s = %q: %s or %s", settingFailure, text, policyOpen, policyClosed)
	}
	for name := range s.Params {
		if !slices.Contains(append(plugins.FilterSettings[:], settingTimeout, settingFailure), name) {
			g.log.Warn("unknown setting of a gatekeeper", "setting", name)
		}
	}
	if g.url, err = outbound.ParseURL(s.URL); err != nil {
		return err
	}
	if g.signers, err = outbound.ReadSecrets(s.Secret); err != nil {
		return err
	}
	g.client = outbound.NewClient(nil) // the address is the operator's word
	return nil
}

// Close gives the idle connections up.
func (g *Gatekeeper) Close() error {
	if g.client != nil {
		g.client.CloseIdleConnections()
	}
	return nil
}

// Name is the listener's.
func (g *Gatekeeper) Name() string { return g.name }

// askedKey and countKey are what a request remembers.
type (
	askedKey struct{ gate, question string }
	countKey struct{ gate string }
)

// asked counts the questions of one request.
type asked struct {
	all    int
	byPath map[fsm.Path]int
}

// BeforeCommit implements plugins.BeforeCommit. The first time about a change it
// wants the question asked, then it does as it was answered.
func (g *Gatekeeper) BeforeCommit(ctx context.Context, c *plugins.Change) error {
	if !slices.Contains(kinds[:], c.Kind) || !g.filter.Accepts(c.Action, c.Path) || !g.filter.Concerns(c.Old, c.New) {
		return nil
	}
	q := question(c)
	key := askedKey{g.name, string(q.hash())}
	if known, ok := plugins.Recall(ctx, key); ok {
		return g.apply(known.(*verdict), c)
	}
	counts := asked{byPath: map[fsm.Path]int{}}
	if known, ok := plugins.Recall(ctx, countKey{g.name}); ok {
		counts = known.(asked)
	}
	switch {
	case counts.byPath[c.Path] >= MaxAsks:
		return g.unavailable("others keep changing the same object")
	case counts.all >= MaxObjects:
		return &plugins.Veto{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("gatekeeper %q is asked about each object: at most %d in one request", g.name, MaxObjects)}
	}
	counts.all++
	counts.byPath[c.Path]++
	plugins.Remember(ctx, countKey{g.name}, counts)
	return &plugins.Later{Work: func(ctx context.Context) error {
		v := g.ask(ctx, q)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		plugins.Remember(ctx, key, v)
		return nil
	}}
}

func (g *Gatekeeper) unavailable(why string) error {
	return &plugins.Unavailable{Message: fmt.Sprintf("gatekeeper %q: %s; nothing was written, please retry later.", g.name, why)}
}

// apply does what the receiver has said.
func (g *Gatekeeper) apply(v *verdict, c *plugins.Change) error {
	switch {
	case v.failed != "" && g.open:
		return nil
	case v.failed != "":
		return g.unavailable(v.failed)
	case v.veto != nil:
		return v.veto
	case v.data != nil && c.New != nil:
		c.New.Data = slices.Clone(v.data)
	}
	return nil
}

// Test implements plugins.Tester: it asks about {"action":"test"} once.
func (g *Gatekeeper) Test(ctx context.Context, id string) error {
	if v := g.send(ctx, id, []byte(`{"action":"test"}`), false); v.failed != "" {
		return errors.New(v.failed)
	}
	return nil
}

var (
	_ plugins.BeforeCommit = (*Gatekeeper)(nil)
	_ plugins.Provisioner  = (*Gatekeeper)(nil)
	_ plugins.Tester       = (*Gatekeeper)(nil)
	_ io.Closer            = (*Gatekeeper)(nil)
)
