package plugins

import (
	"strconv"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
)

// Grouping is a Notifier that may want Kinto's events: one for all objects of one
// list that one request created, or updated, or deleted, instead of one for each.
// The dispatcher then makes one delivery of them, with the id and in the place of
// the first, and Delivery.Impacted has them all. Objects of several lanes make one
// delivery too, which has its place in the order of each of them; requests that change
// more than MaxImpacted objects make several.
type Grouping interface {
	// Grouped reports whether it wants that; it must not change while the node runs.
	Grouped() bool
}

// MaxImpacted bounds the objects of one delivery to a Grouping notifier, by the
// operations of the request that changed them.
const MaxImpacted = 200

// Impacted is one object that a request changed.
type Impacted struct {
	Event *fsm.Event  // read only
	Old   *fsm.Object // before; nil on create
	New   *fsm.Object // after; nil on delete
}

// SameGroup reports whether two events are of one of Kinto's: of one request, one
// list and one action (kinto.core.events, EventCollector). Each account is a list of its
// own there (kinto.plugins.accounts, get_parent_id).
func SameGroup(a, b *fsm.Event) bool {
	if a.Path != b.Path && KindName(a.Path) == "account" {
		return false
	}
	return len(a.RequestID) > 0 && string(a.RequestID) == string(b.RequestID) && a.Action == b.Action && a.Path.List() == b.Path.List() &&
		a.Position/MaxImpacted == b.Position/MaxImpacted
}

// Payload is the payload of Kinto's ResourceChanged event for a delivery
// (kinto.core.events, notify_resource_event), with its impacted objects and the
// revision, as JSON. Stored JSON is spliced in as it is.
//
// Unlike Kinto's, uri is always the first object's, and <resource>_id is always
// there, also when the object was created by a POST on its list; timestamp is that
// object's last_modified. A flush names no object.
func Payload(d *Delivery) []byte {
	impacted := d.Impacted
	if impacted == nil {
		impacted = []Impacted{{Event: d.Event, Old: d.Old, New: d.New}}
	}
	b := appendRevision(appendPayload(make([]byte, 0, 512+payloadSize(impacted)), d.Event), d.Event)
	if d.Event.Action == fsm.ActionFlush {
		return append(b, `,"impacted_objects":[]}`...)
	}
	b = append(b, `,"impacted_objects":[`...)
	for i := range impacted {
		if i > 0 {
			b = append(b, ',')
		}
		b = impacted[i].append(b)
	}
	return append(b, "]}"...)
}

// ShortPayload is what Kinto's own listeners send of an event: the payload without
// the objects. Added to it are the revision and the id of the delivery, by which a
// receiver knows a repeat.
func ShortPayload(d *Delivery) []byte {
	b := appendRevision(appendPayload(make([]byte, 0, 512), d.Event), d.Event)
	return append(appendMember(b, "delivery_id", d.ID), '}')
}

// appendPayload appends Kinto's own members, without the end.
func appendPayload(b []byte, e *fsm.Event) []byte {
	b = append(b, `{"timestamp":`...)
	b = strconv.AppendInt(b, int64(e.LastModified), 10)
	b = appendMember(b, "action", e.Action.String())
	if e.Action != fsm.ActionFlush {
		b = appendMember(b, "uri", string(e.Path))
	}
	if e.UserID == "" {
		b = append(b, `,"user_id":null`...)
	} else {
		b = appendMember(b, "user_id", e.UserID)
	}
	if e.Action == fsm.ActionFlush {
		return b
	}
	b = appendMember(b, "resource_name", KindName(e.Path))
	Segments(e.Path, func(plural, id string) bool {
		b = appendMember(b, strings.TrimSuffix(plural, "s")+"_id", id)
		return true
	})
	return b
}

func appendRevision(b []byte, e *fsm.Event) []byte {
	return strconv.AppendUint(append(b, `,"revision":`...), uint64(e.Revision), 10)
}

// append appends the object after and before the change: after a delete the
// tombstone, as Kinto has it.
func (i *Impacted) append(b []byte) []byte {
	b = append(b, `{"new":`...)
	if i.New != nil {
		b = canon.Splice(b, i.New.Path.ID(), int64(i.New.LastModified), outgoing(i.New))
	} else {
		b = canon.Splice(b, i.Event.Path.ID(), int64(i.Event.LastModified), canon.Value(`{"deleted":true}`))
	}
	if i.Old != nil {
		b = canon.Splice(append(b, `,"old":`...), i.Old.Path.ID(), int64(i.Old.LastModified), outgoing(i.Old))
	}
	return append(b, '}')
}

// outgoing is the data of o without what must not leave the service: the hash of an
// account's password, with which whoever gets it could guess.
func outgoing(o *fsm.Object) canon.Value {
	if KindName(o.Path) == "account" {
		return canon.Delete(o.Data, "password")
	}
	return o.Data
}

func appendMember(b []byte, name, value string) []byte {
	b = append(b, ',')
	b = canon.AppendString(b, name)
	b = append(b, ':')
	return canon.AppendString(b, value)
}

func payloadSize(impacted []Impacted) (n int) {
	for i := range impacted {
		for _, o := range []*fsm.Object{impacted[i].Old, impacted[i].New} {
			if o != nil {
				n += len(o.Data) + 80
			}
		}
	}
	return n
}
