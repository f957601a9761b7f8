package cluster

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// tellsOf waits until n has an alarm about itself with all of parts in it.
func tellsOf(t *testing.T, n *testNode, parts ...string) {
	t.Helper()
	var got []alarm
	waitFor(t, "an alarm with "+strings.Join(parts, " … "), func() bool {
		got = n.alarms()
		for _, a := range got {
			all := a.Node == n.cfg.Name
			for _, p := range parts {
				all = all && strings.Contains(a.Text, p)
			}
			if all {
				return true
			}
		}
		return false
	})
}

// A node that finds no cluster does not wait in silence.
func TestNodeThatFindsNoClusterSaysWhy(t *testing.T) {
	t.Parallel()
	t.Run("nobody there", func(t *testing.T) {
		c := testConfig(t, "alone")
		var log bytes.Buffer
		nowhere := freeAddr(t)
		c.GossipAddr, c.Join = freeAddr(t), []string{nowhere}
		n := startNode(t, c)
		tellsOf(t, n, "not a member of a cluster yet", "nobody answers", nowhere, "refused")
		n.log = hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: &log})
		w := waiting{}
		w.tell(n.Node, nil)
		if log.Len() > 0 {
			t.Errorf("said at once, while others may be about to start: %s", &log)
		}
		w.next = time.Now().Add(-time.Millisecond)
		w.tell(n.Node, errors.New("1 of 3 expected nodes seen"))
		w.tell(n.Node, nil)
		if text := log.String(); strings.Count(text, "[WARN]") != 1 || !strings.Contains(text, "1 of 3 expected nodes seen; nobody answers") {
			t.Errorf("log %s", text)
		}
	})
	t.Run("too few", func(t *testing.T) {
		c := testConfig(t, "first")
		c.GossipAddr, c.Expect = freeAddr(t), 3
		c.Join = []string{c.GossipAddr}
		tellsOf(t, startNode(t, c), "1 of 3 expected nodes seen")
	})
	t.Run("none of several expects", func(t *testing.T) {
		c, d := testConfig(t, "a"), testConfig(t, "b")
		c.GossipAddr, d.GossipAddr = freeAddr(t), freeAddr(t)
		c.Join, d.Join = []string{d.GossipAddr}, []string{c.GossipAddr}
		n := startNode(t, c)
		startNode(t, d)
		tellsOf(t, n, "(b) belong to no cluster")
	})
	t.Run("a cluster that is found", func(t *testing.T) {
		for _, n := range trio(t, nil) {
			waitFor(t, "the end of the alarm", func() bool { return n.waits.Load() == nil })
		}
	})
}
