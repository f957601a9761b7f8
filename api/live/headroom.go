package live

// The garbage collector runs when the heap has grown by a multiple of what lives, and
// each run walks the connection and the words of every stream: with thousands it takes
// several times as long, and is felt by those who write meanwhile. So it is to run more rarely
// then: memory that holds nothing, and that the system never has to provide, counts as what
// lives. What it costs is the garbage that lies around for longer.
const (
	headroomBytes   = 4 << 10 // of each stream
	headroomStreams = 1024    // whose share is one piece
)

// weigh keeps the headroom of as many streams as there are. The hub's lock is held.
func (h *Hub) weigh() {
	want := h.size / headroomStreams
	for len(h.headroom) < want {
		h.headroom = append(h.headroom, make([]byte, headroomStreams*headroomBytes))
	}
	for last := len(h.headroom) - 1; last > want; last-- { // one stream that comes and goes changes nothing
		h.headroom[last] = nil
		h.headroom = h.headroom[:last]
	}
}
