// Sim runs whole clusters of the real node in one process each, on a simulated network,
// simulated disks and simulated clocks, harms them while clients write and poll, and
// lets internal/checker judge what the clients saw: docs/faults.md.
//
//	go run ./scripts/sim --seeds 100 --from 1     many seeds
//	go run ./scripts/sim --again 17               one seed, 20 times
//	go run ./scripts/sim --plan 17                what a seed does
//	go run ./scripts/sim --mutants                prove that planted faults are found
//
// The seed fixes the cluster, the workload, the faults and their times; the order of
// goroutines it does not. So a failing seed keeps its whole history in .cache/sim/SEED.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	seeds, times, lanes int
	from                uint64
	again, one, plan    string
	only, keep, out     string
	mutants             bool
	mutant, binary      string
	limit               time.Duration
	begun               time.Time
}

var errFailed = errors.New("there are violations or failed runs")

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o := &options{begun: time.Now()}
	f := flag.NewFlagSet("sim", flag.ContinueOnError)
	f.IntVar(&o.seeds, "seeds", 100, "how many seeds")
	f.Uint64Var(&o.from, "from", 1, "the first seed")
	f.StringVar(&o.again, "again", "", "run this seed --times times")
	f.IntVar(&o.times, "times", 20, "for --again")
	f.IntVar(&o.lanes, "lanes", 5*runtime.NumCPU(), "runs at a time: they mostly wait")
	f.StringVar(&o.plan, "plan", "", "print what this seed does")
	f.BoolVar(&o.mutants, "mutants", false, "prove that planted faults are found")
	f.StringVar(&o.mutant, "mutant", "", "for --mutants: this one alone")
	f.StringVar(&o.only, "only", "", "kinds of faults to choose from, with commas between")
	f.DurationVar(&o.limit, "limit", 2*time.Minute, "a run that takes longer has failed")
	f.StringVar(&o.keep, "keep", filepath.Join(".cache", "sim"), "folder for failing runs")
	f.StringVar(&o.out, "out", "", "write the figures to this Markdown file")
	f.StringVar(&o.one, "one", "", "run this seed in this process (used by itself)")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	switch {
	case o.one != "":
		return o.runOne()
	case o.plan != "":
		seed, err := number(o.plan)
		if err == nil {
			fmt.Print(newPlan(seed, o.kinds()))
		}
		return err
	case o.mutants:
		return o.runMutants(ctx)
	case o.again != "":
		return o.runAgain(ctx)
	}
	return o.runSeeds(ctx)
}

func number(text string) (n uint64, err error) {
	if _, err = fmt.Sscan(text, &n); err != nil {
		err = fmt.Errorf("seed %q: %w", text, err)
	}
	return n, err
}

func (o *options) kinds() []string {
	if o.only == "" {
		return nil
	}
	return strings.Split(o.only, ",")
}

// runOne plays a seed here and prints its outcome as JSON.
func (o *options) runOne() error {
	seed, err := number(o.one)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "quinto-sim-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out, w := play(newPlan(seed, o.kinds()), dir)
	if out.bad() {
		err = w.keep(out, o.keep)
	}
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(out))
}
