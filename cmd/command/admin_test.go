package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quinto/internal/config"
)

// makeTombstones leaves n tombstones in the records of /buckets/b/collections/c.
func makeTombstones(t *testing.T, url string, n int) {
	t.Helper()
	send(t, "PUT", url+"buckets/b", "")
	send(t, "PUT", url+"buckets/b/collections/c", "")
	for i := range n {
		r := fmt.Sprintf("%sbuckets/b/collections/c/records/r%d", url, i)
		send(t, "PUT", r, "")
		if status, body := send(t, "DELETE", r, ""); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
}

func tombstones(t *testing.T, url string) int {
	t.Helper()
	status, body := send(t, "GET", url+"buckets/b/collections/c/records?_since=0", "")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	return strings.Count(body, `"deleted":true`)
}

// A command works the same on a running node, through its socket, and on a stopped
// one; a data folder with a long name has a socket too.
func TestPurgeDeletedOfOneNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long-name-", 12))
	p := startProgram(t, "--data", dir, "--port", "0")
	makeTombstones(t, p.url, 6)
	purge := func(want string, args ...string) {
		t.Helper()
		code, stdout, stderr := run(t, append([]string{"purge-deleted", "--data", dir}, args...)...)
		if code != ExitOK || stdout != want {
			t.Errorf("%v: exit %d, %q %q", args, code, stdout, stderr)
		}
	}
	purge("2 tombstone(s) deleted.\n", "record", "collection", "4")
	purge("0 tombstone(s) deleted.\n", "record", "4")
	if n := tombstones(t, p.url); n != 4 {
		t.Errorf("%d tombstones are left", n)
	}
	p.end(t)
	purge("3 tombstone(s) deleted.\n", "record", "1")
	code, stdout, stderr := run(t, "purge-deleted", "-q", "--data", dir, "cheese", "1")
	if code != ExitOK || stdout != "" || !strings.Contains(stderr, "no such resource: cheese") {
		t.Errorf("exit %d, %q %q", code, stdout, stderr)
	}
	if code, stdout, stderr := run(t, "flush-cache", "--data", dir); code != ExitOK || stdout != "Cache has been cleared.\n" {
		t.Errorf("exit %d, %q %q", code, stdout, stderr)
	}
	p = startProgram(t, "--data", dir, "--port", "0")
	if n := tombstones(t, p.url); n != 1 {
		t.Errorf("after a restart %d tombstones are left", n)
	}
	for _, args := range [][]string{{"record"}, {"record", "x"}, {"record", "-1"}} {
		if code, _, stderr := run(t, append([]string{"purge-deleted", "--data", dir}, args...)...); code != ExitUsage || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, %q", args, code, stderr)
		}
	}
}

// Any member takes a command; a stopped one is not opened alone.
// A process that is stopped by a signal still has its socket; a command must not wait
// for it for ever.
func TestCommandsDoNotWaitForAHungNode(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, adminFolder), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(dir, adminFolder, adminSocket)) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // less than adminAlive
	defer cancel()
	var f adminFlags
	c := &config.Config{Cluster: config.Cluster{DataDir: dir}}
	for name, reach := range map[string]func() error{
		"dial":    func() error { _, err := f.dial(ctx, c); return err },
		"connect": func() error { _, err := f.connect(ctx, c); return err },
	} {
		var failed failure
		if err := reach(); !errors.As(err, &failed) || !strings.Contains(err.Error(), "it hangs, or is stopped") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAdminCommandsOnACluster(t *testing.T) {
	dir := t.TempDir()
	ini := filepath.Join(dir, "k.ini")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	gossip := []string{freePort(t), freePort(t), freePort(t)}
	programs := make([]*program, 3)
	var wg sync.WaitGroup
	for i := range programs {
		peer := freePort(t)
		wg.Go(func() {
			programs[i] = startProgram(t, "--ini", ini, "--data", filepath.Join(dir, fmt.Sprint(i)), "--port", "0", "--name", fmt.Sprintf("n%d", i),
				"--cluster", peer, "--gossip", gossip[i], "--join", strings.Join(gossip, ","), "--expect", "3")
		})
	}
	wg.Wait()
	makeTombstones(t, programs[0].url, 3)
	for i := range programs { // whichever leads
		code, stdout, stderr := run(t, "purge-deleted", "--ini", ini, "--data", filepath.Join(dir, fmt.Sprint(i)), "record", fmt.Sprint(2-i))
		if code != ExitOK || stdout != "1 tombstone(s) deleted.\n" {
			t.Errorf("through %d: exit %d, %q %q", i, code, stdout, stderr)
		}
		if n := tombstones(t, programs[i].url); n != 2-i {
			t.Errorf("node %d shows %d tombstones", i, n)
		}
	}
	programs[2].end(t)
	t.Setenv("QUINTO_NAME", "n2")
	code, _, stderr := run(t, "flush-cache", "--ini", ini, "--data", filepath.Join(dir, "2"))
	if code != ExitFailure || !strings.Contains(stderr, "one of several (n0, n1, n2)") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit %d, %q", code, stderr)
	}
	t.Setenv("QUINTO_EXPECT", "3")
	t.Setenv("QUINTO_CLUSTER", "127.0.0.1:0")
	t.Setenv("QUINTO_GOSSIP", "127.0.0.1:0")
	code, _, stderr = run(t, "flush-cache", "--ini", ini, "--data", filepath.Join(dir, "new"))
	if code != ExitFailure || !strings.Contains(stderr, "start it first") {
		t.Errorf("an empty folder: exit %d, %q", code, stderr)
	}
}

func TestInit(t *testing.T) {
	t.Chdir(t.TempDir())
	code, stdout, stderr := run(t, "init")
	if code != ExitOK || !strings.Contains(stdout, "config/kinto.ini") {
		t.Fatalf("exit %d, %q %q", code, stdout, stderr)
	}
	if code, _, stderr := run(t, "init"); code != ExitFailure || stderr != "quinto: config/kinto.ini already exists\n" {
		t.Errorf("again: exit %d, %q", code, stderr)
	}
	if info, err := os.Stat("config/kinto.ini"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	// Without a flag `start` takes this file, as Kinto does, and keeps its data beside it.
	p := startProgram(t, "--port", "0")
	p.end(t)
	if _, err := os.Stat("data/db"); err != nil {
		t.Error(err)
	}
	if code, stdout, stderr := run(t, "migrate", "--dry-run"); code != ExitOK || !strings.HasPrefix(stdout, "nothing to migrate") {
		t.Errorf("exit %d, %q %q", code, stdout, stderr)
	}
	if code, stdout, _ := run(t, "init", "-q", "--ini", "m.ini", "--backend", "memory", "--cache-backend", "memory", "--host", "::1"); code != ExitOK || stdout != "" {
		t.Errorf("exit %d, %q", code, stdout)
	}
	c, err := config.Load(config.Options{Path: "m.ini"})
	if err != nil || !c.Memory || c.HTTP.Host != "::1" {
		t.Errorf("%+v %v", c, err)
	}
	if code, _, stderr := run(t, "init", "--ini", "p.ini", "--backend", "postgresql"); code != ExitUsage || !strings.Contains(stderr, "quinto import --from") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if code, _, stderr := run(t, "init", "--ini", "p.ini", "--cache-backend", "redis"); code != ExitUsage || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit %d, %q", code, stderr)
	}
	t.Setenv("KINTO_INI", "m.ini")
	if code, _, stderr := run(t, "flush-cache"); code != ExitUsage || !strings.Contains(stderr, "storage_backend is memory") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestCompletion(t *testing.T) {
	if code, stdout, _ := run(t, "completion", "bash"); code != ExitOK || !strings.Contains(stdout, "quinto") {
		t.Errorf("exit %d", code)
	}
	if _, stdout, _ := run(t, "help"); !strings.Contains(stdout, "completion") {
		t.Errorf("help does not name it: %s", stdout)
	}
}
