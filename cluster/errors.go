package cluster

import "errors"

// Errors of starting and joining. Those of reading and writing are fsm's.
var (
	// ErrConfig: a setting cannot work; the text says which.
	ErrConfig = errors.New("bad cluster configuration")
	// ErrPlaintext: an address off loopback was asked for without mutual TLS and a key of gossip.
	ErrPlaintext = errors.New("cluster and gossip addresses must be loopback without certificates and gossip keys")
	// ErrDamaged: the node's own files do not pass their checksums, or some of
	// them are missing while others prove that they existed. The node must not
	// start: it could have forgotten a vote or an acknowledged entry.
	ErrDamaged = errors.New("data directory is damaged")
	// ErrOtherNode: the data directory belongs to a node of another name.
	ErrOtherNode = errors.New("data directory belongs to another node")
	// ErrLogStore: the Raft log was made with another library than the setting names.
	ErrLogStore = errors.New("log store of the data directory")
	// ErrForeignCluster: the two sides belong to different clusters.
	ErrForeignCluster = errors.New("member of another cluster")
	// ErrNameTaken: the cluster knows the name with another data directory. A
	// node that lost its disk has forgotten its votes: it must come back under a
	// new name.
	ErrNameTaken = errors.New("node name is taken by another data directory")
	// ErrRemoved: this node was removed from its cluster, for ever. Its folder is of
	// no more use.
	ErrRemoved = errors.New("node was removed from its cluster")
	// ErrRecovering: a recovery of this data directory was begun and not ended.
	ErrRecovering = errors.New("recovery was interrupted")
	// ErrQuorum: the change would leave the cluster without a living majority.
	ErrQuorum = errors.New("no living majority would be left")
	// ErrNoMember: the cluster has no member of that name.
	ErrNoMember = errors.New("no such member")
	// ErrRefused: a peer refused this node for another reason, in its words.
	ErrRefused = errors.New("refused by the cluster")

	// errUnsent: a call was never sent, so nothing was done.
	errUnsent = errors.New("call not sent")
	// errBroken: the connection broke after a call was sent.
	errBroken = errors.New("connection to the peer broke")
)
