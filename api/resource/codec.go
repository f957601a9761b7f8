package resource

import (
	"fmt"
	"sort"

	"google.golang.org/protobuf/encoding/protowire"

	"quinto/fsm"
)

// Requests and answers travel between nodes, and outlines into the log, in
// protobuf's wire format behind a format byte. Field numbers are for ever:
// append, never reuse (testdata/*.golden pin them). Between nodes an unknown
// field is skipped, so that versions can be mixed; in a stored outline it is an
// error, since an answer that leaves something out would be another answer.

const codecFormat byte = 1

// Limits of what is decoded.
const (
	MaxForwardBytes = 16 << 20 // an encoded request or answer
	maxOutlineDepth = 2        // a batch holds answers, no batches
)

const (
	reqFieldID     protowire.Number = 1
	reqFieldMethod protowire.Number = 2
	reqFieldPath   protowire.Number = 3
	reqFieldQuery  protowire.Number = 4
	reqFieldHeader protowire.Number = 5
	reqFieldBody   protowire.Number = 6
	reqFieldScheme protowire.Number = 7
	reqFieldHost   protowire.Number = 8
	reqFieldPrefix protowire.Number = 9
	reqFieldClient protowire.Number = 10
	reqFieldHop    protowire.Number = 11
	reqFieldRetry  protowire.Number = 12

	respFieldStatus  protowire.Number = 1
	respFieldHeader  protowire.Number = 2
	respFieldBody    protowire.Number = 3
	respFieldOutcome protowire.Number = 4
	respFieldUserID  protowire.Number = 5

	pairFieldName  protowire.Number = 1
	pairFieldValue protowire.Number = 2

	outFieldStatus protowire.Number = 1
	outFieldHeader protowire.Number = 2
	outFieldStamp  protowire.Number = 3
	outFieldRaised protowire.Number = 4
	outFieldPart   protowire.Number = 5
	outFieldEntry  protowire.Number = 6

	rangeFieldFrom protowire.Number = 1
	rangeFieldTo   protowire.Number = 2

	partFieldLiteral protowire.Number = 1
	partFieldOps     protowire.Number = 2
	partFieldStored  protowire.Number = 3
	partFieldTime    protowire.Number = 4

	storedFieldPath         protowire.Number = 1
	storedFieldRevision     protowire.Number = 2
	storedFieldLastModified protowire.Number = 3
	storedFieldDeleted      protowire.Number = 4

	entryFieldPath    protowire.Number = 1
	entryFieldHead    protowire.Number = 2
	entryFieldOut     protowire.Number = 3
	entryFieldExposed protowire.Number = 4
	entryFieldOrigin  protowire.Number = 5
)

func putBytes(b []byte, num protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

func putString(b []byte, num protowire.Number, v string) []byte {
	if v == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), v)
}

func putUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// eachField walks b; data is that of a length-delimited field, n of a varint.
func eachField(b []byte, f func(num protowire.Number, data []byte, n uint64) error) error {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return fmt.Errorf("%w: %w", fsm.ErrCorrupt, protowire.ParseError(size))
		}
		b = b[size:]
		var data []byte
		var n uint64
		switch typ {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			data, size = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("%w: wire type %d", fsm.ErrUnknownType, typ)
		}
		if size < 0 {
			return fmt.Errorf("%w: %w", fsm.ErrCorrupt, protowire.ParseError(size))
		}
		b = b[size:]
		if err := f(num, data, n); err != nil {
			return err
		}
	}
	return nil
}

func checkFormat(what string, b []byte) ([]byte, error) {
	if len(b) == 0 || len(b) > MaxForwardBytes {
		return nil, fmt.Errorf("%w: %s of %d bytes", fsm.ErrCorrupt, what, len(b))
	}
	if b[0] != codecFormat {
		return nil, fmt.Errorf("%w: %s of format %d", fsm.ErrUnknownType, what, b[0])
	}
	return b[1:], nil
}

func putPair(b []byte, num protowire.Number, name, value string) []byte {
	pair := putString(nil, pairFieldName, name)
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), putString(pair, pairFieldValue, value))
}

func decodePair(b []byte) (f HeaderField, err error) {
	err = eachField(b, func(num protowire.Number, data []byte, _ uint64) error {
		switch num {
		case pairFieldName:
			f.Name = string(data)
		case pairFieldValue:
			f.Value = string(data)
		}
		return nil
	})
	return f, err
}

// EncodeRequest gives the form in which a request travels to the leader.
func EncodeRequest(r *Request) []byte {
	b := append(make([]byte, 0, len(r.Body)+len(r.Path)+len(r.Query)+512), codecFormat)
	b = putBytes(b, reqFieldID, r.ID)
	b = putString(b, reqFieldMethod, r.Method)
	b = putString(b, reqFieldPath, r.Path)
	b = putString(b, reqFieldQuery, r.Query)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		b = putPair(b, reqFieldHeader, name, r.Header[name])
	}
	b = putBytes(b, reqFieldBody, r.Body)
	b = putString(b, reqFieldScheme, r.Scheme)
	b = putString(b, reqFieldHost, r.Host)
	b = putString(b, reqFieldPrefix, r.Prefix)
	b = putString(b, reqFieldClient, r.Client)
	b = putUint(b, reqFieldHop, uint64(r.Hop))
	if r.retry {
		b = putUint(b, reqFieldRetry, 1)
	}
	return b
}

// DecodeRequest reads what EncodeRequest wrote. The result shares no memory
// with b but for the body. fsm.ErrCorrupt or fsm.ErrUnknownType otherwise.
func DecodeRequest(b []byte) (*Request, error) {
	b, err := checkFormat("request", b)
	if err != nil {
		return nil, err
	}
	r := &Request{Header: Header{}}
	text := map[protowire.Number]*string{
		reqFieldMethod: &r.Method, reqFieldPath: &r.Path, reqFieldQuery: &r.Query, reqFieldScheme: &r.Scheme,
		reqFieldHost: &r.Host, reqFieldPrefix: &r.Prefix, reqFieldClient: &r.Client,
	}
	return r, eachField(b, func(num protowire.Number, data []byte, n uint64) error {
		switch num {
		case reqFieldID:
			if len(data) > fsm.MaxRequestIDBytes {
				return fmt.Errorf("%w: request id of %d bytes", fsm.ErrCorrupt, len(data))
			}
			r.ID = append([]byte(nil), data...)
		case reqFieldHeader:
			f, err := decodePair(data)
			if err != nil {
				return err
			}
			r.Header[f.Name] = f.Value
		case reqFieldBody:
			r.Body = data
		case reqFieldHop:
			r.Hop = uint8(min(n, 255))
		case reqFieldRetry:
			r.retry = n != 0
		default:
			if s := text[num]; s != nil {
				*s = string(data)
			}
		}
		return nil
	})
}

// EncodeResponse gives the form in which an answer travels back.
func EncodeResponse(r *Response) []byte {
	b := append(make([]byte, 0, len(r.Body)+256), codecFormat)
	b = putUint(b, respFieldStatus, uint64(r.Status))
	for _, f := range r.Header {
		b = putPair(b, respFieldHeader, f.Name, f.Value)
	}
	b = putBytes(b, respFieldBody, r.Body)
	return putString(putUint(b, respFieldOutcome, uint64(r.outcome)), respFieldUserID, r.UserID)
}

// DecodeResponse reads what EncodeResponse wrote; the body points into b.
// fsm.ErrCorrupt or fsm.ErrUnknownType otherwise.
func DecodeResponse(b []byte) (*Response, error) {
	b, err := checkFormat("answer", b)
	if err != nil {
		return nil, err
	}
	r := &Response{}
	return r, eachField(b, func(num protowire.Number, data []byte, n uint64) error {
		switch num {
		case respFieldStatus:
			r.Status = int(min(n, 999))
		case respFieldHeader:
			f, err := decodePair(data)
			if err != nil {
				return err
			}
			r.Header = append(r.Header, f)
		case respFieldBody:
			r.Body = data
		case respFieldOutcome:
			r.outcome = outcome(min(n, uint64(outcomeUnknown)))
		case respFieldUserID:
			r.UserID = string(data)
		}
		return nil
	})
}

func encodeRange(r opRange) []byte {
	return putUint(putUint(nil, rangeFieldFrom, uint64(r.from)), rangeFieldTo, uint64(r.to))
}

func decodeRange(b []byte) (r opRange, err error) {
	err = eachField(b, func(num protowire.Number, _ []byte, n uint64) error {
		if n > fsm.MaxOps {
			return fmt.Errorf("%w: op %d", fsm.ErrCorrupt, n)
		}
		switch num {
		case rangeFieldFrom:
			r.from = int(n)
		case rangeFieldTo:
			r.to = int(n)
		default:
			return unknown("range", num)
		}
		return nil
	})
	return r, err
}

func unknown(what string, num protowire.Number) error {
	return fmt.Errorf("%w: field %d of a %s", fsm.ErrUnknownType, num, what)
}

// encode gives the outline's form in Txn.Reply.
func (o *outline) encode() []byte { return o.append([]byte{codecFormat}) }

func (o *outline) append(b []byte) []byte {
	b = putUint(b, outFieldStatus, uint64(o.status))
	for _, f := range o.fields {
		b = putPair(b, outFieldHeader, f.Name, f.Value)
	}
	b = putBytes(b, outFieldStamp, encodeRange(o.stamp))
	if o.raised {
		b = putUint(b, outFieldRaised, 1)
	}
	for i := range o.parts {
		b = putBytes(b, outFieldPart, o.parts[i].encode())
	}
	for _, e := range o.batch {
		enc := putString(nil, entryFieldPath, e.path)
		if e.head {
			enc = putUint(enc, entryFieldHead, 1)
		}
		enc = putBytes(enc, entryFieldOut, e.out.append(nil))
		enc = putUint(enc, entryFieldExposed, uint64(e.exposed))
		b = putBytes(b, outFieldEntry, putString(enc, entryFieldOrigin, e.origin))
	}
	return b
}

func (p *part) encode() []byte {
	b := putBytes(nil, partFieldLiteral, p.literal)
	b = putBytes(b, partFieldOps, encodeRange(p.ops))
	if p.time {
		b = putUint(b, partFieldTime, 1)
	}
	if p.stored != nil {
		s := putString(nil, storedFieldPath, string(p.stored.Path))
		s = putUint(s, storedFieldRevision, uint64(p.stored.Revision))
		s = putUint(s, storedFieldLastModified, protowire.EncodeZigZag(int64(p.stored.LastModified)))
		if p.stored.Deleted {
			s = putUint(s, storedFieldDeleted, 1)
		}
		b = putBytes(b, partFieldStored, s)
	}
	return b
}

// decodeOutline reads what encode wrote.
func decodeOutline(b []byte) (*outline, error) {
	b, err := checkFormat("outline", b)
	if err != nil {
		return nil, err
	}
	return decodeOutlineFields(b, 1)
}

func decodeOutlineFields(b []byte, depth int) (*outline, error) {
	if depth > maxOutlineDepth {
		return nil, fmt.Errorf("%w: answers inside answers", fsm.ErrCorrupt)
	}
	o := &outline{}
	return o, eachField(b, func(num protowire.Number, data []byte, n uint64) (err error) {
		switch num {
		case outFieldStatus:
			o.status = int(min(n, 999))
		case outFieldHeader:
			var f HeaderField
			f, err = decodePair(data)
			o.fields = append(o.fields, f)
		case outFieldStamp:
			o.stamp, err = decodeRange(data)
		case outFieldRaised:
			o.raised = n != 0
		case outFieldPart:
			var p part
			p, err = decodePart(data)
			o.parts = append(o.parts, p)
		case outFieldEntry:
			var e entry
			e, err = decodeEntry(data, depth)
			o.batch = append(o.batch, e)
		default:
			err = unknown("outline", num)
		}
		return err
	})
}

func decodeEntry(b []byte, depth int) (e entry, err error) {
	e.out = &outline{}
	err = eachField(b, func(num protowire.Number, data []byte, n uint64) (err error) {
		switch num {
		case entryFieldPath:
			e.path = string(data)
		case entryFieldHead:
			e.head = n != 0
		case entryFieldOut:
			e.out, err = decodeOutlineFields(data, depth+1)
		case entryFieldExposed:
			if n >= uint64(exposures) {
				return unknown("exposure", num)
			}
			e.exposed = exposure(n)
		case entryFieldOrigin:
			e.origin = string(data)
		default:
			err = unknown("entry", num)
		}
		return err
	})
	return e, err
}

func decodePart(b []byte) (p part, err error) {
	err = eachField(b, func(num protowire.Number, data []byte, n uint64) (err error) {
		switch num {
		case partFieldTime:
			p.time = n != 0
		case partFieldLiteral:
			p.literal = data
		case partFieldOps:
			p.ops, err = decodeRange(data)
		case partFieldStored:
			p.stored, err = decodeStored(data)
		default:
			err = unknown("part", num)
		}
		return err
	})
	return p, err
}

func decodeStored(b []byte) (*fsm.Object, error) {
	o := &fsm.Object{}
	return o, eachField(b, func(num protowire.Number, data []byte, n uint64) error {
		switch num {
		case storedFieldPath:
			o.Path = fsm.Path(data)
		case storedFieldRevision:
			o.Revision = fsm.Revision(n)
		case storedFieldLastModified:
			o.LastModified = fsm.Timestamp(protowire.DecodeZigZag(n))
		case storedFieldDeleted:
			o.Deleted = n != 0
		default:
			return unknown("stored object", num)
		}
		return nil
	})
}
