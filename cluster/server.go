package cluster

import (
	"bufio"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// callHandler serves one call. Its context ends with the caller's deadline or
// with the node.
type callHandler func(ctx context.Context, payload []byte) (callStatusCode, []byte)

// maxCallTime bounds a call, whatever deadline its caller names.
const maxCallTime = time.Minute

// maxWaiting bounds the goroutines that wait for a call; each has some KiB of stack.
const maxWaiting = 128

// server answers calls on the rpc channel, a bounded number at a time.
type server struct {
	ctx      context.Context
	handlers map[callType]callHandler
	// member says whether a peer may call more than join, now: members come and go.
	member func(*hello) bool

	calls atomic.Int64
	bytes atomic.Int64
	wg    sync.WaitGroup

	// next is where goroutines that have served a call wait for another one: their
	// stacks are grown already, which for a write costs as much as its hash. nil:
	// none waits.
	next    chan func()
	waiting atomic.Int64
}

// serve reads calls from conn until it ends.
func (s *server) serve(conn net.Conn, h *hello) {
	ctx := context.WithValue(s.ctx, peerKey{}, h)
	out := make(chan []byte, clientQueue)
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { writeFrames(conn, out, done) })
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		f, err := readFrame(r, conn)
		if err != nil {
			break
		}
		handler := s.handlers[f.kind]
		if f.kind != callJoin && !s.member(h) {
			handler = nil
		}
		s.accept(ctx, handler, f, out, done)
	}
	_ = conn.Close() // ends the writer too, whatever ended the reader
	close(done)
	writer.Wait()
}

// accept starts the handler h of a call, or refuses it at once; nil: a call that
// this node does not know, or not from this peer.
func (s *server) accept(ctx context.Context, h callHandler, f *frame, out chan<- []byte, done <-chan struct{}) {
	answer := func(status callStatusCode, payload []byte) {
		b := encodeFrame(&frame{kind: f.kind, status: status, id: f.id, payload: payload})
		select {
		case out <- b:
		case <-done: // the caller is gone
		}
	}
	size := int64(len(f.payload))
	if h == nil {
		answer(statusUnknown, nil)
		return
	}
	calls, bytes := s.calls.Add(1), s.bytes.Add(size)
	if calls > MaxCalls || bytes > MaxCallsBytes {
		s.calls.Add(-1)
		s.bytes.Add(-size)
		answer(statusOverloaded, nil)
		return
	}
	s.run(func() {
		defer s.calls.Add(-1)
		defer s.bytes.Add(-size)
		ctx, cancel := context.WithTimeout(ctx, min(time.Duration(f.deadline)*time.Millisecond, maxCallTime))
		defer cancel()
		status, payload := h(ctx, f.payload)
		if len(payload) > MaxCallBytes {
			status, payload = statusFailed, []byte("answer beyond the limit of a call")
		}
		answer(status, payload)
	})
}

// run calls f in a goroutine that waits for work, or in a new one.
func (s *server) run(f func()) {
	select {
	case s.next <- f:
	default:
		s.wg.Go(func() { s.work(f) })
	}
}

// work calls f and then what comes next, until the node ends or enough others wait.
func (s *server) work(f func()) {
	for {
		f()
		if s.next == nil {
			return
		}
		if s.waiting.Add(1) > maxWaiting {
			s.waiting.Add(-1)
			return
		}
		select {
		case f = <-s.next:
			s.waiting.Add(-1)
		case <-s.ctx.Done():
			return
		}
	}
}

// drain waits until no call is served or ctx ends.
func (s *server) drain(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.calls.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
