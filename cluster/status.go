package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// nodeStatus is how far a node is.
type nodeStatus struct {
	Name, ID, HTTP, Addr string
	Term                 uint64
	Revision             fsm.Revision
	Applied              uint64 // Raft index
	Ready                bool

	// Since feature level 1 of the exchange; an older node sends none of it.
	Clock     uint64 // ms since 1970; 0: not told
	LastIndex uint64 // of its log
	Received  uint64 // bytes of snapshots
	Unpacking bool   // a snapshot
	Writable  bool
	Gossip    string // its gossip address
	Alarms    []alarm
	Archived  uint64 // index up to which the log is archived; 0: not told, and not sent
	Archives  bool   // the node itself archives it; false is not sent
}

// alarm is what a node has to say of itself, or the leader of another.
type alarm struct{ Node, Text string }

// maxAlarms bounds what one node tells.
const maxAlarms = 4 * MaxMembers

func (s *nodeStatus) encode() []byte {
	b := appendString(appendString(appendString(appendString(nil, s.Name), s.ID), s.HTTP), s.Addr)
	b = binary.AppendUvarint(binary.AppendUvarint(b, s.Term), uint64(s.Revision))
	b = appendBool(binary.AppendUvarint(b, s.Applied), s.Ready)
	b = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, s.Clock), s.LastIndex), s.Received)
	b = appendString(appendBool(appendBool(b, s.Unpacking), s.Writable), s.Gossip)
	b = binary.AppendUvarint(b, uint64(len(s.Alarms)))
	for _, a := range s.Alarms {
		b = appendString(appendString(b, a.Node), a.Text)
	}
	if s.Archived > 0 {
		b = binary.AppendUvarint(b, s.Archived)
		if s.Archives {
			b = appendBool(b, true)
		}
	}
	return b
}

func decodeStatus(b []byte) (*nodeStatus, error) {
	d := decoder{b: b}
	s := &nodeStatus{Name: d.string(), ID: d.string(), HTTP: d.string(), Addr: d.string()}
	s.Term, s.Revision, s.Applied, s.Ready = d.uint(), fsm.Revision(d.uint()), d.uint(), d.bool()
	s.Clock, s.LastIndex, s.Received = d.uint(), d.uint(), d.uint()
	s.Unpacking, s.Writable, s.Gossip = d.bool(), d.bool(), d.string()
	count := d.uint()
	if count > maxAlarms {
		return nil, fmt.Errorf("%w: %d alarms", fsm.ErrCorrupt, count)
	}
	for range count {
		s.Alarms = append(s.Alarms, alarm{Node: d.string(), Text: d.string()})
	}
	s.Archived, s.Archives = d.uint(), d.bool()
	return s, d.err
}

func (n *Node) status() *nodeStatus {
	received, unpacking := n.store.Receiving()
	return &nodeStatus{
		Name: n.cfg.Name, ID: n.ident.get().ID, HTTP: n.cfg.HTTPAddr, Addr: n.addr,
		Term: n.raft.CurrentTerm(), Revision: n.fsm.Revision(), Applied: n.fsm.Applied(), Ready: n.Ready() == nil,
		Clock: uint64(max(n.Now(), 0)), LastIndex: n.raft.LastIndex(), Received: received, Unpacking: unpacking,
		Writable: n.WriteError() == nil, Gossip: n.gossip.addr, Alarms: n.alarms(),
		Archived: n.archived.Load(), Archives: n.archives.Load(),
	}
}

func (n *Node) serveStatus(context.Context, []byte) (callStatusCode, []byte) {
	return statusOK, n.status().encode()
}

func (n *Node) askStatus(ctx context.Context, name, addr string) (*nodeStatus, error) {
	if name == n.cfg.Name {
		return n.status(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	f, err := n.client.call(ctx, name, addr, callStatus, nil)
	if err != nil {
		return nil, err
	}
	if f.status != statusOK {
		return nil, fmt.Errorf("cluster: status of %q: answer %d", name, f.status)
	}
	return decodeStatus(f.payload)
}

// Ready returns nil when this node serves linearizable reads now, else why not.
func (n *Node) Ready() error {
	switch {
	case n.ctx.Err() != nil:
		return fsm.ErrClosed
	case n.health.fault() != nil:
		return n.health.fault()
	case n.fsm.HaltError() != nil:
		return n.fsm.HaltError()
	case !n.caughtUp.Load():
		return errors.New("cluster: has not caught up since its start")
	case n.IsLeader():
		return nil
	}
	if l, ok := n.currentLeader(); !ok || l.self {
		return fsm.ErrNoLeader
	}
	if behind := n.behind(); behind > readyLag {
		return fmt.Errorf("cluster: catching up, %d entries of the log behind the leader", behind)
	}
	if s := n.Staleness(); s > staleLimit*n.cfg.HeartbeatTimeout {
		return fmt.Errorf("%w: no word for %s", fsm.ErrNoLeader, s)
	}
	return nil
}

// staleLimit is after how many heartbeat timeouts without a word from the
// leader a follower calls itself not ready.
const staleLimit = 2

// readyLag is how many entries of the log a node may be behind what the leader had
// applied a moment ago, and still call itself ready.
const readyLag = 1024

// Members returns the members as Raft knows them, each asked how far it is, for
// at most a second. A member that does not answer has revision 0 and is not
// ready.
func (n *Node) Members(ctx context.Context) ([]fsm.Member, error) {
	servers := n.servers()
	if len(servers) == 0 {
		servers = []raft.Server{{ID: raft.ServerID(n.cfg.Name), Address: raft.ServerAddress(n.addr), Suffrage: raft.Nonvoter}}
	}
	_, leaderID := n.raft.LeaderWithID()
	out := make([]fsm.Member, len(servers))
	alarms, silent := make([][]alarm, len(servers)), make([]bool, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			st := n.member(ctx, s, leaderID, &out[i])
			if silent[i] = st == nil; st != nil {
				alarms[i] = st.Alarms
			}
		})
	}
	wg.Wait()
	for i := range out {
		for _, a := range slices.Concat(alarms...) {
			if a.Node == out[i].Name && !slices.Contains(out[i].Alarms, a.Text) {
				out[i].Alarms = append(out[i].Alarms, a.Text)
			}
		}
		if silent[i] && len(out[i].Alarms) == 0 { // the leader says since when
			out[i].Alarms = []string{"does not answer"}
		}
	}
	var top fsm.Revision
	for _, m := range out {
		top = max(top, m.Revision)
		if m.Role == roleLeader && m.Revision > 0 {
			top = m.Revision
			break
		}
	}
	for i := range out {
		if out[i].Revision < top {
			out[i].Lag = uint64(top - out[i].Revision)
		}
	}
	return out, ctx.Err()
}

const (
	roleLeader   = "leader"
	roleFollower = "follower"
	voter        = "voter"
	nonvoter     = "nonvoter"
)

func suffrage(s raft.Server) string {
	if s.Suffrage == raft.Voter {
		return voter
	}
	return nonvoter
}

// member fills in m and returns what the node has answered; nil: nothing.
func (n *Node) member(ctx context.Context, s raft.Server, leaderID raft.ServerID, m *fsm.Member) *nodeStatus {
	name := string(s.ID)
	*m = fsm.Member{Name: name, Role: roleFollower, Suffrage: suffrage(s), Cluster: n.peerAddr(name, string(s.Address))}
	if s.ID == leaderID {
		m.Role = roleLeader
	}
	if p, ok := n.gossip.peer(name); ok {
		m.HTTP = p.HTTP
	}
	st, err := n.askStatus(ctx, name, m.Cluster)
	if err != nil {
		n.log.Debug("no status", "node", name, "error", err)
		return nil
	}
	m.HTTP, m.Revision, m.Ready = st.HTTP, st.Revision, st.Ready
	return st
}

// Standing returns what this node is now: "leader", "follower", or "nonvoter" while
// it has no vote; and how many revisions it is behind what the leader had a moment
// ago. It asks nobody.
func (n *Node) Standing() (role string, lag uint64) {
	if n.IsLeader() {
		return roleLeader, 0
	}
	role = nonvoter
	for _, s := range n.servers() {
		if string(s.ID) == n.cfg.Name && s.Suffrage == raft.Voter {
			role = roleFollower
		}
	}
	if st := n.leaderStatus(); st != nil {
		lag = uint64(max(st.Revision, n.fsm.Revision()) - n.fsm.Revision())
	}
	return role, lag
}

// Leader returns the leader as this node knows it, without asking it anything:
// Revision, Lag and Ready are set only when it is this node.
func (n *Node) Leader() (fsm.Member, bool) {
	addr, id := n.raft.LeaderWithID()
	if id == "" {
		return fsm.Member{}, false
	}
	m := fsm.Member{Name: string(id), Role: roleLeader, Suffrage: voter}
	if m.Name == n.cfg.Name && n.health.out() {
		return fsm.Member{}, false // Raft does not notice a disk that hangs
	}
	if m.Name == n.cfg.Name {
		m.HTTP, m.Cluster, m.Revision, m.Ready = n.cfg.HTTPAddr, n.addr, n.fsm.Revision(), n.Ready() == nil
		return m, true
	}
	m.Cluster = n.peerAddr(m.Name, string(addr))
	if p, ok := n.gossip.peer(m.Name); ok {
		m.HTTP = p.HTTP
	}
	return m, true
}
