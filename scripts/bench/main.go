// Bench measures quinto, three nodes on this machine, beside real Kinto on PostgreSQL: the same requests, one
// client, interleaved rounds. What counts is the ratio inside one round; absolute figures are the machine's.
//
//	go run ./scripts/bench                 everything but the million; writes docs/results/bench.md
//	go run ./scripts/bench --big           the same and the part with 1,000,000 records
//	go run ./scripts/bench --quick         a look in two minutes; prints only
//	go run ./scripts/bench --only '^read'  workloads by name (create, read, page, since0, since10, batch, mixed, hooks, big)
//
// Both servers live in one scratch folder on one disk, listen on 127.0.0.1 only and are ended by their own ids, also after Ctrl-C.
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
	"regexp"
	"strings"
	"syscall"
	"time"

	"quinto/internal/testcluster"
)

// options are the flags.
type options struct {
	rounds, records, bigRecords int
	seconds                     float64
	quick, big                  bool
	only, venv, quinto          string
	dir, out                    string
	match                       *regexp.Regexp
}

// Bounds of the flags: a run always ends.
const (
	maxRounds  = 50
	maxSeconds = 120
	minRecords = 1000
	maxRecords = 5_000_000
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(ctx, cancel) // a second Ctrl-C ends the program at once
	err := run(ctx, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 3, "interleaved rounds")
	f.Float64Var(&o.seconds, "seconds", 5, "seconds of one cell (a workload at a number of connections), after its warm-up")
	f.IntVar(&o.records, "records", 100_000, "records that are there before the first round")
	f.BoolVar(&o.quick, "quick", false, "2 rounds of 1.5 s cells on 10,000 records; prints, writes no file")
	f.BoolVar(&o.big, "big", false, "also one node with --big-records: start after kill -9, memory")
	f.IntVar(&o.bigRecords, "big-records", 1_000_000, "records of the big part")
	f.StringVar(&o.only, "only", "", "only workloads whose name matches this expression; prints, writes no file")
	f.StringVar(&o.venv, "kinto-venv", "", "Python virtual environment with kinto and granian (default: scripts/lib/tools.sh venv)")
	f.StringVar(&o.quinto, "quinto", "", "the quinto binary (default: built from this checkout)")
	f.StringVar(&o.dir, "dir", "/var/tmp", "folder on the disk to measure; a scratch folder is made in it and removed")
	f.StringVar(&o.out, "out", "", "file of the results (default: docs/results/bench.md, unless --quick or --only)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	return o, o.complete()
}

// complete fills what depends on other flags and refuses what would not end or mean anything.
func (o *options) complete() error {
	var err error
	if o.quick {
		o.rounds, o.seconds, o.records = 2, 1.5, 10_000
	}
	if o.rounds < 1 || o.rounds > maxRounds {
		return fmt.Errorf("--rounds: 1 to %d", maxRounds)
	}
	if o.seconds < 0.2 || o.seconds > maxSeconds {
		return fmt.Errorf("--seconds: 0.2 to %d", maxSeconds)
	}
	if o.records < minRecords || o.bigRecords < 10*bigTail || max(o.records, o.bigRecords) > maxRecords {
		return fmt.Errorf("--records: %d to %d; --big-records: %d to %[2]d", minRecords, maxRecords, 10*bigTail)
	}
	if o.match, err = regexp.Compile(o.only); err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	if o.out == "" && !o.quick && o.only == "" {
		o.out = filepath.Join("docs", "results", "bench.md")
	}
	for _, path := range []*string{&o.quinto, &o.venv} { // the servers run in folders of their own
		if *path != "" && err == nil {
			*path, err = filepath.Abs(*path)
		}
	}
	return err
}

// run measures what the flags ask for, prints it and writes it down.
func run(ctx context.Context, args []string) (err error) {
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	if _, err := os.Stat("go.mod"); err != nil {
		return errors.New("start it at the root of the checkout: go run ./scripts/bench")
	}
	dir, err := makeScratch(o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.quinto == "" {
		if o.quinto, err = testcluster.Build(ctx, dir); err != nil {
			return err
		}
	}
	doc := &document{Machine: describeMachine(dir), Quinto: describeQuinto(ctx, o.quinto), Options: o}
	if chosen := chooseWorkloads(o); len(chosen) > 0 {
		if doc.Versus, err = measureVersus(ctx, o, dir, chosen); err != nil {
			return err
		}
		doc.Versus.print(os.Stdout)
	}
	if o.match.MatchString("hooks") {
		if doc.Hooks, err = measureHooks(ctx, o, dir); err != nil {
			return err
		}
		doc.Hooks.print(os.Stdout)
	}
	if o.big && o.match.MatchString("big") {
		if doc.Big, err = measureBig(ctx, o, dir); err != nil {
			return err
		}
		doc.Big.print(os.Stdout)
	}
	if o.out == "" {
		return nil
	}
	return doc.write(o.out)
}

// makeScratch makes the folder of everything that this run leaves on disk. It must be a real disk, or no sync means anything.
func makeScratch(parent string) (string, error) {
	if name := filesystem(parent); name == "tmpfs" || name == "ramfs" {
		return "", fmt.Errorf("--dir %s lies in memory (%s): name a folder on a disk", parent, name)
	}
	dir, err := os.MkdirTemp(parent, "quinto-bench-")
	if err != nil {
		return "", err
	}
	// PostgreSQL runs as its own user and must reach its folder in here.
	return dir, os.Chmod(dir, 0o711)
}

// tool asks scripts/lib/tools.sh, which installs what is missing, for the folder of a tool.
func tool(ctx context.Context, name string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join("scripts", "lib", "tools.sh"), name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/lib/tools.sh %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// progress writes one line to stderr, where it does not disturb the tables.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}
