package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"quinto/internal/checker"
	"quinto/internal/testcluster"
)

const (
	bucketPath     = "/buckets/faults"
	collectionPath = bucketPath + "/collections/c"
	recordsPath    = collectionPath + "/records"
	owner          = "tester"
	stranger       = "stranger" // may read only what the guard shows

	// Half of the clients turn away from a node that hangs, so that work goes on; the
	// others are still waiting there when it comes back, for what it then says.
	impatient = 800 * time.Millisecond
	patient   = 4 * time.Second
)

// patience of the client of this number.
func patience(n int) time.Duration {
	if n%2 == 0 {
		return impatient
	}
	return patient
}

// request is what is sent, perhaps several times.
type request struct {
	method, path string
	body         []byte
	header       map[string]string
	user         string
}

// answer is what came back; err is set when nothing did.
type answer struct {
	status   int
	etag     int64
	revision uint64
	next     string // path of the next page
	body     []byte
	sent     bool // the request may have reached the node
	err      error
}

// send makes one try at one node.
func send(n *testcluster.Node, r *request, limit time.Duration) answer {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, n.URL(r.path), bytes.NewReader(r.body))
	if err != nil {
		return answer{err: err}
	}
	req.SetBasicAuth(r.user, r.user)
	if len(r.body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	resp, err := n.Client().Do(req)
	if err != nil {
		var op *net.OpError
		return answer{err: err, sent: !errors.As(err, &op) || op.Op != "dial"}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, sent: true}
	if a.body, a.err = io.ReadAll(io.LimitReader(resp.Body, 16<<20)); a.err != nil {
		return a
	}
	a.etag = number(strings.Trim(resp.Header.Get("ETag"), `"`))
	a.revision = uint64(number(resp.Header.Get("Quinto-Revision")))
	if next := resp.Header.Get("Next-Page"); next != "" {
		if _, path, ok := strings.Cut(next, "/v1/"); ok {
			a.next = "/" + path
		}
	}
	return a
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return max(n, 0)
}

// decided: the state said yes or no.
func (a *answer) decided() bool { return a.err == nil && a.status >= 200 && a.status < 500 }

// undone: the node said that nothing was done.
func (a *answer) undone() bool {
	if a.err != nil {
		return !a.sent
	}
	return a.status == http.StatusInsufficientStorage ||
		a.status == http.StatusServiceUnavailable && !bytes.Contains(a.body, []byte("unknown"))
}

func (a *answer) digest() string {
	return fmt.Sprintf("%d %d rev %d %.12x", a.status, a.etag, a.revision, sha256.Sum256(a.body))
}

// record is an object as the API shows it.
type record struct {
	ID       string `json:"id"`
	V        string `json:"v"`
	P        string `json:"p"`
	Modified int64  `json:"last_modified"`
	Deleted  bool   `json:"deleted"`
}

func (r *record) value() checker.Value {
	return checker.Value{Object: r.ID, V: r.V, P: r.P, Modified: r.Modified, Deleted: r.Deleted}
}

// one reads the body of an answer about one object.
func one(body []byte) *checker.Value {
	var b struct {
		Data *record `json:"data"`
	}
	if json.Unmarshal(body, &b) != nil || b.Data == nil || b.Data.ID == "" {
		return nil
	}
	v := b.Data.value()
	return &v
}

// many reads a list.
func many(body []byte) ([]checker.Value, error) {
	var b struct {
		Data []record `json:"data"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, err
	}
	out := make([]checker.Value, len(b.Data))
	for i := range b.Data {
		out[i] = b.Data[i].value()
	}
	return out, nil
}
