// Package flush is Kinto's plugin kinto.plugins.flush: POST /__flush__ removes
// everything that clients see. It asks nobody who he is: it is for tests.
package flush

import (
	"context"
	"net/http"

	"quinto/fsm"
	"quinto/plugins"
)

// Name is what the setting includes calls the plugin.
const Name = "kinto.plugins.flush"

// Path of the endpoint.
const Path = "/__flush__"

func init() {
	plugins.Register(plugins.Module{Name: Name, New: func() any { return plugin{} }})
}

type plugin struct{}

// cached are the prefixes of the replicated settings that stand for Kinto's cache, and
// of those that belong to objects.
var cached = [...]string{plugins.CachePrefix, plugins.NoncePrefix, plugins.DeclaredPrefix}

// Routes implements plugins.RouteProvider. Body and headers do not count, as in
// Kinto.
func (plugin) Routes() []plugins.Route {
	return []plugins.Route{{Method: http.MethodPost, Path: Path, Name: "flush", Doc: &plugins.Doc{Open: true},
		Plan: func(context.Context, *plugins.RouteRequest) (*plugins.RoutePlan, error) {
			return &plugins.RoutePlan{Ops: []fsm.Op{{Type: fsm.OpFlush, Members: cached[:]}},
				Response: plugins.RouteResponse{Status: http.StatusAccepted, Body: []byte("{}")}}, nil
		}}}
}

// Capabilities implements plugins.CapabilityProvider, in Kinto's words.
func (plugin) Capabilities() []plugins.Capability {
	return []plugins.Capability{{Name: "flush_endpoint", Body: `{"description":"The __flush__ endpoint can be used to remove all data from all backends.",` +
		`"url":"https://kinto.readthedocs.io/en/latest/api/1.x/flush.html"}`}}
}
