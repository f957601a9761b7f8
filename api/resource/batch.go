package resource

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"quinto/internal/canon"
)

const batchPath = "/batch"

// subRequest is one request of a batch as its body describes it.
type subRequest struct {
	method, path string
	headers      canon.Value
	body         canon.Value
}

// batchSpec is the validated body of a batch.
type batchSpec struct {
	requests     []subRequest
	allOrNothing bool // "transaction": true
}

// batchSpec validates the body of POST /batch; its error is a *Failure.
func (s *Service) batchSpec(r *Request) (*batchSpec, error) {
	if r.Method != http.MethodPost {
		return nil, errMethod(s.cors.allow(batchMethods))
	}
	if err := checkMedia(mediaType(r.Header["content-type"]), jsonType); err != nil {
		return nil, err
	}
	var body parsed
	body.parse(r.Body, s.jsonLimits())
	var foreign []problem
	if bad := s.cors.refuse(r); bad != nil {
		foreign = append(foreign, *bad)
	}
	switch {
	case body.err != nil:
		return nil, body.err
	case body.fault != nil:
		return nil, invalid(append(foreign, *body.fault, problem{location: "body", description: "Required"})...)
	case body.empty:
		body.value = canon.Value("{}")
	}
	v := &batchCheck{problems: foreign, limit: s.cfg.Limits.BatchRequests, bytes: s.cfg.Limits.BodyBytes}
	spec := v.batch(body.value)
	if v.failure != nil {
		return nil, v.failure
	}
	if len(v.problems) > 0 {
		return nil, invalid(v.problems...)
	}
	for i := range spec.requests {
		if path, _, _ := strings.Cut(r.withoutPrefix(spec.requests[i].path), "?"); strings.TrimRight(path, "/") == batchPath {
			return nil, invalid(problem{location: "body", name: "requests", description: "Recursive call on /batch endpoint is forbidden."})
		}
	}
	return spec, nil
}

// withoutPrefix is a path of a sub-request below the version prefix.
func (r *Request) withoutPrefix(path string) string {
	rest, ok := strings.CutPrefix(path, r.Prefix)
	if ok && (rest == "" || rest[0] == '/' || rest[0] == '?') {
		return rest
	}
	return path
}

// batchCheck collects what is wrong with a batch.
type batchCheck struct {
	limit    int // requests
	bytes    int // of all requests with their defaults
	problems []problem
	failure  *Failure
}

func (b *batchCheck) add(name, description string) {
	b.problems = append(b.problems, problem{location: "body", name: name, description: description})
}

func (b *batchCheck) batch(v canon.Value) *batchSpec {
	spec := &batchSpec{}
	if v.Kind() != canon.Object {
		b.add("", mapping(v))
		return spec
	}
	if u := unknownKeys(v, "defaults", "requests", "transaction"); u != nil {
		b.add("", unrecognized(u))
		return spec
	}
	if t, ok := v.Get("transaction"); ok {
		if spec.allOrNothing, ok = t.Bool(); !ok {
			b.add("transaction", `"`+pythonString(t)+`" is not a boolean`)
		}
	}
	defaults, hasDefaults := v.Get("defaults")
	if hasDefaults {
		b.request("defaults", defaults, false)
	}
	requests, ok := v.Get("requests")
	switch {
	case !ok:
		b.add("requests", "Required")
	case requests.Kind() != canon.Array:
		b.add("requests", `"`+pythonString(requests)+`" is not iterable`)
	case b.limit > 0 && requests.Len() > b.limit:
		b.add("requests", fmt.Sprintf("Number of requests is limited to %d", b.limit))
	default:
		spec.requests = b.each(requests, defaults)
	}
	return spec
}

func (b *batchCheck) each(requests, defaults canon.Value) []subRequest {
	out := []subRequest{}
	size := 0
	requests.Elements(func(e canon.Value) bool {
		if e.Kind() == canon.Object && defaults.Kind() == canon.Object {
			e = withDefaults(e, defaults)
		}
		if size += len(e); b.bytes > 0 && size > b.bytes {
			b.failure = errTooLarge(fmt.Sprintf("Requests of a batch are limited to %d bytes together", b.bytes))
			return false
		}
		out = append(out, b.request("requests."+strconv.Itoa(len(out)), e, true))
		return true
	})
	return out
}

// request checks one request, or the defaults, which need no path.
func (b *batchCheck) request(name string, v canon.Value, needsPath bool) (r subRequest) {
	if v.Kind() != canon.Object {
		b.add(name, mapping(v))
		return r
	}
	if u := unknownKeys(v, "method", "path", "headers", "body"); u != nil {
		b.add(name, unrecognized(u))
		return r
	}
	r.method = "GET"
	if method := b.text(name, "method", v, false); method != "" {
		r.method = method
		switch method {
		case "GET", "HEAD", "DELETE", "TRACE", "POST", "PUT", "PATCH":
		default:
			b.add(name+".method", `"`+method+`" is not one of GET, HEAD, DELETE, TRACE, POST, PUT, PATCH`)
		}
	}
	r.path = b.text(name, "path", v, needsPath)
	if r.path != "" && r.path[0] != '/' {
		b.add(name+".path", "String does not match expected pattern")
	}
	r.headers = b.mapping(name, "headers", v)
	r.headers.Each(func(_ string, value canon.Value) bool {
		if value.Kind() != canon.String {
			b.add(name+".headers", canon.Python(r.headers)+" contains non string value")
			return false
		}
		return true
	})
	if body, _ := v.Get("body"); body.Kind() == canon.Array && r.patchType() == jsonPatchType {
		r.body = body
	} else {
		r.body = b.mapping(name, "body", v)
	}
	return r
}

func (b *batchCheck) text(name, key string, v canon.Value, required bool) string {
	value, ok := v.Get(key)
	if !ok || falsy(value) {
		if required {
			b.add(name+"."+key, "Required")
		}
		return ""
	}
	text, ok := value.String()
	if !ok {
		b.add(name+"."+key, canon.Python(value)+" is not a string: {'"+key+"': ''}")
	}
	return text
}

func (b *batchCheck) mapping(name, key string, v canon.Value) canon.Value {
	value, ok := v.Get(key)
	if ok && value.Kind() != canon.Object {
		b.add(name+"."+key, mapping(value))
		return nil
	}
	return value
}

// withDefaults lays v over defaults, object by object, without changing any
// value of v (Kinto's merge_dicts). It is linear in both.
func withDefaults(v, defaults canon.Value) canon.Value {
	missing := map[string]canon.Value{}
	var order []string
	defaults.Each(func(key string, val canon.Value) bool {
		missing[key] = val
		order = append(order, key)
		return true
	})
	out := objectBuilder{}
	v.Each(func(key string, val canon.Value) bool {
		if d := missing[key]; d.Kind() == canon.Object && val.Kind() == canon.Object {
			val = withDefaults(val, d)
		}
		delete(missing, key)
		out.add(key, val)
		return true
	})
	for _, key := range order {
		if d, ok := missing[key]; ok {
			out.add(key, d)
		}
	}
	return out.value()
}

// patchType is the Content-Type that a part of method PATCH gives itself, if it
// is one of those that say how to patch; else "".
func (s *subRequest) patchType() (media string) {
	if s.method != "PATCH" {
		return ""
	}
	s.headers.Each(func(name string, value canon.Value) bool {
		if strings.EqualFold(name, "content-type") {
			text, _ := value.String()
			media = mediaType(text)
		}
		return true
	})
	if media != mergePatchType && media != jsonPatchType {
		return ""
	}
	return media
}

// build makes the request of a part: the batch's headers overlaid by its own,
// and JSON as the type of any body, as Kinto does, unless the part itself names
// another way to patch. echo is the path that the answer shows; ok is false for
// a path that does not decode.
func (s *subRequest) build(outer *Request) (r *Request, echo string, ok bool) {
	path, query, _ := strings.Cut(outer.withoutPrefix(s.path), "?")
	decoded, err := url.PathUnescape(path)
	ok = err == nil && utf8.ValidString(decoded)
	if !ok {
		decoded = strings.ToValidUTF8(path, "\uFFFD")
	}
	if decoded = strings.TrimRight(decoded, "/"); decoded == "" {
		decoded = "/"
	}
	r = &Request{ID: outer.ID, Method: s.method, Path: decoded, Query: query, Header: Header{}, Scheme: outer.Scheme,
		Host: outer.Host, Prefix: outer.Prefix, Client: outer.Client, Hop: outer.Hop}
	for name, value := range outer.Header {
		r.Header[name] = value
	}
	s.headers.Each(func(name string, value canon.Value) bool {
		r.Header[strings.ToLower(name)], _ = value.String()
		return true
	})
	delete(r.Header, "content-length")
	if media := s.patchType(); media != "" && len(s.body) > 0 {
		r.Body = s.body
		r.Header["content-type"] = media
	} else if len(s.body) > 2 {
		r.Body = s.body
		r.Header["content-type"] = jsonType
	}
	return r, outer.Prefix + decoded, ok
}

// runBatch decides all parts, each on the state that those before it leave. A
// part that ends in 5xx, or any error of a batch that is all or nothing, undoes
// the whole.
func (p *planner) runBatch(outer *Request, spec *batchSpec) (*outline, error) {
	p.batch = p.over != nil
	out := &outline{status: 200, fields: []HeaderField{contentTypeField}, batch: []entry{}}
	for i := range spec.requests {
		r, echo, ok := spec.requests[i].build(outer)
		part, err := p.part(r, ok)
		if err != nil {
			return nil, err
		}
		if c := p.s.cfg; c.Backoff > 0 && !part.raised && rand.IntN(100) < c.BackoffPercentage {
			part.fields = append(slices.Clip(part.fields), HeaderField{"Backoff", strconv.Itoa(c.Backoff)})
		}
		e := entry{path: echo, head: r.Method == http.MethodHead, out: part}
		p.s.share(&e, r)
		out.batch = append(out.batch, e)
		if spec.allOrNothing && part.status >= 400 {
			p.undo()
			return failedBatch(out.batch, spec, outer), nil
		}
	}
	return out, nil
}

// part decides one part; only an error that ends the whole batch is returned.
func (p *planner) part(r *Request, decodes bool) (*outline, error) {
	if !decodes {
		f := &Failure{Status: 400, Errno: ErrnoInvalidParameters, Message: "Invalid URL path."}
		return f.outline(), nil
	}
	before := len(p.ops)
	out, err := p.answer(r)
	if err == nil {
		return out, nil
	}
	if errors.Is(err, errWrites) || later(err) != nil {
		return nil, err
	}
	f := p.s.failure(err)
	if f.Status >= 500 || len(p.ops) != before {
		// An error after the first op of a part would leave half of it.
		return nil, err
	}
	return f.outline(), nil
}

// undo forgets all that was decided.
func (p *planner) undo() { p.ops = nil }

// failedBatch is the answer to a batch that was all or nothing and failed in
// its last entry: that one's status for the whole, its index, and 424 for all
// others.
func failedBatch(done []entry, spec *batchSpec, outer *Request) *outline {
	at := len(done) - 1
	out := &outline{status: done[at].out.status, fields: []HeaderField{contentTypeField,
		{"Quinto-Failed-Request", strconv.Itoa(at)}}, batch: done}
	for i := range spec.requests {
		if i == at {
			continue
		}
		f := &Failure{Status: 424, Errno: ErrnoConstraint, Message: fmt.Sprintf("Not done, because request %d of the transaction failed.", at)}
		if i < at {
			out.batch[i].out = f.outline()
			continue
		}
		r, echo, _ := spec.requests[i].build(outer)
		out.batch = append(out.batch, entry{path: echo, head: r.Method == http.MethodHead, out: f.outline()})
	}
	return out
}
