package openid

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// errnoInvalidAuthToken is Kinto's errno in the details of a bad state.
const errnoInvalidAuthToken = 105

// What a callback is told when the provider cannot do its part (RFC 6749, 4.1.2.1).
const (
	unavailable = "temporarily_unavailable"
	serverError = "server_error"
)

const (
	required      = "Required"
	inQuerystring = "querystring"
)

// arguments reads the query of a request: of the names in known at most one value
// each. A name that is given more often is a problem, in Kinto's words.
func arguments(r *plugins.RouteRequest, known ...string) (values url.Values, problems []plugins.Problem) {
	values, _ = url.ParseQuery(r.Query) // what is no pair is left out
	for _, name := range known {
		if len(values[name]) < 2 {
			continue
		}
		list := []byte{'['}
		for i, value := range values[name] {
			if i > 0 {
				list = append(list, ',')
			}
			list = canon.AppendString(list, value)
		}
		problems = append(problems, plugins.Problem{Location: inQuerystring, Name: name,
			Description: canon.Python(append(list, ']')) + " is not a string: {'" + name + "': ''}"})
		delete(values, name)
	}
	return values, problems
}

func refuse(problems ...plugins.Problem) error { return &plugins.Veto{Problems: problems} }

// withProvider finds the provider of a request and adds what is wrong with that.
func (o *OpenID) withProvider(r *plugins.RouteRequest, problems []plugins.Problem) (*provider, error) {
	name := r.Params["provider"]
	p := o.find(name)
	if p == nil {
		problems = append(problems, plugins.Problem{Location: "path", Name: "provider",
			Description: "Unknown provider " + canon.Python(canon.AppendString(nil, name))})
	}
	if len(problems) > 0 {
		return nil, refuse(problems...)
	}
	return p, nil
}

// login sends a browser to the provider, and remembers where it has to come back to.
func (o *OpenID) login(ctx context.Context, r *plugins.RouteRequest) (*plugins.RoutePlan, error) {
	q, problems := arguments(r, "callback", "scope", "prompt")
	callback, scope, prompt := q.Get("callback"), q.Get("scope"), q.Get("prompt")
	p, err := o.withProvider(r, checkLogin(callback, scope, prompt, problems))
	if err != nil {
		return nil, err
	}
	scopes := strings.Fields(scope)
	if err := o.checkPolicy(p, r.Base, callback, scopes); err != nil {
		return nil, err
	}
	found, err := o.metadata(ctx, p)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return &plugins.RoutePlan{Response: failed(callback, unavailable, "The provider does not answer.")}, nil
	}
	state, kept, ops, err := begin(r.View, r.Now, p, callback, p.verifyIDToken && slices.Contains(scopes, "openid"))
	if err != nil {
		return nil, err
	}
	// Kinto's parameters in Kinto's order, then the nonce.
	to := found.Authorization
	for i, pair := range [...][2]string{{"client_id", p.clientID}, {"response_type", "code"}, {"scope", scope}, {"redirect_uri", redirectURI(r, p)},
		{"state", state}, {"prompt", prompt}, {"audience", p.audience}, {"nonce", kept.nonce}} {
		switch {
		case pair[1] == "":
			continue
		case i == 0 && !strings.Contains(to, "?"):
			to += "?"
		default:
			to += "&"
		}
		to += pair[0] + "=" + url.QueryEscape(pair[1])
	}
	return &plugins.RoutePlan{Ops: ops, Response: plugins.RouteResponse{Redirect: to}}, nil
}

// redirectURI is where the provider sends the browser back to.
func redirectURI(r *plugins.RouteRequest, p *provider) string {
	return r.Base + "/openid/" + url.PathEscape(p.name) + "/token"
}

// checkLogin is Kinto's schema of the query.
func checkLogin(callback, scope, prompt string, problems []plugins.Problem) []plugins.Problem {
	add := func(name, description string) {
		if slices.ContainsFunc(problems, func(p plugins.Problem) bool { return p.Name == name }) {
			return
		}
		problems = append(problems, plugins.Problem{Location: inQuerystring, Name: name, Description: description})
	}
	switch trimmed := strings.TrimSpace(callback); {
	case callback == "":
		add("callback", required)
	case !urlForm.MatchString(trimmed):
		add("callback", "Must be a URL")
	case len(trimmed) > maxCallbackBytes:
		add("callback", "Longer than maximum length 2048")
	}
	if scope == "" {
		add("scope", required)
	}
	if prompt != "" && !strings.HasPrefix(prompt, "none") {
		add("prompt", "String does not match expected pattern")
	}
	return problems
}

// checkPolicy holds the wishes of a client against the settings.
func (o *OpenID) checkPolicy(p *provider, base, callback string, scopes []string) error {
	var foreign []string
	for _, scope := range scopes {
		if !slices.Contains(p.scopes, scope) {
			foreign = append(foreign, scope)
		}
	}
	patterns := p.callbacks
	if len(patterns) == 0 {
		patterns = localCallbacks
		if o.admin {
			patterns = append(slices.Clip(patterns), base+"/admin/*")
		}
	}
	switch {
	case len(foreign) > 0:
		slices.Sort(foreign)
		return refuse(plugins.Problem{Location: "body", Name: "scope", Description: "Scopes not allowed: " + strings.Join(slices.Compact(foreign), ", ")})
	case !trusted(callback, patterns):
		return refuse(plugins.Problem{Location: "body", Name: "callback", Description: "Untrusted callback URL"})
	case p.userIDField == "email" && !slices.Contains(scopes, "email"):
		return refuse(plugins.Problem{Location: "body", Name: "scope", Description: "Provider " + p.name + " requires 'email' scope"})
	}
	return nil
}

// metadata returns what is known of a provider, nil when it does not answer, or the
// wish to ask for it.
func (o *OpenID) metadata(ctx context.Context, p *provider) (*metadata, error) {
	if found, ok := plugins.Recall(ctx, p); ok {
		m, _ := found.(*metadata)
		return m, nil
	}
	if m := p.refresh(); m != nil {
		return m, nil
	}
	return nil, &plugins.Later{Work: func(ctx context.Context) error {
		m, err := p.discover(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			o.settings.Log.Warn("a login cannot begin: its OpenID provider does not say what it is", "policy", p.name, "error", err)
		}
		plugins.Remember(ctx, p, m)
		return nil
	}}
}

// failed sends a browser back with an error, as Kinto sends back those of a provider.
func failed(callback, code, description string) plugins.RouteResponse {
	to := callback + "error=" + url.QueryEscape(code)
	if description != "" {
		to += "&error_description=" + url.QueryEscape(description)
	}
	return plugins.RouteResponse{Redirect: to}
}

// tradeKey is under which a request remembers what its state's code was traded for.
type tradeKey struct{ state fsm.Path }

// traded is what a provider gave for a code.
type traded struct {
	body []byte
	err  error
	used bool // the code was traded before
}

// token ends a login: the browser gets what the provider gives for its code.
func (o *OpenID) token(ctx context.Context, r *plugins.RouteRequest) (*plugins.RoutePlan, error) {
	q, problems := arguments(r, "code", "state", "error", "error_description")
	code, state, problem := q.Get("code"), q.Get("state"), q.Get("error")
	switch {
	case problems != nil:
	case state == "":
		problems = []plugins.Problem{{Location: inQuerystring, Name: "state", Description: required}}
	case (code == "") == (problem == ""):
		problems = []plugins.Problem{{Location: inQuerystring,
			Description: "Provide either 'state' and 'code', or 'error' and 'error_description', but not both."}}
	}
	p, err := o.withProvider(r, problems)
	if err != nil {
		return nil, err
	}
	path, kept, err := resume(r.View, r.Now, p.name, state)
	if err != nil {
		return nil, err
	}
	plan := &plugins.RoutePlan{Ops: []fsm.Op{{Type: fsm.OpDropEntries, Path: path.List(), Members: []string{path.ID()}}}}
	if problem != "" {
		plan.Response = failed(kept.callback, problem, q.Get("error_description"))
		return plan, nil
	}
	found, known := plugins.Recall(ctx, tradeKey{path})
	if !known {
		return nil, o.trade(p, path, code, redirectURI(r, p), kept.nonce)
	}
	got, _ := found.(traded)
	switch {
	case got.used:
		return nil, invalidState()
	case errors.Is(got.err, errRefused):
		plan.Response = failed(kept.callback, serverError, "The provider's answer cannot be trusted.")
	case got.err != nil:
		plan.Response = failed(kept.callback, unavailable, "The provider does not answer.")
	default:
		plan.Response = failed(kept.callback, serverError, "The answer was lost on its way.")
		plan.Unstored = &plugins.RouteResponse{Redirect: kept.callback + encodeAnswer(got.body)}
	}
	return plan, nil
}

// trade is the wish to trade a code at the provider, which is done with nothing held.
func (o *OpenID) trade(p *provider, state fsm.Path, code, redirectURI, nonce string) error {
	return &plugins.Later{Work: func(ctx context.Context) error {
		if !o.claim(state, p.clock()) {
			plugins.Remember(ctx, tradeKey{state}, traded{used: true})
			return nil
		}
		body, err := p.exchange(ctx, code, redirectURI, nonce)
		if err != nil {
			o.settings.Log.Warn("a login failed at the OpenID provider", "policy", p.name, "error", err)
		}
		plugins.Remember(ctx, tradeKey{state}, traded{body: body, err: err})
		return nil
	}}
}
