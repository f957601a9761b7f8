package command

import (
	"strings"
	"testing"
)

// A stream that was asked for in a wrong way is refused, with the place of the mistake.
func TestBadStreamsSayWhatIsWrong(t *testing.T) {
	_, records, _ := liveNode(t, "")
	for _, c := range []struct{ query, last, want string }{
		{"", "garbage", "Last-Event-ID in header: not the id of an event"},
		{"", "-1", "Last-Event-ID in header"},
		{"?_since_revision=1", "18446744073709551616", "Last-Event-ID in header"},
		{"?_since_revision=x", "", "_since_revision in querystring: not the id of an event"},
		{"?_snapshot=banana", "", "_snapshot in querystring: true or false"},
		{"?_sort=a", "", "_sort in querystring"},
	} {
		s := listen(t, records+c.query, "alice", c.last)
		if s.status != 400 || !strings.Contains(s.body, c.want) {
			t.Errorf("%q %q: %d %s, want %s", c.query, c.last, s.status, s.body, c.want)
		}
		s.cancel()
	}
	for _, good := range []string{"?_snapshot=1", "?_snapshot=true", "?_snapshot=false", "?_snapshot=0", "?_snapshot="} {
		s := listen(t, records+good, "alice", "")
		s.next("start")
		s.cancel()
	}
}
