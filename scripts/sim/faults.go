package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"quinto/cluster"
)

// kind is a kind of fault. do strikes, and returns whom it struck, in words ("": there
// was nobody to strike) and what ends it; nil: nothing has to.
type kind struct {
	name   string
	weight int
	hold   time.Duration // at most, beyond the least
	do     func(s *strike) (whom string, heal func())
}

// strike is one event on its way.
type strike struct {
	w    *world
	e    *event
	rand *rand.Rand
	held []*machine // kept from other faults until it ends
}

var kinds []kind

// The table refers to functions that use it.
func init() {
	kinds = []kind{
		{"crash", 8, time.Second, crashSome(one)},
		{"crash-majority", 3, 700 * time.Millisecond, crashSome(majority)},
		{"crash-all", 3, 500 * time.Millisecond, crashSome(all)},
		{"crash-at-point", 6, time.Second, crashAtPoint},
		{"crash-behind", 5, time.Second, crashBehind},
		{"restart", 3, 400 * time.Millisecond, restart},
		{"pause", 5, time.Second, pause},
		{"isolate", 6, time.Second, isolate(true, true)},
		{"isolate-in", 4, time.Second, isolate(true, false)},
		{"isolate-out", 4, time.Second, isolate(false, true)},
		{"split", 5, time.Second, split},
		{"bridge", 4, time.Second, bridge},
		{"flap", 3, time.Second, flap},
		{"raft-only", 2, time.Second, plane(false)},
		{"gossip-only", 2, time.Second, plane(true)},
		{"slow-links", 4, time.Second, slowLinks},
		{"lossy-links", 4, time.Second, lossyLinks},
		{"cut-connections", 4, 100 * time.Millisecond, cutConnections},
		{"disk-hangs", 4, 1500 * time.Millisecond, diskFault(func(d *disk) func() { return d.hangs() })},
		{"disk-fails", 4, time.Second, diskFault(func(d *disk) func() {
			d.set(func(d *disk) { d.failing = true })
			return func() { d.set(func(d *disk) { d.failing = false }) }
		})},
		{"disk-full", 3, 1500 * time.Millisecond, diskFault(func(d *disk) func() {
			d.set(func(d *disk) { d.full = true })
			return func() { d.set(func(d *disk) { d.full = false }) }
		})},
		{"clock-jump", 5, time.Second, clockJump},
		{"transfer", 4, 100 * time.Millisecond, transfer},
		{"add-node", 4, time.Second, addNode},
		{"wiped-disk", 3, 500 * time.Millisecond, wipe},
		{"remove-node", 4, 500 * time.Millisecond, removeNode},
	}
}

func kindNamed(name string) *kind {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	return &kinds[i] // plans name what is there
}

// free are the machines that run and that no other fault holds, in random order, but
// the leader first if the event means it, and last if not.
func (s *strike) free() []*machine {
	var all []*machine
	leader := s.w.leader()
	for _, m := range s.w.members() {
		m.mu.Lock()
		if m.process != nil && !m.busy {
			all = append(all, m)
		}
		m.mu.Unlock()
	}
	s.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	slices.SortStableFunc(all, func(a, b *machine) int {
		switch {
		case a == b || (a == leader) == (b == leader):
			return 0
		case (a == leader) == s.e.Leader:
			return -1
		}
		return 1
	})
	return all
}

// hold keeps other faults from machines until this one ends.
func (s *strike) hold(all []*machine) []*machine {
	for _, m := range all {
		m.mu.Lock()
		m.busy = true
		m.mu.Unlock()
	}
	s.held = append(s.held, all...)
	return all
}

func (s *strike) release() {
	for _, m := range s.held {
		m.mu.Lock()
		m.busy = false
		m.mu.Unlock()
	}
}

// target is one machine; nil: there is none.
func (s *strike) target() *machine {
	free := s.free()
	if len(free) == 0 {
		return nil
	}
	return s.hold(free[:1])[0]
}

func names(all []*machine) string {
	var b []string
	for _, m := range all {
		b = append(b, m.name)
	}
	return strings.Join(b, " ")
}

func one(int) int        { return 1 }
func majority(n int) int { return n/2 + 1 }
func all(n int) int      { return n }

func crashSome(count func(int) int) func(*strike) (string, func()) {
	return func(s *strike) (string, func()) {
		free := s.free()
		struck := s.hold(free[:min(len(free), count(s.w.plan.Nodes))])
		for _, m := range struck {
			m.crash()
		}
		return names(struck), func() {
			for _, m := range struck {
				s.w.boot(m)
			}
		}
	}
}

var localPoints = []string{"after_flush", "after_meta"}
var restorePoints = []string{"recv_start", "recv_done", "mid_unpack", "before_swap", "during_swap", "after_swap", "after_restore"}

// crashAtPoint lets a node end within a snapshot of its own.
func crashAtPoint(s *strike) (string, func()) {
	m := s.target()
	if m == nil {
		return "", nil
	}
	point := localPoints[s.rand.IntN(len(localPoints))]
	m.arm(point)
	return m.name + " at " + point, func() {
		m.arm("")
		s.w.boot(m)
	}
}

// arm names the point at which the node is to crash; "" for none.
func (m *machine) arm(point string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crashAt = point
}

// crashBehind takes a node away for so long that it needs a snapshot from the leader,
// and lets it end while it takes that.
func crashBehind(s *strike) (string, func()) {
	s.e.Leader = false
	m := s.target()
	if m == nil {
		return "", nil
	}
	m.crash()
	point := restorePoints[s.rand.IntN(len(restorePoints))]
	return m.name + " at " + point, func() {
		s.w.await(2*time.Second, func() bool { return s.w.committed()-m.disk.last() > 2*(snapshotAt+trailing) })
		m.arm(point)
		s.w.boot(m)
		s.w.await(2*time.Second, func() bool { return m.running() == nil })
		m.arm("")
		s.w.boot(m)
	}
}

// last is the index of the last entry in the log.
func (d *disk) last() uint64 {
	d.mu.Lock()
	f := d.log
	d.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func restart(s *strike) (string, func()) {
	m := s.target()
	if m == nil {
		return "", nil
	}
	if err := m.stop(); err != nil {
		s.w.say("%s stops with %v", m.name, err)
	}
	return m.name, func() { s.w.boot(m) }
}

func pause(s *strike) (string, func()) {
	m := s.target()
	if m == nil {
		return "", nil
	}
	return m.name, m.freeze()
}

func isolate(in, out bool) func(*strike) (string, func()) {
	return func(s *strike) (string, func()) {
		m := s.target()
		if m == nil {
			return "", nil
		}
		return m.name, s.w.net.impose(func(r route) effect {
			return effect{cut: r.to != r.from && (in && r.to == m.name || out && r.from == m.name)}
		})
	}
}

// split cuts the nodes into two groups.
func split(s *strike) (string, func()) {
	side := map[string]bool{}
	var a []string
	for _, m := range s.w.members() {
		if s.rand.IntN(2) == 0 {
			side[m.name] = true
			a = append(a, m.name)
		}
	}
	return fmt.Sprintf("%v from the others", a), s.w.net.impose(func(r route) effect { return effect{cut: side[r.from] != side[r.to]} })
}

// bridge leaves one node that sees all, and cuts the others into two groups.
func bridge(s *strike) (string, func()) {
	free := s.free()
	if len(free) < 3 {
		return "", nil
	}
	middle, side := free[0].name, map[string]bool{}
	for i, m := range free[1:] {
		side[m.name] = i%2 == 0
	}
	return "all but " + middle, s.w.net.impose(func(r route) effect {
		return effect{cut: r.from != middle && r.to != middle && side[r.from] != side[r.to]}
	})
}

// flap isolates a node again and again.
func flap(s *strike) (string, func()) {
	m := s.target()
	if m == nil {
		return "", nil
	}
	begin, period := time.Now(), time.Duration(60+s.rand.IntN(300))*time.Millisecond
	lift := s.w.net.impose(func(r route) effect {
		return effect{cut: (r.from == m.name || r.to == m.name) && time.Since(begin)/period%2 == 0}
	})
	end := make(chan struct{})
	go func() {
		tick := time.NewTicker(period)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.w.net.look()
			case <-end:
				return
			}
		}
	}()
	return m.name, func() { close(end); lift() }
}

// look makes all look again whether something may pass.
func (n *network) look() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stir()
}

// plane cuts a node's gossip alone, or all but its gossip.
func plane(gossip bool) func(*strike) (string, func()) {
	return func(s *strike) (string, func()) {
		m := s.target()
		if m == nil {
			return "", nil
		}
		return m.name, s.w.net.impose(func(r route) effect {
			return effect{cut: r.gossip == gossip && (r.from == m.name || r.to == m.name)}
		})
	}
}

func slowLinks(s *strike) (string, func()) {
	d := time.Duration(5+s.rand.IntN(80)) * time.Millisecond
	return "by " + d.String(), s.w.net.impose(func(route) effect { return effect{delay: d} })
}

func lossyLinks(s *strike) (string, func()) {
	loss := 0.02 + 0.3*s.rand.Float64()
	return fmt.Sprintf("%.0f %%", 100*loss), s.w.net.impose(func(route) effect { return effect{loss: loss} })
}

func cutConnections(s *strike) (string, func()) {
	share := s.rand.IntN(3)
	s.w.net.breakAll(func(r route) bool { return share == 0 || s.rand.IntN(share+1) == 0 })
	return "some", nil
}

func diskFault(begin func(*disk) func()) func(*strike) (string, func()) {
	return func(s *strike) (string, func()) {
		m := s.target()
		if m == nil {
			return "", nil
		}
		return m.name, begin(m.disk)
	}
}

// clockJump sets a clock wrong, by so much at times that the node must not lead.
func clockJump(s *strike) (string, func()) {
	m := s.target()
	if m == nil {
		return "", nil
	}
	by := []time.Duration{-time.Hour, -20 * time.Second, -time.Second, time.Second, 20 * time.Second, time.Hour}[s.rand.IntN(6)]
	m.skew.Add(int64(by))
	return fmt.Sprintf("%s by %s", m.name, by), func() { m.skew.Add(-int64(by)) }
}

func transfer(s *strike) (string, func()) {
	l := s.w.leader()
	if l == nil {
		return "", nil
	}
	p := l.running()
	if p == nil {
		return "", nil
	}
	go func() {
		if err := p.node.TransferLeadership("the simulation"); err != nil {
			s.w.say("%s keeps the lead: %v", l.name, err)
		}
	}()
	return "from " + l.name, nil
}

// addNode lets a new node join; one at most in a run.
func addNode(s *strike) (string, func()) {
	m := s.w.newcomer()
	if m == nil {
		return "", nil
	}
	s.w.boot(m)
	return m.name, nil
}

// wipe lets a node come back under its name with an empty disk. It has forgotten its
// votes, so it must be refused.
func wipe(s *strike) (string, func()) {
	// Whom nobody has admitted yet is new, with any disk.
	free := slices.DeleteFunc(s.free(), func(m *machine) bool { return m.joining })
	if len(free) == 0 || !s.w.lose(free[0].name) {
		return "", nil
	}
	m := s.hold(free[:1])[0]
	m.crash()
	m.wipe()
	s.w.boot(m)
	p := m.running()
	return m.name, func() {
		if p != nil {
			s.w.await(2*time.Second, func() bool { return p.node.Err() != nil })
			if p.node.Ready() == nil {
				s.w.fail(fmt.Errorf("%s was let in with an empty disk", m.name))
			}
		}
		m.retire()
	}
}

// removeNode asks for the removal of a member, and ends it when that is done; one at
// most in a run.
func removeNode(s *strike) (string, func()) {
	free := s.free()
	if len(free) < 2 || len(s.w.members()) <= 3 && s.w.plan.Nodes > 3 || !s.w.lose(free[0].name) {
		return "", nil
	}
	m, by := s.hold(free[:1])[0], free[1]
	p := by.running()
	if p == nil {
		return "", nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		_, err := p.node.ChangeMember(ctx, cluster.Change{Action: cluster.ActionRemove, Name: m.name}, nil)
		s.w.say("removal of %s: %v", m.name, err)
		if err == nil {
			m.retire()
		}
	}()
	return m.name, func() { <-done }
}
