package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quinto/internal/checker"
	"quinto/internal/testcluster"
)

const (
	pollers    = 4
	pollPause  = 150 * time.Millisecond
	pollLimit  = 40  // entries of a page
	pollPages  = 200 // of one poll
	hookPath   = "/changes"
	hookPort   = 9900
	hookSecret = "whsec_dGhpcyBpcyBhIHNlY3JldCBvZiB0aGUgdGVzdHMu"
)

// poller follows the changes of the collection as an ordinary client does, and
// changes the node at each request.
type poller struct {
	*load
	name     string
	level    string
	patience time.Duration
	rand     *rand.Rand
	since    int64
	next     int
}

func (l *load) newPollers() []*poller {
	var all []*poller
	for i := range pollers {
		p := &poller{load: l, name: fmt.Sprint("p", i), level: "linearizable", patience: patience(i), since: 1, next: i, rand: rand.New(rand.NewPCG(l.seed, uint64(100+i)))}
		if i == pollers-1 {
			p.level = "session" // with nothing but _since and page tokens
		}
		all = append(all, p)
	}
	return all
}

func (l *load) follow(all []*poller) {
	for _, p := range all {
		l.wg.Go(func() {
			for l.wait(pollPause) {
				p.poll()
			}
		})
	}
}

// poll asks once and notes what came; it reports whether there was an answer to all
// pages, and nothing new.
func (p *poller) poll() (rest bool) {
	out := &checker.Poll{Client: p.name, Since: p.since, Level: p.level, Limit: pollLimit, Call: p.now()}
	header := map[string]string{"Quinto-Consistency": p.level}
	if p.since > 1 && p.rand.IntN(2) == 0 {
		header["If-None-Match"] = fmt.Sprintf(`"%d"`, p.since)
	}
	path := fmt.Sprintf("%s?_since=%d&_sort=last_modified&_limit=%d", recordsPath, p.since, pollLimit)
	for range pollPages {
		p.next++
		n := p.nodes[p.next%len(p.nodes)]
		a := send(n, &request{method: http.MethodGet, path: path, header: header, user: owner}, p.patience)
		delete(header, "If-None-Match")
		if !a.decided() {
			return false
		}
		if len(out.Pages) == 0 {
			out.Status, out.ETag = a.status, a.etag
		}
		page := checker.Page{Node: n.Name, Revision: a.revision}
		if a.status == http.StatusOK {
			var err error
			if page.Entries, err = many(a.body); err != nil {
				return false
			}
		}
		out.Pages = append(out.Pages, page)
		if a.next == "" {
			out.Complete = true
			break
		}
		path = a.next
	}
	out.Return = p.now()
	p.rec.Add(&checker.Line{Poll: out})
	if !out.Complete || out.Status != http.StatusOK && out.Status != http.StatusNotModified {
		return false
	}
	rest = out.ETag == p.since
	p.since = out.ETag
	return rest
}

// receiver takes the webhook's deliveries of all nodes.
type receiver struct {
	*load
	mu      sync.Mutex
	highest uint64
	broken  atomic.Int32 // status to answer with; 0: takes them
	slow    atomic.Int64 // pause before each answer, in nanoseconds
	servers []*http.Server
}

// listen opens the receiver where the node runs and returns its URL.
func (r *receiver) listen(n *testcluster.Node, port int) (string, error) {
	l, err := n.Listen(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: 10 * time.Second}
	r.servers = append(r.servers, s)
	go func() { _ = s.Serve(l) }()
	return "http://" + l.Addr().String() + hookPath, nil
}

func (r *receiver) close() {
	for _, s := range r.servers {
		_ = s.Close()
	}
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	var b struct {
		Action     string `json:"action"`
		Resource   string `json:"resource_name"`
		Bucket     string `json:"bucket_id"`
		Collection string `json:"collection_id"`
		Revision   uint64 `json:"revision"`
		Impacted   []struct {
			New record `json:"new"`
		} `json:"impacted_objects"`
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(body, &b)
	}
	if err != nil || b.Revision == 0 {
		http.Error(w, "not a delivery", http.StatusBadRequest)
		return
	}
	time.Sleep(time.Duration(r.slow.Load()))
	if code := r.broken.Load(); code != 0 {
		w.WriteHeader(int(code))
		return
	}
	h := &checker.Hook{At: r.now(), ID: req.Header.Get("webhook-id"), Revision: b.Revision, Action: b.Action, Lane: b.Bucket + "/" + b.Collection}
	if b.Resource == "record" && len(b.Impacted) > 0 {
		h.Value = b.Impacted[0].New.value()
	}
	r.rec.Add(&checker.Line{Hook: h})
	r.mu.Lock()
	r.highest = max(r.highest, b.Revision)
	r.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// caughtUp waits until a revision was delivered.
func (r *receiver) caughtUp(ctx context.Context, revision uint64) error {
	for {
		r.mu.Lock()
		highest := r.highest
		r.mu.Unlock()
		if highest >= revision {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("deliveries end at revision %d of %d", highest, revision)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// final reads the whole collection through one node.
func (l *load) final(n *testcluster.Node) (*checker.Final, error) {
	f := &checker.Final{Node: n.Name}
	path := recordsPath + "?_sort=last_modified&_limit=5000"
	for range pollPages {
		a := send(n, &request{method: http.MethodGet, path: path, user: owner}, 10*time.Second)
		if a.err != nil || a.status != http.StatusOK {
			return nil, fmt.Errorf("final list of %s: %d %.200s: %w", n.Name, a.status, a.body, errors.Join(a.err, errUnread))
		}
		values, err := many(a.body)
		if err != nil {
			return nil, err
		}
		if f.Revision == 0 {
			f.Revision, f.ETag = a.revision, a.etag
		}
		f.Values = append(f.Values, values...)
		if a.next == "" {
			return f, nil
		}
		path = a.next
	}
	return nil, errUnread
}

var errUnread = errors.New("the list could not be read")

// settings that every node of a run has.
func settings(hook string) []string {
	return strings.Split(`quinto.snapshot_entries = 200
quinto.trailing_entries = 50
event_listeners = hook
event_listeners.hook.use = quinto.webhook
event_listeners.hook.url = `+hook+`
event_listeners.hook.secret = `+hookSecret+`
event_listeners.hook.actions = create update delete`, "\n")
}
