package live

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"

	"github.com/gobwas/ws"

	"quinto/api/resource"
	"quinto/fsm"
	"quinto/internal/canon"
)

// Names of events.
const (
	eventStart    = "start"    // where the stream begins
	eventSnapshot = "snapshot" // one object as it is
	eventReady    = "ready"    // the snapshot is whole
	eventChange   = "change"
	eventBeat     = "heartbeat"
	eventReset    = "reset" // start over: what was known may be wrong
	eventEnd      = "end"   // the server ends the stream
)

// frame is bytes that are sent to any number of streams.
type frame struct {
	b    []byte
	left atomic.Int32 // queues that it is in
}

// sse makes an event of a Server-Sent Events stream (HTML Living Standard 9.2).
// Without an id the client keeps the one it has.
func sse(event, id string, data []byte) []byte {
	b := make([]byte, 0, len(event)+len(id)+len(data)+32)
	if id != "" {
		b = append(append(append(b, "id: "...), id...), '\n')
	}
	b = append(append(append(b, "event: "...), event...), "\ndata: "...)
	return append(append(b, data...), "\n\n"...)
}

// text makes the same event a text message of a WebSocket.
func text(event, id string, data []byte) []byte {
	b := append(append(make([]byte, 0, len(event)+len(id)+len(data)+40), `{"event":"`...), event...)
	b = append(b, '"')
	if id != "" {
		b = canon.AppendString(append(b, `,"id":`...), id)
	}
	b = append(append(append(b, `,"data":`...), data...), '}')
	return compiled(ws.NewTextFrame(b))
}

// compiled is the bytes of a frame, which the server does not mask.
func compiled(f ws.Frame) []byte {
	var b bytes.Buffer
	b.Grow(len(f.Payload) + ws.MaxHeaderSize)
	_ = ws.WriteFrame(&b, f) // a buffer takes everything
	return b.Bytes()
}

// heartbeat moves the client's resume point, so that one that waits for long does
// not fall out of the retention, and asks a WebSocket for a sign of life.
func heartbeat(id string) (forSSE, forWS *frame) {
	forSSE = &frame{b: sse(eventBeat, id, []byte("{}"))}
	forWS = &frame{b: append(text(eventBeat, id, []byte("{}")), compiled(ws.NewPingFrame(nil))...)}
	return forSSE, forWS
}

// ending says why the server ends a stream.
type ending struct {
	reason string
	status int // that a GET would get now; 0: none
}

// Codes of RFC 6455 7.4 and of the registry that it begins.
const (
	closeRestart ws.StatusCode = 1012
	closeLater   ws.StatusCode = 1013
	closePolicy  ws.StatusCode = 1008
)

func (e ending) frame(socket bool) *frame {
	data := []byte(`{"reason":"` + e.reason + `"`)
	if e.status != 0 {
		data = strconv.AppendInt(append(data, `,"status":`...), int64(e.status), 10)
	}
	data = append(data, '}')
	if !socket {
		pause := retryAfter.Milliseconds()/2 + rand.Int64N(retryAfter.Milliseconds()) // not all at once
		return &frame{b: append(fmt.Appendf(nil, "retry: %d\n", pause), sse(eventEnd, "", data)...)}
	}
	code := closeLater
	switch {
	case e.reason == "shutdown":
		code = closeRestart
	case e.status != 0:
		code = closePolicy
	}
	return &frame{b: append(text(eventEnd, "", data), compiled(ws.NewCloseFrame(ws.NewCloseFrameBody(code, e.reason)))...)}
}

// offer is one change on its way to streams: what it looks like is made once for
// each form.
type offer struct {
	*resource.Item
	hub    *Hub
	view   *fsm.View
	bodies map[look][]byte
	frames map[look]*frame
}

// look is what a change looks like to some streams.
type look struct {
	form    string
	verdict resource.Verdict
	socket  bool
}

// to offers the change to streams that are about its place.
func (o *offer) to(set map[*Stream]struct{}) {
	for st := range set {
		if o.Event.Revision <= st.skip {
			continue
		}
		takes, gives := st.watch.Unsettles(o.Event)
		if gives {
			st.recheck(o.view)
		}
		if st.joined && o.Event.Revision > st.skip {
			o.show(st)
		}
		if takes && st.joined {
			st.recheck(o.view) // behind what says that it leaves
		}
	}
}

// show sends one stream what it is to see.
func (o *offer) show(st *Stream) {
	verdict, err := st.watch.Judge(o.hub.base, o.Item)
	if err == nil && verdict == resource.Nothing {
		if o.Event.Action == fsm.ActionDeleteTree && st.watch.Narrow() { // it may have taken what was shown along
			st.reset(o.view, "deleted")
		}
		return
	}
	if st.signal != nil {
		st.wakeUp()
		return
	}
	var f *frame
	if err == nil {
		f, err = o.frame(st, verdict)
	}
	if err != nil {
		o.hub.log.Error("a change could not be shown to a stream", "path", o.Event.Path, "revision", o.Event.Revision, "error", err)
		st.end(ending{reason: "error", status: 500})
		return
	}
	st.send(f)
}

func (o *offer) frame(st *Stream, verdict resource.Verdict) (*frame, error) {
	key := look{st.watch.Form(), verdict, st.socket}
	if f := o.frames[key]; f != nil {
		return f, nil
	}
	if o.frames == nil {
		o.frames, o.bodies = map[look]*frame{}, map[look][]byte{}
	}
	shared := look{key.form, verdict, false}
	body := o.bodies[shared]
	if body == nil {
		var err error
		if body, err = st.watch.AppendChange(nil, o.Item, verdict); err != nil {
			return nil, err
		}
		o.bodies[shared] = body
	}
	f := &frame{b: st.event(eventChange, o.hub.id(o.Event.Revision), body)}
	o.frames[key] = f
	return f, nil
}
