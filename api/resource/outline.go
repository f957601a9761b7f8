package resource

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"

	"quinto/fsm"
	"quinto/internal/canon"
)

// outline is an answer whose objects and times may still be unknown: they are
// those that the operations of its transaction will have. It is rendered from
// the Result of the transaction, and, being stored with it, again for a retried
// request.
type outline struct {
	status int
	fields []HeaderField
	stamp  opRange // ETag and Last-Modified: the highest time of these ops
	raised bool    // an error: without the security headers inside a batch
	viewed bool    // a 401 that the permissions did not give; only while a batch is made
	// ownCORS: the headers of CORS are among the fields. Not stored.
	ownCORS bool
	// unstored is answered instead when the transaction is committed now. Not stored.
	unstored *outline
	parts    []part
	batch    []entry // the answers of a batch; then parts are not used
}

// opRange names ops [from, to) of the transaction; empty: none.
type opRange struct{ from, to int }

// part of a body: literal bytes; or the objects that ops made, with commas
// between, or only their times; or a stored version.
type part struct {
	literal []byte
	ops     opRange
	time    bool        // of ops: last_modified instead of the object
	stored  *fsm.Object // of the version: Path, Revision, LastModified, Deleted; Data while at hand
}

// entry is one answer inside a batch.
type entry struct {
	path string // as the batch echoes it: with the version prefix, decoded
	head bool
	out  *outline
	// exposed and origin are of CORS; origin is what is allowed, "" if there is none.
	exposed exposure
	origin  string
}

func (o *outline) literal(b []byte) { o.parts = append(o.parts, part{literal: b}) }

// source resolves what an outline leaves open.
type source interface {
	// op gives what an op of the transaction made.
	op(i int) (fsm.Object, error)
	// version gives a stored version.
	version(p fsm.Path, r fsm.Revision) (fsm.Object, error)
}

// result is the source of a transaction that was just applied; nil is that of an
// answer without ops.
type result []fsm.Object

func (r result) op(i int) (fsm.Object, error) {
	if i < 0 || i >= len(r) {
		return fsm.Object{}, fmt.Errorf("resource: answer names op %d of %d", i, len(r))
	}
	return r[i], nil
}

func (r result) version(p fsm.Path, _ fsm.Revision) (fsm.Object, error) {
	return fsm.Object{}, fmt.Errorf("resource: answer names the version of %s", p)
}

// replay is the source of a remembered transaction.
type replay struct {
	view *fsm.View
	refs []fsm.Ref
}

func (r *replay) op(i int) (fsm.Object, error) {
	if i < 0 || i >= len(r.refs) {
		return fsm.Object{}, fmt.Errorf("resource: stored answer names op %d of %d", i, len(r.refs))
	}
	ref := &r.refs[i]
	if ref.Deleted {
		return fsm.Object{Path: ref.Path, Revision: ref.Revision, LastModified: ref.LastModified, Deleted: true}, nil
	}
	return r.view.Version(ref.Path, ref.Revision)
}

func (r *replay) version(p fsm.Path, at fsm.Revision) (fsm.Object, error) {
	return r.view.Version(p, at)
}

// render makes the answer.
func (o *outline) render(from source) (*Response, error) {
	r := &Response{Status: o.status, Header: o.fields}
	if o.stamp.from < o.stamp.to {
		t, err := o.stampTime(from)
		if err != nil {
			return nil, err
		}
		r.Header = appendStamp(r.Header[:len(r.Header):len(r.Header)], t)
	}
	var err error
	switch {
	case o.batch != nil:
		r.Body, err = renderBatch(o.batch, from)
	case len(o.parts) == 1 && o.parts[0].stored == nil && o.parts[0].ops.to == 0:
		r.Body = o.parts[0].literal
	default:
		r.Body, err = o.body(from)
	}
	return r, err
}

func (o *outline) stampTime(from source) (fsm.Timestamp, error) {
	highest := fsm.Timestamp(-1 << 63)
	for i := o.stamp.from; i < o.stamp.to; i++ {
		obj, err := from.op(i)
		if err != nil {
			return 0, err
		}
		highest = max(highest, obj.LastModified)
	}
	return highest, nil
}

func (o *outline) body(from source) ([]byte, error) {
	b := make([]byte, 0, 512)
	for i := range o.parts {
		p := &o.parts[i]
		b = append(b, p.literal...)
		if p.stored != nil {
			obj, err := p.resolve(from)
			if err != nil {
				return nil, err
			}
			b = appendObject(b, &obj)
		}
		for n := p.ops.from; n < p.ops.to; n++ {
			obj, err := from.op(n)
			if err != nil {
				return nil, err
			}
			if n > p.ops.from {
				b = append(b, ',')
			}
			if p.time {
				b = strconv.AppendInt(b, int64(obj.LastModified), 10)
			} else {
				b = appendObject(b, &obj)
			}
		}
	}
	return b, nil
}

func (p *part) resolve(from source) (fsm.Object, error) {
	if p.stored.Deleted || p.stored.Data != nil {
		return *p.stored, nil
	}
	return from.version(p.stored.Path, p.stored.Revision)
}

// securityFields are on every answer of Kinto; inside a batch they stand in the
// part's headers, except of errors that were raised.
var securityFields = []HeaderField{
	{"X-Content-Type-Options", "nosniff"},
	{"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; "},
}

func renderBatch(entries []entry, from source) ([]byte, error) {
	b := append(make([]byte, 0, 512*len(entries)+16), `{"responses":[`...)
	for i := range entries {
		e := &entries[i]
		r, err := e.out.render(from)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = canon.AppendString(append(b, `{"path":`...), e.path)
		b = strconv.AppendInt(append(b, `,"status":`...), int64(r.Status), 10)
		b = append(b, `,"headers":{`...)
		for _, f := range r.Header {
			b = appendField(b, f)
		}
		if !e.out.raised {
			for _, f := range securityFields {
				b = appendField(b, f)
			}
		}
		if names := plainExposed[e.exposed]; names != "" {
			b = appendField(b, HeaderField{exposeHeader, names})
		}
		if e.origin != "" {
			b = appendField(b, HeaderField{allowOriginHeader, e.origin})
		}
		if r.Status != http.StatusNotModified {
			b = appendField(b, HeaderField{"Content-Length", strconv.Itoa(len(r.Body))})
		}
		if b[len(b)-1] == ',' {
			b = b[:len(b)-1]
		}
		b = append(b, `},"body":`...)
		if e.head || len(r.Body) == 0 {
			b = append(b, `""`...)
		} else {
			b = appendPart(b, r)
		}
		b = append(b, '}')
	}
	return append(b, `]}`...), nil
}

// appendPart appends the body of a part. Kinto reads an error's body and writes it
// again as it writes all else; the part's Content-Length stays that of the first.
func appendPart(b []byte, r *Response) []byte {
	body := r.Body
	if r.Status < http.StatusBadRequest {
		return append(b, body...)
	}
	for {
		i := bytes.IndexByte(body, '\\')
		if i < 0 || i+1 >= len(body) {
			return append(b, body...)
		}
		end := i + len(`\"`)
		if body[i+1] == 'u' {
			end = min(i+len(`\u0000`), len(body))
		}
		b = append(b, body[:i]...)
		switch escape := body[i:end]; {
		case string(escape) == `\u007f`:
			b = append(b, 0x7f)
		case escape[1] == 'u':
			b = append(append(b, `\u`...), bytes.ToUpper(escape[2:])...)
		default:
			b = append(b, escape...)
		}
		body = body[end:]
	}
}

// appendField appends a member of a JSON object and a comma.
func appendField(b []byte, f HeaderField) []byte {
	b = append(canon.AppendString(b, f.Name), ':')
	return append(canon.AppendString(b, f.Value), ',')
}
