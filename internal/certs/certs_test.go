package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// journal is a log that a test reads.
type journal struct {
	mu sync.Mutex
	b  strings.Builder
}

func (j *journal) add(level, msg string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.b.WriteString(level + ": " + msg + "\n")
}

func (j *journal) Info(msg string, _ ...any)  { j.add("info", msg) }
func (j *journal) Warn(msg string, _ ...any)  { j.add("warn", msg) }
func (j *journal) Error(msg string, _ ...any) { j.add("error", msg) }

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), text)
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func authority(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new", "certs")
	must[*x509.Certificate](t)(InitCA(dir, CADays))
	return dir
}

func issue(t *testing.T, dir, name string, days int) *x509.Certificate {
	t.Helper()
	return must[*x509.Certificate](t)(IssueNode(dir, NodeRequest{Name: name, Days: days, Replace: true}))
}

func files(dir, name string) Files {
	return Files{CA: filepath.Join(dir, CAFile), Cert: filepath.Join(dir, name+certExt), Key: filepath.Join(dir, name+keyExt)}
}

func TestAuthorityAndNode(t *testing.T) {
	dir := authority(t)
	if _, err := InitCA(dir, CADays); !errors.Is(err, ErrExists) {
		t.Errorf("an authority was replaced: %v", err)
	}
	c := must[*x509.Certificate](t)(IssueNode(dir, NodeRequest{Name: "N1", Days: 2 * CADays, Addresses: []string{"a.example", "127.0.0.1", "::1"}}))
	if !slices.Equal(NodeNames(c), []string{"N1"}) || len(c.IPAddresses) != 2 || len(c.DNSNames) != 1 || c.IsCA {
		t.Errorf("%+v", c)
	}
	ca := must[[]*x509.Certificate](t)(ReadCertificates(filepath.Join(dir, CAFile)))[0]
	if !ca.IsCA || ca.NotAfter != c.NotAfter { // not longer than its authority
		t.Errorf("authority until %s, node until %s", ca.NotAfter, c.NotAfter)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := Verify([]*x509.Certificate{c}, pool, usage, time.Now()); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{CAKeyFile, "N1.key"} {
		if info := must[os.FileInfo](t)(os.Stat(filepath.Join(dir, name))); info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
	}
	if left := must[[]string](t)(filepath.Glob(filepath.Join(dir, ".*"))); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, err := IssueNode(dir, NodeRequest{Name: "N1", Days: 1}); !errors.Is(err, ErrExists) {
		t.Errorf("a certificate was replaced: %v", err)
	}
	for name, r := range map[string]NodeRequest{
		"slash": {Name: "a/b", Days: 1}, "ca": {Name: "ca", Days: 1}, "empty": {Days: 1}, "long": {Name: strings.Repeat("a", 64), Days: 1},
		"no days": {Name: "a"}, "port": {Name: "a", Days: 1, Addresses: []string{"a:1"}}, "URL": {Name: "a", Days: 1, Addresses: []string{"http://a"}},
	} {
		if _, err := IssueNode(dir, r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := IssueNode(t.TempDir(), NodeRequest{Name: "a", Days: 1}); err == nil || !strings.Contains(err.Error(), "quinto certs init") {
		t.Errorf("without an authority: %v", err)
	}
}

// A certificate that is a node's speaks for no host that happens to be called so.
func TestNodeNames(t *testing.T) {
	uri := func(s string) *url.URL { return must[*url.URL](t)(url.Parse(s)) }
	for name, tc := range map[string]struct {
		uris, dns, want []string
	}{
		"node":          {[]string{NodeURI("n1")}, []string{"n2"}, []string{"n1"}},
		"host":          {nil, []string{"n1", "n2.example", "*.example"}, []string{"n1", "n2.example"}},
		"other URI":     {[]string{"spiffe://x/n3"}, []string{"n1"}, []string{"n1"}},
		"with a path":   {[]string{NodeURI("n1") + "/x", "quinto://node/a%2fb", "quinto://node/n1?x", "quinto://other/n1"}, nil, nil},
		"several nodes": {[]string{NodeURI("n1"), NodeURI("n2")}, nil, []string{"n1", "n2"}},
	} {
		c := &x509.Certificate{DNSNames: tc.dns}
		for _, u := range tc.uris {
			c.URIs = append(c.URIs, uri(u))
		}
		if got := NodeNames(c); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestOpenRefusesWhatDoesNotBelongTogether(t *testing.T) {
	dir, foreign := authority(t), authority(t)
	for _, name := range []string{"n1", "n2"} {
		issue(t, dir, name, 1)
	}
	issue(t, foreign, "n1", 1)
	good := files(dir, "n1")
	mixed, other, absent, noPEM := good, good, good, good
	mixed.Key = files(dir, "n2").Key
	other.CA = files(foreign, "n1").CA
	absent.Cert = filepath.Join(dir, "absent.pem")
	noPEM.CA = good.Key
	for name, tc := range map[string]struct {
		files Files
		o     Options
		want  error
	}{
		"good":            {good, Options{Name: "n1"}, nil},
		"of another":      {good, Options{Name: "n2"}, ErrInvalid},
		"key of another":  {mixed, Options{Name: "n1"}, ErrInvalid},
		"other authority": {other, Options{Name: "n1"}, ErrInvalid},
		"absent":          {absent, Options{Name: "n1"}, os.ErrNotExist},
		"no certificate":  {noPEM, Options{Name: "n1"}, ErrInvalid},
		"expired":         {good, Options{Name: "n1", Now: func() time.Time { return time.Now().Add(2 * Day) }}, ErrInvalid},
		"not yet valid":   {good, Options{Name: "n1", Now: func() time.Time { return time.Now().Add(-2 * Day) }}, ErrInvalid},
	} {
		tc.o.Log, tc.o.What = &journal{}, "test"
		s, err := Open(tc.files, tc.o)
		if !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if s != nil {
			_ = s.Close()
		}
	}
}

func TestNewFilesAreTakenAndBadOnesAreNot(t *testing.T) {
	dir, log := authority(t), &journal{}
	first := issue(t, dir, "n1", 1)
	f := files(dir, "n1")
	s := must[*Store](t)(Open(f, Options{Name: "n1", What: "test", Log: log, Poll: 200 * time.Millisecond}))
	defer func() { _ = s.Close() }()
	var told atomic.Int32
	s.OnChange(func() { told.Add(1) })
	serial := func() string { return s.Current().Leaf.SerialNumber.String() }
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited in vain: %s", what)
			}
		}
	}
	s.mu.Lock() // on a slow disk a key may be there long before its certificate: the next test
	second := issue(t, dir, "n1", 1)
	s.mu.Unlock()
	wait("the second certificate", func() bool { return serial() == second.SerialNumber.String() && told.Load() >= 1 })
	if first.SerialNumber.Cmp(second.SerialNumber) == 0 || !s.Expires().Equal(second.NotAfter) {
		t.Error("the same certificate")
	}
	const refused = "cannot be used; the old ones stay in force"
	if n := log.count(refused); n > 0 {
		t.Errorf("%d warnings about files that were good", n)
	}
	for i, bad := range [][]byte{nil, []byte("noise"), bytes.Repeat([]byte("x"), MaxFileBytes+1)} {
		if err := WriteFile(f.Cert, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		wait("a warning", func() bool { return log.count(refused) == i+1 })
		if serial() != second.SerialNumber.String() {
			t.Error("a bad file was taken")
		}
	}
	if err := os.Remove(f.Cert); err != nil {
		t.Fatal(err)
	}
	wait("a warning about a missing file", func() bool { return log.count(refused) == 4 })
	third := issue(t, dir, "n1", 1)
	wait("the third certificate", func() bool { return serial() == third.SerialNumber.String() })
}

// Files are replaced one after another: a key without its certificate is no reason for a
// warning at the first look, and is one at the second.
func TestFilesReplacedOneAfterAnother(t *testing.T) {
	dir, log := authority(t), &journal{}
	issue(t, dir, "n1", 1)
	f := files(dir, "n1")
	s := must[*Store](t)(Open(f, Options{Name: "n1", What: "test", Log: log, Poll: time.Hour}))
	if err := s.Close(); err != nil { // no poll: the test looks
		t.Fatal(err)
	}
	old := must[[]byte](t)(os.ReadFile(f.Cert))
	second := issue(t, dir, "n1", 1)
	whole := must[[]byte](t)(os.ReadFile(f.Cert))
	const refused = "cannot be used; the old ones stay in force"
	for _, step := range []struct {
		cert     []byte
		warnings int
	}{{old, 0}, {whole, 0}, {old, 0}, {nil, 1}} {
		if step.cert != nil {
			if err := WriteFile(f.Cert, step.cert, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s.look()
		if n := log.count(refused); n != step.warnings {
			t.Fatalf("%d warnings, want %d", n, step.warnings)
		}
	}
	if s.Current().Leaf.SerialNumber.Cmp(second.SerialNumber) != 0 {
		t.Error("the new certificate is not in force")
	}
}

func TestExpiryIsToldOnceADay(t *testing.T) {
	dir, log := authority(t), &journal{}
	issue(t, dir, "n1", 90)
	now := time.Now()
	s := must[*Store](t)(Open(files(dir, "n1"), Options{What: "test", Log: log, Poll: time.Hour, Now: func() time.Time { return now }}))
	if err := s.Close(); err != nil { // no poll: the test looks
		t.Fatal(err)
	}
	for day := range 93 {
		now = now.Add(Day)
		s.look()
		s.look()
		if soon, over := log.count("expires soon"), log.count("has expired"); day < 58 && soon > 0 || day == 70 && soon < 10 || soon > 31 || over > 4 || day == 92 && over < 2 {
			t.Fatalf("day %d: %d warnings, %d errors", day, soon, over)
		}
	}
}

func TestServerConfigServes(t *testing.T) {
	dir := authority(t)
	if _, err := IssueNode(dir, NodeRequest{Name: "n1", Days: 1, Addresses: []string{"127.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	f := files(dir, "n1")
	f.CA = ""
	s := must[*Store](t)(Open(f, Options{What: "test", Log: &journal{}}))
	defer func() { _ = s.Close() }()
	ln := must[net.Listener](t)(tls.Listen("tcp", "127.0.0.1:0", s.ServerConfig()))
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
	}()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(filepath.Join(dir, CAFile))))
	c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 is served")
	}
}

func TestGossipKeys(t *testing.T) {
	path, log := filepath.Join(t.TempDir(), "gossip.key"), &journal{}
	if err := InitKeys(path); err != nil {
		t.Fatal(err)
	}
	if err := InitKeys(path); !errors.Is(err, ErrExists) {
		t.Errorf("keys were replaced: %v", err)
	}
	s := must[*KeyStore](t)(OpenKeys(path, 10*time.Millisecond, log))
	defer func() { _ = s.Close() }()
	changes := make(chan [][]byte, 10)
	s.Follow(func(keys [][]byte) { changes <- keys })
	one := <-changes
	next := func(step string) [][]byte {
		t.Helper()
		if err := RotateKeys(path, step); err != nil {
			t.Fatal(err)
		}
		select {
		case keys := <-changes:
			return keys
		case <-time.After(time.Minute):
			t.Fatalf("%s: not read", step)
		}
		return nil
	}
	two := next(KeysAdd)
	if len(two) != 2 || !bytes.Equal(two[0], one[0]) || bytes.Equal(two[0], two[1]) || len(two[1]) != GossipKeyBytes {
		t.Errorf("add: %x", two)
	}
	if used := next(KeysUse); !bytes.Equal(used[0], two[1]) || !bytes.Equal(used[1], two[0]) {
		t.Errorf("use: %x", used)
	}
	if left := next(KeysDrop); len(left) != 1 || !bytes.Equal(left[0], two[1]) {
		t.Errorf("drop: %x", left)
	}
	if err := RotateKeys(path, "turn"); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown step: %v", err)
	}
	for range MaxGossipKeys - 1 {
		next(KeysAdd)
	}
	if err := RotateKeys(path, KeysAdd); !errors.Is(err, ErrInvalid) {
		t.Errorf("a fifth key: %v", err)
	}
	for name, text := range map[string]string{"empty": "", "comment": "# x\n", "short": "eA==\n", "noise": "\x00\xff\n"} {
		if err := WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKeys(path); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for end := time.Now().Add(time.Minute); log.count("old keys stay in force") == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no warning about a bad file")
		}
	}
	if len(s.Keys()) != MaxGossipKeys {
		t.Error("a bad file was taken")
	}
}
