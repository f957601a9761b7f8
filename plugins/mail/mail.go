// Package mail is kinto-emailer: it mails what hooks in the metadata of a collection
// or a bucket ask for. The referee is kinto_emailer 4.0.0.
//
//	includes = kinto_emailer
//	mail.host = smtp.example.com
//	mail.tls = true
//	mail.username = kinto
//	mail.password = …
//	mail.default_sender = Kinto <kinto@example.com>
package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// Name is what includes call it.
const Name = "kinto_emailer"

// Limits of mail.
const (
	MaxHooks         = 100      // in the metadata of one object
	MaxAddresses     = 100      // that one hook lists
	MaxRecipients    = 500      // of one mail, groups expanded
	MaxTemplateBytes = 64 << 10 // of a template; a subject has MaxLineBytes
	MaxMailBytes     = 4 << 20  // of a body, placeholders filled
	MaxLineBytes     = 900      // of an address, a subject, a filter
	MaxConnections   = 8        // to the SMTP server
	patternAttempts  = 3        // with a pattern that takes too long, as it may on a busy machine
	maxRemembered    = 10_000   // recipients that were served in deliveries that failed for others
)

func init() {
	plugins.Register(plugins.Module{Name: Name, Settings: "mail.*", New: func() any { return new(Mail) }})
}

// Mail is the plugin.
type Mail struct {
	log      *slog.Logger
	server   server
	context  map[string]canon.Value // what the settings say to templates
	sender   string                 // of hooks without
	lostTo   []string               // who is told that mails are lost
	capacity chan struct{}

	mu     sync.Mutex
	served map[string]bool // Message-ID and recipient
}

// Provision reads the settings mail.*. Errors never show the password.
func (m *Mail) Provision(_ context.Context, s plugins.Settings) (err error) {
	m.log, m.served, m.capacity = s.Log, map[string]bool{}, make(chan struct{}, MaxConnections)
	if m.server, err = newServer(&s); err != nil {
		return err
	}
	if m.sender = s.Text("mail.default_sender", ""); m.sender != "" {
		if _, err := parseAddress(m.sender); err != nil {
			return fmt.Errorf("mail.default_sender: %q is no address", m.sender)
		}
	}
	m.lostTo = s.List("mail.lost_to")
	for _, text := range m.lostTo {
		if _, err := parseAddress(text); err != nil {
			return fmt.Errorf("mail.lost_to: %q is no address", text)
		}
	}
	m.context = contextOfSettings(&s)
	return nil
}

// Capabilities implements plugins.CapabilityProvider, with kinto-emailer's texts.
func (m *Mail) Capabilities() []plugins.Capability {
	return []plugins.Capability{{Name: "emailer", Body: `{"description":"Provide emailing capabilities to the server.","url":"https://github.com/Kinto/kinto-emailer/"}`}}
}

// BeforeCommit refuses hooks that are wrong, as kinto-emailer does.
func (m *Mail) BeforeCommit(_ context.Context, c *plugins.Change) error {
	if c.New == nil || (c.Kind != "bucket" && c.Kind != "collection") {
		return nil
	}
	if _, why := hooksOf(c.New.Data, bucketOf(c.Path)); why != "" {
		return &plugins.Veto{Status: http.StatusBadRequest, Location: "body", Message: why}
	}
	return nil
}

// Name implements plugins.Notifier.
func (m *Mail) Name() string { return Name }

// FilterHash implements plugins.Notifier. Hooks are not part of it.
func (m *Mail) FilterHash() []byte { return []byte("1") }

// Match implements plugins.Notifier: hooks are about collections and records.
func (m *Mail) Match(e *fsm.Event) bool {
	kind := plugins.KindName(e.Path)
	return e.Action != fsm.ActionFlush && (kind == "record" || kind == "collection")
}

// Lane implements plugins.Notifier.
func (m *Mail) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

// Look makes the mails of a change from the hooks and groups of this moment.
func (m *Mail) Look(r fsm.Reader, d *plugins.Delivery) (any, error) {
	hooks, err := m.hooks(r, d)
	if err != nil || len(hooks) == 0 {
		return nil, err
	}
	values := m.values(d)
	var all mails
	for i := range hooks {
		h := &hooks[i]
		if ok, slow := h.matches(values); !ok {
			all.slow = errors.Join(all.slow, slow)
			continue
		}
		l := letter{id: fmt.Sprintf("%s.%d", d.ID, i), time: d.Event.Time, from: h.sender,
			subject: oneLine(format(h.subject, values, MaxLineBytes)), body: format(h.template, values, MaxMailBytes)}
		if l.from == "" {
			l.from = m.sender
		}
		if l.to, err = m.expand(r, h, values, bucketOf(d.Event.Path)); err != nil {
			return nil, err
		}
		if l.all = l.to; len(l.to) > 0 {
			all.letters = append(all.letters, l)
		}
	}
	return all, nil
}

// mails are those of one change.
type mails struct {
	letters []letter
	slow    error // hooks of which it is not known whether they are about the change
}

// hooks are those of the collection, else those of the bucket: they are not merged.
func (m *Mail) hooks(r fsm.Reader, d *plugins.Delivery) ([]hook, error) {
	collection := d.New
	if plugins.KindName(d.Event.Path) == "record" {
		o, err := r.Get(fsm.Path(plugins.CollectionLane(d.Event)))
		if err != nil {
			return nil, err
		}
		collection = &o
	} else if collection == nil {
		collection = d.Old // of a deletion
	}
	bucket := bucketOf(d.Event.Path)
	if collection != nil && collection.Exists() {
		if _, ok := canon.Value(collection.Data).Get(metadata); ok {
			return m.valid(collection.Data, bucket, d), nil
		}
	}
	o, err := r.Get(fsm.Path("/buckets/" + bucket))
	if err != nil || !o.Exists() {
		return nil, err
	}
	return m.valid(o.Data, bucket, d), nil
}

// valid reads hooks; those from before the plugin was there may be wrong.
func (m *Mail) valid(data canon.Value, bucket string, d *plugins.Delivery) []hook {
	all, why := hooksOf(data, bucket)
	if why != "" {
		m.log.Warn("wrong hooks send no mail", "of", d.Event.Path, "reason", why)
		return nil
	}
	return all
}

// Deliver sends the mails. Those who got theirs in an earlier attempt on this node
// do not get it again when that failed for others. A hook whose pattern takes too long
// is tried patternAttempts times; then the change is a dead letter.
func (m *Mail) Deliver(ctx context.Context, d plugins.Delivery) error {
	all, _ := d.Seen.(mails)
	letters := all.letters
	var again, never []error
	switch {
	case all.slow != nil && d.Attempt < patternAttempts:
		again = []error{all.slow}
	case all.slow != nil:
		never = []error{all.slow}
	case len(letters) == 0:
		return nil
	}
	select {
	case m.capacity <- struct{}{}:
		defer func() { <-m.capacity }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for i := range letters {
		l := &letters[i]
		l.to = m.unserved(l)
		if len(l.to) == 0 {
			continue
		}
		taken, err := m.server.send(ctx, l)
		m.remember(l.id, taken)
		switch {
		case plugins.IsPermanent(err):
			never = append(never, err)
		case err != nil:
			again = append(again, err)
		}
	}
	if len(again) > 0 {
		return fmt.Errorf("mail: %w", errors.Join(again...))
	}
	m.forget(letters)
	if len(never) > 0 {
		return plugins.Permanent(fmt.Errorf("mail: %w", errors.Join(never...)))
	}
	return nil
}

// Lost implements plugins.Losing: a mail to those of mail.lost_to. Who would have got the
// lost ones is not known any more.
func (m *Mail) Lost(ctx context.Context, l plugins.Loss) error {
	if len(m.lostTo) == 0 {
		return nil
	}
	_, err := m.server.send(ctx, &letter{id: l.ID, time: l.Time, from: m.sender, to: m.lostTo, all: m.lostTo, subject: "Mails were lost",
		body: fmt.Sprintf("The mail server could not be reached for so long that changes were given up:\nthose with revisions above %d, up to %d, may never be mailed.\n", l.After, l.UpTo)})
	if plugins.IsPermanent(err) {
		m.log.Error("nobody could be told that mails are lost", "error", err)
		return nil
	}
	return err
}

// Test implements plugins.Tester: a mail to those of mail.lost_to, or, without them, a
// conversation with the server up to its TLS and authentication.
func (m *Mail) Test(ctx context.Context, id string) error {
	if len(m.lostTo) > 0 {
		_, err := m.server.send(ctx, &letter{id: id, time: fsm.Timestamp(time.Now().UnixMilli()), from: m.sender, to: m.lostTo, all: m.lostTo,
			subject: "A test", body: "The mail server takes mails.\n"})
		return err
	}
	c, end, err := m.server.open(ctx)
	if err != nil {
		return err
	}
	defer end()
	return c.Quit()
}

func (m *Mail) unserved(l *letter) (to []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range l.to {
		if !m.served[l.id+" "+r] {
			to = append(to, r)
		}
	}
	return to
}

func (m *Mail) remember(id string, recipients []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.served) > maxRemembered { // they may get it twice, as after a change of leader
		clear(m.served)
	}
	for _, r := range recipients {
		m.served[id+" "+r] = true
	}
}

// forget is for a delivery that is over.
func (m *Mail) forget(letters []letter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range letters {
		for _, r := range l.all {
			delete(m.served, l.id+" "+r)
		}
	}
}

func bucketOf(p fsm.Path) (id string) {
	plugins.Segments(p, func(_, first string) bool {
		id = first
		return false
	})
	return id
}

var (
	_ plugins.Notifier           = (*Mail)(nil)
	_ plugins.Looking            = (*Mail)(nil)
	_ plugins.Losing             = (*Mail)(nil)
	_ plugins.Tester             = (*Mail)(nil)
	_ plugins.BeforeCommit       = (*Mail)(nil)
	_ plugins.Provisioner        = (*Mail)(nil)
	_ plugins.CapabilityProvider = (*Mail)(nil)
)
