// Command upgrade replaces the binary of a running cluster of three node by node, the
// leader last, while clients write, and judges what they saw. The old binary is that
// of the last tag, else of the commit in scripts/upgrade/REFERENCE.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quinto/internal/testcluster"
)

const (
	referenceFile = "scripts/upgrade/REFERENCE"
	workers       = 4
	before        = 1500 * time.Millisecond // of load, before a node is replaced
	// outageLimit is what a planned handover may cost at most: a failover's bound. The
	// small form runs wherever CI does, also beside others on slow machines.
	outageLimit, outageLimitSmall = 3 * time.Second, 10 * time.Second
)

func main() {
	newer := flag.String("quinto", os.Getenv("QUINTO_BIN"), "the new binary; empty: it is built")
	older := flag.String("old", "", "the old binary; empty: it is built from the reference")
	out := flag.String("out", "", "write a page of Markdown to `FILE`")
	small := flag.Bool("small", false, "forth only, and nothing at all when the reference is not in this clone")
	limit := flag.Duration("limit", 10*time.Minute, "for all of it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	err := run(ctx, *newer, *older, *out, *small)
	if *small && errors.Is(err, errNoReference) {
		fmt.Println("SKIPPED:", err)
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		os.Exit(1)
	}
}

// errNoReference is returned when the clone does not reach back to the reference.
var errNoReference = errors.New("not in this clone")

func run(ctx context.Context, newer, older, out string, small bool) (err error) {
	dir, err := os.MkdirTemp("", "quinto-upgrade")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	name := "the given binary"
	if older == "" {
		if name, older, err = buildReference(ctx, dir); err != nil {
			return err
		}
	}
	if newer == "" {
		if newer, err = testcluster.Build(ctx, dir); err != nil {
			return err
		}
	}
	c, err := testcluster.New(testcluster.Options{Binary: older, Dir: dir, Nodes: 3, Settings: []string{
		"quinto.snapshot_entries = 200", "quinto.trailing_entries = 50",
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	u := &upgrade{cluster: c, small: small}
	if err := u.all(ctx, older, newer); err != nil {
		for _, n := range c.Nodes {
			log := n.Log()
			fmt.Fprintf(os.Stderr, "%s:\n%s\n", n.Name, log[max(0, len(log)-2000):])
		}
		return err
	}
	if out != "" {
		return os.WriteFile(out, []byte(u.page(name)), 0o644)
	}
	return nil
}

// buildReference builds the old binary beside the present one.
func buildReference(ctx context.Context, dir string) (name, binary string, err error) {
	git := func(args ...string) (string, error) {
		text, err := exec.CommandContext(ctx, "git", args...).Output()
		return strings.TrimSpace(string(text)), err
	}
	name, err = git("describe", "--tags", "--abbrev=0")
	if err != nil { // no tag yet
		text, err := os.ReadFile(referenceFile)
		if err != nil {
			return "", "", err
		}
		name = strings.TrimSpace(string(text))
	}
	if _, err := git("cat-file", "-e", name+"^{commit}"); err != nil {
		return "", "", fmt.Errorf("the reference %s: %w (is it shallow?)", name, errNoReference)
	}
	tree := filepath.Join(dir, "reference")
	if _, err := git("worktree", "add", "--detach", tree, name); err != nil {
		return "", "", fmt.Errorf("the reference %s: %w", name, err)
	}
	defer func() {
		_, removed := git("worktree", "remove", "--force", tree)
		err = errors.Join(err, removed)
	}()
	binary = filepath.Join(dir, "quinto-old")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-o", binary, "./cmd/quinto")
	build.Dir = tree
	if text, err := build.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build of %s: %w\n%s", name, err, text)
	}
	return name[:min(len(name), 12)], binary, nil
}

// upgrade is one run; rows is what each step showed.
type upgrade struct {
	cluster *testcluster.Cluster
	small   bool
	rows    []string
}

func (u *upgrade) all(ctx context.Context, older, newer string) error {
	if err := u.cluster.Start(ctx); err != nil {
		return err
	}
	for i := range u.cluster.Nodes {
		n, role, err := u.next(ctx, newer)
		if err == nil {
			err = u.step(ctx, fmt.Sprintf("new%d", i), fmt.Sprintf("%s: the %s gets the new binary", n.Name, role), n, newer)
		}
		if err != nil {
			return err
		}
	}
	if u.small {
		return nil
	}
	// The level was not raised, so there is a way back, and forth again.
	followers, err := u.cluster.Followers(ctx)
	if err != nil {
		return err
	}
	for i, binary := range []string{older, newer} {
		what := []string{"the old binary again", "the new binary again"}[i]
		if err := u.step(ctx, fmt.Sprintf("back%d", i), followers[0].Name+": a follower gets "+what, followers[0], binary); err != nil {
			return err
		}
	}
	return nil
}

// next is a node that still has the old binary: the leader when it is the last.
func (u *upgrade) next(ctx context.Context, newer string) (*testcluster.Node, string, error) {
	leader, err := u.cluster.Leader(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, n := range u.cluster.Nodes {
		if n != leader && n.Binary != newer {
			return n, "follower", nil
		}
	}
	if leader.Binary == newer {
		return nil, "", errors.New("the leader changed by itself")
	}
	return leader, "leader", nil
}

// step replaces the binary of a node under load of its own, and compares all nodes.
func (u *upgrade) step(ctx context.Context, name, what string, n *testcluster.Node, binary string) error {
	load, err := u.cluster.StartLoad(ctx, name, workers)
	if err != nil {
		return err
	}
	err = u.replace(ctx, n, binary)
	load.Stop()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	h, err := u.cluster.SameState(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r, err := load.Verify(ctx)
	limit := outageLimit
	if u.small {
		limit = outageLimitSmall
	}
	if err == nil && (r.Acked == 0 || r.Outage > limit) {
		err = fmt.Errorf("%d acknowledged, nothing for %s", r.Acked, r.Outage)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	row := fmt.Sprintf("| %s | %d | %d | %d ms | %.12s |", what, r.Acked, r.Retries, r.Outage.Milliseconds(), h.Full)
	fmt.Println(row)
	u.rows = append(u.rows, row)
	return nil
}

func (u *upgrade) replace(ctx context.Context, n *testcluster.Node, binary string) error {
	time.Sleep(before)
	if err := n.Stop(); err != nil {
		return err
	}
	n.Binary = binary
	if err := n.Start(); err != nil {
		return err
	}
	if err := n.WaitReady(ctx); err != nil {
		return err
	}
	time.Sleep(before / 3)
	return nil
}

func (u *upgrade) page(name string) string {
	return fmt.Sprintf("# Rolling upgrade\n\nWritten by `make upgrade`: three nodes of %s are replaced by the present binary one by one, the leader last, then one goes back and\n"+
		"forth, while %d clients write. After each step, with both binaries in the cluster, all nodes have the same hashes and every acknowledged\n"+
		"record once. Another status than 201 or 503 (sent again with the same `Idempotency-Key`) fails the run, and %s without an acknowledgement.\n\n"+
		"| step | acknowledged | sent again | longest without an acknowledgement | hash |\n| --- | --- | --- | --- | --- |\n%s\n", name, workers, outageLimit, strings.Join(u.rows, "\n"))
}
