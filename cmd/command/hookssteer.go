package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"quinto/fsm"
	"quinto/plugins"
	"quinto/plugins/dispatch"
)

// steerTest bounds a test that was asked for over HTTP: the leader answers before the
// node that passed the request on gives it up.
const steerTest = 8 * time.Second

// steering are the orders that POST /__hooks__/NAME/ORDER takes.
var steering = []string{hooksPause, hooksResume, hooksReplay, hooksRedeliver, hooksTest, hooksForget}

// steerRoutes do over HTTP what `quinto hooks` does, for the principals of
// quinto.hooks_principals.
func (n *Node) steerRoutes() (all []plugins.Route) {
	for _, do := range steering {
		all = append(all, plugins.Route{Method: http.MethodPost, Path: "/__hooks__/:name/" + do, Name: "hook-" + do,
			Plan: func(ctx context.Context, r *plugins.RouteRequest) (*plugins.RoutePlan, error) {
				return n.planSteering(ctx, r, do)
			}})
	}
	return all
}

// steers reports whether one of these principals may steer listeners over HTTP.
func (n *Node) steers(principals []string) bool {
	return slices.ContainsFunc(principals, func(p string) bool { return slices.Contains(n.config.HooksPrincipals, p) })
}

// planSteering decides one order on the leader.
func (n *Node) planSteering(ctx context.Context, r *plugins.RouteRequest, do string) (*plugins.RoutePlan, error) {
	if !n.steers(r.Principals) {
		return nil, plugins.ErrDenied
	}
	o, err := readSteering(r, do)
	if err != nil {
		return nil, err
	}
	if do == hooksTest {
		return n.planTest(ctx, o.Name)
	}
	v, _, err := n.cluster.LeaderView()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	var a hooksAnswer
	ops, err := n.hooksPlan(o, &a)(v)
	if err != nil {
		return nil, steeringRefusal(err)
	}
	o.Revision = max(o.Revision, a.From)
	body, err := json.Marshal(o)
	return &plugins.RoutePlan{Ops: ops, Response: plugins.RouteResponse{Status: http.StatusAccepted, Body: body}}, err
}

// readSteering reads the body of an order: only what it needs may stand there.
func readSteering(r *plugins.RouteRequest, do string) (hooksOrder, error) {
	o := hooksOrder{Do: do, Name: r.Params["name"]}
	var body struct {
		Reason   *string       `json:"reason"`
		From     *fsm.Revision `json:"from"`
		Revision *fsm.Revision `json:"revision"`
		All      bool          `json:"all"`
	}
	d := json.NewDecoder(bytes.NewReader(r.Body))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil && !errors.Is(err, io.EOF) || d.More() {
		return o, badOrder("", `a JSON object is needed, with "reason" (pause), "from" (replay), "revision" or "all" (redeliver), or no body`)
	}
	switch {
	case body.Reason != nil && do != hooksPause, body.From != nil && do != hooksReplay, (body.Revision != nil || body.All) && do != hooksRedeliver:
		return o, badOrder("", fmt.Sprintf("this is not for %s", do))
	case do == hooksPause && body.Reason == nil:
		o.Reason = "paused by " + r.UserID
	case do == hooksPause:
		o.Reason = *body.Reason
	case do == hooksReplay && body.From == nil:
		return o, badOrder("from", "Required")
	case do == hooksReplay:
		o.Revision = *body.From
	case do == hooksRedeliver && (body.Revision != nil) == body.All:
		return o, badOrder("revision", `either "revision" or "all": true is needed`)
	case body.Revision != nil && *body.Revision == 0:
		return o, badOrder("revision", "a number above 0 is needed")
	case body.Revision != nil:
		o.Revision = *body.Revision
	}
	return o, nil
}

func badOrder(name, why string) error {
	return &plugins.Veto{Status: http.StatusBadRequest, Location: "body", Name: name, Message: why}
}

// steeringRefusal is the 4xx of an order that cannot be given.
func steeringRefusal(err error) error {
	status := http.StatusConflict
	switch {
	case errors.Is(err, dispatch.ErrNoNotifier), errors.Is(err, dispatch.ErrNoLetter):
		status = http.StatusNotFound
	case errors.Is(err, dispatch.ErrNoChange), errors.Is(err, dispatch.ErrLongReason), errors.Is(err, dispatch.ErrNoTest):
		status = http.StatusBadRequest
	case errors.Is(err, dispatch.ErrConfigured), errors.Is(err, dispatch.ErrDeclared):
	default:
		return err
	}
	return &plugins.Veto{Status: status, Message: err.Error()}
}

// testKey is where a test's outcome is remembered, so that it is sent once.
type testKey struct{ name string }

// planTest answers what came of a test. That the receiver refuses it is an answer, no
// failure of the request.
func (n *Node) planTest(ctx context.Context, name string) (*plugins.RoutePlan, error) {
	outcome, ok := plugins.Recall(ctx, testKey{name})
	if !ok {
		return nil, &plugins.Later{Work: func(ctx context.Context) error {
			inner, cancel := context.WithTimeout(ctx, steerTest)
			defer cancel()
			err := n.hooksTest(inner, name)
			if err != nil && inner.Err() != nil {
				err = fmt.Errorf("no answer within %v", steerTest)
			}
			plugins.Remember(ctx, testKey{name}, &testOutcome{err})
			return ctx.Err()
		}}
	}
	answer := struct {
		Taken bool   `json:"taken"`
		Error string `json:"error,omitempty"`
	}{Taken: true}
	if err := outcome.(*testOutcome).err; err != nil {
		if errors.Is(err, dispatch.ErrNoNotifier) || errors.Is(err, dispatch.ErrNoTest) {
			return nil, steeringRefusal(err)
		}
		answer.Taken, answer.Error = false, oneLine(err)
	}
	body, err := json.Marshal(answer)
	return &plugins.RoutePlan{Response: plugins.RouteResponse{Status: http.StatusOK, Body: body}}, err
}

type testOutcome struct{ err error }

// hooksTest tries a listener out: a hook that asks elsewhere, or a notifier.
func (n *Node) hooksTest(ctx context.Context, name string) error {
	for _, h := range n.plugins.BeforeCommit {
		named, ok := h.(interface{ Name() string })
		if t, can := h.(plugins.Tester); ok && can && named.Name() == name {
			ctx, cancel := context.WithTimeout(ctx, dispatch.DefaultDeliverTimeout)
			defer cancel()
			return t.Test(ctx, dispatch.TestID())
		}
	}
	return n.dispatcher.Test(ctx, name)
}
