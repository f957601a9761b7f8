//go:build linux

// Benchlive measures the live streams of one node: memory of a stream, how long one
// write takes to reach all of them, and what idle ones cost those who write.
//
//	go run ./scripts/benchlive           10,000 streams; writes docs/results/live.md
//	go run ./scripts/benchlive --small   1,000 streams, half a minute, prints only
//
// Node and clients share the machine: what is measured holds for them together. So
// the clients are two processes of their own (this program again, by --role), one
// that has the streams and one that writes. Each is one thread around epoll that makes no garbage
// to speak of, so that the streams of the node are measured and not the clients.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// The bounds of issue 6.
const (
	boundMemory  = 32 << 10
	boundFanOut  = time.Second
	boundWriters = 1.2
)

// What does not depend on the size of the run.
const (
	collections   = 100 // that idle streams are spread over
	fanOuts       = 5
	watchers      = 10               // streams on the written collection
	closedWriters = 4                // each sends when its last write was answered
	openConns     = 64               // for writes at a fixed rate: more than are ever under way
	rateShare     = 0.5              // of what the closed loop reaches without streams, is the fixed rate
	rateStep      = 10               // the rate is a multiple of it
	warming       = 4                // times as long as a leg writes as fast as it can: files reach their size
	settle        = 5 * time.Second  // after streams came or went: what that left is collected
	answerTimeout = 60 * time.Second // of anything that has to happen
	auth          = "Basic YmVuY2g6c2VjcmV0"
	clientMemory  = 1 << 30 // of a client, which collects no garbage below it
)

// sizes are how much is done.
type sizes struct {
	streams      int
	pairs        int // legs with streams; those without are one more
	closed, open time.Duration
}

var (
	full  = sizes{streams: 10_000, pairs: 6, closed: 4 * time.Second, open: 10 * time.Second}
	small = sizes{streams: 1000, pairs: 1, closed: time.Second, open: 2 * time.Second}
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	binary := flag.String("quinto", "bin/quinto", "the program")
	less := flag.Bool("small", false, "little of everything, printed only")
	pairs := flag.Int("pairs", 0, "legs with streams (default: by size)")
	out := flag.String("out", "", "file of the results (default: docs/results/live.md, unless --small or --pairs)")
	role := flag.String("role", "", "of the programs that this one starts")
	addr := flag.String("addr", "", "of the node, for a role")
	flag.Parse()
	size := full
	if *less {
		size = small
	}
	switch {
	case *pairs > 0:
		size.pairs = *pairs
	case !*less && *out == "":
		*out = filepath.Join("docs", "results", "live.md")
	}
	var err error
	switch *role {
	case roleStreams, roleWriters:
		err = serve(*role, *addr)
	default:
		err = run(ctx, *binary, size, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchlive:", *role, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, size sizes, out string) (err error) {
	dir, err := os.MkdirTemp("", "quinto-benchlive-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := &measurement{size: size}
	if m.node, err = start(ctx, binary, dir, size.streams+watchers); err != nil {
		return err
	}
	defer m.node.stop()
	for i := range collections + 1 {
		if err := m.node.send("PUT", collection(i), ""); err != nil {
			return err
		}
	}
	if m.streams, err = employ(ctx, roleStreams, m.node.addr); err != nil {
		return err
	}
	defer m.streams.stop()
	if m.writers, err = employ(ctx, roleWriters, m.node.addr); err != nil {
		return err
	}
	defer m.writers.stop()
	if err := errors.Join(m.memoryAndFanOut(), m.legs()); err != nil {
		return err
	}
	text := m.report()
	fmt.Print(text)
	if out != "" {
		return os.WriteFile(out, []byte(text), 0o600)
	}
	return nil
}
