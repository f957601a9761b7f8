package live

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"quinto/api/resource"
	"quinto/fsm"
)

// Stream is one client that stays connected.
type Stream struct {
	hub      *Hub
	watch    *resource.Watch
	user     string
	socket   bool // a WebSocket, else Server-Sent Events
	snapshot bool
	mark     string       // of the history that since is of; empty: not known
	since    fsm.Revision // the client has everything up to it
	resumes  bool
	conn     net.Conn
	free     func()        // gives the place back
	signal   chan struct{} // not nil: a feed that waits, and no connection

	// Of the hub's lock.
	joined  bool
	gone    bool // closed
	reading bool
	polled  uint64 // of the poller; 0: a goroutine waits for the client
	beat    int
	skip    fsm.Revision // events up to it are known to the client

	// Of who hears the client.
	said      int          // bytes, of Server-Sent Events
	lastHeard atomic.Int64 // when the client of a WebSocket said something, in nanoseconds since 1970

	// writing is held by who writes.
	writing sync.Mutex

	mu      sync.Mutex
	queue   []*frame
	bytes   int
	busy    bool // a goroutine writes the queue
	ending  bool // nothing is to be added
	closing sync.Once
}

// Request says what a stream is to be.
type Request struct {
	*resource.Request
	Socket   bool
	Snapshot bool
	User     string // whom a ticket stands for
	Since    fsm.Revision
	Mark     string
	Resumes  bool // Since and Mark are given
}

// Open decides whether there may be a stream and takes a place for it: call Start,
// or Cancel. The answer, when not nil, is the refusal.
func (h *Hub) Open(ctx context.Context, r *Request) (*Stream, *resource.Response) {
	watch, v, refusal := h.o.Service.Watch(ctx, r.Request, r.User, r.Since)
	if refusal != nil {
		return nil, refusal
	}
	v.Close()
	address := r.Client
	if ip := net.ParseIP(address); ip != nil && ip.IsLoopback() {
		address = ""
	}
	free, why := h.places.take(watch.User(), address)
	if free == nil {
		return nil, &resource.Response{Status: http.StatusServiceUnavailable, Body: resource.ErrorBody(http.StatusServiceUnavailable, resource.ErrnoBackend, why),
			Header: append(h.o.Service.SharedHeader(r.Request), resource.HeaderField{Name: "Content-Type", Value: "application/json"},
				resource.HeaderField{Name: "Retry-After", Value: "30"})}
	}
	return &Stream{hub: h, watch: watch, user: watch.User(), socket: r.Socket, snapshot: r.Snapshot, since: r.Since, mark: r.Mark, resumes: r.Resumes, free: free}, nil
}

// User is who gets the stream; empty: nobody in particular.
func (st *Stream) User() string { return st.user }

// Cancel gives up a stream that was not started.
func (st *Stream) Cancel() { st.free() }

// Start hands the stream its connection, which it closes, and sends head, the
// answer to the client's request. It returns at once.
func (st *Stream) Start(conn net.Conn, head []byte) {
	st.conn = conn
	h := st.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		go st.close()
		return
	}
	h.wg.Go(func() { st.begin(head, "") })
}

// join makes the stream one of those that the reader serves, with what the reader
// has handed on meanwhile. again: too much for the time that the lock may be held.
func (st *Stream) join(at fsm.Revision) (again bool, err error) {
	h := st.hub
	v, err := h.o.State.View()
	if err != nil {
		return false, err
	}
	defer v.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false, errClosed
	}
	if st.gone {
		return false, net.ErrClosed
	}
	mark := HistoryMark(v)
	if h.size == 0 {
		h.at, h.mark = at, mark
	}
	switch {
	case at+joinEvents < h.at || mark != h.mark || v.Revision() < h.at:
		return true, nil
	case at < h.at && st.signal != nil:
		return true, nil
	}
	if err := st.allowed(v); err != nil {
		return false, err
	}
	missed, err := st.between(v, at, h.at)
	if _, over := restart(err); over {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, f := range missed {
		st.send(f)
	}
	st.skip = max(at, h.at)
	st.add()
	if !st.reading && st.signal == nil {
		st.reading = true
		st.share()
		st.lastHeard.Store(time.Now().UnixNano())
		if h.poll.add(st) {
			h.wg.Add(1) // until it is closed
		} else {
			h.wg.Go(st.listen)
		}
	}
	return false, nil
}

// between is what the stream shows of the events after from, up to to.
func (st *Stream) between(v *fsm.View, from, to fsm.Revision) (frames []*frame, err error) {
	if from >= to {
		return nil, nil
	}
	mark := HistoryMark(v)
	var failed error
	err = v.Events(from, func(e *fsm.Event) bool {
		if e.Revision > to {
			return false
		}
		var b []byte
		if b, failed = st.replayed(v, e, mark); failed == nil && b != nil {
			frames = append(frames, &frame{b: b})
		}
		return failed == nil
	})
	return frames, errors.Join(err, failed)
}

// add puts the stream where the reader finds it. The hub's lock is held.
func (st *Stream) add() {
	h := st.hub
	scope := st.watch.Scope()
	if h.topics[scope] == nil {
		h.topics[scope] = map[*Stream]struct{}{}
	}
	h.topics[scope][st] = struct{}{}
	if st.user != "" {
		if h.users[st.user] == nil {
			h.users[st.user] = map[*Stream]struct{}{}
		}
		h.users[st.user][st] = struct{}{}
	}
	if st.signal == nil {
		h.next = (h.next + beats - 1) % beats // backwards: of the first ones, none has its turn at once
		st.beat = h.next
		if h.beat[st.beat] == nil {
			h.beat[st.beat] = map[*Stream]struct{}{}
		}
		h.beat[st.beat][st] = struct{}{}
	}
	st.joined = true
	h.size++
	h.weigh()
	if h.size == 1 {
		select {
		case h.wake <- struct{}{}:
		default:
		}
		select {
		case h.pulse <- st.beat:
		default:
		}
	}
}

// share keeps what another stream of the user, or of the scope, has in memory too.
// It is for the first time that the stream joins: nobody else knows it until then.
// The hub's lock is held.
func (st *Stream) share() {
	for _, set := range []map[*Stream]struct{}{st.hub.users[st.user], st.hub.topics[st.watch.Scope()]} {
		for other := range set {
			if st.watch.Share(other.watch); other != st {
				break
			}
		}
	}
	st.user = st.watch.User()
}

// leave takes the stream away from the reader. The hub's lock is held.
func (st *Stream) leave() {
	if !st.joined {
		return
	}
	st.joined = false
	h := st.hub
	h.size--
	h.weigh()
	scope := st.watch.Scope()
	if delete(h.topics[scope], st); len(h.topics[scope]) == 0 {
		delete(h.topics, scope)
	}
	if set := h.users[st.user]; set != nil {
		if delete(set, st); len(set) == 0 {
			delete(h.users, st.user)
		}
	}
	if delete(h.beat[st.beat], st); len(h.beat[st.beat]) == 0 {
		h.beat[st.beat] = nil
	}
}

// recheck decides the GET again. The hub's lock is held.
func (st *Stream) recheck(v *fsm.View) {
	changed, refusal, err := st.watch.Recheck(st.hub.base, v)
	switch {
	case err != nil:
		st.hub.log.Warn("the permissions of a stream could not be read", "error", err)
		st.end(ending{reason: "error", status: http.StatusServiceUnavailable})
	case refusal != nil:
		st.end(refusedWith(refusal))
	case changed:
		st.reset(v, "permissions")
	}
}

// reset tells the client to start over. The hub's lock is held.
func (st *Stream) reset(v *fsm.View, reason string) {
	if st.signal != nil {
		st.wakeUp()
		return
	}
	if !st.joined {
		return
	}
	if !st.snapshot {
		st.skip = v.Revision()
		st.send(&frame{b: st.resetEvent(reason, v.Revision(), HistoryMark(v))})
		return
	}
	st.leave()
	st.hub.wg.Go(func() { st.begin(nil, reason) })
}

// end tells the client why, and closes the connection. The hub's lock is held.
func (st *Stream) end(e ending) {
	if st.signal != nil {
		st.wakeUp()
		return
	}
	st.leave()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.finish(e)
}

// finish makes the end the last thing that is written. The queue's lock is held.
func (st *Stream) finish(e ending) {
	if st.ending {
		return
	}
	st.push(e.frame(st.socket))
	st.ending = true
}

// listen waits for the client until it goes, where the poller does not.
func (st *Stream) listen() {
	for st.hear() == nil {
	}
	st.close()
}

// heard is called when the poller has found something to hear.
func (st *Stream) heard() {
	err := st.hear()
	if err == nil {
		err = st.hub.poll.again(st)
	}
	if err != nil {
		st.close()
	}
}

// hear takes what the client says, or notices that it goes. What it says is of no
// interest, but for the control frames of a WebSocket.
func (st *Stream) hear() error {
	if st.socket {
		st.lastHeard.Store(time.Now().UnixNano())
		return st.readFrame()
	}
	n, err := st.conn.Read(make([]byte, 64))
	if st.said += n; st.said >= MaxClientBytes {
		return errSaid
	}
	return err
}

// errSaid ends a WebSocket whose client says goodbye, or what it must not.
var errSaid = errors.New("live: closed by the client")

func (st *Stream) readFrame() error {
	if err := st.conn.SetReadDeadline(time.Now().Add(SilenceTimeout)); err != nil {
		return err
	}
	header, err := ws.ReadHeader(st.conn)
	if err == nil {
		err = ws.CheckHeader(header, ws.StateServerSide)
	}
	if err != nil {
		return err
	}
	if header.Length > MaxClientBytes || !header.OpCode.IsControl() && header.OpCode.IsReserved() {
		return errSaid
	}
	if !header.OpCode.IsControl() || header.OpCode == ws.OpPong {
		_, err := io.CopyN(io.Discard, st.conn, header.Length)
		return err
	}
	payload := make([]byte, header.Length)
	if _, err := io.ReadFull(st.conn, payload); err != nil {
		return err
	}
	ws.Cipher(payload, header.Mask, 0)
	if header.OpCode == ws.OpClose {
		st.mu.Lock()
		defer st.mu.Unlock()
		if !st.ending {
			st.push(&frame{b: compiled(ws.NewCloseFrame(nil))})
			st.ending = true
		}
		return nil // the connection is closed when that is written
	}
	st.send(&frame{b: compiled(ws.NewPongFrame(payload))})
	return nil
}

// wakeUp tells a feed that waits that there is something.
func (st *Stream) wakeUp() {
	select {
	case st.signal <- struct{}{}:
	default:
	}
}

// cut closes the connection without a word.
func (st *Stream) cut() {
	if st.conn != nil {
		_ = st.conn.Close() // whoever reads or writes finds out
		go st.close()       // nobody may be
	}
}

// close ends the stream.
func (st *Stream) close() {
	st.closing.Do(func() {
		st.hub.mu.Lock()
		st.leave()
		st.gone = true
		polled := st.polled != 0
		st.hub.mu.Unlock()
		if polled {
			st.hub.poll.remove(st)
			defer st.hub.wg.Done()
		}
		st.mu.Lock()
		st.ending = true
		queue := st.queue
		st.queue, st.bytes = nil, 0
		st.mu.Unlock()
		for _, f := range queue {
			st.hub.release(f)
		}
		_ = st.conn.Close() // it may be broken
		st.free()
	})
}
