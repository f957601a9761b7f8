package fsm

import (
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
)

// The encodings use protobuf's wire format by hand: fields are numbered, only
// ever appended and never reused; an unknown one is an error, because a node
// that skipped it would differ from those that know it.

var errStop = errors.New("stop")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

func appendString(b []byte, num protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), v)
}

// eachField walks b and gives f the bytes of a length-delimited field or the
// number of a varint. It returns f's error (errStop ends without one).
func eachField(b []byte, f func(num protowire.Number, data []byte, n uint64) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrCorrupt, protowire.ParseError(n))
		}
		b = b[n:]
		var data []byte
		var v uint64
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("%w: wire type %d", ErrUnknownType, typ)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrCorrupt, protowire.ParseError(n))
		}
		b = b[n:]
		if err := f(num, data, v); err != nil {
			if errors.Is(err, errStop) {
				return nil
			}
			return err
		}
	}
	return nil
}

func formatError(what string, v []byte) error {
	if len(v) == 0 {
		return fmt.Errorf("%w: empty %s", ErrCorrupt, what)
	}
	return fmt.Errorf("%w: %s of format %d", ErrUnknownType, what, v[0])
}

func unknownField(what string, num protowire.Number) error {
	return fmt.Errorf("%w: field %d of a %s", ErrUnknownType, num, what)
}
