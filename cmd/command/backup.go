package command

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"quinto/api"
	"quinto/cluster"
	"quinto/fsm"
	"quinto/internal/backup"
	"quinto/internal/config"
)

// backupBurst is how much of the state is read at once when its rate is bounded.
const backupBurst = 1 << 20

// openBackup returns the archive of this node's state as it is now, with all that
// was acknowledged before; if no leader can say that, of what this node has.
func (n *Node) openBackup(ctx context.Context, bytesPerSecond int64) (*backup.Head, io.ReadCloser, error) {
	h := backup.Head{Kind: backup.KindState, Node: n.name, Program: api.BuildVersion(Release).Version, Made: fsm.Timestamp(time.Now().UnixMilli())}
	if n.cluster != nil {
		v, err := n.cluster.View(ctx, fsm.Freshness{Level: fsm.Linearizable})
		switch {
		case err == nil:
			v.Close()
			h.Confirmed = true
		case !errors.Is(err, fsm.ErrNoLeader):
			return nil, nil, err
		}
	}
	var info fsm.StateInfo
	size, rc, err := n.store.OpenBackupOf(func(r pebble.Reader) (err error) {
		info, err = fsm.Inspect(r)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if info.ClusterID == "" {
		return nil, nil, errors.Join(errors.New("this node has no state yet"), rc.Close())
	}
	h.Cluster, h.Revision, h.Index, h.Term = info.ClusterID, info.Revision, info.Index, info.Term
	h.Clock, h.Level, h.StateHash, h.Size = info.Clock, info.FeatureLevel, hex.EncodeToString(info.StateHash[:]), size
	if bytesPerSecond > 0 {
		rc = &slowReader{rc, ctx, rate.NewLimiter(rate.Limit(bytesPerSecond), backupBurst)}
	}
	return &h, rc, nil
}

// slowReader reads no faster than its limiter lets it.
type slowReader struct {
	io.ReadCloser
	ctx   context.Context
	limit *rate.Limiter
}

// Read implements io.Reader.
func (s *slowReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p[:min(len(p), backupBurst)])
	if n > 0 {
		err = errors.Join(err, s.limit.WaitN(s.ctx, n))
	}
	return n, err
}

// backupRequest asks for an archive. Rate is in bytes per second, 0: not bounded.
type backupRequest struct {
	Rate int64 `json:"rate"`
}

var backupCall = adminCall{name: "backup", run: func(ctx context.Context, n *Node, in io.Reader, out io.Writer) error {
	var q backupRequest
	if err := readAdmin(in, &q); err != nil {
		return err
	}
	h, rc, err := n.openBackup(ctx, q.Rate)
	if err != nil {
		return err
	}
	return errors.Join(backup.Encode(out, h, rc), rc.Close())
}}

// backupFlags are the flags of `quinto backup`.
type backupFlags struct {
	adminFlags
	to   string
	rate int64
}

func backupCommand() *cobra.Command {
	var f backupFlags
	c := &cobra.Command{
		Use: "backup --to FILE|FOLDER|-|s3://BUCKET/PREFIX", Short: "Write an archive of the whole state", Args: cobra.NoArgs,
		Long: "Write an archive of the whole state, as it is at one moment, from any node, while it runs. In a folder\n" +
			"and in S3 the archive is named by cluster, time and revision. It is read back and checked at the end.\n" +
			"quinto restore makes a new cluster of it.",
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			if !c.Flags().Changed("rate") {
				f.rate = settings.Backup.BytesPerSecond
			}
			return f.run(c.Context(), c, settings)
		},
	}
	c.Flags().StringVar(&f.to, "to", "", "write to this `PLACE`; - is standard output")
	c.Flags().Int64Var(&f.rate, "rate", 0, "read at most so many `BYTES` per second; 0: no bound (default quinto.backup_bytes_per_second)")
	_ = c.MarkFlagRequired("to") // the flag exists
	f.add(c)
	c.AddCommand(verifyCommand(), backupListCommand(), backupStatusCommand())
	return c
}

func (f *backupFlags) run(ctx context.Context, c *cobra.Command, settings *config.Config) error {
	f.existing = true
	conn, err := f.connect(ctx, settings)
	if errors.Is(err, errSeveral) {
		fmt.Fprintln(f.stderr, "quinto: no process serves the data folder: the archive will hold what its disk has, which may lack acknowledged writes")
		conn, err = openDisk(settings, f.stderr)
	}
	if err != nil {
		return err
	}
	body, err := json.Marshal(backupRequest{f.rate})
	if err == nil {
		err = conn.do(ctx, backupCall.name, strings.NewReader(string(body)), func(in io.Reader) error {
			return f.write(ctx, c, settings, in)
		})
	}
	if err = errors.Join(err, conn.close()); err != nil {
		return failure{err}
	}
	return nil
}

// write stores the archive that comes from in.
func (f *backupFlags) write(ctx context.Context, c *cobra.Command, settings *config.Config, in io.Reader) error {
	h, size, in, err := backup.Peek(in)
	if err != nil {
		return err
	}
	if !h.Confirmed {
		fmt.Fprintln(f.stderr, "quinto: warning: no leader has confirmed this state: it may lack acknowledged writes")
	}
	in, done := f.bar(in, size)
	defer done()
	if f.to == "-" {
		sum, err := backup.Copy(c.OutOrStdout(), in, func(*backup.Head, int64) error { return nil })
		if err == nil && !f.quiet {
			fmt.Fprintf(f.stderr, "written: %s\n", sum)
		}
		return err
	}
	place, name, err := openArchive(f.to, settings)
	if err != nil {
		return err
	}
	if name == "" {
		name = backup.Name(h)
	} else if _, ok := place.(*backup.Folder); ok {
		if _, err := os.Lstat(f.to); err == nil {
			return fmt.Errorf("%s exists already", f.to)
		}
	}
	sum, err := backup.Store(ctx, place, name, in, size)
	if err != nil {
		return err
	}
	done()
	return f.say(c, "%s\nverified: %s", strings.TrimSuffix(place.String(), "/")+"/"+name, sum)
}

// bar shows on a terminal how much of size has come by.
func (f *backupFlags) bar(in io.Reader, size int64) (io.Reader, func()) {
	out, ok := f.stderr.(*os.File)
	if !ok || f.quiet || !isatty.IsTerminal(out.Fd()) {
		return in, func() {}
	}
	bar := progressbar.NewOptions64(size, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription("backup"),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(progressInterval), progressbar.OptionClearOnFinish())
	return io.TeeReader(in, bar), func() { _ = bar.Finish() } // a bar that cannot be drawn is no reason to stop
}

// openArchive opens the place that an address names, and the name of the archive
// in it; empty: the address is that of a place.
func openArchive(address string, c *config.Config) (backup.Place, string, error) {
	place, name := backup.Split(address, func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.IsDir() || strings.HasSuffix(path, string(filepath.Separator))
	})
	if place == "" {
		place = "."
	}
	p, err := backup.OpenPlace(place, backup.S3Options{Endpoint: c.Backup.S3Endpoint, Region: c.Backup.S3Region})
	return p, name, err
}

// openDisk opens the store of a stopped member of several nodes, to read it.
func openDisk(c *config.Config, stderr io.Writer) (adminConn, error) {
	n := &Node{config: c, log: hclog.New(&hclog.LoggerOptions{Name: "quinto", Level: hclog.Warn, Output: stderr}),
		failed: make(chan struct{}), stopped: make(chan struct{})}
	var err error
	if n.name, err = nodeName(c); err == nil {
		err = n.openState(new(cluster.StoreEvents))
	}
	if err != nil {
		return nil, failure{errors.Join(err, n.release())}
	}
	return &offlineConn{n}, nil
}

func verifyCommand() *cobra.Command {
	var f adminFlags
	c := &cobra.Command{
		Use: "verify FILE|-|s3://BUCKET/PREFIX", Short: "Check every byte of an archive", Args: cobra.ExactArgs(1),
		Long: "Check every byte of an archive. Of a folder, or a prefix in S3, the newest one is checked, and every\n" +
			"segment of the log. What is wrong is told with the byte of the file, and the entry of the log or the\n" +
			"file of the database at which it is.",
		RunE: func(c *cobra.Command, args []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			rc, name, err := openSource(c.Context(), args[0], settings, c.InOrStdin())
			if err != nil {
				return failure{err}
			}
			sum, err := backup.Verify(rc)
			if err = errors.Join(err, rc.Close()); err != nil {
				return failure{fmt.Errorf("%s: %w", name, err)}
			}
			log, err := verifyLog(c.Context(), args[0], settings)
			if err != nil {
				return failure{err}
			}
			return f.say(c, "%s\nsound: %s%s", name, sum, log)
		},
	}
	f.add(c)
	return c
}

// openSource opens the archive at an address: a file, standard input, an object, or
// the newest one of a folder or prefix. It also says how messages call it.
func openSource(ctx context.Context, address string, c *config.Config, stdin io.Reader) (io.ReadCloser, string, error) {
	if address == "-" {
		return io.NopCloser(stdin), "standard input", nil
	}
	place, name, err := openArchive(address, c)
	if err == nil && name == "" {
		name, err = backup.Newest(ctx, place, "")
	}
	if err != nil {
		return nil, "", err
	}
	rc, err := place.Open(ctx, name)
	return rc, strings.TrimSuffix(place.String(), "/") + "/" + name, err
}
