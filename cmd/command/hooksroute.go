package command

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"quinto/plugins"
	"quinto/plugins/dispatch"
)

// hooksRoutes show over HTTP what `quinto hooks` shows, to the principals of
// quinto.cluster_status_principals and of quinto.hooks_principals. The leader answers,
// whichever node is asked: it alone knows the attempts. Only the latter may change
// anything (steerRoutes).
func (n *Node) hooksRoutes() []plugins.Route {
	return append(n.steerRoutes(),
		plugins.Route{Method: http.MethodGet, Path: "/__hooks__", Name: "hooks", Plan: n.planHooks},
		plugins.Route{Method: http.MethodGet, Path: "/__hooks__/:name", Name: "hook", Plan: n.planHooks})
}

func (n *Node) planHooks(_ context.Context, r *plugins.RouteRequest) (*plugins.RoutePlan, error) {
	if !n.steers(r.Principals) && !slices.ContainsFunc(r.Principals, func(p string) bool { return slices.Contains(n.config.StatusPrincipals, p) }) {
		return nil, plugins.ErrDenied
	}
	v, _, err := n.cluster.LeaderView()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	a := hooksAnswer{Leads: true, Revision: v.Revision()}
	if a.Listeners, err = n.dispatcher.Report(v); err != nil {
		return nil, err
	}
	if name := r.Params["name"]; name != "" {
		a.Listeners = slices.DeleteFunc(a.Listeners, func(r dispatch.Report) bool { return r.Name != name })
		if len(a.Listeners) == 0 {
			return nil, &plugins.Veto{Status: http.StatusNotFound, Message: dispatch.ErrNoNotifier.Error()}
		}
		if a.Dead, err = dispatch.Dead(v, name); err != nil {
			return nil, err
		}
		a.Deliveries = n.dispatcher.Deliveries(name)
	}
	body, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return &plugins.RoutePlan{Response: plugins.RouteResponse{Status: http.StatusOK, Body: body}}, nil
}
