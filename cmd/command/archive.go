package command

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"quinto/cluster"
	"quinto/fsm"
	"quinto/internal/backup"
	"quinto/internal/config"
	"quinto/plugins"
)

// How the log is archived.
const (
	archiveTick  = 250 * time.Millisecond // how often new entries are looked for
	archiveRetry = time.Second            // after the first failure; doubled with each further one
	archiveMost  = time.Minute            // but never more than this
	archiveRest  = 3 * time.Second        // for what is left when the node stops
	// archivePatience is how long entries that this node lacks are asked for while a
	// member that may have them does not answer; they are a gap then. All that follows
	// is held meanwhile.
	archivePatience = 10 * time.Minute
)

// archiveState is what `quinto backup status` shows of the archive of the log.
type archiveState struct {
	Mine bool `json:"mine"` // this node writes it now
	// Index is the last entry that is archived; 0: this node does not know.
	Index uint64 `json:"index"`
	// Entries are applied and not archived, on the node that writes; LagSeconds is how
	// long the oldest of them has waited.
	Entries    uint64  `json:"entries"`
	LagSeconds float64 `json:"lag_seconds"`
	Segments   int64   `json:"segments"` // since the start of the node
	Bytes      int64   `json:"bytes"`
	Failed     int64   `json:"failed"`
	Removed    int64   `json:"removed"`
	Gaps       int64   `json:"gaps"`
	Gap        string  `json:"gap"` // the last one that this node found
	Error      string  `json:"error"`
}

// String is what follows the other lines of the status; empty for nil.
func (s *archiveState) String() string {
	if s == nil {
		return ""
	}
	text := "\nlog: another node archives it"
	if s.Mine {
		text = fmt.Sprintf("\nlog: archived up to entry %d, %d entries wait since %.0f s; %d segments, %d bytes, failed %d", s.Index, s.Entries, s.LagSeconds, s.Segments, s.Bytes, s.Failed)
	}
	if s.Gap != "" {
		text += fmt.Sprintf("\nlog: %d gaps, the last: %s", s.Gaps, s.Gap)
	}
	if s.Error != "" {
		text += "\nlog: failing: " + s.Error
	}
	return text
}

// archiver writes the log in segments beside the archives of the state, on the one node
// that also makes those. It reads committed entries from the node's own log, behind
// what the state has applied, so neither Raft nor Apply waits for it.
type archiver struct {
	s   *scheduler
	n   *Node
	log hclog.Logger

	mu      sync.Mutex
	state   archiveState
	waiting time.Time // since when the oldest entry that is not archived waits

	// Of the loop only. next 0: where the archive ends is not known.
	cluster string
	life    fsm.Revision
	next    uint64
	open    *backup.SegmentBuilder
	opened  time.Time
	stood   fsm.StateInfo // where the state stood when open was last filled
	gapped  bool          // a gap is known, and no archive is behind it yet
	unasked time.Time     // since when a member that may have entries does not answer

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// holdBytes is how much of the log is kept for the archive.
func holdBytes(c *config.Config) int64 {
	if !c.Backup.ArchiveLog {
		return 0
	}
	return c.Backup.HoldBytes
}

// newArchiver returns nil unless the settings ask for it.
func newArchiver(s *scheduler, log hclog.Logger) *archiver {
	if s == nil || !s.c.ArchiveLog {
		return nil
	}
	return &archiver{s: s, n: s.n, log: log, cancel: func() {}, open: new(backup.SegmentBuilder)}
}

func (a *archiver) start() {
	if a == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	a.wg.Go(func() { a.run(ctx) })
}

func (a *archiver) close() {
	if a != nil {
		a.cancel()
		endWithin(placeGrace, &a.wg, a.log)
	}
}

func (a *archiver) note(f func(*archiveState)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.state)
}

// status is what is known now; nil: the log is not archived.
func (a *archiver) status() *archiveState {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state
	if !s.Mine {
		return &s
	}
	if applied := a.n.state.Applied(); applied > s.Index && s.Index > 0 {
		s.Entries = applied - s.Index
	}
	if !a.waiting.IsZero() {
		s.LagSeconds = time.Since(a.waiting).Seconds()
	}
	return &s
}

func (a *archiver) run(ctx context.Context) {
	tick := time.NewTicker(archiveTick)
	defer tick.Stop()
	var not time.Time // not before
	pause := archiveRetry
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			a.rest()
			return
		}
		mine := a.s.mine()
		a.note(func(s *archiveState) { s.Mine = mine })
		if !mine {
			a.forget()
			pause, not = archiveRetry, time.Time{}
			continue
		}
		if time.Now().Before(not) {
			continue
		}
		err := a.once(ctx)
		if ctx.Err() != nil {
			return
		}
		a.note(func(s *archiveState) {
			if s.Error = ""; err != nil {
				s.Error = oneLine(err)
				s.Failed++
			}
		})
		if err != nil {
			a.log.Error("the log was not archived; it is tried again", "to", a.s.place.String(), "after", pause, "error", err)
			not, pause = time.Now().Add(pause), min(2*pause, archiveMost)
			a.next = 0 // the place may have changed
			continue
		}
		pause = archiveRetry
	}
}

// rest archives, as the node stops, what no segment has yet.
func (a *archiver) rest() {
	at := a.n.state.Position()
	if !a.status().Mine || a.next == 0 || a.life != at.Revision.Life() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), archiveRest)
	defer cancel()
	for full := true; full; {
		var err error
		if full, err = a.fill(ctx, at); err == nil && a.open.Last() != 0 {
			err = a.ship(ctx)
		}
		if err != nil {
			a.log.Warn("the end of the log was not archived; the next node goes on", "error", err)
			return
		}
	}
}

// forget drops what this node knows of the archive: another one writes it, or may have.
func (a *archiver) forget() {
	if a.next != 0 || a.open.Last() != 0 {
		a.next, a.open = 0, new(backup.SegmentBuilder)
		a.wait(time.Time{})
	}
	a.unasked = time.Time{}
	a.n.cluster.ArchivedElsewhere()
}

func (a *archiver) wait(since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = since
}

// once archives what there is, if it is time.
func (a *archiver) once(ctx context.Context) error {
	at := a.n.state.Position()
	if at.ClusterID == "" {
		return nil // no state yet
	}
	if a.cluster != at.ClusterID || a.life != at.Revision.Life() {
		a.forget()
		a.cluster, a.life = at.ClusterID, at.Revision.Life()
	}
	if a.next == 0 {
		a.open = new(backup.SegmentBuilder)
		if err := a.find(ctx, at); err != nil || a.next == 0 {
			return err
		}
	}
	for {
		full, err := a.fill(ctx, at)
		if a.lost(err) {
			if a.open.Last() != 0 { // what is before the gap is not lost
				if err := a.ship(ctx); err != nil {
					return err
				}
			}
			return a.gap(ctx, err)
		}
		if err != nil || a.open.Last() == 0 {
			return err
		}
		if !full && time.Since(a.opened) < a.s.c.SegmentEvery {
			return nil
		}
		if err := a.ship(ctx); err != nil || !full {
			return err
		}
	}
}

// lost reports whether err says that entries are gone for good.
func (a *archiver) lost(err error) bool {
	if !errors.Is(err, cluster.ErrNotAsked) {
		if err == nil {
			a.unasked = time.Time{}
		}
		return errors.Is(err, cluster.ErrCompacted)
	}
	if a.unasked.IsZero() {
		a.unasked = time.Now()
	}
	return time.Since(a.unasked) > archivePatience
}

// fill adds entries up to where the state stands, and reports whether the segment is as
// large as it may be.
func (a *archiver) fill(ctx context.Context, at fsm.StateInfo) (full bool, err error) {
	from := max(a.next, a.open.Last()+1)
	full = int64(a.open.Len()) >= a.s.c.SegmentBytes
	if from > at.Index || full {
		return full, nil
	}
	var failed error
	err = a.n.cluster.Entries(ctx, from, at.Index, func(l *raft.Log) bool {
		if a.open.Last() == 0 {
			a.opened = time.Now()
			a.wait(a.opened)
		}
		failed = a.open.Add(backup.Entry{Index: l.Index, Term: l.Term, Command: l.Type == raft.LogCommand, Data: l.Data})
		full = int64(a.open.Len()) >= a.s.c.SegmentBytes
		return failed == nil && !full
	})
	a.stood = at
	return full, errors.Join(err, failed)
}

// ship closes the segment and stores it.
func (a *archiver) ship(ctx context.Context) error {
	head := backup.SegmentHead{Cluster: a.cluster, Life: a.life, Level: a.stood.FeatureLevel}
	if a.open.Last() == a.stood.Index {
		head.Revision, head.StateHash = a.stood.Revision, hex.EncodeToString(a.stood.StateHash[:])
	}
	h, data, err := a.open.Segment(head)
	if err != nil {
		return err
	}
	if err := backup.StoreSegment(ctx, a.s.place, h, data); err != nil {
		return err
	}
	a.open = new(backup.SegmentBuilder)
	a.wait(time.Time{})
	a.begin(h.Last + 1)
	a.note(func(s *archiveState) { s.Segments++; s.Bytes += int64(len(data)) })
	a.log.Debug("segment of the log archived", "first", h.First, "last", h.Last, "bytes", len(data))
	return nil
}

// begin goes on with an entry: all before it are archived.
func (a *archiver) begin(next uint64) {
	a.next, a.gapped = next, false
	a.n.cluster.Archived(next - 1)
	a.note(func(s *archiveState) { s.Index = next - 1 })
}

// find looks in the place where the archive ends, and goes on from there. Without an
// archive of the state in this life there is none of the log: one is made.
func (a *archiver) find(ctx context.Context, at fsm.StateInfo) error {
	segments, err := backup.Segments(ctx, a.s.place)
	if err != nil {
		return err
	}
	base, err := a.newest(ctx)
	if err != nil {
		return err
	}
	var last *backup.Segment
	for i := range segments {
		if s := &segments[i]; s.Of(a.cluster, a.life) && (last == nil || s.Last > last.Last) {
			last = s
		}
	}
	if base == nil {
		return a.first(ctx, at)
	}
	end := base.Index // of what is archived
	if last != nil {
		if last.Last > at.Index {
			if notYet := a.n.cluster.Ready(); notYet != nil { // not all is applied
				return fmt.Errorf("the archive leads to entry %d, this node has applied %d: %w", last.Last, at.Index, notYet)
			}
			return fmt.Errorf("%w: %s leads to entry %d, this cluster's log to %d: archive into another place", backup.ErrOther, last.Name, last.Last, at.Index)
		}
		if err := a.agrees(ctx, last); err != nil {
			if errors.Is(err, backup.ErrDamaged) || errors.Is(err, backup.ErrForeign) {
				return a.gap(ctx, err)
			}
			return err
		}
		end = last.Last
	}
	err = a.has(ctx, end+1, at.Index)
	switch {
	case err == nil:
		a.begin(end + 1)
		return nil
	case errors.Is(err, cluster.ErrCompacted) && last == nil: // the log was not archived then: no promise is broken
		return a.first(ctx, at)
	case !a.lost(err):
		return err
	case base.Index > end && a.has(ctx, base.Index+1, at.Index) == nil: // whoever made it knows of the gap
		a.begin(base.Index + 1)
		return nil
	default:
		return a.gap(ctx, err)
	}
}

// has reports whether this node's log still has the entry from, if there is one up to
// to; cluster.ErrCompacted: it has not.
func (a *archiver) has(ctx context.Context, from, to uint64) error {
	return a.n.cluster.Entries(ctx, from, to, func(*raft.Log) bool { return false })
}

// newest returns the head of the newest archive of this life; nil: there is none.
func (a *archiver) newest(ctx context.Context) (*backup.Head, error) {
	_, h, err := backup.Point{Bound: fsm.Bound{Revision: a.life + fsm.LifeStep - 1}}.Newest(ctx, a.s.place, a.cluster)
	if errors.Is(err, backup.ErrNone) || errors.Is(err, backup.ErrPoint) {
		return nil, nil
	}
	return h, err
}

// agrees reads the segment that the archive ends with and compares its end with this
// node's log, if that still has it.
func (a *archiver) agrees(ctx context.Context, s *backup.Segment) error {
	var end backup.Entry
	chain := backup.NewChain(a.s.place, a.cluster, a.life, s.First-1)
	if err := chain.Read(ctx, s, func(e backup.Entry) error { end = e; return nil }, nil); err != nil {
		return err
	}
	err := a.n.cluster.Entries(ctx, end.Index, end.Index, func(l *raft.Log) bool {
		if l.Term != end.Term {
			end.Index = 0
		}
		return false
	})
	if end.Index == 0 {
		return fmt.Errorf("%w: %s ends with an entry of term %d, this cluster has another one there: archive into another place", backup.ErrOther, s.Name, end.Term)
	}
	if errors.Is(err, cluster.ErrCompacted) {
		return nil
	}
	return err
}

// gap is told that entries are lost for the archive: all hear of it, and a new archive
// of the state begins a new row of segments.
func (a *archiver) gap(ctx context.Context, cause error) error {
	text := oneLine(cause)
	if !a.gapped { // else the archive behind it could not be made yet
		a.log.Error("a gap in the archive of the log: moments in it cannot be restored; a new archive is made", "error", text)
		a.note(func(s *archiveState) { s.Gaps++; s.Gap = time.Now().UTC().Format(time.RFC3339) + " " + text })
	}
	a.gapped = true
	a.s.making.Lock()
	defer a.s.making.Unlock()
	return a.anew(ctx)
}

// first begins the first row of segments, behind the archive that the schedule has made
// meanwhile, if it has: behind another one there would be a gap between the two.
func (a *archiver) first(ctx context.Context, at fsm.StateInfo) error {
	a.s.making.Lock()
	defer a.s.making.Unlock()
	base, err := a.newest(ctx)
	if err != nil {
		return err
	}
	if base != nil && a.has(ctx, base.Index+1, at.Index) == nil {
		a.begin(base.Index + 1)
		return nil
	}
	return a.anew(ctx)
}

// anew makes an archive of the state and goes on behind it; a.s.making is held.
func (a *archiver) anew(ctx context.Context) error {
	a.open = new(backup.SegmentBuilder)
	a.wait(time.Now())
	a.n.cluster.Archived(a.n.state.Applied()) // what comes from now on is needed
	h, err := a.s.make(ctx, a.cluster)
	if err != nil {
		return a.s.fail(err)
	}
	a.wait(time.Time{})
	a.begin(h.Index + 1)
	return nil
}

// retainLog removes the segments that none of the archives names, the oldest first, needs.
func (s *scheduler) retainLog(ctx context.Context, names []string) error {
	segments, err := backup.Segments(ctx, s.place)
	if err != nil || len(segments) == 0 || len(names) == 0 {
		return err
	}
	head, err := backup.HeadIn(ctx, s.place, names[0])
	if err != nil {
		return err
	}
	below := s.place.Below(backup.SegmentFolder)
	for _, name := range backup.ExpiredSegments(segments, head) {
		if err := below.Remove(ctx, name); err != nil {
			return err
		}
		if a := s.n.archive; a != nil {
			a.note(func(s *archiveState) { s.Removed++ })
		}
		s.log.Debug("segment of the log removed", "name", name)
	}
	return nil
}

// figures are those of the archive of the log, none unless it is kept.
func (a *archiver) figures() []plugins.Figure {
	s := a.status()
	if s == nil {
		return nil
	}
	return []plugins.Figure{
		gauge("archive.mine", "1 while this node archives the log.", truth(s.Mine)),
		gauge("archive.index", "Last entry of the log that is archived, as the node that archives knows it.", float64(s.Index)),
		gauge("archive.lag_entries", "Entries that are applied and not archived, on the node that archives.", float64(s.Entries)),
		gauge("archive.lag_seconds", "How long the oldest of them waits.", s.LagSeconds),
		gauge("archive.failing", "1 while the last try failed.", truth(s.Error != "")),
		counter("archive.segments", "Segments that this node wrote since its start.", float64(s.Segments)),
		counter("archive.bytes", "Bytes of them.", float64(s.Bytes)),
		counter("archive.failures", "Tries that failed since the start.", float64(s.Failed)),
		counter("archive.gaps", "Gaps that this node found since its start.", float64(s.Gaps)),
	}
}
