package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"sync"

	"github.com/valyala/fasthttp"

	"quinto/api/openapi"
	"quinto/api/resource"
	"quinto/internal/canon"
)

// DocumentPath answers the API document, without the version prefix: Kinto's
// Swagger 2.0, or with ?openapi=3.1 that version.
const DocumentPath = "/__api__"

// utilityDocs are the responses of this package's endpoints in the document; those
// of the cluster are none of a client's business.
var utilityDocs = map[string]struct {
	id        string
	responses json.RawMessage
}{
	"/__heartbeat__": {"__heartbeat__", json.RawMessage(`{"200":{"description":"Server is working properly.","schema":{"additionalProperties":{},"title":"SchemaNode","type":"object"}},` +
		`"503":{"description":"One or more subsystems failing.","schema":{"additionalProperties":{},"title":"SchemaNode","type":"object"}}}`)},
	"/__lbheartbeat__": {"__lbheartbeat__", json.RawMessage(`{"200":{"description":"Returned if server is reachable.","schema":{"title":"SchemaNode","type":"object"}}}`)},
	"/__version__":     {"__version__", openapi.AnyObject("Return the running Instance version information.")},
	DocumentPath:       {"get_openapi_spec", openapi.AnyObject("Return an OpenAPI description of the running instance.")},
	"/contribute.json": {"contribute", openapi.AnyObject("Return open source contributing information.")},
}

// What stands in the rendered documents for the scheme and host of a request.
const (
	schemeMark = "scheme-of-the-request"
	hostMark   = "host-of-the-request"
)

// describer returns what answers the API document. It is rendered once for each
// version; its URLs are those by which the client reached the server.
func (s *Server) describer() func(context.Context, *resource.Request) *resource.Response {
	describe := sync.OnceValue(func() openapi.Document {
		d := s.options.Service.Document()
		for path := range s.utility {
			if doc, ok := utilityDocs[path]; ok {
				d.Operations = append(d.Operations, openapi.Operation{Method: fasthttp.MethodGet, Path: path, ID: doc.id, Tag: openapi.Utilities,
					Open: true, Responses: doc.responses})
			}
		}
		if s.options.Live != nil {
			d.Operations = append(d.Operations, feedOperations()...)
		}
		return d
	})
	swagger := sync.OnceValues(func() ([]byte, error) { d := describe(); return d.Swagger(schemeMark, hostMark) })
	newer := sync.OnceValues(func() ([]byte, error) { d := describe(); return d.OpenAPI(schemeMark, hostMark) })
	return func(_ context.Context, r *resource.Request) *resource.Response {
		values, _ := url.ParseQuery(r.Query) // what is no pair is left out
		render := swagger
		switch values.Get("openapi") {
		case "", "2.0":
		case "3.1":
			render = newer
		default:
			return s.problem(&edgeError{fasthttp.StatusBadRequest, resource.ErrnoInvalidParameters, "openapi in querystring: allowed are 2.0 and 3.1.", false})
		}
		body, err := render()
		if err != nil {
			s.logger.Error("API document", "error", err)
			return s.problem(errInternal)
		}
		host := canon.AppendString(nil, r.Host)
		body = bytes.Replace(body, []byte(hostMark), host[1:len(host)-1], 1)
		return jsonResponse(fasthttp.StatusOK, bytes.Replace(body, []byte(schemeMark), []byte(r.Scheme), 1))
	}
}

// feedOperations describe the feeds of changes. The streams are not described: they
// are GETs of what is, with another Accept.
func feedOperations() []openapi.Operation {
	parameters := []json.RawMessage{
		json.RawMessage(`{"in":"query","name":"` + resource.SinceParam + `","type":"string","description":"The id of the last change that is known."}`),
		json.RawMessage(`{"in":"query","name":"` + resource.WaitParam + `","type":"integer","description":"Seconds to wait for a change, up to 25."}`),
		json.RawMessage(`{"in":"query","name":"_limit","type":"integer"}`),
	}
	operation := func(path, id string) openapi.Operation {
		return openapi.Operation{Method: fasthttp.MethodGet, Path: path, ID: id, Tag: "Changes", Open: true, Parameters: parameters,
			Responses: openapi.AnyObject("The changes that the user may see, in their order.")}
	}
	return []openapi.Operation{operation("/changes", "get_changes_feed"), operation("/buckets/{bucket_id}/changes", "get_bucket_changes_feed")}
}
