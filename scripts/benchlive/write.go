//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// sample is what some time of writing came to.
type sample struct {
	Took   []int64       // microseconds from when each write was due to its answer; sorted
	Late   []int64       // microseconds from when each was due until it was sent; sorted
	Lasted time.Duration // from the first that was due until the last answer
}

// engine writes, with one thread.
type engine struct {
	poll, timer int
	conns       map[int]*writer // by socket
	idle        []*writer
	due         []time.Time // of the writes that wait for a connection
	order
	sample
	host string
	sent int
}

// writer is a connection.
type writer struct {
	fd  int
	due time.Time // of the write that is under way
	in  []byte    // of its answer
}

// write writes records of the first collection as o says. At a rate, writes are due
// at moments drawn beforehand, of a Poisson process: as those of many who do not know of each other,
// and in step with none of the node's own clocks. One that is due waits for
// no other; if all connections are busy, it is late, and that counts.
func write(addr string, o order) (answer, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e := &engine{conns: map[int]*writer{}, order: o, host: addr}
	defer e.close()
	if err := e.open(addr); err != nil {
		return answer{}, err
	}
	err := e.run()
	slices.Sort(e.Took)
	slices.Sort(e.Late)
	return answer{Sample: e.sample}, err
}

func (e *engine) open(addr string) (err error) {
	to, err := sockaddr(addr)
	if err != nil {
		return err
	}
	if e.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if e.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return err
	}
	for range e.Conns {
		fd, err := connect(to)
		if err != nil {
			return err
		}
		w := &writer{fd: fd}
		e.conns[fd], e.idle = w, append(e.idle, w)
		if err := errors.Join(unix.SetNonblock(fd, true), e.watch(fd)); err != nil {
			return err
		}
	}
	return e.watch(e.timer)
}

func (e *engine) watch(fd int) error {
	return unix.EpollCtl(e.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (e *engine) close() {
	for fd := range e.conns {
		_ = unix.Close(fd) // all is answered
	}
	_ = unix.Close(e.timer)
	_ = unix.Close(e.poll)
}

func (e *engine) run() error {
	begun := time.Now()
	end := begun.Add(e.For)
	draw := rand.New(rand.NewPCG(e.Seed, 0))
	gap := func() time.Duration { return time.Duration(draw.ExpFloat64() / e.Rate * float64(time.Second)) }
	next := end
	if e.Rate > 0 {
		next = begun.Add(gap())
	} else {
		e.due = slices.Repeat([]time.Time{begun}, e.Conns)
	}
	events := make([]unix.EpollEvent, pollEvents)
	for {
		for now := time.Now(); next.Before(end) && !next.After(now); next = next.Add(gap()) {
			e.due = append(e.due, next)
		}
		if err := e.send(); err != nil {
			return err
		}
		if len(e.idle) == e.Conns && !next.Before(end) {
			e.Lasted = time.Since(begun)
			return nil
		}
		if time.Since(end) > answerTimeout {
			return errors.New("writes have no answer")
		}
		if err := e.wait(next, events); err != nil {
			return err
		}
		if e.Rate == 0 && time.Now().Before(end) {
			e.due = slices.Repeat([]time.Time{time.Now()}, len(e.idle))
		}
	}
}

// send sends what is due on the connections that are idle.
func (e *engine) send() error {
	for len(e.due) > 0 && len(e.idle) > 0 {
		w := e.idle[0] // in turn: the node closes a connection that says nothing for long
		e.idle = e.idle[1:]
		w.due, e.due = e.due[0], e.due[1:]
		w.in = w.in[:0]
		const body = `{"data":{"title":"a record of some size","n":1}}`
		e.sent++
		b := fmt.Appendf(nil, "PUT /v1%s/records/w%d HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			collection(0), e.sent%400, e.host, auth, len(body), body)
		e.Late = append(e.Late, time.Since(w.due).Microseconds())
		if n, err := unix.Write(w.fd, b); err != nil || n != len(b) {
			return fmt.Errorf("%d of %d bytes of a write were sent: %w", n, len(b), err)
		}
	}
	return nil
}

// wait returns when something came, or at next.
func (e *engine) wait(next time.Time, events []unix.EpollEvent) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, time.Until(next).Nanoseconds()))}
	if err := unix.TimerfdSettime(e.timer, 0, &spec, nil); err != nil {
		return err
	}
	n, err := unix.EpollWait(e.poll, events, -1)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	for _, event := range events[:max(n, 0)] {
		if int(event.Fd) == e.timer {
			_, _ = unix.Read(e.timer, make([]byte, 8)) // it may have been set again
			continue
		}
		if err := e.read(e.conns[int(event.Fd)]); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) read(w *writer) error {
	b := make([]byte, 4096)
	n, err := unix.Read(w.fd, b)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	w.in = append(w.in, b[:max(n, 0)]...)
	if err != nil || n == 0 {
		return fmt.Errorf("the node closed a connection: %w: %.300q", errors.Join(err, errEnded), w.in)
	}
	whole, err := answered(w.in)
	if whole {
		e.Took = append(e.Took, time.Since(w.due).Microseconds())
		e.idle = append(e.idle, w)
	}
	return err
}

// answered reports whether b is a whole answer; an error for what is no success.
func answered(b []byte) (bool, error) {
	head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return false, nil
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 20")) {
		return false, fmt.Errorf("answered %.500q", b)
	}
	const name = "content-length: "
	at := bytes.Index(bytes.ToLower(head), []byte(name))
	if at < 0 {
		return false, fmt.Errorf("no length: %.500q", b)
	}
	value, _, _ := bytes.Cut(head[at+len(name):], []byte("\r"))
	length, err := strconv.Atoi(string(value))
	return err == nil && len(body) >= length, err
}
