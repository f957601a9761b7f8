package dispatch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// controlLoss begins to tell a receiver what it has lost, unless that is under way, or
// an attempt has failed and its pause is not over. It is called by the runner's goroutine.
func (r *runner) controlLoss(ctx context.Context, v *fsm.View) error {
	n, ok := r.n.(plugins.Losing)
	if !ok || r.held || r.stopped || time.Now().UnixNano() < r.lossDue.Load() {
		return nil
	}
	value, err := v.Setting(LaggedName(r.name))
	if err != nil || value == nil {
		return err
	}
	var mark Lagged
	if err := json.Unmarshal(value, &mark); err != nil || mark.Told || !r.telling.CompareAndSwap(false, true) {
		return err
	}
	r.side.Go(func() {
		defer r.telling.Store(false)
		err := r.tellLoss(ctx, n, mark, value)
		if err == nil || ctx.Err() != nil {
			r.lossFailures = 0
			return
		}
		r.lossFailures++
		pause := r.d.o.Retry.pause(r.lossFailures)
		var after *plugins.RetryAfter
		if errors.As(err, &after) {
			pause = max(pause, min(after.After, r.d.o.Retry.Max))
		}
		r.lossDue.Store(time.Now().Add(pause).UnixNano())
		r.log.Warn("a receiver cannot be told yet what it has lost", "pause", pause, "error", err)
	})
	return nil
}

// tellLoss sends once, and notes it, unless more was lost meanwhile.
func (r *runner) tellLoss(ctx context.Context, n plugins.Losing, mark Lagged, was []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("notifier panicked: %v", p)
		}
	}()
	inner, cancel := context.WithTimeout(ctx, r.d.o.DeliverTimeout)
	defer cancel()
	// A name with a slash is no notifier's: the id is that of no change.
	l := plugins.Loss{ID: plugins.DeliveryID(r.cluster, r.name+"/lost", mark.To), After: mark.From, UpTo: mark.To, Time: mark.Time}
	if err := n.Lost(inner, l); err != nil {
		return err
	}
	r.d.marks.Lock()
	defer r.d.marks.Unlock()
	v, err := r.d.view(r.term)
	if err != nil {
		return err
	}
	now, err := v.Setting(LaggedName(r.name))
	v.Close()
	if err != nil || !bytes.Equal(now, was) {
		return err
	}
	mark.Told = true
	value, err := json.Marshal(mark)
	if err != nil {
		return err
	}
	_, err = r.d.propose(ctx, r.term, fsm.Txn{Now: r.d.o.Leader.Now(), Ops: []fsm.Op{{Type: fsm.OpSetSetting, Name: LaggedName(r.name), Value: value}}})
	return err
}
