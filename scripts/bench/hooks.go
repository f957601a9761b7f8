package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	mathrand "math/rand/v2"

	"github.com/valyala/fasthttp"

	"quinto/internal/testcluster"
)

// Bounds of the part about hooks.
const (
	hookConns   = 64
	hookSeconds = 4.0 // of a cell, at most
	hookDrain   = 60 * time.Second
	hookPoll    = 300 * time.Millisecond
)

// hookKinds are the collections of which one has no hook, and what the others have: a
// listener with these settings beside the collection's.
var hookKinds = [...]struct {
	name, what, use string
	calls           bool // the receiver
	more            string
}{
	{"plain", "without a hook", "", false, ""},
	{"checked", "a hook in Go (`BeforeCommit`) that lets it pass", "bench.hook", false, ""},
	{"gated", "a gatekeeper that says yes at once", "quinto.gatekeeper", true, ""},
	{"noted", "a notifier in Go that does nothing", "bench.notifier", false, ""},
	{"told", "a webhook whose receiver answers at once", "quinto.webhook", true, ""},
	{"run", "a program for each change (`quinto.exec`, `/bin/true`)", "quinto.exec", false, "command = /bin/true"},
}

// hooksResult is what creates cost with trivial hooks.
type hooksResult struct {
	Rounds  int
	Seconds float64
	Cells   [len(hookKinds)][]cell
}

// hookReceiver answers 204.
type hookReceiver struct {
	server *http.Server
	url    string
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
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = r.server.Serve(l) }() // ends with Close
	return r, nil
}

// drained waits until all notifiers have delivered everything.
func drained(ctx context.Context, binary string, c *testcluster.Cluster) error {
	for end := time.Now().Add(hookDrain); ; time.Sleep(hookPoll) {
		var a struct{ Listeners []struct{ Lag uint64 } }
		out, err := exec.CommandContext(ctx, binary, "hooks", "list", "--json", "--ini", c.INI, "--data", c.Nodes[0].Dir).Output()
		if err == nil {
			err = json.Unmarshal(out, &a)
		}
		behind := uint64(0)
		for _, l := range a.Listeners {
			behind = max(behind, l.Lag)
		}
		if err == nil && behind == 0 {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return errors.Join(ctx.Err(), err, fmt.Errorf("what a cell has changed is not delivered within %s: %d to go", hookDrain, behind))
		}
	}
}

// hookSettings has a listener for each collection but the first.
func hookSettings(url string) []string {
	key := make([]byte, 32)
	rand.Read(key) // never fails: crypto/rand ends the program instead
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	names, all := "", []string(nil)
	for _, k := range hookKinds[1:] {
		names += " " + k.name
		at := "kinto.event_listeners." + k.name + "."
		all = append(all, at+"use = "+k.use, at+"collection = "+k.name, at+"resources = record")
		if k.calls {
			all = append(all, at+"url = "+url, at+"secret = "+secret)
		}
		if k.more != "" {
			all = append(all, at+k.more)
		}
	}
	return append(all, "kinto.event_listeners ="+names)
}

// buildTrivial makes the binary that has the hooks in Go, from this checkout.
func buildTrivial(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "trivial")
	if said, err := exec.CommandContext(ctx, "go", "build", "-o", out, "./scripts/benchhooks").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build of scripts/benchhooks: %w: %s", err, said)
	}
	return out, nil
}

// measureHooks creates records at 64 connections on three nodes, in turn in collections without and with a hook.
func measureHooks(ctx context.Context, o options, dir string) (_ *hooksResult, err error) {
	receiver, err := startReceiver()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, receiver.server.Close()) }()
	binary, err := buildTrivial(ctx, dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "hooks")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	cluster, err := testcluster.New(testcluster.Options{Binary: binary, Dir: data, Nodes: 3, Settings: hookSettings(receiver.url)})
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
			if err := drained(ctx, binary, cluster); err != nil {
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
	fmt.Fprintf(w, "Three nodes, %d interleaved rounds, cells of %g s after a warm-up; medians (least..most). The receiver is in the client's program, on the same processors. All run in a binary with two plugins more (`scripts/benchhooks`).\n\n", d.Hooks.Rounds, d.Hooks.Seconds)
	d.Hooks.print(w)
}
