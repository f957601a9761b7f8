package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// DefaultCompareInterval is how often a node compares its state with the others'.
const DefaultCompareInterval = 5 * time.Second

func encodeStateMarks(marks []fsm.Mark) []byte {
	b := binary.AppendUvarint(nil, uint64(len(marks)))
	for _, m := range marks {
		b = appendString(binary.AppendUvarint(b, m.Index), string(m.Hash[:]))
	}
	return b
}

func decodeStateMarks(b []byte) (map[uint64][sha256.Size]byte, error) {
	d := decoder{b: b}
	n := d.uint()
	if n > fsm.MarksKept+1 {
		return nil, fmt.Errorf("%w: %d marks", fsm.ErrCorrupt, n)
	}
	marks := make(map[uint64][sha256.Size]byte, n)
	for range n {
		var h [sha256.Size]byte
		at := d.uint()
		if copy(h[:], d.bytes()) != len(h) && d.err == nil {
			d.err = fmt.Errorf("%w: a hash between nodes", fsm.ErrCorrupt)
		}
		marks[at] = h
	}
	return marks, d.err
}

func (n *Node) serveMarks(context.Context, []byte) (callStatusCode, []byte) {
	return statusOK, encodeStateMarks(n.fsm.Marks())
}

// compareLoop compares this node's rolling hash with the other voters', at places of
// the log that they have in common. A node that a majority of the voters contradicts
// leaves service for good: its answers would be wrong. It notes that, so that a restart does
// not bring it back, and cmd's rebuild is the way out. Without a majority nobody
// knows who is right: it is logged, and nothing stops.
func (n *Node) compareLoop() {
	tick := time.NewTicker(n.cfg.CompareInterval)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-tick.C:
		case <-n.health.failed:
			return
		case <-n.ctx.Done():
			return
		}
		own := n.fsm.Marks()
		v := judge(own, n.peerMarks(), n.voters())
		if v.wrong {
			n.standDown(&v)
			return
		}
		if v.text != last && v.text != "" {
			n.log.Error("nodes hold different states, and no majority says which is right", "what", v.text)
		}
		last = v.text
	}
}

// peerMarks asks the other voters for their marks; who does not answer is left out.
func (n *Node) peerMarks() map[string]map[uint64][sha256.Size]byte {
	ctx, cancel := context.WithTimeout(n.ctx, statusTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	all := map[string]map[uint64][sha256.Size]byte{}
	for _, s := range n.servers() {
		name := string(s.ID)
		if s.Suffrage != raft.Voter || name == n.cfg.Name {
			continue
		}
		wg.Go(func() {
			f, err := n.client.call(ctx, name, n.peerAddr(name, string(s.Address)), callMarks, nil)
			if err != nil || f.status != statusOK {
				return // an older version, or away
			}
			marks, err := decodeStateMarks(f.payload)
			if err != nil {
				n.log.Warn("marks of another node", "node", name, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all[name] = marks
		})
	}
	wg.Wait()
	return all
}

// verdict is what a comparison found.
type verdict struct {
	wrong bool     // a majority contradicts this node
	by    []string // those who do
	at    uint64   // the place of the log
	text  string   // who differs, without a majority; empty: nobody
}

// judge looks for the newest place at which a majority of voters agrees, and says
// whether this node is among them.
func judge(own []fsm.Mark, peers map[string]map[uint64][sha256.Size]byte, voters int) verdict {
	var open verdict
	for _, m := range slices.Backward(own) {
		by := map[[sha256.Size]byte][]string{}
		for name, marks := range peers {
			if h, ok := marks[m.Index]; ok {
				by[h] = append(by[h], name)
			}
		}
		if len(by[m.Hash])+1 > voters/2 && len(by[m.Hash]) > 0 {
			return verdict{}
		}
		for h, names := range by {
			if h == m.Hash {
				continue
			}
			slices.Sort(names)
			if len(names) > voters/2 {
				return verdict{wrong: true, by: names, at: m.Index}
			}
			if open.text == "" {
				open = verdict{at: m.Index, text: fmt.Sprintf("%s before entry %d", strings.Join(names, ", "), m.Index)}
			}
		}
	}
	return open
}

// standDown takes this node out of service because its state is wrong.
func (n *Node) standDown(v *verdict) {
	why := fmt.Sprintf("the state differs from that of %s after the entries below %d", strings.Join(v.by, ", "), v.at)
	if err := n.ident.update(func(d *identityData) { d.Damaged = why }); err != nil {
		n.log.Error("cannot note that the state is wrong", "error", err)
	}
	n.halt(fmt.Errorf("cluster: %w: %s; `quinto cluster rebuild` gets it from the others", ErrDamaged, why))
}
