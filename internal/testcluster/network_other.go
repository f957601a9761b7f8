//go:build !linux

package testcluster

// Network exists on Linux only.
type Network struct{}

// NewNetwork returns ErrNoNetwork.
func NewNetwork(uint64) (*Network, error) { return nil, ErrNoNetwork }

func (*Network) add() (host, error) { return nil, ErrNoNetwork }

// Set does nothing here.
func (*Network) Set(Plane, *Node, *Node, Link) {}

// Heal does nothing here.
func (*Network) Heal() {}

// Close does nothing here.
func (*Network) Close() error { return nil }
