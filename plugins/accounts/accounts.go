// Package accounts is Kinto's built-in plugin of the same name: users with names
// and passwords, kept as objects under /accounts (Kinto 6.3), and the policy that
// lets them in.
package accounts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

const (
	moduleName = "kinto.plugins.accounts"
	policyName = "account"
	// root is the list of all accounts.
	root = fsm.Path("/accounts")

	passwordField = "password"
	everyone      = "system.Everyone"
	maxNameBytes  = 512
)

// policyClasses are the names that Kinto's files give the policy.
var policyClasses = []string{
	moduleName + ".AccountsPolicy",
	moduleName + ".AccountsAuthenticationPolicy",
	moduleName + ".authentication.AccountsAuthenticationPolicy",
}

func init() {
	plugins.Register(plugins.Module{Name: moduleName, New: func() any { return new(Accounts) },
		Settings: "account_cache_ttl_seconds quinto.hide_password_hashes"})
	for _, class := range policyClasses {
		plugins.Register(plugins.Module{Name: class, Policy: true, New: func() any { return new(Policy) }, Settings: "account_cache_ttl_seconds"})
	}
}

// Accounts is the list of accounts.
type Accounts struct {
	settings plugins.Settings
	admins   []string // account_write_principals
	hide     bool
	gate     *gate
}

var (
	_ plugins.Provisioner        = (*Accounts)(nil)
	_ plugins.Validator          = (*Accounts)(nil)
	_ plugins.KindProvider       = (*Accounts)(nil)
	_ plugins.CapabilityProvider = (*Accounts)(nil)
)

// Provision takes the settings.
func (a *Accounts) Provision(_ context.Context, s plugins.Settings) (err error) {
	a.settings, a.admins, a.gate = s, s.List("account_write_principals"), newGate()
	if a.settings.Log == nil {
		a.settings.Log = slog.New(slog.DiscardHandler)
	}
	a.hide, err = s.Flag("quinto.hide_password_hashes", false)
	return err
}

// Validate applies Kinto's rules about settings that would lock everybody out, or
// let the wrong policy decide.
func (a *Accounts) Validate() error {
	policies := a.settings.List("multiauth.policies")
	own := ""
	for _, name := range append(slices.Clone(policies), policyName, "accounts") {
		if slices.Contains(policyClasses, a.settings.Text("multiauth.policy."+name+".use", "")) {
			own = name
		}
	}
	if own == "" {
		return fmt.Errorf("no policy has its class: name one in multiauth.policies, and set multiauth.policy.NAME.use = %s", policyClasses[0])
	}
	first, behind := slices.Index(policies, "basicauth"), slices.Index(policies, own)
	if first >= 0 && behind > first {
		return fmt.Errorf("basicauth must not stand before %s in multiauth.policies", own)
	}
	var helpless []string
	for _, principal := range a.settings.List("account_create_principals") {
		if principal != everyone && !slices.Contains(a.admins, principal) {
			helpless = append(helpless, principal)
		}
	}
	if len(helpless) > 0 {
		return fmt.Errorf("account_create_principals has %s, who could create no account but their own: add them to account_write_principals",
			strings.Join(helpless, ", "))
	}
	return nil
}

// Capabilities implements plugins.CapabilityProvider, in Kinto's words.
func (*Accounts) Capabilities() []plugins.Capability {
	return []plugins.Capability{{Name: "accounts", Body: `{"description":"Manage user accounts.",` +
		`"url":"https://kinto.readthedocs.io/en/latest/api/1.x/accounts.html","validation_enabled":false}`}}
}

// Kinds implements plugins.KindProvider.
func (a *Accounts) Kinds() []plugins.Kind {
	kind := plugins.Kind{Name: "account", Plural: "accounts", Permissions: []string{"read", "write"}, ValidID: validID,
		Doc:       plugins.KindDoc{Properties: `{"password":{"title":"Password","type":"string"}}`, Required: []string{passwordField}},
		NeedsData: true, Check: check, Scope: a.scope, Complete: a.complete}
	if a.hide {
		kind.Hidden = []string{passwordField}
	}
	return []plugins.Kind{kind}
}

// validID is Kinto's ^[a-zA-Z0-9][+.@a-zA-Z0-9_-]*$.
func validID(id string) bool {
	if id == "" || len(id) > maxNameBytes {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("+.@_-", rune(c))) {
			return false
		}
	}
	return true
}

// check wants a password that is a text, in colander's words.
func check(data []byte) ([]byte, []plugins.Flaw) {
	password, _ := canon.Value(data).Get(passwordField)
	if text, ok := password.String(); ok && text != "" {
		return data, nil
	}
	flaw := plugins.Flaw{Name: passwordField, Description: "Required"}
	if !empty(password) {
		flaw.Description = canon.Python(password) + " is not a string: {'password': ''}"
	}
	return data, []plugins.Flaw{flaw}
}

// empty is Python's "not value".
func empty(v canon.Value) bool {
	switch v.Kind() {
	case canon.Missing, canon.Null:
		return true
	case canon.Bool:
		return v[0] == 'f'
	case canon.Number:
		f, _ := v.Float()
		return f == 0
	}
	return len(v) == 2 // "", [], {}
}

// scope isolates the accounts of users as Kinto does: an admin reaches all, anybody
// else his own, and who is nobody those that he names.
func (a *Accounts) scope(r *plugins.ScopeRequest) (plugins.Scope, error) {
	admin := slices.ContainsFunc(r.Principals, func(p string) bool { return slices.Contains(a.admins, p) })
	if !admin && r.UserID != "" {
		_, own, _ := strings.Cut(r.UserID, ":")
		return plugins.Scope{ID: own}, nil
	}
	if !r.Named && r.Method == http.MethodPost {
		return plugins.Scope{}, &plugins.Veto{Status: http.StatusBadRequest, Location: "body", Name: "data.id", Message: "data.id in body: Required"}
	}
	if !r.Named && !admin {
		return plugins.Scope{}, &plugins.Veto{Status: http.StatusUnauthorized, Errno: errnoUndefined, Title: "Cannot read accounts."}
	}
	// Whoever creates an account for another, or as nobody, gives it to its user.
	return plugins.Scope{All: admin, ID: r.ID, Principal: policyName + ":" + r.ID}, nil
}

// errnoUndefined is what Kinto gives an error that names none.
const errnoUndefined = 999

// complete refuses an account for somebody else, and puts the hash in the place of a
// password that was sent.
func (a *Accounts) complete(ctx context.Context, d *plugins.Draft) ([]byte, error) {
	refuse := func(name, why string) error {
		return &plugins.Veto{Status: http.StatusBadRequest, Location: "body", Name: name, Message: why}
	}
	switch {
	case d.ID == "":
		return nil, refuse("data.id", "Accounts must have an ID.")
	case !d.Scope.All && d.ID != d.Scope.ID:
		return nil, refuse("data.id", "Username and account ID do not match.")
	}
	value, _ := canon.Value(d.New).Get(passwordField)
	if d.Sent != nil {
		if _, sent := canon.Value(d.Sent).Get(passwordField); !sent {
			return d.New, nil
		}
	} else if old, _ := canon.Value(d.Old).Get(passwordField); canon.Equal(old, value) {
		return d.New, nil // a JSON patch of something else
	}
	password, _ := value.String()
	if len(password) > maxPasswordBytes {
		return nil, refuse("data."+passwordField, fmt.Sprintf("Longer than %d bytes", maxPasswordBytes))
	}
	hash, err := a.hash(ctx, wanted{d.ID, password})
	if err != nil {
		return nil, err
	}
	return canon.Set(d.New, passwordField, canon.AppendString(nil, hash)), nil
}

// wanted is the key of a password's hash among what a request remembers: two accounts
// of one batch have hashes of their own, also for the same password.
type wanted struct{ id, password string }

// hash gives the hash that this request uses for an account. The first time it is
// asked for, it is made outside of the decision.
func (a *Accounts) hash(ctx context.Context, w wanted) (string, error) {
	if hash, made := plugins.Recall(ctx, w); made {
		if text, ok := hash.(string); ok {
			return text, nil
		}
	}
	return "", &plugins.Later{Work: func(ctx context.Context) error {
		var hash string
		var failed error
		err := a.gate.do(ctx, func() { hash, failed = hashPassword(w.password) })
		if err = errors.Join(err, failed); err == nil {
			plugins.Remember(ctx, w, hash)
		}
		return err
	}}
}
