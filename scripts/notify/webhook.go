package main

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"quinto/internal/freeport"
	"quinto/internal/outbound"
)

const (
	hookTimeout = 1                      // seconds
	hookAway    = 300 * time.Millisecond // of a restart
)

// hook is an HTTP receiver in bad health: it answers 500, 429 with Retry-After and 410,
// hangs, cuts connections, and is restarted, each before or after it has taken a change.
type hook struct {
	title    string
	listener string // in the settings; "": metadata declares it
	addr     string
	secret   string
	tls      *tls.Config // nil: plain
	verify   *standardwebhooks.Webhook
	ended    chan struct{} // ends what hangs

	mu     sync.Mutex
	server *http.Server
	chance *rand.Rand
	ill    bool // else it takes everything at once
	gone   bool // the next change is answered with 410
	all    []arrival
	wrong  error
	moods  map[string]int
}

// newHook starts a receiver; config nil: without TLS.
func newHook(title, listener string, config *tls.Config, chance *rand.Rand) (*hook, error) {
	own := rand.NewPCG(chance.Uint64(), 0) // it is used by the goroutines of the server
	h := &hook{title: title, listener: listener, tls: config, ended: make(chan struct{}), chance: rand.New(own), moods: map[string]int{}}
	key := make([]byte, outbound.MinSecretBytes)
	cryptorand.Read(key)
	h.secret = "whsec_" + base64.StdEncoding.EncodeToString(key)
	var err error
	if h.verify, err = standardwebhooks.NewWebhook(h.secret); err != nil {
		return nil, err
	}
	if h.addr, err = freeport.Addr(); err != nil {
		return nil, err
	}
	return h, h.open()
}

func (h *hook) settings() []string {
	prefix := "kinto.event_listeners." + h.listener + "."
	return []string{prefix + "use = quinto.webhook", prefix + "url = http://" + h.addr + "/", prefix + "secret = " + h.secret, prefix + "resources = record",
		fmt.Sprintf("%stimeout_seconds = %d", prefix, hookTimeout)}
}

func (h *hook) open() error {
	l, err := net.Listen("tcp4", h.addr)
	if err != nil {
		return err
	}
	if h.tls != nil {
		l = tls.NewListener(l, h.tls)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	h.mu.Lock()
	h.server = server
	h.mu.Unlock()
	go func() { _ = server.Serve(l) }() // until it is closed
	return nil
}

// shut cuts all connections.
func (h *hook) shut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.server.Close() // connections may be closed already
}

// restart is away for a moment.
func (h *hook) restart() error {
	h.shut()
	time.Sleep(hookAway)
	return h.open()
}

func (h *hook) name() string { return h.title }

func (h *hook) close() {
	close(h.ended)
	h.shut()
}

func (h *hook) read(context.Context) ([]arrival, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all), h.wrong
}

// fall makes it ill from now on; gone: it answers the next change with 410.
func (h *hook) fall(gone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ill, h.gone = true, gone
}

// mood is what is done about a change: whether it is taken, and what comes of the request.
type mood struct {
	name   string
	weight int // in a hundred; the rest is 204
	taken  bool
	status int // 0: no answer
	hang   bool
}

var moods = []mood{
	{"500", 4, false, http.StatusInternalServerError, false},
	{"429", 2, false, http.StatusTooManyRequests, false},
	{"hung", 2, false, 0, true},
	{"taken and hung", 2, true, 0, true},
	{"taken and cut", 3, true, 0, false},
	{"taken and 500", 3, true, http.StatusInternalServerError, false},
}

func (h *hook) choose() mood {
	switch {
	case h.gone:
		h.gone = false
		return mood{name: "410", status: http.StatusGone}
	case h.ill:
		n := h.chance.IntN(100)
		for _, m := range moods {
			if n -= m.weight; n < 0 {
				return m
			}
		}
	}
	return mood{name: "204", taken: true, status: http.StatusNoContent}
}

// take reads a delivery and decides.
func (h *hook) take(r *http.Request) mood {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return mood{} // the sender has died
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	a, err := parse(string(body), r.Header.Get(standardwebhooks.HeaderWebhookID))
	if err == nil {
		err = h.verify.Verify(body, r.Header)
	}
	if err != nil {
		h.wrong = err
	}
	m := h.choose()
	h.moods[m.name]++
	if m.taken {
		h.all = append(h.all, a)
	}
	return m
}

// ServeHTTP takes a delivery, or not.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := h.take(r)
	if m.hang {
		select {
		case <-r.Context().Done():
		case <-h.ended:
		}
	}
	switch m.status {
	case 0:
		panic(http.ErrAbortHandler) // cuts the connection without an answer
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(m.status)
}

// told is how often it did what.
func (h *hook) told() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for _, mood := range slices.Sorted(maps.Keys(h.moods)) {
		all = append(all, fmt.Sprintf("%s %d times", mood, h.moods[mood]))
	}
	return strings.Join(all, ", ")
}

// goOn waits a moment and resumes: a leader notes the pause within the second after a 410,
// which may be later than the last resume.
func (w *world) goOn(ctx context.Context, h *hook) error {
	time.Sleep(time.Second)
	return w.resume(ctx, h)
}

// resume lets deliveries go on after a 410, through any node that is there.
func (w *world) resume(ctx context.Context, h *hook) error {
	names := []string{h.listener}
	if h.listener == "" {
		var err error
		if names, err = w.declared(ctx, h); err != nil {
			return err
		}
	}
	for _, name := range names {
		if _, err := w.hooks(ctx, "resume", name); err != nil {
			return err
		}
	}
	return nil
}

// hooks runs `quinto hooks` beside any node that is there.
func (w *world) hooks(ctx context.Context, args ...string) (out []byte, err error) {
	for _, n := range w.cluster.Nodes {
		c := exec.CommandContext(ctx, w.binary, slices.Concat([]string{"hooks"}, args, []string{"--ini", w.cluster.INI, "--data", n.Dir})...)
		var said bytes.Buffer
		c.Stderr = &said
		if out, err = c.Output(); err == nil {
			return out, nil
		}
		err = fmt.Errorf("quinto hooks %s: %w: %s", args[0], err, &said)
	}
	return nil, err
}
