package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"quinto/fsm"
	"quinto/plugins"
)

// letter is one mail.
type letter struct {
	id                  string // its Message-ID without the sender's domain: equal in each attempt
	time                fsm.Timestamp
	from, subject, body string
	to                  []string // who gets it now
	all                 []string // who stands in its header
}

// server is where mails go, by the settings of pyramid_mailer.
type server struct {
	host, port, user, password string
	starttls, implicit         bool
	tls                        *tls.Config
}

// AttemptTimeout bounds one conversation with the SMTP server.
const AttemptTimeout = 20 * time.Second

func newServer(s *plugins.Settings) (out server, err error) {
	for _, name := range []string{"mail.debug_mailer", "mail.queue_path", "mail.sendmail_app", "mail.sendmail_template"} {
		if value := s.Text(name, ""); value != "" && !(name == "mail.debug_mailer" && strings.EqualFold(value, "false")) {
			return out, fmt.Errorf("%s is not supported: mail goes to mail.host, and what was not sent yet is in the log of the cluster", name)
		}
	}
	port, err := s.Number("mail.port", 25, 1, 65535)
	if err != nil {
		return out, err
	}
	out = server{host: s.Text("mail.host", "localhost"), port: strconv.FormatInt(port, 10), user: s.Text("mail.username", ""), password: s.Text("mail.password", "")}
	if out.starttls, err = s.Flag("mail.tls", false); err != nil {
		return out, err
	}
	if out.implicit, err = s.Flag("mail.ssl", false); err != nil {
		return out, err
	}
	out.tls = &tls.Config{ServerName: out.host, MinVersion: tls.VersionTLS12}
	if file := s.Text("mail.cafile", ""); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return out, fmt.Errorf("mail.cafile: %w", err)
		}
		out.tls.RootCAs = x509.NewCertPool()
		if !out.tls.RootCAs.AppendCertsFromPEM(pem) {
			return out, fmt.Errorf("mail.cafile: %s has no certificate", file)
		}
	}
	if cert, key := s.Text("mail.certfile", ""), s.Text("mail.keyfile", ""); cert+key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return out, fmt.Errorf("mail.certfile, mail.keyfile: %w", err)
		}
		out.tls.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// send returns who got the mail. An error of plugins.Permanent says that the server
// will never take it for the others; other errors mean: again.
func (s *server) send(ctx context.Context, l *letter) (taken []string, err error) {
	message, from, to, err := l.message()
	if err != nil {
		return nil, plugins.Permanent(err)
	}
	c, end, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := c.Mail(from.Address); err != nil {
		return nil, lasting(err)
	}
	var refused []error
	for i, r := range to {
		if err := c.Rcpt(r.Address); err != nil {
			refused = append(refused, lasting(fmt.Errorf("%s: %w", r.Address, err)))
			continue
		}
		taken = append(taken, l.to[i])
	}
	if len(taken) > 0 {
		if err := data(c, message); err != nil {
			return nil, lasting(err)
		}
	}
	_ = c.Quit() // it is taken
	for _, err := range refused {
		if !plugins.IsPermanent(err) {
			return taken, err
		}
	}
	return taken, errors.Join(refused...)
}

// open connects and greets; end gives the connection up.
func (s *server) open(ctx context.Context) (c *smtp.Client, end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, AttemptTimeout)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(s.host, s.port))
	if err != nil {
		cancel()
		return nil, nil, err
	}
	open := conn
	stop := context.AfterFunc(ctx, func() { _ = open.Close() }) // ends what waits
	end = func() {
		stop()
		cancel()
		_ = open.Close()
	}
	if s.implicit {
		conn = tls.Client(conn, s.tls)
	}
	if c, err = s.greet(conn); err != nil {
		end()
		return nil, nil, err
	}
	return c, end, nil
}

// greet begins a conversation, with TLS and authentication as the settings say.
func (s *server) greet(conn net.Conn) (*smtp.Client, error) {
	c, err := smtp.NewClient(conn, s.host)
	if err != nil {
		return nil, err
	}
	if s.starttls && !s.implicit {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return nil, errors.New("the server has no STARTTLS")
		}
		if err := c.StartTLS(s.tls); err != nil {
			return nil, err
		}
	}
	if s.user == "" && s.password == "" {
		return c, nil
	}
	_, offered := c.Extension("AUTH")
	var auth smtp.Auth
	switch {
	case strings.Contains(offered, "CRAM-MD5"):
		auth = smtp.CRAMMD5Auth(s.user, s.password)
	case strings.Contains(offered, "PLAIN"):
		auth = smtp.PlainAuth("", s.user, s.password, s.host, false) // refuses without TLS, but for localhost
	case strings.Contains(offered, "LOGIN"):
		auth = smtp.LoginAuth(s.user, s.password, s.host, false)
	default:
		return nil, errors.New("the server offers no authentication that is known here: CRAM-MD5, PLAIN, LOGIN")
	}
	if err := c.Auth(auth); err != nil {
		return nil, fmt.Errorf("authentication: %w", err)
	}
	return c, nil
}

func data(c *smtp.Client, message *gomail.Msg) error {
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := message.WriteTo(w); err != nil {
		return err
	}
	return w.Close() // waits for the answer
}

// lasting makes a refusal for ever permanent; one for want of authentication is the
// operator's to mend.
func lasting(err error) error {
	var answer *textproto.Error
	if errors.As(err, &answer) && answer.Code >= 500 && answer.Code != 530 {
		return plugins.Permanent(err)
	}
	return err
}

// message makes the mail as it is sent.
func (l *letter) message() (m *gomail.Msg, from *mail.Address, to []*mail.Address, err error) {
	if l.from == "" {
		return nil, nil, nil, errors.New("no sender: neither the hook nor mail.default_sender names one")
	}
	if from, err = parseAddress(l.from); err != nil {
		return nil, nil, nil, err
	}
	m = gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	m.FromMailAddress(from)
	for _, r := range l.all {
		a, err := parseAddress(r)
		if err != nil {
			return nil, nil, nil, err
		}
		m.AddToMailAddress(a)
	}
	for _, r := range l.to {
		a, err := parseAddress(r)
		if err != nil {
			return nil, nil, nil, err
		}
		to = append(to, a)
	}
	m.Subject(l.subject)
	m.SetMessageIDWithValue(l.id + "@" + from.Address[strings.LastIndexByte(from.Address, '@')+1:])
	m.SetDateWithValue(time.UnixMilli(int64(l.time)).UTC())
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetBodyString(gomail.TypeTextPlain, l.body)
	return m, from, to, nil
}
