// Package freeport gives loopback ports to servers that are started later, by tests
// and scripts. A port that was only probed is free for everybody: two draws may name
// the same one, in one program or in two that run side by side. Here each program
// holds blocks of ports that no other program gets, and gives each port once.
//
// All ports lie below 32768, where the kernel does not take those of outgoing
// connections from: a server that is away for a while finds its port free.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

const (
	// blockSize is how many ports a program takes at once. The first of them is held by
	// a listener for as long as the program lives, and is not given away.
	blockSize = 64
	// mostBlocks bounds what one program takes from the others: 2,016 ports. Then it
	// gives again what it gave first.
	mostBlocks = 32
)

// ErrNone is returned when other programs hold all blocks, or every port of those of
// this program is in use.
var ErrNone = errors.New("freeport: no free port on 127.0.0.1")

// pool gives ports of blocks that it holds.
type pool struct {
	lowest, blocks int

	mu   sync.Mutex
	held []net.Listener // on the first port of each of its blocks
	next int            // port to be given next
	end  int            // behind the last one of the block
	turn int            // of the block to be given again
}

// program is for all of this program: what is given must be known in one place.
var program = pool{lowest: 10_000, blocks: 340}

// Get returns a port on which nobody listens over TCP or UDP, and which no other program
// is given as long as this one lives; this one is given it again after some 2,000
// others. The error is ErrNone. All goroutines may call it.
func Get() (int, error) { return program.get() }

// Addr is Get as "127.0.0.1:PORT".
func Addr() (string, error) {
	port, err := Get()
	if err != nil {
		return "", err
	}
	return address(port), nil
}

func (p *pool) get() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range (2*mostBlocks + 1) * blockSize {
		if p.next == p.end && !p.claim() && !p.again() {
			return 0, ErrNone
		}
		port := p.next
		p.next++
		if free(port) {
			return port, nil
		}
	}
	return 0, ErrNone
}

// claim takes a block that nobody holds, beginning anywhere.
func (p *pool) claim() bool {
	first := rand.IntN(p.blocks)
	for i := range p.blocks {
		if len(p.held) == mostBlocks {
			return false
		}
		base := p.lowest + (first+i)%p.blocks*blockSize
		l, err := net.Listen("tcp4", address(base))
		if err != nil {
			continue
		}
		p.held = append(p.held, l)
		p.next, p.end = base+1, base+blockSize
		return true
	}
	return false
}

// again begins with the oldest block of its own once more.
func (p *pool) again() bool {
	if len(p.held) == 0 {
		return false
	}
	base := p.held[p.turn%len(p.held)].Addr().(*net.TCPAddr).Port
	p.turn++
	p.next, p.end = base+1, base+blockSize
	return true
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// free says whether nobody listens on a port, over TCP or UDP.
func free(port int) bool {
	l, err := net.Listen("tcp4", address(port))
	if err != nil {
		return false
	}
	u, err := net.ListenPacket("udp4", address(port))
	if err == nil {
		err = u.Close()
	}
	return errors.Join(err, l.Close()) == nil
}
