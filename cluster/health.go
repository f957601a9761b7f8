package cluster

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"quinto/fsm"
	"quinto/fsm/store"
)

const (
	watchTick = 100 * time.Millisecond
	// The store tries a failed flush hundreds of times a second; this long
	// without another failure means that it got through.
	storeHealed = 5 * time.Second
	// handOverPause keeps a cluster of full disks from passing leadership round.
	handOverPause = 30 * time.Second
)

// StoreEvents takes the store's events to the node: give On to
// store.Options.OnEvent and the StoreEvents to Config.Events. The zero value is
// ready. It only notes what happened: it is called with locks held.
type StoreEvents struct {
	last    atomic.Int64 // unix nanoseconds of the last background error; 0: none
	stalled atomic.Int64 // since when writes stall; 0: they do not
	lastErr atomic.Pointer[error]
	fatal   atomic.Pointer[error]
}

// On notes an event. It may be called from any goroutine and never blocks.
func (e *StoreEvents) On(ev store.Event) {
	switch ev.Kind {
	case store.EventBackgroundError:
		e.lastErr.Store(&ev.Err)
		e.last.Store(time.Now().UnixNano())
	case store.EventWriteStallBegin:
		e.stalled.CompareAndSwap(0, time.Now().UnixNano())
	case store.EventWriteStallEnd:
		e.stalled.Store(0)
	case store.EventCorruption, store.EventFatal:
		e.fatal.CompareAndSwap(nil, &ev.Err)
	}
}

// trouble returns why writes should be refused for now, or nil.
func (e *StoreEvents) trouble() error {
	at := e.last.Load()
	if at == 0 || time.Since(time.Unix(0, at)) > storeHealed {
		return nil
	}
	return fmt.Errorf("%w: %w", fsm.ErrNoSpace, *e.lastErr.Load())
}

func (e *StoreEvents) broken() error {
	if p := e.fatal.Load(); p != nil {
		return fmt.Errorf("%w: %w", fsm.ErrHalted, *p)
	}
	return nil
}

// health is what the watchdog found out.
type health struct {
	mu      sync.Mutex
	refusal error // why writes are refused
	stalled error // why the node has cut its connections, until it recovers
	fatal   error // why the node is out of service for good
	failed  chan struct{}
}

func newHealth() *health { return &health{failed: make(chan struct{})} }

func (h *health) writes() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refusal
}

// fault returns why the node is out of service, or nil.
func (h *health) fault() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.fatal, h.stalled)
}

func (h *health) out() bool { return h.fault() != nil }

// fail takes the node out of service for good; the first reason counts.
func (h *health) fail(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fatal != nil {
		return false
	}
	h.fatal = err
	close(h.failed)
	return true
}

func (h *health) set(refusal, stalled error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refusal, h.stalled = refusal, stalled
}

// Failed is closed when this node is out of service for good; Err says why. The
// process should end then.
func (n *Node) Failed() <-chan struct{} { return n.health.failed }

// Err returns why this node is out of service, for good or until its disk
// answers again; nil when it is not.
func (n *Node) Err() error { return n.health.fault() }

// WriteError returns why writes are refused for now (fsm.ErrNoSpace), or nil.
func (n *Node) WriteError() error { return n.health.writes() }

// watch looks at disk and log: raft itself never notices a disk that hangs, its
// heartbeats go on and nobody is elected.
func (n *Node) watch() {
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	hang := hang{looked: time.Now(), since: time.Now()}
	var space error
	var looked, handed time.Time
	for {
		select {
		case <-tick.C:
		case <-n.fsm.Halted():
			n.halt(n.fsm.HaltError())
			return
		case <-n.health.failed:
			return
		case <-n.ctx.Done():
			return
		}
		if err := n.cfg.Events.broken(); err != nil {
			n.halt(err)
			return
		}
		if time.Since(looked) >= spaceInterval {
			looked, space = time.Now(), n.checkSpace()
		}
		refusal := space
		if refusal == nil {
			refusal = n.cfg.Events.trouble()
		}
		stalled := n.stall()
		lasts, stopped := hang.look(time.Now(), stalled != nil, n.cfg.StallTimeout)
		if stopped {
			continue
		}
		if lasts > n.cfg.StallExit-n.cfg.StallTimeout {
			n.halt(fmt.Errorf("%w; the disk does not come back", stalled))
			return
		}
		own := refusal
		if refusal == nil {
			refusal = n.roomOfPeers()
		}
		n.judge(refusal, stalled)
		if refusal = own; refusal != nil && n.IsLeader() && time.Since(handed) > handOverPause {
			handed = time.Now()
			n.goRun(func() { n.giveUp("no space", refusal) })
		}
	}
}

// hang measures how long the disk hangs, by looks at it.
type hang struct{ looked, since time.Time }

// look returns for how long all looks have found the disk hanging. A pause of more than
// limit between two looks is no fault of the disk: the process, or its whole machine, was
// stopped in an append, which may end in the next moment. The measure begins again then.
func (h *hang) look(now time.Time, hangs bool, limit time.Duration) (lasts time.Duration, stopped bool) {
	stopped = now.Sub(h.looked) > limit
	h.looked = now
	if stopped || !hangs {
		h.since = now
	}
	return now.Sub(h.since), stopped
}

// judge puts the findings in force and logs their changes.
func (n *Node) judge(refusal, stalled error) {
	before, was := n.health.writes(), n.health.out()
	n.health.set(refusal, stalled)
	if (refusal != nil) != (before != nil) {
		n.log.Warn("writes", "refused", refusal != nil, "error", refusal)
	}
	if (stalled != nil) == was {
		return
	}
	n.log.Error("connections to peers", "cut", stalled != nil, "error", stalled)
	n.mux.sever(stalled != nil)
	n.lead.poke()
}

// stall returns an error while the log or the state has been stuck for too long.
func (n *Node) stall() error {
	limit := n.cfg.StallTimeout
	if since := n.logs.storing.Load(); since != 0 {
		if d := time.Since(time.Unix(0, since)); d > limit {
			return fmt.Errorf("cluster: an append to the Raft log hangs for %s", d.Round(time.Second))
		}
	}
	if since := n.cfg.Events.stalled.Load(); since != 0 {
		if d := time.Since(time.Unix(0, since)); d > limit {
			return fmt.Errorf("cluster: writes to the store hang for %s", d.Round(time.Second))
		}
	}
	if d := n.prop.pending(); d > limit {
		return fmt.Errorf("cluster: a commit hangs for %s", d.Round(time.Second))
	}
	return nil
}

// halt takes the node out of service for good. A follower goes on to keep the
// log and to vote: its peers need it, and it decides nothing. A leader hands
// over; see checkLeadership.
func (n *Node) halt(err error) {
	if !n.health.fail(err) {
		return
	}
	n.log.Error("out of service", "error", err)
	n.lead.poke()
}

// checkSpace refuses writes while there is still room to trim and to compact:
// on a full disk the store would not fail but hang.
func (n *Node) checkSpace() error {
	if n.cfg.Memory || n.cfg.MinFreeBytes < 0 {
		return nil
	}
	free, err := n.freeBytes()
	if err != nil {
		n.log.Debug("free space unknown", "error", err)
		return nil
	}
	if free < uint64(n.cfg.MinFreeBytes) {
		return fmt.Errorf("%w: %d bytes free, %d are the reserve", fsm.ErrNoSpace, free, n.cfg.MinFreeBytes)
	}
	return nil
}

func (n *Node) freeBytes() (uint64, error) {
	if n.cfg.FreeBytes != nil {
		return n.cfg.FreeBytes()
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Clean(n.cfg.DataDir), &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}
