package resource

import (
	"net/http"
	"strings"
	"time"

	"quinto/internal/canon"
	"quinto/plugins"
)

// Endpoint says what answers a path, in the words of Kinto's measurements.
type Endpoint struct {
	// Name is Kinto's of the service: "hello", "batch", "record-plural",
	// "bucket-object"; empty: no endpoint of this package.
	Name string
	// IDs are what the path names, by "<kind>_id" or by the names of a plugin's route.
	IDs map[string]string
}

// Endpoint describes a path below the version prefix.
func (s *Service) Endpoint(path string) Endpoint {
	switch path {
	case "/":
		return Endpoint{Name: "hello"}
	case batchPath:
		return Endpoint{Name: "batch"}
	}
	if at := s.endpoints.at(path); at != nil {
		params, _ := at.match(path)
		return Endpoint{Name: at.name(), IDs: params}
	}
	rt, ok := s.table.route(path)
	if !ok {
		return Endpoint{}
	}
	e := Endpoint{Name: rt.kind.Name + "-plural", IDs: make(map[string]string, len(rt.links))}
	if rt.object {
		e.Name = rt.kind.Name + "-object"
	}
	for _, l := range rt.links {
		e.IDs[l.kind.Name+"_id"] = l.id
	}
	return e
}

// name of the routes together; the first one's counts.
func (e *endpoint) name() string {
	if name := e.routes[0].Name; name != "" {
		return name
	}
	return strings.Join(e.segments, "/")
}

// meterStorage times what a request asked of the state, under the names of the
// methods of Kinto's storage.
func (s *Service) meterStorage(begun time.Time, r *Request) {
	if s.meter == nil {
		return
	}
	rt, ok := s.table.route(r.Path)
	if !ok {
		return
	}
	method := map[string]string{http.MethodGet: "list_all", http.MethodHead: "count_all", http.MethodPost: "create", http.MethodDelete: "delete_all"}
	if rt.object {
		method = map[string]string{http.MethodGet: "get", http.MethodHead: "get", http.MethodPut: "update", http.MethodPatch: "update", http.MethodDelete: "delete"}
	}
	s.meter.Since(begun, "backend.storage.seconds", plugins.Label{Name: "method", Value: method[r.Method]})
}

// Part is one request of a batch and how it was answered.
type Part struct {
	Method, Path string // the path below the version prefix, decoded
	Status       int
	Errno        int // of an error, else 0
	Bytes        int // of the body
	// Counted is false for errors that Kinto raises: it measures no such part.
	Counted bool
	// Inherits says that the part is of the user of the whole.
	Inherits bool
}

// Parts tells what the requests of a batch came to, from its request and its
// answer; nil if it is no batch that was answered with 200.
func (s *Service) Parts(r *Request, resp *Response) (parts []Part) {
	if r.Path != batchPath || resp.Status != http.StatusOK {
		return nil
	}
	spec, err := s.batchSpec(r)
	if err != nil {
		return nil
	}
	responses, _ := canon.Value(resp.Body).Get("responses")
	responses.Elements(func(answer canon.Value) bool {
		if len(parts) == len(spec.requests) {
			return false
		}
		part, _, _ := spec.requests[len(parts)].build(r)
		p := Part{Method: part.Method, Path: part.Path, Inherits: part.Header["authorization"] == r.Header["authorization"]}
		status, _ := answer.Get("status")
		n, _ := status.Int()
		p.Status = int(n)
		body, _ := answer.Get("body")
		p.Bytes = len(body)
		if p.Status >= http.StatusBadRequest {
			errno, _ := body.Get("errno")
			n, _ := errno.Int()
			p.Errno = int(n)
		}
		_, p.Counted = answer.GetPath("headers", securityFields[0].Name)
		parts = append(parts, p)
		return true
	})
	return parts
}
