// Notify kills leaders between the delivery of a change and the note of it, and judges
// what the receivers got: HTTP servers in bad health, of a webhook in the settings and of
// webhooks in the metadata of a bucket and of collections, a Redis list, a Redis stream, a
// NATS JetStream and two SMTP servers, each real and killed now and then too.
//
//	go run ./scripts/notify --quinto bin/quinto --kills 20
//
// Each receiver has that many kills after a delivery. Wanted of scripts/lib/tools.sh:
// redis, nats, smtp, postfix. A server that is not installed is an error, but Postfix is
// left out unless root runs this: it gives its rights up itself.
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
	"slices"
	"strings"
	"sync"
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
	out := flag.String("out", "", "write a page of Markdown to `FILE`")
	flag.Parse()
	if *cache == "" {
		*cache = ".cache"
	}
	if err := run(ctx, *binary, *cache, *out, *kills, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "notify:", err)
		os.Exit(1)
	}
}

// world is a cluster, its receivers, and what was acknowledged to its client.
type world struct {
	name                    string
	binary                  string
	cluster                 *testcluster.Cluster
	channels                []channel
	servers                 []*server
	ills                    []*hook // the channels that are webhooks
	ofBucket, ofCollections *hook   // those of them that metadata declares, or nil
	chance                  *rand.Rand
	written                 map[string]bool // collection/record
	struck                  []int           // kills after a delivery, by channel
	next                    int
	kills                   int // done
	rows                    []row
	took                    time.Duration
}

// plan is a cluster with the receivers that open starts.
type plan struct {
	name string
	open func(w *world, ctx context.Context, dir string, t tools) ([]string, error)
}

func run(ctx context.Context, binary, cache, out string, kills int, seed uint64) (err error) {
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
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // Postfix walks through it with other rights
		return err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	plans := []plan{{"first", (*world).openAll}}
	if os.Getuid() == 0 {
		plans = append(plans, plan{"second", (*world).openPostfix})
	} else {
		fmt.Println("Postfix is left out: only root can run it")
	}
	worlds, errs := make([]*world, len(plans)), make([]error, len(plans))
	var wg sync.WaitGroup
	for i, p := range plans {
		w := &world{name: p.name, binary: binary, chance: rand.New(rand.NewPCG(seed, uint64(i))), written: map[string]bool{}}
		worlds[i] = w
		wg.Go(func() { errs[i] = w.run(ctx, p, filepath.Join(dir, p.name), tools(cache), kills) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil || out == "" {
		return err
	}
	return write(out, seed, worlds)
}

func (w *world) run(ctx context.Context, p plan, dir string, t tools, kills int) error {
	begun := time.Now()
	defer w.close()
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	settings, err := p.open(w, ctx, dir, t)
	if err != nil {
		return err
	}
	if w.cluster, err = testcluster.New(testcluster.Options{Binary: w.binary, Dir: dir, Nodes: 3, Settings: settings}); err != nil {
		return err
	}
	if err := w.cluster.Start(ctx); err != nil {
		return err
	}
	if err := w.prepare(ctx); err != nil {
		return err
	}
	for w.struck = make([]int, len(w.channels)); slices.Min(w.struck) < kills; w.kills++ {
		if w.kills == 3*kills {
			return fmt.Errorf("%s: %d kills were after a delivery too seldom: %d", w.name, w.kills, w.struck)
		}
		if err := w.round(ctx, w.kills); err != nil {
			return fmt.Errorf("%s, kill %d: %w", w.name, w.kills+1, err)
		}
	}
	if err := w.judge(ctx); err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	w.took = time.Since(begun)
	fmt.Printf("%s: %d kills of the leader in %.0f s: nothing missing, order kept, repeats have the id of the first\n", w.name, w.kills, w.took.Seconds())
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

// mails is what kinto-emailer reads of the bucket's metadata.
var mails = map[string]any{"kinto-emailer": map[string]any{"hooks": []any{map[string]any{
	"resource_name": "record", "template": "{revision} {collection_id} {id}", "recipients": []string{"reader@example.com"}}}}}

// prepare makes the collections, and waits until each receiver has heard of a write:
// notifiers are registered then.
func (w *world) prepare(ctx context.Context) error {
	body, err := w.ofBucket.metadata(mails)
	if err != nil {
		return err
	}
	if err := w.put(ctx, "/buckets/b", string(body)); err != nil {
		return err
	}
	if body, err = w.ofCollections.metadata(nil); err != nil {
		return err
	}
	for c := range collections {
		if err := w.put(ctx, fmt.Sprintf("/buckets/b/collections/c%d", c), string(body)); err != nil {
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

// counts are how much each receiver has.
func (w *world) counts(ctx context.Context) ([]int, error) {
	n := make([]int, len(w.channels))
	for i, c := range w.channels {
		all, err := c.read(ctx)
		if err != nil {
			return nil, err
		}
		n[i] = len(all)
	}
	return n, nil
}

// goneEvery is how often the webhooks' receivers say that they want no more.
const goneEvery = 4

// round writes until each receiver has more than before, and kills the leader at once: so
// it has not noted all of that, which it does once a second. Then the node starts again.
// In every third round a receiver dies too; the webhooks' are ill all the time.
func (w *world) round(ctx context.Context, i int) error {
	gone := i%goneEvery == 1
	for _, h := range w.ills {
		if err := w.until(ctx, "resume", func() error { return w.resume(ctx, h) }); err != nil {
			return err
		}
		h.fall(gone)
	}
	before, err := w.counts(ctx)
	if err != nil {
		return err
	}
	leader, err := w.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	if err := w.write(ctx, burst, i%2 == 0); err != nil {
		return err
	}
	if err := w.until(ctx, "deliveries to all", func() error {
		now, err := w.counts(ctx)
		for c := range now {
			h, ofHook := w.channels[c].(*hook)
			if now[c] > before[c] || ofHook && gone {
				continue
			}
			err = errors.Join(err, fmt.Errorf("%s has %d as before", w.channels[c].name(), now[c]), w.write(ctx, 1, false))
			if ofHook {
				err = errors.Join(err, w.goOn(ctx, h))
			}
			return err
		}
		return err
	}); err != nil {
		return err
	}
	if err := leader.Kill(); err != nil {
		return err
	}
	after, err := w.counts(ctx)
	if err != nil {
		return err
	}
	for c := range after {
		if after[c] > before[c] {
			w.struck[c]++
		}
	}
	if i%3 == 2 && len(w.servers) > 0 {
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
	fmt.Printf("%s, kill %d: %s\n", w.name, i+1, leader.Name)
	return nil
}

// write makes some records in each collection; restart: the webhooks' receivers are
// restarted meanwhile.
func (w *world) write(ctx context.Context, records int, restart bool) error {
	for n := range records {
		if restart && n == records/2 {
			for _, h := range w.ills {
				if err := h.restart(); err != nil {
					return err
				}
			}
		}
		for c := range collections {
			w.next++
			id := fmt.Sprintf("r%06d", w.next)
			if err := w.put(ctx, fmt.Sprintf("/buckets/b/collections/c%d/records/%s", c, id), `{"data":{}}`); err != nil {
				return err
			}
			w.written[fmt.Sprintf("c%d/%s", c, id)] = true
		}
	}
	return nil
}

// judge waits until everything has come, and checks ids and order.
func (w *world) judge(ctx context.Context) error {
	for i, c := range w.channels {
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
				if h, ok := c.(*hook); ok {
					err = w.goOn(ctx, h)
				}
				return fmt.Errorf("%d of %d changes are missing, such as %s: %w", len(missing), len(w.written), missing[0], errors.Join(err))
			}
			return nil
		})
		if err != nil {
			return err
		}
		r, err := check(c.name(), got)
		if err != nil {
			return err
		}
		fmt.Print(r.line())
		r.kills = w.struck[i]
		w.rows = append(w.rows, *r)
	}
	for _, h := range w.ills {
		fmt.Println(h.title, "was answered", h.told())
	}
	return nil
}

// check looks at first arrivals: the revisions of a collection rise. A repeat has the id
// of the first, and no two changes have the same.
func check(name string, got []arrival) (*row, error) {
	ids, revisions, last := map[uint64]string{}, map[string]uint64{}, map[string]uint64{}
	repeats := 0
	for _, a := range got {
		if first, ok := ids[a.revision]; ok {
			repeats++
			if first != a.id {
				return nil, fmt.Errorf("%s: revision %d came as %s and as %s", name, a.revision, first, a.id)
			}
			continue
		}
		if other, ok := revisions[a.id]; ok {
			return nil, fmt.Errorf("%s: %s is the id of revisions %d and %d", name, a.id, other, a.revision)
		}
		ids[a.revision], revisions[a.id] = a.id, a.revision
		if a.revision <= last[a.collection] {
			return nil, fmt.Errorf("%s: in %s revision %d first came after %d", name, a.collection, a.revision, last[a.collection])
		}
		last[a.collection] = a.revision
	}
	return &row{name: name, changes: len(ids), repeats: repeats}, nil
}

// partsOf takes "/buckets/b/collections/c/records/r" apart.
func partsOf(uri string) (collection, record string) {
	parts := strings.Split(uri, "/")
	if len(parts) != 7 {
		return "", ""
	}
	return parts[4], parts[6]
}
