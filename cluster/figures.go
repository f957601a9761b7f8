package cluster

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
}

// Figures returns this node's numbers. It asks no other node and waits for nothing.
func (n *Node) Figures() Figures {
	f := Figures{
		Term: n.raft.CurrentTerm(), LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(), Applied: n.fsm.Applied(),
		Leads: n.IsLeader(), TermsLed: n.lead.won.Load(), Elections: n.lead.elections.Load(),
		LogBytes: n.logs.bytes.Load(), LogEntries: n.logs.entries.Load(), Voters: n.voters(),
	}
	_, f.LeaderKnown = n.currentLeader()
	f.FirstIndex, _ = n.logs.FirstIndex() // of a log that cannot be read, 0
	return f
}
