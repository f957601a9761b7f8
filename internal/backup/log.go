package backup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// LogEntry is one entry of the log in an archive of KindLog. Entries are
//
//	index[8] term[8] time[8] length[4] bytes
//
// one behind the other; only commands are in it, so indexes rise with gaps.
type LogEntry struct {
	Index, Term uint64
	Time        int64 // of the newest write in it, ms
	Data        []byte
}

const (
	logEntryHead = 28
	// maxLogEntry bounds one entry: a transaction of 4 MiB with what surrounds it.
	maxLogEntry = 16 << 20
)

// AppendLogEntry appends the encoding of e.
func AppendLogEntry(b []byte, e *LogEntry) []byte {
	b = binary.BigEndian.AppendUint64(b, e.Index)
	b = binary.BigEndian.AppendUint64(b, e.Term)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Data)))
	return append(b, e.Data...)
}

// ReadLog calls f for each entry of the content of a; Data is f's to keep.
func ReadLog(a *Reader, f func(*LogEntry) error) error {
	var last uint64
	head := make([]byte, logEntryHead)
	for {
		if _, err := io.ReadFull(a, head); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		e := LogEntry{Index: binary.BigEndian.Uint64(head), Term: binary.BigEndian.Uint64(head[8:]), Time: int64(binary.BigEndian.Uint64(head[16:]))}
		size := binary.BigEndian.Uint32(head[24:])
		if e.Index <= last || e.Index < a.Head.First || e.Index > a.Head.Index || size > maxLogEntry {
			return fmt.Errorf("%w: entry %d of %d bytes behind entry %d", ErrDamaged, e.Index, size, last)
		}
		last = e.Index
		e.Data = make([]byte, size)
		if _, err := io.ReadFull(a, e.Data); err != nil {
			return err
		}
		if err := f(&e); err != nil {
			return err
		}
	}
}
