package command

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"quinto/internal/backup"
	"quinto/internal/config"
	"quinto/plugins"
)

// How the schedule is kept.
const (
	scheduleTick  = time.Second      // how often a node looks whether it is its turn
	scheduleRetry = 30 * time.Second // after the first failure; doubled with each further one
	scheduleMost  = 30 * time.Minute // but never more than this
	// placeGrace is how long a node that stops waits for the place of its archives.
	placeGrace = archiveRest + 2*time.Second
	// clockSlack is how far ahead the clock of the node may be that made an archive; one
	// that is further ahead has a wrong time, and says nothing of when the next is due.
	clockSlack = time.Minute
)

// backupState is what `quinto backup status` shows of one node.
type backupState struct {
	To   string `json:"to"`   // empty: no schedule
	Mine bool   `json:"mine"` // this node makes them now
	// Last is the newest archive of this cluster that is known to be good.
	Last     string    `json:"last"`
	LastTime time.Time `json:"last_time"`
	Bytes    int64     `json:"bytes"` // of it, if this node made it
	Next     time.Time `json:"next"`
	Made     int64     `json:"made"` // since the start of the node
	Failed   int64     `json:"failed"`
	Removed  int64     `json:"removed"`
	Error    string    `json:"error"` // of the last try; empty when it went well
	// Log is the archive of the log; nil unless the settings ask for it.
	Log *archiveState `json:"log,omitempty"`
}

// scheduler makes archives at intervals, on the one node whose turn it is.
type scheduler struct {
	n     *Node
	c     config.Backup
	place backup.Place
	log   hclog.Logger
	now   func() time.Time

	making sync.Mutex // held from the question whether an archive is due to its end

	mu    sync.Mutex
	state backupState

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// newScheduler returns nil when the settings ask for no archives.
func newScheduler(n *Node, log hclog.Logger) (*scheduler, error) {
	c := n.config.Backup
	if c.To == "" {
		return nil, nil
	}
	place, err := backup.OpenPlace(c.To, backup.S3Options{Endpoint: c.S3Endpoint, Region: c.S3Region})
	if err != nil {
		return nil, err
	}
	return &scheduler{n: n, c: c, place: place, log: log, now: time.Now, state: backupState{To: place.String()}, cancel: func() {}}, nil
}

func (s *scheduler) start() {
	if s == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() { s.run(ctx, s.once) })
}

func (s *scheduler) close() {
	if s != nil {
		s.cancel()
		endWithin(placeGrace, &s.wg, s.log)
	}
}

// endWithin waits for the goroutines of wg, but no longer than d: a call to a file system
// that hangs ends when that does, and the node must hand over and stop before.
func endWithin(d time.Duration, wg *sync.WaitGroup, log hclog.Logger) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(d):
		log.Warn("the place of the archives does not answer; nobody waits for it any more", "waited", d)
	}
}

// run calls f as long as it is this node's turn, and waits longer after each failure.
func (s *scheduler) run(ctx context.Context, f func(context.Context) error) {
	tick := time.NewTicker(scheduleTick)
	defer tick.Stop()
	var not time.Time // not before
	pause := scheduleRetry
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		mine := s.mine()
		s.note(func(b *backupState) { b.Mine = mine })
		if !mine || s.now().Before(not) {
			continue
		}
		if err := f(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("no archive was made; it is tried again", "to", s.place.String(), "after", pause, "error", err)
			not, pause = s.now().Add(pause), min(2*pause, scheduleMost)
		} else if err == nil {
			pause = scheduleRetry
		}
	}
}

// mine reports whether it is this node's turn.
func (s *scheduler) mine() bool {
	if s.c.Node != "" {
		return s.c.Node == s.n.name
	}
	return s.n.cluster.IsLeader()
}

func (s *scheduler) note(f func(*backupState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
}

// status is what is known now; nil: there is no schedule.
func (s *scheduler) status() backupState {
	if s == nil {
		return backupState{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// once makes an archive if it is time. What another node has made counts too: the
// place itself says when that was.
func (s *scheduler) once(ctx context.Context) error {
	now := s.now()
	if next := s.status().Next; now.Before(next) && next.Sub(now) <= s.c.Every+clockSlack {
		return nil
	}
	cluster := s.n.state.ClusterID()
	if cluster == "" {
		return nil // no state yet
	}
	s.making.Lock()
	defer s.making.Unlock()
	last, made, err := backup.LastMade(ctx, s.place, cluster, now.Add(clockSlack))
	if err != nil && !errors.Is(err, backup.ErrNone) {
		return s.fail(err)
	}
	if err == nil && now.Before(made.Add(s.c.Every)) {
		s.note(func(b *backupState) { b.Last, b.LastTime, b.Next = last, made, made.Add(s.c.Every) })
		return nil
	}
	if _, err := s.make(ctx, cluster); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *scheduler) fail(err error) error {
	s.note(func(b *backupState) { b.Failed++; b.Error = oneLine(err) })
	return err
}

// make makes one archive and removes those that need not stay; s.making is held.
func (s *scheduler) make(ctx context.Context, cluster string) (*backup.Head, error) {
	h, rc, err := s.n.openBackup(ctx, s.c.BytesPerSecond)
	if err != nil {
		return nil, err
	}
	name := backup.Name(h)
	size, err := backup.Size(h)
	var sum *backup.Summary
	if err == nil {
		pr, pw := io.Pipe()
		go func() { _ = pw.CloseWithError(backup.Encode(pw, h, rc)) }() // never fails
		sum, err = backup.Store(ctx, s.place, name, pr, size)
		_ = pr.CloseWithError(io.ErrClosedPipe) // ends the encoder if nobody reads on
	}
	if err = errors.Join(err, rc.Close()); err != nil {
		return nil, err
	}
	made, _ := backup.MadeAt(name)
	s.note(func(b *backupState) {
		b.Made++
		b.Last, b.LastTime, b.Bytes, b.Next, b.Error = name, made, sum.Bytes, made.Add(s.c.Every), ""
	})
	s.log.Info("archive made and verified", "name", name, "bytes", sum.Bytes, "revision", h.Revision)
	return h, s.retain(ctx, cluster, name)
}

// retain removes archives of this cluster's state.
func (s *scheduler) retain(ctx context.Context, cluster, good string) error {
	names, err := s.place.List(ctx)
	if err != nil {
		return err
	}
	expired := backup.Expired(names, cluster, good, backup.Keep{Count: s.c.Keep, Age: s.c.KeepAge}, s.now())
	for _, name := range expired {
		if err := s.place.Remove(ctx, name); err != nil {
			return err
		}
		s.note(func(b *backupState) { b.Removed++ })
		s.log.Info("archive removed", "name", name)
	}
	return s.retainLog(ctx, backup.ByAge(slices.DeleteFunc(names, func(name string) bool { return slices.Contains(expired, name) }), cluster))
}

// backupFigures are those of the schedule, none without one.
func (n *Node) backupFigures() []plugins.Figure {
	if n.backups == nil {
		return nil
	}
	s := n.backups.status()
	last := 0.0
	if !s.LastTime.IsZero() {
		last = float64(s.LastTime.Unix())
	}
	return append([]plugins.Figure{
		gauge("backup.mine", "1 while this node makes the archives.", truth(s.Mine)),
		gauge("backup.last_time_seconds", "When the newest archive was made, in Unix time; 0: unknown.", last),
		gauge("backup.bytes", "Size of the last archive that this node made.", float64(s.Bytes)),
		gauge("backup.failing", "1 while the last try failed.", truth(s.Error != "")),
		counter("backup.made", "Archives that this node made since its start.", float64(s.Made)),
		counter("backup.failures", "Tries that failed since the start.", float64(s.Failed)),
		counter("backup.removed", "Archives that retention removed since the start.", float64(s.Removed)),
	}, n.archive.figures()...)
}

var backupStatusCall = adminCall{name: "backup-status", run: func(_ context.Context, n *Node, _ io.Reader, out io.Writer) error {
	s := n.backups.status()
	s.Log = n.archive.status()
	return json.NewEncoder(out).Encode(s)
}}

func backupStatusCommand() *cobra.Command {
	var f adminFlags
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Show the archives on schedule, as this node knows them", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			var s backupState
			if err := f.call(c.Context(), settings, backupStatusCall.name, struct{}{}, &s); err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), s)
			}
			if s.To == "" {
				return f.say(c, "no schedule: quinto.backup_to is empty")
			}
			turn := "another node makes them"
			if s.Mine {
				turn = "this node makes them"
			}
			problem := ""
			if s.Error != "" {
				problem = "\nfailing: " + s.Error
			}
			return f.say(c, "archives go to %s; %s\nnewest known: %s\nmade %d, failed %d, removed %d%s%s", s.To, turn, s.Last, s.Made, s.Failed, s.Removed, problem, s.Log)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	f.add(c)
	return c
}
