package outbound

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// Reserved, private and mapped addresses are refused, public ones are not, and what
// the operator allows is.
func TestGuard(t *testing.T) {
	g, err := NewGuard([]string{"10.9.0.0/16", "fd00::7"})
	if err != nil {
		t.Fatal(err)
	}
	for _, refused := range strings.Fields("127.0.0.1 10.0.0.1 192.168.1.1 172.16.0.1 169.254.169.254 100.64.0.1 0.0.0.0 0.1.2.3 224.0.0.1 255.255.255.255 198.18.0.1 192.88.99.1 " +
		"::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00::8 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: ::127.0.0.1 2001:db8::1 5f00::1") {
		if err := g.Check(netip.MustParseAddr(refused)); !errors.Is(err, ErrNotPublic) {
			t.Errorf("%s: %v", refused, err)
		}
	}
	for _, public := range strings.Fields("8.8.8.8 1.1.1.1 2606:4700::1111 ::ffff:8.8.8.8 10.9.3.4 fd00::7") {
		if err := g.Check(netip.MustParseAddr(public)); err != nil {
			t.Errorf("%s: %v", public, err)
		}
	}
	for _, bad := range []string{"", "x", "10.0.0.0/33", "example.com"} {
		if _, err := NewGuard([]string{bad}); err == nil {
			t.Errorf("network %q", bad)
		}
	}
}

// The guard stands where the connection is made, so that a name is no way round it.
func TestGuardedClient(t *testing.T) {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer srv.Close()
	byName := strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)
	guarded := NewClient(&Guard{})
	for _, url := range []string{srv.URL, byName} {
		if _, err := guarded.Get(url); !errors.Is(err, ErrNotPublic) || strings.Contains(Plain(err).Error(), "http") {
			t.Errorf("%s: %v", url, err)
		}
	}
	g, err := NewGuard([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	allowed := NewClient(g)
	defer allowed.CloseIdleConnections()
	resp, err := allowed.Get(srv.URL)
	if err != nil || asked != 1 {
		t.Fatalf("%v, asked %d times", err, asked)
	}
	_ = resp.Body.Close()
}

// A client goes where it was sent and nowhere else: no proxy of the environment is asked,
// no redirect followed, and other ways to write an address lead to the same guard.
func TestClientGoesNowhereElse(t *testing.T) {
	asked := 0
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer inside.Close()
	away := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusTemporaryRedirect))
	defer away.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY"} {
		t.Setenv(name, inside.URL)
	}
	c := NewClient(nil)
	defer c.CloseIdleConnections()
	if c.Transport.(Transport).Proxy != nil {
		t.Error("it asks for a proxy")
	}
	resp, err := c.Post(away.URL, "text/plain", strings.NewReader("x"))
	if err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
		t.Fatalf("%+v %v", resp, err)
	}
	_ = resp.Body.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(inside.URL, "http://"), ":")
	guarded := NewClient(&Guard{})
	for _, host := range []string{"2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "localhost."} {
		if resp, err := guarded.Get("http://" + host + ":" + port); err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s was called", host)
		}
	}
	if asked != 0 {
		t.Errorf("asked %d times", asked)
	}
}
