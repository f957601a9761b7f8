package command

import (
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
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"

	"quinto/fsm"
)

// The admin channel: HTTP on a Unix socket in the data folder (docs/adr/0010-admin-channel.md).
// Whoever may open it owns the node's files anyway, so there is no password; and
// nobody else can, since its folder is the owner's alone.
const (
	adminFolder      = "admin"  // in the data folder, mode 0700
	adminSocket      = "socket" // in adminFolder
	adminHeadTimeout = 10 * time.Second
	adminConflicts   = 10  // plans of one write before it gives up
	maxSocketPath    = 100 // sun_path has 104 to 108 bytes, by system
	maxAdminRequest  = 16 << 20
	adminUser        = "quinto:admin" // who writes, in events
)

// adminCall is one thing that a command asks of a node. run reads what the command
// sends and writes the answer; an error before the first byte of it is told to the
// command in words, one after it as a broken answer. The caller is the owner of the
// node: there are no permissions to look at.
type adminCall struct {
	name string
	run  func(ctx context.Context, n *Node, in io.Reader, out io.Writer) error
}

// adminCalls are all of them. A command that needs another adds a row.
func adminCalls() []adminCall {
	return []adminCall{flushCacheCall, purgeDeletedCall, createUserCall, kindsCall, importCall, exportCall,
		clusterStatusCall, clusterMembersCall, clusterChangeCall, backupCall, backupStatusCall, hooksCall}
}

func findAdminCall(name string) (adminCall, bool) {
	for _, c := range adminCalls() {
		if c.name == name {
			return c, true
		}
	}
	return adminCall{}, false
}

// readAdmin decodes the JSON that a command sent into v.
func readAdmin(in io.Reader, v any) error {
	d := json.NewDecoder(io.LimitReader(in, maxAdminRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("request of another version: %w", err)
	}
	return nil
}

// adminWrite replicates the operations that plan makes of a fresh state, from any
// node. What plan reads must still hold when they are applied, else plan runs
// again: it must have no effects of its own. Without operations nothing is written.
func (n *Node) adminWrite(ctx context.Context, plan func(v *fsm.View) ([]fsm.Op, error)) (fsm.Revision, error) {
	return n.adminPropose(ctx, false, plan)
}

// adminPropose is adminWrite; with quiet no notifier is told of it.
func (n *Node) adminPropose(ctx context.Context, quiet bool, plan func(v *fsm.View) ([]fsm.Op, error)) (fsm.Revision, error) {
	for range adminConflicts {
		t, revision, err := n.adminPlan(ctx, plan)
		t.Quiet = quiet
		if err != nil || len(t.Ops) == 0 {
			return revision, err
		}
		out, err := n.cluster.ProposeAnywhere(ctx, t)
		if err != nil || !out.Conflict {
			return out.Revision, err
		}
	}
	return 0, fmt.Errorf("%w: others write the same objects", fsm.ErrOverloaded)
}

func (n *Node) adminPlan(ctx context.Context, plan func(v *fsm.View) ([]fsm.Op, error)) (fsm.Txn, fsm.Revision, error) {
	v, err := n.cluster.View(ctx, fsm.Freshness{Level: fsm.Linearizable})
	if err != nil {
		return fsm.Txn{}, 0, err
	}
	defer v.Close()
	v.Record()
	ops, err := plan(v)
	return fsm.Txn{UserID: adminUser, Now: n.cluster.Now(), Compares: v.Reads(), Ops: ops}, v.Revision(), err
}

// adminServer serves the admin channel of one node.
type adminServer struct {
	server   *http.Server
	listener net.Listener
	folder   *os.File
	done     chan struct{}
}

// serveAdmin opens the socket in the data folder, which this process must own
// already: what a killed one has left is replaced.
func serveAdmin(n *Node, dataDir string, log hclog.Logger) (*adminServer, error) {
	dir := filepath.Join(dataDir, adminFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil { // a copied folder may be open to others
		return nil, err
	}
	path, folder, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, folder.Close())
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	a := &adminServer{listener: ln, folder: folder, done: make(chan struct{})}
	a.server = &http.Server{
		Handler: adminHandler(n), ReadHeaderTimeout: adminHeadTimeout,
		ErrorLog: log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	go func() {
		defer close(a.done)
		_ = a.server.Serve(ln) // ends with close
	}()
	return a, nil
}

// socketPath gives a name of the socket that fits the system's bound: a long one is
// reached through an open handle of its folder, where the system can.
func socketPath(dir string) (string, *os.File, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	path := filepath.Join(dir, adminSocket)
	if len(path) > maxSocketPath {
		if runtime.GOOS != "linux" {
			return "", nil, errors.Join(fmt.Errorf("%s: the name of a socket is bounded: choose a shorter data folder", path), folder.Close())
		}
		path = fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), adminSocket)
	}
	return path, folder, nil
}

func (a *adminServer) close(ctx context.Context) error {
	if a == nil {
		return nil
	}
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.server.Close())
	}
	<-a.done
	return errors.Join(err, a.folder.Close())
}

func adminHandler(n *Node) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, ok := findAdminCall(filepath.Base(r.URL.Path))
		if !ok || r.Method != http.MethodPost {
			http.Error(w, "the running node does not know this command: it is of another version", http.StatusNotFound)
			return
		}
		out := &adminAnswer{w: w}
		if err := call.run(r.Context(), n, r.Body, out); err != nil {
			n.log.Warn("admin command failed", "command", call.name, "error", err)
			if out.begun {
				panic(http.ErrAbortHandler) // the only way to tell that this is not the end
			}
			http.Error(w, oneLine(err), http.StatusUnprocessableEntity)
		}
	})
}

// adminAnswer notes whether anything was written.
type adminAnswer struct {
	w     http.ResponseWriter
	begun bool
}

// Write writes to the command.
func (a *adminAnswer) Write(p []byte) (int, error) {
	a.begun = true
	return a.w.Write(p)
}

// Flush sends what was written, so that a command can show progress.
func (a *adminAnswer) Flush() {
	if f, ok := a.w.(http.Flusher); ok {
		f.Flush()
	}
}
