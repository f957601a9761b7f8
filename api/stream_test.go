package api

import (
	"crypto/tls"
	"net"
	"testing"
)

// A stream gives back its place among the connections, once, under TLS too.
func TestStreamsAreNoConnections(t *testing.T) {
	for name, above := range map[string]func(net.Conn) net.Conn{
		"plain": func(c net.Conn) net.Conn { return c },
		"TLS":   func(c net.Conn) net.Conn { return tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS13}) },
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		counted, ok := limitConnections(ln, 1, nil).(*countedListener)
		if !ok {
			t.Fatal("not counted")
		}
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := counted.Accept()
		if err != nil {
			t.Fatal(err)
		}
		stream := uncounted(above(c))
		if counted.open != 0 {
			t.Errorf("%s: %d places are taken", name, counted.open)
		}
		_ = client.Close()
		_ = stream.Close()
		_ = ln.Close()
		if counted.open != 0 {
			t.Errorf("%s: %d places after it is closed", name, counted.open)
		}
	}
}
