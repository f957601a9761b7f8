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
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
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
	addr string
	cmd  *exec.Cmd
}

func (s *server) start() error {
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
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

func (s *server) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// open starts the servers and returns the settings of the cluster.
func (w *world) open(ctx context.Context, dir, cache string) ([]string, error) {
	tool := func(parts ...string) string {
		path := filepath.Join(append([]string{cache}, parts...)...)
		if _, err := os.Stat(path); err != nil && parts[0] == "bin" {
			if found, err := exec.LookPath(parts[1]); err == nil {
				return found
			}
		}
		return path
	}
	ports := make([]string, 3)
	for i := range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+w.chance.IntN(5000)+5000*(i%2)+os.Getpid()%2000))
		if err != nil {
			return nil, err
		}
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
		defer func() { _ = l.Close() }()
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	mails := filepath.Join(dir, "mails")
	for i, args := range [][]string{
		{tool("bin", "redis-server"), "--port", ports[0], "--bind", "127.0.0.1", "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", ""},
		{tool("bin", "nats-server"), "-a", "127.0.0.1", "-p", ports[1], "-js", "-sd", filepath.Join(dir, "nats")},
		{tool("smtp", "bin", "python"), "-B", filepath.Join("scripts", "lib", "smtp", "server.py"), "--port", ports[2], "--out", mails, "--fail-every", "17"},
	} {
		s := &server{args: args, addr: "127.0.0.1:" + ports[i]}
		w.servers = append(w.servers, s)
		if err := s.start(); err != nil {
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
	w.channels = []channel{list{client}, stream{client}, &natsStream{conn: nc, js: js}, mailbox{mails}}
	return []string{
		"kinto.includes = kinto_emailer", "mail.host = 127.0.0.1", "mail.port = " + ports[2], "mail.default_sender = kinto@example.com",
		"kinto.event_listeners = list stream nats",
		"kinto.event_listeners.list.use = kinto_redis.listeners", "kinto.event_listeners.list.url = redis://" + w.servers[0].addr, "kinto.event_listeners.list.resources = record",
		"kinto.event_listeners.stream.use = quinto.redis_stream", "kinto.event_listeners.stream.url = redis://" + w.servers[0].addr, "kinto.event_listeners.stream.resources = record",
		"kinto.event_listeners.stream.stream = s",
		"kinto.event_listeners.nats.use = quinto.nats", "kinto.event_listeners.nats.url = nats://" + w.servers[1].addr, "kinto.event_listeners.nats.resources = record",
		"kinto.event_listeners.nats.subject = kinto.events",
	}, nil
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

func (mailbox) name() string { return "mail" }
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
