// Benchnotify measures webhooks: three nodes as processes, and a receiver that checks
// every signature.
//
//	go run ./scripts/benchnotify           the whole; writes docs/results/notify.md
//	go run ./scripts/benchnotify --small   one round of each, prints only
//
// Nodes, clients and receiver share the machine: what is measured holds for them together.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"quinto/internal/testcluster"
)

// What issue 6 asks for.
const (
	aimRate    = 2000 // events delivered each second
	aimLatency = 20 * time.Millisecond
	aimDead    = 1.2             // times, of what it is without dead receivers: what streams may cost writers
	aimRepeats = 2 * time.Second // of deliveries before the failover
)

const (
	nodes       = 3
	collections = 50
	startLimit  = time.Minute
	waitLimit   = 2 * time.Minute
	deadName    = "dead" // the collection whose deliveries are refused
)

// sizes are how much is done.
type sizes struct {
	target       string // of make
	rounds       int
	waiting      int           // events that wait for the listener to be resumed
	steadyRate   int           // events a second, in batches
	steady       time.Duration // of them
	paceRate     int           // single writes a second
	pace         time.Duration
	deadRounds   int // with and without, of each
	burst        int // events
	deadLane     int // events in the lane that is dead
	failovers    int
	beforeKill   time.Duration
	failoverRate int // events a second of the others
}

var (
	full = sizes{target: "bench-notify", rounds: 3, waiting: 20_000, steadyRate: 2500, steady: 8 * time.Second, paceRate: 100, pace: 8 * time.Second,
		deadRounds: 4, burst: 5000, deadLane: 10_000, failovers: 3, beforeKill: 4 * time.Second, failoverRate: 500}
	small = sizes{target: "bench-notify-small", rounds: 1, waiting: 6000, steadyRate: 2500, steady: 2 * time.Second, paceRate: 100, pace: 2 * time.Second,
		deadRounds: 1, burst: 1000, deadLane: 1000, failovers: 1, beforeKill: 1500 * time.Millisecond, failoverRate: 500}
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	binary := flag.String("quinto", "bin/quinto", "the program")
	isSmall := flag.Bool("small", false, "one round of each")
	out := flag.String("out", "", "file of the results (default: docs/results/notify.md, unless small)")
	flag.Parse()
	size := full
	if *isSmall {
		size = small
	} else if *out == "" {
		*out = filepath.Join("docs", "results", "notify.md")
	}
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = writers // else they dial anew all the time
	if err := run(ctx, *binary, size, *out); err != nil {
		fmt.Fprintln(os.Stderr, "benchnotify:", err)
		os.Exit(1)
	}
}

// world is a cluster with its receivers.
type world struct {
	size     sizes
	binary   string
	cluster  *testcluster.Cluster
	receiver *receiver
	hang     *silent // nil: no dead receivers
	next     int     // number of the next record
}

// open starts a cluster; with dead it has two listeners more, one whose receiver refuses
// connections and one whose receiver never answers.
func open(ctx context.Context, binary, dir string, size sizes, dead bool) (w *world, err error) {
	w = &world{size: size, binary: binary}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return w, err
	}
	if w.receiver, err = newReceiver(); err != nil {
		return w, err
	}
	listeners := [][2]string{{"hook", w.receiver.url()}}
	if dead {
		if w.hang, err = newSilent(); err != nil {
			return w, err
		}
		refusing, err := closedPort()
		if err != nil {
			return w, err
		}
		listeners = append(listeners, [2]string{"hanging", w.hang.url()}, [2]string{"refusing", refusing})
	}
	var names, settings []string
	for _, l := range listeners {
		prefix := "kinto.event_listeners." + l[0]
		names = append(names, l[0])
		settings = append(settings, prefix+".use = quinto.webhook", prefix+".url = "+l[1], prefix+".secret = "+secret, prefix+".resources = record")
	}
	settings = append(settings, "kinto.event_listeners = "+strings.Join(names, " "))
	if w.cluster, err = testcluster.New(testcluster.Options{Binary: binary, Dir: dir, Nodes: nodes, Settings: settings}); err != nil {
		return w, err
	}
	started, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := w.cluster.Start(started); err != nil {
		return w, err
	}
	return w, w.prepare(ctx)
}

func (w *world) close() {
	if w.cluster != nil {
		_ = w.cluster.Close() // its folder goes with it
	}
	if w.receiver != nil {
		w.receiver.close()
	}
	if w.hang != nil {
		w.hang.close()
	}
}

// prepare makes the collections and waits until a delivery shows that the listener is
// registered.
func (w *world) prepare(ctx context.Context) error {
	if err := w.put(ctx, 0, "/buckets/b", nil); err != nil {
		return err
	}
	for i := range collections {
		if err := w.put(ctx, 0, "/buckets/b/collections/"+collection(i), nil); err != nil {
			return err
		}
	}
	if err := w.put(ctx, 0, "/buckets/b/collections/"+deadName, nil); err != nil {
		return err
	}
	return until(ctx, "the first delivery", func() bool {
		ids := w.take(1)
		return w.put(ctx, 0, recordPath(ids[0]), record) == nil && w.receiver.wait(ctx, ids, time.Second) == nil
	})
}

func until(ctx context.Context, what string, f func() bool) error {
	for deadline := time.Now().Add(waitLimit); !f(); {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s: not within %v: %w", what, waitLimit, errors.Join(ctx.Err()))
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

func run(ctx context.Context, binary string, size sizes, out string) (err error) {
	begun := time.Now()
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "quinto-benchnotify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &results{size: size, machine: machine()}
	if err := r.measureDead(ctx, binary, dir); err != nil {
		return err
	}
	w, err := open(ctx, binary, filepath.Join(dir, "alone"), size, false)
	if err != nil {
		return err
	}
	defer w.close()
	for range size.rounds {
		if err := errors.Join(r.measureWaiting(ctx, w), r.measureSteady(ctx, w), r.measureLatency(ctx, w)); err != nil {
			return err
		}
	}
	for range size.failovers {
		if err := r.measureFailover(ctx, w); err != nil {
			return err
		}
	}
	if err := w.receiver.fault(); err != nil {
		return err
	}
	r.took = time.Since(begun)
	r.deliveries += w.receiver.count()
	text := r.report()
	fmt.Print(text)
	if out != "" {
		return os.WriteFile(out, []byte(text), 0o600)
	}
	return nil
}

func machine() string {
	load, _ := os.ReadFile("/proc/loadavg") // without /proc it is unknown
	before, _, _ := strings.Cut(string(load)+" ", " ")
	return fmt.Sprintf("%d cores, load before the run %s", runtime.NumCPU(), before)
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
