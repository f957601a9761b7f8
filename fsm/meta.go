package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// meta is the one row that says where the state stands. It is written with
// every batch, so it always agrees with the rest.
type meta struct {
	ClusterID    string
	Revision     Revision
	FeatureLevel uint32
	EventFloor   Revision  // events at or below it are gone
	EventCount   uint64    // retained
	Clock        Timestamp // highest Now of any Txn: the clock of windows and deadlines
	RequestFirst uint64    // oldest sequence number in the request table
	RequestNext  uint64    // next to give
	RequestBytes uint64
	StateHash    [sha256.Size]byte // rolling: over every applied txn and what it did
	Index        uint64            // of the last applied entry: per node, not in the hash
	Term         uint64            // of that entry
}

const (
	metaFormat byte = 1

	metaFieldCluster      protowire.Number = 1
	metaFieldRevision     protowire.Number = 2
	metaFieldLevel        protowire.Number = 3
	metaFieldEventFloor   protowire.Number = 4
	metaFieldEventCount   protowire.Number = 5
	metaFieldClock        protowire.Number = 6
	metaFieldRequestFirst protowire.Number = 7
	metaFieldRequestNext  protowire.Number = 8
	metaFieldRequestBytes protowire.Number = 9
	metaFieldStateHash    protowire.Number = 10
)

func encodeMeta(m *meta) []byte {
	b := append(make([]byte, 0, 128), metaFormat)
	b = appendString(b, metaFieldCluster, m.ClusterID)
	b = appendUint(b, metaFieldRevision, uint64(m.Revision))
	b = appendUint(b, metaFieldLevel, uint64(m.FeatureLevel))
	b = appendUint(b, metaFieldEventFloor, uint64(m.EventFloor))
	b = appendUint(b, metaFieldEventCount, m.EventCount)
	b = appendUint(b, metaFieldClock, protowire.EncodeZigZag(int64(m.Clock)))
	b = appendUint(b, metaFieldRequestFirst, m.RequestFirst)
	b = appendUint(b, metaFieldRequestNext, m.RequestNext)
	b = appendUint(b, metaFieldRequestBytes, m.RequestBytes)
	return appendBytes(b, metaFieldStateHash, m.StateHash[:])
}

func decodeMeta(v []byte, m *meta) error {
	if len(v) == 0 || v[0] != metaFormat {
		return formatError("meta row", v)
	}
	return eachField(v[1:], func(num protowire.Number, b []byte, n uint64) error {
		switch num {
		case metaFieldCluster:
			m.ClusterID = string(b)
		case metaFieldRevision:
			m.Revision = Revision(n)
		case metaFieldLevel:
			m.FeatureLevel = uint32(n)
		case metaFieldEventFloor:
			m.EventFloor = Revision(n)
		case metaFieldEventCount:
			m.EventCount = n
		case metaFieldClock:
			m.Clock = Timestamp(protowire.DecodeZigZag(n))
		case metaFieldRequestFirst:
			m.RequestFirst = n
		case metaFieldRequestNext:
			m.RequestNext = n
		case metaFieldRequestBytes:
			m.RequestBytes = n
		case metaFieldStateHash:
			if copy(m.StateHash[:], b) != len(m.StateHash) {
				return fmt.Errorf("%w: state hash", ErrCorrupt)
			}
		default:
			return unknownField("meta row", num)
		}
		return nil
	})
}

// entryKey holds (index, term) of the last applied entry. It is this node's
// own, in the space that the state hash leaves out.
func entryKey() []byte { return []byte("\x00entry") }

func encodeEntry(index, term uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, index), term)
}
