package command

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	"github.com/spf13/cobra"

	"quinto/cluster"
	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/internal/backup"
	"quinto/internal/config"
)

// restoreFlags are the flags of `quinto restore`.
type restoreFlags struct {
	adminFlags
	from      string
	name      string
	last      bool
	above     uint64
	buckets   []string
	overwrite bool
	to        string
	cluster   string
	dry       bool
}

func restoreCommand() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use: "restore --from FILE|FOLDER|-|s3://BUCKET/PREFIX", Short: "Make a new cluster of an archive, or bring one bucket back", Args: cobra.NoArgs,
		Long: "Make the first node of a new cluster of an archive, in an empty data folder; the other nodes join it,\n" +
			"empty. Every byte is checked before the folder can be started. Of a folder or prefix the newest archive\n" +
			"is taken. Unless --last-state says that nothing was written after the backup, every list gets a new\n" +
			"ETag, so that clients notice.\n\n" +
			"With --to the state of a moment is restored, a time (2026-11-22T13:05:00Z), a revision, or the latest\n" +
			"there is: from the newest archive before it and the segments of the log behind that, which\n" +
			"quinto.archive_log keeps. --dry-run does all of it aside, and leaves nothing.\n\n" +
			"With --bucket one bucket is brought back into the running cluster of the data folder, with its ids and\n" +
			"last_modified; nothing else is touched.",
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			if len(f.buckets) > 0 {
				return f.bucket(c.Context(), c, settings)
			}
			if f.to != "" {
				return f.toPoint(c.Context(), c, settings)
			}
			if f.dry || f.cluster != "" {
				return errors.New("--dry-run and --cluster are for --to")
			}
			if f.overwrite {
				return errors.New("--overwrite is for --bucket: a whole archive goes into an empty folder only")
			}
			return f.run(c.Context(), c, settings)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.from, "from", "", "read this `ARCHIVE`; - is standard input")
	flags.StringVar(&f.name, "name", "", "the node's `NAME`, for ever (default quinto.name, else one is made)")
	flags.BoolVar(&f.last, "last-state", false, "nothing was written after the backup: lists keep their ETags")
	flags.Uint64Var(&f.above, "revisions-above", 0, "begin above this `REVISION` too: that of a cluster made of the same archive before")
	flags.StringSliceVar(&f.buckets, "bucket", nil, "only this bucket `ID`, into a living cluster; may be repeated")
	flags.StringVar(&f.to, "to", "", "restore the state of this `TIME|REVISION|latest`, from a folder or prefix with segments of the log")
	flags.StringVar(&f.cluster, "cluster", "", "with --to: of the cluster with this `ID`, if the place has archives of several")
	flags.BoolVar(&f.dry, "dry-run", false, "with --to: check everything, and restore nothing")
	flags.BoolVar(&f.overwrite, "overwrite", false, "with --bucket: replace what is newer in the cluster")
	_ = c.MarkFlagRequired("from") // the flag exists
	f.add(c)
	return c
}

func (f *restoreFlags) run(ctx context.Context, c *cobra.Command, settings *config.Config) error {
	dir := settings.Cluster.DataDir
	if settings.Memory {
		return errors.New("storage_backend is memory: there is nothing to restore into")
	}
	var done restored
	var name string
	err := intoFolder(dir, func() error {
		rc, from, err := openSource(ctx, f.from, settings, c.InOrStdin())
		if err != nil {
			return failure{err}
		}
		name = from
		done, err = f.found(ctx, settings, rc)
		if err = errors.Join(err, rc.Close()); err != nil {
			return failure{fmt.Errorf("%s: %w", name, err)}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.say(c, "%s", f.restoredText(dir, name, &done))
}

func (f *restoreFlags) restoredText(dir, name string, done *restored) string {
	lists := "every list has a new ETag"
	if f.last {
		lists = "lists keep their ETags"
	}
	return fmt.Sprintf("restored into %s: %s\nnode %s founds cluster %s; revisions go on from %d (the archive's last is %d); %s.\nStart it; other nodes join it with empty folders.",
		dir, name, done.node, done.now.ClusterID, done.now.Revision, done.was.Revision, lists)
}

// restored says what a restore has made.
type restored struct {
	node string
	was  *backup.Head
	now  fsm.StateInfo
}

// found fills the data folder, which intoFolder has made ready.
func (f *restoreFlags) found(ctx context.Context, settings *config.Config, in io.Reader) (done restored, err error) {
	a, err := backup.NewReader(in)
	if err != nil {
		return done, err
	}
	done.was = &a.Head
	c := *settings
	c.Cluster.Name = cmp.Or(f.name, c.Cluster.Name)
	if done.node, err = nodeName(&c); err == nil && f.name != "" { // else a start would need the name too
		err = writeName(c.Cluster.DataDir, f.name)
	}
	if err != nil {
		return done, err
	}
	now := fsm.Timestamp(time.Now().UnixMilli())
	r := fsm.Rebirth{ClusterID: uuid.NewString(), Index: cluster.RestoredIndex, Term: cluster.RestoredTerm,
		Above: fsm.Revision(f.above), At: now, Forget: cluster.MembershipSettings()}
	if !f.last {
		r.Raise = max(now, a.Head.Clock)
	}
	meta := cluster.RestoredMeta(done.node, cmp.Or(c.Cluster.Address, "127.0.0.1:0"))
	s, err := unpackState(ctx, a, filepath.Join(c.Cluster.DataDir, storeFolder), meta, func(db *pebble.DB) error {
		done.now, err = r.Apply(db)
		return err
	})
	if err != nil {
		return done, err
	}
	err = cluster.FoundRestored(cluster.Config{Name: done.node, DataDir: c.Cluster.DataDir, LogStore: c.Store.Log}, r.ClusterID, s)
	return done, errors.Join(err, s.Close())
}

// unpackState makes a store of an archive in dir. The archive is checked to its
// last byte, and every row of the state is read, before adapt sees it and before
// the store has anything.
func unpackState(ctx context.Context, a *backup.Reader, dir string, meta raft.SnapshotMeta, adapt func(*pebble.DB) error) (*store.Store, error) {
	s, err := store.Open(store.Options{Dir: dir, Prepare: func(db *pebble.DB, kind store.Kind, _, _ uint64) error {
		if kind != store.KindBackup {
			return fmt.Errorf("%w: a stream of kind %d", backup.ErrDamaged, kind)
		}
		if err := a.Finish(); err != nil {
			return err
		}
		if err := checkContent(&a.Head, db); err != nil {
			return err
		}
		return adapt(db)
	}})
	if err != nil {
		return nil, err
	}
	if err := s.Restore(contextReader{ctx, a}, a.Head.Size, meta); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// checkContent compares a state with what its archive's head says, and reads all of it.
func checkContent(h *backup.Head, db *pebble.DB) error {
	info, err := fsm.Inspect(db)
	if err != nil {
		return err
	}
	if info.ClusterID != h.Cluster || info.Revision != h.Revision || info.Index != h.Index || hex.EncodeToString(info.StateHash[:]) != h.StateHash {
		return fmt.Errorf("%w: the state (cluster %s, revision %d, entry %d) is not the one of the head (cluster %s, revision %d, entry %d)",
			backup.ErrDamaged, info.ClusterID, info.Revision, info.Index, h.Cluster, h.Revision, h.Index)
	}
	if _, err := fsm.CheckRows(db); err != nil {
		return fmt.Errorf("%w: %w", backup.ErrDamaged, err)
	}
	return nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
