//go:build race

package cluster

// raceDetector: raft v1.7.3 reads a peer's id without the lock under which it
// replaces a moved peer (replication.go updateLastAppended, raft.go
// startStopReplication). The id is the same before and after, so it does no
// harm, but the detector is right to report it: tests that move a node leave
// that step out.
const raceDetector = true
