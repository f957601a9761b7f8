package cluster

import (
	"encoding/binary"
	"fmt"

	"quinto/fsm"
)

// The encoding of everything that nodes tell each other besides Raft: fields in
// a fixed order, numbers as uvarints, strings and bytes with their length. New
// fields are appended; a reader that meets the end takes the rest as zero, one
// that knows fewer fields ignores what follows, so neighbouring versions
// understand each other.

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// decoder reads fields; the first fault sticks in err and makes the rest zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uint() uint64 {
	if d.err != nil || len(d.b) == 0 {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.err = fmt.Errorf("%w: a number between nodes", fsm.ErrCorrupt)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bool() bool { return d.uint() != 0 }

// bytes returns a slice of the input.
func (d *decoder) bytes() []byte {
	n := d.uint()
	if d.err != nil || n == 0 {
		return nil
	}
	if n > uint64(len(d.b)) {
		d.err = fmt.Errorf("%w: a field between nodes", fsm.ErrCorrupt)
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }
