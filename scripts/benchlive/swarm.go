//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialers    = 32
	readBytes  = 64 << 10
	pollEvents = 256
)

var (
	changeMark = []byte("event: change\n")
	endMark    = []byte("event: end\n")
)

// swarm is many streams of one client: sockets, and one thread that reads what
// comes and counts the changes.
type swarm struct {
	to   unix.Sockaddr
	host string
	poll int

	mu    sync.Mutex
	tails map[int]*tail // by socket

	changes atomic.Int64
	target  atomic.Int64 // of changes
	reached atomic.Int64 // when, in nanoseconds since 1970
	failed  atomic.Value // of type error
}

// tail is the end of what a stream sent, too short to hold a mark.
type tail struct {
	b [16]byte
	n int
}

// count returns how often mark occurs in what comes after the tail, which becomes that of b.
func (t *tail) count(b, mark []byte) int {
	both := append(t.b[:t.n:t.n], b...)
	t.n = copy(t.b[:], both[max(0, len(both)-len(mark)+1):])
	return bytes.Count(both, mark)
}

func newSwarm(addr string) (*swarm, error) {
	to, err := sockaddr(addr)
	if err != nil {
		return nil, err
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &swarm{to: to, host: addr, poll: poll, tails: map[int]*tail{}}, err
}

// sockaddr reads an IPv4 address and a port.
func sockaddr(addr string) (unix.Sockaddr, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || !ap.Addr().Is4() {
		return nil, errors.Join(err, fmt.Errorf("not an IPv4 address and a port: %q", addr))
	}
	return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, nil
}

// connect returns a socket that blocks.
func connect(to unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.Connect(fd, to)); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (s *swarm) do(o order) (answer, error) {
	switch o.Do {
	case doOpen:
		if err := s.open(o.Watching, o.Idle); err != nil {
			return answer{}, err
		}
	case doClose:
		s.close()
	case doZero:
		s.changes.Store(0)
		s.reached.Store(0)
		s.target.Store(o.Changes)
	case doAwait:
		for end := time.Now().Add(answerTimeout); s.changes.Load() < o.Changes && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	err, _ := s.failed.Load().(error)
	return answer{Changes: s.changes.Load(), At: s.reached.Load()}, err
}

// open opens streams, and returns when they are live.
func (s *swarm) open(watching, idle int) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range dialers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < watching+idle && s.failed.Load() == nil; i = int(next.Add(1)) - 1 {
				n := 0
				if i >= watching {
					n = 1 + i%collections
				}
				if err := s.dial(collection(n)); err != nil {
					s.failed.Store(err)
				}
			}
		})
	}
	wg.Wait()
	err, _ := s.failed.Load().(error)
	return err
}

func (s *swarm) dial(path string) error {
	fd, err := connect(s.to)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, fmt.Appendf(nil, "GET /v1%s/records HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\nAuthorization: %s\r\n\r\n", path, s.host, auth))
	head, b := []byte(nil), make([]byte, 1024)
	for err == nil && !bytes.Contains(head, []byte("event: start")) {
		var n int
		if n, err = unix.Read(fd, b); err == nil && n == 0 {
			break
		}
		head = append(head, b[:max(n, 0)]...)
	}
	if err != nil || !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		return errors.Join(err, unix.Close(fd), fmt.Errorf("no stream: %.300s", head))
	}
	s.mu.Lock()
	s.tails[fd] = &tail{}
	s.mu.Unlock()
	return errors.Join(unix.SetNonblock(fd, true), unix.EpollCtl(s.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
}

// close closes all streams.
func (s *swarm) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for fd := range s.tails {
		_ = unix.Close(fd) // nothing is left to be read
	}
	clear(s.tails)
}

// listen reads whatever comes, until the process ends.
func (s *swarm) listen() {
	events, b := make([]unix.EpollEvent, pollEvents), make([]byte, readBytes)
	for {
		n, err := unix.EpollWait(s.poll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			s.failed.Store(err)
			return
		}
		s.mu.Lock()
		for _, e := range events[:max(n, 0)] {
			if t := s.tails[int(e.Fd)]; t != nil { // else closed since
				s.read(int(e.Fd), t, b)
			}
		}
		s.mu.Unlock()
	}
}

func (s *swarm) read(fd int, t *tail, b []byte) {
	n, err := unix.Read(fd, b)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	if err != nil || n == 0 || bytes.Contains(b[:n], endMark) {
		s.failed.Store(fmt.Errorf("a stream ended: %w: %.300q", errors.Join(err, errEnded), b[:max(n, 0)]))
		_ = unix.EpollCtl(s.poll, unix.EPOLL_CTL_DEL, fd, nil) // the run has failed
		return
	}
	if got := int64(t.count(b[:n], changeMark)); got > 0 {
		if now, target := s.changes.Add(got), s.target.Load(); now >= target && now-got < target {
			s.reached.Store(time.Now().UnixNano())
		}
	}
}

var errEnded = errors.New("the node ended it")
