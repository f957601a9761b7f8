package plugins

import (
	"context"
	"time"
)

// Label is one dimension of a measurement.
type Label struct{ Name, Value string }

// Metrics is a plugin that takes measurements, under Kinto's names: words with
// dots between them, as in "backend.storage.seconds". Its methods are called by
// many goroutines while requests are answered, so they must be quick.
type Metrics interface {
	// Count adds n to a counter.
	Count(name string, n int, labels []Label)
	// Time adds a duration to a histogram, in seconds.
	Time(name string, seconds float64, labels []Label)
	// Observe adds a value to a summary.
	Observe(name string, value float64, labels []Label)
	// Figures hands over what reads the node's own figures, once, before the first
	// request is answered. read is cheap enough for a call each second, and returns nothing
	// once the node is closed.
	Figures(read func() []Figure)
}

// Figure is one number of a node that is read when it is asked for: the term, the
// size of the store.
type Figure struct {
	Name    string // as in "raft.term"
	Help    string // one sentence
	Counter bool   // it only grows while the node runs
	Labels  []Label
	Value   float64
}

// Meter passes measurements on to every Metrics. A nil Meter is one that nobody
// listens to: its methods then do nothing, so that measuring costs a comparison.
type Meter struct{ to []Metrics }

// NewMeter returns a Meter for to, or nil when that is empty.
func NewMeter(to []Metrics) *Meter {
	if len(to) == 0 {
		return nil
	}
	return &Meter{to}
}

// Count is Metrics' for all of them.
func (m *Meter) Count(name string, n int, labels ...Label) {
	if m == nil {
		return
	}
	for _, x := range m.to {
		x.Count(name, n, labels)
	}
}

// Time is Metrics' for all of them.
func (m *Meter) Time(name string, seconds float64, labels ...Label) {
	if m == nil {
		return
	}
	for _, x := range m.to {
		x.Time(name, seconds, labels)
	}
}

// Observe is Metrics' for all of them.
func (m *Meter) Observe(name string, value float64, labels ...Label) {
	if m == nil {
		return
	}
	for _, x := range m.to {
		x.Observe(name, value, labels)
	}
}

// Figures is Metrics' for all of them.
func (m *Meter) Figures(read func() []Figure) {
	if m == nil {
		return
	}
	for _, x := range m.to {
		x.Figures(read)
	}
}

// Now is the time to give to Since; the zero time when nobody listens, so that no
// clock is read.
func (m *Meter) Now() time.Time {
	if m == nil {
		return time.Time{}
	}
	return time.Now()
}

// Since times what began at begun, as Now said.
func (m *Meter) Since(begun time.Time, name string, labels ...Label) {
	if m == nil {
		return
	}
	m.Time(name, time.Since(begun).Seconds(), labels...)
}

// Measured is a hook whose duration is measured, under the name that it gives, as
// in "plugins.history".
type Measured interface {
	MetricName() string
}

// TimeHooks returns hooks with those that are Measured timed; the same when nobody
// listens.
func (m *Meter) TimeHooks(hooks []BeforeCommit) []BeforeCommit {
	if m == nil {
		return hooks
	}
	out := make([]BeforeCommit, len(hooks))
	for i, h := range hooks {
		if x, ok := h.(Measured); ok {
			h = &timedHook{h, m, x.MetricName() + ".seconds"}
		}
		out[i] = h
	}
	return out
}

type timedHook struct {
	hook  BeforeCommit
	meter *Meter
	name  string
}

// BeforeCommit asks the hook and takes the time.
func (t *timedHook) BeforeCommit(ctx context.Context, c *Change) error {
	defer t.meter.Since(time.Now(), t.name)
	return t.hook.BeforeCommit(ctx, c)
}
