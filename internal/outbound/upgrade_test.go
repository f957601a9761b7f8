package outbound

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A receiver that answers a POST with a change of protocol, and then says nothing, is
// given up when the time is over: nothing that reads its answer waits for ever.
func TestChangeOfProtocolEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			defer c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.Addr().String(), strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	client := NewClient(nil)
	defer client.CloseIdleConnections()
	ended := make(chan error, 1)
	go func() {
		resp, err := client.Do(r)
		if err == nil {
			_, err = Read(resp.Body, 1<<10)
			_ = resp.Body.Close()
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrProtocol) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it still waits")
	}
}
