package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quinto/internal/freeport"
)

// Limits of starting and stopping servers.
const (
	startTimeout   = 60 * time.Second
	stopTimeout    = 8 * time.Second
	startPoll      = 50 * time.Millisecond
	logTailOnError = 2000
)

// process is a server that this program started and ends.
type process struct {
	Server
	cmd  *exec.Cmd
	done chan error
	log  string
	end  syscall.Signal // asks it to end; 0 is SIGTERM
}

// iniText is the one configuration both servers read; each ignores the keys it does not know.
func iniText(port int, settings, backend, dsn string) string {
	var extra strings.Builder
	policies := "basicauth"
	for _, pair := range strings.Fields(settings) {
		key, value, _ := strings.Cut(pair, "=")
		if key == "multiauth.policies" {
			policies = strings.ReplaceAll(value, "|", " ")
			continue
		}
		if !strings.HasPrefix(key, "mail.") { // those are pyramid_mailer's
			key = "kinto." + key
		}
		fmt.Fprintf(&extra, "%s = %s\n", key, strings.ReplaceAll(value, "|", " "))
	}
	if backend == "postgresql" {
		for _, part := range []string{"storage", "permission", "cache"} {
			fmt.Fprintf(&extra, "kinto.%s_backend = kinto.core.%s.postgresql\nkinto.%s_url = %s\n", part, part, part, dsn)
		}
	}
	return fmt.Sprintf(`[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = %d

[app:main]
use = egg:kinto
kinto.userid_hmac_secret = %s
multiauth.policies = %s
multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy
%s
[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = ERROR
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %%(message)s
`, port, userSecret, policies, extra.String())
}

// versionFile is what the setting version_json_path=published.json names; it lies in the folder both servers run in.
const versionFile = `{"name":"conformance","version":"1.2.3","commit":"abcdef","source":"https://example.org/conformance"}`

// startKinto starts real Kinto from a Python virtual environment. dsn is for PostgreSQL only.
func startKinto(ctx context.Context, venv, dir, name, settings, backend, dsn string) (*process, error) {
	port, err := freeport.Get()
	if err != nil {
		return nil, err
	}
	ini := filepath.Join(dir, name+".ini")
	if err := os.WriteFile(ini, []byte(iniText(port, settings, backend, dsn)), 0o600); err != nil {
		return nil, err
	}
	program := filepath.Join(venv, "bin", "kinto")
	return startServer(ctx, name, port, filepath.Join(dir, name+".log"), program, "start", "--ini", ini)
}

// startQuinto starts the program under test on the same configuration, with its data in dir.
func startQuinto(ctx context.Context, program, dir, settings string) (*process, error) {
	port, err := freeport.Get()
	if err != nil {
		return nil, err
	}
	ini := filepath.Join(dir, "quinto.ini")
	if err := os.WriteFile(ini, []byte(iniText(port, settings, "", "")), 0o600); err != nil {
		return nil, err
	}
	return startServer(ctx, "quinto", port, filepath.Join(dir, "quinto.log"), program,
		"start", "--ini", ini, "--data", filepath.Join(dir, "data"), "--port", fmt.Sprint(port))
}

// startServer runs a program and waits until it answers its load balancer's heartbeat.
func startServer(ctx context.Context, name string, port int, log, program string, args ...string) (*process, error) {
	p, err := runProgram(name, port, log, program, args...)
	if err != nil {
		return nil, err
	}
	return p, p.waitReady(ctx)
}

// runProgram starts a program with its output in the file log.
func runProgram(name string, port int, log, program string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "PYTHONWARNINGS=ignore")
	cmd.Dir = filepath.Dir(log)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{Server: Server{Name: name, Base: fmt.Sprintf("http://127.0.0.1:%d", port)}, cmd: cmd, done: make(chan error, 1), log: log}
	go func() { p.done <- cmd.Wait() }()
	return p, nil
}

func (p *process) waitReady(ctx context.Context) error {
	client := &http.Client{Timeout: time.Second}
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		select {
		case err := <-p.done:
			p.done <- err
			return fmt.Errorf("%s ended while starting: %w: %s", p.Name, err, p.logTail())
		case <-time.After(startPoll):
		}
		resp, err := client.Get(p.Base + "/v1/__lbheartbeat__")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusGone { // its service has ended: it answers nothing else
			return nil
		}
		if resp.StatusCode == http.StatusOK && p.acceptsWrites(client) {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("%s does not answer: %s", p.Name, p.logTail()), p.stop())
}

// acceptsWrites asks the heartbeat: a clustered server answers its load balancer before it has a leader.
func (p *process) acceptsWrites(client *http.Client) bool {
	resp, err := client.Get(p.Base + "/v1/__heartbeat__")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (p *process) logTail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return tail(text)
}

func tail(text []byte) string {
	if len(text) > logTailOnError {
		text = text[len(text)-logTailOnError:]
	}
	return strings.TrimSpace(string(text))
}

// stop asks the process to end and kills it, by its own id, when it does not.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	end := p.end
	if end == 0 {
		end = syscall.SIGTERM
	}
	if err := p.cmd.Process.Signal(end); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-p.done:
		p.done <- err // for whoever asks again; how it ended is of no interest here
		return nil
	case <-time.After(stopTimeout):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	err := <-p.done
	p.done <- err
	return nil
}
