package command

import "quinto/plugins"

// figures reads this node's own numbers for the plugins that measure.
func (n *Node) figures() []plugins.Figure {
	select {
	case <-n.stopped:
		return nil
	default:
	}
	all := append(n.raftFigures(), n.storeFigures()...)
	all = append(all, n.wires.figures()...)
	return append(append(all, n.dispatchFigures()...), n.backupFigures()...)
}

func gauge(name, help string, value float64, labels ...plugins.Label) plugins.Figure {
	return plugins.Figure{Name: name, Help: help, Value: value, Labels: labels}
}

func counter(name, help string, value float64, labels ...plugins.Label) plugins.Figure {
	return plugins.Figure{Name: name, Help: help, Value: value, Labels: labels, Counter: true}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (n *Node) raftFigures() []plugins.Figure {
	f := n.cluster.Figures()
	return []plugins.Figure{
		gauge("raft.term", "Raft's current term.", float64(f.Term)),
		gauge("raft.leader", "1 while this node leads.", truth(f.Leads)),
		gauge("raft.leader_known", "1 while this node knows a leader.", truth(f.LeaderKnown)),
		gauge("raft.voters", "Nodes with a vote.", float64(f.Voters)),
		gauge("raft.first_index", "First index of the log that is kept.", float64(f.FirstIndex)),
		gauge("raft.last_index", "Last index of the log.", float64(f.LastIndex)),
		gauge("raft.commit_index", "Index up to which the log is committed, as far as this node knows.", float64(f.CommitIndex)),
		gauge("raft.applied_index", "Index up to which the state is applied.", float64(f.Applied)),
		gauge("raft.revision", "Revision of this node's state.", float64(n.state.Revision())),
		counter("raft.elections", "New leaders that this node has heard of since its start.", float64(f.Elections)),
		counter("raft.terms_led", "Terms that this node has led since its start.", float64(f.TermsLed)),
		counter("raft.log_bytes", "Bytes stored in the log since the start.", float64(f.LogBytes)),
		counter("raft.log_entries", "Entries stored in the log since the start.", float64(f.LogEntries)),
		gauge("raft.behind_entries", "Entries that the leader had applied a moment ago and this node has not.", float64(f.Behind)),
		gauge("raft.pending_writes", "Transactions that wait for the log, on the leader.", float64(f.PendingWrites)),
		gauge("raft.served_calls", "Calls of other nodes that this one is serving.", float64(f.ServedCalls)),
		gauge("cluster.clock_skew_seconds", "Largest difference between this node's clock and another's.", f.ClockSkew.Seconds()),
		gauge("cluster.stuck_followers", "Followers that answer and get no entries, on the leader.", float64(f.StuckFollowers)),
		gauge("cluster.silent_members", "Members that have not answered this node of late.", float64(f.Silent)),
		gauge("cluster.free_bytes", "Free space on the disk of the data folder; 0: not known.", float64(f.FreeBytes)),
	}
}

func (n *Node) storeFigures() []plugins.Figure {
	s := n.store.Stats()
	return []plugins.Figure{
		gauge("store.disk_bytes", "Size of the database.", float64(s.DiskBytes)),
		gauge("store.memtable_bytes", "Memory of what is not flushed.", float64(s.MemTableBytes)),
		gauge("store.cache_bytes", "Size of the block cache.", float64(s.CacheBytes)),
		gauge("store.snapshot_index", "Index of the newest snapshot.", float64(s.SnapshotIndex)),
		gauge("store.compaction_debt_bytes", "Bytes that compactions have yet to work through.", float64(s.CompactionDebt)),
		counter("store.cache_hits", "Blocks found in the cache.", float64(s.CacheHits)),
		counter("store.cache_misses", "Blocks read from the disk.", float64(s.CacheMisses)),
		counter("store.flushes", "Flushes of the database.", float64(s.Flushes)),
		counter("store.flushed_bytes", "Bytes that flushes wrote.", float64(s.FlushedBytes)),
		counter("store.compactions", "Compactions of the database.", float64(s.Compactions)),
		counter("store.compaction_seconds", "Time spent in compactions.", s.CompactionTime.Seconds()),
	}
}

// dispatchFigures are those of the notifiers. Their counts begin anew with each
// leader, and only the leader has them.
func (n *Node) dispatchFigures() (all []plugins.Figure) {
	revision := n.state.Revision()
	for _, s := range n.dispatcher.Status() {
		of := plugins.Label{Name: "notifier", Value: s.Name}
		if s.Cursor > 0 || s.Frontier > 0 {
			all = append(all,
				gauge("dispatch.cursor", "Revision up to which everything is delivered.", float64(s.Cursor), of),
				gauge("dispatch.lag", "Revisions behind the state.", float64(max(revision, s.Cursor)-s.Cursor), of))
		}
		all = append(all,
			gauge("dispatch.lanes", "Lanes with undelivered changes.", float64(s.Lanes), of),
			gauge("dispatch.failing_lanes", "Lanes whose last delivery failed.", float64(s.Failing), of),
			counter("dispatch.deliveries", "Deliveries that were taken.", float64(s.Delivered), of),
			counter("dispatch.failures", "Deliveries that failed.", float64(s.Failed), of),
			counter("dispatch.dead_letters", "Changes that were given up.", float64(s.Dead), of),
			counter("dispatch.lost", "Changes that were trimmed before their delivery.", float64(s.Lost), of))
	}
	return all
}
