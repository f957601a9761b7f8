package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// ErrUnknownModule is returned by Registry.Load for a name that no plugin has
// registered.
var ErrUnknownModule = errors.New("unknown plugin")

// Module is a plugin as it registers itself.
type Module struct {
	Name string     // what the configuration calls it, as in "quinto.webhook"
	New  func() any // makes one, not yet set up
	// Policy makes Name a class for multiauth.policy.<name>.use instead of a name
	// for includes; New then makes an Authenticator.
	Policy bool
	// Settings are patterns, separated by spaces, of the settings of [app:main] that
	// the module reads with Settings.Lookup, as in "history.*".
	Settings string
}

// Settings is what the configuration says to one plugin: for a listener the
// values of event_listeners.<name>.
type Settings struct {
	Name      string            // unique, of the operator's choice
	Use       string            // Module.Name
	Actions   []string          // create, update, delete, read
	Resources []string          // names of kinds; empty: all
	URL       string            // receiver
	Secret    string            // never to be logged
	Params    map[string]string // all other settings
	Log       *slog.Logger      // never nil in Provision
	// Lookup finds any setting of [app:main] by its name without "kinto.", given in
	// the file or the environment. Never nil in Provision. The methods Text, List,
	// Flag and Number read it.
	Lookup func(name string) (text string, ok bool)
	// ReadOnly says that the server takes no writes.
	ReadOnly bool
}

// Provisioner is a plugin that wants its settings before it is used. It starts
// nothing: goroutines and connections come with the first use.
type Provisioner interface {
	Provision(ctx context.Context, s Settings) error
}

// Validator is a plugin that checks its settings after Provision.
type Validator interface {
	Validate() error
}

// Registry holds modules by name.
type Registry struct {
	modules map[string]Module
}

// registered is filled by the init functions of plugins and by nothing else.
var registered = NewRegistry()

// Register makes a module known to the program; call it from init. It panics
// on an empty or duplicate name: such a binary must not start.
func Register(m Module) { registered.Add(m) }

// Registered returns a copy of what init functions have registered.
func Registered() *Registry { return &Registry{modules: maps.Clone(registered.modules)} }

// NewRegistry returns an empty registry.
func NewRegistry() *Registry { return &Registry{modules: map[string]Module{}} }

// Add adds a module. It panics as Register does.
func (r *Registry) Add(m Module) {
	switch _, taken := r.modules[m.Name]; {
	case m.Name == "" || m.New == nil:
		panic(fmt.Sprintf("plugins: module %q without name or constructor", m.Name))
	case taken:
		panic(fmt.Sprintf("plugins: module %q is registered twice", m.Name))
	}
	r.modules[m.Name] = m
}

// Names returns the names of the modules, sorted.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.modules)) }

// Policies returns the names of those that are classes of policies, sorted.
func (r *Registry) Policies() []string { return r.where(func(m Module) bool { return m.Policy }) }

// Plugins returns the names of those that are no policies, sorted.
func (r *Registry) Plugins() []string { return r.where(func(m Module) bool { return !m.Policy }) }

func (r *Registry) where(is func(Module) bool) []string {
	return slices.DeleteFunc(r.Names(), func(name string) bool { return !is(r.modules[name]) })
}

// SettingPatterns returns the patterns of the settings that the named modules read.
func (r *Registry) SettingPatterns() (all []string) {
	for _, name := range r.Names() {
		all = append(all, strings.Fields(r.modules[name].Settings)...)
	}
	return all
}

// Load makes the plugin that s.Use names and sets it up. ErrUnknownModule when
// there is none, else what Provision or Validate returned.
func (r *Registry) Load(ctx context.Context, s Settings) (any, error) {
	m, ok := r.modules[s.Use]
	if !ok {
		return nil, fmt.Errorf("%w %q of %q; there are: %s", ErrUnknownModule, s.Use, s.Name, strings.Join(r.Names(), ", "))
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Lookup == nil {
		s.Lookup = func(string) (string, bool) { return "", false }
	}
	p := m.New()
	var err error
	if x, ok := p.(Provisioner); ok {
		err = x.Provision(ctx, s)
	}
	if x, ok := p.(Validator); ok && err == nil {
		err = x.Validate()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("plugin %q: %w", s.Name, err), closePlugin(p))
	}
	return p, nil
}

// Set is the plugins of one node by what they do, in the order of the
// configuration.
type Set struct {
	BeforeCommit   []BeforeCommit
	Notifiers      []Notifier
	Declaring      []Declaring
	Observers      []Observer
	Authenticators []Authenticator
	Kinds          []KindProvider
	Routes         []RouteProvider
	Capabilities   []CapabilityProvider
	Users          []UserInfo
	Aliases        []Alias
	Metrics        []Metrics
	Redacting      []Redacting
	all            []any
}

// Open loads all plugins that settings name. On an error those already loaded
// are closed.
func (r *Registry) Open(ctx context.Context, settings []Settings) (*Set, error) {
	set := &Set{}
	for _, s := range settings {
		p, err := r.Load(ctx, s)
		if err == nil && !set.Add(p) {
			err = errors.Join(fmt.Errorf("plugin %q: %q implements none of the interfaces of package plugins", s.Name, s.Use), closePlugin(p))
		}
		if err != nil {
			return nil, errors.Join(err, set.Close())
		}
	}
	return set, nil
}

// Add sorts p into the set by the interfaces that it implements, and reports
// whether there is one.
func (s *Set) Add(p any) bool {
	found := appendIf(&s.BeforeCommit, p)
	if _, first := p.(AskedFirst); first && found {
		last := len(s.BeforeCommit) - 1
		s.BeforeCommit = append([]BeforeCommit{s.BeforeCommit[last]}, s.BeforeCommit[:last]...)
	}
	found = appendIf(&s.Declaring, p) || found
	found = appendIf(&s.Notifiers, p) || found
	found = appendIf(&s.Observers, p) || found
	found = appendIf(&s.Authenticators, p) || found
	found = appendIf(&s.Kinds, p) || found
	found = appendIf(&s.Routes, p) || found
	found = appendIf(&s.Capabilities, p) || found
	found = appendIf(&s.Users, p) || found
	found = appendIf(&s.Aliases, p) || found
	found = appendIf(&s.Metrics, p) || found
	found = appendIf(&s.Redacting, p) || found
	if found {
		s.all = append(s.all, p)
	}
	return found
}

func appendIf[T any](list *[]T, p any) bool {
	x, ok := p.(T)
	if ok {
		*list = append(*list, x)
	}
	return ok
}

// Close closes the plugins that have a Close method, last first. The
// dispatcher must be closed before.
func (s *Set) Close() error {
	var errs []error
	for _, p := range slices.Backward(s.all) {
		errs = append(errs, closePlugin(p))
	}
	s.all = nil
	return errors.Join(errs...)
}

func closePlugin(p any) error {
	if c, ok := p.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
