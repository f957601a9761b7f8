package live

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller notices, with one goroutine for all streams that wait, that a client says
// something or goes. With a goroutine for each, the garbage collector walks as many
// stacks in each cycle, which is felt by those who write meanwhile.
type poller struct {
	file *os.File // of epoll; the runtime waits for it as for a connection
	raw  syscall.RawConn

	mu    sync.Mutex
	last  uint64
	armed map[uint64]*Stream // by what epoll says; numbers of sockets are used again, these are not
}

// pollEvents are taken at once.
const pollEvents = 64

// newPoller returns nil where the system has no room for it: a stream then has a
// goroutine that waits.
func newPoller() *poller {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	err = unix.SetNonblock(fd, true)
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err2 := file.SyscallConn()
	if errors.Join(err, err2) != nil {
		_ = file.Close()
		return nil
	}
	return &poller{file: file, raw: raw, armed: map[uint64]*Stream{}}
}

// add begins to wait for one event of the stream's connection; false: it cannot be
// waited for, as that of TLS, which may have read more than it has given.
func (p *poller) add(st *Stream) bool {
	conn, ok := st.conn.(syscall.Conn)
	if p == nil || !ok {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	if p.arm(raw, unix.EPOLL_CTL_ADD, p.last) != nil {
		return false
	}
	st.polled = p.last
	p.armed[st.polled] = st
	return true
}

// again waits for one more event.
func (p *poller) again(st *Stream) error {
	conn, ok := st.conn.(syscall.Conn)
	if !ok {
		return net.ErrClosed
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.arm(raw, unix.EPOLL_CTL_MOD, st.polled)
}

func (p *poller) arm(raw syscall.RawConn, how int, id uint64) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	var failed, closed error
	err := p.raw.Control(func(epoll uintptr) { // both stay what they are meanwhile
		closed = raw.Control(func(fd uintptr) { failed = unix.EpollCtl(int(epoll), how, int(fd), &event) })
	})
	return errors.Join(err, closed, failed)
}

// remove forgets a stream; closing its connection takes that from epoll.
func (p *poller) remove(st *Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.armed, st.polled)
}

// run calls f for each event, until close.
func (p *poller) run(f func(*Stream)) {
	var events [pollEvents]unix.EpollEvent
	for {
		n := 0
		err := p.raw.Read(func(fd uintptr) bool {
			var err error
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 && err == nil
		})
		if err != nil {
			return // closed
		}
		for _, e := range events[:n] {
			p.mu.Lock()
			st := p.armed[uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32]
			p.mu.Unlock()
			if st != nil { // else closed since
				f(st)
			}
		}
	}
}

// close ends run.
func (p *poller) close() { _ = p.file.Close() } // nothing is lost
