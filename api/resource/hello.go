package resource

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"quinto/internal/canon"
	"quinto/plugins"
)

// APIVersion is the version of Kinto's HTTP API that the answers follow.
const APIVersion = "1.23"

// Capability is something a client can ask for, as the hello view lists it.
type Capability = plugins.Capability

// basicAuth is shown when a policy has its name, with Kinto's words.
var basicAuth = Capability{Name: "basicauth", Body: `{"description":"Very basic authentication sessions. Not for production use.",` +
	`"url":"http://kinto.readthedocs.io/en/stable/api/1.x/authentication.html"}`}

// schemaCapability is shown while records are validated by JSON schemas.
var schemaCapability = Capability{Name: "schema", Body: `{"description":"Validates collection records with JSON schemas.",` +
	`"url":"https://kinto.readthedocs.io/en/latest/api/1.x/collections.html#collection-json-schema"}`}

// hello decides GET / (Kinto section 11).
func (p *planner) hello(r *Request) (*outline, error) {
	if !r.safe() {
		return nil, errMethod(p.s.cors.allow(helloMethods))
	}
	if bad := p.s.cors.refuse(r); bad != nil {
		return nil, validation(*bad)
	}
	who, err := p.identify(r)
	if err != nil {
		return nil, err
	}
	cfg := p.s.cfg
	version := cfg.Project.Version
	if version == "" {
		version = p.s.version
	}
	b := canon.AppendString([]byte(`{"project_name":`), cfg.Project.Name)
	b = canon.AppendString(append(b, `,"project_version":`...), version)
	b = canon.AppendString(append(b, `,"http_api_version":`...), APIVersion)
	b = canon.AppendString(append(b, `,"project_docs":`...), cfg.Project.Docs)
	b = canon.AppendString(append(b, `,"url":`...), r.url("/"))
	b = append(append(b, `,"config":`...), p.s.configInfo...)
	if cfg.EOS.Date != "" {
		b = canon.AppendString(append(b, `,"eos":`...), cfg.EOS.Date)
	}
	b = strconv.AppendInt(append(b, `,"settings":{"batch_max_requests":`...), int64(cfg.Limits.BatchRequests), 10)
	b = strconv.AppendBool(append(b, `,"readonly":`...), cfg.ReadOnly)
	b = strconv.AppendBool(append(b, `,"explicit_permissions":`...), cfg.ExplicitPermissions)
	b = append(b, '}')
	if who.user != "" {
		b = canon.AppendString(append(b, `,"user":{"id":`...), who.user)
		b = append(b, `,"principals":[`...)
		for i, principal := range who.principals {
			if i > 0 {
				b = append(b, ',')
			}
			b = canon.AppendString(b, principal)
		}
		b = append(b, ']')
		if b, err = p.appendUserInfo(b, who.user); err != nil {
			return nil, err
		}
		b = append(b, '}')
	}
	b = append(b, `,"capabilities":{`...)
	capabilities := p.s.capabilities
	for _, more := range p.s.moreCapabilities {
		if slow, ok := more.(plugins.Preparer); ok {
			if err := slow.Prepare(p.ctx); err != nil {
				return nil, err
			}
		}
		capabilities = append(slices.Clip(capabilities), more.Capabilities()...)
	}
	for i, c := range capabilities {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(canon.AppendString(b, c.Name), ':'), c.Body...)
	}
	out := &outline{status: 200, fields: []HeaderField{contentTypeField}}
	if cfg.ReadOnly {
		out.fields = append(out.fields, cacheFields(int64(cfg.Project.RootCacheExpires/time.Second), p.now)...)
		if cfg.Project.RootCacheExpires == 0 { // Kinto's framework has the answer end as it begins
			out.fields = append(out.fields, HeaderField{"Last-Modified", time.UnixMilli(int64(p.now)).UTC().Format(http.TimeFormat)})
		}
	}
	out.literal(append(b, "}}"...))
	return out, nil
}

// appendUserInfo adds what plugins say of a user.
func (p *planner) appendUserInfo(b []byte, user string) ([]byte, error) {
	for _, source := range p.s.users {
		info, err := source.UserInfo(p.ctx, user, p.state)
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(info)) {
			b = append(append(canon.AppendString(append(b, ','), name), ':'), info[name]...)
		}
	}
	return b, nil
}
