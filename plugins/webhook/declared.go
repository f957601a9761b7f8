package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"sync/atomic"

	"quinto/fsm"
	"quinto/internal/outbound"
	"quinto/plugins"
)

// declaredHash is the FilterHash of all declared webhooks: their filters may change
// freely.
var declaredHash = []byte("1")

// declared is the notifier of one webhook in metadata.
type declared struct {
	sender   *poster
	id, name string
	scope    fsm.Path
	now      atomic.Pointer[terms]
}

// terms are what the metadata says at the moment.
type terms struct {
	text    string // of the definition, to see whether it changed
	url     *url.URL
	signers outbound.Signers
	filter  plugins.Filter
}

// set takes over what d says.
func (h *declared) set(d *definition) error {
	text := fmt.Sprintf("%q", *d)
	if t := h.now.Load(); t != nil && t.text == text {
		return nil
	}
	t := &terms{text: text}
	var err error
	if t.url, err = outbound.ParseURL(d.URL); err != nil {
		return err
	}
	if t.signers, err = outbound.ReadSecrets(d.Secret); err != nil {
		return err
	}
	if t.filter, err = d.filter(); err != nil {
		return err
	}
	h.now.Store(t)
	return nil
}

// Name implements plugins.Notifier.
func (h *declared) Name() string { return h.id }

// FilterHash implements plugins.Notifier.
func (h *declared) FilterHash() []byte { return declaredHash }

// Scope implements plugins.Scoped.
func (h *declared) Scope() fsm.Path { return h.scope }

// Describe implements plugins.Scoped.
func (h *declared) Describe() plugins.Description {
	return plugins.Description{Of: h.scope, Hook: h.name, URL: shownURL(h.now.Load().url)}
}

// Receiver implements plugins.Scoped.
func (h *declared) Receiver() string {
	sum := sha256.Sum256([]byte(h.now.Load().url.String()))
	return hex.EncodeToString(sum[:8])
}

// Match implements plugins.Notifier.
func (h *declared) Match(e *fsm.Event) bool {
	if e.Action == fsm.ActionFlush || e.Path != h.scope && !e.Path.Under(h.scope) {
		return false
	}
	return h.now.Load().filter.Match(e)
}

// Lane implements plugins.Notifier: order is kept within a collection.
func (h *declared) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

// Deliver implements plugins.Notifier, as Webhook's.
func (h *declared) Deliver(ctx context.Context, d plugins.Delivery) error {
	t := h.now.Load()
	if !t.filter.Choose(&d) {
		return nil
	}
	return h.sender.post(ctx, t.url, t.signers, d.ID, plugins.Payload(&d))
}

// Test implements plugins.Tester.
func (h *declared) Test(ctx context.Context, id string) error {
	t := h.now.Load()
	return h.sender.post(ctx, t.url, t.signers, id, testBody)
}

// Lost implements plugins.Losing.
func (h *declared) Lost(ctx context.Context, l plugins.Loss) error {
	t := h.now.Load()
	return h.sender.post(ctx, t.url, t.signers, l.ID, plugins.LossPayload(l))
}

var (
	_ plugins.Losing = (*declared)(nil)
	_ plugins.Scoped = (*declared)(nil)
	_ plugins.Tester = (*declared)(nil)
)
