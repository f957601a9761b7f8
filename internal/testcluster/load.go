package testcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Load writes records from several workers, each request to another node, and
// remembers what was acknowledged. Every write carries an Idempotency-Key and
// is sent again under it until it is answered.
type Load struct {
	cluster *Cluster
	path    string
	stop    chan struct{}
	wg      sync.WaitGroup
	next    atomic.Int64
	retries atomic.Int64

	mu      sync.Mutex
	acked   map[string]string // id → content
	longest time.Duration     // between two acknowledgements
	last    time.Time
	odd     []string // answers that no client should see
}

// StartLoad makes the bucket and collection of name and starts workers.
func (c *Cluster) StartLoad(ctx context.Context, name string, workers int) (*Load, error) {
	l := &Load{cluster: c, path: "/buckets/" + name + "/collections/c/records", stop: make(chan struct{}), acked: map[string]string{}, last: time.Now()}
	for _, p := range []string{"/buckets/" + name, "/buckets/" + name + "/collections/c"} {
		if code, body, err := c.Nodes[0].Ask(ctx, http.MethodPut, p, nil, nil); err != nil || code >= 300 {
			return nil, fmt.Errorf("testcluster: PUT %s: %d %s %w", p, code, body, err)
		}
	}
	for w := range workers {
		l.wg.Go(func() { l.work(w) })
	}
	return l, nil
}

// Stop ends the workers and waits for their last answers.
func (l *Load) Stop() {
	close(l.stop)
	l.wg.Wait()
}

func (l *Load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (l *Load) work(worker int) {
	for !l.stopped() {
		n := l.next.Add(1)
		id := fmt.Sprintf("w%d-%d", worker, n)
		content := fmt.Sprintf("%s-%0200d", id, n)
		l.write(int(n), id, content)
	}
}

// writeLimit is how long a record is sent again: more than all nodes may be away.
const writeLimit = 2 * time.Minute

// write sends one record until it is acknowledged.
func (l *Load) write(n int, id, content string) {
	body := fmt.Appendf(nil, `{"data":{"content":%q}}`, content)
	for end, try := time.Now().Add(writeLimit), 0; time.Now().Before(end); try++ {
		nodes := l.cluster.all()
		node := nodes[(n+try)%len(nodes)]
		if !node.Running() || node.paused.Load() {
			time.Sleep(time.Millisecond) // all of them may be away
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		code, answer, err := node.Do(ctx, http.MethodPut, l.path+"/"+id, body, map[string]string{"Idempotency-Key": l.path + "/" + id, "If-None-Match": "*"})
		cancel()
		if err == nil && code == http.StatusCreated {
			l.ack(id, content)
			return
		}
		if err == nil && code != http.StatusServiceUnavailable {
			l.mu.Lock()
			l.odd = append(l.odd, fmt.Sprintf("%s through %s: %d %s", id, node.Name, code, answer))
			l.mu.Unlock()
			return
		}
		l.retries.Add(1)
		time.Sleep(20 * time.Millisecond)
	}
	l.mu.Lock()
	l.odd = append(l.odd, id+": never acknowledged")
	l.mu.Unlock()
}

func (l *Load) ack(id, content string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.longest = max(l.longest, now.Sub(l.last))
	l.last = now
	l.acked[id] = content
}

// Report is what a load saw.
type Report struct {
	Acked   int
	Retries int64
	Outage  time.Duration // longest time without an acknowledgement
}

// Verify reads the whole collection through every running node and compares it
// with what was acknowledged: nothing lost, nothing doubled, nothing altered.
func (l *Load) Verify(ctx context.Context) (Report, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Report{Acked: len(l.acked), Retries: l.retries.Load(), Outage: l.longest}
	if len(l.odd) > 0 {
		return r, fmt.Errorf("testcluster: %d wrong answers, the first: %s", len(l.odd), l.odd[0])
	}
	for _, n := range l.cluster.all() {
		if !n.Running() || n.paused.Load() {
			continue
		}
		stored, err := n.Records(ctx, l.path)
		if err != nil {
			return r, fmt.Errorf("%s: %w", n.Name, err)
		}
		for id, content := range l.acked {
			if stored[id] != content {
				return r, fmt.Errorf("testcluster: %s: record %s is %.40q, acknowledged %.40q", n.Name, id, stored[id], content)
			}
		}
		if len(stored) != len(l.acked) {
			return r, fmt.Errorf("testcluster: %s has %d records, %d were acknowledged and none is unknown", n.Name, len(stored), len(l.acked))
		}
	}
	return r, nil
}

// Records reads a whole list of records with a field "content".
func (n *Node) Records(ctx context.Context, path string) (map[string]string, error) {
	return n.RecordsAt(ctx, path, "linearizable")
}

// RecordsAt is Records at a level of freshness, as Quinto-Consistency names it.
func (n *Node) RecordsAt(ctx context.Context, path, level string) (map[string]string, error) {
	out := map[string]string{}
	before := ""
	for range 1000 {
		code, body, err := n.Ask(ctx, http.MethodGet, path+"?_sort=-last_modified&_limit=5000"+before, nil, map[string]string{"Quinto-Consistency": level})
		if err != nil || code != http.StatusOK {
			return nil, fmt.Errorf("list: %d %.200s %w", code, body, err)
		}
		var page struct {
			Data []struct {
				ID           string `json:"id"`
				Content      string `json:"content"`
				LastModified int64  `json:"last_modified"`
			} `json:"data"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, err
		}
		for _, d := range page.Data {
			out[d.ID] = d.Content
			before = fmt.Sprintf("&_before=%d", d.LastModified)
		}
		if len(page.Data) < 5000 {
			return out, nil
		}
	}
	return nil, fmt.Errorf("testcluster: %s has more pages than the bound", path)
}

// SameState waits until all running nodes have applied the same entries and
// compares their hashes. Nodes that differ at the same entry fail at once; an
// idle cluster still logs a cursor now and then, so they may have to be asked
// again to be caught at the same one.
func (c *Cluster) SameState(ctx context.Context) (Hash, error) {
	hashes, err := c.SameHashes(ctx)
	if len(hashes) == 0 {
		return Hash{}, err
	}
	return hashes[0], err
}

// SameHashes is SameState with the hashes of all running nodes, also where they
// differ.
func (c *Cluster) SameHashes(ctx context.Context) ([]Hash, error) {
	for {
		hashes, err := c.hashes(ctx)
		if err != nil {
			return nil, err
		}
		same := true
		for _, h := range hashes[1:] {
			same = same && h.Applied == hashes[0].Applied
			if h.Applied == hashes[0].Applied && (h.Full != hashes[0].Full || h.State != hashes[0].State || h.Revision != hashes[0].Revision) {
				return hashes, fmt.Errorf("testcluster: states differ after the same entry: %+v and %+v", hashes[0], h)
			}
		}
		if same {
			return hashes, nil
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return hashes, fmt.Errorf("testcluster: not at the same entry in time: %+v", hashes)
		}
	}
}

// hashes asks all running nodes at once, at the newest revision of the leader.
func (c *Cluster) hashes(ctx context.Context) ([]Hash, error) {
	leader, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	s, err := leader.Status(ctx)
	if err != nil {
		return nil, err
	}
	hashes := make([]Hash, len(c.Nodes))
	errs := make([]error, len(c.Nodes))
	var wg sync.WaitGroup
	for i, n := range c.Nodes {
		if n.Running() && !n.paused.Load() {
			wg.Go(func() { hashes[i], errs[i] = n.Hash(ctx, s.Revision) })
		}
	}
	wg.Wait()
	hashes = slices.DeleteFunc(hashes, func(h Hash) bool { return h.Name == "" })
	if err := errors.Join(errs...); err != nil || len(hashes) == 0 {
		return nil, fmt.Errorf("testcluster: hashes: %w", err)
	}
	return hashes, nil
}
