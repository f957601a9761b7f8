package plugins

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"quinto/fsm"
)

// Notifier takes committed changes to the outside: a webhook, a mail, a queue.
//
// The leader's dispatcher calls it. Each change that matches is delivered at
// least once, also across failovers, and in order within a lane; different
// lanes are delivered in parallel, so every method may be called by several
// goroutines. A change whose delivery fails is tried again, for days, before
// the next one of its lane. A leader that dies between sending and noting it
// leads to a second delivery with the same Delivery.ID.
type Notifier interface {
	// Name is unique and stable: the progress is stored under it.
	Name() string
	// FilterHash changes when Match accepts other events than before.
	FilterHash() []byte
	// Match tells whether e is to be delivered. It looks at e only: bodies are
	// read later, on delivery.
	Match(e *fsm.Event) bool
	// Lane names the order that e belongs to, as a rule CollectionLane(e).
	Lane(e *fsm.Event) string
	// Deliver returns nil when the receiver has taken d. Other errors than
	// those of Permanent and RetryAfter mean: try again after the backoff. It
	// must return soon after ctx ends.
	Deliver(ctx context.Context, d Delivery) error
}

// Delivery is one change on its way to one notifier.
type Delivery struct {
	ID       string      // equal in every attempt, on every node; see DeliveryID
	Notifier string      // name
	Cluster  string      // id of the cluster
	Event    *fsm.Event  // read only
	Old      *fsm.Object // before the change; nil on create
	New      *fsm.Object // after it; nil on delete: the tombstone is (Event.Path, Event.LastModified)
	Attempt  int         // 1 for the first of this leader
	// Impacted is what one request changed, for a Grouping notifier: Event, Old and New
	// are those of the first. nil for others.
	Impacted []Impacted
	Seen     any // what Look of a Looking notifier returned
}

// Looking is a Notifier that has to read more of the state than the change itself,
// such as who is in a group.
type Looking interface {
	// Look is called before each Deliver, with the leader's state of that moment. What
	// it returns becomes Delivery.Seen. It must not keep r. An error is as one of
	// Deliver.
	Look(r fsm.Reader, d *Delivery) (seen any, err error)
}

// DeliveryID returns the id of the change at revision for a notifier: a hash
// that every node and every attempt gives alike, so that a receiver recognises
// a repeated delivery.
func DeliveryID(cluster, notifier string, revision fsm.Revision) string {
	b := make([]byte, 0, len(cluster)+len(notifier)+10)
	b = append(append(b, cluster...), 0)
	b = append(append(b, notifier...), 0)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(revision)))
	return "msg_" + hex.EncodeToString(sum[:16])
}

// CollectionLane is the usual Lane: the path of the collection for it and for
// what lies in it, else the path of the root object (the bucket).
func CollectionLane(e *fsm.Event) string {
	end, pairs := 0, 0
	Segments(e.Path, func(plural, id string) bool {
		if pairs == 0 || plural == "collections" {
			end += len(plural) + len(id) + 2
		}
		pairs++
		return pairs < 2
	})
	return string(e.Path[:end])
}

// errPermanent marks what Permanent wraps.
var errPermanent = errors.New("not to be tried again")

// Permanent tells the dispatcher that no further attempt can help, because of
// the change itself: it goes to the dead letters at once.
func Permanent(err error) error { return fmt.Errorf("%w: %w", errPermanent, err) }

// IsPermanent reports whether err came from Permanent.
func IsPermanent(err error) bool { return errors.Is(err, errPermanent) }

// errGone marks what Gone wraps.
var errGone = errors.New("the receiver wants no more")

// Gone tells the dispatcher that the receiver wants nothing more, as by HTTP's 410:
// nothing is sent to it until the operator says so (quinto hooks resume), and the
// changes wait.
func Gone(err error) error { return fmt.Errorf("%w: %w", errGone, err) }

// IsGone reports whether err came from Gone.
func IsGone(err error) bool { return errors.Is(err, errGone) }

// Tester is a Notifier, or a hook that asks elsewhere, that can show whether its
// receiver can be reached: quinto hooks test.
type Tester interface {
	// Test sends what every receiver can tell from a change, once. The id is that of
	// the delivery. It must return soon after ctx ends.
	Test(ctx context.Context, id string) error
}

// RetryAfter tells the dispatcher when the receiver wants the next attempt. The
// dispatcher bounds it by the longest pause of its backoff.
type RetryAfter struct {
	After time.Duration
	Err   error // why this attempt failed
}

// Error implements error.
func (r *RetryAfter) Error() string { return r.Err.Error() }

// Unwrap returns Err.
func (r *RetryAfter) Unwrap() error { return r.Err }

// Segments calls f for each pair of a path, as ("buckets", "b"), until it
// returns false.
func Segments(p fsm.Path, f func(plural, id string) bool) {
	rest := strings.TrimPrefix(string(p), "/")
	for rest != "" {
		plural, after, _ := strings.Cut(rest, "/")
		id, next, _ := strings.Cut(after, "/")
		if !f(plural, id) {
			return
		}
		rest = next
	}
}

// KindName returns the name of the kind of the object at p by Kinto's rule, the
// plural without its "s": "record" for a record.
func KindName(p fsm.Path) string { return strings.TrimSuffix(p.List().ID(), "s") }
