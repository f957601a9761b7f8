package dispatch

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// What the operator asks of a notifier is a replicated setting, which any node may
// write and the leader's runner finds within a second.
const (
	pausedPrefix    = "hooks/paused/"
	replayPrefix    = "hooks/replay/"
	redeliverPrefix = "hooks/redeliver/"
)

// Limits of what the operator asks.
const (
	MaxRedeliveries = 100 // dead letters that are sent again at a look
	MaxReasonBytes  = 500 // of a pause
)

// Errors of a request about a notifier.
var (
	ErrNoNotifier = errors.New("there is no such event listener")
	ErrConfigured = errors.New("it is configured here; take it out of the settings of all nodes first")
	ErrDeclared   = errors.New("the metadata of an object declares it; take it out there")
	ErrNoLetter   = errors.New("there is no such dead letter")
	ErrNoChange   = errors.New("there is no change as late as that yet")
	ErrLongReason = fmt.Errorf("the reason of a pause has up to %d bytes", MaxReasonBytes)
)

// Paused is the value of the replicated setting that holds deliveries to a notifier
// back; they wait in the store.
type Paused struct {
	Time   fsm.Timestamp `json:"time"` // ms
	Reason string        `json:"reason"`
	// Gone, when not empty, is the word for the receiver of a declared notifier that
	// wanted no more: with another receiver the pause ends.
	Gone string `json:"gone,omitempty"`
}

type replayRequest struct {
	From fsm.Revision `json:"from"`
}

// Pause makes the operations that hold deliveries to a notifier back, until Resume.
// ErrNoNotifier, ErrLongReason.
func Pause(v *fsm.View, name, reason string, now fsm.Timestamp) ([]fsm.Op, error) {
	if len(reason) > MaxReasonBytes {
		return nil, ErrLongReason
	}
	return order(v, name, pausedPrefix+name, Paused{Time: now, Reason: reason})
}

// Resume makes the operations that end a Pause, also one that a receiver has caused
// (plugins.Gone).
func Resume(v *fsm.View, name string) ([]fsm.Op, error) {
	return order(v, name, pausedPrefix+name, nil)
}

// Replay makes the operations by which all changes from a revision on that still are
// in the event log are delivered again, each with its id, in the order of its lane.
// first is the first revision that the log still has. ErrNoNotifier; ErrNoChange for a
// revision that has not been.
func Replay(v *fsm.View, name string, from fsm.Revision) (ops []fsm.Op, first fsm.Revision, err error) {
	from = max(from, 1)
	if ops, err = order(v, name, replayPrefix+name, replayRequest{From: from}); err == nil && from > v.Revision() {
		ops, err = nil, fmt.Errorf("%w: the newest is %d", ErrNoChange, v.Revision())
	}
	return ops, max(from, v.EventFloor()+1), err
}

// order makes the setting of an order; value nil takes it away.
func order(v *fsm.View, name, setting string, value any) ([]fsm.Op, error) {
	known, err := registeredNames(v)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(known, name) {
		return nil, fmt.Errorf("%w: %q; there are: %s", ErrNoNotifier, name, strings.Join(known, " "))
	}
	op := fsm.Op{Type: fsm.OpSetSetting, Name: setting}
	if value != nil {
		if op.Value, err = json.Marshal(value); err != nil {
			return nil, err
		}
	}
	return []fsm.Op{op}, nil
}

func registeredNames(v *fsm.View) (names []string, err error) {
	list, err := v.Notifiers()
	for _, n := range list {
		names = append(names, n.Name)
	}
	return names, err
}

// Redeliver makes the operations by which dead letters are sent once more: the one at
// revision, or with 0 all of them. What is taken is no dead letter any more.
func Redeliver(v *fsm.View, name string, revision fsm.Revision) ([]fsm.Op, error) {
	letters, err := Dead(v, name)
	if err != nil {
		return nil, err
	}
	var ops []fsm.Op
	for _, l := range letters {
		if revision == 0 || l.Revision == revision {
			ops = append(ops, fsm.Op{Type: fsm.OpSetSetting, Name: redeliverName(name, l.Revision), Value: []byte("{}")})
		}
	}
	if len(ops) == 0 {
		return nil, ErrNoLetter
	}
	return ops, nil
}

func redeliverName(name string, revision fsm.Revision) string {
	return fmt.Sprintf("%s%s/%020d", redeliverPrefix, name, revision)
}

// Dead returns the dead letters of a notifier, oldest first.
func Dead(v *fsm.View, name string) (all []DeadLetter, err error) {
	var failed error
	err = v.Settings(DeadLetterPrefix(name), func(_ string, value []byte) bool {
		var l DeadLetter
		if failed = json.Unmarshal(value, &l); failed == nil {
			all = append(all, l)
		}
		return failed == nil
	})
	return all, errors.Join(err, failed)
}

// Forget makes the operations that take a notifier, which is configured nowhere any
// more, out of the log, with its progress and its dead letters. ErrConfigured: this
// node is configured with it, or an object declares it.
func (d *Dispatcher) Forget(v *fsm.View, name string) ([]fsm.Op, error) {
	declared, _, err := d.declared(v)
	if err != nil {
		return nil, err
	}
	if n := declared[name]; n != nil {
		return nil, fmt.Errorf("%q: %w", name, ErrDeclared)
	}
	if slices.ContainsFunc(d.o.Notifiers, func(n plugins.Notifier) bool { return n.Name() == name }) {
		return nil, fmt.Errorf("%q: %w", name, ErrConfigured)
	}
	if _, err := order(v, name, pausedPrefix+name, nil); err != nil {
		return nil, err
	}
	return forgetOps(v, name)
}

// forgetOps take away all that the log has of a notifier.
func forgetOps(v *fsm.View, name string) ([]fsm.Op, error) {
	ops := []fsm.Op{{Type: fsm.OpForgetNotifier, Name: name}}
	for _, setting := range []string{pausedPrefix + name, replayPrefix + name, LaggedName(name)} {
		ops = append(ops, fsm.Op{Type: fsm.OpSetSetting, Name: setting})
	}
	for _, prefix := range []string{DeadLetterPrefix(name), redeliverPrefix + name + "/"} {
		if err := v.Settings(prefix, func(setting string, _ []byte) bool {
			ops = append(ops, fsm.Op{Type: fsm.OpSetSetting, Name: setting})
			return true
		}); err != nil {
			return nil, err
		}
	}
	return ops, nil
}

// control does what the operator has asked for. It is called by the runner's
// goroutine, before anything is sent and then each tick.
func (r *runner) control(ctx context.Context) {
	v, err := r.d.view(r.term)
	if err != nil {
		return // the term ends, or the next tick finds it
	}
	defer v.Close()
	if err := errors.Join(r.controlPause(ctx, v), r.controlReplay(ctx, v), r.controlLetters(ctx, v), r.controlLoss(ctx, v)); err != nil && ctx.Err() == nil && !errors.Is(err, fsm.ErrNotLeader) {
		r.log.Warn("what was asked of a listener cannot be done yet", "error", err)
	}
}

func (r *runner) controlPause(ctx context.Context, v *fsm.View) error {
	value, err := v.Setting(pausedPrefix + r.name)
	if err != nil {
		return err
	}
	switch {
	case value == nil && r.gone != "":
		return r.holdGone(ctx)
	case value != nil && r.elsewhere(value):
		_, err := r.d.propose(ctx, r.term, fsm.Txn{Now: r.d.o.Leader.Now(), Ops: []fsm.Op{{Type: fsm.OpSetSetting, Name: pausedPrefix + r.name}}})
		return err // the next look goes on
	case value == nil && r.held:
		r.held = false
		r.log.Info("deliveries go on")
		for _, l := range r.waiting { // all at once: the order of the heap does not matter
			l.due = time.Now()
		}
	case value != nil && !r.held:
		r.held = true
		r.log.Info("deliveries are paused")
	}
	if value != nil {
		r.gone = ""
	}
	return nil
}

// elsewhere reports whether the receiver that wanted no more is not meant any longer.
func (r *runner) elsewhere(value []byte) bool {
	n, ok := r.n.(plugins.Scoped)
	var paused Paused
	return ok && json.Unmarshal(value, &paused) == nil && paused.Gone != "" && paused.Gone != n.Receiver()
}

// holdGone stops all deliveries, because the receiver has said that it wants no more.
func (r *runner) holdGone(ctx context.Context) error {
	now := r.d.o.Leader.Now()
	paused := Paused{Time: now, Reason: r.gone}
	if n, ok := r.n.(plugins.Scoped); ok {
		paused.Gone = n.Receiver()
	}
	value, err := json.Marshal(paused)
	if err != nil {
		return err
	}
	_, err = r.d.propose(ctx, r.term, fsm.Txn{Now: now, Ops: []fsm.Op{{Type: fsm.OpSetSetting, Name: pausedPrefix + r.name, Value: value}}})
	if err == nil {
		r.gone = ""
	}
	return err
}

// controlReplay puts the lanes that a replay concerns back. The table of lanes that
// lag is logged in the same entry that takes the order away, so that neither a new
// leader forgets it nor does it twice for long.
func (r *runner) controlReplay(ctx context.Context, v *fsm.View) error {
	value, err := v.Setting(replayPrefix + r.name)
	if err != nil || value == nil || r.saving {
		return err
	}
	done := fsm.Op{Type: fsm.OpSetSetting, Name: replayPrefix + r.name}
	var order replayRequest
	if err := json.Unmarshal(value, &order); err != nil {
		return err
	}
	after := max(order.From-min(order.From, 1), v.EventFloor())
	lanes := map[string]bool{}
	for key := range r.lanes {
		lanes[key] = true
	}
	back := map[string]bool{}
	err = v.Events(after, func(e *fsm.Event) bool {
		if e.Revision > r.frontier || len(lanes) > r.d.o.Lanes {
			return false
		}
		if r.matches(e) {
			key := r.n.Lane(e)
			lanes[key], back[key] = true, true
		}
		return true
	})
	if err != nil {
		return err
	}
	if len(lanes) > r.d.o.Lanes {
		r.log.Error("a replay is refused: it concerns too many collections", "from", order.From, "most", r.d.o.Lanes)
		back = nil
	} else {
		r.log.Info("changes are delivered again", "asked", order.From, "after", after, "lanes", len(back))
	}
	for key := range back {
		r.putBack(key, after)
	}
	p := r.progress()
	_, err = r.d.propose(ctx, r.term, fsm.Txn{Now: r.d.o.Leader.Now(), Ops: []fsm.Op{
		{Type: fsm.OpAdvanceCursor, Name: r.name, Revision: p.cursor, Lanes: p.lanes}, done}})
	if err == nil {
		r.logged, r.proposed = p, max(r.proposed, p.cursor)
	}
	return err
}

// putBack makes a lane begin behind after again.
func (r *runner) putBack(key string, after fsm.Revision) {
	l := r.lanes[key]
	if l == nil {
		l = r.add(key, &lane{})
	}
	if l.state == laneSending {
		l.rewound, l.back = true, after // once the worker is back
		return
	}
	is := func(x *lane) bool { return x == l }
	r.ready, r.retry, r.tied = slices.DeleteFunc(r.ready, is), slices.DeleteFunc(r.retry, is), slices.DeleteFunc(r.tied, is)
	if i := slices.IndexFunc(r.waiting, is); i >= 0 {
		heap.Remove(&r.waiting, i)
	}
	r.restart(l, after)
}

// restart empties a lane that is in no list but needy, and has it read again.
func (r *runner) restart(l *lane, after fsm.Revision) {
	r.queued -= len(l.queue)
	l.queue, l.state, l.rewound, l.bury, l.failures, l.lastErr, l.free = nil, laneEmpty, false, false, 0, nil, 0
	if l.behind {
		after = min(after, l.tail)
	}
	l.behind, l.tail, l.pass = true, after, 0
	r.want(l)
}

// controlLetters begins to send dead letters again, unless that is under way.
func (r *runner) controlLetters(ctx context.Context, v *fsm.View) error {
	var names []string
	err := v.Settings(redeliverPrefix+r.name+"/", func(name string, _ []byte) bool {
		names = append(names, name)
		return len(names) < MaxRedeliveries
	})
	if err != nil || len(names) == 0 || r.held || r.stopped || !r.letters.CompareAndSwap(false, true) {
		return err
	}
	r.side.Go(func() {
		defer r.letters.Store(false)
		for _, name := range names {
			if err := r.redeliver(ctx, name); err != nil {
				if ctx.Err() == nil {
					r.log.Warn("a dead letter cannot be sent yet", "error", err)
				}
				return
			}
		}
	})
	return nil
}

// redeliver tries a dead letter once. An error means that the order stands.
func (r *runner) redeliver(ctx context.Context, order string) error {
	number, err := strconv.ParseUint(order[strings.LastIndex(order, "/")+1:], 10, 64)
	if err != nil {
		return err
	}
	letter, e, err := r.letter(fsm.Revision(number))
	if err != nil {
		return err
	}
	t := fsm.Txn{Now: r.d.o.Leader.Now(), Ops: []fsm.Op{{Type: fsm.OpSetSetting, Name: order}}}
	if letter != nil {
		failed := errGone
		if e != nil {
			failed = r.deliver(ctx, job{event: e, attempt: letter.Attempts + 1, free: true})
		}
		if errors.Is(failed, errFenced) {
			return failed
		}
		again := fsm.Op{Type: fsm.OpSetSetting, Name: DeadLetterName(r.name, letter.Revision)}
		if failed != nil {
			letter.Attempts, letter.Error = letter.Attempts+1, shorten(failed)
			if again.Value, err = json.Marshal(letter); err != nil {
				return err
			}
		}
		t.Ops = append(t.Ops, again)
	}
	_, err = r.d.propose(ctx, r.term, t)
	return err
}

// letter reads a dead letter, nil when there is none, and its event, nil when it was
// trimmed.
func (r *runner) letter(revision fsm.Revision) (*DeadLetter, *fsm.Event, error) {
	v, err := r.d.view(r.term)
	if err != nil {
		return nil, nil, err
	}
	defer v.Close()
	value, err := v.Setting(DeadLetterName(r.name, revision))
	if err != nil || value == nil {
		return nil, nil, err
	}
	letter := new(DeadLetter)
	if err := json.Unmarshal(value, letter); err != nil {
		return nil, nil, err
	}
	if revision <= v.EventFloor() {
		return letter, nil, nil
	}
	var event *fsm.Event
	err = v.Events(revision-1, func(e *fsm.Event) bool {
		if e.Revision == revision {
			event = e
		}
		return false
	})
	return letter, event, err
}
