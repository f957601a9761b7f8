// Faults runs clusters of real processes, does them harm while clients write and
// poll, and judges the recorded history: docs/results/faults.md.
//
//	go run ./scripts/faults                          every harm, on three and on five nodes
//	go run ./scripts/faults --small                  a selection that differs by --seed
//	go run ./scripts/faults --only isolate-leader    one harm
//	go run ./scripts/faults check FILE...            judge histories again
//	go run ./scripts/faults failover --kills 100     gaps without acknowledged writes
//	go run ./scripts/faults mutants                  prove that the checker finds planted faults
//
// Each node lives in a network namespace of its own and all harms are possible when it
// runs as root on Linux; what cannot be had is skipped with a line that says why. A
// failing run keeps its history and the nodes' logs.
package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"quinto/internal/testcluster"
)

// options are the flags, and what the machine can do.
type options struct {
	command, binary, keep, only, html, out string
	sizes                                  []int
	seed                                   uint64
	small, keepAll, list                   bool
	before, hold, after, recover, budget   time.Duration
	kills, count                           int

	network, disks, faultsBuild bool
	noNetwork, noDisks          string
	begun                       time.Time
}

var errHarmed = errors.New("there are violations or failed runs")

func main() {
	if code, done := isolate(); done {
		os.Exit(code)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (*options, error) {
	o := &options{command: "run", begun: time.Now()}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		o.command, args = args[0], args[1:]
	}
	var sizes string
	f := flag.NewFlagSet("faults", flag.ContinueOnError)
	f.StringVar(&o.binary, "binary", "", "quinto to run (default: built with -tags faults)")
	f.StringVar(&sizes, "nodes", "3,5", "sizes of the clusters")
	f.StringVar(&o.only, "only", "", "regular expression of the harms to do, or of the mutants")
	f.Uint64Var(&o.seed, "seed", 1, "what chance follows from")
	f.BoolVar(&o.small, "small", false, "a selection by seed, on three nodes")
	f.IntVar(&o.count, "count", 4, "harms of the selection")
	f.DurationVar(&o.budget, "budget", 100*time.Second, "no further harm of the selection is begun after this")
	f.DurationVar(&o.before, "before", 3*time.Second, "load before a harm")
	f.DurationVar(&o.hold, "hold", 5*time.Second, "how long a harm lasts")
	f.DurationVar(&o.after, "after", 4*time.Second, "load after a harm")
	f.DurationVar(&o.recover, "recover", 10*time.Second, "an acknowledged write must come within this after a harm")
	f.StringVar(&o.keep, "keep", "", "folder for histories and logs (default: .cache/faults of the checkout)")
	f.BoolVar(&o.keepAll, "keep-all", false, "keep histories of good runs too")
	f.BoolVar(&o.list, "list", false, "list the harms and whether they can be done here")
	f.StringVar(&o.html, "html", "", "write a report with plots to this file")
	f.StringVar(&o.out, "out", "", "write the figures to this Markdown file")
	f.IntVar(&o.kills, "kills", 100, "kills of the leader, for failover")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	for _, s := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 3 || n > 7 {
			return nil, fmt.Errorf("--nodes %q: numbers from 3 to 7", sizes)
		}
		o.sizes = append(o.sizes, n)
	}
	if o.command == "check" {
		return o, check(f.Args())
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	return o, nil
}

func (o *options) say(format string, args ...any) {
	fmt.Printf("[%5.1f s] %s\n", time.Since(o.begun).Seconds(), fmt.Sprintf(format, args...))
}

func run(ctx context.Context, args []string) error {
	o, err := parseFlags(args)
	if err != nil || o.command == "check" {
		return err
	}
	if o.keep == "" {
		o.keep = filepath.Join(".cache", "faults")
	}
	if o.keep, err = filepath.Abs(o.keep); err != nil {
		return err
	}
	if err := os.MkdirAll(o.keep, 0o755); err != nil {
		return err
	}
	o.probe()
	switch o.command {
	case "run":
		return o.runHarms(ctx)
	case "failover":
		return o.runFailover(ctx)
	case "mutants":
		return o.runMutants(ctx)
	}
	return fmt.Errorf("unknown command %q", o.command)
}

// probe finds out what can be had on this machine.
func (o *options) probe() {
	w, err := testcluster.NewNetwork(o.seed)
	if err == nil {
		o.network, err = true, w.Close()
	}
	if err != nil {
		o.noNetwork = oneLine(err)
		o.say("nodes stay on loopback: %s", o.noNetwork)
	}
	o.disks = true
	if err := tryDisk(o.keep); err != nil {
		o.disks, o.noDisks = false, oneLine(err)
	}
}

// oneLine is an error without the log that it may bring along.
func oneLine(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	return s[:min(len(s), 300)]
}

// needBinary builds quinto unless one was given, and finds out whether its clock can
// be set wrong.
func (o *options) needBinary(ctx context.Context) error {
	var err error
	if o.binary == "" {
		o.faultsBuild = true
		o.binary, err = testcluster.Build(ctx, o.keep, "-tags", "faults")
		return err
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(o.binary)
	if err != nil {
		return fmt.Errorf("--binary: %w", err)
	}
	o.faultsBuild = slices.Contains(info.Settings, debug.BuildSetting{Key: "-tags", Value: "faults"})
	return nil
}

func (o *options) runHarms(ctx context.Context) error {
	if o.list {
		o.faultsBuild = o.binary == ""
		for _, h := range harms() {
			fmt.Printf("%-28s %s\n", h.name, h.missing(o))
		}
		return nil
	}
	if err := o.needBinary(ctx); err != nil {
		return err
	}
	chosen, err := o.choose()
	if err != nil {
		return err
	}
	var all []*outcome
	for _, nodes := range o.sizes {
		for i, h := range chosen {
			if o.small && i > 0 && time.Since(o.begun) > o.budget {
				o.say("the budget of %s is spent: %d harms left out", o.budget, len(chosen)-i)
				break
			}
			out := o.one(ctx, h, nodes, o.seed+uint64(i))
			all = append(all, out)
			o.say("%d of %d", len(all), len(o.sizes)*len(chosen))
			o.tell(out)
			if ctx.Err() != nil { // what was done so far is reported
				return errors.Join(ctx.Err(), o.report(all))
			}
		}
	}
	return o.report(all)
}

// one plays a harm, for a bounded time: whatever goes wrong in it, the next one's turn comes.
func (o *options) one(ctx context.Context, h *harm, nodes int, seed uint64) *outcome {
	ctx, cancel := context.WithTimeout(ctx, playLimit)
	defer cancel()
	return play(ctx, o, h, nodes, seed)
}

// choose takes all harms, those that are named, or a selection by the seed.
func (o *options) choose() ([]*harm, error) {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return nil, err
	}
	var all []*harm
	for _, h := range harms() {
		if only.MatchString(h.name) {
			all = append(all, h)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no harm is called %q", o.only)
	}
	if !o.small {
		return all, nil
	}
	o.sizes = o.sizes[:1]
	return sample(all, o), nil
}

// tell prints one outcome.
func (o *options) tell(out *outcome) {
	name := fmt.Sprintf("%s on %d nodes, seed %d", out.harm.name, out.nodes, out.seed)
	switch {
	case out.skipped != "":
		o.say("SKIPPED %s: %s", name, out.skipped)
	case out.report == nil:
		o.say("FAILED %s: %s (kept: %s)", name, oneLine(out.err), out.history)
	default:
		if out.err != nil {
			o.say("FAILED %s: %s", name, oneLine(out.err))
		}
		o.say("%s: %s", name, out.report.Summary())
		for _, v := range out.report.Violations {
			o.say("  %s", v)
		}
		if out.bad() {
			o.say("  kept: %s", out.history)
		}
	}
}

func (out *outcome) bad() bool {
	return out.err != nil || out.report != nil && !out.report.OK()
}
