package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"quinto/internal/checker"
	"quinto/internal/testcluster"
)

// The load: enough that requests meet, little enough for porcupine.
const (
	writers     = 8
	hotKeys     = 10
	coldKeys    = 1000
	writerPause = 40 * time.Millisecond // at least between two requests of one writer: 200 op/s in all
	retryPause  = 30 * time.Millisecond
	keyedLimit  = 20 * time.Second // how long a request is sent again under its key
	guard       = "guard"          // the record that the stranger may read at times
	pairs       = 5                // of records that are written together only
)

// load is the clients of one run.
type load struct {
	nodes []*testcluster.Node
	rec   *checker.Recorder
	start time.Time
	seed  uint64
	stop  chan struct{}
	wg    sync.WaitGroup
	names atomic.Int64 // of values

	mu    sync.Mutex
	known map[string]int64     // last_modified that somebody saw
	bad   map[string]time.Time // nodes that lately did not answer
}

func newLoad(nodes []*testcluster.Node, rec *checker.Recorder, start time.Time, seed uint64) *load {
	return &load{nodes: nodes, rec: rec, start: start, seed: seed, stop: make(chan struct{}), known: map[string]int64{}, bad: map[string]time.Time{}}
}

func (l *load) now() int64 { return int64(time.Since(l.start)) }

func (l *load) run() {
	for w := range writers {
		l.wg.Go(func() {
			c := &writer{load: l, name: fmt.Sprint("w", w), patience: patience(w), rand: rand.New(rand.NewPCG(l.seed, uint64(w)))}
			for l.wait(writerPause) {
				c.request()
			}
		})
	}
}

// wait returns false once the load is to end.
func (l *load) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.stop:
		return false
	}
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// pick chooses a node as a client with a list of addresses does: one that failed is
// mostly left alone for a second.
func (l *load) pick(r *rand.Rand) *testcluster.Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n *testcluster.Node
	for range 2 * len(l.nodes) {
		n = l.nodes[r.IntN(len(l.nodes))]
		if time.Since(l.bad[n.Name]) > time.Second || r.IntN(10) == 0 {
			break
		}
	}
	return n
}

func (l *load) failed(n *testcluster.Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad[n.Name] = time.Now()
}

func (l *load) learn(v *checker.Value) {
	if v == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[v.Object] = v.Modified
}

func (l *load) etag(object string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[object]
}

type writer struct {
	*load
	name     string
	patience time.Duration
	rand     *rand.Rand
}

func (w *writer) object() string {
	if w.rand.IntN(10) < 6 {
		return fmt.Sprint("hot", w.rand.IntN(hotKeys))
	}
	return fmt.Sprint("cold", w.rand.IntN(coldKeys))
}

func (w *writer) unique() string { return fmt.Sprintf("%s-%d", w.name, w.names.Add(1)) }

// part draws one operation on one object.
func (w *writer) part(object string) checker.Part {
	p := checker.Part{Object: object}
	switch n := w.rand.IntN(100); {
	case n < 45:
		p.Kind, p.V = checker.Put, w.unique()
	case n < 60:
		p.Kind, p.V = checker.Create, w.unique()
	case n < 85:
		p.Kind, p.P = checker.Patch, w.unique()
	default:
		p.Kind = checker.Delete
	}
	if p.Kind != checker.Create && w.rand.IntN(2) == 0 {
		p.IfMatch = w.etag(object)
	}
	return p
}

// request draws one request and sees it through.
func (w *writer) request() {
	op := &checker.Op{Client: w.name}
	r := &request{user: owner, header: map[string]string{}}
	switch n := w.rand.IntN(100); {
	case n < 20:
		w.read(op, r)
		return
	case n < 26:
		w.guardedRead(op, r)
		return
	case n < 30 && w.name == "w0":
		w.guard(op, r)
	case n < 45:
		w.batch(op, r)
	case n < 50:
		op.Parts = []checker.Part{{Kind: checker.Post, V: w.unique()}}
		r.method, r.path, r.body = single(&op.Parts[0], r.header)
	default:
		op.Parts = []checker.Part{w.part(w.object())}
		r.method, r.path, r.body = single(&op.Parts[0], r.header)
	}
	if w.rand.IntN(2) == 0 {
		op.Key = w.unique()
		r.header["Idempotency-Key"] = op.Key
	}
	w.write(op, r)
}

// single is a part as a request by itself.
func single(p *checker.Part, header map[string]string) (method, path string, body []byte) {
	path = recordsPath + "/" + p.Object
	switch {
	case p.Kind == checker.Create:
		header["If-None-Match"] = "*"
	case p.IfMatch > 0:
		header["If-Match"] = fmt.Sprintf(`"%d"`, p.IfMatch)
	}
	switch p.Kind {
	case checker.Delete:
		return http.MethodDelete, path, nil
	case checker.Patch:
		return http.MethodPatch, path, fmt.Appendf(nil, `{"data":{"p":%q}}`, p.P)
	}
	body = fmt.Appendf(nil, `{"data":{"v":%q}}`, p.V)
	if p.Kind == checker.Post {
		return http.MethodPost, recordsPath, body
	}
	return http.MethodPut, path, body
}

func (w *writer) guard(op *checker.Op, r *request) {
	v, readers := checker.Granted+w.unique(), `["system.Authenticated"]`
	if w.rand.IntN(2) == 0 {
		v, readers = "revoked-"+w.unique(), `[]`
	}
	op.Parts = []checker.Part{{Object: guard, Kind: checker.Put, V: v}}
	r.method, r.path = http.MethodPut, recordsPath+"/"+guard
	r.body = fmt.Appendf(nil, `{"data":{"v":%q},"permissions":{"read":%s}}`, v, readers)
}

// batch writes two to four objects in one transaction, or a pair.
func (w *writer) batch(op *checker.Op, r *request) {
	if w.rand.IntN(3) == 0 {
		n := w.rand.IntN(pairs)
		for _, side := range []string{"a", "b"} {
			op.Parts = append(op.Parts, checker.Part{Object: fmt.Sprintf("pair%d%s", n, side), Kind: checker.Put, V: w.unique()})
		}
	} else {
		used := map[string]bool{}
		for range 2 + w.rand.IntN(3) {
			if o := w.object(); !used[o] {
				used[o] = true
				op.Parts = append(op.Parts, w.part(o))
			}
		}
	}
	if len(op.Parts) == 1 {
		r.method, r.path, r.body = single(&op.Parts[0], r.header)
		return
	}
	type item struct {
		Method  string            `json:"method"`
		Path    string            `json:"path"`
		Headers map[string]string `json:"headers,omitempty"`
		Body    json.RawMessage   `json:"body,omitempty"`
	}
	var items []item
	for i := range op.Parts {
		header := map[string]string{}
		method, path, body := single(&op.Parts[i], header)
		items = append(items, item{method, path, header, body})
	}
	r.method, r.path = http.MethodPost, "/batch"
	r.body, _ = json.Marshal(map[string]any{"transaction": true, "requests": items})
}

// write sends a write, again under its key until it is decided.
func (w *writer) write(op *checker.Op, r *request) {
	op.Call = w.now()
	var a answer
	for begin := time.Now(); ; {
		n := w.pick(w.rand)
		a = send(n, r, w.patience)
		op.Node, op.Tries, op.Status = n.Name, op.Tries+1, a.status
		if a.decided() {
			break
		}
		w.failed(n)
		if !a.undone() {
			op.Unsure = true
		}
		if op.Key == "" && a.sent || time.Since(begin) > keyedLimit || !w.wait(retryPause) {
			op.Unknown = op.Unsure
			if !op.Unknown && op.Status == 0 {
				return // never sent
			}
			break
		}
	}
	op.Return = w.now()
	if !op.Unknown {
		op.Revision = a.revision
		w.shown(op, &a)
		op.Digest = a.digest()
	}
	if op.Key != "" && a.decided() && a.status < 300 && w.rand.IntN(3) == 0 {
		w.replay(op, r)
	}
	w.rec.Add(&checker.Line{Op: op})
}

// shown notes what an answer to a write shows of its parts.
func (w *writer) shown(op *checker.Op, a *answer) {
	if len(op.Parts) == 1 {
		p := &op.Parts[0]
		p.Status = a.status
		if a.status < 300 {
			p.Seen = one(a.body)
			w.learn(p.Seen)
			if p.Kind == checker.Post && p.Seen != nil {
				p.Object = p.Seen.Object
			}
		}
		return
	}
	var b struct {
		Responses []struct {
			Status int             `json:"status"`
			Body   json.RawMessage `json:"body"`
		} `json:"responses"`
	}
	if json.Unmarshal(a.body, &b) != nil || len(b.Responses) != len(op.Parts) {
		return
	}
	for i := range op.Parts {
		p := &op.Parts[i]
		p.Status = b.Responses[i].Status
		if a.status < 300 && p.Status < 300 {
			p.Seen = one(b.Responses[i].Body)
			w.learn(p.Seen)
		}
	}
}

func (w *writer) replay(op *checker.Op, r *request) {
	for range 20 {
		a := send(w.pick(w.rand), r, w.patience)
		if a.decided() {
			op.Replays = append(op.Replays, a.digest())
			return
		}
		if !w.wait(retryPause) {
			return
		}
	}
}

func (w *writer) read(op *checker.Op, r *request) {
	object := w.object()
	if w.rand.IntN(5) == 0 {
		object = fmt.Sprintf("pair%da", w.rand.IntN(pairs))
	}
	op.Parts = []checker.Part{{Object: object, Kind: checker.Read}}
	if w.rand.IntN(4) == 0 {
		op.Stale = true
		r.header["Quinto-Consistency"] = "stale"
	}
	w.readOnce(op, r)
}

func (w *writer) guardedRead(op *checker.Op, r *request) {
	op.Parts = []checker.Part{{Object: guard, Kind: checker.GuardedRead}}
	r.user = stranger
	w.readOnce(op, r)
}

func (w *writer) readOnce(op *checker.Op, r *request) {
	p := &op.Parts[0]
	r.method, r.path = http.MethodGet, recordsPath+"/"+p.Object
	n := w.pick(w.rand)
	op.Node, op.Tries, op.Call = n.Name, 1, w.now()
	a := send(n, r, w.patience)
	op.Return = w.now()
	if !a.decided() {
		w.failed(n)
		return
	}
	op.Status, op.Revision = a.status, a.revision
	p.Status = a.status
	if a.status == http.StatusOK {
		p.Seen = one(a.body)
		if p.Kind == checker.Read && !op.Stale {
			w.learn(p.Seen)
		}
	}
	w.rec.Add(&checker.Line{Op: op})
}
