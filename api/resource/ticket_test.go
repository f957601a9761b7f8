package resource

import (
	"context"
	"testing"
	"time"
)

// A ticket tells nothing of when the credentials behind it expire, so its stream is
// bounded.
func TestTicketStreamIsBounded(t *testing.T) {
	for age, want := range map[time.Duration]bool{0: true, TicketStream / 2: true, TicketStream + time.Second: false} {
		w := &Watch{ticket: "tokens:alice", opened: time.Now().Add(-age)}
		if same, err := w.Reauthenticate(context.Background(), nil, "tokens:alice"); same != want || err != nil {
			t.Errorf("after %v: %v %v", age, same, err)
		}
	}
}
