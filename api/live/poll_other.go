//go:build !linux

package live

// poller is what Linux has: elsewhere a stream has a goroutine that waits.
type poller struct {
	armed map[uint64]*Stream // none
}

func newPoller() *poller { return nil }

func (*poller) add(*Stream) bool { return false }

func (*poller) again(*Stream) error { return nil }

func (*poller) remove(*Stream) {}

func (*poller) run(func(*Stream)) {}

func (*poller) close() {}
