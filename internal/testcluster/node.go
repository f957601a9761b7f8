package testcluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Node is one quinto process.
type Node struct {
	Name    string
	Dir     string
	HTTP    string // host:port of the public API
	Peer    string // host:port of the cluster port
	Gossip  string // host:port of gossip
	Binary  string // of this node from its next start on; empty: the cluster's
	cluster *Cluster
	host    host // nil: loopback
	place   atomic.Pointer[place]
	process atomic.Pointer[process] // the last one; nil before the first; others ask while it is replaced
	paused  atomic.Bool
}

type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed behind its end
}

// Status is what `quinto cluster status --json` prints.
type Status struct {
	Leader   string   `json:"leader"`
	Term     uint64   `json:"term"`
	Revision uint64   `json:"revision"`
	Members  []Member `json:"members"`
}

// Member is one row of Status.
type Member struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Suffrage string `json:"suffrage"`
	HTTP     string `json:"http"`
	Cluster  string `json:"cluster"`
	Revision uint64 `json:"revision"`
	Lag      uint64 `json:"lag"`
	Ready    bool   `json:"ready"`
}

// Start starts the process; it returns before the node serves.
func (n *Node) Start(flags ...string) error {
	if n.Running() {
		return fmt.Errorf("testcluster: %s is running", n.Name)
	}
	logFile, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	args := []string{"start", "--ini", n.cluster.INI, "--data", n.Dir, "--http", n.HTTP}
	if len(n.cluster.Nodes) > 1 {
		args = append(args, "--cluster", n.Peer, "--gossip", n.Gossip, "--name", n.Name, "--join", n.seeds())
		if n.cluster.opt.Nodes > 1 && n.original() {
			args = append(args, "--expect", strconv.Itoa(n.cluster.opt.Nodes))
		}
	}
	args = append(append(args, n.cluster.opt.Flags...), flags...)
	if n.cluster.opt.NodeFlags != nil {
		args = append(args, n.cluster.opt.NodeFlags(n)...)
	}
	p := &process{exec.Command(cmp.Or(n.Binary, n.cluster.opt.Binary), args...), make(chan struct{})}
	p.cmd.Dir = n.cluster.opt.WorkDir
	p.cmd.Env = append(os.Environ(), n.cluster.opt.Env...)
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	if err := n.run(p.cmd); err != nil {
		return err
	}
	n.paused.Store(false)
	n.process.Store(p)
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return nil
}

// original says whether the node belongs to the set that forms the cluster.
func (n *Node) original() bool {
	for i, o := range n.cluster.Nodes {
		if o == n {
			return i < n.cluster.opt.Nodes
		}
	}
	return false
}

func (n *Node) seeds() string {
	var out []string
	for _, o := range n.cluster.Nodes {
		if o != n {
			out = append(out, o.Gossip)
		}
	}
	return strings.Join(out, ",")
}

// LogFile is where the process writes its standard output and error.
func (n *Node) LogFile() string { return filepath.Join(n.cluster.opt.Dir, n.Name+".log") }

// Log returns what the process wrote so far.
func (n *Node) Log() string {
	b, _ := os.ReadFile(n.LogFile())
	return string(b)
}

// PID of the process, for measurements.
func (n *Node) PID() int { return n.process.Load().cmd.Process.Pid }

// Running reports whether the process lives (a paused one does).
func (n *Node) Running() bool {
	p := n.process.Load()
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// ExitCode of a process that has ended; -1 while it runs, before the first one,
// and when a signal ended it.
func (n *Node) ExitCode() int {
	p := n.process.Load()
	if p == nil || n.Running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends the process with SIGKILL and waits for its end.
func (n *Node) Kill() error { return n.end(syscall.SIGKILL, time.Minute) }

// Stop ends the process with SIGTERM, as an operator does.
func (n *Node) Stop() error { return n.end(syscall.SIGTERM, time.Minute) }

func (n *Node) end(sig syscall.Signal, limit time.Duration) error {
	if !n.Running() {
		return nil
	}
	if n.paused.Load() && sig != syscall.SIGKILL {
		_ = n.Resume()
	}
	p := n.process.Load()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(limit):
		_ = p.cmd.Process.Kill()
		return fmt.Errorf("testcluster: %s did not end within %s of %s", n.Name, limit, sig)
	}
}

// Pause stops the process with SIGSTOP: alive for the kernel, dead for peers.
func (n *Node) Pause() error {
	n.paused.Store(true)
	return n.process.Load().cmd.Process.Signal(syscall.SIGSTOP)
}

// Resume lets a paused process go on.
func (n *Node) Resume() error {
	n.paused.Store(false)
	return n.process.Load().cmd.Process.Signal(syscall.SIGCONT)
}

// URL of a path below the API's version prefix: URL("/buckets").
func (n *Node) URL(path string) string {
	scheme := "http://"
	if n.cluster.opt.HTTPS {
		scheme = "https://"
	}
	return scheme + n.place.Load().http + "/v1" + path
}

// WaitReady waits until the node answers a linearizable read.
func (n *Node) WaitReady(ctx context.Context) error {
	var last error
	for {
		if !n.Running() {
			return fmt.Errorf("testcluster: %s ended at its start:\n%s", n.Name, n.Log())
		}
		code, _, err := n.Do(ctx, http.MethodHead, "/buckets/testcluster-ready", nil, nil)
		if err == nil && code < 500 {
			return nil
		}
		last = errors.Join(err, fmt.Errorf("status %d", code))
		if sleep(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("testcluster: %s not ready: %w\n%s", n.Name, last, n.Log())
		}
	}
}

// Do sends one request as the user "tester" and returns status and body.
func (n *Node) Do(ctx context.Context, method, path string, body []byte, header map[string]string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, n.URL(path), bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.SetBasicAuth("tester", "tester")
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := n.Client().Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return resp.StatusCode, b, err
}

// askLimit is how long Ask goes on.
const askLimit = 30 * time.Second

// Ask is Do for a client that does what Retry-After says: it asks again while the
// answer is 503, since a cluster on a busy machine may elect another leader at any
// moment. It returns the last answer after half a minute, or when ctx ends.
func (n *Node) Ask(ctx context.Context, method, path string, body []byte, header map[string]string) (int, []byte, error) {
	for end := time.Now().Add(askLimit); ; {
		code, answer, err := n.Do(ctx, method, path, body, header)
		if err != nil || code != http.StatusServiceUnavailable || time.Now().After(end) || sleep(ctx, 100*time.Millisecond) != nil {
			return code, answer, err
		}
	}
}

// Status asks the node for the state of the cluster.
func (n *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, n.get(ctx, "/__cluster__", &s)
}

// Hash is the content of one node in two digests, as /__cluster__/hash gives it.
type Hash struct {
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`
	Applied  uint64 `json:"applied"` // index of the last log entry in it
	State    string `json:"state"`
	Full     string `json:"full"`
}

// Hash asks the node for the digests of its own state, once it has applied
// revision.
func (n *Node) Hash(ctx context.Context, revision uint64) (Hash, error) {
	var h Hash
	return h, n.get(ctx, "/__cluster__/hash?revision="+strconv.FormatUint(revision, 10), &h)
}

func (n *Node) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	code, body, err := n.Ask(ctx, http.MethodGet, path, nil, nil)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", path, code, body)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}
