// Command slow measures what slow and silent connections cost everybody else: the
// latency of a few honest clients without and with thousands of connections that
// send a byte now and then, on each port of a cluster of three.
//
//	go run ./scripts/slow [-connections 2000] [-seconds 4] [-rounds 5] [-only EXPRESSION] [-out FILE]
//
// QUINTO_BIN names the binary. Rounds with and without alternate, so that the
// machine's other work falls on both. The exit code is 1 if the median ratio of the
// p99s is 2 or more, or an honest request failed.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"quinto/internal/certs"
	"quinto/internal/testcluster"
)

const (
	clients  = 8
	maxRatio = 2.0
	drip     = 2 * time.Second // between two bytes of a slow connection
	comeBack = 5 * time.Second // after the server has closed one
	warmUp   = 2 * time.Second
	settle   = time.Second     // a flood stands before it is measured
	standing = 5 * time.Second // that handshakes have
)

// flood is a way to be slow on a port.
type flood struct {
	name   string
	addr   func(n *testcluster.Node) string
	head   string // sent at once; afterwards a byte each drip
	next   string
	secure bool // behind a handshake of TLS
}

var floods = []flood{
	{name: "HTTP, a header that never ends", addr: public, head: header, next: "a"},
	{name: "HTTP, a body that never ends", addr: public,
		head: "POST /v1/buckets HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{", next: " "},
	{name: "HTTP, a body of 4 MiB that never ends", addr: public,
		head: "POST /v1/buckets HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4194304\r\n\r\n{", next: " "},
	{name: "HTTP, nothing at all", addr: public},
	{name: "cluster port, half a preamble", addr: func(n *testcluster.Node) string { return n.Peer }, head: "QNTO", next: "\x01"},
	{name: "gossip port, half a message", addr: func(n *testcluster.Node) string { return n.Gossip }, head: "\x06"},
}

// secureFloods are those of a cluster whose ports are all TLS, the public one too.
var secureFloods = []flood{
	{name: "HTTPS, no handshake", addr: public},
	{name: "HTTPS, half a handshake", addr: public, head: "\x16\x03\x01\x02\x00\x01\x00\x01", next: "\xfc"},
	{name: "HTTPS, a header that never ends", addr: public, head: header, next: "a", secure: true},
	{name: "cluster port with TLS, half a handshake", addr: func(n *testcluster.Node) string { return n.Peer }, head: "\x16\x03\x01\x02\x00\x01\x00\x01", next: "\xfc"},
}

const header = "GET /v1/ HTTP/1.1\r\nHost: x\r\nX-A: "

func public(n *testcluster.Node) string { return n.HTTP }

// insecure believes any certificate: it is not what is tried here.
var insecure = &tls.Config{InsecureSkipVerify: true}

func main() {
	connections := flag.Int("connections", 2000, "slow connections at a time")
	seconds := flag.Int("seconds", 4, "length of a measurement")
	rounds := flag.Int("rounds", 5, "measurements with and without, for each way to be slow")
	only := flag.String("only", "", "ways to be slow whose names match this expression")
	out := flag.String("out", "", "write the table to this file too")
	flag.Parse()
	t := http.DefaultTransport.(*http.Transport)
	t.MaxIdleConnsPerHost = clients // else they dial anew all the time
	t.TLSClientConfig = insecure
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	pick, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "slow:", err)
		os.Exit(2)
	}
	bad, err := run(ctx, pick, *connections, *rounds, time.Duration(*seconds)*time.Second, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "slow:", err)
	}
	if bad || err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, only *regexp.Regexp, connections, rounds int, length time.Duration, out string) (bad bool, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Slow connections\n\nMade by `make slow`: %d slow connections on one node of three, %d honest clients that read and write through all three; "+
		"%d rounds with and without in turn, %s each; %d processors, load average at the start %s. A slow connection sends a byte every %s; one that the server closes comes again after %s.\n\n"+
		"| slow connections | p50 without | p50 with | p99 without | p99 with | ratio of p99s, median of the rounds | requests | failed |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
		connections, clients, rounds, length, runtime.NumCPU(), loadAverage(), drip, comeBack)
	for _, secure := range []bool{false, true} {
		rows, over, err := against(ctx, secure, only, func(c *testcluster.Cluster, f flood) (string, float64, int, error) {
			return compare(ctx, c, f, connections, rounds, length)
		})
		if err != nil {
			return true, err
		}
		bad = bad || over
		b.WriteString(rows)
	}
	b.WriteString("\nThe bar is a ratio below 2. Beyond it `make slow` fails.\n")
	if out != "" {
		err = os.WriteFile(out, []byte(b.String()), 0o644)
	}
	return bad, err
}

// against starts a cluster, with TLS or without, and tries each flood that it knows on it.
func against(ctx context.Context, secure bool, only *regexp.Regexp, try func(*testcluster.Cluster, flood) (string, float64, int, error)) (rows string, bad bool, err error) {
	dir, err := os.MkdirTemp("", "quinto-slow")
	if err != nil {
		return "", true, err
	}
	defer os.RemoveAll(dir)
	o, all := testcluster.Options{Dir: dir, Nodes: 3}, floods
	if secure {
		all = secureFloods
	}
	if all = slices.DeleteFunc(slices.Clone(all), func(f flood) bool { return !only.MatchString(f.name) }); len(all) == 0 {
		return "", false, nil
	}
	if secure {
		if err := protect(&o); err != nil {
			return "", true, err
		}
	}
	c, err := testcluster.New(o)
	if err != nil {
		return "", true, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Start(ctx); err != nil {
		return "", true, err
	}
	for _, path := range []string{"/buckets/slow", "/buckets/slow/collections/c"} {
		if code, body, err := c.Nodes[0].Do(ctx, http.MethodPut, path, nil, nil); err != nil || code >= 300 {
			return "", true, fmt.Errorf("%s: %d %s %w", path, code, body, err)
		}
	}
	if _, _, err := measure(ctx, c, warmUp); err != nil {
		return "", true, err
	}
	for _, f := range all {
		row, ratio, failed, err := try(c, f)
		if err != nil {
			return rows, true, err
		}
		bad = bad || ratio >= maxRatio || failed > 0
		fmt.Println(row)
		rows += row + "\n"
	}
	return rows, bad, nil
}

// protect gives each node of o certificates of a new authority, for all ports.
func protect(o *testcluster.Options) error {
	file := func(name string) string { return filepath.Join(o.Dir, "certs", name) }
	if _, err := certs.InitCA(filepath.Join(o.Dir, "certs"), 1); err != nil {
		return err
	}
	for i := range o.Nodes {
		if _, err := certs.IssueNode(filepath.Join(o.Dir, "certs"), certs.NodeRequest{Name: fmt.Sprintf("n%d", i+1), Addresses: []string{"127.0.0.1"}, Days: 1}); err != nil {
			return err
		}
	}
	o.HTTPS = true
	o.NodeFlags = func(n *testcluster.Node) []string {
		cert, key := file(n.Name+".pem"), file(n.Name+".key")
		return []string{"--cluster-tls-ca", file("ca.pem"), "--cluster-tls-cert", cert, "--cluster-tls-key", key, "--http-tls-cert", cert, "--http-tls-key", key}
	}
	return nil
}

// compare measures rounds without and with f and returns a row of the table.
func compare(ctx context.Context, c *testcluster.Cluster, f flood, connections, rounds int, length time.Duration) (row string, ratio float64, failed int, err error) {
	var without, with []time.Duration
	var ratios []float64
	for range rounds {
		a, bad, err := measure(ctx, c, length)
		if err != nil {
			return "", 0, 0, err
		}
		failed += bad
		held, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		var open atomic.Int64
		for range connections {
			wg.Go(func() { f.hold(held, f.addr(c.Nodes[0]), &open) })
		}
		// Handshakes are a flood; what stands afterwards is slow.
		for end := time.Now().Add(standing); f.secure && open.Load() < int64(connections) && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(settle)
		b, bad, err := measure(ctx, c, length)
		stood := open.Load()
		cancel()
		wg.Wait()
		if err != nil {
			return "", 0, 0, err
		}
		failed += bad
		ratios = append(ratios, float64(quantile(b, 99))/float64(quantile(a, 99)))
		without, with = append(without, a...), append(with, b...)
		fmt.Fprintf(os.Stderr, "%s: p99 %s without, %s with %d open\n", f.name, quantile(a, 99), quantile(b, 99), stood)
	}
	slices.Sort(ratios)
	ratio = (ratios[(len(ratios)-1)/2] + ratios[len(ratios)/2]) / 2
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
	row = fmt.Sprintf("| %s | %s | %s | %s | %s | %.2f | %d | %d |", f.name, ms(quantile(without, 50)), ms(quantile(with, 50)),
		ms(quantile(without, 99)), ms(quantile(with, 99)), ratio, len(without)+len(with), failed)
	return row, ratio, failed, nil
}

// hold keeps one slow connection open until ctx ends, and makes a new one a while
// after it was closed: one that came at once would be a flood, and not slow.
func (f flood) hold(ctx context.Context, addr string, open *atomic.Int64) {
	var d net.Dialer
	for ctx.Err() == nil {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if f.secure && err == nil {
			secure := tls.Client(conn, insecure)
			if err = secure.HandshakeContext(ctx); err != nil {
				_ = conn.Close()
			}
			conn = secure
		}
		if err == nil {
			open.Add(1)
			f.trickle(ctx, conn)
			open.Add(-1)
			_ = conn.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(comeBack):
		}
	}
}

// trickle sends a byte each drip until the other side closes or ctx ends.
func (f flood) trickle(ctx context.Context, conn net.Conn) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = conn.Read(make([]byte, 1))
	}()
	_, err := conn.Write([]byte(f.head))
	tick := time.NewTicker(drip)
	defer tick.Stop()
	for err == nil {
		select {
		case <-ctx.Done():
			return
		case <-closed:
			return
		case <-tick.C:
			_, err = conn.Write([]byte(f.next))
		}
	}
}

// measure lets honest clients work for a while and returns their latencies, sorted.
func measure(ctx context.Context, c *testcluster.Cluster, length time.Duration) (all []time.Duration, failed int, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(length)
	for i := range clients {
		wg.Go(func() {
			var mine []time.Duration
			bad := 0
			for j := 0; time.Now().Before(end) && ctx.Err() == nil; j++ {
				n := c.Nodes[(i+j)%len(c.Nodes)]
				method, body := http.MethodGet, []byte(nil)
				if j == 0 || j%4 == 0 {
					method, body = http.MethodPut, []byte(`{"data":{"x":1}}`)
				}
				path := fmt.Sprintf("/buckets/slow/collections/c/records/r%d", i)
				begun := time.Now()
				code, _, err := n.Do(ctx, method, path, body, nil)
				if mine = append(mine, time.Since(begun)); (err != nil || code >= 300) && ctx.Err() == nil {
					bad++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, mine...), failed+bad
		})
	}
	wg.Wait()
	slices.Sort(all)
	if len(all) == 0 {
		return nil, failed, errors.New("nothing measured")
	}
	return all, failed, ctx.Err()
}

// loadAverage is the machine's of the last minute, as the kernel writes it.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// quantile returns the p-th percentile.
func quantile(all []time.Duration, p int) time.Duration {
	if !slices.IsSorted(all) {
		slices.Sort(all)
	}
	return all[min(len(all)*p/100, len(all)-1)]
}
