package testcluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// quinto runs one command of the binary to its end, and returns what it printed.
func quinto(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(binary, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("quinto %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// protected is a cluster on addresses of its own, all of whose wires are encrypted.
type protected struct {
	*Cluster
	dir string // with the certificates
}

func (p *protected) file(name string) string { return filepath.Join(p.dir, name) }

func startProtected(t *testing.T, ctx context.Context) *protected {
	t.Helper()
	p := &protected{dir: filepath.Join(t.TempDir(), "certs")}
	quinto(t, "certs", "init", "--dir", p.dir)
	quinto(t, "certs", "gossip-key", p.file("gossip.key"))
	c, err := New(Options{Binary: binary, Dir: t.TempDir(), Nodes: 3, Flags: []string{"-v"}, NodeFlags: func(n *Node) []string {
		return []string{"--cluster-tls-ca", p.file("ca.pem"), "--cluster-tls-cert", p.file(n.Name + ".pem"),
			"--cluster-tls-key", p.file(n.Name + ".key"), "--gossip-key-file", p.file("gossip.key")}
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.Cluster = c
	for i, n := range c.Nodes {
		host := fmt.Sprintf("127.0.0.%d:", i+1)
		n.Peer, n.Gossip = strings.Replace(n.Peer, "127.0.0.1:", host, 1), strings.Replace(n.Gossip, "127.0.0.1:", host, 1)
		quinto(t, "certs", "node", n.Name, "--dir", p.dir)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, n := range c.Nodes {
			if log := n.Log(); t.Failed() {
				t.Logf("%s:\n%s", n.Name, tail(log, 4000))
			}
		}
	})
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// wait waits until each node's log has a line n times.
func (p *protected) wait(t *testing.T, ctx context.Context, line string, n int) {
	t.Helper()
	for _, node := range p.Nodes {
		for strings.Count(node.Log(), line) < n {
			if sleep(ctx, 50*time.Millisecond) != nil {
				t.Fatalf("%s does not say %q %d times", node.Name, line, n)
			}
		}
	}
}

// Three processes with certificates of the commands: authority, certificates and
// gossip key are replaced while clients write through every node, and no write fails.
func TestCertificatesRotateUnderLoad(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p := startProtected(t, ctx)
	check(t, createPath(ctx, p.Nodes[0], "/buckets/rotation"))
	check(t, createPath(ctx, p.Nodes[0], "/buckets/rotation/collections/c"))
	var writes, bad atomic.Int64
	loadCtx, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	for i, n := range p.Nodes {
		load.Go(func() {
			for j := 0; loadCtx.Err() == nil; j++ {
				path := fmt.Sprintf("/buckets/rotation/collections/c/records/n%d-%d", i, j%100)
				code, body, err := n.Do(ctx, http.MethodPut, path, []byte(`{"data":{"x":1}}`), nil)
				if err != nil || code != http.StatusOK && code != http.StatusCreated {
					bad.Add(1)
					t.Errorf("write through %s: %d %v %s", n.Name, code, err, body)
				}
				writes.Add(1)
			}
		})
	}
	const again, keys = "certificates read again", "gossip keys read again"
	// 1. Trust the old and the new authority; know the new key.
	next := filepath.Join(p.dir, "next")
	quinto(t, "certs", "init", "--dir", next)
	replace := func(name string, texts ...[]byte) {
		t.Helper()
		tmp := p.file(name + ".new")
		check(t, os.WriteFile(tmp, bytes.Join(texts, nil), 0o600))
		check(t, os.Rename(tmp, p.file(name)))
	}
	newCA, oldCA := must(os.ReadFile(filepath.Join(next, "ca.pem")))(t), must(os.ReadFile(p.file("ca.pem")))(t)
	replace("ca.pem", newCA, oldCA)
	quinto(t, "certs", "gossip-key", "add", p.file("gossip.key"))
	p.wait(t, ctx, again, 1)
	p.wait(t, ctx, keys, 1)
	// 2. Certificates of the new authority; the new key encrypts.
	for _, n := range p.Nodes {
		quinto(t, "certs", "node", n.Name, "--dir", next)
		for _, ext := range []string{".key", ".pem"} {
			replace(n.Name+ext, must(os.ReadFile(filepath.Join(next, n.Name+ext)))(t))
		}
	}
	quinto(t, "certs", "gossip-key", "use", p.file("gossip.key"))
	p.wait(t, ctx, again, 2)
	p.wait(t, ctx, keys, 2)
	// 3. Trust the new authority alone; forget the old key.
	replace("ca.pem", newCA)
	quinto(t, "certs", "gossip-key", "drop", p.file("gossip.key"))
	p.wait(t, ctx, again, 3)
	p.wait(t, ctx, keys, 3)
	stop()
	load.Wait()
	t.Logf("%d writes, %d failed", writes.Load(), bad.Load())
	if writes.Load() < 100 {
		t.Errorf("%d writes only", writes.Load())
	}
	for _, n := range p.Nodes {
		for _, line := range []string{"cluster port refused", "cannot be used", "panic:"} {
			if log := n.Log(); strings.Contains(log, line) {
				t.Errorf("%s says %q", n.Name, line)
			}
		}
	}
	// A node that starts now proves itself with the new files alone.
	check(t, p.Nodes[2].Stop())
	check(t, p.Nodes[2].Start())
	check(t, p.WaitReady(ctx, p.Nodes[2]))
	status := must(p.Nodes[0].Status(ctx))(t)
	if len(status.Members) != 3 || !status.Members[2].Ready {
		t.Errorf("%+v", status)
	}
	attackProtected(t, ctx, p)
}

func createPath(ctx context.Context, n *Node, path string) error {
	code, body, err := n.Ask(ctx, http.MethodPut, path, nil, nil)
	if err == nil && code != http.StatusCreated && code != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", path, code, body)
	}
	return err
}

// gossipEncrypted begins what memberlist encrypts.
const gossipEncrypted = 10

// attackProtected knocks at the cluster and gossip ports of real processes as
// strangers do. Nothing is answered, the processes serve on.
func attackProtected(t *testing.T, ctx context.Context, p *protected) {
	t.Helper()
	victim := p.Nodes[0]
	knock := func(addr string, secure bool, sent string) {
		t.Helper()
		conn, err := net.DialTimeout("tcp", addr, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		check(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		if secure {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		_, _ = io.WriteString(conn, sent)
		got, err := io.ReadAll(io.LimitReader(conn, 1<<20))
		// An alert of TLS has 7 bytes; gossip says what is wrong, encrypted.
		if err == nil && len(got) > 7 && (got[0] != gossipEncrypted || bytes.Contains(got, []byte("ncrypt"))) {
			t.Errorf("%s answers %q", addr, got)
		}
	}
	for _, addr := range []string{victim.Peer, victim.Gossip} {
		knock(addr, false, "GET /v1/ HTTP/1.1\r\nHost: x\r\n\r\n")
		knock(addr, false, "QNTO\x01\x02\x00\x00")
		knock(addr, false, "\x0a\xff\xff\xff\xff"+strings.Repeat("\xff", 1000))
		knock(addr, true, "x")
	}
	udp, err := net.Dial("udp", victim.Gossip)
	check(t, err)
	defer udp.Close()
	for i := range 256 {
		_, _ = udp.Write(append([]byte{byte(i)}, strings.Repeat("\xff", 1200)...))
	}
	check(t, createPath(ctx, victim, "/buckets/after"))
	log := victim.Log()
	for _, line := range []string{"plaintext on a TLS port", "cluster port refused"} {
		if !strings.Contains(log, line) {
			t.Errorf("the log does not say %q", line)
		}
	}
}
