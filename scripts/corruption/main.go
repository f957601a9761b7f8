// Command corruption harms the files of one of three nodes, one at a time, while
// clients write, and judges what the node does then: it must refuse to start, halt
// and say so, or serve what all others serve. It must never answer wrong, differ
// from the others, or end with a trace.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"quinto/internal/testcluster"
)

// kinds are all kinds of files, by the log store of the node that has them, or wires.
var kinds = map[string][]string{
	"bolt": {"raft.db", "node", "db/CURRENT", "MANIFEST", "sst", "OPTIONS", "marker"},
	"wal":  {"wal segment", "wal-meta.db"},
	wires:  {"ca.pem", "certificate", "private key", "gossip.key"},
}

type flags struct {
	binary, out, only string
	mutations, lanes  int
	sample            int
	seed              uint64
	limit             time.Duration
}

func main() {
	var f flags
	flag.StringVar(&f.binary, "quinto", os.Getenv("QUINTO_BIN"), "the binary; empty: it is built")
	flag.StringVar(&f.out, "out", "", "write a page of Markdown to `FILE`")
	flag.StringVar(&f.only, "only", "", "these kinds of files, separated by commas")
	flag.IntVar(&f.mutations, "mutations", 200, "of each kind")
	flag.IntVar(&f.sample, "sample", 0, "this many of all kinds together instead, on one cluster of a log store that the seed chooses")
	flag.IntVar(&f.lanes, "lanes", 2, "clusters at the same time")
	flag.Uint64Var(&f.seed, "seed", 1, "of the mutations")
	flag.DurationVar(&f.limit, "limit", 0, "begin no mutation after this time; 0: no bound")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := run(ctx, &f)
	fmt.Print(summary(results))
	if f.out != "" && err == nil {
		err = os.WriteFile(f.out, []byte(page(&f, results)), 0o644)
	}
	if n := faults(results); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d mutations did what they must not", n))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "corruption:", err)
		os.Exit(1)
	}
}

// job is a number of mutations of one kind, or of several in turn, on one cluster.
type job struct {
	store string
	kinds []string
	count int
	seed  uint64
}

func jobs(f *flags) []job {
	if f.sample > 0 {
		store := []string{"bolt", "bolt", "wal", wires}[f.seed%4]
		return []job{{store, kinds[store], f.sample, f.seed}}
	}
	var out []job
	for i, store := range []string{"bolt", "wal", wires} {
		for j, k := range kinds[store] {
			if f.only == "" || slices.Contains(strings.Split(f.only, ","), k) {
				out = append(out, job{store, []string{k}, f.mutations, f.seed + uint64(100*i+j)})
			}
		}
	}
	return out
}

func run(ctx context.Context, f *flags) ([]result, error) {
	dir, err := os.MkdirTemp("", "quinto-corruption")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if f.binary == "" {
		if f.binary, err = testcluster.Build(ctx, dir); err != nil {
			return nil, err
		}
	}
	queue := make(chan job, 64)
	for _, j := range jobs(f) {
		queue <- j
	}
	close(queue)
	until := time.Now().Add(1000 * time.Hour)
	if f.limit > 0 {
		until = time.Now().Add(f.limit)
	}
	var mu sync.Mutex
	var all []result
	var errs []error
	var wg sync.WaitGroup
	for range f.lanes {
		wg.Go(func() {
			for j := range queue {
				rs, err := j.run(ctx, f.binary, filepath.Join(dir, fmt.Sprint(j.seed)), until)
				mu.Lock()
				all = append(all, rs...)
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

func (j job) run(ctx context.Context, binaryPath, dir string, until time.Time) (out []result, err error) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], j.seed)
	r := rand.New(rand.NewChaCha8(seed))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	w, err := newWorld(ctx, binaryPath, dir, j.store, r)
	if w != nil {
		defer func() { err = errors.Join(err, w.close()) }()
	}
	if err != nil {
		return nil, err
	}
	for i := range j.count {
		if time.Now().After(until) || ctx.Err() != nil {
			break
		}
		kind := j.kinds[(i+r.IntN(len(j.kinds)))%len(j.kinds)]
		res, err := w.one(ctx, r, kind)
		if errors.Is(err, errNoFile) {
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, res)
		fmt.Printf("%-12s %-28s %-26s %-8s %4d ms  %.150s\n", res.Kind, res.File, res.Harm, res.Outcome, res.Took.Milliseconds(), res.Line)
		if res.Fault != nil {
			fmt.Printf("  FAULT (seed %d, number %d): %v\n", j.seed, i, res.Fault)
		}
	}
	// None of it has reached the others.
	w.hold.Lock()
	defer w.hold.Unlock()
	return out, w.others(func(n *testcluster.Node) error { return w.same(ctx, n) })
}
