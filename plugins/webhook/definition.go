package webhook

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/internal/outbound"
	"quinto/plugins"
)

// Limits of the webhooks in the metadata of one bucket or collection.
const (
	MaxDeclared     = 10   // in one object
	MaxURLBytes     = 2048 // of an address
	MaxListed       = 20   // entries of a filter
	MaxListedBytes  = 200  // of one entry
	maxDeclaredName = 64   // bytes; see declaredName
)

// Where the metadata has them: data.quinto.webhooks.NAME.
const (
	metadataOwner = "quinto"
	metadataHooks = "webhooks"
	metadataPlace = "data." + metadataOwner + "." + metadataHooks
)

var declaredName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// definition is a webhook as an object's metadata declares it. As JSON it is what the
// replicated row of the object holds: members are only ever added.
type definition struct {
	Name        string   `json:"name"`
	ID          string   `json:"id"` // of the notifier
	URL         string   `json:"url"`
	Secret      string   `json:"secret"` // never leaves the row
	Actions     []string `json:"actions,omitempty"`
	Resources   []string `json:"resources,omitempty"`
	Collections []string `json:"collections,omitempty"`
	IDs         []string `json:"ids,omitempty"`
	Fields      []string `json:"fields,omitempty"`
}

// row is the value of the replicated setting of one object.
type row struct {
	Hooks []definition `json:"hooks"`
}

func (r *row) find(name string) *definition {
	if i := slices.IndexFunc(r.Hooks, func(d definition) bool { return d.Name == name }); i >= 0 {
		return &r.Hooks[i]
	}
	return nil
}

func readRow(value []byte) (r row, err error) {
	if value != nil {
		err = json.Unmarshal(value, &r)
	}
	return r, err
}

// newID names the notifier of a hook. It is drawn, so that a hook that is declared
// again after its removal is another one.
func newID() string { return DeclaredPrefix + strings.ToLower(rand.Text()[:20]) }

// flaw is what is wrong with metadata, and where: the answer names both, and quotes
// nothing that was sent.
type flaw struct{ place, why string }

func (f *flaw) veto() error {
	return &plugins.Veto{Status: 400, Location: "body", Name: f.place, Message: f.why}
}

// declares tells whether data declares a hook of this name.
func declares(data canon.Value, name string) bool {
	_, ok := data.GetPath(metadataOwner, metadataHooks, name)
	return ok
}

// definitions reads the hooks of an object's data, by name. A secret is empty where
// none is given.
func (m *Metadata) definitions(data canon.Value, kind string) (all []definition, bad *flaw) {
	hooks, ok := data.GetPath(metadataOwner, metadataHooks)
	if !ok || hooks.Kind() == canon.Null {
		return nil, nil
	}
	if hooks.Kind() != canon.Object {
		return nil, &flaw{metadataPlace, "an object of webhooks by name is needed"}
	}
	hooks.Each(func(name string, v canon.Value) bool {
		var d definition
		switch {
		case len(all) == MaxDeclared:
			bad = &flaw{metadataPlace, fmt.Sprintf("up to %d webhooks are allowed", MaxDeclared)}
		case len(name) > maxDeclaredName || !declaredName.MatchString(name):
			bad = &flaw{metadataPlace, fmt.Sprintf("a name is up to %d letters, digits, dots, dashes and underscores", maxDeclaredName)}
		default:
			d, bad = m.definition(name, v, kind)
		}
		all = append(all, d)
		return bad == nil
	})
	return all, bad
}

func (m *Metadata) definition(name string, v canon.Value, kind string) (d definition, bad *flaw) {
	place := metadataPlace + "." + name
	if v.Kind() != canon.Object {
		return d, &flaw{place, "an object is needed"}
	}
	d.Name = name
	lists := map[string]*[]string{"actions": &d.Actions, "resources": &d.Resources, "ids": &d.IDs, "fields": &d.Fields}
	if kind == "bucket" {
		lists["collections"] = &d.Collections
	}
	v.Each(func(member string, value canon.Value) bool {
		at := place + "." + member
		to := lists[member]
		switch {
		case member == "url":
			d.URL, bad = m.readURL(value, at)
		case member == "secret":
			d.Secret, bad = readSecret(value, at)
		case to != nil:
			*to, bad = readList(value, at)
		default:
			bad = &flaw{place, "members are url, secret, actions, resources, collections (of a bucket), ids and fields"}
		}
		return bad == nil
	})
	if bad == nil && d.URL == "" {
		bad = &flaw{place + ".url", "Required"}
	}
	if bad == nil {
		bad = d.checkFilter(place)
	}
	return d, bad
}

func readSecret(v canon.Value, at string) (string, *flaw) {
	text, ok := v.String()
	if v.Kind() == canon.Null || ok && text == "" {
		return "", nil
	}
	if _, err := outbound.ReadSecrets(text); !ok || err != nil {
		return "", &flaw{at, fmt.Sprintf("whsec_ and %d to %d random bytes in base64 are needed, up to %d of them separated by spaces",
			outbound.MinSecretBytes, outbound.MaxSecretBytes, MaxSecrets)}
	}
	return text, nil
}

func readList(v canon.Value, at string) (all []string, bad *flaw) {
	bad = &flaw{at, fmt.Sprintf("a list of up to %d texts without white space, of up to %d bytes, is needed", MaxListed, MaxListedBytes)}
	if v.Kind() != canon.Array || v.Len() > MaxListed {
		return nil, bad
	}
	fine := true
	v.Elements(func(e canon.Value) bool {
		text, ok := e.String()
		fine = ok && len(text) <= MaxListedBytes && len(strings.Fields(text)) == 1 && strings.TrimSpace(text) == text
		all = append(all, text)
		return fine
	})
	if !fine {
		return nil, bad
	}
	return all, nil
}

// readURL reads an address that somebody else than the operator has written.
func (m *Metadata) readURL(v canon.Value, at string) (string, *flaw) {
	text, ok := v.String()
	if !ok || len(text) > MaxURLBytes {
		return "", &flaw{at, fmt.Sprintf("a text of up to %d bytes is needed", MaxURLBytes)}
	}
	if err := m.checkURL(text); err != nil {
		return "", &flaw{at, err.Error()}
	}
	return text, nil
}

func (m *Metadata) checkURL(text string) error {
	u, err := outbound.ParseURL(text)
	port := ""
	if err == nil {
		if port = u.Port(); port == "" {
			port = "443"
		}
	}
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		return errors.New("https://HOST/PATH is needed")
	case u.User != nil:
		return errors.New("no user and no password may stand in it")
	case !slices.Contains(m.ports, port):
		return errors.New("the port has to be one of " + strings.Join(m.ports, ", "))
	}
	// A name is looked at when it is called, by its address of that moment.
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && m.guard.Check(a) != nil {
		return outbound.ErrNotPublic
	}
	return nil
}

// checkFilter says which list cannot be used.
func (d *definition) checkFilter(place string) *flaw {
	for _, a := range d.Actions {
		if !slices.Contains([]string{"create", "update", "delete"}, a) {
			return &flaw{place + ".actions", "actions are create, update and delete"}
		}
	}
	for _, r := range d.Resources {
		if !slices.Contains(declaredKinds[:], r) {
			return &flaw{place + ".resources", "resources are bucket, group, collection and record"}
		}
	}
	for name, list := range map[string][]string{"collections": d.Collections, "ids": d.IDs} {
		for _, p := range list {
			if _, err := path.Match(p, ""); err != nil {
				return &flaw{place + "." + name, "a pattern of ids, as in draft-*, is needed"}
			}
		}
	}
	return nil
}

// declaredKinds are those of which a declared webhook hears.
var declaredKinds = [...]string{"bucket", "group", "collection", "record"}

// filter chooses the changes of the hook, within its scope.
func (d *definition) filter() (plugins.Filter, error) {
	s := plugins.Settings{Actions: d.Actions, Resources: d.Resources, Params: map[string]string{
		"collection": strings.Join(d.Collections, " "), "id": strings.Join(d.IDs, " "), "fields": strings.Join(d.Fields, " ")}}
	if len(s.Resources) == 0 {
		s.Resources = declaredKinds[:]
	}
	return plugins.NewFilter(s)
}

// withoutSecrets is data without the secrets of its hooks.
func withoutSecrets(data canon.Value, all []definition) canon.Value {
	owner, _ := data.Get(metadataOwner)
	hooks, _ := owner.Get(metadataHooks)
	for i := range all {
		hook, _ := hooks.Get(all[i].Name)
		hooks = canon.Set(hooks, all[i].Name, canon.Delete(hook, "secret"))
	}
	return canon.Set(data, metadataOwner, canon.Set(owner, metadataHooks, hooks))
}

// shownURL is an address without what may be a password.
func shownURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// rowName is the replicated setting of the hooks that the object at p declares.
func rowName(p fsm.Path) string { return rowPrefix + string(p) }
