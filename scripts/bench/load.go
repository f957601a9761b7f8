package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Limits of the load.
const (
	requestTimeout  = 30 * time.Second
	dialTimeout     = 5 * time.Second
	maxAnswerBytes  = 64 << 20
	warmUpShare     = 0.2 // of a cell's time, before it
	minOperations   = 30  // a slow cell goes on until it has so many…
	maxCellStretch  = 3   // …but no longer than its time so many times
	maxFailureSleep = 20 * time.Millisecond
)

// operation fills in the next request and returns what its answer must be.
type operation func(r *rand.Rand, req *fasthttp.Request) check

// check says what is wrong with an answer; nil: it counts as done.
type check func(status int, body []byte) error

// cell is one measurement: a workload at a number of connections.
type cell struct {
	Conns     int
	Rate      float64 // operations per second that succeeded
	Done      int
	Errors    int // answers that are not what the workload asks for, all other than 2xx among them
	FirstErr  string
	P50, P99  time.Duration // of those that succeeded
	ClientCPU float64       // cores that this program used meanwhile
	ServerCPU time.Duration // processor time of all the contender's processes for one operation that succeeded
}

// load is a closed loop: every connection sends its next request as soon as it has the answer to the last.
type load struct {
	contender *contender
	conns     int
	time      time.Duration
	op        operation
}

// loader is one connection of the loop. Where there are fewer connections than addresses it holds one to each
// address and uses them in turn; otherwise it stays with its own address.
type loader struct {
	clients  []*fasthttp.HostClient
	rng      *rand.Rand
	open     connections
	took     []time.Duration
	errors   int
	firstErr string
	measured time.Duration
}

// connections are the open sockets of a loader, closed all at once when the run is interrupted.
type connections struct {
	mu     sync.Mutex
	list   []net.Conn
	closed bool
}

func (c *connections) dial(addr string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp4", addr, dialTimeout)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed { // while this one was made: nobody would end a request on it
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	c.list = append(c.list, conn)
	return conn, nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, conn := range c.list {
		_ = conn.Close() // may be closed already
	}
}

func newLoader(c *contender, number, conns int) *loader {
	l := &loader{rng: rand.New(rand.NewPCG(uint64(number), uint64(time.Now().UnixNano())))}
	addrs := c.Addrs
	if conns >= len(addrs) {
		addrs = addrs[number%len(addrs):][:1]
	}
	for _, addr := range addrs {
		l.clients = append(l.clients, &fasthttp.HostClient{
			Addr: addr, MaxConns: 1, MaxIdemponentCallAttempts: 1, Dial: l.open.dial,
			ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, MaxIdleConnDuration: time.Minute,
			MaxResponseBodySize: maxAnswerBytes, NoDefaultUserAgentHeader: true,
			DisablePathNormalizing: true, ReadBufferSize: 16 << 10,
		})
	}
	return l
}

// run measures one cell. Each connection's rate is what it did from the first request that outlasted the warm-up to its
// last answer, so that slow requests at the end count for neither too much nor too little; the sum is the cell's rate.
func (ld load) run(ctx context.Context) (cell, error) {
	loaders := make([]*loader, ld.conns)
	var wg sync.WaitGroup
	var done atomic.Int64
	start := time.Now().Add(time.Duration(warmUpShare * float64(ld.time)))
	end, last := start.Add(ld.time), start.Add(maxCellStretch*ld.time)
	more := func(now time.Time) bool {
		return ctx.Err() == nil && (now.Before(end) || now.Before(last) && done.Load() < minOperations)
	}
	clientBefore, serverBefore, all := cpuTime(), ld.contender.cpuTime(), time.Now()
	for i := range loaders {
		loaders[i] = newLoader(ld.contender, i, ld.conns)
		wg.Go(func() { loaders[i].loop(ctx, ld.op, start, more, &done) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return cell{}, err
	}
	c := cell{Conns: ld.conns}
	span := time.Since(all).Seconds()
	c.ClientCPU = (cpuTime() - clientBefore).Seconds() / span
	server := (ld.contender.cpuTime() - serverBefore).Seconds() / span
	var took []time.Duration
	for _, l := range loaders {
		took = append(took, l.took...)
		c.Errors += l.errors
		if c.FirstErr == "" {
			c.FirstErr = l.firstErr
		}
		if l.measured > 0 {
			c.Rate += float64(len(l.took)) / l.measured.Seconds()
		}
	}
	slices.Sort(took)
	c.Done, c.P50, c.P99 = len(took), percentile(took, 0.50), percentile(took, 0.99)
	if c.Rate > 0 {
		c.ServerCPU = time.Duration(server / c.Rate * float64(time.Second))
	}
	return c, nil
}

// loop sends requests until more says no.
func (l *loader) loop(ctx context.Context, op operation, start time.Time, more func(time.Time) bool, done *atomic.Int64) {
	stop := context.AfterFunc(ctx, l.open.close)
	defer stop()
	defer l.open.close()
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	var first time.Time
	begun := time.Now()
	for turn := 0; more(begun); turn++ {
		req.Reset()
		resp.Reset()
		client := l.clients[turn%len(l.clients)]
		verify := op(l.rng, req)
		req.Header.SetHost(client.Addr)
		req.Header.Set("Authorization", authorization)
		begun = time.Now()
		err := client.Do(req, resp)
		if err == nil {
			err = verify(resp.StatusCode(), resp.Body())
		}
		ended := time.Now()
		// A request that outlasts the warm-up counts, and its connection's time begins with it: otherwise a server
		// slower than the warm-up would seem to do nothing.
		if ended.Before(start) {
			begun = ended
			continue
		}
		if first.IsZero() {
			first = begun
		}
		if err == nil {
			l.took = append(l.took, ended.Sub(begun))
			done.Add(1)
		} else if ctx.Err() == nil {
			l.fail(err)
			ended = time.Now()
		}
		l.measured = ended.Sub(first)
		begun = ended
	}
}

// fail counts an error and waits a moment, so that a server which refuses at once is not drowned.
func (l *loader) fail(err error) {
	l.errors++
	if l.firstErr == "" {
		l.firstErr = err.Error()
	}
	var answer *wrongAnswer
	if !errors.As(err, &answer) {
		time.Sleep(maxFailureSleep)
	}
}

// wrongAnswer is an answer that does not do what was asked for.
type wrongAnswer struct {
	status int
	body   string
}

// Error implements error.
func (w *wrongAnswer) Error() string { return fmt.Sprintf("%d %s", w.status, w.body) }

func wrong(status int, body []byte) error {
	return &wrongAnswer{status, string(body[:min(len(body), 200)])}
}

// percentile of sorted durations by the nearest rank; 0 when there are none.
func percentile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
