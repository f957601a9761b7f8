package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quinto/fsm"
)

// Nodes whose settings differ answer the same request differently: a user is
// somebody else, a page ends elsewhere. Each node tells the leader marks of its
// settings (an HMAC of each value, keyed by the cluster id), the leader compares and
// answers what differs on which node. That travels by mutual TLS only, since who has
// the marks can try guesses of a weak secret against them.

const (
	maxSettings     = 4096             // compared
	compareInterval = 30 * time.Second // when all is well
	compareRetry    = time.Second
)

// differences are the names of settings by node.
type differences struct {
	collects atomic.Bool // this node leads and has begun a list of its own
	mu       sync.Mutex
	by       map[string][]string
}

func (d *differences) get() map[string][]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.by)
}

// set notes the names of node, and reports whether they are others than before.
func (d *differences) set(node string, names []string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Equal(d.by[node], names) {
		return false
	}
	if d.by == nil {
		d.by = map[string][]string{}
	}
	if d.by[node] = names; len(names) == 0 {
		delete(d.by, node)
	}
	return true
}

func (d *differences) replace(by map[string][]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.by = by
}

// SettingsDiffer returns the names of settings that change answers and are not the
// leader's, by node, as far as the leader has been told; nil when all are equal, or
// nothing is compared because there is no TLS.
func (n *Node) SettingsDiffer() map[string][]string {
	d := n.differ.get()
	maps.DeleteFunc(d, func(node string, _ []string) bool { return !n.isMember(node) }) // one that has left
	if len(d) == 0 {
		return nil
	}
	return d
}

func (n *Node) marks() map[string][]byte { return n.cfg.SettingMarks([]byte(n.clusterID())) }

func encodeMarks(marks map[string][]byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(marks)))
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		b = appendString(appendString(b, name), string(marks[name]))
	}
	return b
}

func decodeMarks(b []byte) (map[string][]byte, error) {
	d := decoder{b: b}
	count := d.uint()
	if count > maxSettings {
		return nil, fmt.Errorf("%w: %d settings", fsm.ErrCorrupt, count)
	}
	marks := map[string][]byte{}
	for range count {
		name := d.string()
		marks[name] = d.bytes()
	}
	return marks, d.err
}

func encodeDifferences(by map[string][]string) []byte {
	b := binary.AppendUvarint(nil, uint64(len(by)))
	for _, node := range slices.Sorted(maps.Keys(by)) {
		b = binary.AppendUvarint(appendString(b, node), uint64(len(by[node])))
		for _, name := range by[node] {
			b = appendString(b, name)
		}
	}
	return b
}

func decodeDifferences(b []byte) (map[string][]string, error) {
	d := decoder{b: b}
	nodes := d.uint()
	if nodes > MaxMembers {
		return nil, fmt.Errorf("%w: settings of %d nodes", fsm.ErrCorrupt, nodes)
	}
	by := map[string][]string{}
	for range nodes {
		node, count := d.string(), d.uint()
		if count > maxSettings {
			return nil, fmt.Errorf("%w: %d settings", fsm.ErrCorrupt, count)
		}
		for range count {
			by[node] = append(by[node], d.string())
		}
	}
	return by, d.err
}

// differing returns the names whose marks are not equal, sorted.
func differing(a, b map[string][]byte) (names []string) {
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !bytes.Equal(a[name], b[name]) {
			names = append(names, name)
		}
	}
	return names
}

// serveSettings is the leader's end.
func (n *Node) serveSettings(ctx context.Context, payload []byte) (callStatusCode, []byte) {
	h, ok := ctx.Value(peerKey{}).(*hello)
	switch {
	case !ok || !h.Proven || n.cfg.SettingMarks == nil:
		return statusRefused, []byte("settings are compared under TLS only")
	case !n.IsLeader() || !n.differ.collects.Load(): // a new leader first forgets what it heard as a follower
		return statusNotLeader, nil
	}
	marks, err := decodeMarks(payload)
	if err != nil {
		return statusRefused, []byte(err.Error())
	}
	names := differing(marks, n.marks())
	if n.differ.set(h.From, names) {
		n.tellDifference(h.From, names)
	}
	return statusOK, encodeDifferences(n.differ.get())
}

func (n *Node) tellDifference(node string, names []string) {
	if len(names) == 0 {
		n.log.Info("settings are equal again", "node", node)
		return
	}
	n.log.Warn("settings that change answers are not the leader's", "node", node, "settings", strings.Join(names, ", "))
}

// compareSettings tells each leader this node's marks, and again from time to time.
func (n *Node) compareSettings() {
	if n.cfg.TLS == nil || n.cfg.SettingMarks == nil {
		return
	}
	for n.ctx.Err() == nil {
		led := n.IsLeader()
		if led && !n.differ.collects.Load() {
			n.differ.replace(nil) // the others will tell a new leader
		}
		n.differ.collects.Store(led)
		leader, _ := n.currentLeader()
		wait := compareInterval
		if !led {
			if err := n.tellSettings(); err != nil {
				n.log.Debug("settings not compared yet", "error", err)
				wait = compareRetry
			}
		}
		for end := time.Now().Add(wait); n.ctx.Err() == nil && time.Now().Before(end); {
			pause(n.ctx, compareRetry)
			if now, _ := n.currentLeader(); now.name != leader.name || n.IsLeader() != led {
				break
			}
		}
	}
}

func (n *Node) tellSettings() error {
	l, ok := n.currentLeader()
	if !ok || l.self || n.clusterID() == "" {
		return fsm.ErrNoLeader
	}
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	f, err := n.client.call(ctx, l.name, l.addr, callSettings, encodeMarks(n.marks()))
	if err != nil {
		return err
	}
	if f.status != statusOK {
		return fmt.Errorf("%w: answer %d", ErrRefused, f.status)
	}
	by, err := decodeDifferences(f.payload)
	if err != nil {
		return err
	}
	if names := by[n.cfg.Name]; !slices.Equal(names, n.differ.get()[n.cfg.Name]) {
		n.tellDifference(n.cfg.Name, names)
	}
	n.differ.replace(by)
	return nil
}
