package freeport

import (
	"errors"
	"net"
	"sync"
	"testing"
)

// few is a pool of a few blocks above those that programs take.
func few(t *testing.T, blocks int) *pool {
	p := &pool{lowest: 32_000, blocks: blocks}
	t.Cleanup(func() {
		for _, l := range p.held {
			_ = l.Close()
		}
	})
	return p
}

// Two programs that draw at the same time, each with many goroutines, never get one
// port twice, nor one that is taken.
func TestNoPortIsGivenTwice(t *testing.T) {
	mine, theirs := few(t, 10), few(t, 10)
	first, err := mine.get()
	if err != nil {
		t.Fatal(err)
	}
	if l, err := net.Listen("tcp4", address(first+1)); err == nil { // else somebody else has taken it
		defer l.Close()
	}
	if u, err := net.ListenPacket("udp4", address(first+2)); err == nil {
		defer u.Close()
	}
	var mu sync.Mutex
	seen := map[int]bool{first: true, first + 1: true, first + 2: true}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range blockSize / 2 {
				port, err := []*pool{mine, theirs}[i%2].get()
				mu.Lock()
				if err != nil || seen[port] || port <= 32_000 || port >= 32_000+10*blockSize {
					t.Errorf("%d: %v, given before: %t", port, err, seen[port])
				}
				seen[port] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// A program that has given all it can get begins with the first ones again; with no
// block at all there is an error.
func TestBlocksRunOut(t *testing.T) {
	mine, theirs := few(t, 1), few(t, 1)
	first, err := mine.get()
	for err != nil && mine.lowest < 32_000+10*blockSize { // somebody uses the block
		mine.lowest, theirs.lowest = mine.lowest+blockSize, theirs.lowest+blockSize
		first, err = mine.get()
	}
	if err != nil {
		t.Fatal(err)
	}
	if port, err := theirs.get(); !errors.Is(err, ErrNone) {
		t.Errorf("%d of a block that another program holds: %v", port, err)
	}
	for i := range 2 * blockSize {
		if port, err := mine.get(); err != nil || port <= mine.lowest || port >= mine.lowest+blockSize {
			t.Fatal(port, err)
		} else if port == first {
			if i < blockSize/2 {
				t.Errorf("given again after %d others", i)
			}
			return
		}
	}
	t.Errorf("%d is never given again", first)
}

// What programs get is below the ports of outgoing connections.
func TestGet(t *testing.T) {
	if end := program.lowest + program.blocks*blockSize; end > 32_000 {
		t.Errorf("the last block ends at %d", end)
	}
	one, err := Addr()
	if err != nil {
		t.Fatal(err)
	}
	if two, err := Addr(); err != nil || one == two {
		t.Errorf("%s %s %v", one, two, err)
	}
}
