package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quinto/internal/checker"
	"quinto/internal/clients"
	"quinto/internal/testcluster"
)

const (
	hookPath   = "/changes"
	hookPort   = 9900
	hookSecret = "whsec_dGhpcyBpcyBhIHNlY3JldCBvZiB0aGUgdGVzdHMu"
)

// receiver takes the webhook's deliveries of all nodes.
type receiver struct {
	*clients.Load
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
			New clients.Record `json:"new"`
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
	h := &checker.Hook{At: r.Now(), ID: req.Header.Get("webhook-id"), Revision: b.Revision, Action: b.Action, Lane: b.Bucket + "/" + b.Collection}
	if b.Resource == "record" && len(b.Impacted) > 0 {
		h.Value = b.Impacted[0].New.Value()
	}
	r.Add(&checker.Line{Hook: h})
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
