package clients

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"quinto/internal/checker"
)

// What the clients write to, and who they are. The caller makes bucket and
// collection as Owner before Run.
const (
	BucketPath     = "/buckets/faults"
	CollectionPath = BucketPath + "/collections/c"
	RecordsPath    = CollectionPath + "/records"
	Owner          = "tester"
	Stranger       = "stranger" // may read only what the guard shows
)

// Node is what requests are sent to.
type Node interface {
	// Name is the node's, as the history has it.
	Name() string
	// Send makes one try. It returns when there is an answer, or soon after ctx ends.
	Send(ctx context.Context, r *Request) Answer
}

func send(n Node, r *Request, limit time.Duration) Answer {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return n.Send(ctx, r)
}

// Request is what is sent, perhaps several times.
type Request struct {
	Method, Path string // with its query, without the version
	Body         []byte
	Header       map[string]string
	User         string // also the password
}

// Answer is what came back; Err is set when nothing did.
type Answer struct {
	Status   int
	ETag     int64
	Revision uint64
	Next     string // path of the next page
	Body     []byte
	Sent     bool // the request may have reached the node
	Err      error
}

// NewAnswer reads what the clients need of an answer; header returns the value of a
// field, "" without one.
func NewAnswer(status int, header func(name string) string, body []byte) Answer {
	a := Answer{Status: status, Body: body, Sent: true}
	a.ETag = number(strings.Trim(header("ETag"), `"`))
	a.Revision = uint64(number(header("Quinto-Revision")))
	if next := header("Next-Page"); next != "" {
		if _, path, ok := strings.Cut(next, "/v1/"); ok {
			a.Next = "/" + path
		}
	}
	return a
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return max(n, 0)
}

// Decided: the state said yes or no.
func (a *Answer) Decided() bool { return a.Err == nil && a.Status >= 200 && a.Status < 500 }

// undone: the node said that nothing was done.
func (a *Answer) undone() bool {
	if a.Err != nil {
		return !a.Sent
	}
	return a.Status == http.StatusInsufficientStorage ||
		a.Status == http.StatusServiceUnavailable && !bytes.Contains(a.Body, []byte("unknown"))
}

func (a *Answer) digest() string {
	return fmt.Sprintf("%d %d rev %d %.12x", a.Status, a.ETag, a.Revision, sha256.Sum256(a.Body))
}

// Record is an object as the API shows it.
type Record struct {
	ID       string `json:"id"`
	V        string `json:"v"`
	P        string `json:"p"`
	Modified int64  `json:"last_modified"`
	Deleted  bool   `json:"deleted"`
}

// Value is the object as a history has it.
func (r *Record) Value() checker.Value {
	return checker.Value{Object: r.ID, V: r.V, P: r.P, Modified: r.Modified, Deleted: r.Deleted}
}

// one reads the body of an answer about one object.
func one(body []byte) *checker.Value {
	var b struct {
		Data *Record `json:"data"`
	}
	if json.Unmarshal(body, &b) != nil || b.Data == nil || b.Data.ID == "" {
		return nil
	}
	v := b.Data.Value()
	return &v
}

// many reads a list.
func many(body []byte) ([]checker.Value, error) {
	var b struct {
		Data []Record `json:"data"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, err
	}
	out := make([]checker.Value, len(b.Data))
	for i := range b.Data {
		out[i] = b.Data[i].Value()
	}
	return out, nil
}
