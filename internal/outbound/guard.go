package outbound

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
)

// ErrNotPublic refuses a connection to an address that is not public.
var ErrNotPublic = errors.New("the address is not public")

// reserved are the networks that lie inside somebody's walls or nowhere, beside those
// that netip knows (IANA's special-purpose registries).
var reserved = prefixes("0.0.0.0/8 100.64.0.0/10 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 " +
	"::/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fec0::/10")

func prefixes(text string) (all []netip.Prefix) {
	for _, p := range strings.Fields(text) {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// Guard lets connections through to public addresses only. It looks at the address
// that is really dialled, so a name that resolves to another one the second time is no
// way round it.
type Guard struct {
	allowed []netip.Prefix
}

// NewGuard returns a guard that lets the networks in allow through as well, each as
// in "10.1.0.0/16" or "10.1.2.3".
func NewGuard(allow []string) (*Guard, error) {
	g := &Guard{}
	for _, text := range allow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			address, failed := netip.ParseAddr(text)
			if failed != nil {
				return nil, fmt.Errorf("%q is no network, as in 10.1.0.0/16", text)
			}
			p = netip.PrefixFrom(address, address.BitLen())
		}
		g.allowed = append(g.allowed, p.Masked())
	}
	return g, nil
}

// Check returns ErrNotPublic for an address that must not be called.
func (g *Guard) Check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	for _, p := range g.allowed {
		if p.Contains(a) {
			return nil
		}
	}
	public := a.IsGlobalUnicast() && !a.IsPrivate()
	for _, p := range reserved {
		public = public && !p.Contains(a)
	}
	if !public {
		return ErrNotPublic
	}
	return nil
}

// control is net.Dialer's ControlContext.
func (g *Guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return ErrNotPublic
	}
	return g.Check(to.Addr())
}
