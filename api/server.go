// Package api is the public HTTP port of a node.
//
// It knows HTTP and nothing of Kinto's meaning: a request is checked, copied out
// of the server's buffers, handed to one Service call, and the answer is written
// as it came. What a client gets before or beside the service (a body too large,
// bytes that are no HTTP, an unknown version, the heartbeat) is made here, always
// with Kinto's error body.
//
// Fiber routes and fasthttp reads. Two of their habits shape this package: every
// string of a request is a view on a buffer that the next request overwrites, so
// all of it is copied before anything else runs; and helpers such as Ctx.Body
// inflate what the client compressed, without bound, so only raw bytes are read.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/valyala/fasthttp"

	"quinto/api/live"
	"quinto/api/openapi"
	"quinto/api/resource"
	"quinto/fsm"
	"quinto/internal/config"
	"quinto/plugins"
)

// Service answers everything that has Kinto's meaning.
type Service interface {
	// Do answers r, whatever it is, within ctx's deadline. The answer is never
	// nil and is not changed afterwards. It may be called from many goroutines.
	Do(ctx context.Context, r *resource.Request) *resource.Response
	// Serves reports whether a path under /v1 is of a plugin's endpoint.
	Serves(path string) bool
	// Endpoint describes a path under /v1, for measurements.
	Endpoint(path string) resource.Endpoint
	// Document describes what it answers.
	Document() openapi.Document
	// Parts tells what the requests of a batch came to; nil: r is no batch.
	Parts(r *resource.Request, answer *resource.Response) []resource.Part
}

// Node is what the utility endpoints ask of the cluster.
type Node interface {
	// View returns a state that is as fresh as asked for; the caller closes it.
	View(ctx context.Context, f fsm.Freshness) (*fsm.View, error)
	// Leader returns the leader as far as this node knows.
	Leader() (fsm.Member, bool)
	// Members returns all nodes; one that does not answer within ctx has revision 0.
	Members(ctx context.Context) ([]fsm.Member, error)
	// Term returns the current Raft term.
	Term() uint64
	// Ready returns why this node does not serve linearizable reads now, or nil.
	Ready() error
	// WriteError returns why writes are refused here for now, or nil.
	WriteError() error
	// Standing returns the node's role ("leader", "follower", "nonvoter") and how many
	// revisions it is behind the leader.
	Standing() (role string, lag uint64)
}

// State is this node's own state; *fsm.FSM has it.
type State interface {
	// Revision returns the revision that the node has applied.
	Revision() fsm.Revision
}

// Options say what a Server serves and within which limits.
type Options struct {
	Service Service
	Node    Node
	State   State
	// Config is only read.
	Config *config.Config
	// Name is the node's name.
	Name string
	// Version is what __version__ answers when there is no version.json.
	Version Version
	// Meter gets measurements of requests; nil: none.
	Meter *plugins.Meter
	// TLS makes the port speak HTTPS; nil: HTTP.
	TLS *tls.Config
	// SettingsDiffer names the settings that are not equal on all nodes, by node; nil: unknown.
	SettingsDiffer func() map[string][]string
	// RequestLog gets a line for each request; nil: none.
	RequestLog *RequestLog
	// Live has the streams of the node; nil: there are none, and no feeds. Shutdown
	// closes it.
	Live *live.Hub
	// Logger gets failures of this package's own; nil: silent.
	Logger hclog.Logger
}

// Server is the HTTP port of one node.
type Server struct {
	options Options
	limits  config.Limits
	app     *fiber.App
	routed  fasthttp.RequestHandler // Fiber's
	bodies  *budget
	utility map[string]utility
	cors    *resource.CORS
	alerts  alerts
	base    context.Context // ends when Shutdown gives up waiting
	cancel  context.CancelFunc
	logger  hclog.Logger

	mu       sync.Mutex
	listener net.Listener
	stopped  bool
}

// spareBuffer is what a request's head takes beside its target and header lines:
// the method, the version and line ends.
const spareBuffer = 8 << 10

// New makes a Server; Serve starts it.
func New(o Options) *Server {
	s := &Server{options: o, limits: o.Config.Limits, bodies: newBudget(o.Config), logger: o.Logger,
		cors: resource.NewCORS(o.Config), alerts: newAlerts(o.Config)}
	if s.logger == nil {
		s.logger = hclog.NewNullLogger()
	}
	s.base, s.cancel = context.WithCancel(context.Background())
	s.utility = s.utilities()
	s.app = fiber.New(fiber.Config{
		AppName:                      "quinto",
		Immutable:                    true, // belt and braces: see the package's comment
		StrictRouting:                true,
		CaseSensitive:                true,
		DisableStartupMessage:        true,
		DisableDefaultContentType:    true,
		DisablePreParseMultipartForm: true,
		EnableTrustedProxyCheck:      true, // and no proxy is trusted
		BodyLimit:                    s.limits.BodyBytes,
		ReadBufferSize:               s.limits.QueryBytes + s.limits.HeaderBytes + spareBuffer,
		Concurrency:                  2*s.limits.Connections + 16, // the listener's limit comes first
		ReadTimeout:                  o.Config.Timeouts.Read,
		WriteTimeout:                 o.Config.Timeouts.Write,
		IdleTimeout:                  o.Config.Timeouts.Idle,
		ErrorHandler:                 s.fiberError,
	})
	s.app.Use(func(c *fiber.Ctx) error { s.route(c.Context()); return nil })
	s.routed = s.app.Handler()
	server := s.app.Server()
	server.Handler = s.handle
	server.ErrorHandler = s.parseError
	server.HeaderReceived = s.bodies.reserve
	server.ExpectHandler = s.expect
	server.CloseOnShutdown = true
	server.KeepHijackedConns = true // those of streams
	server.SecureErrorLogMessage = true
	return s
}

// Serve answers the connections of ln, which it closes at the end, until Shutdown
// or an error of ln. Call it once.
func (s *Server) Serve(ln net.Listener) error {
	excuse := refusal(s.options.Config.Timeouts.RetryAfter)
	if s.options.TLS != nil {
		excuse = nil // whoever expects TLS cannot read it
	}
	ln = limitConnections(ln, s.limits.Connections, excuse)
	if s.options.TLS != nil {
		ln = tls.NewListener(ln, s.options.TLS) // handshakes are made as requests are read, within the time for that
	}
	s.mu.Lock()
	s.listener = ln
	stopped := s.stopped
	s.mu.Unlock()
	if stopped {
		return ln.Close()
	}
	err := s.app.Server().Serve(ln)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Shutdown accepts no more connections and waits for running requests until ctx
// ends; then their contexts end too. It may be called at any time, more than once.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.cancel()
	s.mu.Lock()
	s.stopped = true
	ln := s.listener
	s.mu.Unlock()
	if ln != nil { // first of all: fasthttp forgets a shutdown that comes before it knows its listener
		if err := ln.Close(); err != nil {
			return fmt.Errorf("api: %w", err)
		}
	}
	if s.options.Live != nil {
		s.options.Live.Close(ctx)
	}
	if err := s.app.ShutdownWithContext(ctx); err != nil {
		return fmt.Errorf("api: requests still running: %w", err)
	}
	return nil
}

// handle is fasthttp's handler: a request has been read whole.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	defer s.bodies.release(&ctx.Request.Header)
	defer s.begin(ctx)()
	defer func() {
		if p := recover(); p != nil { // fasthttp would end the process
			s.logger.Error("request failed", "method", string(ctx.Method()), "path", string(ctx.Path()),
				"panic", p, "stack", string(debug.Stack()))
			ctx.Response.Reset()
			s.fail(ctx, errInternal)
		}
	}()
	if e := s.checkHead(&ctx.Request.Header); e != nil {
		s.fail(ctx, e)
		return
	}
	if s.alerts.over(time.Now()) && !clusterPath(ctx.Path()) {
		s.fail(ctx, errGone)
		return
	}
	if s.options.Config.ReadOnly && !ctx.IsGet() && !ctx.IsHead() && !ctx.IsOptions() && !asksTicket(ctx) { // whatever the path
		s.fail(ctx, errMethod)
		return
	}
	if knownToFiber(ctx.Method()) {
		s.routed(ctx)
	} else { // Fiber would answer in text
		s.route(ctx)
	}
}

// asksTicket reports whether a request is the one that no read is and a readonly server
// answers: for a ticket, by which browsers follow it.
func asksTicket(ctx *fasthttp.RequestCtx) bool {
	return ctx.IsPost() && string(ctx.Path()) == prefix+resource.TicketPath
}

func knownToFiber(method []byte) bool {
	for _, m := range fiber.DefaultMethods {
		if m == string(method) {
			return true
		}
	}
	return false
}

// route answers a request that has been read.
func (s *Server) route(ctx *fasthttp.RequestCtx) {
	r, e := s.request(ctx)
	if e != nil {
		s.fail(ctx, e)
		return
	}
	if r.Path == "" { // not under /v1
		s.render(ctx, s.outside(ctx, r))
		return
	}
	work, cancel := context.WithTimeout(s.base, s.options.Config.Timeouts.Request)
	defer cancel()
	if answer, ok := s.utility[r.Path]; ok {
		s.render(ctx, s.answerUtility(work, r, answer.answer))
		return
	}
	if location, ok := slashRedirect(r); ok && s.options.Config.Redirects.Slash && !s.options.Service.Serves(r.Path) {
		s.render(ctx, s.redirect(r, location, s.options.Config.Redirects.SlashSeconds))
		return
	}
	if socket, ok := s.streamed(ctx, r); ok {
		s.stream(ctx, work, r, socket)
		return
	}
	if s.options.Live != nil && resource.IsFeed(r.Path) {
		s.render(ctx, s.feed(work, r))
		return
	}
	s.render(ctx, s.options.Service.Do(work, r))
}

// expect answers "Expect: 100-continue" before the client sends its body.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	e := s.checkHead(&ctx.Request.Header)
	if e == nil && ctx.Request.Header.ContentLength() > s.limits.BodyBytes {
		e = errBodyTooLarge
	}
	if e == nil && s.bodies.refused(&ctx.Request.Header) {
		e = errBusy
	}
	if e == nil {
		return fasthttp.StatusContinue
	}
	s.bodies.release(&ctx.Request.Header)
	s.fail(ctx, e)
	return e.status
}

// httpDate is t as an HTTP date.
func httpDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05") + " GMT" }
