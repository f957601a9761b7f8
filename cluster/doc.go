// Package cluster makes one node of many: it runs Raft over the state machine,
// finds its peers by gossip, carries requests to the leader and answers how
// fresh this node's state is.
//
// What it promises: a proposed transaction is on the disks of a majority before
// Propose returns without an error; an error says whether nothing was done or
// whether the outcome is unknown; a linearizable View holds every write that was
// acknowledged anywhere before it was asked for.
//
// Gossip discovers and hints, Raft decides: nobody becomes a member, a leader or
// a stranger because of gossip. Names identify nodes, addresses may change.
//
// One TCP port carries everything between nodes. A connection begins with a
// preamble that says which cluster and which node it comes from and goes to, so
// that a foreign or misdirected peer is cut off before a byte of it is decoded.
package cluster
