package webhook

import (
	"strconv"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// payload is the body of a delivery: the payload of Kinto's ResourceChanged
// event (kinto/core/events.py, notify_resource_event), its impacted objects and
// the revision. Stored JSON is spliced in as it is.
//
// Unlike Kinto's, uri is always the object's, and <resource>_id is always
// there, also when the object was created by a POST on its list; timestamp is
// the object's last_modified. A flush names no object.
func payload(d *plugins.Delivery) []byte {
	e := d.Event
	b := make([]byte, 0, 512+size(d.Old)+size(d.New))
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
		return append(appendRevision(b, e), `,"impacted_objects":[]}`...)
	}
	b = appendMember(b, "resource_name", plugins.KindName(e.Path))
	plugins.Segments(e.Path, func(plural, id string) bool {
		b = appendMember(b, strings.TrimSuffix(plural, "s")+"_id", id)
		return true
	})
	b = append(appendRevision(b, e), `,"impacted_objects":[{"new":`...)
	b = appendNew(b, d)
	if d.Old != nil {
		b = append(b, `,"old":`...)
		b = canon.Splice(b, d.Old.Path.ID(), int64(d.Old.LastModified), shown(d.Old))
	}
	return append(b, "}]}"...)
}

func appendRevision(b []byte, e *fsm.Event) []byte {
	return strconv.AppendUint(append(b, `,"revision":`...), uint64(e.Revision), 10)
}

// appendNew appends the object after the change: for a delete the tombstone, as
// Kinto has it.
func appendNew(b []byte, d *plugins.Delivery) []byte {
	if d.New != nil {
		return canon.Splice(b, d.New.Path.ID(), int64(d.New.LastModified), shown(d.New))
	}
	return canon.Splice(b, d.Event.Path.ID(), int64(d.Event.LastModified), canon.Value(`{"deleted":true}`))
}

// shown is the data of o without what must not leave the service: the hash of an
// account's password, with which whoever gets it could guess.
func shown(o *fsm.Object) canon.Value {
	if plugins.KindName(o.Path) == "account" {
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

func size(o *fsm.Object) int {
	if o == nil {
		return 0
	}
	return len(o.Data) + 80
}
