package live

import "testing"

func TestHeadroomFollowsStreams(t *testing.T) {
	h := &Hub{}
	for _, c := range []struct{ streams, pieces int }{
		{0, 0}, {headroomStreams - 1, 0}, {headroomStreams, 1}, {headroomStreams - 1, 1}, {headroomStreams, 1},
		{3 * headroomStreams, 3}, {3*headroomStreams - 1, 3}, {headroomStreams, 2}, {0, 1},
	} {
		h.size = c.streams
		if h.weigh(); len(h.headroom) != c.pieces {
			t.Errorf("%d streams: %d pieces, want %d", c.streams, len(h.headroom), c.pieces)
		}
	}
}
