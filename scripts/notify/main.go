// Notify kills leaders between the delivery of a change and the note of it, and judges
// what the receivers got: a Redis list, a Redis stream, a NATS JetStream and an SMTP
// server, each real and killed now and then too.
//
//	go run ./scripts/notify --quinto bin/quinto --kills 20
//
// Wanted of scripts/lib/tools.sh: redis, nats, smtp. A channel whose server is not
// installed is an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quinto/internal/testcluster"
)

const (
	collections = 4
	burst       = 10 // records of each collection before a kill
	settle      = 2 * time.Minute
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	binary := flag.String("quinto", "bin/quinto", "the program")
	kills := flag.Int("kills", 20, "kills of the leader")
	seed := flag.Uint64("seed", 1, "what chance follows from")
	cache := flag.String("cache", os.Getenv("QUINTO_CACHE"), "where scripts/lib/tools.sh installs (default: .cache)")
	flag.Parse()
	if *cache == "" {
		*cache = ".cache"
	}
	if err := run(ctx, *binary, *cache, *kills, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "notify:", err)
		os.Exit(1)
	}
}

// world is the cluster, its receivers, and what was acknowledged to its client.
type world struct {
	cluster  *testcluster.Cluster
	channels []channel
	servers  []*server
	chance   *rand.Rand
	written  map[string]bool // collection/record
	next     int
}

func run(ctx context.Context, binary, cache string, kills int, seed uint64) (err error) {
	begun := time.Now()
	dir, err := os.MkdirTemp("", "quinto-notify-")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(dir)
		} else {
			fmt.Println("kept:", dir)
		}
	}()
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	w := &world{chance: rand.New(rand.NewPCG(seed, seed)), written: map[string]bool{}}
	defer w.close()
	settings, err := w.open(ctx, dir, cache)
	if err != nil {
		return err
	}
	if w.cluster, err = testcluster.New(testcluster.Options{Binary: binary, Dir: dir, Nodes: 3, Settings: settings}); err != nil {
		return err
	}
	if err := w.cluster.Start(ctx); err != nil {
		return err
	}
	if err := w.prepare(ctx); err != nil {
		return err
	}
	for i := range kills {
		if err := w.round(ctx, i); err != nil {
			return fmt.Errorf("kill %d: %w", i+1, err)
		}
	}
	if err := w.judge(ctx); err != nil {
		return err
	}
	fmt.Printf("%d kills of the leader in %.0f s: nothing missing, order kept, repeats have the id of the first\n", kills, time.Since(begun).Seconds())
	return nil
}

func (w *world) close() {
	if w.cluster != nil {
		_ = w.cluster.Close()
	}
	for _, c := range w.channels {
		c.close()
	}
	for _, s := range w.servers {
		s.stop()
	}
}

const hooks = `{"data":{"kinto-emailer":{"hooks":[{"resource_name":"record","template":"{revision} {collection_id} {id}","recipients":["reader@example.com"]}]}}}`

// prepare makes the collections, and waits until each receiver has heard of a write:
// notifiers are registered then.
func (w *world) prepare(ctx context.Context) error {
	if err := w.put(ctx, "/buckets/b", hooks); err != nil {
		return err
	}
	for c := range collections {
		if err := w.put(ctx, fmt.Sprintf("/buckets/b/collections/c%d", c), "{}"); err != nil {
			return err
		}
	}
	return w.until(ctx, "the first deliveries", func() error {
		if err := w.put(ctx, "/buckets/b/collections/c0/records/first", "{}"); err != nil {
			return err
		}
		for _, c := range w.channels {
			if got, err := c.read(ctx); err != nil || len(got) == 0 {
				return fmt.Errorf("%s: nothing has come: %w", c.name(), errors.Join(err))
			}
		}
		return nil
	})
}

func (w *world) put(ctx context.Context, path, body string) error {
	w.next++
	key := fmt.Sprintf("%d-%d", os.Getpid(), w.next)
	return w.until(ctx, "PUT "+path, func() error {
		n := w.cluster.Nodes[w.chance.IntN(len(w.cluster.Nodes))]
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		code, answer, err := n.Do(ctx, http.MethodPut, path, []byte(body), map[string]string{"Idempotency-Key": key})
		if err == nil && code >= 300 {
			err = fmt.Errorf("%d %s", code, answer)
		}
		return err
	})
}

func (w *world) until(ctx context.Context, what string, f func() error) error {
	for deadline := time.Now().Add(settle); ; {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, errors.Join(err, ctx.Err()))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// round writes, kills the leader as soon as one receiver has more than before, which is
// within the second until that is noted, and starts the node again. Every third round
// a receiver dies too.
func (w *world) round(ctx context.Context, i int) error {
	watched := w.channels[i%len(w.channels)]
	before, err := watched.read(ctx)
	if err != nil {
		return err
	}
	for range burst {
		for c := range collections {
			w.next++
			id := fmt.Sprintf("r%06d", w.next)
			if err := w.put(ctx, fmt.Sprintf("/buckets/b/collections/c%d/records/%s", c, id), `{"data":{}}`); err != nil {
				return err
			}
			w.written[fmt.Sprintf("c%d/%s", c, id)] = true
		}
	}
	leader, err := w.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	if err := w.until(ctx, "a delivery by "+watched.name(), func() error {
		if got, err := watched.read(ctx); err != nil || len(got) <= len(before) {
			return fmt.Errorf("%d as before: %w", len(got), errors.Join(err))
		}
		return nil
	}); err != nil {
		return err
	}
	if err := leader.Kill(); err != nil {
		return err
	}
	if i%3 == 2 {
		s := w.servers[w.chance.IntN(len(w.servers))]
		s.stop()
		if err := s.start(); err != nil {
			return err
		}
	}
	if err := leader.Start(); err != nil {
		return err
	}
	if err := w.cluster.WaitReady(ctx, w.cluster.Nodes...); err != nil {
		return err
	}
	fmt.Printf("kill %d: %s, after a delivery by %s\n", i+1, leader.Name, watched.name())
	return nil
}

// judge waits until everything has come, and checks ids and order.
func (w *world) judge(ctx context.Context) error {
	for _, c := range w.channels {
		var got []arrival
		err := w.until(ctx, c.name(), func() (err error) {
			if got, err = c.read(ctx); err != nil {
				return err
			}
			have := map[string]bool{}
			for _, a := range got {
				have[a.collection+"/"+a.record] = true
			}
			var missing []string
			for name := range w.written {
				if !have[name] {
					missing = append(missing, name)
				}
			}
			if len(missing) > 0 {
				return fmt.Errorf("%d of %d changes are missing, such as %s", len(missing), len(w.written), missing[0])
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := check(c.name(), got); err != nil {
			return err
		}
	}
	return nil
}

// check looks at first arrivals: the revisions of a collection rise. A repeat has the id
// of the first, and no two changes have the same.
func check(name string, got []arrival) error {
	ids, revisions, last := map[uint64]string{}, map[string]uint64{}, map[string]uint64{}
	repeats := 0
	for _, a := range got {
		if first, ok := ids[a.revision]; ok {
			repeats++
			if first != a.id {
				return fmt.Errorf("%s: revision %d came as %s and as %s", name, a.revision, first, a.id)
			}
			continue
		}
		if other, ok := revisions[a.id]; ok {
			return fmt.Errorf("%s: %s is the id of revisions %d and %d", name, a.id, other, a.revision)
		}
		ids[a.revision], revisions[a.id] = a.id, a.revision
		if a.revision <= last[a.collection] {
			return fmt.Errorf("%s: in %s revision %d first came after %d", name, a.collection, a.revision, last[a.collection])
		}
		last[a.collection] = a.revision
	}
	fmt.Printf("%-14s %d changes, %d repeats\n", name, len(ids), repeats)
	return nil
}

// partsOf takes "/buckets/b/collections/c/records/r" apart.
func partsOf(uri string) (collection, record string) {
	parts := strings.Split(uri, "/")
	if len(parts) != 7 {
		return "", ""
	}
	return parts[4], parts[6]
}
