package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"quinto/fsm/store"
)

// What Raft keeps in the stable store: a node that forgot its vote could vote twice.
var (
	voteNumbers = []string{raftTermKey, "LastVoteTerm"}
	voteBytes   = []string{"LastVoteCand"}
)

const rebuildFolder = "rebuild" // in the data directory: the log that is being made

var errMuted = errors.New("cluster: this node is being rebuilt: it neither votes nor stands for election")

// Rebuild empties a stopped member, so that at its next start it gets state and log
// from the leader. Its identity, its term and its vote stay. It has forgotten entries
// that it had acknowledged, so until it has caught up with a leader it neither votes
// nor stands for election: one of those entries might rest on it and one other
// node alone. The caller makes sure that the others have everything. Of cfg it
// needs Name, DataDir and LogStore; stateDir is the store's. It may be run
// again after a crash. ErrDamaged: the vote cannot be read, so that the
// node has to be replaced under a new name.
func Rebuild(cfg Config, stateDir string) error {
	cfg = cfg.withDefaults()
	id, err := openIdentity(&cfg)
	if err != nil {
		return err
	}
	if d := id.get(); d.Stage != stageMember {
		return fmt.Errorf("cluster: %w: the directory is of no member", ErrDamaged)
	}
	path := filepath.Join(cfg.DataDir, logFile)
	if cfg.LogStore == LogWAL {
		path = filepath.Join(cfg.DataDir, logFolder)
	}
	if err := finishSwap(path); err != nil {
		return err
	}
	fresh := cfg
	fresh.DataDir = filepath.Join(cfg.DataDir, rebuildFolder)
	if err := errors.Join(os.RemoveAll(fresh.DataDir), os.MkdirAll(fresh.DataDir, 0o700)); err != nil {
		return err
	}
	if err := copyVote(&cfg, &fresh); err != nil {
		return err
	}
	// From here on the directory must not be started as it was.
	if err := id.update(func(d *identityData) { d.Rebuilding = true }); err != nil {
		return err
	}
	if err := store.Discard(stateDir); err != nil {
		return err
	}
	if err := swapLog(filepath.Join(fresh.DataDir, filepath.Base(path)), path); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(fresh.DataDir), id.update(func(d *identityData) { d.Damaged = "" }))
}

// copyVote makes an empty log with the term and the vote of another.
func copyVote(from, to *Config) error {
	_, old, closeOld, err := openLog(from)
	if err != nil {
		return err
	}
	_, made, closeMade, err := openLog(to)
	if err != nil {
		return errors.Join(err, closeOld())
	}
	for _, key := range voteNumbers {
		v, getErr := old.GetUint64([]byte(key))
		switch {
		case getErr == nil:
			err = errors.Join(err, made.SetUint64([]byte(key), v))
		case getErr.Error() != errKeyNotFound.Error() || key == raftTermKey:
			err = errors.Join(err, fmt.Errorf("cluster: %w: %s: %w", ErrDamaged, key, getErr))
		}
	}
	for _, key := range voteBytes {
		v, getErr := old.Get([]byte(key))
		switch {
		case getErr == nil:
			err = errors.Join(err, made.Set([]byte(key), v))
		case getErr.Error() != errKeyNotFound.Error():
			err = errors.Join(err, fmt.Errorf("cluster: %w: %s: %w", ErrDamaged, key, getErr))
		}
	}
	return errors.Join(err, closeMade(), closeOld())
}

// swapLog puts the log at made in the place of the one at path, which may be a file
// or a folder.
func swapLog(made, path string) error {
	if err := os.Rename(path, path+".old"); err != nil {
		return err
	}
	if err := os.Rename(made, path); err != nil {
		return err
	}
	return finishSwap(path)
}

// finishSwap ends a swap that a crash has cut short: without a new log the old one
// comes back.
func finishSwap(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path + ".old"); err == nil {
			return os.Rename(path+".old", path)
		}
	}
	return os.RemoveAll(path + ".old")
}

// mutedTransport keeps a node that is being rebuilt out of elections.
type mutedTransport struct {
	*transport
	n   *Node
	rpc chan raft.RPC
}

// muted is the transport that Raft gets: the usual one, unless the node is being
// rebuilt.
func (n *Node) muted() raft.Transport {
	if !n.ident.get().Rebuilding {
		return n.trans
	}
	m := &mutedTransport{transport: n.trans, n: n, rpc: make(chan raft.RPC)}
	n.goRun(m.filter)
	n.goRun(func() {
		for !n.caughtUp.Load() {
			if n.ctx.Err() != nil {
				return
			}
			pause(n.ctx, retryMin)
		}
		if err := n.ident.update(func(d *identityData) { d.Rebuilding = false }); err != nil {
			n.log.Error("cannot note that the rebuild is done", "error", err)
			return
		}
		n.log.Info("rebuilt: this node votes again")
	})
	return m
}

// Consumer is raft.Transport's.
func (m *mutedTransport) Consumer() <-chan raft.RPC { return m.rpc }

// RequestVote is raft.Transport's.
func (m *mutedTransport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if !m.n.caughtUp.Load() {
		return errMuted
	}
	return m.NetworkTransport.RequestVote(id, target, args, resp)
}

// RequestPreVote is raft.WithPreVote's.
func (m *mutedTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if !m.n.caughtUp.Load() {
		return errMuted
	}
	return m.NetworkTransport.RequestPreVote(id, target, args, resp)
}

// filter refuses votes and passes everything else on.
func (m *mutedTransport) filter() {
	for {
		select {
		case rpc := <-m.NetworkTransport.Consumer():
			if !m.n.caughtUp.Load() && refuseVote(&rpc) {
				continue
			}
			select {
			case m.rpc <- rpc:
			case <-m.n.ctx.Done():
				rpc.Respond(nil, raft.ErrRaftShutdown)
			}
		case <-m.n.ctx.Done():
			return
		}
	}
}

func refuseVote(rpc *raft.RPC) bool {
	switch rpc.Command.(type) {
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest:
		rpc.Respond(nil, errMuted)
		return true
	}
	return false
}
