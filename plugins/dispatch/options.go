package dispatch

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// Leader is what the dispatcher needs of the cluster; *cluster.Node has it.
type Leader interface {
	// Leading tells whether this node leads, in which term, and gives a channel
	// that is closed when that ends.
	Leading() (term uint64, lost <-chan struct{}, ok bool)
	// LeadershipChanged is closed at the next change of Leading.
	LeadershipChanged() <-chan struct{}
	// LeaderView returns the state of a leader that has applied an entry of its
	// own term, with that term; else fsm.ErrNotLeader. The caller closes it.
	LeaderView() (*fsm.View, uint64, error)
	// Propose logs a transaction and returns when it is applied.
	Propose(ctx context.Context, t fsm.Txn) (fsm.Result, error)
	// Now is the clock of entries, in ms.
	Now() fsm.Timestamp
}

// State is what the dispatcher needs of this node's state; *fsm.FSM has it.
type State interface {
	// View returns the state as this node has it. The caller closes it.
	View() (*fsm.View, error)
	// Changed is closed as soon as the revision is above after.
	Changed(after fsm.Revision) <-chan struct{}
}

// Limits that are no settings.
const (
	MaxNotifiers     = 256              // configured on one node
	MaxNameBytes     = 64               // of a notifier
	MaxLanes         = 1000             // lagging lanes in the replicated table, per notifier: the most that Options.Lanes may say
	MaxActiveLanes   = 4 * MaxLanes     // lanes with undelivered events that are told apart; beyond it reading waits
	MaxDeadLetters   = 1000             // kept per notifier; the oldest goes first
	MaxErrorBytes    = 500              // of an error message that is stored or shown
	proposeTimeout   = 10 * time.Second // of the dispatcher's own entries
	abandonAfter     = 10 * time.Second // a delivery that ignores the end of its context
	frontierEvents   = 512              // read at once beyond the frontier
	catchUpEvents    = 8192             // read at once for lanes that are behind it
	shownFailedLanes = 20               // in Status
)

// Limits of one notifier of a Declaring plugin, of which there may be hundreds.
const (
	declaredWorkers = 4                // parallel deliveries
	declaredEvents  = 256              // in memory
	declaredLanes   = 512              // with undelivered events that are told apart
	declaredSave    = 30 * time.Second // between two entries of the cursor of one that has nothing to deliver
)

// Defaults of Options.
const (
	DefaultWorkers        = 32
	DefaultQueueEvents    = 4096
	DefaultLaneEvents     = 64
	DefaultLanes          = MaxLanes
	DefaultCursorInterval = time.Second
	DefaultDeliverTimeout = 30 * time.Second
	DefaultGrace          = 2 * time.Second
	DefaultKeepEvents     = 100_000
	DefaultHardCapEvents  = 1_000_000
)

// Options configure New. Leader and State are required, zero values of the
// others mean the defaults.
type Options struct {
	Leader    Leader
	State     State
	Notifiers []plugins.Notifier
	Declaring []plugins.Declaring // their notifiers come and go with the state
	Observers []plugins.Observer
	// Hidden are the fields that a plugin's kind never shows, by its plural: no notifier
	// gets them.
	Hidden map[string][]string
	Log    *slog.Logger
	Meter  *plugins.Meter // of the deliveries; nil: none

	Workers        int           // parallel deliveries per notifier; half of them at most are retries
	QueueEvents    int           // events in memory, per notifier
	LaneEvents     int           // events in memory, per lane
	Lanes          int           // lagging lanes in the replicated table, per notifier; beyond it the cursor waits
	CursorInterval time.Duration // between two entries of one notifier's cursor
	DeliverTimeout time.Duration // of one call of Deliver
	Grace          time.Duration // for deliveries under way when the dispatcher closes
	Retry          Retry
	Retention      Retention

	// HandOver, if set, asks for another leader, when notifiers are registered
	// that this node is not configured with. It is called once per set of missing
	// names, so that nodes that all lack one do not pass leadership round.
	HandOver func(reason string) error
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Workers = orInt(o.Workers, DefaultWorkers)
	o.QueueEvents = orInt(o.QueueEvents, DefaultQueueEvents)
	o.LaneEvents = orInt(o.LaneEvents, DefaultLaneEvents)
	o.Lanes = min(orInt(o.Lanes, DefaultLanes), MaxLanes)
	o.CursorInterval = orDuration(o.CursorInterval, DefaultCursorInterval)
	o.DeliverTimeout = orDuration(o.DeliverTimeout, DefaultDeliverTimeout)
	o.Grace = orDuration(o.Grace, DefaultGrace)
	o.Retry = o.Retry.withDefaults()
	o.Retention = o.Retention.withDefaults()
	return o
}

func orInt(v, d int) int {
	if v > 0 {
		return v
	}
	return d
}

func orDuration(v, d time.Duration) time.Duration {
	if v > 0 {
		return v
	}
	return d
}

// Retry says when a failed delivery is tried again and when it is given up.
// Zero values mean the defaults.
type Retry struct {
	First    []time.Duration // pauses after the first failures: 0.5 s, 1 s, 2 s, 5 s; then each is doubled
	Max      time.Duration   // longest pause: 1 h
	GiveUp   time.Duration   // age of a change that is given up when it fails: 3 days
	Patience time.Duration   // no change is given up before its lane has failed this long: 1 h
	Bury     time.Duration   // pause after a change was given up: 1 s
}

func (r Retry) withDefaults() Retry {
	if len(r.First) == 0 {
		r.First = []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}
	}
	r.Max = orDuration(r.Max, time.Hour)
	r.GiveUp = orDuration(r.GiveUp, 72*time.Hour)
	r.Patience = orDuration(r.Patience, time.Hour)
	r.Bury = orDuration(r.Bury, time.Second)
	return r
}

// pause returns how long to wait after so many failures in a row: with a
// jitter of a fifth, so that lanes that failed together do not return together.
func (r Retry) pause(failures int) time.Duration {
	d := r.First[min(failures, len(r.First))-1]
	for n := len(r.First); n < failures && d < r.Max; n++ {
		d *= 2
	}
	d = min(d, r.Max)
	return d - d/5 + rand.N(2*d/5+1)
}

// Retention says how many events are kept, counted in revisions. Zero values
// mean the defaults.
type Retention struct {
	Keep    uint64        // kept whether or not they are delivered: 100,000
	HardCap uint64        // never more, even when they are not delivered: 1,000,000, at least twice Keep
	Age     time.Duration // delivered events go at this age even when they are fewer than Keep; 0: never
	Every   time.Duration // between two looks: 10 s
	Step    uint64        // revisions trimmed by one entry: 5,000
}

func (r Retention) withDefaults() Retention {
	if r.Keep == 0 {
		r.Keep = DefaultKeepEvents
	}
	if r.HardCap == 0 {
		r.HardCap = max(DefaultHardCapEvents, 2*r.Keep)
	}
	r.HardCap = max(r.HardCap, r.Keep)
	r.Every = orDuration(r.Every, 10*time.Second)
	if r.Step == 0 {
		r.Step = 5000
	}
	return r
}
