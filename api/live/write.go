package live

import (
	"time"
)

// event makes the bytes of an event for the client.
func (st *Stream) event(name, id string, data []byte) []byte {
	if st.socket {
		return text(name, id, data)
	}
	return sse(name, id, data)
}

func (st *Stream) choose(forSSE, forWS *frame) *frame {
	if st.socket {
		return forWS
	}
	return forSSE
}

// send queues a frame. A client that has not read what came before is dropped when
// that is too much.
func (st *Stream) send(f *frame) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ending {
		return
	}
	waiting := len(st.queue) > 0
	if waiting && (len(st.queue) >= MaxQueuedFrames || st.bytes+len(f.b) > MaxQueuedBytes || st.hub.queued.Load() > MaxNodeBytes) {
		for _, old := range st.queue {
			st.hub.release(old)
		}
		st.queue, st.bytes = nil, 0
		st.finish(ending{reason: "slow"})
		return
	}
	st.push(f)
}

// push adds to the queue and sees to it that somebody writes it.
func (st *Stream) push(f *frame) {
	if f.left.Add(1) == 1 {
		st.hub.queued.Add(int64(len(f.b)))
	}
	st.queue = append(st.queue, f)
	st.bytes += len(f.b)
	if !st.busy {
		st.busy = true
		go st.drain() // ends by WriteTimeout at the latest
	}
}

func (h *Hub) release(f *frame) {
	if f.left.Add(-1) == 0 {
		h.queued.Add(int64(-len(f.b)))
	}
}

// take empties the queue.
func (st *Stream) take() []*frame {
	st.mu.Lock()
	defer st.mu.Unlock()
	queue := st.queue
	st.queue, st.bytes = nil, 0
	return queue
}

// drain writes the queue until it is empty.
func (st *Stream) drain() {
	for {
		st.writing.Lock()
		queue := st.take()
		err := st.write(queue)
		st.writing.Unlock()
		for _, f := range queue {
			st.hub.release(f)
		}
		st.mu.Lock()
		if err == nil && len(st.queue) > 0 {
			st.mu.Unlock()
			continue
		}
		st.busy = false
		last := st.ending || err != nil
		st.mu.Unlock()
		if last {
			st.close()
		}
		return
	}
}

func (st *Stream) write(queue []*frame) error {
	if len(queue) == 0 {
		return nil
	}
	b := queue[0].b
	if len(queue) > 1 {
		b = make([]byte, 0, 4*len(b))
		for _, f := range queue {
			b = append(b, f.b...)
		}
	}
	return st.put(b)
}

// put writes b, each piece within its time.
func (st *Stream) put(b []byte) error {
	for len(b) > 0 {
		piece := b[:min(len(b), pieceBytes)]
		if err := st.conn.SetWriteDeadline(time.Now().Add(WriteTimeout)); err != nil {
			return err
		}
		if _, err := st.conn.Write(piece); err != nil {
			return err
		}
		b = b[len(piece):]
	}
	return nil
}
