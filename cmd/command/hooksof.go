package command

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"quinto/fsm"
	"quinto/plugins"
	"quinto/plugins/dispatch"
)

// shownLetters are the newest dead letters of one webhook that its declarer is shown.
const shownLetters = 100

// ownHook is what whoever may write a bucket or a collection is told of a webhook that
// its metadata declares.
type ownHook struct {
	Name        string                `json:"name"`
	URL         string                `json:"url"`      // without query
	Listener    string                `json:"listener"` // what the operator calls it
	State       string                `json:"state"`
	Lag         uint64                `json:"lag"`     // revisions behind, of the collection that is furthest
	Waiting     int                   `json:"waiting"` // collections with changes that wait
	Failing     int                   `json:"failing"`
	Delivered   uint64                `json:"delivered"` // counts are of this leader's term
	Failed      uint64                `json:"failed"`
	Errors      []dispatch.LaneStatus `json:"errors"`
	Paused      *dispatch.Paused      `json:"paused,omitempty"`
	Lost        *dispatch.Lagged      `json:"lost,omitempty"`
	Dead        int                   `json:"dead"`
	DeadLetters []dispatch.DeadLetter `json:"dead_letters"` // the newest
}

const ownHooksDoc = `{"200":{"description":"State, lag, last errors and dead letters of the webhooks that the object declares.","schema":{"type":"object"}}}`

// ownHooksRoutes show the webhooks of metadata to those who may write the object that
// declares them; none without such a plugin. The leader answers, as it alone knows the
// attempts.
func (n *Node) ownHooksRoutes() []plugins.Route {
	if len(n.plugins.Declaring) == 0 {
		return nil
	}
	route := func(path, id string) plugins.Route {
		return plugins.Route{Method: http.MethodGet, Path: path, Name: id, Plan: n.planOwnHooks,
			Doc: &plugins.Doc{ID: "get_" + id, Tag: "Webhooks", Responses: ownHooksDoc}}
	}
	return []plugins.Route{
		route("/buckets/:bucket_id/webhooks", "bucket_webhooks"),
		route("/buckets/:bucket_id/collections/:collection_id/webhooks", "collection_webhooks"),
	}
}

func (n *Node) planOwnHooks(_ context.Context, r *plugins.RouteRequest) (*plugins.RoutePlan, error) {
	at := fsm.Path("").Child("buckets").Child(r.Params["bucket_id"])
	if id, ok := r.Params["collection_id"]; ok {
		at = at.Child("collections").Child(id)
	}
	if ok, err := r.May("write", at); err != nil || !ok {
		return nil, cmp.Or(err, plugins.ErrDenied)
	}
	if o, err := r.View.Get(at); err != nil {
		return nil, err
	} else if !o.Exists() {
		return nil, &plugins.Veto{Status: http.StatusNotFound, Message: "There is no such object."}
	}
	v, _, err := n.cluster.LeaderView()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	all, err := n.ownHooks(v, at)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"data": all})
	return &plugins.RoutePlan{Response: plugins.RouteResponse{Status: http.StatusOK, Header: map[string]string{"Cache-Control": "no-cache, no-store"}, Body: body}}, err
}

// ownHooks returns how the webhooks stand that the object at a path declares, by name.
func (n *Node) ownHooks(v *fsm.View, at fsm.Path) ([]ownHook, error) {
	reports, err := n.dispatcher.DeclaredBy(v, at)
	if err != nil {
		return nil, err
	}
	all := []ownHook{}
	for _, r := range reports {
		h := ownHook{Name: r.Declared.Hook, URL: r.Declared.URL, Listener: r.Name, State: r.State, Lag: r.Lag, Waiting: r.Lanes, Failing: r.Failing,
			Delivered: r.Delivered, Failed: r.Failed, Errors: append([]dispatch.LaneStatus{}, r.Worst...), Paused: r.Paused, Lost: r.Lagged, Dead: r.Letters}
		if r.State == dispatch.StateDelivering && r.Lanes == 0 { // its cursor is logged now and then only
			h.Lag = uint64(v.Revision() - min(v.Revision(), r.Frontier))
		}
		letters, err := dispatch.Dead(v, r.Name)
		if err != nil {
			return nil, err
		}
		h.DeadLetters = append([]dispatch.DeadLetter{}, letters[max(0, len(letters)-shownLetters):]...)
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b ownHook) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}
