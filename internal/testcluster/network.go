package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"time"

	"quinto/internal/freeport"
)

// ErrNoNetwork says why nodes cannot have network namespaces of their own here;
// they then stay on loopback, and faults of the network cannot be had.
var ErrNoNetwork = errors.New("testcluster: no network namespaces")

// Plane is one of the two networks between nodes.
type Plane int

// Raft, forwarded requests and calls travel on one plane, gossip on the other: each
// node has an address on both.
const (
	RaftPlane Plane = iota
	GossipPlane
	planes = 2
)

// Link says what happens to packets from one node to another. The zero value is a
// link without faults.
type Link struct {
	Down   bool
	Loss   float64       // share of the packets that vanish
	Delay  time.Duration // of every packet
	Jitter time.Duration // added to or taken from Delay, at random
}

// The ports of a node in a namespace of its own.
const (
	hostHTTP   = 8888
	hostPeer   = 7888
	hostGossip = 7988
)

// host is where a node runs.
type host interface {
	// run calls f on a thread in the host's network: what f starts or opens is there.
	run(f func() error) error
	addr(p Plane) string
	close() error
}

// newClient makes connections from the node's own host, as a client beside it.
func newClient(h host) *http.Client {
	d := net.Dialer{Timeout: 5 * time.Second, FallbackDelay: -1}
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     30 * time.Second,
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			err = h.run(func() error {
				c, err = d.DialContext(ctx, network, addr)
				return err
			})
			return c, err
		},
	}}
}

// place is where clients reach a node; it is replaced as a whole when the node moves,
// while they go on.
type place struct {
	http   string
	client *http.Client
}

// Client is for requests from where the node runs; n.URL is reachable by it.
func (n *Node) Client() *http.Client { return n.place.Load().client }

// Listen opens a TCP port where the node runs, for what the node calls.
func (n *Node) Listen(addr string) (l net.Listener, err error) {
	if n.host == nil {
		return net.Listen("tcp4", addr)
	}
	err = n.host.run(func() error {
		l, err = net.Listen("tcp4", addr)
		return err
	})
	return l, err
}

// run starts cmd where the node runs.
func (n *Node) run(cmd *exec.Cmd) error {
	if n.host == nil {
		return cmd.Start()
	}
	return n.host.run(cmd.Start)
}

// settle gives the node its addresses.
func (n *Node) settle() error {
	if w := n.cluster.opt.Network; w != nil {
		h, err := w.add()
		if err != nil {
			return err
		}
		n.host = h
		n.HTTP = fmt.Sprintf("%s:%d", h.addr(RaftPlane), hostHTTP)
		n.Peer = fmt.Sprintf("%s:%d", h.addr(RaftPlane), hostPeer)
		n.Gossip = fmt.Sprintf("%s:%d", h.addr(GossipPlane), hostGossip)
		n.place.Store(&place{n.HTTP, newClient(h)})
		return nil
	}
	for _, addr := range []*string{&n.HTTP, &n.Peer, &n.Gossip} {
		var err error
		if *addr, err = freeport.Addr(); err != nil {
			return err
		}
	}
	n.place.Store(&place{n.HTTP, http.DefaultClient})
	return nil
}

// Move gives a node that does not run another host, and so other addresses, as a
// machine that comes back under a new IP. Without a network only the ports change.
func (n *Node) Move() error {
	if n.Running() {
		return fmt.Errorf("testcluster: %s is running", n.Name)
	}
	return n.settle()
}
