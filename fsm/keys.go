package fsm

import (
	"bytes"
	"encoding/binary"
)

// The key spaces of the state. A key is its space byte, then names that hold
// no NUL, each ended by one, then fixed-width numbers. Space 0x00 belongs to
// fsm/store: what is of one node and not replicated. Numbers are for ever.
const (
	spaceObject   byte = 0x01 // list NUL time id → object: one sequential read serves lists, pages and _since
	spaceIndex    byte = 0x02 // list NUL id → time, revision, deleted
	spaceList     byte = 0x03 // list → ListInfo
	spaceEvent    byte = 0x04 // revision → event, with the body that it made
	spaceVersion  byte = 0x05 // path NUL revision → object with its time, once its event is trimmed
	spaceRequest  byte = 0x06 // request id → sequence number
	spaceRequests byte = 0x07 // sequence → clock, request id, stored request; in the order of eviction
	spaceNotifier byte = 0x08 // name → notifier
	spaceSetting  byte = 0x09 // name → value
	spaceMeta     byte = 0x0a // one key: revision, cluster id, floors, counts, state hash
	spaceMember   byte = 0x0b // member NUL path → nothing
	spaceMembers  byte = 0x0c // path → members, so that a cascade finds them
	spaceMemberAt byte = 0x0d // member → revision of its last change of memberships
	spaceHold     byte = 0x0e // path NUL revision → hold: entries that refer to a version
	spaceGrant    byte = 0x0f // list NUL principal NUL revision id → his permissions on the object
	spaceEnd      byte = 0x10
)

func key(space byte, name string) []byte {
	return append(append(make([]byte, 0, len(name)+1), space), name...)
}

func keyNumber(space byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 9), space), n)
}

func listPrefix(space byte, list Path) []byte {
	b := append(make([]byte, 0, len(list)+64), space)
	return append(append(b, list...), 0)
}

// appendTime writes t so that byte order is numeric order: the sign is flipped.
func appendTime(b []byte, t Timestamp) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t)^(1<<63))
}

func objectKey(list Path, t Timestamp, id string) []byte {
	return append(appendTime(listPrefix(spaceObject, list), t), id...)
}

func indexKey(p Path) []byte {
	return append(listPrefix(spaceIndex, p.List()), p.ID()...)
}

func versionKey(p Path, r Revision) []byte {
	return binary.BigEndian.AppendUint64(listPrefix(spaceVersion, p), uint64(r))
}

func holdKey(p Path, r Revision) []byte {
	return binary.BigEndian.AppendUint64(listPrefix(spaceHold, p), uint64(r))
}

func memberKey(member string, p Path) []byte {
	b := append(make([]byte, 0, len(member)+len(p)+2), spaceMember)
	return append(append(append(b, member...), 0), p...)
}

func metaKey() []byte { return []byte{spaceMeta} }

// splitObjectKey takes apart what objectKey made; ok is false for a key that
// was not made by it.
func splitObjectKey(k []byte, prefix int) (t Timestamp, id []byte, ok bool) {
	if len(k) < prefix+8 {
		return 0, nil, false
	}
	return Timestamp(binary.BigEndian.Uint64(k[prefix:]) ^ (1 << 63)), k[prefix+8:], true
}

// treeSpan returns the keys of space that lie under root: names that begin with
// root and a slash.
func treeSpan(space byte, root Path) (start, end []byte) {
	start = key(space, string(root)+"/")
	return start, prefixEnd(start)
}

// prefixEnd returns the smallest key above all keys that begin with prefix.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
