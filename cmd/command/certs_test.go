package command

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quinto/api"
	"quinto/internal/config"
)

// certificates makes an authority with nodes and a gossip key by the commands.
func certificates(t *testing.T, nodes ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "certs")
	must := func(args ...string) {
		t.Helper()
		if code, out, errs := run(t, append([]string{"certs"}, args...)...); code != ExitOK || !strings.HasPrefix(out, "wrote ") {
			t.Fatalf("certs %q: %d %s%s", args, code, out, errs)
		}
	}
	must("init", "--dir", dir)
	for _, n := range nodes {
		must("node", n, "--dir", dir, "--address", "127.0.0.1,localhost")
	}
	must("gossip-key", filepath.Join(dir, "gossip.key"))
	return dir
}

// The file has a part of what protects the wires, and the flags of start the rest: the
// commands that reach the node through its folder need no more than the file.
func TestCommandsTakeHalfOfTheWires(t *testing.T) {
	dir := certificates(t, "n1")
	ini, data := filepath.Join(dir, "k.ini"), filepath.Join(dir, "data")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ini)
	if err != nil {
		t.Fatal(err)
	}
	more := "[app:main]\nquinto.cluster_tls_ca = " + filepath.Join(dir, "ca.pem") + "\nquinto.http_tls_cert = " + filepath.Join(dir, "n1.pem") + "\n"
	if err := os.WriteFile(ini, []byte(strings.Replace(string(text), "[app:main]\n", more, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	pem, key := filepath.Join(dir, "n1.pem"), filepath.Join(dir, "n1.key")
	p := startProgram(t, "--ini", ini, "--data", data, "--port", "0", "--name", "n1", "--cluster", freePort(t),
		"--cluster-tls-cert", pem, "--cluster-tls-key", key, "--http-tls-key", key)
	for _, command := range [][]string{{"cluster", "status"}, {"cluster", "members"}, {"backup", "status"}, {"export"}} {
		if code, out, errs := run(t, append(command, "--ini", ini, "--data", data)...); code != ExitOK {
			t.Errorf("%v: %d %s%s", command, code, out, errs)
		}
	}
	p.end(t)
	bad(t, ExitUsage, "is given without", "start", "--ini", ini, "--data", data, "--port", "0")
}

func TestCertsCommands(t *testing.T) {
	dir := certificates(t, "n1")
	ca, node, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "n1.pem"), filepath.Join(dir, "gossip.key")
	code, out, errs := run(t, "certs", "show", ca, node)
	if code != ExitOK || !strings.Contains(out, "authority quinto CA ") || !strings.Contains(out, "node n1; addresses localhost 127.0.0.1; by quinto CA ") ||
		!strings.Contains(out, "364 days left") {
		t.Errorf("show: %d %s%s", code, out, errs)
	}
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"init", "--dir", dir}, ExitFailure, "exists already"},
		{[]string{"node", "n1", "--dir", dir}, ExitFailure, "exists already"},
		{[]string{"node", "n1", "--dir", dir, "--renew", "--days", "3"}, ExitOK, ""},
		{[]string{"node", "n/1", "--dir", dir}, ExitUsage, "node name"},
		{[]string{"node", "n2", "--dir", filepath.Join(dir, "none")}, ExitFailure, "quinto certs init"},
		{[]string{"gossip-key", key}, ExitFailure, "exists already"},
		{[]string{"gossip-key", "add", key}, ExitOK, ""},
		{[]string{"gossip-key", "use", key}, ExitOK, ""},
		{[]string{"gossip-key", "drop", key}, ExitOK, ""},
		{[]string{"gossip-key", "turn", key}, ExitUsage, "add, use or drop"},
		{[]string{"show", key}, ExitUsage, "no certificate"},
	} {
		if code, _, errs := run(t, append([]string{"certs"}, tc.args...)...); code != tc.code || !strings.Contains(errs, tc.want) {
			t.Errorf("certs %q: %d %s", tc.args, code, errs)
		}
	}
	if code, out, _ := run(t, "certs", "show", node); code != ExitOK || !strings.Contains(out, "2 days left") {
		t.Errorf("renewed: %s", out)
	}
}

// clientOf trusts the authority in dir.
func clientOf(t *testing.T, dir string) *http.Client {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// The public port speaks HTTPS, with URLs to match; plaintext gets no answer of ours.
func TestHTTPS(t *testing.T) {
	dir := certificates(t, "n1")
	p := startProgram(t, "--data", t.TempDir(), "--port", "0", "--http-tls-cert", filepath.Join(dir, "n1.pem"), "--http-tls-key", filepath.Join(dir, "n1.key"))
	if !strings.HasPrefix(p.url, "https://127.0.0.1:") {
		t.Fatalf("URL %s", p.url)
	}
	client := clientOf(t, dir)
	get := func(url string) (*http.Response, string) {
		t.Helper()
		answer, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer, string(body)
	}
	if answer, body := get(p.url); answer.StatusCode != http.StatusOK || !strings.Contains(body, `"url":"`+p.url) {
		t.Errorf("hello: %d %s", answer.StatusCode, body)
	}
	address := strings.TrimSuffix(strings.TrimPrefix(p.url, "https://"), "/v1/")
	plain, err := http.Get("http://" + address + "/v1/")
	if err == nil {
		_ = plain.Body.Close()
		t.Errorf("plaintext is answered: %s", plain.Status)
	}
	// A refused body is answered although the client still sends.
	body := strings.NewReader(strings.Repeat("x", 5<<20))
	answer, err := client.Post(p.url+"buckets", "application/json", body)
	if err != nil || answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a body beyond the limit: %v %v", answer, err)
	} else {
		_ = answer.Body.Close()
	}
	// A handshake that never ends holds up nobody.
	silent, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	if answer, _ := get(p.url + "__lbheartbeat__"); answer.StatusCode != http.StatusOK {
		t.Error(answer.Status)
	}
}

func TestBadWires(t *testing.T) {
	dir, foreign := certificates(t, "n1", "n2"), certificates(t, "n1")
	file := func(dir, name string) string { return filepath.Join(dir, name) }
	tls := func(ca, cert, key string) []string {
		return []string{"--cluster-tls-ca", ca, "--cluster-tls-cert", cert, "--cluster-tls-key", key}
	}
	ca, cert, key := file(dir, "ca.pem"), file(dir, "n1.pem"), file(dir, "n1.key")
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"half":              {[]string{"--cluster-tls-ca", ca}, "is given without quinto.cluster_tls_key"},
		"https half":        {[]string{"--http-tls-cert", cert}, "is given without quinto.http_tls_key"},
		"another's":         {tls(ca, file(dir, "n2.pem"), file(dir, "n2.key")), `it is of ["n2"], this node is "n1"`},
		"foreign authority": {tls(file(foreign, "ca.pem"), cert, key), "unknown authority"},
		"no such file":      {tls(ca, cert, file(dir, "n9.key")), "no such file"},
		"gossip keys":       {[]string{"--gossip-key-file", cert}, "gossip keys: "},
		"off the machine":   {append(tls(ca, cert, key), "--cluster", "192.0.2.1:7000"), "in plaintext"},
		"all addresses":     {append(tls(ca, cert, key), "--gossip-key-file", file(dir, "gossip.key"), "--cluster", "0.0.0.0:7000"), "as other nodes reach it"},
	} {
		code, _, errs := run(t, append([]string{"start", "--data", t.TempDir(), "--port", "0", "--name", "n1"}, tc.args...)...)
		if code != ExitUsage || !strings.Contains(errs, tc.want) {
			t.Errorf("%s: %d %s", name, code, errs)
		}
	}
}

// Two nodes from the command line, protected on all ports, whose settings differ:
// status names the setting, and a wrong one is never shown by its value.
func TestProtectedClusterFromTheCommandLine(t *testing.T) {
	t.Parallel()
	dir := certificates(t, "n1", "n2")
	ports := []string{freePort(t), freePort(t), freePort(t), freePort(t)}
	ini := func(name, more string) string {
		path := filepath.Join(t.TempDir(), name+".ini")
		text := "[server:main]\nhost = 127.0.0.1\n[app:main]\nkinto.userid_hmac_secret = s\nmultiauth.policies = basicauth\n" +
			"multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy\n" + more +
			"quinto.cluster_tls_ca = " + dir + "/ca.pem\nquinto.cluster_tls_cert = " + dir + "/" + name + ".pem\nquinto.cluster_tls_key = " + dir + "/" + name + ".key\n" +
			"quinto.gossip_key_file = " + dir + "/gossip.key\nquinto.cluster_label = here\nquinto.http_tls_cert = " + dir + "/" + name + ".pem\nquinto.http_tls_key = " + dir + "/" + name + ".key\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := startProgram(t, "--ini", ini("n1", ""), "--data", t.TempDir(), "--name", "n1", "--port", "0", "--cluster", ports[0], "--gossip", ports[1])
	second := startProgram(t, "--ini", ini("n2", "kinto.paginate_by = 7\n"), "--data", t.TempDir(), "--name", "n2", "--port", "0",
		"--cluster", ports[2], "--gossip", ports[3], "--join", ports[1])
	client := clientOf(t, dir)
	request, err := http.NewRequest(http.MethodPut, second.url+"buckets/b", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth("alice", "secret")
	answer, err := client.Do(request)
	if err != nil || answer.StatusCode != http.StatusCreated {
		t.Fatalf("a write through the other node: %v %v", answer, err)
	}
	_ = answer.Body.Close()
	var s api.ClusterStatus
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(s.SettingsDiffer) == 0 {
		code, out, errs := run(t, "cluster", "status", "--json", "--http", first.url, "--ca", filepath.Join(dir, "ca.pem"))
		if code != ExitOK || json.Unmarshal([]byte(out), &s) != nil || ctx.Err() != nil {
			t.Fatalf("status: %d %s%s", code, out, errs)
		}
	}
	if got := s.SettingsDiffer["n2"]; len(got) != 1 || got[0] != "paginate_by" {
		t.Errorf("settings that differ: %v", s.SettingsDiffer)
	}
	if code, out, errs := run(t, "cluster", "status", "--http", first.url, "--ca", filepath.Join(dir, "ca.pem")); code != ExitOK ||
		!strings.Contains(out, "settings of n2 are not the leader's: paginate_by") {
		t.Errorf("status: %d %s%s", code, out, errs)
	}
	if code, out, errs := run(t, "cluster", "hash", "--http", first.url, "--ca", filepath.Join(dir, "ca.pem")); code != ExitOK {
		t.Errorf("hash: %d %s%s", code, out, errs)
	}
}
