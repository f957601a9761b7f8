package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"quinto/internal/config"
	"quinto/plugins"
)

const maxAdminError = 4096 // bytes of an error's text that are read

// exit is an error with an exit code of its own: those that Kinto's commands have.
type exit struct {
	code int
	error
}

// Unwrap gives what went wrong.
func (e exit) Unwrap() error { return e.error }

// adminFlags are the flags of every command that works on a node's data.
type adminFlags struct {
	ini, data      string
	quiet, verbose bool
	existing       bool // the command is of no use for a folder without a node
	stderr         io.Writer
}

func (f *adminFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.ini, "ini", "", "read settings from `FILE` (default $KINTO_INI, then quinto.ini in the data folder, then config/kinto.ini)")
	flags.StringVar(&f.data, "data", "", "the node's folder `DIR` (default \"data\")")
	addVerbosity(c, &f.quiet, &f.verbose)
}

// addVerbosity adds Kinto's -q and -v, by their long names too.
func addVerbosity(c *cobra.Command, quiet, verbose *bool) {
	flags := c.Flags()
	flags.BoolVarP(quiet, "quiet", "q", false, "log errors only")
	flags.BoolVarP(verbose, "verbose", "v", false, "log what happens, to stderr")
	flags.BoolVar(verbose, "debug", false, "the same as --verbose")
	c.MarkFlagsMutuallyExclusive("quiet", "verbose")
	c.MarkFlagsMutuallyExclusive("quiet", "debug")
}

// logLevel is what -q and -v say.
func logLevel(quiet, verbose bool) hclog.Level {
	switch {
	case verbose:
		return hclog.Debug
	case quiet:
		return hclog.Error
	default:
		return hclog.Warn
	}
}

// load reads the settings as `quinto start` with the same flags does, but writes no
// file.
func (f *adminFlags) load(c *cobra.Command) (*config.Config, error) {
	f.stderr = c.ErrOrStderr()
	o := config.Options{Path: f.ini, Environ: os.Environ(), Flags: map[string]string{}, Plugins: plugins.Registered().Names(), Beside: true}
	if f.data != "" {
		o.Flags["quinto.data_dir"] = f.data
	}
	path, err := settingsFile(&o, f.data != "")
	if err != nil {
		return nil, err
	}
	o.Path = path
	return config.Load(o)
}

// call asks the node once: in is sent as JSON, the answer decoded into out; nil:
// there is none.
func (f *adminFlags) call(ctx context.Context, c *config.Config, name string, in, out any) error {
	conn, err := f.connect(ctx, c)
	if err != nil {
		return err
	}
	err = adminJSON(ctx, conn, name, in, out)
	return errors.Join(err, conn.close())
}

func adminJSON(ctx context.Context, conn adminConn, name string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return conn.do(ctx, name, bytes.NewReader(body), func(answer io.Reader) error {
		if out == nil {
			return nil
		}
		return json.NewDecoder(answer).Decode(out)
	})
}

// adminConn reaches a node: a running one through its socket, or one that this
// process has opened.
type adminConn interface {
	// do makes one call; read gets the answer as it comes.
	do(ctx context.Context, name string, in io.Reader, read func(io.Reader) error) error
	close() error
}

// connect reaches the node of c's data folder. If no process serves it, the node is
// opened here, which only a cluster of one allows.
func (f *adminFlags) connect(ctx context.Context, c *config.Config) (adminConn, error) {
	if c.Memory {
		return nil, errors.New("storage_backend is memory: nothing outlives the server's process, and no command reaches it")
	}
	conn, err := dialAdmin(c.Cluster.DataDir)
	if err == nil {
		return conn.alive(ctx)
	}
	if _, err := os.Stat(filepath.Join(c.Cluster.DataDir, storeFolder)); f.existing && errors.Is(err, fs.ErrNotExist) {
		return nil, failure{fmt.Errorf("data folder %q is of no node", c.Cluster.DataDir)}
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "quinto", Level: logLevel(f.quiet, f.verbose), Output: f.stderr})
	n, err := openOffline(ctx, c, log)
	if err != nil {
		return nil, failure{err}
	}
	return &offlineConn{n}, nil
}

// socketConn is a running node.
type socketConn struct {
	client http.Client
	folder *os.File
}

func dialAdmin(dataDir string) (*socketConn, error) {
	path, folder, err := socketPath(filepath.Join(dataDir, adminFolder))
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	probe, err := d.Dial("unix", path)
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	_ = probe.Close() // it was only asked whether somebody listens
	s := &socketConn{folder: folder}
	s.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", path)
	}}
	return s, nil
}

// adminAlive bounds how long a running node may take to say that it is there. A call
// itself has no bound: an import takes as long as it takes.
const adminAlive = 10 * time.Second

// alive returns s, or an error if the process does not answer at all: it was stopped
// by a signal, or hangs. Any answer will do, and every version has one.
func (s *socketConn) alive(ctx context.Context) (*socketConn, error) {
	ctx, cancel := context.WithTimeout(ctx, adminAlive)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/", nil)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, failure{errors.Join(fmt.Errorf("the process that serves the data folder does not answer: it hangs, or is stopped (%w)", errors.Unwrap(err)), s.close())}
	}
	_ = answer.Body.Close() // nobody reads it
	return s, nil
}

func (s *socketConn) do(ctx context.Context, name string, in io.Reader, read func(io.Reader) error) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/"+name, in)
	if err != nil {
		return err
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return failure{fmt.Errorf("the running node does not answer: %w", err)}
	}
	defer func() { _ = answer.Body.Close() }() // only read
	if answer.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(answer.Body, maxAdminError))
		return failure{errors.Join(errors.New(strings.TrimSpace(string(text))), err)}
	}
	if err := read(answer.Body); err != nil {
		return failure{err}
	}
	return nil
}

func (s *socketConn) close() error {
	s.client.CloseIdleConnections()
	return s.folder.Close()
}

// offlineConn is a node that this process has opened for one command.
type offlineConn struct{ n *Node }

func (o *offlineConn) do(ctx context.Context, name string, in io.Reader, read func(io.Reader) error) error {
	call, ok := findAdminCall(name)
	if !ok {
		return fmt.Errorf("unknown admin call %q", name)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(call.run(ctx, o.n, in, w)) }()
	err := read(r)
	if err == nil { // what is left of the answer, and the error behind it
		_, err = io.Copy(io.Discard, r)
	}
	_ = r.CloseWithError(io.ErrClosedPipe) // ends a call whose answer nobody reads
	if err != nil {
		return failure{err}
	}
	return nil
}

func (o *offlineConn) close() error { return o.n.release() }
