package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/internal/config"
	"quinto/internal/transfer"
)

// checkpointFile is where an import notes how far it is, in the data folder.
const checkpointFile = "import.checkpoint"

// progressInterval is how often the bar is drawn.
const progressInterval = 100 * time.Millisecond

// errNotWhole is an import that ran to its end and left something out; the report
// on stdout names it.
var errNotWhole = errors.New("not everything is here as it was in the source: see the report")

// importFlags are the flags of `quinto import`.
type importFlags struct {
	adminFlags
	from    transfer.From
	buckets []string
	dry     bool
	notify  bool
}

func importCommand() *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use: "import --from URL|FILE|DSN", Short: "Bring data over from Kinto, or from a file of quinto export",
		Long: "Bring buckets, groups, collections, records, accounts and their permissions over, with ids,\n" +
			"last_modified, tombstones and the timestamps of lists as they are: clients go on from their last\n" +
			"synchronisation. --from is the URL of a running Kinto, the postgresql:// address of its database, or\n" +
			"a file. It may be repeated: what is here already is left alone, what is newer here too. One that was\n" +
			"interrupted goes on where it was. At the end everything is read back and compared; exit code 1 says\n" +
			"that something was refused or differs, and the report names it.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			if f.from.User == "" {
				f.from.User = os.Getenv("QUINTO_IMPORT_AUTH")
			}
			f.from.Selected = f.buckets
			return f.run(c.Context(), c, settings)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.from.Address, "from", "", "read from this `SOURCE`")
	flags.StringVar(&f.from.Permissions, "permissions-from", "", "the `DSN` of Kinto's permissions, if they are in another database")
	flags.StringVar(&f.from.User, "auth", "", "authenticate at the URL as `USER:PASSWORD` (default $QUINTO_IMPORT_AUTH)")
	flags.StringSliceVar(&f.buckets, "bucket", nil, "only this bucket `ID`; may be repeated")
	flags.BoolVar(&f.notify, "notify", false, "tell webhooks and other event listeners of what is imported (default: live streams only)")
	flags.BoolVar(&f.dry, "dry-run", false, "read and check everything, write nothing")
	_ = c.MarkFlagRequired("from") // the flag exists
	f.add(c)
	return c
}

func (f *importFlags) run(ctx context.Context, c *cobra.Command, settings *config.Config) error {
	source, err := transfer.Open(ctx, f.from)
	if err != nil {
		return failure{err}
	}
	defer func() { _ = source.Close(context.WithoutCancel(ctx)) }() // only read
	conn, err := f.connect(ctx, settings)
	if err != nil {
		return err
	}
	report, err := f.transfer(ctx, source, conn, settings)
	if err = errors.Join(err, conn.close()); err != nil {
		return failure{err}
	}
	if err := report.Print(c.OutOrStdout()); err != nil {
		return err
	}
	if !report.Whole() {
		return failure{errNotWhole}
	}
	return nil
}

func (f *importFlags) transfer(ctx context.Context, source transfer.Source, conn adminConn, settings *config.Config) (report *transfer.Report, err error) {
	o := transfer.Options{Source: source, Target: &importTarget{conn: conn, notify: f.notify}, Selected: f.buckets, Dry: f.dry, Limits: jsonLimits(settings)}
	if !f.dry {
		job := strings.Join(append([]string{source.Name()}, f.buckets...), " ")
		if o.Checkpoint, err = transfer.OpenCheckpoint(filepath.Join(settings.Cluster.DataDir, checkpointFile), job); err != nil {
			return nil, err
		}
		// Whatever the report says, the next import reads everything again.
		defer func() { err = errors.Join(err, o.Checkpoint.Close(err == nil)) }()
		if o.Checkpoint.Resumes() && !f.quiet {
			fmt.Fprintln(f.stderr, "quinto: going on where an import from this source was interrupted")
		}
	}
	total, err := source.Total(ctx)
	if err != nil {
		return nil, err
	}
	if out, ok := f.stderr.(*os.File); ok && isatty.IsTerminal(out.Fd()) && !f.quiet {
		bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription("importing"),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(progressInterval), progressbar.OptionClearOnFinish())
		o.Progress = func(n int) { _ = bar.Add(n) } // a bar that cannot be drawn is no reason to stop
		defer func() { _ = bar.Finish() }()
	}
	return transfer.Run(ctx, o)
}

// jsonLimits are those of any object that is stored.
func jsonLimits(c *config.Config) canon.Limits {
	return canon.Limits{Depth: c.Limits.JSONDepth, Members: c.Limits.JSONMembers, KeyBytes: c.Limits.JSONKeyBytes}
}

// importTarget is a node behind the admin channel.
type importTarget struct {
	conn   adminConn
	notify bool
	mode   transfer.Mode
}

// Plurals implements transfer.Target.
func (t *importTarget) Plurals(ctx context.Context) (plurals []string, err error) {
	err = adminJSON(ctx, t.conn, kindsCall.name, struct{}{}, &plurals)
	return plurals, err
}

// Take implements transfer.Target.
func (t *importTarget) Take(ctx context.Context, items []transfer.Item, dry bool) (done transfer.Done, err error) {
	err = adminJSON(ctx, t.conn, importCall.name, transfer.Batch{Dry: dry, Mode: t.mode, Notify: t.notify, Items: items}, &done)
	return done, err
}

// Export implements transfer.Target.
func (t *importTarget) Export(ctx context.Context, selected transfer.Selection, read func(io.Reader) error) error {
	return exportThrough(ctx, t.conn, selected, read)
}

var kindsCall = adminCall{name: "kinds", run: func(_ context.Context, n *Node, _ io.Reader, out io.Writer) error {
	kinds, err := n.kinds()
	if err != nil {
		return err
	}
	var plurals []string
	for _, k := range kinds {
		plurals = append(plurals, k.Plural)
	}
	return json.NewEncoder(out).Encode(plurals)
}}

var importCall = adminCall{name: "import", run: func(ctx context.Context, n *Node, in io.Reader, out io.Writer) error {
	var b transfer.Batch
	if err := readAdmin(in, &b); err != nil {
		return err
	}
	kinds, err := n.kinds()
	if err != nil {
		return err
	}
	p := transfer.Planner{Kinds: kinds, Limits: jsonLimits(n.config), RecordBytes: n.config.Limits.RecordBytes, Mode: b.Mode}
	redacted := transfer.Redact(b.Items, p.Limits, n.redactors)
	var done transfer.Done
	for attempt := 1; ; attempt++ {
		_, err = n.adminPropose(ctx, !b.Notify, func(v *fsm.View) (ops []fsm.Op, err error) {
			ops, done, err = p.Plan(v, b.Items, b.Dry)
			if b.Dry {
				ops = nil
			}
			return ops, err
		})
		// Once more on a newer state does no harm, whatever became of the first time.
		again := errors.Is(err, fsm.ErrUnknownOutcome) || errors.Is(err, fsm.ErrNoLeader) || errors.Is(err, fsm.ErrOverloaded)
		if !again || attempt == importAttempts {
			break
		}
		select {
		case <-time.After(importPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	done.Redacted = redacted
	return json.NewEncoder(out).Encode(done)
}}

// redactors take out of the data of an object, of the kind with this plural, what nobody is to read.
func (n *Node) redactors(plural string) (all []func(data []byte) []byte) {
	for _, p := range n.plugins.Redacting {
		if f := p.Redactor(strings.TrimSuffix(plural, "s")); f != nil {
			all = append(all, f)
		}
	}
	return all
}

// A batch of an import is tried again while the nodes elect a leader.
const (
	importAttempts = 20
	importPause    = 500 * time.Millisecond
)

func exportCommand() *cobra.Command {
	var f adminFlags
	var path string
	var buckets []string
	c := &cobra.Command{
		Use: "export [--to FILE]", Short: "Write everything as JSON lines", Args: cobra.NoArgs,
		Long: "Write buckets, groups, collections, records, accounts (with the hashes of their passwords) and all\n" +
			"permissions as JSON lines, as they are at one moment. quinto import reads them.",
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			f.existing = true
			conn, err := f.connect(c.Context(), settings)
			if err != nil {
				return err
			}
			err = exportThrough(c.Context(), conn, buckets, func(in io.Reader) error {
				if path == "" {
					_, err := io.Copy(c.OutOrStdout(), in)
					return err
				}
				return writeWhole(path, in)
			})
			if err = errors.Join(err, conn.close()); err != nil {
				return failure{err}
			}
			return nil
		},
	}
	c.Flags().StringVar(&path, "to", "", "write `FILE`, which only its owner may read (default standard output)")
	c.Flags().StringSliceVar(&buckets, "bucket", nil, "only this bucket `ID`; may be repeated")
	f.add(c)
	return c
}

// writeWhole writes a file that is there whole or not at all.
func writeWhole(path string, in io.Reader) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".export-*") // its mode is 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone once it was renamed
	out := bufio.NewWriterSize(temp, 1<<20)
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Flush(), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

type exportRequest struct {
	Buckets []string `json:"buckets"`
}

func exportThrough(ctx context.Context, conn adminConn, buckets []string, read func(io.Reader) error) error {
	body, err := json.Marshal(exportRequest{buckets})
	if err != nil {
		return err
	}
	return conn.do(ctx, exportCall.name, strings.NewReader(string(body)), read)
}

var exportCall = adminCall{name: "export", run: func(ctx context.Context, n *Node, in io.Reader, out io.Writer) error {
	var q exportRequest
	if err := readAdmin(in, &q); err != nil {
		return err
	}
	v, err := n.cluster.View(ctx, fsm.Freshness{Level: fsm.Linearizable})
	if err != nil {
		return err
	}
	defer v.Close()
	kinds, err := n.kinds()
	if err != nil {
		return err
	}
	return transfer.Export(ctx, v, kinds, q.Buckets, out)
}}
