package mail

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quinto/fsm"
	"quinto/internal/freeport"
	"quinto/plugins"
)

// received is one mail as the server writes it down.
type received struct {
	From    string      `json:"from"`
	To      []string    `json:"to"`
	TLS     bool        `json:"tls"`
	User    any         `json:"user"`
	Headers [][2]string `json:"headers"`
	Body    string      `json:"body"`
}

func (r *received) header(name string) (values []string) {
	for _, h := range r.Headers {
		if strings.EqualFold(h[0], name) {
			values = append(values, h[1])
		}
	}
	return values
}

// smtpServer is aiosmtpd in a process of its own.
type smtpServer struct {
	t         testing.TB
	port, out string
	args      []string
	cmd       *exec.Cmd
}

func startSMTP(t testing.TB, args ...string) *smtpServer {
	t.Helper()
	cache := os.Getenv("QUINTO_CACHE")
	if cache == "" {
		cache = filepath.Join("..", "..", ".cache")
	}
	python := filepath.Join(cache, "smtp", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Skip("aiosmtpd is not installed: scripts/lib/tools.sh smtp")
	}
	s := &smtpServer{t: t, out: filepath.Join(t.TempDir(), "mails")}
	port, err := freeport.Get()
	if err != nil {
		t.Fatal(err)
	}
	s.port = fmt.Sprint(port)
	s.args = append([]string{python, "-B", filepath.Join("..", "..", "scripts", "lib", "smtp", "server.py"), "--port", s.port, "--out", s.out}, args...)
	if !s.start() {
		t.Fatal("the SMTP server does not start")
	}
	t.Cleanup(s.stop)
	return s
}

func (s *smtpServer) start() bool {
	var errors bytes.Buffer
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stderr = &errors
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 1200 {
		if c, err := net.DialTimeout("tcp", "127.0.0.1:"+s.port, time.Second); err == nil {
			_ = c.Close()
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.stop()
	s.t.Log(errors.String())
	return false
}

func (s *smtpServer) stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *smtpServer) mails() (all []received) {
	s.t.Helper()
	f, err := os.Open(s.out)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r received
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func load(t testing.TB, settings map[string]string) *Mail {
	t.Helper()
	p, err := tryLoad(settings)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*Mail)
}

func tryLoad(settings map[string]string) (any, error) {
	return plugins.Registered().Load(context.Background(), plugins.Settings{Name: Name, Use: Name,
		Lookup: func(name string) (string, bool) { v, ok := settings[name]; return v, ok }})
}

// state is what Look reads.
type state struct {
	fsm.Reader
	objects map[fsm.Path]string
}

func (s state) Get(p fsm.Path) (fsm.Object, error) {
	data, ok := s.objects[p]
	if !ok {
		return fsm.Object{}, nil
	}
	return fsm.Object{Path: p, Revision: 1, LastModified: 1, Data: []byte(data)}, nil
}

func hooks(list string) string { return `{"kinto-emailer":{"hooks":[` + list + `]}}` }

func recordCreated() *plugins.Delivery {
	path := fsm.Path("/buckets/b/collections/c/records/r")
	return &plugins.Delivery{ID: "msg_1", Notifier: Name, Attempt: 1,
		Event: &fsm.Event{Revision: 7, Action: fsm.ActionCreate, Path: path, UserID: "basicauth:a", LastModified: 1500, Time: 1500},
		New:   &fsm.Object{Path: path, Revision: 7, LastModified: 1500, Data: []byte(`{"title":"x\r\nBcc: evil@example.com","n":[1,2.5,null]}`)}}
}

func look(t testing.TB, m *Mail, s state, d *plugins.Delivery) []letter {
	t.Helper()
	seen, err := m.Look(s, d)
	if err != nil {
		t.Fatal(err)
	}
	d.Seen = seen
	all, _ := seen.(mails)
	return all.letters
}

func send(t testing.TB, m *Mail, s state, d *plugins.Delivery) error {
	t.Helper()
	look(t, m, s, d)
	return m.Deliver(context.Background(), *d)
}

// A mail has the words of its template, goes to addresses and members of groups, once
// each, and has an id that stays; nothing that a record holds gets into its headers.
func TestMail(t *testing.T) {
	s := startSMTP(t)
	m := load(t, map[string]string{"mail.host": "127.0.0.1", "mail.port": s.port, "mail.default_sender": "Kinto Ü <kinto@example.com>", "project_name": "P"})
	st := state{objects: map[fsm.Path]string{
		"/buckets/b":                  hooks(`{"template":"bucket","recipients":["x@example.com"]}`),
		"/buckets/b/collections/c":    hooks(`{"template":"{user_id} {action}d {id}: {impacted_objects[0][new][title]} {{{settings[project_name]}}} {nothing}\n.\nend","subject":"New {impacted_objects[0][new][title]}","recipients":["Ann Ö. <ann@example.com>","/buckets/b/groups/{collection_id}-readers","/buckets/other/groups/g"]}`),
		"/buckets/b/groups/c-readers": `{"members":["ldap:bob@example.com","ann","basicauth:abc","ldap:ann@example.com\r\nRCPT TO:<evil@example.com>","bob@example.com"]}`,
		"/buckets/other/groups/g":     `{"members":["evil@example.com"]}`,
	}}
	// The hook names a group of another bucket, which cannot be written: it does nothing.
	if got := look(t, m, st, recordCreated()); len(got) != 0 {
		t.Fatalf("a hook that is wrong: %+v", got)
	}
	st.objects["/buckets/b/collections/c"] = strings.Replace(st.objects["/buckets/b/collections/c"], `,"/buckets/other/groups/g"`, "", 1)
	if err := send(t, m, st, recordCreated()); err != nil {
		t.Fatal(err)
	}
	got := s.mails()
	if len(got) != 1 {
		t.Fatalf("%d mails", len(got))
	}
	r := got[0]
	if strings.Join(r.To, " ") != "ann@example.com bob@example.com" || r.From != "kinto@example.com" || r.TLS {
		t.Errorf("%+v", r)
	}
	if want := "basicauth:a created r: x\r\nBcc: evil@example.com {P} {nothing}\n.\nend"; strings.ReplaceAll(strings.TrimSpace(r.Body), "\r", "") != strings.ReplaceAll(want, "\r", "") {
		t.Errorf("body %q", r.Body)
	}
	for name, want := range map[string]string{"Subject": "New x  Bcc: evil@example.com", "Message-ID": "<msg_1.0@example.com>", "Auto-Submitted": "auto-generated"} {
		if h := r.header(name); len(h) != 1 || h[0] != want {
			t.Errorf("%s: %q", name, h)
		}
	}
	if h := r.header("Bcc"); len(h) > 0 {
		t.Errorf("a header was injected: %q", h)
	}
	if h := r.header("From"); len(h) != 1 || !strings.Contains(h[0], "Ü") {
		t.Errorf("From %q", h)
	}
}

// Who was refused for a while is tried again with the same id, without a second mail to
// the others; who is refused for ever is told of once all is done.
func TestRefusals(t *testing.T) {
	s := startSMTP(t)
	m := load(t, map[string]string{"mail.host": "127.0.0.1", "mail.port": s.port, "mail.default_sender": "kinto@example.com"})
	st := state{objects: map[fsm.Path]string{"/buckets/b/collections/c": hooks(`{"template":"x","recipients":["ann@example.com","refused@example.com","later@example.com"]}`)}}
	err := send(t, m, st, recordCreated())
	if err == nil || plugins.IsPermanent(err) {
		t.Errorf("first attempt: %v", err)
	}
	s.stop()
	if err := send(t, m, st, recordCreated()); err == nil || plugins.IsPermanent(err) {
		t.Errorf("without a server: %v", err)
	}
	s.args = append(s.args, "--fail-every", "2")
	s.start()
	for range 3 {
		if err = send(t, m, st, recordCreated()); plugins.IsPermanent(err) {
			break
		}
	}
	if !plugins.IsPermanent(err) || !strings.Contains(err.Error(), "refused@example.com") {
		t.Errorf("at the end: %v", err)
	}
	served := map[string]int{}
	for _, r := range s.mails() {
		if id := r.header("Message-ID"); len(id) != 1 || id[0] != "<msg_1.0@example.com>" {
			t.Errorf("id %q", id)
		}
		for _, to := range r.To {
			served[to]++
		}
	}
	if len(served) != 2 || served["ann@example.com"] != 1 || served["later@example.com"] != 1 || len(m.served) != 0 {
		t.Errorf("served %v, remembered %v", served, m.served)
	}
}

func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "smtp"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pk}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TLS from the start or by STARTTLS, with a certificate that is verified, and a password.
func TestTLSAndAuthentication(t *testing.T) {
	cert, key := certificate(t)
	st := state{objects: map[fsm.Path]string{"/buckets/b/collections/c": hooks(`{"template":"x","recipients":["ann@example.com"]}`)}}
	for _, kind := range []string{"mail.tls", "mail.ssl"} {
		args := []string{"--cert", cert, "--key", key, "--user", "kinto", "--password", "geheim"}
		if kind == "mail.ssl" {
			args = append(args, "--implicit")
		}
		s := startSMTP(t, args...)
		settings := map[string]string{"mail.host": "127.0.0.1", "mail.port": s.port, "mail.default_sender": "kinto@example.com",
			kind: "true", "mail.username": "kinto", "mail.password": "geheim", "mail.cafile": cert}
		if err := send(t, load(t, settings), st, recordCreated()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if err := load(t, settings).Test(context.Background(), "test_1"); err != nil {
			t.Errorf("test, %s: %v", kind, err)
		}
		if got := s.mails(); len(got) != 1 || (!got[0].TLS && kind == "mail.tls") {
			t.Errorf("%s: %+v", kind, got)
		}
		for name, change := range map[string][2]string{"wrong password": {"mail.password", "geheimnis"}, "unknown authority": {"mail.cafile", ""}} {
			old := settings[change[0]]
			settings[change[0]] = change[1]
			if err := load(t, settings).Test(context.Background(), "test_1"); err == nil || strings.Contains(err.Error(), "geheim") {
				t.Errorf("test, %s, %s: %v", kind, name, err)
			}
			if err := send(t, load(t, settings), st, recordCreated()); err == nil || plugins.IsPermanent(err) || strings.Contains(err.Error(), "geheim") {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
			settings[change[0]] = old
		}
	}
}

// A server that takes the connection and says nothing costs one attempt that ends with
// its context.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	m := load(t, map[string]string{"mail.host": "127.0.0.1", "mail.port": port, "mail.default_sender": "kinto@example.com"})
	d := recordCreated()
	look(t, m, state{objects: map[fsm.Path]string{"/buckets/b/collections/c": hooks(`{"template":"x","recipients":["a@b.c"]}`)}}, d)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := m.Deliver(ctx, *d); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

// Those whom the settings name are mailed that mails are lost.
func TestLoss(t *testing.T) {
	s := startSMTP(t)
	m := load(t, map[string]string{"mail.host": "127.0.0.1", "mail.port": s.port, "mail.default_sender": "kinto@example.com", "mail.lost_to": "ops@example.com"})
	if err := m.Lost(context.Background(), plugins.Loss{ID: "msg_lost", After: 12, UpTo: 40, Time: 1500}); err != nil {
		t.Fatal(err)
	}
	got := s.mails()
	if len(got) != 1 || strings.Join(got[0].To, " ") != "ops@example.com" || !strings.Contains(got[0].Body, "above 12, up to 40") || got[0].header("Message-ID")[0] != "<msg_lost@example.com>" {
		t.Errorf("%+v", got)
	}
	if err := m.Test(context.Background(), "test_1"); err != nil {
		t.Error(err)
	}
	if got = s.mails(); len(got) != 2 || strings.Join(got[1].To, " ") != "ops@example.com" || got[1].header("Subject")[0] != "A test" {
		t.Errorf("%+v", got)
	}
	if _, err := tryLoad(map[string]string{"mail.lost_to": "nobody"}); err == nil {
		t.Error("no address was accepted")
	}
}
