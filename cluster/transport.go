package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// transport is Raft's own, and waits at the end for heartbeats that it is handling.
// Raft takes a heartbeat on the goroutine of its connection, and notes the term in it if
// that is a new one: in a log that is closed already the library panics, for it does not
// wait for these goroutines when it is shut down.
type transport struct {
	*raft.NetworkTransport

	mu     sync.RWMutex // held for reading by each heartbeat
	closed bool
	handle func(raft.RPC)
}

// SetHeartbeatHandler is raft.Transport's.
func (t *transport) SetHeartbeatHandler(handle func(raft.RPC)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handle = handle
	t.NetworkTransport.SetHeartbeatHandler(t.heartbeat)
}

// heartbeat hands one to Raft, unless the node ends.
func (t *transport) heartbeat(rpc raft.RPC) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closed {
		rpc.Respond(nil, raft.ErrRaftShutdown)
		return
	}
	t.handle(rpc)
}

// refuseHeartbeats returns when none is being handled; none will be from then on.
func (t *transport) refuseHeartbeats() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}
