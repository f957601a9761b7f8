package plugins

import (
	"context"
	"fmt"

	"quinto/fsm"
)

// Loss is what a notifier has lost, because it lagged beyond the retention of events:
// changes with revisions above After, up to UpTo, may never come to it.
type Loss struct {
	ID          string        // of the delivery: equal in every attempt
	After, UpTo fsm.Revision  //
	Time        fsm.Timestamp // when they were given up, ms
}

// Losing is a Notifier whose receiver can be told of a loss, so that it knows that it
// has to read everything anew.
type Losing interface {
	// Lost is called as Deliver is, until it returns nil: before or after the changes
	// that are still there.
	Lost(ctx context.Context, l Loss) error
}

// LossPayload is the JSON that tells of a loss where others tell of changes.
func LossPayload(l Loss) []byte {
	return fmt.Appendf(nil, `{"timestamp":%d,"action":"lost","after":%d,"up_to":%d,"delivery_id":"%s"}`, l.Time, l.After, l.UpTo, l.ID)
}
