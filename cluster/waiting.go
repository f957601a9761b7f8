package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What an operator is told who waits: a node that finds no cluster says why, and one
// whose folder is of another cluster than the nodes that it meets says that.

const (
	waitQuiet = 5 * time.Second  // a node that looks for its cluster so long says so
	waitAgain = 30 * time.Second // and then so often
	namesTold = 8                // names in one line
)

// waiting is what a node that is no member yet has told of itself.
type waiting struct{ next time.Time }

// tell logs why n waits, if it is time to; err is what the last attempt ended with.
func (w *waiting) tell(n *Node, err error) {
	why := n.whyWaiting(err)
	n.waits.Store(&why)
	switch now := time.Now(); {
	case w.next.IsZero():
		w.next = now.Add(waitQuiet)
	case now.After(w.next):
		w.next = now.Add(waitAgain)
		n.log.Warn("not a member of a cluster yet", "why", why)
	}
}

// whyWaiting is what keeps this node out, as far as it can tell.
func (n *Node) whyWaiting(err error) string {
	peers := n.gossip.peers()
	switch {
	case len(peers) == 0:
		why := "nobody answers by gossip at " + strings.Join(n.cfg.Join, ", ")
		if err != nil {
			why = err.Error() + "; " + why
		}
		if text := n.gossip.joinFailure(); text != "" {
			why += ": " + text
		}
		return why
	case err != nil:
		return err.Error()
	default:
		return fmt.Sprintf("nodes that answer (%s) belong to no cluster, and this one was not told how many it shall expect", peerNames(peers))
	}
}

// foreigners tells of nodes that gossip finds and that are of another cluster; empty:
// there are none.
func (n *Node) foreigners() string {
	own := n.clusterID()
	foreign := slices.DeleteFunc(n.gossip.peers(), func(p peerMeta) bool { return p.Cluster == "" || own == "" || p.Cluster == own })
	if len(foreign) == 0 {
		return ""
	}
	return "gossip meets nodes of another cluster, which this one's data folder does not belong to: " + peerNames(foreign)
}

// noteForeigners says so when they change, and returns what they are now.
func (n *Node) noteForeigners(before string) string {
	now := n.foreigners()
	if now != before && now != "" {
		n.log.Warn("two clusters meet", "why", now)
	}
	return now
}

func peerNames(peers []peerMeta) string {
	names := make([]string, 0, len(peers))
	for _, p := range peers {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	if more := len(names) - namesTold; more > 0 {
		names = append(names[:namesTold], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
