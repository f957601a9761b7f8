package cluster

import (
	"errors"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// minTrailing entries are kept behind a snapshot however large they are.
const minTrailing = 64

// snapshotLoop takes a snapshot when the log has grown by enough bytes or
// entries: raft alone counts entries, which may be 100 bytes or 7 MiB. A local
// snapshot copies nothing, so it may be frequent.
func (n *Node) snapshotLoop() {
	tick := time.NewTicker(n.cfg.SnapshotInterval)
	defer tick.Stop()
	var bytes, entries int64 // at the last snapshot
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		nowBytes, nowEntries := n.logs.bytes.Load(), n.logs.entries.Load()
		newBytes, newEntries := nowBytes-bytes, nowEntries-entries
		if newEntries == 0 || (newBytes < n.cfg.SnapshotBytes && newEntries < int64(n.cfg.SnapshotEntries)) {
			continue
		}
		n.setTrailing(newBytes / newEntries)
		err := n.raft.Snapshot().Error()
		if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			n.log.Warn("snapshot failed, nothing is truncated", "error", err)
			continue
		}
		bytes, entries = nowBytes, nowEntries
	}
}

// setTrailing bounds what stays behind a snapshot in bytes, by the mean size of
// the latest entries.
func (n *Node) setTrailing(mean int64) {
	keep := uint64(n.cfg.TrailingBytes / max(mean, 1))
	rc := n.raft.ReloadableConfig()
	rc.TrailingLogs = min(max(keep, minTrailing), n.cfg.TrailingEntries)
	if err := n.raft.ReloadConfig(rc); err != nil {
		n.log.Warn("trailing entries", "error", err)
	}
}

// raftLogger keeps known noise down: after a start, and after a snapshot was
// installed, raft finds nothing to snapshot and calls that an error; a connection
// that this node closed itself is none either.
type raftLogger struct{ hclog.Logger }

// Error is hclog.Logger's.
func (l raftLogger) Error(msg string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok && (errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, net.ErrClosed)) {
			l.Logger.Debug(msg, args...)
			return
		}
	}
	l.Logger.Error(msg, args...)
}
