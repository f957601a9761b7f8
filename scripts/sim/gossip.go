package main

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport carries a node's gossip over the simulated network: packets may be lost,
// streams are its connections.
type transport struct {
	n       *network
	node    string
	addr    string
	ln      *listener
	dead    <-chan struct{} // the node's process has ended
	packets chan *memberlist.Packet
	streams chan net.Conn
	end     chan struct{}
	once    sync.Once
}

// packetQueue bounds what waits for a node; more is lost, as with UDP.
const packetQueue = 256

func (n *network) gossip(node, addr string, dead <-chan struct{}) (*transport, error) {
	ln, err := n.listen(addr)
	if err != nil {
		return nil, err
	}
	t := &transport{n: n, node: node, addr: addr, ln: ln, dead: dead, packets: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn), end: make(chan struct{})}
	n.mu.Lock() // others send to it from now on
	ln.packets = t.packets
	n.mu.Unlock()
	go t.accept()
	return t, nil
}

func (t *transport) accept() {
	for {
		c, err := t.ln.Accept()
		if err != nil {
			return
		}
		select {
		case t.streams <- c:
		case <-t.end:
			return
		}
	}
}

// FinalAdvertiseAddr is memberlist.Transport's.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	host, text, err := net.SplitHostPort(t.addr)
	if err != nil {
		return nil, 0, err
	}
	port, err := strconv.Atoi(text)
	return net.ParseIP(host), port, err
}

// WriteTo is memberlist.Transport's.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	n, now := t.n, time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	r := route{t.node, n.names[addr], true}
	to := n.ports[addr]
	lost := to == nil || to.packets == nil || n.frozen[t.node] || !n.open(r) || n.rand.Float64() < n.at(r).loss
	select {
	case <-t.dead:
		lost = true
	default:
	}
	if lost {
		return now, nil
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: address(t.addr), Timestamp: now}
	d, _ := n.delay(r)
	deliver := func() {
		select {
		case to.packets <- p:
		default:
		}
	}
	if d > 0 {
		time.AfterFunc(d, deliver)
	} else {
		deliver()
	}
	return now, nil
}

// PacketCh is memberlist.Transport's.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout is memberlist.Transport's.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	select {
	case <-t.dead:
		return nil, errDead
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return t.n.dial(ctx, t.node, addr, true)
}

// StreamCh is memberlist.Transport's.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown is memberlist.Transport's.
func (t *transport) Shutdown() error {
	t.once.Do(func() { close(t.end) })
	return t.ln.Close()
}

// errDead: the simulated process has ended; whatever still runs of it reaches nobody.
var errDead = errors.New("the process has ended")
