package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"quinto/internal/testcluster"
)

// results are the rounds of all measurements.
type results struct {
	size       sizes
	machine    string
	took       time.Duration
	deliveries int

	waiting, lane []float64 // events a second
	steady        []steadyRound
	latency       []latencyRound
	without, with []deadRound
	failovers     []failoverRound
}

type steadyRound struct {
	written, delivered float64 // events a second
	left               int     // not delivered at the end of the span
}

// latencyRound has the times of deliveries, sorted.
type latencyRound struct {
	answer, sending []time.Duration // since the answer to the write; since it was sent
	write           []time.Duration // how long the write took
}

// deadRound is one round with or without dead receivers.
type deadRound struct {
	latencyRound
	burst time.Duration // until all of it was delivered
}

type failoverRound struct {
	delivered int           // of the others before the kill
	repeats   int           // of them
	oldest    time.Duration // how long before the kill the oldest of what was repeated had come
	rate      float64       // of the others' deliveries before the kill, each second
	gap       time.Duration // from the kill to the first delivery afterwards
	behind    int           // events that waited in the dead lane at the kill
}

// hook steers the listener.
func (w *world) hook(ctx context.Context, what string) error {
	args := []string{"hooks", what, "hook", "--ini", w.cluster.INI, "--data", w.cluster.Nodes[0].Dir}
	if out, err := exec.CommandContext(ctx, w.binary, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("quinto hooks %s: %w: %s", what, err, out)
	}
	return nil
}

// rate is how many a second came, from the first to the last.
func (w *world) rate(ids []string) float64 {
	var first, last time.Time
	times := w.receiver.times(ids)
	for _, at := range times {
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	return float64(len(times)-1) / last.Sub(first).Seconds()
}

// measureWaiting lets events wait, and sees how fast they are delivered.
func (r *results) measureWaiting(ctx context.Context, w *world) error {
	if err := w.hook(ctx, "pause"); err != nil {
		return err
	}
	time.Sleep(2500 * time.Millisecond) // the leader looks each second
	ids := w.take(w.size.waiting)
	if err := w.batches(ctx, ids); err != nil {
		return err
	}
	if n := len(w.receiver.times(ids)); n > 0 {
		return fmt.Errorf("%d events came during a pause", n)
	}
	if err := w.hook(ctx, "resume"); err != nil {
		return err
	}
	if err := w.receiver.wait(ctx, ids, waitLimit); err != nil {
		return err
	}
	r.waiting = append(r.waiting, w.rate(ids))
	progress("%d waiting events: %.0f delivered a second", len(ids), r.waiting[len(r.waiting)-1])
	return nil
}

// measureSteady writes at an even rate and counts what is delivered in the same span.
func (r *results) measureSteady(ctx context.Context, w *world) error {
	begun := time.Now()
	ids, err := w.pacedBatches(ctx, w.size.steadyRate, w.size.steady, false)
	if err != nil {
		return err
	}
	span := time.Since(begun)
	in := len(w.receiver.times(ids))
	if err := w.receiver.wait(ctx, ids, waitLimit); err != nil {
		return err
	}
	r.steady = append(r.steady, steadyRound{float64(len(ids)) / span.Seconds(), float64(in) / span.Seconds(), len(ids) - in})
	progress("%.0f written a second: %.0f delivered a second meanwhile, %d left", r.steady[len(r.steady)-1].written, r.steady[len(r.steady)-1].delivered, len(ids)-in)
	return nil
}

func (w *world) latency(ctx context.Context) (l latencyRound, err error) {
	all, err := w.pacedPuts(ctx, w.size.paceRate, w.size.pace)
	if err != nil {
		return l, err
	}
	ids := make([]string, len(all))
	for i := range all {
		ids[i] = all[i].id
	}
	if err := w.receiver.wait(ctx, ids, waitLimit); err != nil {
		return l, err
	}
	times := w.receiver.times(ids)
	for _, one := range all {
		l.answer = append(l.answer, max(0, times[one.id].Sub(one.answered)))
		l.sending = append(l.sending, times[one.id].Sub(one.sent))
		l.write = append(l.write, one.answered.Sub(one.sent))
	}
	for _, d := range [][]time.Duration{l.answer, l.sending, l.write} {
		slices.Sort(d)
	}
	return l, nil
}

// measureLatency writes at a moderate rate.
func (r *results) measureLatency(ctx context.Context, w *world) error {
	l, err := w.latency(ctx)
	if err != nil {
		return err
	}
	r.latency = append(r.latency, l)
	progress("%d writes a second: delivered p50 %.1f ms, p99 %.1f ms after they were sent; writes p50 %.1f ms", w.size.paceRate, ms(at(l.sending, 50)), ms(at(l.sending, 99)), ms(at(l.write, 50)))
	return nil
}

// measureDead runs the same on a cluster without and on one with dead receivers, in turn.
func (r *results) measureDead(ctx context.Context, binary, dir string) error {
	var pair [2]*world
	for side := range pair {
		w, err := open(ctx, binary, filepath.Join(dir, fmt.Sprintf("dead-%d", side)), r.size, side == 1)
		if err != nil {
			return err
		}
		defer w.close()
		defer func() { r.deliveries += w.receiver.count() }()
		if _, err := w.latency(ctx); err != nil { // warm
			return err
		}
		pair[side] = w
	}
	for i := range 2 * r.size.deadRounds {
		side := (i + i/2) % 2 // without, with, with, without…
		round, err := pair[side].deadRound(ctx)
		if err != nil {
			return err
		}
		if side == 0 {
			r.without = append(r.without, round)
		} else {
			r.with = append(r.with, round)
		}
		progress("dead receivers %t: write p50 %.1f ms, delivered p50 %.1f ms after sending, a burst of %d in %.2f s", side == 1,
			ms(at(round.write, 50)), ms(at(round.sending, 50)), r.size.burst, round.burst.Seconds())
	}
	return nil
}

func (w *world) deadRound(ctx context.Context) (d deadRound, err error) {
	if d.latencyRound, err = w.latency(ctx); err != nil {
		return d, err
	}
	ids := w.take(w.size.burst)
	begun := time.Now()
	if err := w.batches(ctx, ids); err != nil {
		return d, err
	}
	err = w.receiver.wait(ctx, ids, waitLimit)
	d.burst = time.Since(begun)
	return d, err
}

// measureFailover has one collection refused, kills the leader amid deliveries of the
// others, and looks at what comes twice. Then the collection is taken again.
func (r *results) measureFailover(ctx context.Context, w *world) error {
	w.receiver.refuse.Store(true)
	dead := w.takeDead(w.size.deadLane)
	if err := w.batches(ctx, dead); err != nil {
		return err
	}
	leader, err := w.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	var killed time.Time
	failed := make(chan error, 1)
	kill := time.AfterFunc(w.size.beforeKill, func() {
		killed = time.Now()
		failed <- leader.Kill()
	})
	defer kill.Stop()
	ids, err := w.pacedBatches(ctx, w.size.failoverRate, w.size.beforeKill+500*time.Millisecond, true)
	if err == nil {
		err = <-failed
	}
	if err != nil {
		return err
	}
	f, err := r.afterKill(ctx, w, leader, killed, ids)
	if err != nil {
		return err
	}
	f.behind = len(dead)
	r.failovers = append(r.failovers, f)
	w.receiver.refuse.Store(false)
	if err := w.receiver.wait(ctx, dead, waitLimit); err != nil {
		return err
	}
	r.lane = append(r.lane, w.rate(dead))
	progress("failover with %d events in a dead lane: %d of %d deliveries of the others came twice, the oldest of %.2f s before", f.behind, f.repeats, f.delivered, f.oldest.Seconds())
	return nil
}

// afterKill waits until the next leader is through with what was before: a further change
// of each collection comes behind all that.
func (r *results) afterKill(ctx context.Context, w *world, leader *testcluster.Node, killed time.Time, ids []string) (f failoverRound, err error) {
	if err := leader.Start(); err != nil {
		return f, err
	}
	started, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := w.cluster.WaitReady(started, w.cluster.Nodes...); err != nil {
		return f, err
	}
	last := w.take(collections)
	for i, id := range last {
		if err := w.put(ctx, i, recordPath(id), record); err != nil {
			return f, err
		}
	}
	if err := w.receiver.wait(ctx, append(last, ids...), waitLimit); err != nil {
		return f, err
	}
	w.receiver.mu.Lock()
	defer w.receiver.mu.Unlock()
	next := time.Time{}
	for _, a := range w.receiver.records {
		if a.at.Before(killed) && a.at.After(killed.Add(-w.size.beforeKill)) {
			f.delivered++
		}
		if a.at.After(killed) && (next.IsZero() || a.at.Before(next)) {
			next = a.at
		}
	}
	for _, twice := range w.receiver.repeats {
		if twice.again.After(killed) && (next.IsZero() || twice.again.Before(next)) {
			next = twice.again
		}
		if twice.collection != deadName && twice.first.Before(killed) && twice.again.After(killed) {
			f.repeats++
			f.oldest = max(f.oldest, killed.Sub(twice.first))
		}
	}
	f.rate, f.gap = float64(f.delivered)/w.size.beforeKill.Seconds(), next.Sub(killed)
	return f, nil
}

// at is a percentile of sorted times.
func at(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
