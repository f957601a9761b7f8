package api

import (
	"context"
	"maps"
	"slices"

	"github.com/gofiber/fiber/v2"

	"quinto/api/resource"
	"quinto/fsm"
	"quinto/plugins"
)

// addRoutes makes the endpoints of plugins Fiber's. One that fails answers as this
// package does.
func (s *Server) addRoutes(routes []plugins.Route) {
	for _, route := range routes {
		s.app.Add(route.Method, prefix+route.Path, func(c *fiber.Ctx) error {
			r, e := s.request(c.Context())
			if e != nil {
				s.fail(c.Context(), e)
				return nil
			}
			work, cancel := context.WithTimeout(s.base, s.options.Config.Timeouts.Request)
			defer cancel()
			answer, err := s.answerRoute(work, route, r, c.AllParams())
			if err != nil {
				s.logger.Warn("plugin's route", "path", r.Path, "error", err)
				s.fail(c.Context(), errBusy)
				return nil
			}
			s.render(c.Context(), answer)
			return nil
		})
	}
}

// answerRoute asks the plugin, on a state that the leader confirmed.
func (s *Server) answerRoute(ctx context.Context, route plugins.Route, r *resource.Request, params map[string]string) (*resource.Response, error) {
	who, err := s.identify(ctx, r)
	if err != nil {
		return nil, err
	}
	v, err := s.options.Node.View(ctx, fsm.Freshness{})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	for name, value := range params {
		params[name] = unescape(value)
	}
	got := route.Handle(ctx, &plugins.RouteRequest{Method: r.Method, Path: r.Path, Query: r.Query, Params: params,
		Header: r.Header, Body: r.Body, UserID: who.ID, Principals: who.Principals, View: v})
	answer := &resource.Response{Status: got.Status, Body: got.Body}
	for _, name := range slices.Sorted(maps.Keys(got.Header)) {
		answer.Header = append(answer.Header, resource.HeaderField{Name: name, Value: got.Header[name]})
	}
	return answer, nil
}
