// Benchlive measures the live streams of one node: memory of a stream, how long one
// write takes to reach all of them, and what idle ones cost those who write.
//
//	go run ./scripts/benchlive                 10,000 streams; writes docs/results/live.md
//	go run ./scripts/benchlive --streams 500   prints only
//
// Node and clients share the machine: what is measured holds for the two together.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What is measured, and the bounds of issue 6.
const (
	fullStreams   = 10_000
	collections   = 100 // that idle streams are spread over
	fanOuts       = 5
	rounds        = 5
	writers       = 4
	watchers      = 10 // streams on the written collection
	roundTime     = 4 * time.Second
	readyTimeout  = 60 * time.Second
	dialers       = 32
	auth          = "Basic YmVuY2g6c2VjcmV0" // bench:secret
	boundMemory   = 32 << 10
	boundFanOut   = time.Second
	boundWriters  = 1.2
	settleTimeout = 60 * time.Second
	settle        = 5 * time.Second // after streams were opened: what the requests left is collected
	clientGC      = 800             // percent: 10,000 readers share two cores with what is measured
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	binary := flag.String("quinto", "bin/quinto", "the program")
	streams := flag.Int("streams", fullStreams, "streams")
	out := flag.String("out", "", "file of the results (default: docs/results/live.md, with all streams)")
	flag.Parse()
	debug.SetGCPercent(clientGC)
	if *out == "" && *streams == fullStreams {
		*out = filepath.Join("docs", "results", "live.md")
	}
	if err := run(ctx, *binary, *streams, *out); err != nil {
		fmt.Fprintln(os.Stderr, "benchlive:", err)
		os.Exit(1)
	}
}

// node is the process that is measured.
type node struct {
	url, addr string
	cmd       *exec.Cmd
}

func start(ctx context.Context, binary, dir string, streams int) (*node, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return nil, err
	}
	ini := filepath.Join(dir, "quinto.ini")
	text := fmt.Sprintf("[server:main]\nhost = 127.0.0.1\n[app:main]\nkinto.userid_hmac_secret = bench\nmultiauth.policies = basicauth\n"+
		"quinto.limit_streams = %d\nquinto.limit_user_streams = %[1]d\n", streams+watchers)
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		return nil, err
	}
	n := &node{url: "http://" + addr + "/v1", addr: addr}
	n.cmd = exec.CommandContext(ctx, binary, "start", "--ini", ini, "--data", filepath.Join(dir, "data"), "--http", addr)
	n.cmd.Stderr = io.Discard
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(readyTimeout); ; time.Sleep(50 * time.Millisecond) {
		if n.send("PUT", "/buckets/b", "") == nil {
			return n, nil
		}
		if time.Now().After(end) {
			return nil, errors.New("the node is not ready")
		}
	}
}

// rss is the memory of the node, in bytes.
func (n *node) rss() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, errors.New("no VmRSS")
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10, err
}

func (n *node) send(method, path, body string) error {
	r, err := http.NewRequest(method, n.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", auth)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode > 299 {
		err = fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	return err
}

func collection(i int) string { return "/buckets/b/collections/c" + strconv.Itoa(i) }

// swarm is many streams of one client.
type swarm struct {
	conns []net.Conn
	got   atomic.Int64 // changes
	wg    sync.WaitGroup
}

// open opens n streams, the i-th on the collection that of(i) names.
func open(n *node, count int, of func(i int) string) (*swarm, error) {
	s := &swarm{conns: make([]net.Conn, count)}
	var next atomic.Int64
	var failed atomic.Value
	var wg sync.WaitGroup
	for range dialers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < count && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				c, err := dial(n, of(i))
				if err != nil {
					failed.Store(err)
					return
				}
				s.conns[i] = c
				s.wg.Go(func() { s.listen(c) })
			}
		})
	}
	wg.Wait()
	if err, ok := failed.Load().(error); ok {
		s.close()
		return nil, err
	}
	return s, nil
}

// dial opens a stream and returns when it is live.
func dial(n *node, path string) (net.Conn, error) {
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "GET /v1%s/records HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\nAuthorization: %s\r\n\r\n", path, n.addr, auth)
	head, b := []byte(nil), make([]byte, 1024)
	for err == nil && !bytes.Contains(head, []byte("event: start")) {
		var m int
		m, err = c.Read(b)
		head = append(head, b[:m]...)
	}
	if err != nil || !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		return nil, errors.Join(err, c.Close(), fmt.Errorf("no stream: %.300s", head))
	}
	return c, nil
}

var changeMark = []byte("event: change")

func (s *swarm) listen(c net.Conn) {
	b := make([]byte, 1024)
	for {
		n, err := c.Read(b)
		s.got.Add(int64(bytes.Count(b[:n], changeMark)))
		if err != nil {
			return
		}
	}
}

func (s *swarm) close() {
	for _, c := range s.conns {
		if c != nil {
			_ = c.Close() // nothing is left to be read
		}
	}
	s.wg.Wait()
}

// result is what one run came to.
type result struct {
	streams       int
	perStream     int64
	fanOut        []time.Duration
	without, with []time.Duration // p99 of writers, by round
}

func run(ctx context.Context, binary string, streams int, out string) error {
	dir, err := os.MkdirTemp("", "quinto-benchlive-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n, err := start(ctx, binary, dir, streams)
	if err != nil {
		return err
	}
	defer func() {
		_ = n.cmd.Process.Kill() // its folder goes with it
		_ = n.cmd.Wait()
	}()
	for i := range collections + 1 {
		if err := n.send("PUT", collection(i), ""); err != nil {
			return err
		}
	}
	r := &result{streams: streams}
	if err := r.memoryAndFanOut(n); err != nil {
		return err
	}
	for range rounds {
		if err := r.round(n); err != nil {
			return err
		}
	}
	text := r.report()
	fmt.Print(text)
	if out != "" {
		return os.WriteFile(out, []byte(text), 0o600)
	}
	return nil
}

// memoryAndFanOut has all streams on one collection.
func (r *result) memoryAndFanOut(n *node) error {
	if err := writeFor(n, time.Second, nil); err != nil { // warm
		return err
	}
	before, err := n.rss()
	if err != nil {
		return err
	}
	s, err := open(n, r.streams, func(int) string { return collection(0) })
	if err != nil {
		return err
	}
	defer s.close()
	time.Sleep(settle)
	after, err := n.rss()
	if err != nil {
		return err
	}
	r.perStream = (after - before) / int64(r.streams)
	for i := range fanOuts {
		s.got.Store(0)
		begun := time.Now()
		if err := n.send("PUT", collection(0)+"/records/fan", fmt.Sprintf(`{"data":{"n":%d}}`, i)); err != nil {
			return err
		}
		for s.got.Load() < int64(r.streams) {
			if time.Since(begun) > settleTimeout {
				return fmt.Errorf("%d of %d streams got the change", s.got.Load(), r.streams)
			}
			time.Sleep(time.Millisecond)
		}
		r.fanOut = append(r.fanOut, time.Since(begun))
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

// round writes without streams, then with idle ones and some on what is written.
func (r *result) round(n *node) error {
	p99 := func(into *[]time.Duration) error {
		var all []time.Duration
		if err := writeFor(n, roundTime, &all); err != nil {
			return err
		}
		slices.Sort(all)
		*into = append(*into, all[len(all)*99/100])
		return nil
	}
	if err := p99(&r.without); err != nil {
		return err
	}
	s, err := open(n, r.streams, func(i int) string {
		if i < watchers {
			return collection(0)
		}
		return collection(1 + i%collections)
	})
	if err != nil {
		return err
	}
	defer s.close()
	time.Sleep(settle)
	return p99(&r.with)
}

// writeFor writes records of the first collection, and notes how long each took.
func writeFor(n *node, d time.Duration, took *[]time.Duration) error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	end := time.Now().Add(d)
	for w := range writers {
		wg.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				begun := time.Now()
				err := n.send("PUT", fmt.Sprintf("%s/records/w%d-%d", collection(0), w, i%100), `{"data":{"title":"a record of some size","n":1}}`)
				mu.Lock()
				if failed = errors.Join(failed, err); took != nil {
					*took = append(*took, time.Since(begun))
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return failed
}

func median[T ~int64](in []T) T {
	sorted := slices.Sorted(slices.Values(in))
	return sorted[len(sorted)/2]
}

func verdict(ok bool) string {
	if ok {
		return "holds"
	}
	return "does not hold"
}

func (r *result) report() string {
	var ratios []int64 // thousandths
	for i := range r.with {
		ratios = append(ratios, r.with[i].Nanoseconds()*1000/r.without[i].Nanoseconds())
	}
	ratio := float64(median(ratios)) / 1000
	fan := slices.Max(r.fanOut)
	var b strings.Builder
	fmt.Fprintf(&b, "# Live streams\n\nOne node and all its clients on %d cores, %d streams of Server-Sent Events, by `make bench-live`, %s.\n\n",
		runtime.NumCPU(), r.streams, time.Now().UTC().Format("2006-01-02"))
	fmt.Fprintf(&b, "| what | measured | asked for | |\n| --- | --- | --- | --- |\n")
	fmt.Fprintf(&b, "| memory of the node for each stream | %.1f KiB | ≤ %d KiB | %s |\n", float64(r.perStream)/1024, boundMemory>>10, verdict(r.perStream <= boundMemory))
	fmt.Fprintf(&b, "| one write until all streams have it, slowest of %d | %d ms | ≤ %d ms | %s |\n", fanOuts, fan.Milliseconds(), boundFanOut.Milliseconds(), verdict(fan <= boundFanOut))
	fmt.Fprintf(&b, "| writers' p99 with %d idle streams and %d on what is written, of that without; median of %d rounds | %.2f | ≤ %.1f | %s |\n",
		r.streams-watchers, watchers, rounds, ratio, boundWriters, verdict(ratio <= boundWriters))
	fmt.Fprintf(&b, "\nThe rounds: ")
	for i := range r.with {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%.2f (%.1f ms without, %.1f ms with)", float64(ratios[i])/1000, ms(r.without[i]), ms(r.with[i]))
	}
	b.WriteString(". One write until all had it: ")
	for i, d := range r.fanOut {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d ms", d.Milliseconds())
	}
	b.WriteString(".\n")
	return b.String()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
