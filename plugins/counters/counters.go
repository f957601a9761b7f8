// Package counters is Kinto's plugin kinto.plugins.counters: GET /__counters__
// tells how many objects and tombstones of each kind there are.
package counters

import (
	"context"
	"net/http"
	"strconv"

	"quinto/fsm"
	"quinto/plugins"
)

// Name is what the setting includes calls the plugin.
const Name = "kinto.plugins.counters"

// Path of the endpoint.
const Path = "/__counters__"

func init() {
	plugins.Register(plugins.Module{Name: Name, New: func() any { return plugin{} }})
}

type plugin struct{}

// counted are the kinds that Kinto counts, in its order: the last segment of
// their lists, and their name in the answer.
var counted = [...]struct{ list, name string }{{"accounts", "account"}, {"buckets", "bucket"}, {"groups", "group"}, {"collections", "collection"},
	{"records", "record"}, {"history", "history"}, {"attachments", "attachments"}}

// Routes implements plugins.RouteProvider.
func (plugin) Routes() []plugins.Route {
	return []plugins.Route{{Method: http.MethodGet, Path: Path, Name: "counters", Doc: &plugins.Doc{Open: true}, Handle: count}}
}

// count adds up what the lists know of themselves: it reads a small row for each
// list and no object.
func count(_ context.Context, r *plugins.RouteRequest) *plugins.RouteResponse {
	var objects, tombstones [len(counted)]int64
	err := r.View.Lists(func(list fsm.Path, l fsm.ListInfo) bool {
		for i, last := 0, list.ID(); i < len(counted); i++ {
			if counted[i].list == last {
				objects[i] += l.Count
				tombstones[i] += l.Tombstones
			}
		}
		return true
	})
	if err != nil {
		return &plugins.RouteResponse{Status: http.StatusServiceUnavailable,
			Body: []byte(`{"code":503,"errno":201,"error":"Service Unavailable","message":"The state cannot be read."}`)}
	}
	b := appendCounts([]byte(`{"objects":`), &objects)
	b = appendCounts(append(b, `,"tombstones":`...), &tombstones)
	return &plugins.RouteResponse{Status: http.StatusOK, Body: append(b, '}')}
}

// appendCounts appends those that are not 0.
func appendCounts(b []byte, counts *[len(counted)]int64) []byte {
	b = append(b, '{')
	for i, n := range counts {
		if n <= 0 {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), counted[i].name...), `":`...)
		b = strconv.AppendInt(b, n, 10)
	}
	return append(b, '}')
}

// Capabilities implements plugins.CapabilityProvider, in Kinto's words.
func (plugin) Capabilities() []plugins.Capability {
	return []plugins.Capability{{Name: "counters_endpoint", Body: `{"description":"The __counters__ endpoint exposes how many objects are stored.",` +
		`"url":"https://kinto.readthedocs.io/en/latest/api/1.x/counters.html"}`}}
}
