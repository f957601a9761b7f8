package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"quinto/internal/checker"
	"quinto/internal/clients"
	"quinto/internal/testcluster"
)

// The load: enough that requests meet, little enough for porcupine.
func loadOptions(seed uint64, start time.Time, rec *checker.Recorder) clients.Options {
	return clients.Options{
		Seed: seed, Start: start, Add: rec.Add,
		Writers: 8, Pollers: 4, Hot: 10, Cold: 1000, PageEntries: 40,
		Pause:      40 * time.Millisecond, // 200 op/s in all
		RetryPause: 30 * time.Millisecond, PollPause: 150 * time.Millisecond, KeyedLimit: 20 * time.Second,
		Impatient: 800 * time.Millisecond, Patient: 4 * time.Second,
	}
}

// httpNode is a process as the clients reach it.
type httpNode struct{ *testcluster.Node }

func httpNodes(nodes []*testcluster.Node) []clients.Node {
	var all []clients.Node
	for _, n := range nodes {
		all = append(all, httpNode{n})
	}
	return all
}

// Name implements clients.Node.
func (n httpNode) Name() string { return n.Node.Name }

// Send implements clients.Node.
func (n httpNode) Send(ctx context.Context, r *clients.Request) clients.Answer {
	req, err := http.NewRequestWithContext(ctx, r.Method, n.URL(r.Path), bytes.NewReader(r.Body))
	if err != nil {
		return clients.Answer{Err: err}
	}
	req.SetBasicAuth(r.User, r.User)
	if len(r.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	resp, err := n.Client().Do(req)
	if err != nil {
		var op *net.OpError
		return clients.Answer{Err: err, Sent: !errors.As(err, &op) || op.Op != "dial"}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	a := clients.NewAnswer(resp.StatusCode, resp.Header.Get, body)
	a.Err = err
	return a
}

// send makes one try at one node.
func send(n *testcluster.Node, r *clients.Request, limit time.Duration) clients.Answer {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return httpNode{n}.Send(ctx, r)
}
