package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"quinto/internal/freeport"
	"quinto/plugins/webhook"
)

// arrival is one change as a receiver got it.
type arrival struct {
	id, collection, record string
	revision               uint64
}

// channel is a receiver that tells all it has got of records, oldest first.
type channel interface {
	name() string
	read(ctx context.Context) ([]arrival, error)
	close()
}

// server is a process of a receiver, which keeps its data when it is killed.
type server struct {
	args []string
	env  []string
	addr string
	cmd  *exec.Cmd
}

func (s *server) start() error {
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.SysProcAttr = ownSession
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for range 600 {
		if c, err := net.DialTimeout("tcp", s.addr, time.Second); err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s does not listen on %s", s.args[0], s.addr)
}

// stop kills it with all that it has started.
func (s *server) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // may have ended
		_ = s.cmd.Wait()
	}
}

// tools are where scripts/lib/tools.sh has installed.
type tools string

func (t tools) program(name string) string {
	path := filepath.Join(string(t), "bin", name)
	if _, err := os.Stat(path); err != nil {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	return path
}

func (w *world) serve(s *server) error {
	w.servers = append(w.servers, s)
	return s.start()
}

func mailSettings(port string, includes ...string) []string {
	return []string{"kinto.includes = " + strings.Join(append(includes, "kinto_emailer"), " "), "mail.host = 127.0.0.1", "mail.port = " + port, "mail.default_sender = kinto@example.com"}
}

// openAll starts the receivers of all kinds and returns the settings of the cluster; the
// mail goes to aiosmtpd, which refuses some of it for the moment.
func (w *world) openAll(ctx context.Context, dir string, t tools) (settings []string, err error) {
	h, err := newHook("webhook", "hook", nil, w.chance)
	if err != nil {
		return nil, err
	}
	w.ills, w.channels = append(w.ills, h), append(w.channels, h)
	inMetadata, err := w.openDeclared(dir)
	if err != nil {
		return nil, err
	}
	ports := make([]string, 3)
	for i := range ports {
		port, err := freeport.Get()
		if err != nil {
			return nil, err
		}
		ports[i] = strconv.Itoa(port)
	}
	mails := filepath.Join(dir, "mails")
	for i, args := range [][]string{
		{t.program("redis-server"), "--port", ports[0], "--bind", "127.0.0.1", "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", ""},
		{t.program("nats-server"), "-a", "127.0.0.1", "-p", ports[1], "-js", "-sd", filepath.Join(dir, "nats")},
		{filepath.Join(string(t), "smtp", "bin", "python"), "-B", filepath.Join("scripts", "lib", "smtp", "server.py"), "--port", ports[2], "--out", mails, "--fail-every", "17"},
	} {
		if err := w.serve(&server{args: args, addr: "127.0.0.1:" + ports[i]}); err != nil {
			return nil, err
		}
	}
	client := redis.NewClient(&redis.Options{Addr: w.servers[0].addr, Protocol: 2})
	nc, err := nats.Connect("nats://"+w.servers[1].addr, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "K", Subjects: []string{"kinto.>"}}); err != nil {
		return nil, err
	}
	w.channels = append(w.channels, list{client}, stream{client}, &natsStream{conn: nc, js: js}, mailbox{mails})
	return slices.Concat(mailSettings(ports[2], webhook.MetadataName), h.settings(), inMetadata, []string{
		"kinto.event_listeners = hook list stream nats",
		"kinto.event_listeners.list.use = kinto_redis.listeners", "kinto.event_listeners.list.url = redis://" + w.servers[0].addr, "kinto.event_listeners.list.resources = record",
		"kinto.event_listeners.stream.use = quinto.redis_stream", "kinto.event_listeners.stream.url = redis://" + w.servers[0].addr, "kinto.event_listeners.stream.resources = record",
		"kinto.event_listeners.stream.stream = s",
		"kinto.event_listeners.nats.use = quinto.nats", "kinto.event_listeners.nats.url = nats://" + w.servers[1].addr, "kinto.event_listeners.nats.resources = record",
		"kinto.event_listeners.nats.subject = kinto.events",
	}), nil
}

// openPostfix starts a full mail server as the only receiver: a cluster has one.
func (w *world) openPostfix(_ context.Context, dir string, t tools) ([]string, error) {
	program, err := filepath.Abs(filepath.Join(string(t), "postfix"))
	if err != nil {
		return nil, err
	}
	port, err := freeport.Get()
	if err != nil {
		return nil, err
	}
	p := postfix{program: program, dir: filepath.Join(dir, "postfix"), port: strconv.Itoa(port)}
	s, err := p.prepare()
	if err != nil {
		return nil, err
	}
	w.channels = []channel{&maildir{folder: filepath.Join(p.dir, "mails", "reader", "new"), known: map[string]queued{}}}
	return mailSettings(p.port), w.serve(s)
}

// parse reads a payload.
func parse(body, id string) (arrival, error) {
	var p struct {
		URI      string `json:"uri"`
		Revision uint64 `json:"revision"`
		Delivery string `json:"delivery_id"`
	}
	err := json.Unmarshal([]byte(body), &p)
	a := arrival{id: id, revision: p.Revision}
	if id == "" {
		a.id = p.Delivery
	}
	a.collection, a.record = partsOf(p.URI)
	return a, err
}

type list struct{ *redis.Client }

func (list) name() string { return "Redis list" }
func (l list) close()     { _ = l.Close() }

func (l list) read(ctx context.Context) (all []arrival, err error) {
	bodies, err := l.LRange(ctx, "kinto.core.events", 0, -1).Result()
	slices.Reverse(bodies)
	for _, b := range bodies {
		a, err := parse(b, "")
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, err
}

type stream struct{ *redis.Client }

func (stream) name() string { return "Redis stream" }
func (stream) close()       {} // the list's client

func (s stream) read(ctx context.Context) (all []arrival, err error) {
	entries, err := s.XRange(ctx, "s", "-", "+").Result()
	for _, e := range entries {
		a, err := parse(fmt.Sprint(e.Values["payload"]), fmt.Sprint(e.Values["id"]))
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, err
}

type natsStream struct {
	conn *nats.Conn
	js   jetstream.JetStream
	all  []arrival
}

func (*natsStream) name() string { return "NATS JetStream" }
func (n *natsStream) close()     { n.conn.Close() }

func (n *natsStream) read(ctx context.Context) ([]arrival, error) {
	s, err := n.js.Stream(ctx, "K")
	if err != nil {
		return nil, err
	}
	for last := s.CachedInfo().State.LastSeq; uint64(len(n.all)) < last; {
		m, err := s.GetMsg(ctx, uint64(len(n.all))+1)
		if err != nil {
			return nil, err
		}
		a, err := parse(string(m.Data), m.Header.Get(jetstream.MsgIDHeader))
		if err != nil {
			return nil, err
		}
		n.all = append(n.all, a)
	}
	return n.all, nil
}

type mailbox struct{ file string }

func (mailbox) name() string { return "mail (aiosmtpd)" }
func (mailbox) close()       {}

func (m mailbox) read(context.Context) (all []arrival, err error) {
	b, err := os.ReadFile(m.file)
	if err != nil {
		return nil, err
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var mail struct {
			Headers [][2]string
			Body    string
		}
		if err := json.Unmarshal(lines.Bytes(), &mail); err != nil {
			return nil, err
		}
		var a arrival
		for _, h := range mail.Headers {
			if strings.EqualFold(h[0], "Message-ID") {
				a.id = h[1]
			}
		}
		if _, err := fmt.Sscan(mail.Body, &a.revision, &a.collection, &a.record); err != nil {
			return nil, fmt.Errorf("mail %q: %w", mail.Body, err)
		}
		all = append(all, a)
	}
	return all, nil
}
