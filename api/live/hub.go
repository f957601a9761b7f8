package live

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"quinto/api/resource"
	"quinto/fsm"
)

// Limits of streams that are no settings.
const (
	MaxQueuedFrames     = 4096             // that a client has not read yet, per stream
	MaxQueuedBytes      = 4 << 20          // the same, in bytes; one frame is always taken
	MaxNodeBytes        = 64 << 20         // queued frames of all streams of a node, each frame once
	WriteTimeout        = 10 * time.Second // of a piece of what is written to a client
	pieceBytes          = 128 << 10        // of such a piece
	HeartbeatEvery      = 15 * time.Second
	SilenceTimeout      = 3 * HeartbeatEvery // of a WebSocket whose client answers no ping
	ReauthenticateEvery = 5 * time.Second
	MaxClientBytes      = 4 << 10         // of a frame that a client sends through a WebSocket
	MaxWaits            = 1000            // feeds of a node that wait for a change
	catchUps            = 32              // streams that read the log or a snapshot at the same time
	catchUpTimeout      = 5 * time.Minute // of that, for one stream
	writeBytes          = 32 << 10        // written at once meanwhile
	passEvents          = 256             // handed on at once by the reader
	joinEvents          = 256             // read under the reader's lock when a stream joins
	retryAfter          = 2 * time.Second // that an EventSource is told to wait
	errorPause          = 100 * time.Millisecond
	beatEvery           = 10 * time.Millisecond // some of the streams get a heartbeat: few at once, since a write may come meanwhile
	beats               = int(HeartbeatEvery / beatEvery)
	batchPause          = 10 * time.Millisecond // of the reader, so that what follows a change soon travels together
	addressShare        = 2                     // one address other than loopback may hold 1/addressShare of the streams
)

// State is this node's own state; *fsm.FSM has it.
type State interface {
	// View returns the state as the node has it. The caller closes it.
	View() (*fsm.View, error)
	// Changed is closed as soon as the revision is above after.
	Changed(after fsm.Revision) <-chan struct{}
}

// Service decides what may be seen; *resource.Service is one.
type Service interface {
	// Watch decides who may watch what a GET shows; the caller closes the view.
	Watch(ctx context.Context, r *resource.Request, user string, since fsm.Revision) (*resource.Watch, *fsm.View, *resource.Response)
	// Item prepares a change for watches.
	Item(v *fsm.View, e *fsm.Event) *resource.Item
	// Watches reports whether the changes of what a path shows can be watched.
	Watches(path string) bool
	// SharedHeader are the headers of CORS.
	SharedHeader(r *resource.Request) []resource.HeaderField
	// ClaimTicket uses a ticket and returns whom it stands for.
	ClaimTicket(ctx context.Context, r *resource.Request, ticket string) (user string, refusal *resource.Response)
}

// Options of a Hub. Service and State are needed.
type Options struct {
	Service Service
	State   State
	// Streams bounds the streams of the node, PerUser those of one user.
	Streams, PerUser int
	Log              hclog.Logger
}

// Hub has the streams of one node.
type Hub struct {
	o    Options
	log  hclog.Logger
	base context.Context

	cancel  context.CancelFunc
	wg      sync.WaitGroup
	wake    chan struct{} // of size 1: there is a first stream
	pulse   chan int      // the same, for heartbeats: its beat
	catchUp chan struct{} // places to read the log in
	waits   chan struct{} // places of feeds
	queued  atomic.Int64  // bytes of frames that are not written yet

	mu     sync.Mutex
	closed bool
	at     fsm.Revision // the reader has handed on everything up to it
	mark   string
	topics map[fsm.Path]map[*Stream]struct{}
	users  map[string]map[*Stream]struct{}
	beat   [beats]map[*Stream]struct{}
	next   int // beat of the next stream
	size   int // streams and waits that have joined

	places places

	poll    *poller // nil: each stream has a goroutine that waits for its client
	polling sync.WaitGroup

	headroom [][]byte // see weigh
}

// New makes a Hub and starts its reader; Close ends it.
func New(o Options) *Hub {
	h := &Hub{o: o, log: o.Log, wake: make(chan struct{}, 1), pulse: make(chan int, 1), poll: newPoller(), catchUp: make(chan struct{}, catchUps), waits: make(chan struct{}, MaxWaits),
		topics: map[fsm.Path]map[*Stream]struct{}{}, users: map[string]map[*Stream]struct{}{}}
	h.places = places{most: o.Streams, perUser: o.PerUser, by: map[string]int{}}
	if h.log == nil {
		h.log = hclog.NewNullLogger()
	}
	h.base, h.cancel = context.WithCancel(context.Background())
	h.wg.Go(h.read)
	h.wg.Go(h.tick)
	if h.poll != nil {
		h.polling.Go(func() { h.poll.run(func(st *Stream) { go st.heard() }) }) // ends when the client has said what it was about to
	}
	return h
}

// Close ends all streams: each client is told when to come again. It returns when
// they have ended or ctx does.
func (h *Hub) Close(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	h.all(func(st *Stream) { st.end(ending{reason: "shutdown"}) })
	h.mu.Unlock()
	h.cancel()
	done := make(chan struct{})
	go func() {
		h.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		h.mu.Lock()
		h.all(func(st *Stream) { st.cut() })
		h.mu.Unlock()
		<-done
	}
	if h.poll != nil {
		h.poll.close()
		h.polling.Wait()
	}
}

// Streams returns how many streams the node has.
func (h *Hub) Streams() int { return h.places.taken() }

// all calls f for every stream that has joined. The lock is held.
func (h *Hub) all(f func(*Stream)) {
	for _, set := range h.topics {
		for st := range set {
			f(st)
		}
	}
}

// read is the reader.
func (h *Hub) read() {
	for h.base.Err() == nil {
		h.mu.Lock()
		idle, at := h.size == 0, h.at
		h.mu.Unlock()
		changed := h.wake
		if !idle {
			select {
			case <-h.o.State.Changed(at):
			case <-h.wake:
			case <-time.After(time.Second): // a state that went back does not change upwards
			case <-h.base.Done():
			}
			if err := h.pass(); err != nil && h.base.Err() == nil {
				h.log.Debug("streams wait for the state", "error", err)
				h.pause(errorPause)
			} else {
				h.pause(batchPause)
			}
			continue
		}
		select {
		case <-changed:
		case <-h.base.Done():
		}
	}
}

func (h *Hub) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-h.base.Done():
	}
}

// pass hands on what there is.
func (h *Hub) pass() error {
	v, err := h.o.State.View()
	if err != nil {
		return err
	}
	defer v.Close()
	for h.base.Err() == nil {
		h.mu.Lock()
		more, err := h.some(v)
		h.mu.Unlock()
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// some hands on a bounded number of events. The lock is held.
func (h *Hub) some(v *fsm.View) (more bool, err error) {
	mark := historyMark(v.ClusterID())
	if h.size == 0 {
		return false, nil
	}
	if h.mark != mark || v.Revision() < h.at {
		h.mark = mark
		h.restart(v, "restored")
		return false, nil
	}
	n, to := 0, v.Revision()
	err = v.Events(h.at, func(e *fsm.Event) bool {
		if n++; n > passEvents {
			more, to = true, e.Revision-1
			return false
		}
		h.event(v, e)
		return true
	})
	if errors.Is(err, fsm.ErrTrimmed) {
		h.restart(v, "trimmed")
		return false, nil
	}
	if err == nil {
		h.at = max(h.at, to)
	}
	return more, err
}

// restart tells every client to read again what it watches.
func (h *Hub) restart(v *fsm.View, reason string) {
	h.at = v.Revision()
	h.all(func(st *Stream) { st.reset(v, reason) })
}

// event hands one change to those whom it concerns.
func (h *Hub) event(v *fsm.View, e *fsm.Event) {
	h.at = e.Revision
	if e.Action == fsm.ActionFlush {
		h.all(func(st *Stream) { st.reset(v, "flushed") })
		h.recheck(v, "")
		return
	}
	o := &offer{Item: h.o.Service.Item(v, e), hub: h, view: v}
	if strings.HasPrefix(string(e.Path), "/buckets/") && e.Path.List().ID() == "groups" && e.Path.Depth() < recordDepth {
		h.regroup(v, o) // before anybody is shown the group that he is no longer in
	}
	o.to(h.topics[e.Path.List()])
	for p := e.Path; p != ""; p = p.Parent() {
		o.to(h.topics[p])
	}
	o.to(h.topics[""])
	if e.Path.Depth() < recordDepth {
		h.control(v, o)
	}
}

// recordDepth is that of records, which give nobody permissions on others.
const recordDepth = 6

// control decides again what an object above others may have changed.
func (h *Hub) control(v *fsm.View, o *offer) {
	e := o.Event
	switch plural := e.Path.List().ID(); {
	case !strings.HasPrefix(string(e.Path), "/buckets/"):
		h.of(e.Path.ID(), func(st *Stream) { st.end(ending{reason: "credentials", status: 401}) })
	case plural == "groups":
	case string(e.OldACL) != string(e.NewACL) || e.Action != fsm.ActionUpdate:
		if e.Action == fsm.ActionDeleteTree { // made anew since, a GET would be allowed
			for scope, set := range h.topics {
				for st := range set {
					if scope.Under(e.Path) {
						st.reset(v, "deleted")
					}
				}
			}
		}
		h.recheck(v, e.Path)
		for p := e.Path; ; p = p.Parent() {
			for st := range h.topics[p] {
				if st.watch.Narrow() && e.OldRevision != 0 && st.watch.Regrants(e) {
					st.reset(v, "permissions")
				}
			}
			if p == "" {
				break
			}
		}
	}
}

// regroup decides again for those whom a group had or has.
func (h *Hub) regroup(v *fsm.View, o *offer) {
	members := map[string]bool{}
	old, err := o.Old()
	if err == nil && old != nil {
		for _, m := range old.Members {
			members[m] = true
		}
	}
	now, failed := o.New()
	if failed == nil && now != nil {
		for _, m := range now.Members {
			members[m] = true
		}
	}
	unknown := err != nil || failed != nil || old == nil && o.Event.OldRevision != 0
	if unknown || members[resource.Authenticated] || members[resource.Everyone] {
		h.recheck(v, "")
		return
	}
	for user := range members {
		for st := range h.users[user] {
			st.recheck(v)
		}
	}
}

// of calls f for the streams of users of this name, of whatever policy.
func (h *Hub) of(name string, f func(*Stream)) {
	for user, set := range h.users {
		if _, id, ok := strings.Cut(user, ":"); ok && id == name {
			for st := range set {
				f(st)
			}
		}
	}
}

// recheck decides again for all streams at a path or below it; of everything when
// it is empty.
func (h *Hub) recheck(v *fsm.View, p fsm.Path) {
	for scope, set := range h.topics {
		if p == "" || scope == p || scope.Under(p) {
			for st := range set {
				st.recheck(v)
			}
		}
	}
}

// tick sends heartbeats and asks again about credentials that may have expired.
func (h *Hub) tick() {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for n := 0; h.base.Err() == nil; n++ {
		if !h.beatOf(n%beats, time.Now()) {
			select {
			case n = <-h.pulse: // its turn was just now
			case <-h.base.Done():
			}
		}
		if n%int(ReauthenticateEvery/beatEvery) == 0 {
			h.reauthenticate()
		}
		select {
		case <-beat.C:
		case <-h.base.Done():
		}
	}
}

// beatOf sends the heartbeat of some of the streams, and closes those whose client
// has not answered the last ones. It reports whether there are any streams.
func (h *Hub) beatOf(n int, now time.Time) bool {
	var silent []*Stream
	h.mu.Lock()
	if some := h.beat[n]; len(some) > 0 {
		sse, ws := heartbeat(h.id(h.at))
		for st := range some {
			if st.socket && now.Sub(time.Unix(0, st.lastHeard.Load())) > SilenceTimeout-HeartbeatEvery/2 {
				silent = append(silent, st)
				continue
			}
			st.send(st.choose(sse, ws))
		}
	}
	size := h.size
	h.mu.Unlock()
	for _, st := range silent {
		st.close()
	}
	return size > 0
}

// reauthenticate ends the streams whose credentials no longer hold. Those of
// accounts and of Basic credentials hold until an event says otherwise.
func (h *Hub) reauthenticate() {
	var some []*Stream
	h.mu.Lock()
	for user, set := range h.users {
		if policy, _, _ := strings.Cut(user, ":"); policy != "basicauth" && policy != "account" {
			for st := range set {
				some = append(some, st)
			}
		}
	}
	h.mu.Unlock()
	for _, st := range some {
		v, err := h.o.State.View()
		if err != nil {
			return
		}
		same, err := st.watch.Reauthenticate(h.base, v, st.user)
		v.Close()
		if err == nil && !same {
			h.mu.Lock()
			st.end(ending{reason: "credentials", status: 401})
			h.mu.Unlock()
		}
	}
}

// id is the event id of a revision.
func (h *Hub) id(r fsm.Revision) string { return EventID(r, h.mark) }

// EventID is the id of an event: its revision, and a mark of the cluster whose
// history it belongs to.
func EventID(r fsm.Revision, mark string) string {
	return strconv.FormatUint(uint64(r), 10) + "-" + mark
}

// historyMark tells histories apart that have equal revisions: a cluster that was
// restored from a backup has another id.
func historyMark(cluster string) string {
	sum := sha256.Sum256([]byte(cluster))
	return hex.EncodeToString(sum[:4])
}

// HistoryMark is the mark in the event ids of a state's cluster.
func HistoryMark(v *fsm.View) string { return historyMark(v.ClusterID()) }

// ErrBadID is returned for what is no event id.
var ErrBadID = errors.New("live: not an event id")

// ParseID reads an event id, or a bare revision, which has no mark. ErrBadID
// otherwise.
func ParseID(text string) (r fsm.Revision, mark string, err error) {
	digits, mark, _ := strings.Cut(text, "-")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, "", fmt.Errorf("%w: %q", ErrBadID, text)
	}
	return fsm.Revision(n), mark, nil
}

// places bounds streams, in all, by user, and by address.
type places struct {
	most, perUser int

	mu  sync.Mutex
	all int
	by  map[string]int
}

// take returns what frees the place again, or, without one, why.
func (p *places) take(user, address string) (free func(), why string) {
	key, most := "user "+user, p.perUser
	switch {
	case user != "":
	case address == "":
		key, most = "", p.most // of this machine
	default:
		key, most = "address "+address, max(p.most/addressShare, 1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.all >= p.most:
		return nil, fmt.Sprintf("This node has %d streams, which is the most.", p.all)
	case p.by[key] >= most:
		return nil, fmt.Sprintf("There are %d streams of this user or address on the node, which is the most.", p.by[key])
	}
	p.all++
	p.by[key]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.by[key]--; p.by[key] <= 0 {
			delete(p.by, key)
		}
	}), ""
}

func (p *places) taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}
