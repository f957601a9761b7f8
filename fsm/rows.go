package fsm

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Rows other than objects: events, versions, requests, notifiers, members.

const (
	rowFormat byte = 1

	evFieldAction          protowire.Number = 1
	evFieldPath            protowire.Number = 2
	evFieldPosition        protowire.Number = 3
	evFieldRequestID       protowire.Number = 4
	evFieldUserID          protowire.Number = 5
	evFieldTime            protowire.Number = 6
	evFieldLastModified    protowire.Number = 7
	evFieldOldRevision     protowire.Number = 8
	evFieldOldLastModified protowire.Number = 9
	evFieldOldACL          protowire.Number = 10
	evFieldNewACL          protowire.Number = 11
	evFieldInherited       protowire.Number = 12
	evFieldQuiet           protowire.Number = 13
)

func encodeEvent(e *Event) []byte { return appendEvent(make([]byte, 0, 256), e) }

func appendEvent(b []byte, e *Event) []byte {
	b = append(b, rowFormat)
	b = appendUint(b, evFieldAction, uint64(e.Action))
	b = appendString(b, evFieldPath, string(e.Path))
	b = appendUint(b, evFieldPosition, uint64(e.Position))
	b = appendBytes(b, evFieldRequestID, e.RequestID)
	b = appendString(b, evFieldUserID, e.UserID)
	b = appendUint(b, evFieldTime, protowire.EncodeZigZag(int64(e.Time)))
	b = appendUint(b, evFieldLastModified, protowire.EncodeZigZag(int64(e.LastModified)))
	if e.OldRevision != 0 {
		b = appendUint(b, evFieldOldRevision, uint64(e.OldRevision))
		b = appendUint(b, evFieldOldLastModified, protowire.EncodeZigZag(int64(e.OldLastModified)))
	}
	if len(e.OldACL) > 0 {
		b = appendBytes(b, evFieldOldACL, e.OldACL)
	}
	if len(e.NewACL) > 0 {
		b = appendBytes(b, evFieldNewACL, e.NewACL)
	}
	for _, p := range e.Inherited {
		b = appendString(b, evFieldInherited, p)
	}
	return appendFlag(b, evFieldQuiet, e.Quiet)
}

// The row of an event that made a body: format, length of the event as above, the
// event, the object's row. Permissions stand in the event alone.
const (
	eventBodyFormat byte = 2
	eventBodyHead        = 1 + 4
)

func encodeEventBody(e *Event, o *Object) []byte {
	b := append(make([]byte, 0, 320+len(e.OldACL)+len(e.NewACL)+len(o.Data)), eventBodyFormat, 0, 0, 0, 0)
	b = appendEvent(b, e)
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-eventBodyHead))
	return appendObject(b, &Object{Revision: o.Revision, Data: o.Data, Members: o.Members})
}

// hasBody reports whether e made a body.
func (e *Event) hasBody() bool { return e.Action == ActionCreate || e.Action == ActionUpdate }

// splitEvent takes the row of an event apart; body is nil when it made none.
func splitEvent(v []byte) (event, body []byte, err error) {
	if len(v) == 0 || v[0] != eventBodyFormat {
		return v, nil, nil
	}
	if len(v) < eventBodyHead || uint64(len(v)-eventBodyHead) < uint64(binary.BigEndian.Uint32(v[1:])) {
		return nil, nil, formatError("event", v)
	}
	v, n := v[eventBodyHead:], binary.BigEndian.Uint32(v[1:])
	return v[:n], v[n:], nil
}

// decodeEventBody decodes the row of the event r, and the object that it made:
// a zero one when it made none.
func decodeEventBody(v []byte, r Revision) (e Event, o Object, err error) {
	event, body, err := splitEvent(v)
	if err != nil {
		return e, o, err
	}
	e.Revision = r
	if err := decodeEvent(event, &e); err != nil || body == nil {
		return e, o, err
	}
	o = Object{Path: e.Path, LastModified: e.LastModified, ACL: e.NewACL}
	return e, o, decodeObject(body, &o)
}

func decodeEvent(v []byte, e *Event) error {
	if len(v) == 0 || v[0] != rowFormat {
		return formatError("event", v)
	}
	return eachField(v[1:], func(num protowire.Number, b []byte, n uint64) error {
		switch num {
		case evFieldAction:
			e.Action = Action(n)
		case evFieldPath:
			e.Path = Path(b)
		case evFieldPosition:
			e.Position = int(n)
		case evFieldRequestID:
			e.RequestID = b
		case evFieldUserID:
			e.UserID = string(b)
		case evFieldTime:
			e.Time = Timestamp(protowire.DecodeZigZag(n))
		case evFieldLastModified:
			e.LastModified = Timestamp(protowire.DecodeZigZag(n))
		case evFieldOldRevision:
			e.OldRevision = Revision(n)
		case evFieldOldLastModified:
			e.OldLastModified = Timestamp(protowire.DecodeZigZag(n))
		case evFieldOldACL:
			e.OldACL = b
		case evFieldNewACL:
			e.NewACL = b
		case evFieldInherited:
			e.Inherited = append(e.Inherited, string(b))
		case evFieldQuiet:
			e.Quiet = n != 0
		default:
			return unknownField("event", num)
		}
		return nil
	})
}

// encodeVersion is the object's row with its time before it: the key of a
// version has none.
func encodeVersion(o *Object) []byte {
	return append(appendTime([]byte{rowFormat}, o.LastModified), encodeObject(o)...)
}

func decodeVersion(v []byte, o *Object) error {
	if len(v) < 10 || v[0] != rowFormat {
		return formatError("version", v)
	}
	o.LastModified = Timestamp(binary.BigEndian.Uint64(v[1:]) ^ (1 << 63))
	return decodeObject(v[9:], o)
}

const (
	reqFieldHash     protowire.Number = 1
	reqFieldRevision protowire.Number = 2
	reqFieldNow      protowire.Number = 3
	reqFieldReply    protowire.Number = 4
	reqFieldRef      protowire.Number = 5

	refFieldPath         protowire.Number = 1
	refFieldRevision     protowire.Number = 2
	refFieldLastModified protowire.Number = 3
	refFieldDeleted      protowire.Number = 4
)

func encodeRequest(r *StoredRequest) []byte {
	b := append(make([]byte, 0, 128+len(r.Reply)), rowFormat)
	b = appendBytes(b, reqFieldHash, r.Hash)
	b = appendUint(b, reqFieldRevision, uint64(r.Revision))
	b = appendUint(b, reqFieldNow, protowire.EncodeZigZag(int64(r.Now)))
	b = appendBytes(b, reqFieldReply, r.Reply)
	for _, ref := range r.Refs {
		b = appendBytes(b, reqFieldRef, encodeRef(&ref))
	}
	return b
}

func encodeRef(ref *Ref) []byte {
	e := appendString(make([]byte, 0, len(ref.Path)+24), refFieldPath, string(ref.Path))
	e = appendUint(e, refFieldRevision, uint64(ref.Revision))
	e = appendUint(e, refFieldLastModified, protowire.EncodeZigZag(int64(ref.LastModified)))
	return appendFlag(e, refFieldDeleted, ref.Deleted)
}

func decodeRequest(v []byte, r *StoredRequest) error {
	if len(v) == 0 || v[0] != rowFormat {
		return formatError("request", v)
	}
	return eachField(v[1:], func(num protowire.Number, b []byte, n uint64) error {
		switch num {
		case reqFieldHash:
			r.Hash = b
		case reqFieldRevision:
			r.Revision = Revision(n)
		case reqFieldNow:
			r.Now = Timestamp(protowire.DecodeZigZag(n))
		case reqFieldReply:
			r.Reply = b
		case reqFieldRef:
			ref, err := decodeRef(b)
			r.Refs = append(r.Refs, ref)
			return err
		default:
			return unknownField("request", num)
		}
		return nil
	})
}

func decodeRef(v []byte) (Ref, error) {
	var ref Ref
	err := eachField(v, func(num protowire.Number, b []byte, n uint64) error {
		switch num {
		case refFieldPath:
			ref.Path = Path(b)
		case refFieldRevision:
			ref.Revision = Revision(n)
		case refFieldLastModified:
			ref.LastModified = Timestamp(protowire.DecodeZigZag(n))
		case refFieldDeleted:
			ref.Deleted = n != 0
		default:
			return unknownField("ref", num)
		}
		return nil
	})
	return ref, err
}

const (
	notFieldHash   protowire.Number = 1
	notFieldStart  protowire.Number = 2
	notFieldCursor protowire.Number = 3
	notFieldLane   protowire.Number = 4
)

func encodeNotifier(n *Notifier) []byte {
	b := appendBytes([]byte{rowFormat}, notFieldHash, n.Hash)
	b = appendUint(b, notFieldStart, uint64(n.Start))
	b = appendUint(b, notFieldCursor, uint64(n.Cursor))
	for _, l := range n.Lanes {
		b = appendBytes(b, notFieldLane, encodeLane(l))
	}
	return b
}

func decodeNotifier(v []byte, n *Notifier) error {
	if len(v) == 0 || v[0] != rowFormat {
		return formatError("notifier", v)
	}
	return eachField(v[1:], func(num protowire.Number, b []byte, u uint64) error {
		switch num {
		case notFieldHash:
			n.Hash = b
		case notFieldStart:
			n.Start = Revision(u)
		case notFieldCursor:
			n.Cursor = Revision(u)
		case notFieldLane:
			l, err := decodeLane(b)
			n.Lanes = append(n.Lanes, l)
			return err
		default:
			return unknownField("notifier", num)
		}
		return nil
	})
}

const memFieldMember protowire.Number = 1

func encodeMembers(members []string) []byte {
	b := []byte{rowFormat}
	for _, m := range members {
		b = appendString(b, memFieldMember, m)
	}
	return b
}

func decodeMembers(v []byte) ([]string, error) {
	if len(v) == 0 || v[0] != rowFormat {
		return nil, formatError("members", v)
	}
	var members []string
	err := eachField(v[1:], func(num protowire.Number, b []byte, _ uint64) error {
		if num != memFieldMember {
			return unknownField("members", num)
		}
		members = append(members, string(b))
		return nil
	})
	return members, err
}

func decodeNumber(v []byte) (uint64, error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: number of %d bytes", ErrCorrupt, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}
