package command

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"quinto/api"
	"quinto/fsm"
	"quinto/internal/backup"
	"quinto/internal/config"
)

// replayFolder is where, in the data folder, the log is replayed. It is gone when the
// restore is over; one that a crash left is of no use.
const replayFolder = "replay"

// history is an archive of the state and the segments that lead on from it.
type history struct {
	place    backup.Place
	name     string
	head     *backup.Head
	segments []backup.Segment
	gap      *backup.Gap
}

// replayed says where a replay has ended.
type replayed struct {
	fsm.StateInfo
	segments int // that were read
}

// toPoint restores the state of one moment.
func (f *restoreFlags) toPoint(ctx context.Context, c *cobra.Command, settings *config.Config) error {
	point, err := backup.ParsePoint(f.to)
	switch {
	case err != nil:
		return fmt.Errorf("--to: %w", err)
	case f.from == "-":
		return errors.New("--to wants a folder or an S3 prefix: the log is beside the archives there")
	case f.overwrite:
		return errors.New("--overwrite is for --bucket: a whole archive goes into an empty folder only")
	case settings.Memory:
		return errors.New("storage_backend is memory: there is nothing to restore into")
	}
	var text string
	fill := func() error {
		h, err := f.findHistory(ctx, settings, point)
		if err == nil {
			text, err = f.rewind(ctx, settings, h, point)
		}
		if err != nil {
			return failure{err}
		}
		return nil
	}
	if f.dry {
		err = fill()
	} else {
		err = intoFolder(settings.Cluster.DataDir, fill)
	}
	if err != nil {
		return err
	}
	return f.say(c, "%s", text)
}

// findHistory looks for the archive to begin with.
func (f *restoreFlags) findHistory(ctx context.Context, settings *config.Config, point backup.Point) (*history, error) {
	place, name, err := openArchive(f.from, settings)
	if err != nil {
		return nil, err
	}
	h := &history{place: place, name: name}
	if name == "" {
		h.name, h.head, err = point.Newest(ctx, place, f.cluster)
	} else if h.head, err = backup.HeadIn(ctx, place, name); err == nil && !point.Has(h.head) {
		err = fmt.Errorf("%w: %s is not behind %s, which has revision %d, of %s", backup.ErrPoint, point, name, h.head.Revision, backup.TimeText(h.head.Clock))
	}
	if err != nil {
		return nil, err
	}
	all, err := backup.Segments(ctx, place)
	if err == nil {
		h.segments, h.gap = backup.Follow(all, h.head.Cluster, h.head.Revision.Life(), h.head.Index)
	}
	return h, err
}

// rewind makes the state of the point in a folder aside, and the new cluster of it, and
// returns what to say.
func (f *restoreFlags) rewind(ctx context.Context, settings *config.Config, h *history, point backup.Point) (text string, err error) {
	aside := filepath.Join(settings.Cluster.DataDir, replayFolder)
	if f.dry {
		if aside, err = os.MkdirTemp(cmp.Or(os.Getenv("TMPDIR"), os.TempDir()), "quinto-restore-"); err != nil {
			return "", err
		}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return "", err
	}
	s, err := h.unpack(ctx, aside)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	at, err := f.replay(ctx, h, s, point)
	if err != nil {
		return "", err
	}
	what := fmt.Sprintf("%s/%s and %d segments, up to revision %d, entry %d, of %s", h.place, h.name, at.segments, at.Revision, at.Index, backup.TimeText(at.Clock))
	if f.dry {
		return fmt.Sprintf("sound: %s\nnothing was restored", what), nil
	}
	done, err := f.foundFrom(ctx, settings, s)
	if err != nil {
		return "", err
	}
	return f.restoredText(settings.Cluster.DataDir, what, &done), nil
}

// unpack opens the state of the archive in dir, once every byte of it is checked.
func (h *history) unpack(ctx context.Context, dir string) (*scratch, error) {
	rc, err := h.place.Open(ctx, h.name)
	if err != nil {
		return nil, err
	}
	s, err := openScratch(ctx, rc, dir)
	if err = errors.Join(err, rc.Close()); err != nil {
		return nil, fmt.Errorf("%s/%s: %w", h.place, h.name, err)
	}
	return s, nil
}

// replay applies the segments up to the point.
func (f *restoreFlags) replay(ctx context.Context, h *history, s *scratch, point backup.Point) (at replayed, err error) {
	bar := f.replayBar(h)
	defer func() { _ = bar.Finish() }() // a bar that cannot be drawn is no reason to stop
	chain := backup.NewChain(h.place, h.head.Cluster, h.head.Revision.Life(), h.head.Index)
	past := false
	for i := range h.segments {
		at.segments++
		err := chain.Read(ctx, &h.segments[i], func(e backup.Entry) error {
			_ = bar.Add(1) // see above
			if !e.Command {
				return nil
			}
			var err error
			past, err = s.state.Replay(&raft.Log{Index: e.Index, Term: e.Term, Type: raft.LogCommand, Data: bytes.Clone(e.Data)}, point.Bound)
			if err == nil && past {
				err = backup.ErrStop
			}
			return err
		}, func(h *backup.SegmentHead) error { return sameState(h, s.state.Position()) })
		if errors.Is(err, backup.ErrStop) {
			break
		}
		if err != nil {
			return at, err
		}
	}
	at.StateInfo = s.state.Position()
	if past || point.Revision != 0 && at.Revision == point.Revision || point.Time != 0 && at.Clock == point.Time {
		return at, nil
	}
	end := fmt.Sprintf("archive %s and its segments lead to revision %d, entry %d, of %s", h.name, at.Revision, chain.Index(), backup.TimeText(at.Clock))
	if h.gap != nil {
		return at, fmt.Errorf("%s: %w: %s; %s", h.place, backup.ErrGap, h.gap, end)
	}
	if point == (backup.Point{}) {
		return at, nil
	}
	return at, fmt.Errorf("%s: %w: %s; %s (--to %s takes all that there is)", h.place, backup.ErrPoint, point, end, backup.Latest)
}

// sameState compares the state behind a segment with what the cluster itself had there.
func sameState(h *backup.SegmentHead, at fsm.StateInfo) error {
	if got := hex.EncodeToString(at.StateHash[:]); h.StateHash != "" && (h.StateHash != got || h.Revision != at.Revision) {
		return fmt.Errorf("%w: behind entry %d the state has revision %d and hash %s, the cluster's had revision %d and hash %s",
			backup.ErrOther, h.Last, at.Revision, got, h.Revision, h.StateHash)
	}
	return nil
}

// replayBar shows on a terminal how much of the log is replayed.
func (f *restoreFlags) replayBar(h *history) *progressbar.ProgressBar {
	entries := int64(0)
	if n := len(h.segments); n > 0 {
		entries = int64(h.segments[n-1].Last - h.head.Index)
	}
	w := io.Discard
	if out, ok := f.stderr.(*os.File); ok && !f.quiet && isatty.IsTerminal(out.Fd()) {
		w = out
	}
	return progressbar.NewOptions64(entries, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription("replay"),
		progressbar.OptionShowCount(), progressbar.OptionThrottle(progressInterval), progressbar.OptionClearOnFinish())
}

// foundFrom founds the new cluster of the state in s, by the way of every restore.
func (f *restoreFlags) foundFrom(ctx context.Context, settings *config.Config, s *scratch) (restored, error) {
	var info fsm.StateInfo
	size, rc, err := s.store.OpenBackupOf(func(r pebble.Reader) (err error) {
		info, err = fsm.Inspect(r)
		return err
	})
	if err != nil {
		return restored{}, err
	}
	head := &backup.Head{Kind: backup.KindState, Cluster: info.ClusterID, Revision: info.Revision, Index: info.Index, Term: info.Term,
		Clock: info.Clock, Made: fsm.Timestamp(time.Now().UnixMilli()), Level: info.FeatureLevel, StateHash: hex.EncodeToString(info.StateHash[:]),
		Size: size, Node: f.name, Program: api.BuildVersion(Release).Version}
	pr, pw := io.Pipe()
	encoded := make(chan struct{})
	go func() {
		defer close(encoded)
		_ = pw.CloseWithError(backup.Encode(pw, head, rc)) // never fails
	}()
	done, err := f.found(ctx, settings, pr)
	_ = pr.CloseWithError(io.ErrClosedPipe) // ends the encoder if nobody reads on
	<-encoded
	return done, errors.Join(err, rc.Close())
}
