package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// threeNodes are servers of which the first answers 503, the second cuts the connection and the third answers.
func threeNodes(t *testing.T, keys map[string]int) *spread {
	t.Helper()
	s := &spread{}
	var mu sync.Mutex // handlers may still be at work when the next request comes
	for i := range 3 {
		node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			keys[r.Header.Get("Idempotency-Key")]++
			mu.Unlock()
			switch i {
			case 0:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 1:
				panic(http.ErrAbortHandler)
			}
		}))
		t.Cleanup(node.Close)
		s.bases = append(s.bases, node.URL)
	}
	s.next.Store(2) // the next one is the first
	return s
}

func TestARequestIsSentAgainWithItsKeyUntilANodeAnswers(t *testing.T) {
	keys := map[string]int{}
	s := Server{Name: "quinto", spread: threeNodes(t, keys)}
	answer := s.do(context.Background(), newHTTPClient(), Sent{Method: "PUT", Target: "/buckets/b"})
	if answer.Err != nil || answer.Status != http.StatusOK {
		t.Fatalf("got %d, %v", answer.Status, answer.Err)
	}
	if len(keys) != 1 || keys[""] != 0 || s.spread.resent.Load() != 2 {
		t.Errorf("keys %v, sent again %d times", keys, s.spread.resent.Load())
	}
}

func TestReadsHaveNoKeyAndAScenariosOwnKeyStays(t *testing.T) {
	keys := map[string]int{}
	s := Server{Name: "quinto", spread: threeNodes(t, keys)}
	page := Sent{Method: "GET", Target: s.spread.bases[0] + "/v1/buckets?_limit=1"} // a Next-Page names a node that may be gone
	if answer := s.do(context.Background(), newHTTPClient(), page); answer.Status != http.StatusOK {
		t.Errorf("got %d, %v", answer.Status, answer.Err)
	}
	own := Sent{Method: "POST", Target: "/batch", Header: [][2]string{{"idempotency-key", "mine"}}}
	if answer := s.do(context.Background(), newHTTPClient(), own); answer.Status != http.StatusOK {
		t.Errorf("got %d, %v", answer.Status, answer.Err)
	}
	if keys[""] != 3 || keys["mine"] == 0 || len(keys) != 2 {
		t.Errorf("got %v", keys)
	}
}

// What a server counts is left out on several nodes; that it answers at all is not.
func TestMeasurementsAreOfOneNode(t *testing.T) {
	all := []*Scenario{{Name: "a"}, {Name: "b", Requests: []*Request{{Metrics: []string{"x_total"}}}}, {Name: "c", Requests: []*Request{{Metrics: []string{"none"}}}}}
	for nodes, want := range map[int]int{1: 3, 3: 2} {
		if chosen, err := choose(all, options{nodes: nodes}); err != nil || len(chosen) != want {
			t.Errorf("on %d: %d scenarios, %v", nodes, len(chosen), err)
		}
	}
}
