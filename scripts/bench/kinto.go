package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"quinto/internal/freeport"
	"quinto/internal/testcluster"
)

// granianSettings run Kinto the way its production guides do: several processes, threads for the waits on the database.
// Two threads a worker do less; between 4 and 32 no difference stood out of the noise.
var granianSettings = []string{"--interface", "wsgi", "--http", "1", "--workers", "2", "--blocking-threads", "8", "--backpressure", "256", "--no-ws", "--log-level", "warning"}

// kintoSettings are the same policy as the nodes of quinto have, on PostgreSQL throughout.
func kintoSettings(url string) []string {
	settings := []string{
		"kinto.userid_hmac_secret = " + testcluster.Secret,
		"multiauth.policies = basicauth",
		"multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy",
	}
	for _, part := range []string{"storage", "permission", "cache"} {
		settings = append(settings,
			fmt.Sprintf("kinto.%s_backend = kinto.core.%s.postgresql", part, part),
			fmt.Sprintf("kinto.%s_url = %s", part, url))
	}
	return settings
}

// wsgi is the module that granian loads; it is Kinto's own app.wsgi, without log lines, which would only cost it time.
const wsgi = `import configparser
import logging
import os

from kinto import main

logging.disable(logging.CRITICAL)
config = configparser.ConfigParser()
config.read(os.environ["KINTO_INI"])
application = main(config.items("DEFAULT"), **dict(config.items("app:main")))
`

// kinto is real Kinto on granian and PostgreSQL.
type kinto struct {
	contender
	process  *process
	pg       *postgres
	versions string
}

// startKinto starts PostgreSQL and Kinto, and migrates its schema.
func startKinto(ctx context.Context, venv, dir string) (_ *kinto, err error) {
	bin, err := tool(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	k := &kinto{}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.stop())
		}
	}()
	if k.versions, err = kintoVersions(ctx, venv); err != nil {
		return nil, err
	}
	if k.pg, err = startPostgres(ctx, bin, dir); err != nil {
		return nil, err
	}
	ini := filepath.Join(dir, "kinto.ini")
	text := "[app:main]\nuse = egg:kinto\n" + strings.Join(kintoSettings(k.pg.url()), "\n") + "\n"
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "kinto_bench_app.py"), []byte(wsgi), 0o600); err != nil {
		return nil, err
	}
	if _, err := command(quiet(exec.CommandContext(ctx, filepath.Join(venv, "bin", "kinto"), "migrate", "--ini", ini))); err != nil {
		return nil, err
	}
	port, err := freeport.Get()
	if err != nil {
		return nil, err
	}
	args := append([]string{"--host", "127.0.0.1", "--port", strconv.Itoa(port)}, granianSettings...)
	cmd := quiet(exec.Command(filepath.Join(venv, "bin", "granian"), append(args, "kinto_bench_app:application")...))
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "KINTO_INI="+ini, "PYTHONPATH="+dir)
	if k.process, err = startProcess("kinto", filepath.Join(dir, "kinto.log"), cmd); err != nil {
		return nil, err
	}
	k.contender = contender{Name: "Kinto", Addrs: []string{fmt.Sprintf("127.0.0.1:%d", port)}, PIDs: []int{k.process.cmd.Process.Pid, k.pg.process.cmd.Process.Pid}}
	return k, k.process.waitFor(ctx, func(ctx context.Context) error {
		_, _, err := k.call(ctx, http.MethodGet, "/__heartbeat__", nil)
		return err
	})
}

// quiet keeps Python's warnings out of logs and answers.
func quiet(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), "PYTHONWARNINGS=ignore", "PYTHONDONTWRITEBYTECODE=1")
	return cmd
}

func kintoVersions(ctx context.Context, venv string) (string, error) {
	const script = `import platform, importlib.metadata as m
print(f"Kinto {m.version('kinto')} on granian {m.version('granian')}, Python {platform.python_version()}")`
	return command(quiet(exec.CommandContext(ctx, filepath.Join(venv, "bin", "python"), "-c", script)))
}

// stop ends Kinto, then its database.
func (k *kinto) stop() error {
	return errors.Join(k.process.stop(syscall.SIGTERM), k.pg.stop())
}
