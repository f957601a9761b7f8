package testcluster

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// Packets between hosts pass through the switch: delayed, and not at all when the
// link is down, in one direction or both.
func TestNetworkOfNamespaces(t *testing.T) {
	w, err := NewNetwork(1)
	if errors.Is(err, ErrNoNetwork) {
		t.Skip(err.Error())
	}
	check(t, err)
	defer w.Close()
	c := &Cluster{opt: Options{Dir: t.TempDir(), Network: w}}
	a, b := must(c.Add("a"))(t), must(c.Add("b"))(t)
	for _, plane := range []Plane{RaftPlane, GossipPlane} {
		l := must(b.Listen(net.JoinHostPort(b.host.addr(plane), "7000")))(t)
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(conn, conn) }()
			}
		}()
	}
	dial := func(p Plane, limit time.Duration) (took time.Duration, err error) {
		start := time.Now()
		err = a.host.run(func() error {
			conn, err := net.DialTimeout("tcp4", net.JoinHostPort(b.host.addr(p), "7000"), limit)
			if err == nil {
				err = conn.Close()
			}
			return err
		})
		return time.Since(start), err
	}
	_, err = dial(RaftPlane, 10*time.Second)
	check(t, err)
	w.Set(RaftPlane, b, a, Link{Delay: 200 * time.Millisecond})
	if took, err := dial(RaftPlane, 10*time.Second); err != nil || took < 200*time.Millisecond {
		t.Errorf("a delayed answer came after %s: %v", took, err)
	}
	w.Set(RaftPlane, b, a, Link{Down: true})
	if _, err := dial(RaftPlane, 500*time.Millisecond); err == nil {
		t.Error("connected over a link that is down")
	}
	_, err = dial(GossipPlane, 10*time.Second)
	check(t, err)
	w.Heal()
	_, err = dial(RaftPlane, 10*time.Second)
	check(t, err)
}
