package cluster

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"

	"quinto/fsm"
)

// A frame on the rpc channel: length of the payload (4), call type (1), status
// (1), reserved (2), call id (8), deadline in ms from now (4), CRC-32C of all
// that and the payload (4), payload. An answer repeats type and id.
const frameHead = 4 + 1 + 1 + 2 + 8 + 4 + 4

// callType says what a call asks. Numbers are for ever: append, never reuse.
type callType byte

const (
	callForward   callType = 1  // a request for the leader's handler
	callReadIndex callType = 2  // the index the leader has applied, leadership confirmed
	callJoin      callType = 3  // admission of a new node
	callStatus    callType = 4  // how far this node is
	callTerm      callType = 5  // this node's Raft term, now
	callPropose   callType = 6  // a transaction of the administrator's, for the leader
	callSettings  callType = 16 // marks of this node's settings, for the leader to compare
	callMember    callType = 7  // a change of membership or leadership, for the leader
	callMarks     callType = 17 // this node's rolling hashes, to be compared
	callEntries   callType = 18 // committed entries of the log, for the archive
)

// callStatusCode is how a call ended. Numbers are for ever.
type callStatusCode byte

const (
	statusOK         callStatusCode = 0
	statusNotLeader  callStatusCode = 1 // nothing was done
	statusOverloaded callStatusCode = 2 // nothing was done
	statusRefused    callStatusCode = 3 // nothing was done; the payload says why
	statusFailed     callStatusCode = 4 // a read could not be served here
	statusUnknown    callStatusCode = 5 // a call type that the peer does not know
	statusNameTaken  callStatusCode = 6
	statusForeign    callStatusCode = 7
	statusRemoved    callStatusCode = 8  // the caller was removed from the cluster
	statusQuorum     callStatusCode = 9  // refused: no living majority would be left
	statusNoMember   callStatusCode = 10 // refused: nobody has that name
)

type frame struct {
	kind     callType
	status   callStatusCode
	id       uint64
	deadline uint32 // ms; 0 in answers
	payload  []byte
}

func encodeFrame(f *frame) []byte {
	b := make([]byte, frameHead, frameHead+len(f.payload))
	binary.BigEndian.PutUint32(b, uint32(len(f.payload)))
	b[4], b[5] = byte(f.kind), byte(f.status)
	binary.BigEndian.PutUint64(b[8:], f.id)
	binary.BigEndian.PutUint32(b[16:], f.deadline)
	sum := crc32.Update(crc32.Checksum(b[:20], castagnoli), castagnoli, f.payload)
	binary.BigEndian.PutUint32(b[20:], sum)
	return append(b, f.payload...)
}

// readFrame waits without end for the first byte and frameTimeout for the rest.
func readFrame(r *bufio.Reader, conn net.Conn) (*frame, error) {
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	if r.Buffered() < frameHead {
		if err := conn.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
			return nil, err
		}
	}
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxCallBytes {
		return nil, fmt.Errorf("%w: frame of %d bytes", fsm.ErrCorrupt, n)
	}
	if int(n) > r.Buffered() {
		if err := conn.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
			return nil, err
		}
	}
	f := &frame{kind: callType(head[4]), status: callStatusCode(head[5]), payload: make([]byte, n)}
	f.id, f.deadline = binary.BigEndian.Uint64(head[8:]), binary.BigEndian.Uint32(head[16:])
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return nil, err
	}
	sum := crc32.Update(crc32.Checksum(head[:20], castagnoli), castagnoli, f.payload)
	if sum != binary.BigEndian.Uint32(head[20:]) {
		return nil, fmt.Errorf("%w: checksum of a frame", fsm.ErrCorrupt)
	}
	return f, conn.SetReadDeadline(time.Time{})
}

// writeFrames writes what arrives on out until done is closed or a write fails,
// and flushes when nothing more waits: one system call for many frames.
func writeFrames(conn net.Conn, out <-chan []byte, done <-chan struct{}) {
	w := bufio.NewWriterSize(conn, 64<<10)
	for {
		var b []byte
		select {
		case b = <-out:
		case <-done:
			return
		}
		err := conn.SetWriteDeadline(time.Now().Add(frameTimeout))
		for more := true; more && err == nil; {
			if _, err = w.Write(b); err != nil {
				break
			}
			select {
			case b = <-out:
			default:
				more = false
			}
		}
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			_ = conn.Close() // the reader sees it and fails what is pending
			return
		}
	}
}
