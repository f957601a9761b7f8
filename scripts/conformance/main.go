// Conformance sends the same requests to real Kinto and to quinto and compares their answers.
//
//	go run ./scripts/conformance --quinto bin/quinto      compare quinto with real Kinto
//	go run ./scripts/conformance --target kinto           compare Kinto with itself: proves the scenarios, must find nothing
//	go run ./scripts/conformance --only-kinto -v          show what Kinto answers, for writing scenarios
//	go run ./scripts/conformance --wounds full --quinto bin/quinto   show what Kinto on PostgreSQL harms and quinto does not
//	go run ./scripts/conformance --effects --redis … --smtp … --quinto bin/quinto   compare what kinto-redis and kinto-emailer send out
//	go run ./scripts/conformance --table                  write docs/conformance.md and docs/compatibility.md
//
// The scenarios are text files; scenarios/README.md explains their form. Exit code 0: every difference is one of deviations.txt.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	root, venv, target, quinto, scenarios string
	run, backend, dsn, wounds             string
	redis, smtp                           string
	pg                                    *postgres // started by this run
	nodes, pairs, generate                int
	killEvery                             time.Duration
	spread                                *totals
	onlyKinto, verbose, table, effects    bool
	sample, workers                       int
	seed                                  uint64
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	os.Exit(code)
}

func parseFlags(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.StringVar(&o.root, "root", "", "the checkout (default: the folder with go.mod above the working directory)")
	f.StringVar(&o.venv, "kinto-venv", "", "Python virtual environment with Kinto (default: .cache/venv of the checkout)")
	f.StringVar(&o.target, "target", "", "URL of a running server, or `kinto` for a second real Kinto")
	f.StringVar(&o.quinto, "quinto", "", "the quinto binary to start and compare")
	f.StringVar(&o.scenarios, "scenarios", "", "folder of the scenario files")
	f.StringVar(&o.run, "run", "", "run only scenarios whose name or file matches this expression")
	f.StringVar(&o.backend, "backend", "memory", "storage of real Kinto: memory, postgresql, or both one after the other (memory,postgresql)")
	f.StringVar(&o.dsn, "pg", "", "postgresql://… of an empty database, for --backend postgresql (default: a server is started)")
	f.BoolVar(&o.onlyKinto, "only-kinto", false, "send the requests to real Kinto only")
	f.BoolVar(&o.verbose, "v", false, "show both answers of a differing request (with --only-kinto: all answers)")
	f.BoolVar(&o.table, "table", false, "write the tables of docs/ and do nothing else")
	f.StringVar(&o.wounds, "wounds", "", "instead of scenarios: show what Kinto on PostgreSQL harms and quinto does not, `small` or full")
	f.BoolVar(&o.effects, "effects", false, "instead of scenarios: compare what kinto-redis and kinto-emailer send out; needs --quinto, --redis and --smtp")
	f.StringVar(&o.redis, "redis", "", "the redis-server for --effects")
	f.StringVar(&o.smtp, "smtp", "", "Python virtual environment with aiosmtpd for --effects")
	f.IntVar(&o.sample, "sample", 0, "run that many scenarios, picked by --seed")
	f.IntVar(&o.generate, "generate", 0, "draw that many random sequences of requests too, from --seed on")
	f.Uint64Var(&o.seed, "seed", 1, "seed of --sample, and of the first generated sequence")
	f.IntVar(&o.workers, "workers", 4, "scenarios that run at the same time on one pair of servers")
	f.IntVar(&o.pairs, "pairs", 3, "pairs of servers, of different settings, at the same time")
	f.IntVar(&o.nodes, "nodes", 1, "quinto runs on that many nodes and each request goes to the next of them")
	f.DurationVar(&o.killEvery, "kill-every", 0, "with --nodes: kill the leader and start it again every so often")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	return o, o.complete()
}

// complete fills the defaults that depend on the checkout and refuses contradictions.
func (o *options) complete() error {
	if o.root == "" {
		root, err := findRoot()
		if err != nil {
			return err
		}
		o.root = root
	}
	if o.venv == "" {
		o.venv = filepath.Join(o.root, ".cache", "venv")
	}
	if o.scenarios == "" {
		o.scenarios = filepath.Join(o.root, "scripts", "conformance", "scenarios")
	}
	if o.quinto != "" {
		path, err := filepath.Abs(o.quinto)
		if err != nil {
			return err
		}
		o.quinto = path
	}
	if o.workers < 1 || o.pairs < 1 || o.nodes < 1 {
		return errors.New("--workers, --pairs and --nodes must be at least 1")
	}
	if !slices.Contains([]string{"memory", "postgresql", "memory,postgresql"}, o.backend) {
		return fmt.Errorf("--backend is memory, postgresql or memory,postgresql, not %q", o.backend)
	}
	if o.dsn != "" {
		o.pairs = 1 // they would share one database
	}
	if o.killEvery != 0 && (o.killEvery < 0 || o.nodes < 2 || o.quinto == "") {
		return errors.New("--kill-every needs --quinto and --nodes")
	}
	if o.effects && (o.quinto == "" || o.redis == "" || o.smtp == "") {
		return errors.New("--effects needs --quinto, --redis and --smtp")
	}
	o.spread = &totals{}
	if !o.table && !o.onlyKinto && (o.target == "") == (o.quinto == "") {
		return errors.New("give one of --quinto PATH, --target URL, --target kinto, --only-kinto")
	}
	return nil
}

func findRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return dir, nil
		}
		dir = filepath.Dir(dir)
	}
	return "", errors.Join(errors.New("no go.mod above the working directory"), err)
}

// run does the whole work. The code is 0 when nothing is unexplained, 1 when something is, 2 when the run itself failed.
func run(ctx context.Context, args []string) (int, error) {
	o, err := parseFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 2, err
	}
	if o.wounds != "" {
		return runWounds(ctx, o)
	}
	if o.effects {
		return runEffects(ctx, o)
	}
	script, err := LoadScript(o.scenarios)
	if err != nil {
		return 2, err
	}
	rows, err := LoadRows(filepath.Join(o.scenarios, "..", "rows.txt"))
	if err != nil {
		return 2, err
	}
	deviations, err := LoadDeviations(filepath.Join(o.scenarios, "..", "deviations.txt"))
	if err != nil {
		return 2, err
	}
	if o.table {
		if err := writeTables(o.root, rows, script.Scenarios, deviations); err != nil {
			return 2, err
		}
		return 0, nil
	}
	var outcomes [][]Outcome
	var stale []*Deviation
	backends := strings.Split(o.backend, ",")
	for _, o.backend = range backends {
		chosen, err := choose(script.Scenarios, o)
		if err != nil {
			return 2, err
		}
		some, err := runAll(ctx, o, chosen, deviations)
		if err != nil {
			return 2, err
		}
		outcomes = append(outcomes, some...)
		if !o.onlyKinto && o.target != "kinto" {
			stale = append(stale, staleDeviations(deviations, chosen, o.backend)...)
		}
	}
	if o.onlyKinto && o.verbose {
		printAnswers(os.Stdout, outcomes)
	}
	if o.nodes > 1 {
		fmt.Printf("nodes %d: %s\n", o.nodes, o.spread)
	}
	if t := report(os.Stdout, outcomes, stale, o.verbose && !o.onlyKinto); t.unexplained > 0 {
		return 1, nil
	}
	return 0, nil
}

// choose applies --run, --sample and the backend, and leaves out what needs its own settings on a server we did not start.
func choose(all []*Scenario, o options) ([]*Scenario, error) {
	match, err := regexp.Compile(o.run)
	if err != nil {
		return nil, fmt.Errorf("--run: %w", err)
	}
	external := o.target != "" && o.target != "kinto"
	var chosen []*Scenario
	skipped := 0
	for _, sc := range all {
		switch {
		case sc.Backend != "" && sc.Backend != o.backend, !match.MatchString(sc.Name) && !match.MatchString(sc.File):
		case external && sc.Settings != "":
			skipped++
		case o.nodes > 1 && sc.measures(): // each node counts what it answers, and forgets it when it is killed
		default:
			chosen = append(chosen, sc)
		}
	}
	if skipped > 0 {
		fmt.Printf("%d scenarios need settings of their own and are left out: --target is a server that already runs\n", skipped)
	}
	if chosen = sample(chosen, o.sample, o.seed); len(chosen) == 0 && o.generate == 0 {
		return nil, errors.New("no scenario is left to run")
	}
	return chosen, nil
}

// staleDeviations lists the deviations of scenarios that ran and that explained nothing.
func staleDeviations(deviations []*Deviation, ran []*Scenario, backend string) []*Deviation {
	names := map[string]bool{}
	for _, sc := range ran {
		names[sc.Name] = true
	}
	var stale []*Deviation
	for _, d := range deviations {
		if names[d.Scenario] && d.on(backend) && !d.used.Load() {
			stale = append(stale, d)
		}
	}
	return stale
}
