package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A node that ends waits for a heartbeat that it is handling: the term of a new leader
// in it goes to the log, and the library panics when that is closed.
func TestLogIsNotClosedUnderAHeartbeat(t *testing.T) {
	n := startNode(t, testConfig(t, "solo"))
	ready(t, n)
	begun, goOn, noted := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	n.trans.SetHeartbeatHandler(func(raft.RPC) { // as Raft does on the goroutine of the connection
		close(begun)
		<-goOn
		noted <- n.stable.SetUint64([]byte(raftTermKey), n.Term()+1)
	})
	go n.trans.heartbeat(raft.RPC{})
	<-begun
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.stop(t)
	}()
	waitFor(t, "the end of Raft", func() bool { return n.raft.State() == raft.Shutdown })
	select {
	case <-ended:
		t.Error("the node ended within a heartbeat")
	case <-time.After(300 * time.Millisecond):
	}
	close(goOn)
	if err := <-noted; err != nil {
		t.Errorf("the log was closed within a heartbeat: %v", err)
	}
	<-ended
	answer := make(chan raft.RPCResponse, 1)
	n.trans.heartbeat(raft.RPC{RespChan: answer})
	if a := <-answer; !errors.Is(a.Error, raft.ErrRaftShutdown) {
		t.Errorf("a heartbeat after the end: %v", a.Error)
	}
}
