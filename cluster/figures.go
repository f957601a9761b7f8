package cluster

import "time"

// Figures are this node's numbers for measurements.
type Figures struct {
	Term        uint64
	FirstIndex  uint64 // of the log that is kept
	LastIndex   uint64
	CommitIndex uint64
	Applied     uint64 // index
	Leads       bool
	LeaderKnown bool
	TermsLed    uint64 // since the node began
	Elections   uint64 // new leaders that it has heard of, itself too
	LogBytes    int64  // stored in the log since the node began
	LogEntries  int64
	Voters      int

	// Of the exchange with the other members.
	ClockSkew      time.Duration // largest difference of another member's clock
	StuckFollowers uint64        // that answer and get no entries; on the leader
	Silent         uint64        // members that have not answered of late
	Behind         uint64        // entries that the leader had applied and this node has not
	PendingWrites  int           // transactions that wait for the log
	ServedCalls    int64         // calls of other nodes under way
	FreeBytes      uint64        // on the disk; 0: unknown
}

// Figures returns this node's numbers. It asks no other node and waits for nothing.
func (n *Node) Figures() Figures {
	f := Figures{
		Term: n.raft.CurrentTerm(), LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(), Applied: n.fsm.Applied(),
		Leads: n.IsLeader(), TermsLed: n.lead.won.Load(), Elections: n.lead.elections.Load(),
		LogBytes: n.logs.bytes.Load(), LogEntries: n.logs.entries.Load(), Voters: n.voters(),
	}
	n.exchangeFigures(&f)
	_, f.LeaderKnown = n.currentLeader()
	f.FirstIndex, _ = n.logs.FirstIndex() // of a log that cannot be read, 0
	return f
}

func (n *Node) exchangeFigures(f *Figures) {
	f.Behind, f.PendingWrites, f.ServedCalls = n.behind(), len(n.prop.queue), n.server.calls.Load()
	if free, err := n.freeBytes(); err == nil && !n.cfg.Memory {
		f.FreeBytes = free
	}
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	f.StuckFollowers = n.table.stuck
	for _, p := range n.table.by {
		if time.Since(p.lastWord()) > n.freshAge() {
			f.Silent++
		} else {
			f.ClockSkew = max(f.ClockSkew, p.skew.Abs())
		}
	}
}
