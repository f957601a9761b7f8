package resource

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"quinto/fsm"
)

// MaxHops bounds how often a request is forwarded: from the node that got it to
// the leader, no further.
const MaxHops = 1

// Header holds the end-to-end headers of a request by lower-case name.
type Header map[string]string

// Request is one request as the edge understood it. It owns its bytes: nothing
// in it may be a view into a server's buffer.
type Request struct {
	ID     []byte // made by the node that got the request: 16 random bytes
	Method string
	Path   string // percent-decoded once, without the version prefix: "/buckets/b"
	Query  string // raw, without the question mark
	Header Header
	Body   []byte
	Scheme string // "http" or "https", to build URLs
	Host   string // as the client named the server, to build URLs
	Prefix string // version prefix of URLs: "/v1"
	Client string // address of the client
	Hop    uint8  // times it was forwarded

	retry bool // an earlier attempt with this id may have been done
}

// safe reports whether the method only reads.
func (r *Request) safe() bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// HeaderField is one header line of an answer.
type HeaderField struct{ Name, Value string }

// Response is a complete answer. For HEAD, Body is what GET would send: the edge
// sends its length only.
type Response struct {
	Status int
	Header []HeaderField
	Body   []byte
	// UserID is who asked, as far as that was found out; not sent to the client.
	UserID string

	outcome outcome
}

// outcome is what a node that was asked to write says beside the answer.
type outcome uint8

const (
	outcomeDone      outcome = iota
	outcomeNotLeader         // nothing was done: ask another node
	outcomeUnknown           // it may or may not have been done: ask again with the same id
)

// Get returns the value of the first field called name in any case, or "".
func (r *Response) Get(name string) string {
	for _, f := range r.Header {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

const jsonType = "application/json"

var contentTypeField = HeaderField{"Content-Type", jsonType}

// stampFields are ETag and Last-Modified of a time in milliseconds.
func stampFields(t fsm.Timestamp) []HeaderField {
	return appendStamp(make([]HeaderField, 0, 5), t)
}

func appendStamp(fields []HeaderField, t fsm.Timestamp) []HeaderField {
	etag := make([]byte, 0, 24)
	etag = append(etag, '"')
	etag = strconv.AppendInt(etag, int64(t), 10)
	etag = append(etag, '"')
	seconds := int64(t) / 1000
	if int64(t)%1000 < 0 {
		seconds-- // towards the past, also before 1970
	}
	date := time.Unix(seconds, 0).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	return append(fields, HeaderField{"ETag", string(etag)}, HeaderField{"Last-Modified", date})
}

// maxKept bounds, in seconds, how far Expires lies ahead: a hundred years.
const maxKept = 100 * 365 * 24 * 3600

// cacheFields let whoever gets an answer keep it for a while, in the words of
// Kinto's framework; 0 seconds forbid it.
func cacheFields(seconds int64, now fsm.Timestamp) []HeaderField {
	until := time.UnixMilli(int64(now)).Add(time.Duration(min(seconds, maxKept)) * time.Second)
	expires := HeaderField{"Expires", until.UTC().Format(http.TimeFormat)}
	if seconds == 0 {
		return []HeaderField{{"Cache-Control", "max-age=0, must-revalidate, no-cache, no-store"}, expires, {"Pragma", "no-cache"}}
	}
	return []HeaderField{{"Cache-Control", "max-age=" + strconv.FormatInt(seconds, 10)}, expires}
}

// URL of a path under the version prefix, as this request's client sees it.
func (r *Request) url(path string) string { return r.Scheme + "://" + r.Host + r.Prefix + path }
