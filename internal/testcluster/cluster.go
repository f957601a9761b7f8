// Package testcluster runs real quinto processes on loopback: for the fault
// tests, the conformance run on three nodes and the benchmarks. Every process
// is ended by its own id.
package testcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a cluster. The zero value is a lone node without further settings.
type Options struct {
	Binary   string   // path of quinto; empty: $QUINTO_BIN
	Dir      string   // data of all nodes and their logs; must exist
	WorkDir  string   // where the processes run; empty: where this one does
	Nodes    int      // 1 when 0
	Settings []string // further lines of [app:main]
	Flags    []string // further flags of `quinto start`
	Env      []string // further environment, as NAME=value
	Network  *Network // a namespace for each node; nil: all on loopback
	HTTPS    bool     // Flags or NodeFlags make the public port HTTPS
	// NodeFlags are further flags of one node; nil: none.
	NodeFlags func(n *Node) []string
}

// Cluster is a set of nodes that share an INI file.
type Cluster struct {
	Nodes []*Node // Add appends; a load beside it asks all
	INI   string
	opt   Options
	mu    sync.Mutex
}

// all returns the nodes, to a goroutine beside that of the test.
func (c *Cluster) all() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Nodes
}

// Secret is the userid_hmac_secret of every test cluster.
const Secret = "a secret of the tests, of no worth"

// New writes the INI file and plans the nodes; none is started yet.
func New(opt Options) (*Cluster, error) {
	if opt.Binary == "" {
		opt.Binary = os.Getenv("QUINTO_BIN")
	}
	if opt.Binary == "" {
		return nil, errors.New("testcluster: no binary: set Options.Binary or QUINTO_BIN")
	}
	opt.Nodes = max(opt.Nodes, 1)
	c := &Cluster{opt: opt, INI: filepath.Join(opt.Dir, "quinto.ini")}
	lines := append([]string{
		"[server:main]", "host = 127.0.0.1", "[app:main]", "use = egg:kinto",
		"kinto.userid_hmac_secret = " + Secret,
		"multiauth.policies = basicauth",
		"multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy",
	}, opt.Settings...)
	if err := os.WriteFile(c.INI, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	for i := 1; i <= opt.Nodes; i++ {
		if _, err := c.Add(fmt.Sprintf("n%d", i)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Add plans one more node under this name, with an empty directory of its own.
func (c *Cluster) Add(name string) (*Node, error) {
	n := &Node{Name: name, cluster: c}
	if err := n.settle(); err != nil {
		return nil, err
	}
	n.Dir = filepath.Join(c.opt.Dir, fmt.Sprintf("%s-%d", name, len(c.Nodes)))
	c.mu.Lock()
	c.Nodes = append(c.Nodes, n)
	c.mu.Unlock()
	return n, os.MkdirAll(n.Dir, 0o700)
}

// Start starts every node and waits until all serve.
func (c *Cluster) Start(ctx context.Context) error {
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx, c.Nodes...)
}

// WaitReady waits until each of these nodes answers a linearizable read.
func (c *Cluster) WaitReady(ctx context.Context, nodes ...*Node) error {
	for _, n := range nodes {
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Leader asks every running node and returns the one that leads; it waits for
// one as long as ctx lasts.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	for {
		for _, n := range c.Nodes {
			if !n.Running() || n.paused.Load() {
				continue
			}
			s, err := n.Status(ctx)
			if err != nil {
				continue
			}
			for _, l := range c.Nodes {
				if l.Name == s.Leader && l.Running() && !l.paused.Load() {
					return l, nil
				}
			}
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, errors.New("testcluster: no leader in time")
		}
	}
}

// WaitVoter waits until the cluster counts on a member's vote and it serves.
func (c *Cluster) WaitVoter(ctx context.Context, name string) error {
	for {
		for _, n := range c.Nodes {
			if !n.Running() || n.paused.Load() {
				continue
			}
			s, err := n.Status(ctx)
			if err == nil && slices.ContainsFunc(s.Members, func(m Member) bool { return m.Name == name && m.Suffrage == "voter" && m.Ready }) {
				return nil
			}
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("testcluster: %s has no vote in time", name)
		}
	}
}

// Followers returns the running nodes but the leader.
func (c *Cluster) Followers(ctx context.Context) ([]*Node, error) {
	l, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	var out []*Node
	for _, n := range c.Nodes {
		if n != l && n.Running() {
			out = append(out, n)
		}
	}
	return out, nil
}

// Close ends every process.
func (c *Cluster) Close() error {
	var wg sync.WaitGroup
	errs := make([]error, len(c.Nodes))
	for i, n := range c.Nodes {
		wg.Go(func() { errs[i] = n.Kill() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Build compiles quinto into dir, with further flags of go build, and returns the
// path of the binary.
func Build(ctx context.Context, dir string, flags ...string) (string, error) {
	out := filepath.Join(dir, "quinto")
	args := append(append([]string{"build"}, flags...), "-o", out, "quinto/cmd/quinto")
	cmd := exec.CommandContext(ctx, "go", args...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, text)
	}
	return out, nil
}
