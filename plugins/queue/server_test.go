package queue

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"quinto/internal/freeport"
)

// server is a real one in a process of its own.
type server struct {
	t    testing.TB
	path string
	args []string
	addr string
	cmd  *exec.Cmd
}

// program finds a server where scripts/lib/tools.sh puts it.
func program(t testing.TB, name, tool string) string {
	t.Helper()
	cache := os.Getenv("QUINTO_CACHE")
	if cache == "" {
		cache = filepath.Join("..", "..", ".cache")
	}
	if path, err := filepath.Abs(filepath.Join(cache, "bin", name)); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: scripts/lib/tools.sh %s", name, tool)
	}
	return path
}

func startServer(t testing.TB, path string, args func(port int) []string) *server {
	t.Helper()
	port, err := freeport.Get()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, path: path, args: args(port), addr: fmt.Sprintf("127.0.0.1:%d", port)}
	if !s.start() {
		t.Fatalf("%s does not start", path)
	}
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() bool {
	s.cmd = exec.Command(s.path, s.args...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 1200 {
		if c, err := net.DialTimeout("tcp", s.addr, time.Second); err == nil {
			_ = c.Close()
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.stop()
	return false
}

func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

func startRedis(t testing.TB) *server {
	dir := t.TempDir()
	return startServer(t, program(t, "redis-server", "redis"), func(port int) []string {
		return []string{"--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--requirepass", "geheim", "--appendonly", "yes", "--appendfsync", "always", "--dir", dir}
	})
}

func startNATS(t testing.TB) *server {
	dir := t.TempDir()
	return startServer(t, program(t, "nats-server", "nats"), func(port int) []string {
		return []string{"-a", "127.0.0.1", "-p", fmt.Sprint(port), "-js", "-sd", dir, "--user", "quinto", "--pass", "geheim"}
	})
}

// until tries f until it succeeds.
func until(t testing.TB, what string, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
