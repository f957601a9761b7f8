//go:build linux

package main

import (
	"fmt"
	"time"
)

// measurement is one run and what it came to.
type measurement struct {
	size             sizes
	node             *node
	streams, writers *peer

	perStream     int64 // bytes
	fanOut        []time.Duration
	rate          float64 // of writes at a fixed rate, a second
	without, with []leg
}

// leg is some time of writing, with streams or without.
type leg struct {
	closed, open sample
	nodeCPU      time.Duration // at the fixed rate
	changes      int64         // that came to the streams of the written collection
}

// memoryAndFanOut has all streams on one collection.
func (m *measurement) memoryAndFanOut() error {
	warm := order{Do: doWrite, Conns: closedWriters, For: time.Second}
	if _, err := m.writers.ask(warm); err != nil {
		return err
	}
	before, err := rss(m.node.cmd.Process.Pid)
	if err != nil {
		return err
	}
	if _, err := m.streams.ask(order{Do: doOpen, Watching: m.size.streams}); err != nil {
		return err
	}
	time.Sleep(settle)
	after, err := rss(m.node.cmd.Process.Pid)
	if err != nil {
		return err
	}
	m.perStream = (after - before) / int64(m.size.streams)
	for i := range fanOuts {
		if _, err := m.streams.ask(order{Do: doZero, Changes: int64(m.size.streams)}); err != nil {
			return err
		}
		begun := time.Now()
		if err := m.node.send("PUT", collection(0)+"/records/fan", fmt.Sprintf(`{"data":{"n":%d}}`, i)); err != nil {
			return err
		}
		a, err := m.streams.ask(order{Do: doAwait, Changes: int64(m.size.streams)})
		if err != nil || a.Changes != int64(m.size.streams) {
			return fmt.Errorf("%d of %d streams got the change: %w", a.Changes, m.size.streams, err)
		}
		m.fanOut = append(m.fanOut, time.Duration(a.At-begun.UnixNano()))
		time.Sleep(200 * time.Millisecond)
	}
	_, err = m.streams.ask(order{Do: doClose})
	return err
}

// legs writes without streams, with them, without, and so on, and ends without: so
// what changes with time weighs the same on both sides. What is slow with files that
// are new comes before, and is no leg.
func (m *measurement) legs() error {
	time.Sleep(settle)
	if _, err := m.writers.ask(order{Do: doWrite, Conns: closedWriters, For: warming * m.size.closed}); err != nil {
		return err
	}
	a, err := m.writers.ask(order{Do: doWrite, Conns: closedWriters, For: m.size.closed})
	if err != nil {
		return err
	}
	reached := float64(len(a.Sample.Took)) / a.Sample.Lasted.Seconds()
	m.rate = max(rateStep, float64(int(reached*rateShare/rateStep)*rateStep))
	for i := range m.size.pairs {
		if err := m.leg(&m.without, 0, i); err != nil {
			return err
		}
		if _, err := m.streams.ask(order{Do: doOpen, Watching: watchers, Idle: m.size.streams - watchers}); err != nil {
			return err
		}
		if err := m.leg(&m.with, watchers, i); err != nil {
			return err
		}
		if _, err := m.streams.ask(order{Do: doClose}); err != nil {
			return err
		}
	}
	return m.leg(&m.without, 0, m.size.pairs)
}

// leg writes in both ways. Each write has to come to each of the watching streams,
// once.
func (m *measurement) leg(into *[]leg, watching int64, seed int) error {
	time.Sleep(settle)
	if _, err := m.streams.ask(order{Do: doZero}); err != nil {
		return err
	}
	var l leg
	a, err := m.writers.ask(order{Do: doWrite, Conns: closedWriters, For: m.size.closed})
	if err != nil {
		return err
	}
	l.closed = a.Sample
	time.Sleep(time.Second)
	before, err := cpu(m.node.cmd.Process.Pid)
	if err != nil {
		return err
	}
	if a, err = m.writers.ask(order{Do: doWrite, Conns: openConns, Rate: m.rate, For: m.size.open, Seed: uint64(seed)}); err != nil {
		return err
	}
	l.open = a.Sample
	after, err := cpu(m.node.cmd.Process.Pid)
	if err != nil {
		return err
	}
	l.nodeCPU = after - before
	want := watching * int64(len(l.closed.Took)+len(l.open.Took))
	if a, err = m.streams.ask(order{Do: doAwait, Changes: want}); err != nil {
		return err
	}
	if l.changes = a.Changes; l.changes != want {
		return fmt.Errorf("%d changes came to the streams, of %d", l.changes, want)
	}
	*into = append(*into, l)
	return nil
}
