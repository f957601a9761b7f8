//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"time"
)

// Roles of the programs that the measurement starts.
const (
	roleStreams = "streams"
	roleWriters = "writers"
)

// order tells a client what to do; the fields that belong to Do are set.
type order struct {
	Do string
	// doOpen: so many streams on the written collection, and on the others.
	Watching, Idle int
	// doZero: begin to count changes; note when there are so many. doAwait: wait for so many.
	Changes int64
	// doWrite.
	Rate  float64 // writes a second; 0: each of Conns sends when its last was answered
	Conns int
	For   time.Duration
	Seed  uint64 // of the moments at which writes are due
}

// What an order may ask for.
const (
	doOpen  = "open"
	doClose = "close"
	doZero  = "zero"
	doAwait = "await"
	doWrite = "write"
)

// answer is that of a client to an order.
type answer struct {
	Err     string
	Changes int64 // that have come since doZero
	At      int64 // when those of doZero were there, in nanoseconds since 1970
	Sample  sample
}

// peer is a client in a process of its own.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func employ(ctx context.Context, role, addr string) (*peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &peer{cmd: exec.CommandContext(ctx, self, "--role", role, "--addr", addr)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	return p, p.cmd.Start()
}

// stop ends the client, which goes when its orders do.
func (p *peer) stop() {
	_ = p.in.Close()
	_ = p.cmd.Wait() // what it measured was heard
}

func (p *peer) ask(o order) (answer, error) {
	var a answer
	b, err := json.Marshal(o)
	if err != nil {
		return a, err
	}
	if _, err = p.in.Write(append(b, '\n')); err != nil {
		return a, err
	}
	if err = p.out.Decode(&a); err == nil && a.Err != "" {
		err = errors.New(o.Do + ": " + a.Err)
	}
	return a, err
}

// serve is the client: it does what its standard input says.
func serve(role, addr string) error {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(clientMemory)
	do := func(o order) (answer, error) { return write(addr, o) }
	if role == roleStreams {
		s, err := newSwarm(addr)
		if err != nil {
			return err
		}
		defer s.close()
		go s.listen()
		do = s.do
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		switch err := in.Decode(&o); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		a, err := do(o)
		if err != nil {
			a = answer{Err: fmt.Sprint(err)}
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}
