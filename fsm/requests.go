package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// A remembered request lies under its sequence number: 8 bytes of the clock, by
// which it is forgotten, a byte for the length of the id, the id, the stored
// request. What lies under ids, in no order, is the number alone.
const rememberedHead = 8 + 1

func encodeRemembered(clock Timestamp, id []byte, r *StoredRequest) []byte {
	stored := encodeRequest(r)
	b := binary.BigEndian.AppendUint64(make([]byte, 0, rememberedHead+len(id)+len(stored)), uint64(clock))
	return append(append(append(b, byte(len(id))), id...), stored...)
}

func splitRemembered(v []byte) (clock Timestamp, id, stored []byte, err error) {
	if len(v) < rememberedHead || len(v) < rememberedHead+int(v[8]) {
		return 0, nil, nil, fmt.Errorf("%w: remembered request of %d bytes", ErrCorrupt, len(v))
	}
	clock, v, n := Timestamp(binary.BigEndian.Uint64(v)), v[rememberedHead:], int(v[8])
	return clock, v[:n], v[n:], nil
}

// readRemembered returns the request with a sequence number, nil when it is
// forgotten.
func readRemembered(r getter, number uint64) (*StoredRequest, error) {
	v, found, err := readCopy(r, keyNumber(spaceRequests, number))
	if err != nil || !found {
		return nil, err
	}
	_, _, row, err := splitRemembered(v)
	if err != nil {
		return nil, err
	}
	stored := &StoredRequest{}
	return stored, decodeRequest(row, stored)
}

// readRequest returns what is remembered of an id, nil when nothing is.
func readRequest(r getter, id []byte) (*StoredRequest, error) {
	v, found, err := readCopy(r, key(spaceRequest, string(id)))
	if err != nil || !found {
		return nil, err
	}
	number, err := decodeNumber(v)
	if err != nil {
		return nil, err
	}
	stored, err := readRemembered(r, number)
	if err == nil && stored == nil {
		err = fmt.Errorf("%w: request %d has an id and no row", ErrCorrupt, number)
	}
	return stored, err
}

// Sizes of the filter of request ids: 2 bytes of memory for each id, and of the
// fresh ones less than one in 500 is looked up in vain for each generation.
const (
	seenIDs    = 1 << 18 // ids of one generation
	seenBits   = seenIDs * 16
	seenProbes = 4
)

// seen tells of an id that it is certainly not among the remembered requests,
// without a look into the store, which for a fresh id is a tenth of Apply. It is a
// Bloom filter for each seenIDs of sequence numbers; one goes when the last of
// them is forgotten. It knows the ids from a sequence number on and answers only
// once all before it are forgotten, so a node needs not read them when it starts.
// Of Apply only, which stays the same with and without it.
type seen struct {
	from uint64 // sequence number of the first id that is known
	gens []seenGeneration
}

// seenGeneration has the ids with sequence numbers below end.
type seenGeneration struct {
	end  uint64
	bits []uint64
}

func newSeen(m *meta) *seen { return &seen{from: m.RequestNext} }

// fresh reports that id is not remembered in the state m; false: perhaps it is.
func (s *seen) fresh(m *meta, id []byte) bool {
	if m.RequestFirst < s.from {
		return false
	}
	h := xxhash.Sum64(id)
	for i := range s.gens {
		if s.gens[i].has(h) {
			return false
		}
	}
	return true
}

// add notes the id that gets the sequence number m.RequestNext.
func (s *seen) add(m *meta, id []byte) {
	for len(s.gens) > 0 && s.gens[0].end <= m.RequestFirst {
		s.gens = s.gens[1:]
	}
	if n := len(s.gens); n == 0 || s.gens[n-1].end <= m.RequestNext {
		s.gens = append(s.gens, seenGeneration{m.RequestNext + seenIDs, make([]uint64, seenBits/64)})
	}
	bits, h := s.gens[len(s.gens)-1].bits, xxhash.Sum64(id)
	for i := range uint64(seenProbes) {
		at := probe(h, i)
		bits[at/64] |= 1 << (at % 64)
	}
}

func (g *seenGeneration) has(h uint64) bool {
	for i := range uint64(seenProbes) {
		if at := probe(h, i); g.bits[at/64]&(1<<(at%64)) == 0 {
			return false
		}
	}
	return true
}

// probe is the i-th bit of a hash: its halves make as many hashes as are needed.
func probe(h, i uint64) uint64 { return (h + i*(h>>32|1)) % seenBits }
