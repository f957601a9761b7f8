package api

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"quinto/api/resource"
	"quinto/plugins"
)

// exchange is one request and its answer, as the log and the measurements want
// them. It is made only where one of the two is wanted.
type exchange struct {
	begun   time.Time
	took    time.Duration
	request *resource.Request  // nil: the request was not understood
	answer  *resource.Response // what was sent
	name    string             // of the endpoint, where the path does not tell
}

// exchangeKey is where a request's exchange is kept while it is answered.
type exchangeKey struct{}

// observed reports whether requests are measured or logged.
func (s *Server) observed() bool { return s.options.Meter != nil || s.options.RequestLog != nil }

// exchange of a request that is being answered; nil: nobody wants to know.
func (s *Server) exchange(ctx *fasthttp.RequestCtx) *exchange {
	if !s.observed() {
		return nil
	}
	x, _ := ctx.UserValue(exchangeKey{}).(*exchange)
	return x
}

// begin starts to observe a request; the result ends it.
func (s *Server) begin(ctx *fasthttp.RequestCtx) (end func()) {
	if !s.observed() {
		return func() {}
	}
	x := &exchange{begun: time.Now()}
	ctx.SetUserValue(exchangeKey{}, x)
	return func() {
		if x.answer == nil {
			return
		}
		x.took = time.Since(x.begun)
		var parts []resource.Part
		if x.request != nil {
			parts = s.options.Service.Parts(x.request, x.answer)
		}
		if s.options.Meter != nil {
			if x.request != nil && x.request.Path == "" && x.answer.Status < fasthttp.StatusBadRequest && string(ctx.Path()) != prefix {
				x.name = "redirect_to_version"
			}
			s.measure(x, string(ctx.Method()), parts)
		}
		if s.options.RequestLog != nil {
			s.options.RequestLog.write(x, string(ctx.Method()), string(ctx.Path()), parts)
		}
	}
}

// errno is the one of an error's body, 0 for other bodies.
func errno(r *resource.Response) int {
	if r.Status < fasthttp.StatusBadRequest {
		return 0
	}
	head := r.Body[:min(len(r.Body), len(`{"code":400,"errno":12345`))]
	_, digits, found := bytes.Cut(head, []byte(`"errno":`))
	if !found {
		return 0
	}
	n := 0
	for _, c := range digits {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// measure takes Kinto's measurements of a request (kinto.core.initialization,
// setup_metrics) and of the parts of a batch, which Kinto counts as requests.
func (s *Server) measure(x *exchange, method string, parts []resource.Part) {
	user := x.answer.UserID
	s.countUser(user)
	endpoint := resource.Endpoint{Name: x.name}
	if endpoint.Name == "" && x.request != nil {
		endpoint = s.endpoint(x.request.Path)
	}
	labels := s.requestLabels(method, x.answer.Status, endpoint)
	s.options.Meter.Count("request_summary", 1, append(labels[:len(labels):len(labels)], plugins.Label{Name: "status", Value: strconv.Itoa(x.answer.Status)})...)
	s.options.Meter.Time("request_duration_seconds", x.took.Seconds(), labels...)
	s.options.Meter.Observe("request_size", float64(len(x.answer.Body)), labels...)
	for _, p := range parts {
		if !p.Counted {
			continue
		}
		if p.Inherits {
			s.countUser(user)
		}
		labels := s.requestLabels(p.Method, p.Status, s.endpoint(p.Path))
		s.options.Meter.Count("request_summary", 1, append(labels[:len(labels):len(labels)], plugins.Label{Name: "status", Value: strconv.Itoa(p.Status)})...)
		// What one part took is not known: each is given its share.
		s.options.Meter.Time("request_duration_seconds", x.took.Seconds()/float64(len(parts)), labels...)
		s.options.Meter.Observe("request_size", float64(p.Bytes), labels...)
	}
}

// countUser counts a request of a user; colons would end the name in statsd.
func (s *Server) countUser(user string) {
	policy, id, known := strings.Cut(user, ":")
	if !known {
		return
	}
	s.options.Meter.Count("users", 1, plugins.Label{Name: "auth", Value: policy}, plugins.Label{Name: "userid", Value: strings.ReplaceAll(id, ":", ".")})
	s.options.Meter.Count("authentication", 1, plugins.Label{Name: "type", Value: policy})
}

// endpoint is what answers a path below the version prefix.
func (s *Server) endpoint(path string) resource.Endpoint {
	if u, ok := s.utility[path]; ok {
		return resource.Endpoint{Name: u.name}
	}
	return s.options.Service.Endpoint(path)
}

// requestLabels are Kinto's labels of a request. Of an error the ids are left out:
// a client could make up any number of them.
func (s *Server) requestLabels(method string, status int, e resource.Endpoint) []plugins.Label {
	if e.Name == "" {
		e.Name = "unnamed"
		if status == fasthttp.StatusNotFound {
			e.Name = "unknown"
		}
	}
	if !knownToFiber([]byte(method)) {
		method = "other"
	}
	fields := s.options.Config.MetricsFields
	labels := make([]plugins.Label, 0, len(fields)+3)
	labels = append(labels, plugins.Label{Name: "method", Value: strings.ToLower(method)}, plugins.Label{Name: "endpoint", Value: e.Name})
	for _, field := range fields {
		value := e.IDs[field]
		if status >= fasthttp.StatusBadRequest {
			value = ""
		}
		labels = append(labels, plugins.Label{Name: field, Value: value})
	}
	return labels
}
