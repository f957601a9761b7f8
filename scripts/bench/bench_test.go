package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A record is valid JSON of the promised size, the same for the same number, and needs no escape in COPY.
func TestRecordsAreWhatBothServersGet(t *testing.T) {
	seen := map[string]bool{}
	for i := range 2000 {
		data := appendRecord(nil, i)
		if !json.Valid(data) || len(data) != recordBytes {
			t.Fatalf("record %d: %d bytes: %s", i, len(data), data)
		}
		if !bytes.Equal(data, appendRecord(nil, i)) || bytes.ContainsAny(data, "\\\t\n") {
			t.Fatalf("record %d: %s", i, data)
		}
		if id := recordID(i); seen[id] || len(id) != 36 {
			t.Fatalf("id %q", id)
		}
		seen[recordID(i)] = true
	}
	if !json.Valid(seedBatch(3, 9)) {
		t.Errorf("%s", seedBatch(3, 9))
	}
}

// serve is a contender that answers as handler does.
func serve(t *testing.T, handler http.HandlerFunc) *contender {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return &contender{Name: "test", Addrs: []string{strings.TrimPrefix(s.URL, "http://")}, PIDs: []int{os.Getpid()}}
}

// A wrong answer must never count as an operation: neither another status, nor a 200 without the content.
func TestWrongAnswersAreErrors(t *testing.T) {
	record := func(n int) string { return strings.Repeat(`{"id":"x","last_modified":1},`, n) }
	created := strings.Repeat(`{"status":201},`, batchSize)
	cases := []struct {
		name     string
		workload string
		status   int
		body     string
		errors   bool
	}{
		{"created", "create", 201, `{}`, false},
		{"conflict", "create", 409, `{"code":409}`, true},
		{"existing", "create", 200, `{}`, true},
		{"another record", "read", 200, `{"data":{"id":"other"}}`, true},
		{"not found", "read", 404, `{}`, true},
		{"full page", "page", 200, record(pageSize), false},
		{"short page", "page", 200, record(pageSize - 1), true},
		{"whole batch", "batch", 200, created, false},
		{"batch with a refusal", "batch", 200, created[15:] + `{"status":409,"errno":122}`, true},
		{"refused batch", "batch", 503, `{}`, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			})
			got := take(t, server, c.workload, 1)
			if (got.Errors > 0) != c.errors || (got.Done > 0) == c.errors {
				t.Errorf("%d done, %d errors: %s", got.Done, got.Errors, got.FirstErr)
			}
		})
	}
}

func take(t *testing.T, c *contender, name string, conns int) cell {
	t.Helper()
	for _, w := range workloads {
		if w.name == name {
			op, err := w.prepare(context.Background(), c, 1000)
			if err != nil {
				t.Fatal(err)
			}
			// On a busy machine a short run may see no answer at all.
			for span := 60 * time.Millisecond; ; span *= 4 {
				got, err := load{contender: c, conns: conns, time: span, op: op}.run(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if got.Done+got.Errors > 0 || span > 10*time.Second {
					return got
				}
			}
		}
	}
	t.Fatalf("no workload %s", name)
	return cell{}
}

// `_since` asks for exactly the changes that the name says.
func TestSinceAsksForTheNamedChanges(t *testing.T) {
	var asked atomic.Value
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("_sort") != "" {
			fmt.Fprint(w, `{"data":[`+strings.Repeat(`{"last_modified":9},`, 10)+`{"last_modified":7}]}`)
			return
		}
		asked.Store(r.FormValue("_since"))
		fmt.Fprint(w, strings.Repeat(`"last_modified"`, 10))
	})
	if got := take(t, c, "since10", 1); got.Errors > 0 || got.Done == 0 || asked.Load() != "7" {
		t.Errorf("%+v, _since=%v", got, asked.Load())
	}
}

// The rate is that of the loop: n connections that each wait a known time, a request slower than the warm-up included.
func TestRateOfAKnownServer(t *testing.T) {
	const wait = 20 * time.Millisecond
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(wait)
		w.WriteHeader(http.StatusCreated)
	})
	op, err := prepareCreate(t.Context(), c, 1000)
	if err != nil {
		t.Fatal(err)
	}
	// The second is long enough for a machine that stands still for a moment.
	for _, span := range []time.Duration{60 * time.Millisecond, 2 * time.Second} {
		got, err := load{contender: c, conns: 4, time: span, op: op}.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if most := 4 / wait.Seconds(); got.Rate > most*1.01 || span > time.Second && got.Rate < most/4 {
			t.Errorf("%.0f/s, at most %.0f/s are possible", got.Rate, most)
		}
		if got.Done == 0 || got.P50 < wait || got.P99 < got.P50 {
			t.Errorf("%d done, p50 %s, p99 %s", got.Done, got.P50, got.P99)
		}
	}
}

// Fewer connections than nodes take turns, more are spread evenly.
func TestLoadersReachAllNodes(t *testing.T) {
	c := &contender{Addrs: []string{"a:1", "b:1", "c:1"}}
	if l := newLoader(c, 0, 1); len(l.clients) != 3 {
		t.Errorf("one connection has %d addresses", len(l.clients))
	}
	reached := map[string]int{}
	for i := range 6 {
		l := newLoader(c, i, 6)
		reached[l.clients[0].Addr] += len(l.clients)
	}
	for _, addr := range c.Addrs {
		if reached[addr] != 2 {
			t.Errorf("%v", reached)
		}
	}
}

// An interrupted run ends at once, in the middle of a request that hangs.
func TestInterruptEndsARequest(t *testing.T) {
	hang := make(chan struct{})
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	defer close(hang)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	op, _ := prepareCreate(ctx, c, 1)
	begun := time.Now()
	_, err := load{contender: c, conns: 2, time: time.Minute, op: op}.run(ctx)
	if err == nil || time.Since(begun) > 30*time.Second {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
}

// A connection that is made while the run is interrupted is no way around it.
func TestInterruptEndsALateConnection(t *testing.T) {
	c := serve(t, func(http.ResponseWriter, *http.Request) {})
	var open connections
	open.close()
	if conn, err := open.dial(c.Addrs[0]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v %v", conn, err)
	}
}

// sample is a comparison in which quinto did 30, 20, 25 times as much.
func sample() *versus {
	r := &row{workload: workloads[0], BestConns: 16, Quinto: map[int][]cell{}}
	for i, factor := range []float64{30, 20, 25} {
		kinto := float64(100 + 10*i)
		r.Kinto = append(r.Kinto, cell{Conns: 16, Rate: kinto, Done: 10})
		for _, conns := range r.workload.conns {
			r.Quinto[conns] = append(r.Quinto[conns], cell{Conns: conns, Rate: factor * kinto, Done: 10, P50: 2 * time.Millisecond})
		}
	}
	return &versus{Rounds: 3, Seconds: 5, Records: 1000, Rows: []*row{r}, Syncs: []time.Duration{time.Millisecond / 4}}
}

// The ratio is of each round, not of medians, and an error misses the target.
func TestTargetsAreJudgedByRound(t *testing.T) {
	v := sample()
	if got := v.Rows[0].ratio(64); got != (spread{25, 20, 30}) {
		t.Errorf("ratio %v", got)
	}
	targets := v.targets()
	if len(targets) != 2 || !targets[0].reached || !targets[1].reached {
		t.Errorf("%+v", targets)
	}
	v.Rows[0].Quinto[64][1].Errors = 1
	v.Syncs[0] = 0
	v.Rows[0].Quinto[1][0].P50, v.Rows[0].Quinto[1][1].P50 = time.Second, time.Second
	for _, target := range v.targets() {
		if target.reached {
			t.Errorf("%+v", target)
		}
	}
}

// A run without the big part keeps what an earlier run has written of it.
func TestDocumentKeepsPartsNotMeasured(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results", "bench.md")
	big := &document{Big: &bigResult{Records: 1_000_000, Starts: []time.Duration{time.Second}}}
	if err := big.write(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := (&document{Versus: sample()}).write(path); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"## Beside Kinto", "## One node with 1000000 records", "| create one record | 64 |"} {
		if strings.Count(string(text), part) != 1 {
			t.Errorf("%q is there %d times in\n%s", part, strings.Count(string(text), part), text)
		}
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a name) with) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 25 75 20 0 1 0 5 6 7"
	got, err := parseStat([]byte(line))
	want := usage{pid: 42, parent: 7, own: 2 * time.Second, reaped: time.Second}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := parseStat([]byte("nothing")); err == nil {
		t.Error("nonsense was accepted")
	}
	if treeTime([]int{os.Getpid()}) < 0 || treeTime(nil) != 0 {
		t.Error("no time of this process")
	}
}

func TestFlagsAreBounded(t *testing.T) {
	for _, args := range [][]string{
		{"--rounds", "0"}, {"--rounds", "1000"}, {"--seconds", "0"}, {"--seconds", "1e9"},
		{"--records", "1"}, {"--big-records", "10"}, {"--only", "("}, {"--unknown"},
	} {
		if _, err := parseFlags(args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
	o, err := parseFlags([]string{"--quick"})
	if err != nil || o.out != "" || o.records != 10_000 {
		t.Errorf("%+v, %v", o, err)
	}
}
