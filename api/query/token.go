package query

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"quinto/internal/canon"
)

// MaxTokenBytes is the length of the longest token: it has to fit a request line beside the other parameters.
const MaxTokenBytes = 6 << 10

// ErrTokenTooLong says that the sort fields of the last object are too long to be carried to the next page.
var ErrTokenTooLong = fmt.Errorf("values of the sort fields exceed %d bytes", MaxTokenBytes)

// Token is the position behind the last object of a page, as the client gives it back. Clients treat it as opaque; its form
// is Kinto's: base64 of {"last_object":{...},"offset":n,"nonce":"..."}, plus the id in last_object and our revision.
type Token struct {
	Offset   int64  // how many objects the pages before had
	Nonce    string // unique; on DELETE it may be used once, which is the caller's to check
	Revision uint64 // the revision at which the page was read; 0 in a token of Kinto

	lastModified int64
	hasID        bool // a token of Kinto has no id: objects with equal keys are then taken as seen
	last         row
}

// EncodeToken gives the token of the page after the one that ends with last. It returns ErrTokenTooLong.
func (q *Query) EncodeToken(last Object, t Token) (string, error) {
	object := canon.Value("{}")
	for i := range q.Sort {
		s := &q.Sort[i]
		value := field(&last, s.Field, s.path)
		if value != nil && s.Field != fieldID && s.Field != fieldModified {
			object = canon.Set(object, s.Field, value)
		}
	}
	out := append([]byte(`{"last_object":`), canon.Splice(nil, last.ID, last.LastModified, object)...)
	out = strconv.AppendInt(append(out, `,"offset":`...), t.Offset, 10)
	out = canon.AppendString(append(out, `,"nonce":`...), t.Nonce)
	out = strconv.AppendUint(append(out, `,"revision":`...), t.Revision, 10)
	out = append(out, '}')
	if base64.StdEncoding.EncodedLen(len(out)) > MaxTokenBytes {
		return "", ErrTokenTooLong
	}
	return base64.StdEncoding.EncodeToString(out), nil
}

// token reads _token for the sort keys of the query.
func (p *parse) token() error {
	text := p.texts["_token"]
	if text == "" {
		return nil
	}
	t, err := p.q.decodeToken(text)
	if err != nil {
		return refuseUnnamed("_token has invalid content")
	}
	p.q.Token = t
	p.q.seen = max(p.q.seen, t.lastModified)
	return nil
}

var errToken = errors.New("invalid token")

func (q *Query) decodeToken(text string) (*Token, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	body, err := canon.Canonical(raw, canon.Limits{})
	if err != nil {
		return nil, err
	}
	v := canon.Value(body)
	lastObject, _ := v.Get("last_object")
	offset, _ := v.Get("offset")
	nonce, hasNonce := v.Get("nonce")
	revision, _ := v.Get("revision")
	modified, _ := lastObject.Get(fieldModified)
	t := &Token{}
	var okOffset, okModified bool
	t.Offset, okOffset = offset.Int()
	t.lastModified, okModified = tokenTimestamp(modified)
	if !okOffset || t.Offset < 0 || !okModified || !hasNonce || lastObject.Kind() != canon.Object {
		return nil, errToken
	}
	t.Nonce, _ = nonce.String()
	t.Revision, _ = strconv.ParseUint(string(revision), 10, 64)
	t.last.LastModified = t.lastModified
	if id, ok := lastObject.Get(fieldID); ok {
		if t.last.ID, t.hasID = id.String(); !t.hasID {
			return nil, errToken
		}
	}
	t.last.keys = make([]canon.Value, len(q.Sort))
	for i := range q.Sort {
		t.last.keys[i], _ = lastObject.Get(q.Sort[i].Field)
	}
	return t, nil
}

// tokenTimestamp reads an integer, or one in a text as Kinto allows. Stored timestamps may be negative or far ahead.
func tokenTimestamp(v canon.Value) (int64, bool) {
	return timestampNumber(v).Int()
}

// After reports whether obj comes after the position of the token; always on the first page.
func (q *Query) After(obj Object) bool {
	if q.Token == nil {
		return true
	}
	r := q.row(obj)
	if !q.Token.hasID {
		last := q.Token.last
		last.ID = obj.ID
		return q.compare(&r, &last) > 0
	}
	return q.compare(&r, &q.Token.last) > 0
}
