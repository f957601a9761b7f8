// Package changes is the plugin kinto_changes: the list of the collections that a
// service publishes with their timestamps, in /buckets/monitor/collections/changes,
// and for each collection a changeset, which is metadata, timestamp and records in
// one answer. Clients of Remote Settings poll them.
//
//	kinto.includes = kinto_changes
//	kinto.changes.resources = /buckets/main /buckets/blog/collections/articles
//
// Its referee is kinto-changes 4.1.2, of which kinto-remote-settings has made a part
// of itself.
package changes

import (
	"cmp"
	"context"
	"crypto/md5" //nolint:gosec // not a secret: kinto-changes makes its ids so
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"quinto/api/query"
	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// Names that the setting includes may call it by.
const (
	Name               = "kinto_changes"
	RemoteSettingsName = "kinto_remote_settings.changes"
)

const (
	monitorBucket     = "monitor"
	changesCollection = "changes"
	version           = "4.1.2" // of what it stands for

	// MaxChangesetBytes bounds a changeset; a larger one is 413, and _limit helps.
	MaxChangesetBytes = 64 << 20
)

func init() {
	for _, name := range []string{Name, RemoteSettingsName} {
		plugins.Register(plugins.Module{Name: name, New: func() any { return new(Changes) },
			Settings: "changes.* *_cache_maximum_expires_seconds"})
	}
}

// Changes is the plugin. Its settings never change after Provision.
type Changes struct {
	resources   []string
	host        string // of the entries
	redirect    string // scheme and host that old clients are led to; empty: as they named it
	sinceDays   int64  // a _since older than that is led to the whole list; negative: never
	redirectTTL int64
	settings    plugins.Settings
}

var (
	_ plugins.Provisioner        = (*Changes)(nil)
	_ plugins.RouteProvider      = (*Changes)(nil)
	_ plugins.CapabilityProvider = (*Changes)(nil)
)

// Provision reads the settings changes.* and http_host.
func (c *Changes) Provision(_ context.Context, s plugins.Settings) error {
	c.settings, c.resources, c.host = s, s.List("changes.resources"), s.Text("http_host", "")
	for _, uri := range c.resources {
		if _, _, err := monitored(uri); err != nil {
			return err
		}
	}
	if host := s.Text("changes.http_host", c.host); host != "" {
		c.redirect = cmp.Or(s.Text("http_scheme", ""), "https") + "://" + host
	}
	var err error
	if c.sinceDays, err = s.Number("changes.since_max_age_days", 21, -1<<31, 1<<20); err != nil {
		return err
	}
	c.redirectTTL, err = s.Number("changes.since_max_age_redirect_ttl_seconds", 24*3600, -1, 1<<31)
	return err
}

// monitored reads a URI of changes.resources; without a collection it is all of
// the bucket's.
func monitored(uri string) (bucket, collection string, err error) {
	parts := strings.Split(uri, "/")
	switch {
	case len(parts) == 3 && parts[0] == "" && parts[1] == "buckets" && parts[2] != "":
		return parts[2], "", nil
	case len(parts) == 5 && parts[0] == "" && parts[1] == "buckets" && parts[3] == "collections" && parts[2] != "" && parts[4] != "":
		return parts[2], parts[4], nil
	}
	return "", "", fmt.Errorf("changes.resources: %q is neither /buckets/ID nor /buckets/ID/collections/ID", uri)
}

// Capabilities implements plugins.CapabilityProvider, in the plugin's own words.
func (c *Changes) Capabilities() []plugins.Capability {
	b := []byte(`{"version":"` + version + `","description":"Track modifications of records in Kinto and store the collection timestamps into a specific bucket and collection.",` +
		`"url":"http://kinto.readthedocs.io/en/latest/tutorials/synchronisation.html#polling-for-remote-changes","collections":[`)
	for i, uri := range c.resources {
		if i > 0 {
			b = append(b, ',')
		}
		b = canon.AppendString(b, uri)
	}
	return []plugins.Capability{{Name: "changes", Body: string(append(b, "]}"...))}}
}

// Routes implements plugins.RouteProvider.
func (c *Changes) Routes() []plugins.Route {
	return []plugins.Route{
		{Method: http.MethodGet, Path: "/buckets/" + monitorBucket + "/collections/" + changesCollection + "/records", Name: "changes-plural", Listing: true, Handle: answering(c.list),
			Doc: &plugins.Doc{ID: "get_changes", Tag: "Changes", Open: true, Responses: `{"200":{"description":"The published collections and their timestamps.","schema":{"type":"object"}}}`}},
		{Method: http.MethodGet, Path: "/buckets/:bid/collections/:cid/changeset", Name: "collection-changeset", Handle: answering(c.changeset),
			Doc: &plugins.Doc{ID: "get_collection-changeset", Tag: "Changes",
				Parameters: []string{`{"in":"query","name":"_expected","required":true,"type":"string"}`, `{"in":"query","name":"_since","type":"string"}`},
				Responses:  `{"200":{"description":"Metadata, timestamp and records of a collection.","schema":{"type":"object"}}}`}},
	}
}

// answering makes a handler of what may fail.
func answering(f func(r *plugins.RouteRequest) (*plugins.RouteResponse, error)) func(context.Context, *plugins.RouteRequest) *plugins.RouteResponse {
	return func(_ context.Context, r *plugins.RouteRequest) *plugins.RouteResponse {
		resp, err := f(r)
		if err != nil {
			return &plugins.RouteResponse{Err: refusal(err)}
		}
		return resp
	}
}

// refusal makes Kinto's 400 of a query that cannot be read.
func refusal(err error) error {
	var bad *query.Error
	if !errors.As(err, &bad) || len(bad.Details) == 0 {
		return err
	}
	d := bad.Details[0]
	return &plugins.Veto{Status: http.StatusBadRequest, Location: cmp.Or(d.Location, query.Location), Name: d.Name, Message: d.Description}
}

// entries are the published collections with their timestamps.
func (c *Changes) entries(r fsm.Reader) (all []query.Object, err error) {
	seen := map[fsm.Path]bool{}
	add := func(bucket, collection string) error {
		p := fsm.Path("/buckets/" + bucket + "/collections/" + collection)
		l, err := r.List(p.Child("records"))
		if err != nil || l.Timestamp == 0 || seen[p] {
			return err
		}
		seen[p] = true
		b := canon.AppendString([]byte(`{"bucket":`), bucket)
		b = canon.AppendString(append(b, `,"collection":`...), collection)
		b = append(canon.AppendString(append(b, `,"host":`...), c.host), '}')
		id := uuid.UUID(md5.Sum([]byte(c.host + string(p)))).String() //nolint:gosec // see the import
		all = append(all, query.Object{ID: id, LastModified: int64(l.Timestamp), Data: b})
		return nil
	}
	for _, uri := range c.resources {
		bucket, collection, err := monitored(uri)
		if err != nil {
			return nil, err
		}
		if collection != "" {
			if err := add(bucket, collection); err != nil {
				return nil, err
			}
			continue
		}
		var failed error
		err = r.Scan(fsm.Path("/buckets/"+bucket+"/collections"), fsm.ScanOptions{}, func(o *fsm.Object) bool {
			failed = add(bucket, o.Path.ID())
			return failed == nil
		})
		if err = errors.Join(failed, err); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func newest(all []query.Object, now fsm.Timestamp) int64 {
	if len(all) == 0 {
		return int64(now)
	}
	return slices.MaxFunc(all, func(a, b query.Object) int { return cmp.Compare(a.LastModified, b.LastModified) }).LastModified
}

// list answers the list of published collections.
func (c *Changes) list(r *plugins.RouteRequest) (*plugins.RouteResponse, error) {
	if resp := c.old(r); resp != nil {
		return resp, nil
	}
	all, err := c.entries(r.View)
	if err != nil {
		return nil, err
	}
	at := newest(all, r.Now)
	q, err := query.Parse(r.Query, query.Options{Now: max(int64(r.Now), at), KnownFields: []string{"host", "bucket", "collection"}})
	if err != nil {
		return nil, err
	}
	header := map[string]string{"ETag": `"` + strconv.FormatInt(at, 10) + `"`, "Last-Modified": time.UnixMilli(at).UTC().Format(http.TimeFormat)}
	if unmodified, err := precondition(r, at, header); err != nil || unmodified {
		return &plugins.RouteResponse{Status: http.StatusNotModified, Header: header}, err
	}
	sorted := q.NewPage()
	for _, o := range all {
		if q.Match(o) && q.After(o) {
			sorted.Add(o)
		}
	}
	shown, more := sorted.Objects()
	if more {
		token, err := q.EncodeToken(shown[len(shown)-1], query.Token{Revision: uint64(r.View.Revision())})
		if err != nil {
			return nil, err
		}
		header["Next-Page"] = r.Base + r.Path + "?" + q.NextPage(token)
	}
	header["Cache-Control"] = "no-cache, no-store" // of a list, unless the settings say more
	c.cache(header, r, monitorBucket, changesCollection)
	body := append(appendAll([]byte(`{"data":[`), shown, q.Fields), "]}"...)
	return &plugins.RouteResponse{Status: http.StatusOK, Header: header, Body: body}, nil
}

// precondition looks at If-Match and If-None-Match as a list does, and reports whether
// the client has what is there.
func precondition(r *plugins.RouteRequest, at int64, header map[string]string) (unmodified bool, err error) {
	read := func(name string) (n int64, any bool, err error) {
		text := strings.TrimSpace(r.Header[strings.ToLower(name)])
		if text == "" || text == "*" {
			return 0, text == "*", nil
		}
		n, ok := timestamp(text)
		if !ok {
			err = &plugins.Veto{Status: http.StatusBadRequest, Location: "header", Name: name, Message: "The value should be integer between double quotes."}
		}
		return n, false, err
	}
	match, _, err := read("If-Match")
	if err != nil {
		return false, err
	}
	noneMatch, any, err := read("If-None-Match")
	switch {
	case err != nil:
		return false, err
	case noneMatch == at:
		return true, nil
	case any, match != 0 && match != at: // 0 is no condition, as for any list
		return false, &plugins.Veto{Status: http.StatusPreconditionFailed, Message: "Resource was modified meanwhile", Header: header}
	}
	return false, nil
}

func appendAll(b []byte, all []query.Object, fields *query.Fields) []byte {
	for i, o := range all {
		if i > 0 {
			b = append(b, ',')
		}
		data := o.Data
		switch {
		case fields != nil:
			data = fields.Project(o)
		case o.Deleted:
			data = canon.Value(`{"deleted":true}`)
		}
		b = canon.Splice(b, o.ID, o.LastModified, data)
	}
	return b
}

// timestamp reads digits in quotes.
func timestamp(text string) (int64, bool) {
	if len(text) < 3 || text[0] != '"' || text[len(text)-1] != '"' {
		return 0, false
	}
	n, err := strconv.ParseInt(text[1:len(text)-1], 10, 64)
	return n, err == nil && n >= 0
}

// old leads a client that shows a very old time to the whole list, which caches
// then have once for all such.
func (c *Changes) old(r *plugins.RouteRequest) *plugins.RouteResponse {
	values, _ := url.ParseQuery(r.Query)
	since, err := strconv.ParseInt(strings.Trim(values.Get("_since"), `"`), 10, 64)
	if err != nil || c.sinceDays < 0 || since >= int64(r.Now)-c.sinceDays*24*3600*1000 {
		return nil
	}
	values.Del("_since")
	base := r.Base
	if c.redirect != "" {
		base = c.redirect + r.Base[strings.LastIndexByte(r.Base, '/'):]
	}
	location := base + r.Path
	if len(values) > 0 {
		location += "?" + values.Encode()
	}
	header := map[string]string{}
	if c.redirectTTL >= 0 {
		expires(header, c.redirectTTL, r.Now)
	}
	return &plugins.RouteResponse{Redirect: location, Header: header}
}

// cache says how long an answer may be kept: longer when the client names what it
// expects to see.
func (c *Changes) cache(header map[string]string, r *plugins.RouteRequest, bucket, collection string) {
	prefix := bucket + "." + collection + ".record_cache"
	text := c.settings.Text(prefix+"_expires_seconds", "")
	if values, err := url.ParseQuery(r.Query); err == nil && values.Has("_expected") {
		text = c.settings.Text(prefix+"_maximum_expires_seconds", text)
	}
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil && seconds >= 0 {
		expires(header, seconds, r.Now)
	}
}

// expires sets the headers of WebOb's cache_expires, which leaves a Last-Modified as it is.
func expires(header map[string]string, seconds int64, now fsm.Timestamp) {
	header["Cache-Control"] = "max-age=" + strconv.FormatInt(seconds, 10)
	if seconds == 0 {
		header["Cache-Control"], header["Pragma"] = "max-age=0, must-revalidate, no-cache, no-store", "no-cache"
		if header["Last-Modified"] == "" {
			header["Last-Modified"] = time.UnixMilli(int64(now)).UTC().Format(http.TimeFormat)
		}
	}
	header["Expires"] = time.UnixMilli(int64(now)).UTC().Add(time.Duration(seconds) * time.Second).Format(http.TimeFormat)
}
