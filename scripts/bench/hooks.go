package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	mathrand "math/rand/v2"

	"github.com/valyala/fasthttp"

	"quinto/internal/testcluster"
)

// Bounds of the part about hooks.
const (
	hookConns   = 64
	hookSeconds = 4.0 // of a cell, at most
	hookDrain   = 30 * time.Second
	hookQuiet   = 300 * time.Millisecond // nothing comes any more: the backlog is delivered
)

// hookKinds are the collections of which one has no hook, and what the others have.
var hookKinds = [...]struct{ name, what string }{
	{"plain", "without a hook"},
	{"gated", "a gatekeeper that says yes at once"},
	{"told", "a webhook whose receiver answers at once"},
}

// hooksResult is what creates cost with trivial hooks.
type hooksResult struct {
	Rounds  int
	Seconds float64
	Cells   [len(hookKinds)][]cell
}

// hookReceiver answers 204 and counts.
type hookReceiver struct {
	server *http.Server
	url    string
	asked  atomic.Int64
}

func startReceiver() (*hookReceiver, error) {
	r := &hookReceiver{}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.url = "http://" + l.Addr().String()
	r.server = &http.Server{ReadHeaderTimeout: requestTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body) // so that the connection is used again
		r.asked.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = r.server.Serve(l) }() // ends with Close
	return r, nil
}

// quiet waits until nothing comes any more.
func (r *hookReceiver) quiet(ctx context.Context) error {
	end := time.Now().Add(hookDrain)
	for before := int64(-1); r.asked.Load() != before; {
		if ctx.Err() != nil || time.Now().After(end) {
			return errors.Join(ctx.Err(), fmt.Errorf("the webhooks of a cell are not delivered within %s", hookDrain))
		}
		before = r.asked.Load()
		time.Sleep(hookQuiet)
	}
	return nil
}

// hookSettings has a listener for each collection but the first.
func hookSettings(url string) []string {
	key := make([]byte, 32)
	rand.Read(key) // never fails: crypto/rand ends the program instead
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	all := []string{"kinto.event_listeners = gate hook"}
	for _, l := range [...]struct{ name, use, collection string }{{"gate", "quinto.gatekeeper", "gated"}, {"hook", "quinto.webhook", "told"}} {
		at := "kinto.event_listeners." + l.name + "."
		all = append(all, at+"use = "+l.use, at+"url = "+url, at+"secret = "+secret, at+"resources = record", at+"collection = "+l.collection)
	}
	return all
}

// measureHooks creates records at 64 connections on three nodes, in turn in collections without and with a hook.
func measureHooks(ctx context.Context, o options, dir string) (_ *hooksResult, err error) {
	receiver, err := startReceiver()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, receiver.server.Close()) }()
	data := filepath.Join(dir, "hooks")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	cluster, err := testcluster.New(testcluster.Options{Binary: o.quinto, Dir: data, Nodes: 3, Settings: hookSettings(receiver.url)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	if err := cluster.Start(ctx); err != nil {
		return nil, err
	}
	c := &contender{Name: "quinto"}
	for _, n := range cluster.Nodes {
		c.Addrs, c.PIDs = append(c.Addrs, n.HTTP), append(c.PIDs, n.PID())
	}
	if err := c.setUp(ctx); err != nil {
		return nil, err
	}
	h := &hooksResult{Rounds: o.rounds, Seconds: min(o.seconds, hookSeconds)}
	for _, k := range hookKinds {
		if _, _, err := c.call(ctx, http.MethodPut, bucketPath+"/collections/"+k.name, nil); err != nil {
			return nil, err
		}
	}
	for round := range o.rounds {
		for i, k := range hookKinds {
			one, err := (load{contender: c, conns: hookConns, time: time.Duration(h.Seconds * float64(time.Second)), op: createIn(k.name)}).run(ctx)
			if err != nil {
				return nil, err
			}
			if err := receiver.quiet(ctx); err != nil {
				return nil, err
			}
			h.Cells[i] = append(h.Cells[i], one)
			progress("hooks, round %d, %s: %s creates/s%s", round+1, k.what, figure(one.Rate), mishaps(one))
		}
	}
	return h, nil
}

func createIn(collection string) operation {
	bodies, uri := createBodies(), recordsOf(bucketPath+"/collections/"+collection)
	return func(r *mathrand.Rand, req *fasthttp.Request) check {
		post(req, uri, bodies[r.IntN(len(bodies))])
		return checkCreated
	}
}

// ratio is the rate with hook i by that without, of each round.
func (h *hooksResult) ratio(i int) spread {
	var values []float64
	for round, c := range h.Cells[i] {
		if plain := h.Cells[0][round].Rate; plain > 0 {
			values = append(values, c.Rate/plain)
		}
	}
	return spreadOf(values)
}

func (h *hooksResult) print(w io.Writer) {
	fmt.Fprintln(w, "| create one record, 64 connections | /s | p50 / p99 ms | CPU ms | errors | ratio of each round |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- | --- |")
	for i, k := range hookKinds {
		cells := h.Cells[i]
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | **%s** |\n", k.what, rates(cells), latencies(cells), processor(cells), failures(cells), h.ratio(i))
	}
	fmt.Fprintln(w)
}

func (d *document) hooksPart(w io.Writer) {
	fmt.Fprintf(w, "## What a trivial hook costs\n\n")
	d.head(w)
	fmt.Fprintf(w, "Three nodes, %d interleaved rounds, cells of %g s after a warm-up; medians (least..most). The receiver is in the client's program, on the same processors.\n\n", d.Hooks.Rounds, d.Hooks.Seconds)
	d.Hooks.print(w)
}
