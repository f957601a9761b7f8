package cluster

import (
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
)

// peerMeta is what a node tells of itself by gossip. It is a hint: it may be
// old, and who leads or belongs to the cluster is Raft's word.
type peerMeta struct {
	Name     string // memberlist's own; not in the encoding
	ID       string
	Addr     string // cluster port
	HTTP     string
	Cluster  string // "" until known
	Expect   uint64
	Empty    bool   // has no Raft state
	Proposal uint64 // hash of the founders that this node would bootstrap with
}

const metaFormat = 1

func (p *peerMeta) encode() []byte {
	b := []byte{metaFormat}
	b = appendString(appendString(appendString(appendString(b, p.ID), p.Addr), p.HTTP), p.Cluster)
	b = binary.AppendUvarint(b, p.Expect)
	return binary.AppendUvarint(appendBool(b, p.Empty), p.Proposal)
}

func decodeMeta(name string, b []byte) (peerMeta, bool) {
	if len(b) == 0 || b[0] != metaFormat {
		return peerMeta{}, false
	}
	d := decoder{b: b[1:]}
	p := peerMeta{Name: name, ID: d.string(), Addr: d.string(), HTTP: d.string(), Cluster: d.string()}
	p.Expect, p.Empty, p.Proposal = d.uint(), d.bool(), d.uint()
	return p, d.err == nil && p.ID != "" && len(name) <= MaxNameBytes
}

// gossip discovers peers. Without a gossip address it knows nobody.
type gossip struct {
	log  hclog.Logger
	name string // own
	id   string // own node id
	list *memberlist.Memberlist
	addr string              // that others can join through; "" without gossip
	ring *memberlist.Keyring // nil: plaintext

	meta     atomic.Pointer[peerMeta] // own
	mu       sync.Mutex
	alive    map[string]peerMeta // kept by events: memberlist's own list may not be read while it works
	seen     map[string]string   // name → gossip address, also of those that are gone
	conflict string              // another node that uses our name; "" when there is none

	joinError string // of the last contact with seeds
}

// openGossip starts to listen; nobody is joined yet.
func openGossip(c *Config, own peerMeta) (*gossip, error) {
	g := &gossip{log: c.Logger.Named("gossip"), name: c.Name, id: own.ID, alive: map[string]peerMeta{}, seen: map[string]string{}}
	g.meta.Store(&own)
	if c.GossipAddr == "" {
		return g, nil
	}
	mc, err := gossipConfig(c, g)
	if err != nil {
		return nil, err
	}
	if g.list, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("cluster: gossip on %q: %w", c.GossipAddr, err)
	}
	g.addr = net.JoinHostPort(mc.BindAddr, strconv.Itoa(mc.BindPort)) // the port may have been 0
	return g, nil
}

func gossipConfig(c *Config, g *gossip) (*memberlist.Config, error) {
	host, portText, err := net.SplitHostPort(c.GossipAddr)
	if err != nil {
		return nil, fmt.Errorf("%w: gossip address %q", ErrConfig, c.GossipAddr)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%w: gossip port %q", ErrConfig, portText)
	}
	ip, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return nil, fmt.Errorf("%w: gossip address %q: %w", ErrConfig, c.GossipAddr, err)
	}
	host = ip.String()
	mc := memberlist.DefaultLANConfig()
	if ip.IP.IsLoopback() {
		mc = memberlist.DefaultLocalConfig()
	}
	mc.Name, mc.BindAddr, mc.BindPort = c.Name, host, int(port)
	mc.AdvertiseAddr, mc.AdvertisePort = host, int(port)
	mc.Transport = c.GossipTransport
	mc.Label = c.GossipLabel // without keys too: clusters that meet by mistake stay apart
	if c.GossipKeys != nil {
		keys := c.GossipKeys.Keys()
		if g.ring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
			return nil, fmt.Errorf("%w: gossip keys: %w", ErrConfig, err)
		}
		mc.Keyring = g.ring
		mc.GossipVerifyIncoming, mc.GossipVerifyOutgoing = true, true // what is not encrypted is dropped unread
	}
	// A node that comes back under its name with another address.
	mc.DeadNodeReclaimTime = 5 * time.Second
	mc.Delegate, mc.Conflict, mc.Events = g, g, g
	mc.LogOutput = nil
	mc.Logger = g.log.StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true, ForceLevel: hclog.Debug})
	return mc, nil
}

// peers returns the living nodes but this one.
func (g *gossip) peers() []peerMeta {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]peerMeta, 0, len(g.alive))
	for _, p := range g.alive {
		out = append(out, p)
	}
	return out
}

// peer returns what gossip knows of name.
func (g *gossip) peer(name string) (peerMeta, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, ok := g.alive[name]
	return p, ok
}

// NotifyJoin is memberlist.EventDelegate's.
func (g *gossip) NotifyJoin(m *memberlist.Node) {
	p, ok := decodeMeta(m.Name, m.Meta)
	if !ok || m.Name == g.name {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.seen[m.Name]; known || len(g.seen) < maxGossipPeers {
		g.alive[m.Name], g.seen[m.Name] = p, m.Address()
	}
}

// NotifyUpdate is memberlist.EventDelegate's.
func (g *gossip) NotifyUpdate(m *memberlist.Node) { g.NotifyJoin(m) }

// NotifyLeave is memberlist.EventDelegate's. It removes a hint, never a member.
func (g *gossip) NotifyLeave(m *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.alive, m.Name)
}

// maxGossipPeers bounds what strangers can make us remember.
const maxGossipPeers = 4 * MaxMembers

// announce changes what this node tells of itself.
func (g *gossip) announce(change func(*peerMeta)) {
	next := *g.meta.Load()
	change(&next)
	if next == *g.meta.Load() {
		return
	}
	g.meta.Store(&next)
	if g.list != nil {
		if err := g.list.UpdateNode(leaveTimeout); err != nil {
			g.log.Debug("metadata not spread yet", "error", err)
		}
	}
}

// join contacts the seeds and all nodes ever seen; that some do not answer is
// normal.
func (g *gossip) join(seeds []string) {
	if g.list == nil {
		return
	}
	addrs := append([]string(nil), seeds...)
	g.mu.Lock()
	for _, a := range g.seen {
		addrs = append(addrs, a)
	}
	g.mu.Unlock()
	_, err := g.list.Join(addrs)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.joinError = ""
	if err != nil {
		g.log.Debug("join", "error", err)
		g.joinError = strings.Join(strings.Fields(err.Error()), " ") // one line
	}
}

// joinFailure is what the last contact with seeds failed by; empty: nothing.
func (g *gossip) joinFailure() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.joinError
}

// leave says goodbye and stops.
func (g *gossip) leave() error {
	if g.list == nil {
		return nil
	}
	if err := g.list.Leave(leaveTimeout); err != nil {
		g.log.Debug("leave", "error", err)
	}
	return g.list.Shutdown()
}

// NodeMeta is memberlist.Delegate's.
func (g *gossip) NodeMeta(limit int) []byte {
	b := g.meta.Load().encode()
	if len(b) > limit { // lengths are checked when the node is opened
		g.log.Error("metadata beyond the limit", "bytes", len(b), "limit", limit)
		return nil
	}
	return b
}

// NotifyMsg is memberlist.Delegate's; nothing is sent this way.
func (g *gossip) NotifyMsg([]byte) {}

// GetBroadcasts is memberlist.Delegate's; nothing is sent this way.
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is memberlist.Delegate's; nothing is sent this way.
func (g *gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState is memberlist.Delegate's; nothing is sent this way.
func (g *gossip) MergeRemoteState([]byte, bool) {}

// NotifyConflict is memberlist.ConflictDelegate's: two living nodes use a name.
func (g *gossip) NotifyConflict(existing, other *memberlist.Node) {
	p, ok := decodeMeta(other.Name, other.Meta)
	if !ok || p.ID == g.id {
		return
	}
	if known, ok := decodeMeta(existing.Name, existing.Meta); ok && known.ID == p.ID {
		g.NotifyJoin(other) // the same node has moved, and its goodbye is still on its way
		return
	}
	g.log.Error("two nodes use one name", "name", other.Name, "known", existing.Address(), "refused", other.Address())
	if existing.Name == g.name {
		g.mu.Lock()
		g.conflict = other.Address()
		g.mu.Unlock()
	}
}

// nameConflict returns the address of another node that uses our name, or "".
func (g *gossip) nameConflict() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conflict
}
