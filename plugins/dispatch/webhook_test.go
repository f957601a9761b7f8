package dispatch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"quinto/fsm"
	"quinto/plugins"
	"quinto/plugins/webhook"
)

var hookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

// endpoint is an HTTP receiver that verifies each message, can be stopped and
// started again on its address, and misbehaves as it is told.
type endpoint struct {
	t       testing.TB
	addr    string
	verify  *standardwebhooks.Webhook
	quiet   bool // count only
	trouble func(w http.ResponseWriter, r *http.Request) bool

	mu  sync.Mutex
	srv *http.Server
	got []message
	n   int
}

type message struct {
	id, lane string
	revision fsm.Revision
}

func newEndpoint(t testing.TB) *endpoint {
	v, err := standardwebhooks.NewWebhook(hookSecret)
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{t: t, verify: v, addr: "127.0.0.1:0"}
	e.start()
	t.Cleanup(e.stop)
	return e
}

func (e *endpoint) start() {
	var l net.Listener
	var err error
	for range 100 { // the old socket may take a moment to go
		if l, err = net.Listen("tcp", e.addr); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		e.t.Error(err)
		return
	}
	e.addr = l.Addr().String()
	srv := &http.Server{Handler: e}
	e.mu.Lock()
	e.srv = srv
	e.mu.Unlock()
	go srv.Serve(l)
}

func (e *endpoint) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.srv.Close()
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if e.trouble != nil && e.trouble(w, r) {
		return
	}
	if e.quiet {
		e.mu.Lock()
		e.n++
		e.mu.Unlock()
		return
	}
	if err := e.verify.Verify(body, r.Header); err != nil {
		e.t.Error(err)
	}
	var m struct {
		Revision   fsm.Revision
		Bucket     string `json:"bucket_id"`
		Collection string `json:"collection_id"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		e.t.Error(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got = append(e.got, message{id: r.Header.Get("webhook-id"), lane: m.Collection, revision: m.Revision})
}

func (e *endpoint) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// distinct returns how many revisions came, and checks ids and order.
func (e *endpoint) distinct() (distinct, repeated int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids, last := map[fsm.Revision]string{}, map[string]fsm.Revision{}
	for _, m := range e.got {
		if id, ok := ids[m.revision]; ok {
			repeated++
			if id != m.id {
				e.t.Errorf("revision %d came as %s and %s", m.revision, id, m.id)
			}
			continue
		}
		ids[m.revision] = m.id
		if m.revision <= last[m.lane] {
			e.t.Errorf("lane %s: %d first came after %d", m.lane, m.revision, last[m.lane])
		}
		last[m.lane] = m.revision
	}
	return len(ids), repeated
}

func newHook(t testing.TB, addr, timeout string) *webhook.Webhook {
	t.Helper()
	p, err := plugins.Registered().Load(context.Background(), plugins.Settings{Name: "hook", Use: webhook.Name, URL: "http://" + addr + "/",
		Secret: hookSecret, Params: map[string]string{"timeout_seconds": timeout}})
	if err != nil {
		t.Fatal(err)
	}
	w := p.(*webhook.Webhook)
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// A receiver that fails, hangs, breaks off, restarts and asks for a pause still
// gets every change, signed, in order, over leaders that die between sending
// and their cursor.
func TestWebhookAgainstABadReceiver(t *testing.T) {
	e := newEndpoint(t)
	e.trouble = func(w http.ResponseWriter, r *http.Request) bool {
		switch rand.IntN(60) {
		case 0:
			w.WriteHeader(http.StatusInternalServerError)
		case 1:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			panic(http.ErrAbortHandler)
		case 3:
			<-r.Context().Done() // hangs
		default:
			return false
		}
		return true
	}
	c := newCluster(t)
	nodes := []*node{{c}, {c}}
	for _, n := range nodes {
		start(t, quick(n, newHook(t, e.addr, "0.3")))
	}
	c.lead(nodes[0])
	until(t, "registration", func() bool { return c.notifier("hook").Name != "" })
	const colls, rounds = 8, 60
	for i := range rounds {
		for k := range colls {
			c.write(put(record(k, i), fmt.Sprintf(`{"i":%d}`, i)))
		}
		if i%20 == 10 {
			c.lead(nodes[i/20%2])
		}
		if i == 35 {
			e.stop()
			time.Sleep(50 * time.Millisecond)
			e.start()
		}
		time.Sleep(5 * time.Millisecond)
	}
	until(t, "everything", func() bool {
		n := c.notifier("hook")
		return n.Cursor == colls*rounds && len(n.Lanes) == 0
	})
	distinct, repeated := e.distinct()
	t.Logf("%d changes, %d repeated", distinct, repeated)
	if distinct != colls*rounds {
		t.Errorf("%d of %d changes came", distinct, colls*rounds)
	}
}

// BenchmarkWebhooks is the way from commit to a local receiver over 50
// collections; the aim is 2,000 events a second.
func BenchmarkWebhooks(b *testing.B) {
	e := newEndpoint(b)
	e.quiet = true
	c := newCluster(b)
	n := &node{c}
	o := quick(n, newHook(b, e.addr, "10"))
	o.CursorInterval = time.Second
	c.lead(n)
	start(b, o)
	until(b, "registration", func() bool { return c.notifier("hook").Name != "" })
	data := `{"text":` + strconv.Quote(strings.Repeat("x", 300)) + `}`
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += 50 {
		var ops []fsm.Op
		for k := range min(50, b.N-i) {
			ops = append(ops, put(record(k, i), data))
		}
		c.write(ops...)
	}
	until(b, "all", func() bool { return e.count() >= b.N })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
