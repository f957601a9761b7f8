package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// RecentAttempts are kept of each notifier by its leader.
const RecentAttempts = 100

// Attempt is one delivery that this leader has tried.
type Attempt struct {
	ID       string       `json:"id"`
	Revision fsm.Revision `json:"revision"`
	Action   string       `json:"action"`
	Path     fsm.Path     `json:"path"`
	Ended    time.Time    `json:"ended"`
	Attempt  int          `json:"attempt"`
	Error    string       `json:"error,omitempty"` // empty: taken
}

// note keeps an outcome for Deliveries.
func (r *runner) note(res *result) {
	var tied *tiedError
	if res.bury || errors.As(res.err, &tied) || errors.Is(res.err, errFenced) {
		return
	}
	if len(r.history) >= RecentAttempts {
		r.history = append(r.history[:0:0], r.history[1:]...)
	}
	e := res.event
	r.history = append(r.history, Attempt{ID: plugins.DeliveryID(r.cluster, r.name, e.Revision), Revision: e.Revision,
		Action: e.Action.String(), Path: e.Path, Ended: time.Now(), Attempt: res.attempt, Error: shorten(res.err)})
}

// Deliveries returns the newest attempts of a notifier, newest last; none on a node
// that does not lead.
func (d *Dispatcher) Deliveries(name string) []Attempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.runners {
		if r.name == name {
			if recent := r.recent.Load(); recent != nil {
				return *recent
			}
		}
	}
	return nil
}

// Report is how a notifier stands by the log, with what this node knows of it.
type Report struct {
	Status
	Lag     uint64  `json:"lag"` // revisions behind, of the lane that is furthest
	Letters int     `json:"dead_letters"`
	Paused  *Paused `json:"paused,omitempty"`
	Lagged  *Lagged `json:"lagged,omitempty"`
	// Declared says what it is when an object declares it.
	Declared *plugins.Description `json:"declared,omitempty"`
}

// Report returns how all notifiers stand that are registered or configured here.
func (d *Dispatcher) Report(v *fsm.View) ([]Report, error) {
	return d.report(v, func(*Report) bool { return true })
}

// DeclaredBy returns how the notifiers stand that the object at a path declares.
func (d *Dispatcher) DeclaredBy(v *fsm.View, at fsm.Path) ([]Report, error) {
	return d.report(v, func(r *Report) bool { return r.Declared != nil && r.Declared.Of == at })
}

// report returns how those notifiers stand that chosen accepts.
func (d *Dispatcher) report(v *fsm.View, chosen func(*Report) bool) ([]Report, error) {
	registered, err := v.Notifiers()
	if err != nil {
		return nil, err
	}
	declared, _, err := d.declared(v)
	if err != nil {
		return nil, err
	}
	var all []Report
	at := map[string]int{}
	for _, s := range d.Status() {
		at[s.Name] = len(all)
		all = append(all, Report{Status: s})
	}
	for _, n := range registered {
		i, known := at[n.Name]
		if !known {
			state := StateMissing
			if d.declares(n.Name) {
				state = StateStandby // or soon forgotten
			}
			all, i = append(all, Report{Status: Status{Name: n.Name, State: state}}), len(all)
		}
		if x := declared[n.Name]; x != nil {
			about := x.Describe()
			all[i].Declared = &about
		}
		if all[i].State != StateDelivering && all[i].State != StatePaused {
			all[i].Cursor, all[i].Frontier, all[i].Lanes = n.Cursor, n.Cursor, len(n.Lanes)
		}
		all[i].Lag = uint64(v.Revision() - min(v.Revision(), slowest(n)))
	}
	all = slices.DeleteFunc(all, func(r Report) bool { return !chosen(&r) })
	for i := range all {
		if err := all[i].read(v); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// read adds what the replicated settings say.
func (r *Report) read(v *fsm.View) error {
	letters, err := Dead(v, r.Name)
	if err != nil {
		return err
	}
	r.Letters = len(letters)
	if err := readSetting(v, pausedPrefix+r.Name, &r.Paused); err != nil {
		return err
	}
	if r.Paused != nil && r.State != StateMissing {
		r.State = StatePaused
	}
	return readSetting(v, LaggedName(r.Name), &r.Lagged)
}

func readSetting[T any](v *fsm.View, name string, to **T) error {
	value, err := v.Setting(name)
	if err != nil || value == nil {
		return err
	}
	return json.Unmarshal(value, to)
}

// ErrNoTest is returned by Test for a notifier that cannot be tried out.
var ErrNoTest = errors.New("this kind of listener has no test")

// Test has a configured notifier send what is no change, once, from this node.
// ErrNoNotifier, ErrNoTest, else what the receiver's answer came to.
func (d *Dispatcher) Test(ctx context.Context, name string) error {
	n, err := d.find(name)
	if err != nil {
		return err
	}
	t, ok := n.(plugins.Tester)
	if !ok {
		return ErrNoTest
	}
	ctx, cancel := context.WithTimeout(ctx, d.o.DeliverTimeout)
	defer cancel()
	return t.Test(ctx, TestID())
}

// TestID makes the id of a test's delivery.
func TestID() string { return "test_" + rand.Text() }

// find returns a notifier that is configured here, or that this node's state declares.
func (d *Dispatcher) find(name string) (plugins.Notifier, error) {
	if i := slices.IndexFunc(d.o.Notifiers, func(n plugins.Notifier) bool { return n.Name() == name }); i >= 0 {
		return d.o.Notifiers[i], nil
	}
	if d.declares(name) {
		v, err := d.o.State.View()
		if err != nil {
			return nil, err
		}
		defer v.Close()
		declared, _, err := d.declared(v)
		if n := declared[name]; err != nil || n != nil {
			return n, err
		}
	}
	return nil, fmt.Errorf("%w on this node: %q", ErrNoNotifier, name)
}
