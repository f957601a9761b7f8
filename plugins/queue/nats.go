package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"quinto/plugins"
)

// JetStream is the name of the module for NATS.
const JetStream = "quinto.nats"

// natsDialTimeout bounds the connection to one server.
const natsDialTimeout = 5 * time.Second

// jetStream publishes each change to a subject of a JetStream, with the delivery id
// as Nats-Msg-Id: within its duplicate window the stream keeps a repeat out.
func jetStream() backend {
	return backend{module: JetStream, params: []string{"subject", "stream", "credentials"}, check: func(s *plugins.Settings) (func(context.Context) (sender, error), error) {
		urls := strings.Join(strings.FieldsFunc(s.URL, func(r rune) bool { return strings.ContainsRune(", \t\n", r) }), ",")
		for _, u := range strings.Split(urls, ",") {
			scheme, rest, _ := strings.Cut(u, "://")
			if rest == "" || (scheme != "nats" && scheme != "tls") {
				return nil, errors.New("url: nats://[USER:PASSWORD@]HOST[:PORT] or tls://… is needed, or several")
			}
		}
		subject, err := text(s, "subject", DefaultListName)
		if err != nil {
			return nil, err
		}
		if strings.ContainsAny(subject, " \t\r\n*>") || strings.Contains("."+subject+".", "..") {
			return nil, fmt.Errorf("subject = %q: a subject without wildcards and spaces is needed", subject)
		}
		stream, err := text(s, "stream", "")
		if err != nil {
			return nil, err
		}
		options := []nats.Option{nats.Name("quinto"), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(), nats.ReconnectBufSize(-1),
			nats.Timeout(natsDialTimeout), nats.ReconnectWait(500 * time.Millisecond)}
		if file := s.Params["credentials"]; file != "" {
			options = append(options, nats.UserCredentials(file))
		}
		log := s.Log
		options = append(options, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn("NATS complains", "error", err)
		}))
		return func(context.Context) (sender, error) {
			c, err := nats.Connect(urls, options...)
			if err != nil {
				return nil, err
			}
			js, err := jetstream.New(c)
			if err != nil {
				c.Close()
				return nil, err
			}
			return &natsSender{conn: c, js: js, subject: subject, stream: stream}, nil
		}, nil
	}}
}

type natsSender struct {
	conn            *nats.Conn
	js              jetstream.JetStream
	subject, stream string
}

// send waits until the stream has stored m, or knows it.
func (n *natsSender) send(ctx context.Context, m message) error {
	options := []jetstream.PublishOpt{jetstream.WithMsgID(m.id)}
	if n.stream != "" {
		options = append(options, jetstream.WithExpectStream(n.stream))
	}
	_, err := n.js.Publish(ctx, n.subject, m.body, options...)
	if errors.Is(err, nats.ErrMaxPayload) {
		return plugins.Permanent(err)
	}
	return err
}

// Close ends the connection and what it runs.
func (n *natsSender) Close() error {
	n.conn.Close()
	return nil
}
