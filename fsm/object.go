package fsm

import (
	"encoding/binary"
	"slices"
	"sort"

	"google.golang.org/protobuf/encoding/protowire"

	"quinto/internal/canon"
)

// Revision counts changed objects in log order, over the whole store. It is
// the truth about order, the value of the Quinto-Revision header and the
// resume point of every feed. 0 means "none" or "absent".
type Revision uint64

// Timestamp is a time in milliseconds since 1970, in Kinto's sense: the ETag
// of an object or list, strictly rising per list, which may run ahead of the
// clock and which a client may set into the past.
type Timestamp int64

// Object is one row of a list: a bucket, group, collection, record or a kind
// that a plugin adds.
type Object struct {
	Path         Path
	Revision     Revision  // of the write that made this version
	LastModified Timestamp // ms; unique enough per list, see Timestamp
	Deleted      bool      // a tombstone: no data, no permissions
	Data         []byte    // canonical JSON object without id and last_modified; never modified in place
	ACL          ACL       // the object's own permissions
	Members      []string  // principals that get Path as a principal (groups)
	grantsAt     Revision  // under which its grant rows lie; 0: under its own. See grantKey
	Of           *Ref      // not nil: an entry, and what it refers to; all zero: to nothing. See OpPutEntry
}

// Exists reports whether o is a live object (neither absent nor a tombstone).
func (o *Object) Exists() bool { return o.Revision != 0 && !o.Deleted }

// ACL holds the permissions of one object in its canonical encoding: names
// sorted, principals sorted and unique. nil means no permissions.
type ACL []byte

const (
	aclFieldPermission protowire.Number = 1 // nested: 1 name, 2 repeated principal
	aclFieldName       protowire.Number = 1
	aclFieldPrincipal  protowire.Number = 2
)

// NewACL encodes permissions; names without principals are left out, as Kinto
// does not tell an empty permission from an absent one.
func NewACL(permissions map[string][]string) ACL {
	names := make([]string, 0, len(permissions))
	for name, principals := range permissions {
		if len(principals) > 0 {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var acl ACL
	for _, name := range names {
		entry := appendString(nil, aclFieldName, name)
		for _, p := range sortedUnique(permissions[name]) {
			entry = appendString(entry, aclFieldPrincipal, p)
		}
		acl = appendBytes(acl, aclFieldPermission, entry)
	}
	return acl
}

// Each calls f for every (permission, principal) until f returns false.
func (a ACL) Each(f func(permission, principal []byte) bool) {
	more := true
	_ = eachField(a, func(_ protowire.Number, entry []byte, _ uint64) error {
		var name []byte
		err := eachField(entry, func(num protowire.Number, v []byte, _ uint64) error {
			if num == aclFieldName {
				name = v
			} else if more = f(name, v); !more {
				return errStop
			}
			return nil
		})
		if !more {
			return errStop
		}
		return err
	})
}

// Map decodes a into a fresh map of permission → principals.
func (a ACL) Map() map[string][]string {
	m := make(map[string][]string, 2)
	a.Each(func(permission, principal []byte) bool {
		m[string(permission)] = append(m[string(permission)], string(principal))
		return true
	})
	return m
}

// Grants reports whether a gives one of permissions to one of principals.
func (a ACL) Grants(principals map[string]bool, permissions ...string) bool {
	found := false
	a.Each(func(name, principal []byte) bool {
		found = principals[string(principal)] && slices.Contains(permissions, string(name))
		return !found
	})
	return found
}

func sortedUnique(in []string) []string {
	out := append([]string(nil), in...)
	sort.Strings(out)
	n := 0
	for i, s := range out {
		if i == 0 || s != out[n-1] {
			out[n] = s
			n++
		}
	}
	return out[:n]
}

// The value of an object row. The list, timestamp and id stand in its key.
const (
	objectFormat byte = 1

	objFieldRevision protowire.Number = 1
	objFieldDeleted  protowire.Number = 2
	objFieldData     protowire.Number = 3
	objFieldACL      protowire.Number = 4
	objFieldMember   protowire.Number = 5
	objFieldOf       protowire.Number = 6
	objFieldGrantsAt protowire.Number = 7
)

func encodeObject(o *Object) []byte {
	return appendObject(make([]byte, 0, len(o.Data)+len(o.ACL)+32), o)
}

func appendObject(b []byte, o *Object) []byte {
	b = append(b, objectFormat)
	b = appendUint(b, objFieldRevision, uint64(o.Revision))
	if o.Deleted {
		b = appendUint(b, objFieldDeleted, 1)
	}
	if o.Data != nil {
		b = appendBytes(b, objFieldData, o.Data)
	}
	if len(o.ACL) > 0 {
		b = appendBytes(b, objFieldACL, o.ACL)
	}
	for _, m := range o.Members {
		b = appendString(b, objFieldMember, m)
	}
	if o.Of != nil {
		b = appendBytes(b, objFieldOf, encodeRef(o.Of))
	}
	if o.grantsAt != 0 {
		b = appendUint(b, objFieldGrantsAt, uint64(o.grantsAt))
	}
	return b
}

// decodeObject fills o from v. Data and ACL point into v, so v must not be
// reused by the caller.
func decodeObject(v []byte, o *Object) error {
	if len(v) == 0 || v[0] != objectFormat {
		return formatError("object", v)
	}
	return eachField(v[1:], func(num protowire.Number, b []byte, n uint64) error {
		switch num {
		case objFieldRevision:
			o.Revision = Revision(n)
		case objFieldDeleted:
			o.Deleted = n != 0
		case objFieldData:
			o.Data = b
		case objFieldACL:
			o.ACL = b
		case objFieldMember:
			o.Members = append(o.Members, string(b))
		case objFieldOf:
			of, err := decodeRef(b)
			o.Of = &of
			return err
		case objFieldGrantsAt:
			o.grantsAt = Revision(n)
		default:
			return unknownField("object", num)
		}
		return nil
	})
}

// AppendJSON appends a as Kinto shows it: an object of permissions, each with the
// list of its principals, in the canonical order.
func (a ACL) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	last := ""
	a.Each(func(permission, principal []byte) bool {
		switch {
		case last == string(permission):
			b = append(b, ',')
		case last != "":
			b = append(b, "],"...)
			fallthrough
		default:
			last = string(permission)
			b = append(canon.AppendString(b, last), ":["...)
		}
		b = canon.AppendString(b, string(principal))
		return true
	})
	if last != "" {
		b = append(b, ']')
	}
	return append(b, '}')
}

// ListInfo is what the store knows of a list.
type ListInfo struct {
	Timestamp  Timestamp // ETag of the list; 0 when the list was never touched
	Revision   Revision  // of the last change to the list
	Count      int64     // live objects
	Tombstones int64     // retained tombstones
	Floor      Timestamp // tombstones at or below it were purged; 0: none was
}

const (
	listFormat byte = 1

	listFieldTimestamp  protowire.Number = 1
	listFieldRevision   protowire.Number = 2
	listFieldCount      protowire.Number = 3
	listFieldTombstones protowire.Number = 4
	listFieldFloor      protowire.Number = 5
)

func encodeList(l *ListInfo) []byte {
	b := append(make([]byte, 0, 40), listFormat)
	b = appendUint(b, listFieldTimestamp, protowire.EncodeZigZag(int64(l.Timestamp)))
	b = appendUint(b, listFieldRevision, uint64(l.Revision))
	b = appendUint(b, listFieldCount, uint64(l.Count))
	b = appendUint(b, listFieldTombstones, uint64(l.Tombstones))
	return appendUint(b, listFieldFloor, protowire.EncodeZigZag(int64(l.Floor)))
}

func decodeList(v []byte, l *ListInfo) error {
	if len(v) == 0 || v[0] != listFormat {
		return formatError("list", v)
	}
	return eachField(v[1:], func(num protowire.Number, _ []byte, n uint64) error {
		switch num {
		case listFieldTimestamp:
			l.Timestamp = Timestamp(protowire.DecodeZigZag(n))
		case listFieldRevision:
			l.Revision = Revision(n)
		case listFieldCount:
			l.Count = int64(n)
		case listFieldTombstones:
			l.Tombstones = int64(n)
		case listFieldFloor:
			l.Floor = Timestamp(protowire.DecodeZigZag(n))
		default:
			return unknownField("list", num)
		}
		return nil
	})
}

// indexEntry is the small row id → where the object stands.
type indexEntry struct {
	LastModified Timestamp
	Revision     Revision
	Deleted      bool
}

const (
	indexFormat byte = 1
	indexBytes       = 1 + 8 + 8 + 1
)

func encodeIndex(e indexEntry) []byte {
	b := append(make([]byte, 0, indexBytes), indexFormat)
	b = binary.BigEndian.AppendUint64(b, uint64(e.LastModified))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Revision))
	if e.Deleted {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeIndex(v []byte) (indexEntry, error) {
	if len(v) != indexBytes || v[0] != indexFormat {
		return indexEntry{}, formatError("index", v)
	}
	return indexEntry{
		LastModified: Timestamp(binary.BigEndian.Uint64(v[1:])),
		Revision:     Revision(binary.BigEndian.Uint64(v[9:])),
		Deleted:      v[17] != 0,
	}, nil
}
