package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"quinto/fsm"
	"quinto/internal/outbound"
	"quinto/plugins"
)

// MetadataName is what includes call the webhooks in metadata.
const MetadataName = "quinto.webhooks"

// DeclaredPrefix begins the names of their notifiers.
const DeclaredPrefix = "meta-"

const (
	rowPrefix       = plugins.DeclaredPrefix + "webhooks"
	defaultPorts    = "443 8443"
	DefaultMaxHooks = 200  // in all metadata; setting webhooks.max_hooks
	MostHooks       = 1000 // that webhooks.max_hooks may say
)

func init() {
	plugins.Register(plugins.Module{Name: MetadataName, Settings: "webhooks.*", New: func() any { return new(Metadata) }})
}

// Metadata is the plugin of webhooks that the metadata of a bucket or a collection
// declares:
//
//	includes = quinto.webhooks
//	webhooks.allow_networks = 10.1.0.0/16
//	webhooks.ports = 443 8443
//	webhooks.ca_file = /etc/ssl/own.pem
//	webhooks.timeout_seconds = 10
//	webhooks.max_hooks = 200
//
// What is declared, with the secrets, is a replicated row for each object, which no
// request reads; the object itself never has the secrets (docs/adr/0014).
type Metadata struct {
	log    *slog.Logger
	guard  *outbound.Guard
	ports  []string
	most   int64
	sender poster

	mu    sync.Mutex
	known map[string]*declared // by the notifier's name
}

// Provision reads the settings webhooks.*.
func (m *Metadata) Provision(_ context.Context, s plugins.Settings) (err error) {
	m.log, m.known = s.Log, map[string]*declared{}
	if m.guard, err = outbound.NewGuard(s.List("webhooks.allow_networks")); err != nil {
		return fmt.Errorf("webhooks.allow_networks: %w", err)
	}
	if m.ports = s.List("webhooks.ports"); len(m.ports) == 0 {
		m.ports = strings.Fields(defaultPorts)
	}
	if m.most, err = s.Number("webhooks.max_hooks", DefaultMaxHooks, 1, MostHooks); err != nil {
		return err
	}
	seconds, err := s.Number("webhooks.timeout_seconds", int64(DefaultTimeout/time.Second), 1, int64(MaxTimeout/time.Second))
	if err != nil {
		return err
	}
	m.sender = poster{outbound.NewClient(m.guard), time.Duration(seconds) * time.Second, outbound.Brief}
	if file := s.Text("webhooks.ca_file", ""); file != "" {
		if err := outbound.Trust(m.sender.client, file); err != nil {
			return fmt.Errorf("webhooks.ca_file: %w", err)
		}
	}
	return nil
}

// Close gives the idle connections up.
func (m *Metadata) Close() error {
	if m.sender.client != nil {
		m.sender.client.CloseIdleConnections()
	}
	return nil
}

// Capabilities implements plugins.CapabilityProvider: a client that would send a secret
// to a server without it would have it shown to every reader.
func (m *Metadata) Capabilities() []plugins.Capability {
	return []plugins.Capability{{Name: "webhooks", Body: fmt.Sprintf(
		`{"description":"Buckets and collections may declare webhooks in their metadata.","max_per_object":%d}`, MaxDeclared)}}
}

// AskedFirst implements plugins.AskedFirst: no other hook sees a secret.
func (m *Metadata) AskedFirst() {}

// BeforeCommit checks the webhooks of a bucket or a collection, takes their secrets out
// of its data, and keeps them in the row of the object.
func (m *Metadata) BeforeCommit(_ context.Context, c *plugins.Change) error {
	if c.Kind != "bucket" && c.Kind != "collection" {
		return nil
	}
	settings, ok := c.View.(fsm.SettingReader)
	if !ok {
		return errors.New("webhook: the state has no settings")
	}
	if c.New == nil {
		return m.removed(settings, c)
	}
	value, err := settings.Setting(rowName(c.Path))
	if err != nil {
		return err
	}
	given, bad := m.definitions(c.New.Data, c.Kind)
	if bad != nil {
		return bad.veto()
	}
	old, err := readRow(value)
	if err != nil {
		return err
	}
	// Of an object that was not there, or that did not declare it, a row is left over.
	old.Hooks = slices.DeleteFunc(old.Hooks, func(d definition) bool { return c.Old == nil || !declares(c.Old.Data, d.Name) })
	now, made, bad := renew(&old, given, c)
	if bad != nil {
		return bad.veto()
	}
	if err := m.room(settings, len(now.Hooks)-len(old.Hooks)); err != nil {
		return err
	}
	for _, id := range made {
		c.Also(fsm.Op{Type: fsm.OpRegisterNotifier, Name: id, Value: declaredHash})
	}
	if len(given) > 0 {
		c.New.Data = withoutSecrets(c.New.Data, given)
	}
	return keep(c, value, &now)
}

// renew makes the row of an object from what its new data declares. made are the
// notifiers that are new.
func renew(old *row, given []definition, c *plugins.Change) (now row, made []string, bad *flaw) {
	for _, d := range given {
		was := old.find(d.Name)
		switch {
		case was != nil:
			d.ID = was.ID
			if d.Secret == "" {
				d.Secret = was.Secret
			}
		case d.Secret != "":
			d.ID = newID()
			made = append(made, d.ID)
		case c.Old != nil && declares(c.Old.Data, d.Name):
			continue // it came in without its secret, by an import, and waits for it
		default:
			return now, nil, &flaw{metadataPlace + "." + d.Name + ".secret", "Required"}
		}
		now.Hooks = append(now.Hooks, d)
	}
	return now, made, nil
}

// keep writes the row of an object, unless it is as it was.
func keep(c *plugins.Change, was []byte, now *row) error {
	op := fsm.Op{Type: fsm.OpSetSetting, Name: rowName(c.Path)}
	if len(now.Hooks) > 0 {
		var err error
		if op.Value, err = json.Marshal(now); err != nil {
			return err
		}
	}
	if !bytes.Equal(was, op.Value) {
		c.Also(op)
	}
	return nil
}

// room refuses hooks beyond webhooks.max_hooks.
func (m *Metadata) room(settings fsm.SettingReader, more int) error {
	if more <= 0 {
		return nil
	}
	var failed error
	count := int64(more)
	err := settings.Settings(rowPrefix+"/", func(_ string, value []byte) bool {
		var r row
		r, failed = readRow(value)
		count += int64(len(r.Hooks))
		return failed == nil
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if count > m.most {
		return &plugins.Veto{Status: http.StatusForbidden, Message: fmt.Sprintf("This server has room for %d webhooks in metadata, and no more.", m.most)}
	}
	return nil
}

// removed takes away the rows of an object that is deleted, and of what is in it.
func (m *Metadata) removed(settings fsm.SettingReader, c *plugins.Change) error {
	return settings.Settings(rowName(c.Path), func(name string, _ []byte) bool {
		if p := fsm.Path(strings.TrimPrefix(name, rowPrefix)); p == c.Path || p.Under(c.Path) {
			c.Also(fsm.Op{Type: fsm.OpSetSetting, Name: name})
		}
		return true
	})
}

// Prefix implements plugins.Declaring.
func (m *Metadata) Prefix() string { return DeclaredPrefix }

// Changes implements plugins.Declaring.
func (m *Metadata) Changes(e *fsm.Event) bool {
	kind := plugins.KindName(e.Path)
	return e.Action == fsm.ActionFlush || kind == "bucket" || kind == "collection"
}

// Declared implements plugins.Declaring: what the rows say, where the objects still
// declare it.
func (m *Metadata) Declared(v *fsm.View) (all []plugins.Scoped, stale []fsm.Op, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[string]*declared{}
	var failed error
	err = v.Settings(rowPrefix+"/", func(name string, value []byte) bool {
		p := fsm.Path(strings.TrimPrefix(name, rowPrefix))
		var o fsm.Object
		var r row
		if o, failed = v.Get(p); failed != nil {
			return false
		}
		if !o.Exists() {
			stale = append(stale, fsm.Op{Type: fsm.OpSetSetting, Name: name})
			return true
		}
		if r, failed = readRow(value); failed != nil {
			failed = fmt.Errorf("webhooks of %s: %w", p, failed)
			return false
		}
		for i := range r.Hooks {
			if d := &r.Hooks[i]; declares(o.Data, d.Name) {
				var hook *declared
				if hook, failed = m.bring(p, d); failed != nil {
					return false
				}
				seen[d.ID] = hook
				all = append(all, hook)
			}
		}
		return true
	})
	if err = errors.Join(err, failed); err == nil {
		m.known = seen
	}
	return all, stale, err
}

// bring makes the notifier of a definition, or brings it up to date.
func (m *Metadata) bring(p fsm.Path, d *definition) (*declared, error) {
	hook := m.known[d.ID]
	if hook == nil {
		hook = &declared{sender: &m.sender, id: d.ID, scope: p, name: d.Name}
	}
	return hook, hook.set(d)
}

var (
	_ plugins.Declaring          = (*Metadata)(nil)
	_ plugins.BeforeCommit       = (*Metadata)(nil)
	_ plugins.AskedFirst         = (*Metadata)(nil)
	_ plugins.Provisioner        = (*Metadata)(nil)
	_ plugins.CapabilityProvider = (*Metadata)(nil)
	_ io.Closer                  = (*Metadata)(nil)
)
