package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"quinto/internal/testcluster"
)

const (
	records    = 200
	writePause = 25 * time.Millisecond
	listPath   = "/buckets/corruption/collections/c/records"
)

// world is a cluster of three with a writer, and what was acknowledged.
type world struct {
	cluster *testcluster.Cluster
	victim  *testcluster.Node
	backup  string // the victim's folders as it was stopped
	wires   string // folder with a folder of certificates for each node; empty: plaintext

	hold sync.Mutex // held while nothing may be written
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	sent     map[string]int    // id → newest version sent
	acked    map[string]string // id → content
	writeErr error
}

func newWorld(ctx context.Context, binary, dir, store string, r *rand.Rand) (*world, error) {
	w := &world{backup: filepath.Join(dir, "backup"), stop: make(chan struct{}), sent: map[string]int{}, acked: map[string]string{}}
	o := testcluster.Options{Binary: binary, Dir: dir, Nodes: 3, Settings: []string{"quinto.snapshot_entries = 60", "quinto.trailing_entries = 20"}}
	if store == wires {
		w.wires, o.NodeFlags = filepath.Join(dir, "wires"), w.wireFlags
	} else {
		o.Settings = append(o.Settings, "quinto.log_store = "+store)
	}
	c, err := testcluster.New(o)
	if err != nil {
		return nil, err
	}
	w.cluster = c
	w.victim = c.Nodes[r.IntN(len(c.Nodes))]
	if err := w.certify(binary); err != nil {
		return w, err
	}
	if err := c.Start(ctx); err != nil {
		return w, err
	}
	for _, p := range []string{"/buckets/corruption", "/buckets/corruption/collections/c"} {
		if code, body, err := c.Nodes[0].Ask(ctx, http.MethodPut, p, nil, nil); err != nil || code >= 300 {
			return w, fmt.Errorf("PUT %s: %d %s %w", p, code, body, err)
		}
	}
	for i := range 2 * records {
		w.write(ctx, i)
	}
	w.wg.Go(func() { w.writer(ctx) })
	return w, w.failed()
}

func (w *world) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writeErr
}

func (w *world) writer(ctx context.Context) {
	tick := time.NewTicker(writePause)
	defer tick.Stop()
	for i := 2 * records; ; i++ {
		select {
		case <-w.stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.hold.Lock()
		w.write(ctx, i)
		w.hold.Unlock()
	}
}

// write puts the next version of a record through one of the healthy nodes.
func (w *world) write(ctx context.Context, i int) {
	id, version := fmt.Sprintf("r%d", i%records), i/records
	content := fmt.Sprintf("%s-%d-%0200d", id, version, i)
	w.mu.Lock()
	w.sent[id] = version
	w.mu.Unlock()
	body := fmt.Appendf(nil, `{"data":{"content":%q}}`, content)
	key := map[string]string{"Idempotency-Key": content[:40]}
	deadline := time.Now().Add(30 * time.Second)
	for try := i; ; try++ {
		n := w.cluster.Nodes[try%len(w.cluster.Nodes)]
		if n == w.victim {
			continue
		}
		code, answer, err := n.Do(ctx, http.MethodPut, listPath+"/"+id, body, key)
		w.mu.Lock()
		if err == nil && (code == http.StatusOK || code == http.StatusCreated) {
			w.acked[id] = content
			w.mu.Unlock()
			return
		}
		if ctx.Err() == nil && time.Now().After(deadline) {
			w.writeErr = fmt.Errorf("%s through %s: %d %.200s %w", id, n.Name, code, answer, err)
		}
		failed := w.writeErr != nil || ctx.Err() != nil
		w.mu.Unlock()
		if failed {
			return
		}
		time.Sleep(writePause)
	}
}

// plausible says whether content is a version of id that was sent.
func (w *world) plausible(id, content string) bool {
	rest, ok := strings.CutPrefix(content, id+"-")
	text, number, cut := strings.Cut(rest, "-")
	version, err := strconv.Atoi(text)
	w.mu.Lock()
	defer w.mu.Unlock()
	newest, known := w.sent[id]
	return ok && cut && err == nil && known && version <= newest && len(number) == 200
}

// same compares the victim's whole list with what was acknowledged; nothing is being
// written.
func (w *world) same(ctx context.Context, n *testcluster.Node) error {
	got, err := n.Records(ctx, listPath)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, content := range w.acked {
		if got[id] != content {
			return fmt.Errorf("%s has %s as %.40q, acknowledged was %.40q", n.Name, id, got[id], content)
		}
	}
	if len(got) != len(w.acked) {
		return fmt.Errorf("%s has %d records of %d", n.Name, len(got), len(w.acked))
	}
	return nil
}

// others runs f for the two healthy nodes.
func (w *world) others(f func(*testcluster.Node) error) error {
	for _, n := range w.cluster.Nodes {
		if n == w.victim {
			continue
		}
		if err := f(n); err != nil {
			return err
		}
	}
	return nil
}

// folder is where the victim's files are that are harmed.
func (w *world) folder() string {
	if w.wires != "" {
		return filepath.Join(w.wires, w.victim.Name)
	}
	return w.victim.Dir
}

func (w *world) save() error    { return copyDir(w.folder(), w.backup) }
func (w *world) restore() error { return copyDir(w.backup, w.folder()) }

func copyDir(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	text, err := exec.Command("cp", "-a", "--sparse=always", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy: %w: %s", err, text)
	}
	return nil
}

func (w *world) close() error {
	close(w.stop)
	w.wg.Wait()
	if w.cluster == nil {
		return nil
	}
	return w.cluster.Close()
}
