package live

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"quinto/api/resource"
	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a state without a cluster, and what the service asks of one.
type node struct {
	resource.Node // nothing else is asked
	*fsm.FSM
	t     testing.TB
	mu    sync.Mutex
	index uint64
}

// View implements resource.Node.
func (n *node) View(context.Context, fsm.Freshness) (*fsm.View, error) { return n.FSM.View() }

// Now implements resource.Node.
func (n *node) Now() fsm.Timestamp { return fsm.Timestamp(time.Now().UnixMilli()) }

// state is what the hub sees.
type state struct{ n *node }

func (s state) View() (*fsm.View, error)                   { return s.n.FSM.View() }
func (s state) Changed(after fsm.Revision) <-chan struct{} { return s.n.Changed(after) }

func (n *node) write(ops ...fsm.Op) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.index++
	txn := fsm.EncodeTxn(&fsm.Txn{Now: n.Now(), Ops: ops})
	out := n.ApplyBatch([]*raft.Log{{Index: n.index, Term: 1, Type: raft.LogCommand, Data: fsm.EncodeGroup("cluster", [][]byte{txn})}})
	if err, bad := out[0].(error); bad {
		n.t.Error(err)
	}
}

const list = "/buckets/b/collections/c/records"

func put(p, data string) fsm.Op {
	return fsm.Op{Type: fsm.OpPut, Path: fsm.Path(p), Data: []byte(data)}
}

// begin makes a node with a collection that everybody reads, and its hub.
func begin(t *testing.T) (*node, *Hub) {
	t.Helper()
	st, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := fsm.Open(st)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{FSM: f, t: t}
	c, err := config.Load(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	service, err := resource.New(resource.Options{Config: c, Node: n})
	if err != nil {
		t.Fatal(err)
	}
	bucket := put("/buckets/b", "{}")
	bucket.ACL = fsm.NewACL(map[string][]string{"read": {resource.Everyone}})
	n.write(bucket, put("/buckets/b/collections/c", "{}"))
	h := New(Options{Service: service, State: state{n}, Streams: 1000, PerUser: 1000})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		h.Close(ctx)
		_ = st.Close()
	})
	return n, h
}

// pair is a connection over loopback, which has buffers as a real one.
func pair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	// Little of what is written lies between the two.
	if err := errors.Join(server.(*net.TCPConn).SetWriteBuffer(32<<10), client.(*net.TCPConn).SetReadBuffer(32<<10)); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// open starts a stream of the list.
func open(t *testing.T, h *Hub, id string, snapshot bool) net.Conn {
	t.Helper()
	r := &Request{Request: &resource.Request{Method: "GET", Path: list, Header: resource.Header{}, Client: "127.0.0.1"}, Snapshot: snapshot}
	if id != "" {
		var err error
		if r.Since, r.Mark, err = ParseID(id); err != nil {
			t.Fatal(err)
		}
		r.Resumes = true
	}
	stream, refusal := h.Open(t.Context(), r)
	if refusal != nil {
		t.Fatalf("%d %s", refusal.Status, refusal.Body)
	}
	server, client := pair(t)
	stream.Start(server, nil)
	return client
}

// got is one event of a stream.
type got struct {
	name, id string
	data     struct {
		Revision fsm.Revision
		Reason   string
		Count    int
		Action   string
		Data     struct{ ID string }
	}
}

// scan calls f for the events of c but heartbeats, until it returns false; it
// reports whether c ended before.
func scan(t testing.TB, c net.Conn, f func(*got) bool) (ended bool) {
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, 16<<20)
	e := &got{}
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				t.Errorf("%.200s: %v", value, err)
			}
		case "":
			if e.name != "" && e.name != eventBeat && !f(e) {
				return false
			}
			e = &got{}
		}
	}
	return true
}

// Streams that come, go and come back while others write see every change once, in
// order, from where they stopped.
func TestNothingIsLeftOutAndNothingComesTwice(t *testing.T) {
	n, h := begin(t)
	const clients, rounds, last = 12, 6, "/buckets/b/collections/c/records/last"
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	writers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				n.write(put(last, "{}"))
				return
			default:
				n.write(put(fmt.Sprintf("%s/r%d", list, i%50), `{"n":1}`), put(fmt.Sprintf("/buckets/other/collections/c/records/r%d", i%50), `{}`))
			}
		}
	})
	seen := make([][]fsm.Revision, clients)
	var left sync.WaitGroup
	left.Add(clients)
	for client := range clients {
		readers.Go(func() {
			id, done := "", false
			for round := 0; !done; round++ {
				c := open(t, h, id, false)
				most := 1 + rand.IntN(200)
				scan(t, c, func(e *got) bool {
					if e.id != "" {
						id = e.id
					}
					if e.name == eventReset {
						t.Errorf("reset: %+v", e)
						done = true
					}
					if e.name == eventChange {
						seen[client] = append(seen[client], e.data.Revision)
						done = e.data.Data.ID == "last"
						most--
					}
					return !done && (most > 0 || round >= rounds)
				})
				if round == rounds-1 {
					left.Done()
				}
				_ = c.Close()
			}
		})
	}
	left.Wait()
	close(stop)
	writers.Wait()
	readers.Wait()
	v, err := n.FSM.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var all []fsm.Revision
	if err := v.Events(0, func(e *fsm.Event) bool {
		if e.Path.List() == list {
			all = append(all, e.Revision)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for client, got := range seen {
		at, found := slices.BinarySearch(all, got[0])
		if !found || !slices.Equal(all[at:], got) {
			t.Errorf("client %d got %d changes, of %d from its first on", client, len(got), len(all)-at)
		}
	}
}

// A client that was away for longer than events are kept is told, and gets a snapshot.
func TestTrimmedPointIsAReset(t *testing.T) {
	n, h := begin(t)
	for i := range 10 {
		n.write(put(fmt.Sprintf("%s/r%d", list, i), "{}"))
	}
	n.write(fsm.Op{Type: fsm.OpTrimEvents, Revision: 8})
	var names []string
	scan(t, open(t, h, "3", true), func(e *got) bool {
		if names = append(names, e.name); e.name == eventReset && e.data.Reason != "trimmed" {
			t.Errorf("%+v", e)
		}
		return e.name != eventReady
	})
	if len(names) != 12 || names[0] != eventReset {
		t.Errorf("%v", names)
	}
	scan(t, open(t, h, "8", false), func(e *got) bool {
		if e.name != eventStart {
			t.Errorf("the last point that is kept: %+v", e)
		}
		return false
	})
}

// A client that does not read is dropped, with the reason; another one gets all.
func TestSlowClientIsDropped(t *testing.T) {
	n, h := begin(t)
	slow, quick := open(t, h, "", false), open(t, h, "", false)
	scan(t, slow, func(*got) bool { return false })
	const size = 256 << 10
	const records = 2 * MaxQueuedBytes / size
	text := `{"text":"` + strings.Repeat("x", size) + `"}`
	next := 0
	scan(t, quick, func(e *got) bool { // each is written when the one before it has come
		if next++; next <= records {
			n.write(put(fmt.Sprintf("%s/r%d", list, next), text))
		}
		return next <= records
	})
	if next != records+1 {
		t.Errorf("the other client got %d of %d", next-1, records)
	}
	reason := ""
	if ended := scan(t, slow, func(e *got) bool {
		if e.name == eventEnd {
			reason = e.data.Reason
		}
		return true
	}); !ended || reason != "slow" {
		t.Errorf("ended %v, reason %q", ended, reason)
	}
	// A frame is counted until its write has ended, which a client may be ahead of.
	eventually(t, "bytes are still counted", func() bool { return h.queued.Load() == 0 })
}

func TestPlaces(t *testing.T) {
	p := places{most: 4, perUser: 2, by: map[string]int{}}
	var free []func()
	take := func(user, address string) bool {
		f, why := p.take(user, address)
		if f == nil && why == "" {
			t.Error("refused without a reason")
		}
		if f != nil {
			free = append(free, f)
		}
		return f != nil
	}
	for i, c := range []struct {
		user, address string
		want          bool
	}{{"a", "", true}, {"a", "", true}, {"a", "", false}, {"", "10.0.0.1", true}, {"b", "", true}, {"c", "", false}} {
		if got := take(c.user, c.address); got != c.want {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
	for _, f := range free {
		f()
		f() // again is nothing
	}
	if p.taken() != 0 || len(p.by) != 0 {
		t.Errorf("%d places, %v", p.taken(), p.by)
	}
}

func TestParseID(t *testing.T) {
	for text, want := range map[string]string{"12-ab": "12 ab", "12": "12 ", "": "", "x": "", "-1": "", "1x-2": "", "18446744073709551616": ""} {
		r, mark, err := ParseID(text)
		got := fmt.Sprint(r, " ", mark)
		if err != nil {
			got = ""
		}
		if got != want || err != nil && !errors.Is(err, ErrBadID) {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}
