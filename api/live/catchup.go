package live

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"quinto/api/resource"
	"quinto/fsm"
)

// begin brings the client to where the reader stands, and joins.
func (st *Stream) begin(head []byte, reason string) {
	h := st.hub
	st.writing.Lock()
	defer st.writing.Unlock()
	w := &writer{st: st, until: time.Now().Add(catchUpTimeout)}
	w.add(head)
	for _, f := range st.take() { // those before a reset
		w.add(f.b)
		h.release(f)
	}
	select {
	case h.catchUp <- struct{}{}:
		defer func() { <-h.catchUp }()
	case <-h.base.Done():
	}
	at, err := st.point(w, reason)
	for err == nil {
		var again bool
		if at, again, err = st.replay(w, at); err != nil {
			break
		}
		if err = w.flush(); err != nil || again {
			continue
		}
		if again, err = st.join(at); err == nil && !again {
			return
		}
	}
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		w.add(refused.frame(st.socket).b)
		err = w.flush()
	case errors.Is(err, errClosed):
		w.add(ending{reason: "shutdown"}.frame(st.socket).b)
		err = w.flush()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		h.log.Debug("a stream ended before it was live", "error", err)
	}
	st.close()
}

var (
	errClosed = errors.New("live: the node stops")
)

// refusedError is a permission that is gone.
type refusedError struct{ ending }

// Error implements error.
func (e *refusedError) Error() string { return "live: " + e.reason }

// restartError is something in the log after which the client has to start over.
type restartError struct{ reason string }

// Error implements error.
func (e *restartError) Error() string { return "live: " + e.reason }

// restart gives the reason of a restartError, or of a log that was trimmed.
func restart(err error) (reason string, is bool) {
	var again *restartError
	switch {
	case errors.As(err, &again):
		return again.reason, true
	case errors.Is(err, fsm.ErrTrimmed):
		return "trimmed", true
	}
	return "", false
}

// point tells the client where the stream begins, after a snapshot if it wants one.
func (st *Stream) point(w *writer, reason string) (fsm.Revision, error) {
	v, err := st.hub.o.State.View()
	if err != nil {
		return 0, err
	}
	defer v.Close()
	if err := st.allowed(v); err != nil {
		return 0, err
	}
	mark := HistoryMark(v)
	if st.resumes && reason == "" {
		if reason = lost(v, st.since, st.mark); reason == "" {
			w.add(st.event(eventStart, EventID(st.since, mark), started(st.since, true)))
			return st.since, nil
		}
	}
	st.resumes = false
	at := v.Revision()
	if reason != "" {
		w.add(st.resetEvent(reason, at, mark))
	} else if !st.snapshot {
		w.add(st.event(eventStart, EventID(at, mark), started(at, false)))
	} else {
		w.add(st.event(eventStart, "", started(at, false)))
	}
	if !st.snapshot {
		return at, nil
	}
	n := 0
	err = st.watch.Snapshot(st.hub.base, v, func(object []byte) error {
		n++
		w.add(st.event(eventSnapshot, "", object))
		return w.spill()
	})
	if err != nil {
		return 0, err
	}
	data := strconv.AppendUint([]byte(`{"revision":`), uint64(at), 10)
	data = strconv.AppendInt(append(data, `,"count":`...), int64(n), 10)
	w.add(st.event(eventReady, EventID(at, mark), append(data, '}')))
	return at, nil
}

// lost says why a stream cannot go on after a revision; empty: it can.
func lost(v *fsm.View, since fsm.Revision, mark string) string {
	switch {
	case mark != "" && mark != HistoryMark(v):
		return "restored"
	case since > v.Revision():
		return "unknown"
	case since < v.EventFloor():
		return "trimmed"
	}
	return ""
}

func started(at fsm.Revision, resumed bool) []byte {
	b := strconv.AppendUint([]byte(`{"revision":`), uint64(at), 10)
	return append(strconv.AppendBool(append(b, `,"resumed":`...), resumed), '}')
}

// resetEvent is what tells the client to start over. When a snapshot follows, the
// client's resume point is forgotten until that is whole.
func (st *Stream) resetEvent(reason string, at fsm.Revision, mark string) []byte {
	data := strconv.AppendUint([]byte(`{"reason":"`+reason+`","revision":`), uint64(at), 10)
	if !st.snapshot {
		return st.event(eventReset, EventID(at, mark), append(data, '}'))
	}
	b := st.event(eventReset, "", append(data, '}'))
	if !st.socket {
		b = append([]byte("id\n"), b...)
	}
	return b
}

// replay writes the changes after from that the log has, and returns up to where.
// again says that there may be more than can be read under the lock.
func (st *Stream) replay(w *writer, from fsm.Revision) (at fsm.Revision, again bool, err error) {
	v, err := st.hub.o.State.View()
	if err != nil {
		return from, false, err
	}
	defer v.Close()
	if err := st.allowed(v); err != nil {
		return from, false, err
	}
	mark := HistoryMark(v)
	var failed error
	err = v.Events(from, func(e *fsm.Event) bool {
		at = e.Revision
		var b []byte
		if b, failed = st.replayed(v, e, mark); failed == nil && b != nil {
			w.add(b)
			failed = w.spill()
		}
		return failed == nil
	})
	err = errors.Join(err, failed)
	reason, over := restart(err)
	if v.Revision() < from {
		reason, over = "restored", true
	}
	switch {
	case over:
		at, err = st.point(w, reason)
		return at, true, err
	case err != nil:
		return from, false, err
	}
	return v.Revision(), false, nil
}

// replayed is what the stream shows of an event of the log; nil: nothing.
func (st *Stream) replayed(v *fsm.View, e *fsm.Event, mark string) ([]byte, error) {
	body, err := show(st.hub.base, st.hub.o.Service, st.watch, v, e)
	if err != nil || body == nil {
		return nil, err
	}
	return st.event(eventChange, EventID(e.Revision, mark), body), nil
}

func show(ctx context.Context, s Service, w *resource.Watch, v *fsm.View, e *fsm.Event) ([]byte, error) {
	scope := w.Scope()
	switch {
	case e.Action == fsm.ActionFlush:
		return nil, &restartError{"flushed"}
	case e.Action == fsm.ActionDeleteTree && scope.Under(e.Path):
		return nil, &restartError{"deleted"}
	case !covers(scope, e.Path):
		return nil, nil
	}
	item := s.Item(v, e)
	verdict, err := w.Judge(ctx, item)
	switch {
	case err != nil:
		return nil, err
	case verdict != resource.Nothing:
		return w.AppendChange(nil, item, verdict)
	case e.Action == fsm.ActionDeleteTree && w.Narrow():
		return nil, &restartError{"deleted"}
	}
	return nil, nil
}

// covers reports whether a stream of a scope is about the object at p.
func covers(scope, p fsm.Path) bool {
	if scope.Depth()%2 == 1 { // a list
		return p.List() == scope
	}
	return scope == "" || p == scope || p.Under(scope)
}

// allowed decides again, on a view newer than the one that let the stream in.
func (st *Stream) allowed(v *fsm.View) error {
	_, refusal, err := st.watch.Recheck(st.hub.base, v)
	if err == nil && refusal != nil {
		return &refusedError{refusedWith(refusal)}
	}
	return err
}

func refusedWith(f *resource.Failure) ending {
	if f.Status == http.StatusNotFound {
		return ending{reason: "gone", status: f.Status}
	}
	return ending{reason: "permissions", status: f.Status}
}

// writer gathers what is written before the stream joins.
type writer struct {
	st    *Stream
	b     []byte
	until time.Time
}

func (w *writer) add(b []byte) { w.b = append(w.b, b...) }

func (w *writer) spill() error {
	if len(w.b) < writeBytes {
		return nil
	}
	return w.flush()
}

func (w *writer) flush() error {
	if len(w.b) == 0 {
		return nil
	}
	if time.Now().After(w.until) {
		return &refusedError{ending{reason: "slow"}}
	}
	err := w.st.put(w.b)
	w.b = w.b[:0]
	return err
}
