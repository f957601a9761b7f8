// Package clients writes and polls a cluster and notes in a checker's history what it
// saw. How a request reaches a node is the caller's, so the same clients talk to real
// processes (scripts/faults) and to simulated ones (scripts/sim).
package clients

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quinto/internal/checker"
)

const (
	guard = "guard" // the record that the stranger may read at times
	pairs = 5       // of records that are written together only
)

// Options say what the clients do.
type Options struct {
	Seed  uint64
	Start time.Time           // time 0 of the history
	Add   func(*checker.Line) // takes the history; called from many goroutines

	Writers, Pollers int
	Hot, Cold        int           // records that all write to, and the others
	PageEntries      int           // of a poll
	Pause            time.Duration // at least between two requests of one writer
	RetryPause       time.Duration // before a request is sent again
	PollPause        time.Duration // between two polls of one poller
	KeyedLimit       time.Duration // how long a request is sent again under its key
	// Half of the clients turn away from a node that hangs, so that work goes on; the
	// others are still waiting there when it comes back, for what it then says.
	Impatient, Patient time.Duration
}

// Load is the clients of one run.
type Load struct {
	Options
	stop  chan struct{}
	wg    sync.WaitGroup
	names atomic.Int64 // of values

	mu    sync.Mutex
	nodes []Node
	known map[string]int64     // last_modified that somebody saw
	bad   map[string]time.Time // nodes that lately did not answer
}

// New makes clients that send nothing before Run and Follow.
func New(o Options) *Load {
	return &Load{Options: o, stop: make(chan struct{}), known: map[string]int64{}, bad: map[string]time.Time{}}
}

// Use names the nodes that requests are sent to from now on.
func (l *Load) Use(nodes []Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = slices.Clone(nodes)
}

// patience of the client of this number.
func (l *Load) patience(n int) time.Duration {
	if n%2 == 0 {
		return l.Impatient
	}
	return l.Patient
}

// Now is the time of the history, in nanoseconds.
func (l *Load) Now() int64 { return int64(time.Since(l.Start)) }

// Run starts the writers.
func (l *Load) Run() {
	for w := range l.Writers {
		l.wg.Go(func() {
			c := &writer{Load: l, name: fmt.Sprint("w", w), patience: l.patience(w), rand: rand.New(rand.NewPCG(l.Seed, uint64(w)))}
			for l.wait(l.Pause) {
				c.request()
			}
		})
	}
}

// wait returns false once the load is to end.
func (l *Load) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.stop:
		return false
	}
}

// End stops all clients and waits for them.
func (l *Load) End() {
	close(l.stop)
	l.wg.Wait()
}

// pick chooses a node as a client with a list of addresses does: one that failed is
// mostly left alone for a second.
func (l *Load) pick(r *rand.Rand) Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n Node
	for range 2 * len(l.nodes) {
		n = l.nodes[r.IntN(len(l.nodes))]
		if time.Since(l.bad[n.Name()]) > time.Second || r.IntN(10) == 0 {
			break
		}
	}
	return n
}

func (l *Load) failed(n Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad[n.Name()] = time.Now()
}

func (l *Load) learn(v *checker.Value) {
	if v == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[v.Object] = v.Modified
}

func (l *Load) etag(object string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[object]
}

type writer struct {
	*Load
	name     string
	patience time.Duration
	rand     *rand.Rand
}

func (w *writer) send(n Node, r *Request) Answer { return send(n, r, w.patience) }

func (w *writer) object() string {
	if w.rand.IntN(10) < 6 {
		return fmt.Sprint("hot", w.rand.IntN(w.Hot))
	}
	return fmt.Sprint("cold", w.rand.IntN(w.Cold))
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
	r := &Request{User: Owner, Header: map[string]string{}}
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
		r.Method, r.Path, r.Body = single(&op.Parts[0], r.Header)
	default:
		op.Parts = []checker.Part{w.part(w.object())}
		r.Method, r.Path, r.Body = single(&op.Parts[0], r.Header)
	}
	if w.rand.IntN(2) == 0 {
		op.Key = w.unique()
		r.Header["Idempotency-Key"] = op.Key
	}
	w.write(op, r)
}

// single is a part as a request by itself.
func single(p *checker.Part, header map[string]string) (method, path string, body []byte) {
	path = RecordsPath + "/" + p.Object
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
		return http.MethodPost, RecordsPath, body
	}
	return http.MethodPut, path, body
}

func (w *writer) guard(op *checker.Op, r *Request) {
	v, readers := checker.Granted+w.unique(), `["system.Authenticated"]`
	if w.rand.IntN(2) == 0 {
		v, readers = "revoked-"+w.unique(), `[]`
	}
	op.Parts = []checker.Part{{Object: guard, Kind: checker.Put, V: v}}
	r.Method, r.Path = http.MethodPut, RecordsPath+"/"+guard
	r.Body = fmt.Appendf(nil, `{"data":{"v":%q},"permissions":{"read":%s}}`, v, readers)
}

// batch writes two to four objects in one transaction, or a pair.
func (w *writer) batch(op *checker.Op, r *Request) {
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
		r.Method, r.Path, r.Body = single(&op.Parts[0], r.Header)
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
	r.Method, r.Path = http.MethodPost, "/batch"
	r.Body, _ = json.Marshal(map[string]any{"transaction": true, "requests": items})
}

// write sends a write, again under its key until it is decided.
func (w *writer) write(op *checker.Op, r *Request) {
	op.Call = w.Now()
	var a Answer
	for begin := time.Now(); ; {
		n := w.pick(w.rand)
		a = w.send(n, r)
		op.Node, op.Tries, op.Status = n.Name(), op.Tries+1, a.Status
		if a.Decided() {
			break
		}
		w.failed(n)
		if !a.undone() {
			op.Unsure = true
		}
		if op.Key == "" && a.Sent || time.Since(begin) > w.KeyedLimit || !w.wait(w.RetryPause) {
			op.Unknown = op.Unsure
			if !op.Unknown && op.Status == 0 {
				return // never sent
			}
			break
		}
	}
	op.Return = w.Now()
	if !op.Unknown {
		op.Revision = a.Revision
		w.shown(op, &a)
		op.Digest = a.digest()
	}
	if op.Key != "" && a.Decided() && a.Status < 300 && w.rand.IntN(3) == 0 {
		w.replay(op, r)
	}
	w.Add(&checker.Line{Op: op})
}

// shown notes what an answer to a write shows of its parts.
func (w *writer) shown(op *checker.Op, a *Answer) {
	if len(op.Parts) == 1 {
		p := &op.Parts[0]
		p.Status = a.Status
		if a.Status < 300 {
			p.Seen = one(a.Body)
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
	if json.Unmarshal(a.Body, &b) != nil || len(b.Responses) != len(op.Parts) {
		return
	}
	for i := range op.Parts {
		p := &op.Parts[i]
		p.Status = b.Responses[i].Status
		if a.Status < 300 && p.Status < 300 {
			p.Seen = one(b.Responses[i].Body)
			w.learn(p.Seen)
		}
	}
}

func (w *writer) replay(op *checker.Op, r *Request) {
	for range 20 {
		a := w.send(w.pick(w.rand), r)
		if a.Decided() {
			op.Replays = append(op.Replays, a.digest())
			return
		}
		if !w.wait(w.RetryPause) {
			return
		}
	}
}

func (w *writer) read(op *checker.Op, r *Request) {
	object := w.object()
	if w.rand.IntN(5) == 0 {
		object = fmt.Sprintf("pair%da", w.rand.IntN(pairs))
	}
	op.Parts = []checker.Part{{Object: object, Kind: checker.Read}}
	if w.rand.IntN(4) == 0 {
		op.Stale = true
		r.Header["Quinto-Consistency"] = "stale"
	}
	w.readOnce(op, r)
}

func (w *writer) guardedRead(op *checker.Op, r *Request) {
	op.Parts = []checker.Part{{Object: guard, Kind: checker.GuardedRead}}
	r.User = Stranger
	w.readOnce(op, r)
}

func (w *writer) readOnce(op *checker.Op, r *Request) {
	p := &op.Parts[0]
	r.Method, r.Path = http.MethodGet, RecordsPath+"/"+p.Object
	n := w.pick(w.rand)
	op.Node, op.Tries, op.Call = n.Name(), 1, w.Now()
	a := w.send(n, r)
	op.Return = w.Now()
	if !a.Decided() {
		w.failed(n)
		return
	}
	op.Status, op.Revision = a.Status, a.Revision
	p.Status = a.Status
	if a.Status == http.StatusOK {
		p.Seen = one(a.Body)
		if p.Kind == checker.Read && !op.Stale {
			w.learn(p.Seen)
		}
	}
	w.Add(&checker.Line{Op: op})
}
