package fsm

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
)

// TestHistoryDoesNotDoubleTheStore writes 10,000 records of 1 KB, edits each twice,
// and compares the store with and without a history of it, as long as the events
// are kept and after they are trimmed. Then the history is what still keeps the two
// older bodies of each record, and nothing of them is there twice.
func TestHistoryDoesNotDoubleTheStore(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 160 MB")
	}
	const records, edits, body = 10_000, 3, 1000
	var size [2][2]float64 // [history][trimmed] MB
	for history := range 2 {
		n := openNodeWith(t, vfs.NewMem(), 8<<20)
		r := rand.New(rand.NewSource(1))
		for edit := range edits {
			for i := 0; i < records; i += 100 {
				var txns []Txn
				for j := i; j < i+100; j++ {
					txns = append(txns, sizedWrite(r, edit, j, body, history == 1))
				}
				n.apply(txns...)
			}
		}
		size[history][0] = compacted(t, n)
		n.apply(Txn{Now: 1 << 41, Ops: []Op{{Type: OpTrimEvents, Revision: n.Revision()}}})
		size[history][1] = compacted(t, n)
		if got, want := n.rows(spaceVersion), history*records*(edits-1); got != want {
			t.Errorf("history %d: %d versions after trimming, want %d", history, got, want)
		}
		_ = n.st.Close()
	}
	entries, raw := float64(records*edits), float64(records*body)/1e6
	t.Logf("MB with events: %.1f without history, %.1f with it (%.0f bytes per entry); after trimming: %.1f and %.1f; one body of each record: %.1f",
		size[0][0], size[1][0], (size[1][0]-size[0][0])*1e6/entries, size[0][1], size[1][1], raw)
	if size[1][0] > 1.2*size[0][0] {
		t.Errorf("with events, a history makes %.1f MB of %.1f", size[1][0], size[0][0])
	}
	// Kinto keeps the object and a copy in each entry: four bodies. Here each is kept once.
	if size[1][1] > 1.2*edits*size[0][1] {
		t.Errorf("after trimming, %.1f MB for %d states of the records, one of which takes %.1f", size[1][1], edits, size[0][1])
	}
}

// sizedWrite is one write of a record with data that does not compress, and its entry
// as plugins/history makes it.
func sizedWrite(r *rand.Rand, edit, i, body int, history bool) Txn {
	data := make([]byte, body)
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	for k := range data {
		data[k] = letters[r.Intn(len(letters))]
	}
	user := "basicauth:" + strings.Repeat("6dbcb948dceff993", 4)
	acl := map[string][]string{"write": {user}}
	b := Path("/buckets/b")
	op := Op{Type: OpPut, Path: b.Child("collections").Child("c").Child("records").Child(fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)),
		Data: fmt.Appendf(nil, `{"text":"%s"}`, data), ACL: NewACL(acl), Inherited: []string{user}}
	t := Txn{Now: Timestamp(1_795_000_000_000 + edit*100_000 + i), UserID: user, Ops: []Op{op}}
	if history {
		t.Ops = append(t.Ops, Op{Type: OpPutEntry, Path: b.Child("history").Child(uuid.NewString()), Target: op.Path,
			Data: fmt.Appendf(nil, `{"action":"update","date":%d,"user_id":"%s"}`, t.Now, user), ACL: NewACL(map[string][]string{"read": {user}})})
	}
	return t
}

// compacted is the size of the store with nothing in it that is gone, in MB.
func compacted(t *testing.T, n *node) float64 {
	t.Helper()
	h := n.st.Acquire()
	defer h.Release()
	if err := h.DB().Flush(); err != nil {
		t.Fatal(err)
	}
	if err := h.DB().Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	return float64(h.DB().Metrics().Total().TablesSize) / 1e6
}
