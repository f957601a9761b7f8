package cluster

import (
	"context"
	"fmt"
	"sync"

	"quinto/fsm"
)

// rounds runs one function for many waiters. Who arrives joins the round that
// starts after him, never the one under way: its answer could be older than his
// question.
type rounds[T any] struct {
	run func() (T, error) // one at a time; must end by itself

	mu      sync.Mutex
	next    *round[T]
	waiting int // in all rounds
	running bool
	closed  bool
	wg      sync.WaitGroup
}

type round[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// do waits for a round that began after the call.
func (b *rounds[T]) do(ctx context.Context) (T, error) {
	var none T
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return none, fsm.ErrClosed
	}
	if b.waiting >= MaxWaitingReads {
		b.mu.Unlock()
		return none, fmt.Errorf("%w: %d reads wait for the leader", fsm.ErrOverloaded, MaxWaitingReads)
	}
	b.waiting++
	if b.next == nil {
		b.next = &round[T]{done: make(chan struct{})}
	}
	r := b.next
	if !b.running {
		b.running = true
		b.wg.Go(b.loop)
	}
	b.mu.Unlock()
	defer b.left()
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func (b *rounds[T]) left() {
	b.mu.Lock()
	b.waiting--
	b.mu.Unlock()
}

// close lets the rounds under way end and starts no more.
func (b *rounds[T]) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wg.Wait()
}

func (b *rounds[T]) loop() {
	for {
		b.mu.Lock()
		r := b.next
		b.next = nil
		if r == nil {
			b.running = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		r.value, r.err = b.run()
		close(r.done)
	}
}
