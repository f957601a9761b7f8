package history

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// The snapshot endpoint shows the records of a collection as they were at a time: what
// has not changed since as it stands, what has as the newest entry up to then says
// (kinto/plugins/history/views.py, get_snapshot).

// asOf is one record of the answer.
type asOf struct {
	at   fsm.Timestamp
	data []byte
}

// snapshot answers GET /buckets/{b}/snapshot/collections/{c}@{timestamp}.
func snapshot(_ context.Context, r *plugins.RouteRequest) *plugins.RouteResponse {
	id, text, ok := splitAt(r.Params["at"])
	if !ok {
		return fault(404, 111, "Not Found", `,"message":"The resource you are looking for could not be found."`)
	}
	at, ok := pythonInt(text)
	if !ok || at < 0 {
		why := canon.AppendString(nil, "Invalid timestamp "+canon.Python(canon.AppendString(nil, text)))
		return fault(400, 107, "Invalid parameters", fmt.Sprintf(
			`,"message":%s,"details":[{"location":"path","name":"timestamp","description":%s}]`, why, why))
	}
	bucket := fsm.Path("/buckets").Child(r.Params["bucket"])
	collection := bucket.Child("collections").Child(id)
	for _, named := range [][2]string{{"bucket", r.Params["bucket"]}, {"collection", id}} {
		if !validID(named[1]) {
			return fault(404, 111, "Not Found", fmt.Sprintf(`,"details":{"id":%s,"resource_name":%q}`,
				canon.AppendString(nil, strings.ToValidUTF8(named[1], "\uFFFD")), named[0]))
		}
	}
	if ok, err := mayRead(r, bucket, collection); err != nil || !ok {
		if err == nil {
			err = plugins.ErrDenied
		}
		return &plugins.RouteResponse{Err: err}
	}
	records, err := recordsAt(r.View, bucket, collection.Child("records"), fsm.Timestamp(at))
	if err != nil {
		return &plugins.RouteResponse{Err: err}
	}
	b := []byte(`{"data":[`)
	for i := range records {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, records[i].data...)
	}
	return &plugins.RouteResponse{Status: 200, Body: append(b, "]}"...)}
}

func fault(code, errno int, title, more string) *plugins.RouteResponse {
	return &plugins.RouteResponse{Status: code, Body: fmt.Appendf(nil, `{"code":%d,"errno":%d,"error":%q%s}`, code, errno, title, more)}
}

// splitAt takes "c@5" apart as Kinto's route does: at the last @ with something on
// both sides.
func splitAt(s string) (id, at string, ok bool) {
	if len(s) < 3 {
		return "", "", false
	}
	i := strings.LastIndexByte(s[:len(s)-1], '@')
	if i < 1 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// pythonInt reads a number as Python's int does: space around it, a sign, and single
// underscores between digits. What is beyond 64 bits becomes the farthest time.
func pythonInt(s string) (int64, bool) {
	s = strings.TrimSpace(s)
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || strings.Contains(digits, "__") || strings.HasPrefix(digits, "_") || strings.HasSuffix(digits, "_") {
		return 0, false
	}
	digits = strings.ReplaceAll(digits, "_", "")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		n = math.MaxInt64
	}
	if s[0] == '-' {
		n = -n
	}
	return n, true
}

// validID is Kinto's rule for the ids of buckets and collections.
func validID(id string) bool {
	const first = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return id != "" && strings.Contains(first, id[:1]) && strings.Trim(id, first+"_-") == ""
}

// mayRead reports whether the request may read the collection's records.
func mayRead(r *plugins.RouteRequest, objects ...fsm.Path) (bool, error) {
	who := make(map[string]bool, len(r.Principals))
	for _, p := range r.Principals {
		who[p] = true
	}
	for _, p := range objects {
		o, err := r.View.Get(p)
		if err != nil {
			return false, err
		}
		if o.ACL.Grants(who, "read", "write") {
			return true, nil
		}
	}
	return false, nil
}

// recordsAt returns the records of a list as they were at a time, newest first.
func recordsAt(r fsm.Reader, bucket, list fsm.Path, at fsm.Timestamp) ([]asOf, error) {
	var out []asOf
	changed := map[string]bool{}
	err := r.Scan(list, fsm.ScanOptions{Tombstones: true}, func(o *fsm.Object) bool {
		switch {
		case o.LastModified > at:
			changed[o.Path.ID()] = true
		case !o.Deleted:
			out = append(out, asOf{o.LastModified, appendData(nil, o)})
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	var failed error
	err = r.Scan(bucket.Child(plural), fsm.ScanOptions{Reverse: true}, func(o *fsm.Object) bool {
		if len(changed) == 0 {
			return false
		}
		id, was, err := recordOf(r, o, list, changed)
		if failed = err; err == nil && id != "" && was.at <= at {
			delete(changed, id)
			out = append(out, was)
		}
		return err == nil
	})
	if err == nil {
		err = failed
	}
	slices.SortStableFunc(out, func(a, b asOf) int { return int(min(1, max(-1, b.at-a.at))) })
	return out, err
}

// recordOf returns the record that an entry tells of, if it is one of wanted in list.
func recordOf(r fsm.Reader, e *fsm.Object, list fsm.Path, wanted map[string]bool) (id string, was asOf, err error) {
	if e.Of != nil && e.Of.Path != "" {
		if e.Of.Path.List() != list || !wanted[e.Of.Path.ID()] {
			return "", was, nil
		}
		o, err := written(r, e.Of)
		return o.Path.ID(), asOf{o.LastModified, appendData(nil, &o)}, err
	}
	entry := canon.Value(e.Data)
	uri, _ := entry.Get("uri")
	text, _ := uri.String()
	data, found := entry.GetPath(target, "data")
	if p := fsm.Path(text); !found || p.List() != list || !wanted[p.ID()] {
		return "", was, nil
	}
	modified, _ := data.Get("last_modified")
	n, _ := modified.Int()
	return fsm.Path(text).ID(), asOf{fsm.Timestamp(n), data}, nil
}
