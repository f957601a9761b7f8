package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"quinto/api/resource"
	"quinto/cluster"
	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/internal/backup"
	"quinto/internal/config"
	"quinto/internal/transfer"
	"quinto/plugins"
)

// bucket brings buckets of an archive back into the running cluster: the archive is
// unpacked aside, and what lies in the buckets goes in as an import.
func (f *restoreFlags) bucket(ctx context.Context, c *cobra.Command, settings *config.Config) error {
	if f.name != "" || f.above != 0 {
		return errors.New("--name and --revisions-above are for a whole archive")
	}
	rc, name, err := openSource(ctx, f.from, settings, c.InOrStdin())
	if err != nil {
		return failure{err}
	}
	dir, err := os.MkdirTemp(cmp.Or(os.Getenv("TMPDIR"), os.TempDir()), "quinto-restore-")
	if err != nil {
		return failure{errors.Join(err, rc.Close())}
	}
	defer func() { _ = os.RemoveAll(dir) }() // of no use to anybody
	scratch, err := openScratch(ctx, rc, dir)
	if err = errors.Join(err, rc.Close()); err != nil {
		return failure{fmt.Errorf("%s: %w", name, err)}
	}
	report, err := f.bringBack(ctx, settings, scratch, name)
	if err = errors.Join(err, scratch.close()); err != nil {
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

// scratch is the state of an archive, opened to be read.
type scratch struct {
	store *store.Store
	state *fsm.FSM
	head  *backup.Head
}

func openScratch(ctx context.Context, in io.Reader, dir string) (*scratch, error) {
	a, err := backup.NewReader(in)
	if err != nil {
		return nil, err
	}
	meta := cluster.RestoredMeta("scratch", "")
	meta.Index, meta.Term = a.Head.Index, a.Head.Term
	s, err := unpackState(ctx, a, dir, meta, func(*pebble.DB) error { return nil })
	if err != nil {
		return nil, err
	}
	state, err := fsm.Open(s)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &scratch{s, state, &a.Head}, nil
}

func (s *scratch) close() error { return s.store.Close() }

// has refuses buckets that the archive does not have: to bring back nothing is no success.
func (s *scratch) has(buckets []string) error {
	v, err := s.state.View()
	if err != nil {
		return err
	}
	defer v.Close()
	for _, b := range buckets {
		if o, err := v.Get(fsm.Path("/buckets/" + b)); err != nil {
			return err
		} else if !o.Exists() {
			return fmt.Errorf("the archive, of revision %d, has no bucket %q", s.head.Revision, b)
		}
	}
	return nil
}

// bringBack imports the selected buckets of s.
func (f *restoreFlags) bringBack(ctx context.Context, settings *config.Config, s *scratch, name string) (*transfer.Report, error) {
	if err := s.has(f.buckets); err != nil {
		return nil, err
	}
	conn, err := f.connect(ctx, settings)
	if err != nil {
		return nil, err
	}
	selected := transfer.Selection(f.buckets)
	source := transfer.FromExport(name, func(w io.Writer) error {
		v, err := s.state.View()
		if err != nil {
			return err
		}
		defer v.Close()
		kinds, err := kindsOf(ctx, settings)
		if err != nil {
			return err
		}
		return transfer.Export(ctx, v, kinds, selected, w)
	})
	report, err := transfer.Run(ctx, transfer.Options{
		Source: source, Target: &importTarget{conn: conn, mode: transfer.Mode{Revive: true, Overwrite: f.overwrite, Touch: !f.last}},
		Selected: selected, Limits: jsonLimits(settings),
	})
	return report, errors.Join(err, conn.close())
}

// kindsOf are the rows of the table of resources that a node with these settings has.
func kindsOf(ctx context.Context, c *config.Config) ([]*resource.Kind, error) {
	n := &Node{config: c, log: hclog.NewNullLogger()}
	known := plugins.Registered()
	var err error
	if n.plugins, err = known.Open(ctx, n.pluginSettings(known)); err != nil {
		return nil, err
	}
	kinds, err := n.kinds()
	return kinds, errors.Join(err, n.plugins.Close())
}
