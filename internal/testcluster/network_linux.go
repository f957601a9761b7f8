package testcluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxHosts   = 250   // of one network: the last byte of an address
	wireMTU    = 60000 // few large packets: each is a switch between kernel and process
	wireDevice = "wire0"
	// Addresses lie in 127/8, which every node takes for loopback, so that plaintext
	// is allowed; inside a namespace they are routed over the wire.
	wirePrefix = "127.77."
)

// Network is a switch in this process with a network namespace for each node: all
// that nodes send to each other passes through it, so that every fault of the
// network is a rule here. It needs root, /dev/net/tun and the program ip; whatever
// it made ends with this process.
type Network struct {
	mu    sync.Mutex
	hosts []*netHost
	links map[route]Link
	last  map[route]time.Time // when the newest delayed packet arrives: order is kept
	rand  *rand.Rand
}

type route struct {
	plane    Plane
	from, to int
}

type netHost struct {
	network *Network
	number  int
	ns      *os.File // of the network namespace
	tun     *os.File
}

// NewNetwork makes a network in which chance follows the seed. Errors: ErrNoNetwork
// with the reason.
func NewNetwork(seed uint64) (*Network, error) {
	w := &Network{links: map[route]Link{}, last: map[route]time.Time{}, rand: rand.New(rand.NewPCG(seed, 1))}
	h, err := w.add() // a trial: what is missing shows at the first host
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNetwork, err)
	}
	w.hosts = nil
	return w, h.close()
}

func (w *Network) add() (host, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.hosts) >= maxHosts {
		return nil, errors.New("testcluster: too many hosts")
	}
	h := &netHost{network: w, number: len(w.hosts) + 1}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nothing else may
		// run in its namespace.
		runtime.LockOSThread()
		done <- h.open()
	}()
	if err := <-done; err != nil {
		return nil, errors.Join(err, h.close())
	}
	w.hosts = append(w.hosts, h)
	go h.receive()
	return h, nil
}

// open makes the namespace of the thread it runs on, and the device in it.
func (h *netHost) open() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	var err error
	if h.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(wireDevice)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("tun device: %w", err)
	}
	h.tun = os.NewFile(uintptr(fd), wireDevice)
	if err := allowLocalnet(); err != nil {
		return err
	}
	for _, args := range []string{
		"link set lo up", "addr add 127.0.0.1/32 dev lo", "addr del 127.0.0.1/8 dev lo",
		fmt.Sprintf("link set %s mtu %d up", wireDevice, wireMTU),
		"addr add " + h.addr(RaftPlane) + "/24 dev " + wireDevice,
		"addr add " + h.addr(GossipPlane) + "/24 dev " + wireDevice,
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return nil
}

// allowLocalnet lets addresses in 127/8 travel. A /proc/sys that this process may
// not write to is one more reason for no network.
func allowLocalnet() error {
	all, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/route_localnet")
	if err != nil || len(all) == 0 {
		return errors.Join(errors.New("no /proc/sys/net/ipv4/conf"), err)
	}
	for _, path := range all {
		if err := os.WriteFile(path, []byte("1"), 0); err != nil {
			return err
		}
	}
	return nil
}

func (h *netHost) addr(p Plane) string { return fmt.Sprintf("%s%d.%d", wirePrefix, p, h.number) }

func (h *netHost) run(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer own.Close()
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		err = f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // else the thread ends here
		}
		done <- err
	}()
	return <-done
}

func (h *netHost) close() error {
	var errs []error
	for _, f := range []*os.File{h.tun, h.ns} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// receive takes what the namespace sends until the device is closed.
func (h *netHost) receive() {
	for {
		packet := make([]byte, wireMTU)
		n, err := h.tun.Read(packet)
		if err != nil {
			return
		}
		h.network.send(h.number, packet[:n])
	}
}

// send passes a packet on, late, or not at all.
func (w *Network) send(from int, packet []byte) {
	r, ok := destination(from, packet)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.to > len(w.hosts) {
		return
	}
	to, l := w.hosts[r.to-1], w.links[r]
	if l.Down || l.Loss > 0 && w.rand.Float64() < l.Loss {
		return
	}
	if l.Delay == 0 && l.Jitter == 0 {
		_, _ = to.tun.Write(packet) // a full queue or a dead node loses packets
		return
	}
	at := time.Now().Add(l.Delay + time.Duration((2*w.rand.Float64()-1)*float64(l.Jitter)))
	if at.Before(w.last[r]) {
		at = w.last[r]
	}
	w.last[r] = at.Add(time.Microsecond)
	time.AfterFunc(time.Until(at), func() { _, _ = to.tun.Write(packet) })
}

// destination reads an IPv4 header.
func destination(from int, packet []byte) (route, bool) {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return route{}, false
	}
	to := netip.AddrFrom4([4]byte(packet[16:20])).As4()
	r := route{plane: Plane(to[2]), from: from, to: int(to[3])}
	return r, to[0] == 127 && to[1] == 77 && r.plane < planes && r.to > 0
}

// Set puts a rule on the way from one node to another, on one plane.
func (w *Network) Set(p Plane, from, to *Node, l Link) {
	a, ok := from.host.(*netHost)
	b, ok2 := to.host.(*netHost)
	if !ok || !ok2 || a == b {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links[route{p, a.number, b.number}] = l
}

// Heal removes all rules.
func (w *Network) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.links)
}

// Close takes all devices away; nodes have to be ended before.
func (w *Network) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, h := range w.hosts {
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}
