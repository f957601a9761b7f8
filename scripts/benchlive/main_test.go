//go:build linux

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(i + 1)
	}
	for _, c := range []struct {
		samples [][]int64
		q       float64
		want    int64
	}{
		{nil, 0.99, 0},
		{[][]int64{{7}}, 0.99, 7},
		{[][]int64{hundred}, 0.99, 100}, // one of a hundred is above 99, which the share of one hundredth allows for no more
		{[][]int64{hundred}, 0.5, 51},
		{[][]int64{hundred[:50], hundred[50:]}, 0.5, 51},
		{[][]int64{{1, 1, 1}, {}, {9}}, 0.5, 1},
	} {
		if got := quantile(c.samples, c.q); got != c.want {
			t.Errorf("%v of %v: %d, want %d", c.q, c.samples, got, c.want)
		}
	}
}

func TestCompare(t *testing.T) {
	leg := func(scale int64) []int64 {
		s := make([]int64, 1000)
		for i := range s {
			s[i] = scale * int64(i+1)
		}
		return s
	}
	c := compare([][]int64{leg(10), leg(10), leg(10)}, [][]int64{leg(15), leg(15)}, 0.99)
	if c.ratio < 1.49 || c.ratio > 1.51 || c.low != c.high {
		t.Errorf("equal legs: %+v", c)
	}
	if c = compare([][]int64{leg(10), leg(20)}, [][]int64{leg(15), leg(15)}, 0.99); c.low >= c.ratio || c.high <= c.ratio {
		t.Errorf("legs that differ: %+v", c)
	}
}

// Marks are counted once, wherever what comes is cut.
func TestTailCounts(t *testing.T) {
	text := strings.Repeat("id: 7\nevent: change\ndata: {}\n\nevent: heartbeat\ndata: {}\n\n", 9)
	for size := 1; size < 60; size++ {
		var tl tail
		n := 0
		for part := range slices.Chunk([]byte(text), size) {
			n += tl.count(part, changeMark)
		}
		if n != 9 {
			t.Errorf("pieces of %d: %d", size, n)
		}
	}
}

// Writes are due at the rate, whatever the answers take, and each is answered.
func TestWritesAreDueWhateverAnswersTake(t *testing.T) {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err != nil || !strings.Contains(string(body), "data") || r.Method != http.MethodPut {
			t.Errorf("%s %q %v", r.Method, body, err)
		}
		if n.Add(1) == 10 {
			time.Sleep(300 * time.Millisecond)
		}
		_, _ = io.WriteString(w, "{}") // the client is there
	}))
	defer s.Close()
	addr := s.Listener.Addr().String()
	a, err := write(addr, order{Do: doWrite, Rate: 200, Conns: 4, For: time.Second, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	took := a.Sample.Took
	if len(took) != int(n.Load()) || len(took) < 120 || len(took) > 300 {
		t.Errorf("%d writes, %d answered", n.Load(), len(took))
	}
	if slices.Max(took) < 300_000 {
		t.Errorf("the longest took %d µs", slices.Max(took))
	}
	n.Store(10)
	if a, err = write(addr, order{Do: doWrite, Conns: 4, For: 100 * time.Millisecond}); err != nil || len(a.Sample.Took) < 4 {
		t.Errorf("%d writes as fast as they can: %v", len(a.Sample.Took), err)
	}
}
