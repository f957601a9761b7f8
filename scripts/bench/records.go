package main

import (
	"crypto/md5"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
)

// recordBytes is about the size of one record's JSON.
const recordBytes = 300

// recordID is the id of the i-th seeded record, spread over the key space as random UUIDs are.
func recordID(i int) string {
	sum := md5.Sum(strconv.AppendInt(nil, int64(i), 10))
	var id [36]byte
	hex.Encode(id[:], sum[:4])
	id[8] = '-'
	hex.Encode(id[9:], sum[4:6])
	id[13] = '-'
	hex.Encode(id[14:], sum[6:8])
	id[18] = '-'
	hex.Encode(id[19:], sum[8:10])
	id[23] = '-'
	hex.Encode(id[24:], sum[10:])
	id[14], id[19] = '4', '8' // version and variant of a UUID
	return string(id[:])
}

// appendRecord appends the data of the i-th record: a JSON object of recordBytes, always the same for the same i, of
// text that does not compress as repeated text would. It has no character that COPY of PostgreSQL would escape.
func appendRecord(to []byte, i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	start := len(to)
	to = append(to, `{"title":"`...)
	to = appendWords(to, r, 24)
	to = append(to, `","rank":`...)
	to = strconv.AppendInt(to, int64(i), 10)
	to = append(to, `,"score":`...)
	to = strconv.AppendFloat(to, float64(r.IntN(100_000))/100, 'f', 2, 64)
	to = append(to, `,"done":`...)
	to = strconv.AppendBool(to, r.IntN(2) == 0)
	to = append(to, `,"tags":["`...)
	to = appendWords(to, r, 6)
	to = append(to, `","`...)
	to = appendWords(to, r, 6)
	to = append(to, `"],"body":"`...)
	to = appendWords(to, r, recordBytes-2-(len(to)-start))
	return append(to, `"}`...)
}

// appendWords appends n bytes of words of small letters.
func appendWords(to []byte, r *rand.Rand, n int) []byte {
	word := 0
	for i := range n {
		if word == 0 && i > 0 && i < n-1 {
			to = append(to, ' ')
			word = 2 + r.IntN(8)
			continue
		}
		word = max(0, word-1)
		to = append(to, byte('a'+r.IntN(26)))
	}
	return to
}
