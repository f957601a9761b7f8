package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quinto/internal/testcluster"
)

// Limits of a run on several nodes.
const (
	nodesTimeout  = 60 * time.Second       // until all nodes serve
	resendTimeout = 30 * time.Second       // how long a request is sent again while there is no leader
	resendPause   = 100 * time.Millisecond // between two tries
	maxStatusRead = 5 * time.Second        // how long the killer looks for a leader
)

// nodes is a cluster of quinto on loopback that answers as one server.
type nodes struct {
	Server
	cluster *testcluster.Cluster
	cancel  context.CancelFunc
	killer  sync.WaitGroup
	failure error // of the killer
}

// spread sends the requests to one node after the other.
type spread struct {
	bases  []string
	next   atomic.Uint64
	kills  atomic.Uint64 // leaders that were killed
	resent atomic.Uint64 // requests that were sent again
}

// startNodes starts o.nodes nodes on the scenarios' settings and, with o.killEvery, what kills their leader at intervals.
func startNodes(ctx context.Context, o options, dir, settings string) (_ *nodes, err error) {
	c, err := testcluster.New(testcluster.Options{Binary: o.quinto, Dir: dir, WorkDir: dir, Nodes: o.nodes})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.INI, []byte(iniText(0, settings, "", "")), 0o600); err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, nodesTimeout)
	defer cancel()
	if err := c.Start(ready); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	n := &nodes{cluster: c, Server: Server{Name: "quinto", spread: o.spread.add(c)}}
	n.Base = n.spread.bases[0]
	ctx, n.cancel = context.WithCancel(ctx)
	if o.killEvery > 0 {
		n.killer.Go(func() { n.failure = n.killLeaders(ctx, o.killEvery) })
	}
	return n, nil
}

// killLeaders kills the leader with SIGKILL every so often and starts it again, until ctx ends. The first time comes early: many
// settings have a few scenarios only, which are over in seconds.
func (n *nodes) killLeaders(ctx context.Context, every time.Duration) error {
	for wait := every / 5; ; wait = every {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		look, cancel := context.WithTimeout(ctx, maxStatusRead)
		leader, err := n.cluster.Leader(look)
		cancel()
		if err != nil { // the settings under test may refuse the question
			continue
		}
		if err := leader.Kill(); err != nil {
			return err
		}
		n.spread.kills.Add(1)
		if err := leader.Start(); err != nil {
			return err
		}
		ready, cancel := context.WithTimeout(ctx, nodesTimeout)
		err = leader.WaitReady(ready)
		cancel()
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (n *nodes) stop() error {
	n.cancel()
	n.killer.Wait()
	return errors.Join(n.failure, n.cluster.Close())
}

// totals collects what all clusters of a run went through.
type totals struct {
	mu  sync.Mutex
	all []*spread
}

func (t *totals) add(c *testcluster.Cluster) *spread {
	s := &spread{}
	for _, node := range c.Nodes {
		s.bases = append(s.bases, "http://"+node.HTTP)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, s)
	return s
}

// String is one line for the report.
func (t *totals) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var kills, resent uint64
	for _, s := range t.all {
		kills += s.kills.Load()
		resent += s.resent.Load()
	}
	return fmt.Sprintf("clusters %d, leaders killed %d, requests sent again %d", len(t.all), kills, resent)
}

// doAnywhere sends a request to the next node, and to the one after when the connection is cut or the answer is 503: each time with
// the same Idempotency-Key, so that it is done at most once whichever node it reached before.
func (s Server) doAnywhere(ctx context.Context, client *http.Client, sent Sent) Answer {
	for _, base := range s.spread.bases { // a Next-Page names the node that gave it, which may be gone
		if rest, ok := strings.CutPrefix(sent.Target, base); ok {
			sent.Target = "root:" + rest
		}
	}
	if isWrite(sent.Method) && !hasHeader(sent, "Idempotency-Key") {
		sent.Header = append(sent.Header, [2]string{"Idempotency-Key", rand.Text()})
	}
	for deadline := time.Now().Add(resendTimeout); ; {
		node := s
		node.Base = s.spread.bases[s.spread.next.Add(1)%uint64(len(s.spread.bases))]
		node.spread = nil
		answer := node.do(ctx, client, sent)
		down := answer.Err != nil || answer.Status == http.StatusServiceUnavailable
		if !down || ctx.Err() != nil || time.Now().After(deadline) {
			return answer
		}
		s.spread.resent.Add(1)
		time.Sleep(resendPause)
	}
}

func isWrite(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return true
	}
	return false
}

func hasHeader(sent Sent, name string) bool {
	for _, h := range sent.Header {
		if strings.EqualFold(h[0], name) {
			return true
		}
	}
	return false
}
