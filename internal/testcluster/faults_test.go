package testcluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if binary = os.Getenv("QUINTO_BIN"); binary == "" {
		dir, err := os.MkdirTemp("", "quinto-bin")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if binary, err = Build(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// start brings up a cluster that ends with the test and shows its logs when
// the test failed.
func start(t *testing.T, nodes int, settings ...string) (*Cluster, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	c, err := New(Options{Binary: binary, Dir: t.TempDir(), Nodes: nodes, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, n := range c.Nodes {
			log := n.Log()
			if strings.Contains(log, "panic:") || strings.Contains(log, "DATA RACE") {
				t.Errorf("%s: its log has a panic or a race", n.Name)
			}
			if t.Failed() {
				t.Logf("%s:\n%s", n.Name, tail(log, 3000))
			}
		}
	})
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return c, ctx
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// finish stops the load, waits for one state and verifies it.
func finish(t *testing.T, ctx context.Context, c *Cluster, l *Load) {
	t.Helper()
	l.Stop()
	h := must(c.SameState(ctx))(t)
	r := must(l.Verify(ctx))(t)
	t.Logf("%d acknowledged, %d sent again, longest outage %s, revision %d, hash %.12s", r.Acked, r.Retries, r.Outage.Round(time.Millisecond), h.Revision, h.Full)
	if r.Acked == 0 {
		t.Fatal("the load did nothing")
	}
}

// Snapshots every few hundred entries, so that a follower that was away finds
// the log truncated.
var smallLog = []string{"quinto.snapshot_entries = 200", "quinto.trailing_entries = 50"}

func seconds(t *testing.T, long, short int) time.Duration {
	if testing.Short() {
		t.Logf("short: %d s instead of %d", short, long)
		return time.Duration(short) * time.Second
	}
	return time.Duration(long) * time.Second
}

func TestLeaderKilledUnderLoadLosesNothing(t *testing.T) {
	c, ctx := start(t, 3)
	l := must(c.StartLoad(ctx, "kill", 8))(t)
	for range 2 {
		time.Sleep(1500 * time.Millisecond)
		leader := must(c.Leader(ctx))(t)
		check(t, leader.Kill())
		time.Sleep(2500 * time.Millisecond)
		check(t, leader.Start())
		check(t, leader.WaitReady(ctx))
	}
	finish(t, ctx, c, l)
}

func TestFollowerAwayCatchesUpBySnapshot(t *testing.T) {
	c, ctx := start(t, 3, smallLog...)
	l := must(c.StartLoad(ctx, "away", 8))(t)
	follower := must(c.Followers(ctx))(t)[0]
	check(t, follower.Pause())
	time.Sleep(seconds(t, 60, 8))
	check(t, follower.Resume())
	time.Sleep(2 * time.Second)
	check(t, follower.WaitReady(ctx))
	finish(t, ctx, c, l)
}

// TestSlowFollower: a follower that runs a fifth of the time holds nobody up,
// and what it applies late is what was sent: buffers of requests that were
// answered long ago must not have been reused under it.
func TestSlowFollower(t *testing.T) {
	c, ctx := start(t, 3)
	slow := must(c.Followers(ctx))(t)[0]
	l := must(c.StartLoad(ctx, "slow", 8))(t)
	for end := time.Now().Add(seconds(t, 15, 6)); time.Now().Before(end); {
		check(t, slow.Pause())
		time.Sleep(200 * time.Millisecond)
		check(t, slow.Resume())
		time.Sleep(50 * time.Millisecond)
	}
	finish(t, ctx, c, l)
}

func TestEmptyDirectoryUnderNewName(t *testing.T) {
	c, ctx := start(t, 3, smallLog...)
	l := must(c.StartLoad(ctx, "empty", 4))(t)
	time.Sleep(time.Second)
	dead := must(c.Followers(ctx))(t)[0]
	check(t, dead.Kill())
	fresh := must(c.Add("n4"))(t)
	check(t, fresh.Start())
	check(t, fresh.WaitReady(ctx))
	for {
		s := must(c.Nodes[0].live(c).Status(ctx))(t)
		i := slices.IndexFunc(s.Members, func(m Member) bool { return m.Name == "n4" })
		if i >= 0 && s.Members[i].Suffrage == "voter" && s.Members[i].Ready {
			break
		}
		check(t, sleep(ctx, 100*time.Millisecond))
	}
	finish(t, ctx, c, l)
}

// live returns n, or another node of c when n does not run.
func (n *Node) live(c *Cluster) *Node {
	for _, o := range append([]*Node{n}, c.Nodes...) {
		if o.Running() && !o.paused.Load() {
			return o
		}
	}
	return n
}

// TestWipedDiskUnderOldNameIsRefused: a node that forgot its vote must not
// vote again under its name (reliability: the wiped disk).
func TestWipedDiskUnderOldNameIsRefused(t *testing.T) {
	c, ctx := start(t, 3)
	victim := must(c.Followers(ctx))(t)[0]
	check(t, victim.Kill())
	check(t, os.RemoveAll(victim.Dir))
	check(t, os.MkdirAll(victim.Dir, 0o700))
	before := len(victim.Log())
	check(t, victim.Start())
	for !strings.Contains(victim.Log()[before:], "name is taken") { // a slow machine takes its time to come so far
		check(t, sleep(ctx, 20*time.Millisecond))
	}
	wait, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := victim.WaitReady(wait); err == nil {
		t.Fatal("a node with a wiped disk serves under its old name")
	}
	if log := victim.Log(); !strings.Contains(log, victim.Name) || !strings.Contains(strings.ToLower(log), "name") {
		t.Fatalf("the log does not say what is wrong:\n%s", tail(log, 2000))
	}
	leader := must(c.Leader(ctx))(t)
	if code, body, err := leader.Ask(ctx, http.MethodPut, "/buckets/still-writable", nil, map[string]string{"Idempotency-Key": "one effect"}); err != nil || code != http.StatusCreated {
		t.Fatalf("the rest of the cluster: %d %s %v", code, body, err)
	}
}

func TestPlannedStopHandsLeadershipOver(t *testing.T) {
	c, ctx := start(t, 3)
	l := must(c.StartLoad(ctx, "planned", 4))(t)
	time.Sleep(time.Second)
	leader := must(c.Leader(ctx))(t)
	check(t, leader.Stop())
	time.Sleep(time.Second)
	check(t, leader.Start())
	check(t, leader.WaitReady(ctx))
	l.Stop()
	must(c.SameState(ctx))(t)
	r := must(l.Verify(ctx))(t)
	t.Logf("%d acknowledged, longest outage %s", r.Acked, r.Outage)
}

func TestAllKilledAtOnceLoseNothing(t *testing.T) {
	c, ctx := start(t, 3, smallLog...)
	l := must(c.StartLoad(ctx, "all", 8))(t)
	time.Sleep(2 * time.Second)
	for _, n := range c.Nodes {
		check(t, n.Kill())
	}
	check(t, sleep(ctx, 200*time.Millisecond)) // no node at all: no write of the load may be given up
	for _, n := range c.Nodes {
		check(t, n.Start())
	}
	check(t, c.WaitReady(ctx, c.Nodes...))
	time.Sleep(500 * time.Millisecond)
	finish(t, ctx, c, l)
}

// TestManyPatchersOfOneRecord: contention never fails an unconditional write.
func TestManyPatchersOfOneRecord(t *testing.T) {
	c, ctx := start(t, 3)
	for _, p := range []string{"/buckets/p", "/buckets/p/collections/c", "/buckets/p/collections/c/records/r"} {
		if code, body, err := c.Nodes[0].Ask(ctx, http.MethodPut, p, nil, map[string]string{"Idempotency-Key": p}); err != nil || code != http.StatusCreated {
			t.Fatalf("%d %s %v", code, body, err)
		}
	}
	const clients, each = 64, 5
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for j := range each {
				body := fmt.Appendf(nil, `{"data":{"k%d":%d}}`, i, j)
				code, answer, err := c.Nodes[(i+j)%3].Do(ctx, http.MethodPatch, "/buckets/p/collections/c/records/r", body, nil)
				if err != nil || code != http.StatusOK {
					t.Errorf("patch: %d %s %v", code, answer, err)
				}
			}
		})
	}
	wg.Wait()
	_, body, err := c.Nodes[1].Ask(ctx, http.MethodGet, "/buckets/p/collections/c/records/r", nil, nil)
	check(t, err)
	var got struct{ Data map[string]any }
	check(t, json.Unmarshal(body, &got))
	for i := range clients {
		if got.Data[fmt.Sprint("k", i)] != float64(each-1) {
			t.Errorf("k%d is %v: a patch was lost", i, got.Data[fmt.Sprint("k", i)])
		}
	}
}

// TestSameKeyThroughAnotherNode: the connection is cut before the answer, the
// request is sent again through another node under the same Idempotency-Key,
// and there is one effect and one answer.
func TestSameKeyThroughAnotherNode(t *testing.T) {
	c, ctx := start(t, 3)
	for _, p := range []string{"/buckets/i", "/buckets/i/collections/c"} {
		_, _, err := c.Nodes[0].Ask(ctx, http.MethodPut, p, nil, nil)
		check(t, err)
	}
	const path = "/buckets/i/collections/c/records"
	for i := range 30 {
		key := fmt.Sprint("key-", i)
		body := fmt.Sprintf(`{"data":{"content":"%d"}}`, i)
		cut(t, c.Nodes[i%3], path, key, body, time.Duration(i)*200*time.Microsecond)
		var answers []string
		for try := range 3 {
			code, answer, err := c.Nodes[(i+1+try)%3].Ask(ctx, http.MethodPost, path, []byte(body), map[string]string{"Idempotency-Key": key})
			if err != nil || code != http.StatusCreated {
				t.Fatalf("%s: %d %s %v", key, code, answer, err)
			}
			answers = append(answers, string(answer))
		}
		if answers[0] != answers[1] || answers[1] != answers[2] {
			t.Fatalf("answers to one key differ:\n%s", strings.Join(answers, "\n"))
		}
		code, answer, err := c.Nodes[0].Ask(ctx, http.MethodPost, path, []byte(`{"data":{"content":"other"}}`), map[string]string{"Idempotency-Key": key})
		if err != nil || code != http.StatusBadRequest {
			t.Fatalf("another request under a used key: %d %s %v", code, answer, err)
		}
	}
	stored := must(c.Nodes[2].Records(ctx, path))(t)
	if len(stored) != 30 {
		t.Fatalf("%d records for 30 keys", len(stored))
	}
}

// cut sends a POST by hand and closes the connection after d, with no regard
// for the answer.
func cut(t *testing.T, n *Node, path, key, body string, d time.Duration) {
	t.Helper()
	conn, err := net.Dial("tcp", n.HTTP)
	check(t, err)
	defer conn.Close()
	w := bufio.NewWriter(conn)
	fmt.Fprintf(w, "POST /v1%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic dGVzdGVyOnRlc3Rlcg==\r\nContent-Type: application/json\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		path, n.HTTP, key, len(body), body)
	check(t, w.Flush())
	time.Sleep(d)
}
