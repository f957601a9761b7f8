package changes

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"quinto/api/query"
	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// asked is the query of a changeset.
type asked struct {
	since int64 // -1: not given
	limit int   // 0: not given
	more  url.Values
}

func invalid(name, description string) error {
	return &plugins.Veto{Status: http.StatusBadRequest, Location: query.Location, Name: name, Message: description}
}

func readQuery(raw string) (a asked, err error) {
	if a.more, err = url.ParseQuery(raw); err != nil {
		return a, invalid("", "The query is not well formed.")
	}
	a.since = -1
	if a.more.Get("_since") != "" { // an empty one counts as absent
		var ok bool
		if a.since, ok = timestamp(a.more.Get("_since")); !ok {
			return a, invalid("_since", "The value should be integer between double quotes.")
		}
	}
	if !a.more.Has("_expected") || a.more.Get("_expected") == "" {
		return a, invalid("_expected", "Required")
	}
	if text := a.more.Get("_limit"); text != "" {
		if a.limit, err = strconv.Atoi(text); err != nil {
			return a, invalid("_limit", fmt.Sprintf(`"%s" is not a number`, text))
		}
		a.limit = max(a.limit, 0)
	}
	return a, nil
}

// changeset answers metadata, timestamp and changes of a collection, all of one
// revision.
func (c *Changes) changeset(r *plugins.RouteRequest) (*plugins.RouteResponse, error) {
	bucket, collection := r.Params["bid"], r.Params["cid"]
	monitor := bucket == monitorBucket && collection == changesCollection
	p := fsm.Path("/buckets/" + bucket + "/collections/" + collection)
	if p.CheckObject() != nil {
		return nil, notFound()
	}
	if !monitor {
		if err := mayRead(r, p); err != nil {
			return nil, err
		}
	}
	a, err := readQuery(r.Query)
	if err != nil {
		return nil, err
	}
	var body []byte
	if monitor {
		if resp := c.old(r); resp != nil {
			return resp, nil
		}
		body, err = c.monitorChangeset(r, a)
	} else {
		body, err = recordsChangeset(r.View, p, a)
	}
	if err != nil {
		return nil, err
	}
	header := map[string]string{}
	c.cache(header, r, bucket, collection)
	return &plugins.RouteResponse{Status: http.StatusOK, Header: header, Body: body}, nil
}

// mayRead looks at the permissions of the collection and its bucket.
func mayRead(r *plugins.RouteRequest, p fsm.Path) error {
	who := map[string]bool{}
	for _, principal := range r.Principals {
		who[principal] = true
	}
	for _, at := range []fsm.Path{p.Parent(), p} {
		o, err := r.View.Get(at)
		if err != nil {
			return err
		}
		if o.Exists() && o.ACL.Grants(who, "read", "write") {
			return nil
		}
	}
	return plugins.ErrDenied
}

func notFound() error {
	return &plugins.Veto{Status: http.StatusNotFound, Errno: 111, Message: "The resource you are looking for could not be found."}
}

func (c *Changes) monitorChangeset(r *plugins.RouteRequest, a asked) ([]byte, error) {
	all, err := c.entries(r.View)
	if err != nil {
		return nil, err
	}
	at := newest(all, r.Now)
	filter := url.Values{}
	for _, name := range []string{"bucket", "collection"} {
		if a.more.Get(name) != "" {
			filter.Set(name, strconv.Quote(a.more.Get(name)))
		}
	}
	if a.since >= 0 {
		filter.Set("_since", strconv.FormatInt(a.since, 10))
	}
	if a.limit > 0 {
		filter.Set("_limit", strconv.Itoa(a.limit))
	}
	q, err := query.Parse(filter.Encode(), query.Options{Now: max(int64(r.Now), at), KnownFields: []string{"host", "bucket", "collection"}})
	if err != nil {
		return nil, err
	}
	page := q.NewPage()
	for _, o := range all {
		if q.Match(o) {
			page.Add(o)
		}
	}
	shown, _ := page.Objects()
	b := strconv.AppendInt([]byte(`{"metadata":{},"timestamp":`), at, 10)
	return append(appendAll(append(b, `,"changes":[`...), shown, nil), "]}"...), nil
}

func recordsChangeset(v fsm.Reader, p fsm.Path, a asked) ([]byte, error) {
	o, err := v.Get(p)
	if err != nil {
		return nil, err
	}
	if !o.Exists() {
		return nil, notFound()
	}
	list := p.Child("records")
	info, err := v.List(list)
	if err != nil {
		return nil, err
	}
	b := canon.Splice([]byte(`{"metadata":`), o.Path.ID(), int64(o.LastModified), o.Data)
	b = append(strconv.AppendInt(append(b, `,"timestamp":`...), int64(info.Timestamp), 10), `,"changes":[`...)
	bounds := fsm.ScanOptions{Reverse: true, Borrow: true}
	if a.since >= 0 {
		bounds.Start, bounds.Tombstones = &fsm.Position{LastModified: fsm.Timestamp(a.since + 1)}, true
	}
	n, large := 0, false
	err = v.Scan(list, bounds, func(o *fsm.Object) bool {
		if n++; n > 1 {
			b = append(b, ',')
		}
		b = appendAll(b, []query.Object{{ID: o.Path.ID(), LastModified: int64(o.LastModified), Deleted: o.Deleted, Data: o.Data}}, nil)
		large = len(b) > MaxChangesetBytes
		return !large && n != a.limit
	})
	if err == nil && large {
		err = &plugins.Veto{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("The changeset has more than %d bytes: use _limit or _since.", MaxChangesetBytes)}
	}
	return append(b, "]}"...), err
}
