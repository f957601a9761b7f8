package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Each run is a process of its own: what a node leaves behind, and a panic, harm nobody
// else.

const dumpWait = 10 * time.Second // for a run that hangs to say where

// child runs a seed in a process and returns its outcome. dir is for a failing one.
func (o *options) child(ctx context.Context, seed uint64, dir string) *outcome {
	out := &outcome{Seed: seed}
	if err := os.RemoveAll(dir); err != nil {
		out.Error = err.Error()
		return out
	}
	self := o.binary
	if self == "" {
		var err error
		if self, err = os.Executable(); err != nil {
			out.Error = err.Error()
			return out
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "--one", fmt.Sprint(seed), "--keep", dir, "--only", o.only)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // all stacks
	cmd.WaitDelay = dumpWait
	err := cmd.Run()
	if e := json.Unmarshal(stdout.Bytes(), out); e != nil {
		out.Error = fmt.Sprintf("no outcome: %v: %.300s", err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	if err != nil && out.Error == "" { // the race detector says so, for one
		out.Error = fmt.Sprintf("%v: %.300s", err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	if out.Error != "" && stderr.Len() > 0 {
		err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "stderr.txt"), stderr.Bytes(), 0o644))
		if err != nil {
			out.Error += "; " + err.Error()
		}
	}
	return out
}

// each runs the n-th of count seeds in parallel lanes and hands over the outcomes, one
// at a time.
func (o *options) each(ctx context.Context, count int, start func(i int) (seed uint64, dir string), took func(*outcome)) {
	next := make(chan int)
	var lanes sync.WaitGroup
	var mu sync.Mutex
	for range min(o.lanes, count) {
		lanes.Go(func() {
			for i := range next {
				seed, dir := start(i)
				out := o.child(ctx, seed, dir)
				mu.Lock()
				took(out)
				mu.Unlock()
			}
		})
	}
	for i := range count {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	lanes.Wait()
}

func (o *options) runSeeds(ctx context.Context) error {
	t := newTotals(o)
	o.each(ctx, o.seeds, func(i int) (uint64, string) {
		seed := o.from + uint64(i)
		return seed, filepath.Join(o.keep, fmt.Sprint(seed))
	}, t.take)
	if err := ctx.Err(); err != nil {
		return err
	}
	fmt.Println(t.line())
	var err error
	if o.out != "" {
		err = os.WriteFile(o.out, []byte(t.page()), 0o644)
	}
	if len(t.bad) > 0 {
		err = errors.Join(err, errFailed)
	}
	return err
}

func (o *options) runAgain(ctx context.Context) error {
	seed, err := number(o.again)
	if err != nil {
		return err
	}
	fmt.Print(newPlan(seed, o.kinds()))
	t := newTotals(o)
	o.each(ctx, o.times, func(i int) (uint64, string) {
		return seed, filepath.Join(o.keep, fmt.Sprintf("%d-again-%d", seed, i+1))
	}, t.take)
	fmt.Printf("%d of %d runs of seed %d failed\n", len(t.bad), o.times, seed)
	if len(t.bad) > 0 {
		return errFailed
	}
	return ctx.Err()
}
