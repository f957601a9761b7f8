package fsm

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// A log entry is: format byte, type byte, payload, CRC-32C of all before.
const (
	entryFormat    byte = 1
	entryTypeGroup byte = 1
	entryOverhead       = 2 + 4

	groupFieldCluster protowire.Number = 1
	groupFieldTxn     protowire.Number = 2

	txnFieldRequestID   protowire.Number = 1
	txnFieldRequestHash protowire.Number = 2
	txnFieldUserID      protowire.Number = 3
	txnFieldNow         protowire.Number = 4
	txnFieldCompare     protowire.Number = 5
	txnFieldOp          protowire.Number = 6
	txnFieldReply       protowire.Number = 7
	txnFieldQuiet       protowire.Number = 8

	cmpFieldKind     protowire.Number = 1
	cmpFieldKey      protowire.Number = 2
	cmpFieldRevision protowire.Number = 3

	opFieldType      protowire.Number = 1
	opFieldPath      protowire.Number = 2
	opFieldData      protowire.Number = 3
	opFieldACL       protowire.Number = 4
	opFieldMember    protowire.Number = 5
	opFieldTime      protowire.Number = 6 // present: HasTime
	opFieldExact     protowire.Number = 7
	opFieldIfAbsent  protowire.Number = 8
	opFieldInherited protowire.Number = 9
	opFieldName      protowire.Number = 10
	opFieldValue     protowire.Number = 11
	opFieldRevision  protowire.Number = 12
	opFieldLevel     protowire.Number = 13
	opFieldLane      protowire.Number = 14
	opFieldTarget    protowire.Number = 15
	opFieldFresh     protowire.Number = 16

	laneFieldKey      protowire.Number = 1
	laneFieldRevision protowire.Number = 2
)

// EncodeGroup returns the log entry that carries txns already encoded by
// EncodeTxn; the result shares no memory with them.
func EncodeGroup(clusterID string, txns [][]byte) []byte {
	size := entryOverhead + len(clusterID) + 8
	for _, t := range txns {
		size += len(t) + 8
	}
	b := append(make([]byte, 0, size), entryFormat, entryTypeGroup)
	b = appendString(b, groupFieldCluster, clusterID)
	for _, t := range txns {
		b = appendBytes(b, groupFieldTxn, t)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// DecodeGroup reads a log entry. ErrUnknownType: a newer format, halt;
// ErrCorrupt: the checksum or encoding is wrong. The result points into b.
func DecodeGroup(b []byte) (Group, error) {
	var g Group
	if len(b) < entryOverhead {
		return g, fmt.Errorf("%w: entry of %d bytes", ErrCorrupt, len(b))
	}
	if b[0] != entryFormat || b[1] != entryTypeGroup {
		return g, fmt.Errorf("%w: entry of format %d, type %d", ErrUnknownType, b[0], b[1])
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return g, fmt.Errorf("%w: checksum of an entry", ErrCorrupt)
	}
	err := eachField(body[2:], func(num protowire.Number, v []byte, _ uint64) error {
		switch num {
		case groupFieldCluster:
			g.ClusterID = string(v)
		case groupFieldTxn:
			t, err := DecodeTxn(v)
			if err != nil {
				return err
			}
			g.Txns = append(g.Txns, t)
		default:
			return unknownField("group", num)
		}
		return nil
	})
	return g, err
}

// EncodeTxn returns the encoding of t, sharing no memory with it.
func EncodeTxn(t *Txn) []byte {
	size := 160 + len(t.UserID) + len(t.Reply)
	for i := range t.Ops {
		size += t.Ops[i].room()
	}
	for i := range t.Compares {
		size += 24 + len(t.Compares[i].Key)
	}
	b, e := make([]byte, 0, size), make([]byte, 0, 128)
	if len(t.RequestID) > 0 {
		b = appendBytes(b, txnFieldRequestID, t.RequestID)
	}
	if len(t.RequestHash) > 0 {
		b = appendBytes(b, txnFieldRequestHash, t.RequestHash)
	}
	if t.UserID != "" {
		b = appendString(b, txnFieldUserID, t.UserID)
	}
	b = appendUint(b, txnFieldNow, protowire.EncodeZigZag(int64(t.Now)))
	for _, c := range t.Compares {
		e = appendUint(e[:0], cmpFieldKind, uint64(c.Kind))
		e = appendString(e, cmpFieldKey, c.Key)
		e = appendUint(e, cmpFieldRevision, uint64(c.Revision))
		b = appendBytes(b, txnFieldCompare, e)
	}
	for i := range t.Ops {
		b = appendBytes(b, txnFieldOp, encodeOp(&t.Ops[i]))
	}
	if len(t.Reply) > 0 {
		b = appendBytes(b, txnFieldReply, t.Reply)
	}
	return appendFlag(b, txnFieldQuiet, t.Quiet)
}

// room is about the size of o's encoding.
func (o *Op) room() int {
	n := 64 + len(o.Data) + len(o.ACL) + len(o.Path) + len(o.Value) + len(o.Target)
	for _, p := range o.Inherited {
		n += len(p) + 4
	}
	return n
}

func encodeOp(o *Op) []byte {
	b := appendUint(make([]byte, 0, o.room()), opFieldType, uint64(o.Type))
	if o.Path != "" {
		b = appendString(b, opFieldPath, string(o.Path))
	}
	if o.Data != nil {
		b = appendBytes(b, opFieldData, o.Data)
	}
	if len(o.ACL) > 0 {
		b = appendBytes(b, opFieldACL, o.ACL)
	}
	for _, m := range o.Members {
		b = appendString(b, opFieldMember, m)
	}
	if o.HasTime {
		b = appendUint(b, opFieldTime, protowire.EncodeZigZag(int64(o.LastModified)))
	}
	b = appendFlag(b, opFieldExact, o.Exact)
	b = appendFlag(b, opFieldIfAbsent, o.IfAbsent)
	for _, p := range o.Inherited {
		b = appendString(b, opFieldInherited, p)
	}
	if o.Name != "" {
		b = appendString(b, opFieldName, o.Name)
	}
	if o.Value != nil {
		b = appendBytes(b, opFieldValue, o.Value)
	}
	if o.Revision != 0 {
		b = appendUint(b, opFieldRevision, uint64(o.Revision))
	}
	if o.Level != 0 {
		b = appendUint(b, opFieldLevel, uint64(o.Level))
	}
	for _, l := range o.Lanes {
		b = appendBytes(b, opFieldLane, encodeLane(l))
	}
	if o.Target != "" {
		b = appendString(b, opFieldTarget, string(o.Target))
	}
	return appendFlag(b, opFieldFresh, o.Fresh)
}

func encodeLane(l Lane) []byte {
	return appendUint(appendString(nil, laneFieldKey, l.Key), laneFieldRevision, uint64(l.Revision))
}

func decodeLane(b []byte) (Lane, error) {
	var l Lane
	err := eachField(b, func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case laneFieldKey:
			l.Key = string(v)
		case laneFieldRevision:
			l.Revision = Revision(n)
		default:
			return unknownField("lane", num)
		}
		return nil
	})
	return l, err
}

func appendFlag(b []byte, num protowire.Number, set bool) []byte {
	if !set {
		return b
	}
	return appendUint(b, num, 1)
}

// DecodeTxn reads what EncodeTxn wrote and checks it: known types, paths that
// can be keys, limits. Whatever decodes can be applied. The result's byte
// slices point into b.
func DecodeTxn(b []byte) (Txn, error) {
	var t Txn
	err := eachField(b, func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case txnFieldRequestID:
			t.RequestID = v
		case txnFieldRequestHash:
			t.RequestHash = v
		case txnFieldUserID:
			t.UserID = string(v)
		case txnFieldNow:
			t.Now = Timestamp(protowire.DecodeZigZag(n))
		case txnFieldCompare:
			c, err := decodeCompare(v)
			t.Compares = append(t.Compares, c)
			return err
		case txnFieldOp:
			o, err := decodeOp(v)
			t.Ops = append(t.Ops, o)
			return err
		case txnFieldReply:
			t.Reply = v
		case txnFieldQuiet:
			t.Quiet = n != 0
		default:
			return unknownField("txn", num)
		}
		return nil
	})
	if err == nil && (len(t.RequestID) > MaxRequestIDBytes || len(t.RequestHash) > MaxRequestIDBytes ||
		len(t.Ops) > MaxOps || len(t.Compares) > MaxCompares) {
		err = fmt.Errorf("%w: a txn beyond its limits", ErrCorrupt)
	}
	return t, err
}

func decodeCompare(b []byte) (Compare, error) {
	var c Compare
	err := eachField(b, func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case cmpFieldKind:
			c.Kind = CompareKind(n)
			if n != uint64(CompareObject) && n != uint64(CompareList) && n != uint64(CompareMember) {
				return fmt.Errorf("%w: compare %d", ErrUnknownType, n)
			}
		case cmpFieldKey:
			c.Key = string(v)
		case cmpFieldRevision:
			c.Revision = Revision(n)
		default:
			return unknownField("compare", num)
		}
		return nil
	})
	if err == nil {
		err = checkCompare(c)
	}
	return c, err
}

func checkCompare(c Compare) error {
	switch c.Kind {
	case CompareObject:
		return Path(c.Key).CheckObject()
	case CompareList:
		return Path(c.Key).CheckList()
	case CompareMember:
		return checkPrincipal(c.Key)
	default:
		return fmt.Errorf("%w: compare %d", ErrUnknownType, c.Kind)
	}
}

func decodeOp(b []byte) (Op, error) {
	var o Op
	err := eachField(b, func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case opFieldType:
			o.Type = OpType(n)
			if n > 255 {
				return fmt.Errorf("%w: op %d", ErrUnknownType, n)
			}
		case opFieldPath:
			o.Path = Path(v)
		case opFieldData:
			o.Data = v
		case opFieldACL:
			o.ACL = v
		case opFieldMember:
			o.Members = append(o.Members, string(v))
		case opFieldTime:
			o.LastModified, o.HasTime = Timestamp(protowire.DecodeZigZag(n)), true
		case opFieldExact:
			o.Exact = n != 0
		case opFieldIfAbsent:
			o.IfAbsent = n != 0
		default:
			return decodeOpRest(&o, num, v, n)
		}
		return nil
	})
	if err == nil {
		err = checkOp(&o)
	}
	return o, err
}

func decodeOpRest(o *Op, num protowire.Number, v []byte, n uint64) error {
	switch num {
	case opFieldInherited:
		o.Inherited = append(o.Inherited, string(v))
	case opFieldName:
		o.Name = string(v)
	case opFieldValue:
		o.Value = v
	case opFieldRevision:
		o.Revision = Revision(n)
	case opFieldLevel:
		o.Level = uint32(n)
		if n > 1<<31 {
			return fmt.Errorf("%w: feature level %d", ErrCorrupt, n)
		}
	case opFieldLane:
		l, err := decodeLane(v)
		o.Lanes = append(o.Lanes, l)
		return err
	case opFieldTarget:
		o.Target = Path(v)
	case opFieldFresh:
		o.Fresh = n != 0
	default:
		return unknownField("op", num)
	}
	return nil
}

// MaxNameBytes bounds names of notifiers, settings and lanes, and principals.
const MaxNameBytes = 4096

// checkOp makes Apply total: what passes can be applied on any state.
func checkOp(o *Op) error {
	switch o.Type {
	case OpPut, OpPutTombstone, OpDelete, OpDeleteTree:
		if err := o.Path.CheckObject(); err != nil {
			return err
		}
		return checkPut(o)
	case OpPurgeTombstones:
		if !o.HasTime {
			return fmt.Errorf("%w: a purge without its cutoff", ErrCorrupt)
		}
		return o.Path.CheckList()
	case OpPutEntry:
		return checkEntry(o)
	case OpDropEntries:
		for _, id := range o.Members {
			if err := o.Path.Child(id).CheckObject(); err != nil || strings.Contains(id, "/") {
				return fmt.Errorf("%w: to drop %q of %q", ErrBadPath, id, o.Path)
			}
		}
		return o.Path.CheckList()
	case OpSetListTimestamp:
		return o.Path.CheckList()
	case OpTrimEvents, OpSetFeatureLevel, OpBeginLife:
		return nil
	case OpFlush:
		return checkFlush(o)
	case OpRegisterNotifier, OpForgetNotifier, OpAdvanceCursor, OpSetSetting:
		if o.Name == "" || len(o.Name) > MaxNameBytes {
			return fmt.Errorf("%w: name of %d bytes", ErrCorrupt, len(o.Name))
		}
		return nil
	default:
		return fmt.Errorf("%w: op %d", ErrUnknownType, o.Type)
	}
}

// MaxFlushPrefixes bounds the prefixes of settings that a flush takes along.
const MaxFlushPrefixes = 16

// checkFlush refuses an empty prefix: it would take the cluster's own settings.
func checkFlush(o *Op) error {
	if len(o.Members) > MaxFlushPrefixes {
		return fmt.Errorf("%w: a flush with %d prefixes", ErrCorrupt, len(o.Members))
	}
	for _, p := range o.Members {
		if p == "" || len(p) > MaxNameBytes {
			return fmt.Errorf("%w: a flush with a prefix of %d bytes", ErrCorrupt, len(p))
		}
	}
	return nil
}

func checkPut(o *Op) error {
	for _, m := range o.Members {
		if err := checkPrincipal(m); err != nil {
			return err
		}
	}
	return eachField(o.ACL, func(num protowire.Number, v []byte, _ uint64) error {
		if num != aclFieldPermission || v == nil {
			return unknownField("acl", num)
		}
		return eachField(v, func(num protowire.Number, v []byte, _ uint64) error {
			if num > aclFieldPrincipal || v == nil {
				return unknownField("acl entry", num)
			}
			return nil
		})
	})
}

func checkPrincipal(p string) error {
	if !validPrincipal(p) {
		return fmt.Errorf("%w: a principal of %d bytes, or with a NUL", ErrCorrupt, len(p))
	}
	return nil
}

func validPrincipal(p string) bool {
	return len(p) <= MaxNameBytes && strings.IndexByte(p, 0) < 0
}
