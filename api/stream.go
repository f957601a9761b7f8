package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/gobwas/ws"
	"github.com/valyala/fasthttp"

	"quinto/api/live"
	"quinto/api/resource"
)

const (
	eventStreamType = "text/event-stream"
	lastEventHeader = "last-event-id"
	// hidden stands in logs for a ticket.
	hidden = "hidden"
)

// streamed reports whether a request wants a stream: Server-Sent Events by its
// Accept header, which JSON has to be absent from as Kinto's clients send it, or a
// WebSocket.
func (s *Server) streamed(ctx *fasthttp.RequestCtx, r *resource.Request) (socket, ok bool) {
	if s.options.Live == nil || r.Method != fasthttp.MethodGet {
		return false, false
	}
	socket = ctx.Request.Header.ConnectionUpgrade() && strings.EqualFold(string(ctx.Request.Header.Peek(fasthttp.HeaderUpgrade)), "websocket")
	media, _, _ := strings.Cut(r.Header["accept"], ";")
	if !socket && !strings.EqualFold(strings.TrimSpace(media), eventStreamType) {
		return false, false
	}
	return socket, s.options.Live.Watches(r.Path)
}

// stream answers a request with a stream, or with the reason why not.
func (s *Server) stream(ctx *fasthttp.RequestCtx, work context.Context, r *resource.Request, socket bool) {
	asked, refusal := s.streamRequest(work, r, socket)
	var head []byte
	if refusal == nil {
		if head, refusal = s.streamHead(ctx, r, socket); refusal == nil {
			s.startStream(ctx, work, asked, head)
			return
		}
	}
	s.render(ctx, refusal)
}

func (s *Server) startStream(ctx *fasthttp.RequestCtx, work context.Context, asked *live.Request, head []byte) {
	st, refusal := s.options.Live.Open(work, asked)
	if refusal != nil {
		s.render(ctx, refusal)
		return
	}
	status := fasthttp.StatusOK
	if asked.Socket {
		status = fasthttp.StatusSwitchingProtocols
	}
	ctx.SetStatusCode(status)
	if x := s.exchange(ctx); x != nil {
		x.answer = &resource.Response{Status: status, UserID: st.User()}
	}
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(c net.Conn) { // the connection stays open: KeepHijackedConns
		if whole, ok := c.(interface{ UnsafeConn() net.Conn }); ok {
			c = whole.UnsafeConn() // without the buffer that the request was read into
		}
		st.Start(uncounted(c), head)
	})
}

// uncounted gives back the place among the connections: streams are counted for
// themselves. What is left is the connection of the system, unless TLS is above it.
func uncounted(c net.Conn) net.Conn {
	if secure, ok := c.(*tls.Conn); ok {
		if counted, ok := secure.NetConn().(*countedConn); ok {
			counted.leave()
		}
		return c
	}
	if counted, ok := c.(*countedConn); ok {
		counted.leave()
		return counted.Conn
	}
	return c
}

// streamRequest reads what the stream is to be. A ticket is used up, and gone from
// what is logged.
func (s *Server) streamRequest(ctx context.Context, r *resource.Request, socket bool) (*live.Request, *resource.Response) {
	values, err := url.ParseQuery(r.Query)
	if err != nil {
		return nil, s.unrouted(r, s.problem(badQuery(r.Query)))
	}
	asked := &live.Request{Request: r, Socket: socket}
	switch values.Get(resource.SnapshotParam) {
	case "true", "1":
		asked.Snapshot = true
	case "", "false", "0":
	default:
		return nil, s.badStream(r, resource.SnapshotParam+" in querystring: true or false is needed.")
	}
	id, place := r.Header[lastEventHeader], "Last-Event-ID in header"
	if id == "" {
		id, place = values.Get(resource.SinceParam), resource.SinceParam+" in querystring"
	}
	if id != "" {
		if asked.Since, asked.Mark, err = live.ParseID(id); err != nil {
			return nil, s.badStream(r, place+": not the id of an event.")
		}
		asked.Resumes = true
	}
	if ticket := values.Get(resource.TicketParam); ticket != "" {
		values.Set(resource.TicketParam, hidden)
		r.Query = values.Encode()
		var refusal *resource.Response
		if asked.User, refusal = s.options.Live.Claim(ctx, r, ticket); refusal != nil {
			return nil, refusal
		}
	}
	return asked, nil
}

func (s *Server) badStream(r *resource.Request, why string) *resource.Response {
	return s.unrouted(r, s.problem(&edgeError{fasthttp.StatusBadRequest, resource.ErrnoInvalidParameters, why, false}))
}

// streamHead is the head of the answer to a request for a stream.
func (s *Server) streamHead(ctx *fasthttp.RequestCtx, r *resource.Request, socket bool) ([]byte, *resource.Response) {
	fields := append(s.options.Live.Header(r), resource.HeaderField{Name: fasthttp.HeaderXContentTypeOptions, Value: contentTypeOptions})
	var b bytes.Buffer
	write := func(name, value string) { b.WriteString(name + ": " + value + "\r\n") }
	if !socket {
		b.WriteString("HTTP/1.1 200 OK\r\n")
		write(fasthttp.HeaderContentType, eventStreamType)
		write(fasthttp.HeaderCacheControl, "no-store, no-transform")
		write(fasthttp.HeaderContentSecurityPolicy, contentSecurityPolicy)
		write("X-Accel-Buffering", "no") // of nginx: pass on what comes as it comes
		write(fasthttp.HeaderConnection, "close")
		for _, f := range fields {
			write(f.Name, f.Value)
		}
		b.WriteString("\r\n")
		return b.Bytes(), nil
	}
	request := bytes.TrimRight(ctx.Request.Header.RawHeaders(), "\r\n")
	asked := io.MultiReader(strings.NewReader("GET / HTTP/1.1\r\n"), bytes.NewReader(request), strings.NewReader("\r\n\r\n"))
	upgrader := ws.Upgrader{ReadBufferSize: len(request) + spareBuffer}
	if _, err := upgrader.Upgrade(struct {
		io.Reader
		io.Writer
	}{asked, &b}); err != nil {
		return nil, s.badStream(r, "The WebSocket handshake is not well formed.")
	}
	return b.Bytes(), nil
}
