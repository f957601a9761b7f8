package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"quinto/internal/freeport"
)

// postgresSettings are the server's, beside PostgreSQL's defaults: durable as quinto is, with more cache than its
// default, all data of the benchmark in it.
var postgresSettings = []string{
	"fsync=on", "synchronous_commit=on", "full_page_writes=on", "wal_sync_method=fdatasync",
	"shared_buffers=512MB", "max_wal_size=2GB", "max_connections=100", "timezone=UTC",
}

// postgres is a PostgreSQL server on a scratch folder, reached by its socket in that folder.
type postgres struct {
	process *process
	bin     string
	dir     string
	port    int
	cred    *syscall.Credential
	version string
}

// startPostgres makes a cluster of databases in dir and serves it, as the user postgres when this program runs as
// root (PostgreSQL refuses root), else as the same user.
func startPostgres(ctx context.Context, bin, dir string) (_ *postgres, err error) {
	pg := &postgres{bin: bin, dir: filepath.Join(dir, "pg")}
	if pg.port, err = freeport.Get(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(pg.dir, 0o755); err != nil {
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
	if _, err := command(pg.cmd(ctx, "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")); err != nil {
		return nil, err
	}
	if pg.version, err = command(pg.cmd(ctx, "postgres", "--version")); err != nil {
		return nil, err
	}
	args := []string{"-D", data, "-h", "", "-k", pg.dir, "-p", strconv.Itoa(pg.port)}
	for _, s := range postgresSettings {
		args = append(args, "-c", s)
	}
	// Not bound to ctx: it is ended by stop, which lets it write its last page.
	if pg.process, err = startProcess("postgres", filepath.Join(dir, "postgres.log"), pg.cmd(context.WithoutCancel(ctx), "postgres", args...)); err != nil {
		return nil, err
	}
	err = pg.process.waitFor(ctx, func(ctx context.Context) error { return pg.sql(ctx, "postgres", "SELECT 1") })
	if err == nil {
		err = pg.sql(ctx, "postgres", "CREATE DATABASE bench")
	}
	if err != nil {
		return nil, errors.Join(err, pg.stop())
	}
	return pg, nil
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// cmd is one of PostgreSQL's programs, run as the user of the server.
func (pg *postgres) cmd(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(pg.bin, program), args...)
	cmd.Dir = pg.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if pg.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: pg.cred}
	}
	return cmd
}

func (pg *postgres) psql(ctx context.Context, database string, args ...string) *exec.Cmd {
	args = append([]string{
		"-h", pg.dir, "-p", strconv.Itoa(pg.port), "-U", "postgres",
		"-d", database, "-X", "-q", "-v", "ON_ERROR_STOP=1",
	}, args...)
	return pg.cmd(ctx, "psql", args...)
}

// sql runs one statement.
func (pg *postgres) sql(ctx context.Context, database, statement string) error {
	_, err := command(pg.psql(ctx, database, "-c", statement))
	return err
}

// script runs what write produces, COPY data included.
func (pg *postgres) script(ctx context.Context, database string, write func(io.Writer) error) error {
	r, w := io.Pipe()
	cmd := pg.psql(ctx, database, "-f", "-")
	cmd.Stdin = r
	go func() { w.CloseWithError(write(w)) }()
	_, err := command(cmd)
	return errors.Join(err, r.Close())
}

// url is the database's address in the form of SQLAlchemy.
func (pg *postgres) url() string {
	return fmt.Sprintf("postgresql://postgres@/bench?host=%s&port=%d", pg.dir, pg.port)
}

// stop ends the server at once and cleanly (SIGINT is its fast shutdown).
func (pg *postgres) stop() error {
	if pg == nil {
		return nil
	}
	return pg.process.stop(syscall.SIGINT)
}
