package openid

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"quinto/plugins"
)

const (
	moduleName  = "kinto.plugins.openid"
	policyClass = moduleName + ".OpenIDConnectPolicy"
)

// Bounds of the settings of a policy.
const (
	maxVerificationSeconds = 30 * 24 * 3600
	maxStateSeconds        = 24 * 3600
	minStateBytes          = 8
	maxStateBytes          = 256
)

// settings are the parameters multiauth.policy.<name>.* of one policy, by Kinto's
// names, and three of quinto's own.
type settings struct {
	name         string // as the file writes it
	issuer       string
	clientID     string
	clientSecret string
	audience     string // not empty: tokens are JWTs for it, verified here
	headerType   string
	realm        string
	userIDField  string
	keepSeconds  int64 // verification_ttl_seconds
	stateSeconds int64
	stateBytes   int // state_length
	scopes       []string
	callbacks    []string // trusted_callback_urls; nil: local ones, and the admin's

	askUserInfo   bool // ask_userinfo; false: the verified token's claims are the profile
	verifyIDToken bool // verify_id_token
	anyEmail      bool // trust_unverified_email
}

// readSettings reads the parameters of the policy called name. The error names the
// setting.
func readSettings(s *plugins.Settings, name string) (*settings, error) {
	prefix := "multiauth.policy." + name + "."
	c := &settings{name: name,
		issuer: s.Text(prefix+"issuer", ""), clientID: s.Text(prefix+"client_id", ""), clientSecret: s.Text(prefix+"client_secret", ""),
		audience: s.Text(prefix+"audience", ""), headerType: s.Text(prefix+"header_type", "Bearer"), realm: s.Text(prefix+"realm", "Realm"),
		userIDField: s.Text(prefix+"userid_field", "sub"), scopes: s.List(prefix + "allowed_scopes"), callbacks: s.List(prefix + "trusted_callback_urls")}
	if _, given := s.Lookup(prefix + "allowed_scopes"); !given {
		c.scopes = []string{"openid", "email", "profile"}
	}
	for _, text := range []struct{ name, value string }{{"issuer", c.issuer}, {"client_id", c.clientID}} {
		if text.value == "" {
			return nil, fmt.Errorf("%s%s is needed", prefix, text.name)
		}
	}
	if u, err := url.Parse(c.issuer); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%sissuer: %q cannot be used (allowed: an absolute URL of http or https)", prefix, c.issuer)
	}
	if strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("multiauth.policies: %q cannot be the name of a policy for OpenID: it is part of a path", name)
	}
	var err error
	number := func(into *int64, name string, otherwise, least, most int64) {
		if err == nil {
			*into, err = s.Number(prefix+name, otherwise, least, most)
		}
	}
	flag := func(into *bool, name string, otherwise bool) {
		if err == nil {
			*into, err = s.Flag(prefix+name, otherwise)
		}
	}
	var stateBytes int64
	number(&c.keepSeconds, "verification_ttl_seconds", 86400, 0, maxVerificationSeconds)
	number(&c.stateSeconds, "state_ttl_seconds", 3600, 1, maxStateSeconds)
	number(&stateBytes, "state_length", 32, minStateBytes, maxStateBytes)
	flag(&c.askUserInfo, "ask_userinfo", true)
	flag(&c.verifyIDToken, "verify_id_token", true)
	flag(&c.anyEmail, "trust_unverified_email", false)
	c.stateBytes = int(stateBytes)
	if err == nil && !c.askUserInfo && c.audience == "" {
		err = fmt.Errorf("%sask_userinfo = false needs %saudience: without it nothing says that a token is meant for this server", prefix, prefix)
	}
	return c, err
}

// policies returns the names of the policies of this plugin, in the order of
// multiauth.policies.
func policies(s *plugins.Settings) []string {
	return slices.DeleteFunc(s.List("multiauth.policies"), func(name string) bool {
		return s.Text("multiauth.policy."+name+".use", "") != policyClass
	})
}
