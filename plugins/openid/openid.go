// Package openid is Kinto's plugin kinto.plugins.openid: users whom an OpenID provider
// vouches for (Kinto 6.4). The policy tells who has an access token; the plugin has the
// endpoints by which a browser gets one, and says who the providers are.
package openid

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

func init() {
	plugins.Register(plugins.Module{Name: moduleName, New: func() any { return new(OpenID) }})
	plugins.Register(plugins.Module{Name: policyClass, Policy: true, New: func() any { return new(Policy) }})
}

// OpenID is the plugin.
type OpenID struct {
	providers []*provider // in the order of multiauth.policies
	admin     bool        // the admin is there: it may be called back
	settings  plugins.Settings

	mu      sync.Mutex
	claimed recent[fsm.Path, struct{}] // states whose codes this node has traded
}

var (
	_ plugins.Provisioner        = (*OpenID)(nil)
	_ plugins.RouteProvider      = (*OpenID)(nil)
	_ plugins.CapabilityProvider = (*OpenID)(nil)
	_ plugins.Preparer           = (*OpenID)(nil)
	_ plugins.UserInfo           = (*OpenID)(nil)
)

// Provision reads the parameters of the policies of this plugin. There may be none.
func (o *OpenID) Provision(_ context.Context, s plugins.Settings) error {
	o.settings, o.admin = s, slices.Contains(s.List("includes"), "kinto.plugins.admin")
	o.claimed = recent[fsm.Path, struct{}]{most: maxStates, mostBytes: maxStates}
	for _, name := range policies(&s) {
		c, err := readSettings(&s, name)
		if err != nil {
			return err
		}
		o.providers = append(o.providers, newProvider(c))
	}
	return nil
}

// Close ends calls that are under way.
func (o *OpenID) Close() error {
	for _, p := range o.providers {
		p.close()
	}
	return nil
}

// find returns a provider by its name, nil when there is none.
func (o *OpenID) find(name string) *provider {
	i := slices.IndexFunc(o.providers, func(p *provider) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return o.providers[i]
}

// Prepare implements plugins.Preparer: the first hello view waits for the providers'
// answers, or for their time to be up.
func (o *OpenID) Prepare(context.Context) error {
	if !slices.ContainsFunc(o.providers, func(p *provider) bool { return !p.asked() }) {
		return nil
	}
	return &plugins.Later{Work: func(ctx context.Context) error {
		var all sync.WaitGroup
		for _, p := range o.providers {
			all.Go(func() {
				if _, err := p.discover(ctx); err != nil {
					o.settings.Log.Warn("an OpenID provider does not say what it is", "policy", p.name, "error", err)
				}
			})
		}
		all.Wait()
		return ctx.Err()
	}}
}

// Capabilities implements plugins.CapabilityProvider, in Kinto's words. A provider that
// has not answered yet is told as far as the settings know it.
func (o *OpenID) Capabilities() []plugins.Capability {
	if len(o.providers) == 0 {
		return nil
	}
	b := []byte(`{"description":"OpenID connect support.","url":"http://kinto.readthedocs.io/en/stable/api/1.x/authentication.html","providers":[`)
	for i, p := range o.providers {
		m := p.refresh()
		if m == nil {
			m = &metadata{Issuer: p.issuer}
		}
		if i > 0 {
			b = append(b, ',')
		}
		for j, member := range [...]struct{ name, value string }{{"name", p.name}, {"issuer", m.Issuer}, {"auth_path", "/openid/" + p.name + "/login"},
			{"client_id", p.clientID}, {"audience", p.audience}, {"header_type", p.headerType}, {"userinfo_endpoint", m.UserInfo}} {
			b = canon.AppendString(append(b, "{,"[min(j, 1)]), member.name)
			b = canon.AppendString(append(b, ':'), member.value)
		}
		b = append(b, '}')
	}
	return []plugins.Capability{{Name: "openid", Body: string(append(b, `]}`...))}}
}

// UserInfo implements plugins.UserInfo: the profile of who sent a token, {} for others.
func (o *OpenID) UserInfo(ctx context.Context, userID string, _ fsm.Reader) (map[string][]byte, error) {
	if len(o.providers) == 0 {
		return nil, nil
	}
	profile := []byte("{}")
	if found, ok := plugins.Recall(ctx, profileKey{userID}); ok {
		profile, _ = found.([]byte)
	}
	return map[string][]byte{"profile": profile}, nil
}

const failureSchema = `{"properties":{"code":{"title":"Code","type":"integer"},"details":{},"errno":{"title":"Errno","type":"integer"},` +
	`"error":{"title":"Error","type":"string"},"info":{"title":"Info","type":"string"},"message":{"title":"Message","type":"string"}},` +
	`"required":["code","errno","error"],"title":"ErrorSchema","type":"object"}`

// Routes implements plugins.RouteProvider. Kinto has the endpoints also without a
// provider.
func (o *OpenID) Routes() []plugins.Route {
	query := func(name string, required bool, more string) string {
		b := canon.AppendString([]byte(`{"in":"query","name":`), name)
		if required {
			return string(b) + `,"required":true,"type":"string"` + more + `}`
		}
		return string(b) + `,"required":false,"type":"string"` + more + `}`
	}
	return []plugins.Route{
		{Method: http.MethodGet, Path: "/openid/:provider/login", Name: "openid_login", Plan: o.login, Doc: &plugins.Doc{
			Path: "/openid/{provider}/login", Tag: "Openid_login",
			Parameters: []string{query("callback", true, `,"format":"url","maxLength":2048,"minLength":1`), query("scope", true, ""),
				query("prompt", false, `,"pattern":"none"`)},
			Responses: `{"307":{"description":"Successful redirection.","headers":{"Location":{"type":"string"}}},` +
				`"400":{"description":"The request is invalid.","schema":` + failureSchema + `}}`}},
		{Method: http.MethodGet, Path: "/openid/:provider/token", Name: "openid_token", Plan: o.token, Doc: &plugins.Doc{
			Path: "/openid/{provider}/token", Tag: "Openid_token",
			Parameters: []string{query("code", false, ""), query("state", true, ""), query("error", false, ""), query("error_description", false, "")},
			Responses:  `{"default":{"description":"UNDOCUMENTED RESPONSE"}}`}},
	}
}

// claim marks a state as used on this node, and reports whether it was not. It is kept
// as long as a state can live: a code must be traded once, since a provider that sees
// it twice takes back what it gave for it.
func (o *OpenID) claim(state fsm.Path, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, taken := o.claimed.get(state, now, 0); taken {
		return false
	}
	o.claimed.put(state, struct{}{}, 1, now.Add(maxStateSeconds*time.Second))
	return true
}
