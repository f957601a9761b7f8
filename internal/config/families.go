package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// BasicAuthPolicy is the class of the one policy that every program has (Kinto 6.2).
const BasicAuthPolicy = "kinto.core.authentication.BasicAuthAuthenticationPolicy"

// kintoPolicies are Kinto's own classes that a program may lack: its files name
// them, so they are left out with a warning instead of stopping the start. Nobody
// can authenticate through a policy that is left out.
var kintoPolicies = [...]string{
	"kinto.plugins.accounts.AccountsPolicy",
	"kinto.plugins.accounts.AccountsAuthenticationPolicy",
	"kinto.plugins.accounts.authentication.AccountsAuthenticationPolicy",
	"kinto.plugins.openid.OpenIDConnectPolicy",
}

// family returns the parameters `<prefix><member>.*`. The environment may give those
// that the file has, and the named ones.
func (l *loader) family(prefix, member string, names ...string) map[string]entry {
	prefix += member + "."
	for _, name := range names {
		l.fromEnv(prefix + name)
	}
	params := map[string]entry{}
	for name, from := range l.values {
		if param, ok := strings.CutPrefix(name, prefix); ok {
			params[param] = from
		}
	}
	return params
}

func texts(params map[string]entry) map[string]string {
	all := make(map[string]string, len(params))
	for name, from := range params {
		all[name] = Text(from.text)
	}
	return all
}

// policies fills Auth.Policies from multiauth.policies (Kinto 6.1).
func (l *loader) policies(c *Config) error {
	list := l.values["multiauth.policies"]
	supported := append([]string{BasicAuthPolicy}, l.opts.Policies...)
	for _, name := range List(list.text) {
		params := l.family(policyPrefix, name, "use")
		use, given := params["use"]
		if !given && name == "basicauth" { // Kinto's default for this name
			use, given = entry{text: BasicAuthPolicy}, true
		}
		if !given {
			return list.fail(fmt.Sprintf("policy %q is not defined", name), policyPrefix+name+".use = "+strings.Join(supported, " or "))
		}
		delete(params, "use")
		class := Text(use.text)
		switch {
		case slices.Contains(supported, class):
			c.Auth.Policies = append(c.Auth.Policies, Policy{Name: name, Use: class, Params: texts(params)})
		case slices.Contains(kintoPolicies[:], class):
			c.NoEffect = append(c.NoEffect, "policy "+name+" ("+class+")")
		default:
			return use.fail(fmt.Sprintf("authentication policy %q is not supported", class), strings.Join(supported, ", "))
		}
	}
	return nil
}

// listeners fills Listeners from event_listeners (Kinto 12.4). A listener may be
// named by its module, whose last part then names its settings.
func (l *loader) listeners(c *Config) error {
	list := l.values["event_listeners"]
	names := List(list.text)
	if len(names) > c.Limits.Listeners {
		return list.fail(fmt.Sprintf("%d listeners are too many", len(names)), fmt.Sprintf("up to quinto.limit_listeners = %d", c.Limits.Listeners))
	}
	seen := map[string]bool{}
	for _, module := range names {
		name := module[strings.LastIndex(module, ".")+1:]
		if seen[name] {
			return list.fail(fmt.Sprintf("listener %q is given twice", name), "each once")
		}
		seen[name] = true
		params := l.family(listenerPrefix, name, "use", "actions", "resources", "url", "secret")
		all := texts(params)
		listener := Listener{Name: name, Use: all["use"], Actions: []string{"create", "update", "delete"},
			Resources: List(params["resources"].text), URL: all["url"], Secret: all["secret"], Params: all}
		if listener.Use == "" && name != module {
			listener.Use = module
		}
		if listener.Use == "" {
			return list.fail(fmt.Sprintf("listener %q is not defined", name), listenerPrefix+name+".use = MODULE")
		}
		if actions := List(params["actions"].text); len(actions) > 0 {
			listener.Actions = actions
		}
		for _, action := range listener.Actions {
			if !slices.Contains([]string{"create", "update", "delete", "read", "flush"}, action) {
				return params["actions"].fail(fmt.Sprintf("%q is not an action", action), "create, update, delete, read, flush")
			}
		}
		maps.DeleteFunc(all, func(name, _ string) bool {
			return slices.Contains([]string{"use", "actions", "resources", "url", "secret"}, name)
		})
		c.Listeners = append(c.Listeners, listener)
	}
	return nil
}
