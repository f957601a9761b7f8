package history

import (
	"strconv"
	"strings"
	"time"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// What an entry keeps of its own is a JSON object with action, date (ms) and
// user_id; all else follows from what it refers to. An imported entry refers to
// nothing and is kept as Kinto shows it.

// dateLayout is Python's isoformat of a time in UTC with microseconds.
const dateLayout = "2006-01-02T15:04:05.000000-07:00"

func newMeta(c *plugins.Change) []byte {
	b := append(make([]byte, 0, 160), `{"action":"`...)
	b = append(append(b, c.Action.String()...), `","date":`...)
	b = append(strconv.AppendInt(b, int64(c.Now), 10), `,"user_id":`...)
	if c.UserID == "" {
		b = append(b, "null"...)
	} else {
		b = canon.AppendString(b, c.UserID)
	}
	return append(b, '}')
}

// show implements Show of plugins.Kind.
func show(r fsm.Reader, o *fsm.Object, whole bool) ([]byte, error) {
	if o.Of == nil || o.Of.Path == "" {
		return o.Data, nil
	}
	meta := canon.Value(o.Data)
	action, _ := meta.Get("action")
	date, _ := meta.Get("date")
	user, _ := meta.Get("user_id")
	ms, _ := date.Int()
	b := append(make([]byte, 0, 512), `{"date":"`...)
	b = time.UnixMilli(ms).UTC().AppendFormat(b, dateLayout)
	if whole {
		var err error
		if b, err = appendTarget(append(b, `","target":`...), r, o.Of); err != nil {
			return nil, err
		}
		b = append(b, ',')
	} else {
		b = append(b, `",`...)
	}
	b = append(append(b, `"action":`...), action...)
	b = canon.AppendString(append(b, `,"uri":`...), string(o.Of.Path))
	b = append(append(b, `,"user_id":`...), user...)
	ids, _ := idsOf(o.Of.Path)
	last := len(ids) - 1
	b = canon.AppendString(append(b, `,"resource_name":`...), strings.TrimSuffix(ids[last].name, "_id"))
	for i, id := range ids {
		if i > 0 || last == 0 { // the bucket only of its own entries
			b = canon.AppendString(append(canon.AppendString(append(b, ','), id.name), ':'), id.id)
		}
	}
	return append(b, '}'), nil
}

// appendTarget appends the object as it was written, or its tombstone.
func appendTarget(b []byte, r fsm.Reader, of *fsm.Ref) ([]byte, error) {
	o, err := written(r, of)
	if err != nil {
		return nil, err
	}
	b = appendData(append(b, `{"data":`...), &o)
	return append(o.ACL.AppendJSON(append(b, `,"permissions":`...)), '}'), nil
}

// written reads what an entry refers to.
func written(r fsm.Reader, of *fsm.Ref) (fsm.Object, error) {
	if of.Deleted || of.Revision == 0 {
		return fsm.Object{Path: of.Path, LastModified: of.LastModified, Deleted: true}, nil
	}
	return r.Version(of.Path, of.Revision)
}

func appendData(b []byte, o *fsm.Object) []byte {
	data := canon.Value(o.Data)
	if o.Deleted {
		data = canon.Value(`{"deleted":true}`)
	}
	return canon.Splice(b, o.Path.ID(), int64(o.LastModified), data)
}

func appendList(b []byte, texts []string) []byte {
	for i, s := range texts {
		b = canon.AppendString(append(b, "[,"[min(i, 1)]), s)
	}
	return append(b, ']')
}
