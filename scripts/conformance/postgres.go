package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"quinto/internal/freeport"
)

// templateDatabase holds Kinto's empty tables; the database of each pair of servers is a copy.
const templateDatabase = "kinto"

// postgres is a PostgreSQL server on a scratch folder, for one run. Nothing of it has to survive, so it does not wait for disks.
type postgres struct {
	bin, dir string
	port     int
	cred     *syscall.Credential
	process  *process
	mu       sync.Mutex // a template serves one copy at a time
}

// startPostgres makes a cluster of databases and serves it on loopback: as the user postgres when this program runs as root
// (PostgreSQL refuses root), else as the same user. Its programs are those that scripts/lib/tools.sh finds or installs.
func startPostgres(ctx context.Context, root, venv string) (_ *postgres, err error) {
	bin, err := exec.CommandContext(ctx, filepath.Join(root, "scripts", "lib", "tools.sh"), "postgres").Output()
	if err != nil {
		return nil, fmt.Errorf("scripts/lib/tools.sh postgres: %w", err)
	}
	pg := &postgres{bin: strings.TrimSpace(string(bin))}
	if pg.dir, err = os.MkdirTemp("/tmp", "conformance-pg-"); err != nil { // short and open to its user: its socket lies in it
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, pg.stop())
		}
	}()
	if pg.port, err = freeport.Get(); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		if pg.cred, err = credential("postgres"); err != nil {
			return nil, err
		}
		if err := os.Chown(pg.dir, int(pg.cred.Uid), int(pg.cred.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(pg.dir, "data")
	if err := pg.run(ctx, "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	if err := pg.serve(ctx, data); err != nil {
		return nil, err
	}
	return pg, pg.makeTemplate(ctx, venv)
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(errUID, errGID)
}

func (pg *postgres) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(pg.bin, program), args...)
	cmd.Dir, cmd.Env = pg.dir, append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: pg.cred, Setpgid: true} // Ctrl-C reaches this program only, which ends it
	return cmd
}

func (pg *postgres) run(ctx context.Context, program string, args ...string) error {
	if out, err := pg.command(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, tail(out))
	}
	return nil
}

func (pg *postgres) serve(ctx context.Context, data string) error {
	// Not bound to ctx: stop ends it.
	cmd := pg.command(context.WithoutCancel(ctx), "postgres", "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(pg.port), "-k", pg.dir,
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=300", "-c", "timezone=UTC")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	pg.process = &process{Server: Server{Name: "postgres"}, cmd: cmd, done: make(chan error, 1), end: syscall.SIGINT} // its fast shutdown
	go func() { pg.process.done <- cmd.Wait() }()
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(startPoll) {
		select {
		case err := <-pg.process.done:
			pg.process.done <- err
			return fmt.Errorf("postgres ended while starting: %w: %s", err, tail(log.Bytes()))
		default:
		}
		if pg.sql(ctx, "SELECT 1") == nil {
			return nil
		}
	}
	return errors.New("postgres does not answer")
}

// sql runs one statement.
func (pg *postgres) sql(ctx context.Context, statement string) error {
	return pg.run(ctx, "psql", "-h", pg.dir, "-p", strconv.Itoa(pg.port), "-U", "postgres", "-d", "postgres", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement)
}

// makeTemplate lets Kinto make its tables once.
func (pg *postgres) makeTemplate(ctx context.Context, venv string) error {
	if err := pg.sql(ctx, "CREATE DATABASE "+templateDatabase); err != nil {
		return err
	}
	return migrate(ctx, venv, pg.dir, pg.dsn(templateDatabase))
}

// migrate lets Kinto make its tables in a database; its settings go to a file in dir.
func migrate(ctx context.Context, venv, dir, dsn string) error {
	ini := filepath.Join(dir, "migrate.ini")
	if err := os.WriteFile(ini, []byte(iniText(0, "", "postgresql", dsn)), 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(venv, "bin", "kinto"), "migrate", "--ini", ini).CombinedOutput(); err != nil {
		return fmt.Errorf("kinto migrate: %w: %s", err, tail(out))
	}
	return nil
}

// database makes a database with Kinto's empty tables and gives its address. The name is made of letters and digits.
func (pg *postgres) database(ctx context.Context, name string) (string, error) {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	name = "run_" + name
	return pg.dsn(name), pg.sql(ctx, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, templateDatabase))
}

func (pg *postgres) dsn(database string) string {
	return fmt.Sprintf("postgresql://postgres@127.0.0.1:%d/%s", pg.port, database)
}

// stop ends the server by its own process and removes its folder.
func (pg *postgres) stop() error {
	if pg == nil {
		return nil
	}
	return errors.Join(pg.process.stop(), os.RemoveAll(pg.dir))
}
