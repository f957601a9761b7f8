package live

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"quinto/api/resource"
	"quinto/fsm"
)

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// dial starts a stream, and returns it when it is live.
func dial(t *testing.T, h *Hub, socket bool) (*Stream, net.Conn) {
	t.Helper()
	st, refusal := h.Open(t.Context(), &Request{Request: &resource.Request{Method: "GET", Path: list, Header: resource.Header{}, Client: "127.0.0.1"}, Socket: socket})
	if refusal != nil {
		t.Fatalf("%d %s", refusal.Status, refusal.Body)
	}
	server, client := pair(t)
	st.Start(server, nil)
	eventually(t, "not live", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return st.joined
	})
	return st, client
}

func say(t *testing.T, c net.Conn, f ws.Frame) {
	t.Helper()
	if err := ws.WriteFrame(c, ws.MaskFrame(f)); err != nil {
		t.Fatal(err)
	}
}

// answers reads frames until one of a kind comes.
func answers(t *testing.T, c net.Conn, kind ws.OpCode, payload string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for {
		header, err := ws.ReadHeader(c)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, header.Length)
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatal(err)
		}
		if header.OpCode == kind && strings.HasPrefix(string(got), payload) {
			return
		}
	}
}

// What clients say, and that they go, is noticed with the poller and with a goroutine
// for each stream.
func TestClientsAreHeard(t *testing.T) {
	for _, polled := range []bool{true, false} {
		n, h := begin(t)
		if !polled && h.poll != nil {
			h.poll.close()
			h.polling.Wait()
			h.poll = nil
		}
		gone := func(what string) {
			t.Helper()
			eventually(t, what, func() bool { return h.Streams() == 0 })
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.size != 0 || len(h.topics) != 0 || h.poll != nil && len(h.poll.armed) != 0 {
				t.Errorf("%s: %d streams, %d topics are left", what, h.size, len(h.topics))
			}
		}
		st, c := dial(t, h, false)
		if want := polled && newPollerWorks(t); (st.polled != 0) != want {
			t.Errorf("polled: %v, want %v", st.polled != 0, want)
		}
		_ = c.Close()
		gone("a client that goes")

		_, c = dial(t, h, false)
		for range 3 {
			if _, err := io.WriteString(c, "hello"); err != nil { // nobody minds
				t.Fatal(err)
			}
		}
		n.write(put(list+"/r", "{}"))
		scan(t, c, func(e *got) bool { return e.name != eventChange })
		_, _ = io.WriteString(c, strings.Repeat("x", 2*MaxClientBytes)) // it may be closed before all is sent
		gone("a client that talks")

		_, c = dial(t, h, true)
		for _, text := range []string{"a", "b", "c"} {
			say(t, c, ws.NewTextFrame([]byte("ignored")))
			say(t, c, ws.NewPingFrame([]byte(text)))
			answers(t, c, ws.OpPong, text)
		}
		n.write(put(list+"/r", `{"n":1}`))
		answers(t, c, ws.OpText, `{"event":"change"`)
		say(t, c, ws.NewCloseFrame(nil))
		answers(t, c, ws.OpClose, "")
		gone("a client that says goodbye")

		_, c = dial(t, h, true)
		say(t, c, ws.NewBinaryFrame(make([]byte, MaxClientBytes+1)))
		gone("a client that says too much at once")
	}
}

// newPollerWorks reports whether the system has one.
func newPollerWorks(t *testing.T) bool {
	t.Helper()
	p := newPoller()
	if p == nil {
		return false
	}
	p.close()
	return true
}

// A WebSocket whose client answers nothing is closed; Server-Sent Events have nothing to answer.
func TestSilentWebSocketsAreClosed(t *testing.T) {
	_, h := begin(t)
	silent, _ := dial(t, h, true)
	quick, _ := dial(t, h, true)
	mute, _ := dial(t, h, false)
	later := time.Now().Add(SilenceTimeout)
	quick.lastHeard.Store(later.UnixNano())
	for n := range beats {
		if !h.beatOf(n, later) {
			t.Fatal("no streams")
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !silent.gone || quick.gone || mute.gone {
		t.Errorf("closed: silent %v, quick %v, Server-Sent Events %v", silent.gone, quick.gone, mute.gone)
	}
}

// A stream that was closed does not join.
func TestClosedStreamsDoNotJoin(t *testing.T) {
	_, h := begin(t)
	st, _ := dial(t, h, false)
	st.close()
	if _, err := st.join(fsm.Revision(1)); err == nil {
		t.Error("it joined")
	}
	if h.Streams() != 0 {
		t.Errorf("%d streams", h.Streams())
	}
}
