package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slowKey signs slowly, and counts how many do it at once.
type slowKey struct {
	crypto.Signer
	now, most atomic.Int32
}

func (k *slowKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	now := k.now.Add(1)
	defer k.now.Add(-1)
	for most := k.most.Load(); now > most && !k.most.CompareAndSwap(most, now); most = k.most.Load() {
	}
	time.Sleep(5 * time.Millisecond)
	return k.Signer.Sign(random, digest, opts)
}

// However many clients come at once, few handshakes compute at the same time; those that
// stop in the middle of theirs hold nobody up.
func TestGateBoundsHandshakes(t *testing.T) {
	for name, versions := range map[string]uint16{"1.3": tls.VersionTLS13, "1.2": tls.VersionTLS12} {
		t.Run(name, func(t *testing.T) { gateBounds(t, versions) })
	}
}

func gateBounds(t *testing.T, version uint16) {
	plain, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := &slowKey{Signer: plain}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, plain.Public(), plain)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := NewGate()
	g.slots = make(chan struct{}, 2)
	server := g.Config(&tls.Config{MaxVersion: version, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	}})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ln.Close()
	gated := g.Listener(ln)
	wg.Go(func() {
		for {
			c, err := gated.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				s := tls.Server(c, server)
				_, _ = io.Copy(s, s) // echo, until the client goes
				_ = s.Close()
			})
		}
	})
	for range 8 { // they send a hello, and read nothing of what comes
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = tls.Client(mute{c}, &tls.Config{InsecureSkipVerify: true}).Handshake()
	}
	var clients sync.WaitGroup
	for i := range 40 {
		clients.Go(func() {
			config := &tls.Config{InsecureSkipVerify: true}
			if i%2 == 0 { // asked for another share of a key first
				config.CurvePreferences = []tls.CurveID{tls.CurveP521, tls.CurveP256}
			}
			c, err := tls.Dial("tcp", ln.Addr().String(), config)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	if most := key.most.Load(); most > 2 || most < 1 {
		t.Errorf("%d handshakes computed at once", most)
	}
	if n := len(g.slots); n != 0 {
		t.Errorf("%d slots are not given back", n)
	}
}

// mute ends a handshake when an answer is to be read.
type mute struct{ net.Conn }

func (mute) Read([]byte) (int, error) { return 0, io.EOF }

// Who finds no slot in time is told so; who goes away meanwhile leaves none behind.
func TestGateThatIsFull(t *testing.T) {
	g := &Gate{slots: make(chan struct{}, 1), wait: 10 * time.Millisecond}
	a, b := net.Pipe()
	defer a.Close()
	one, two := g.Conn(a), g.Conn(b)
	if err := errors.Join(g.enter(one), g.enter(one)); err != nil {
		t.Fatal(err)
	}
	if err := g.enter(two); !errors.Is(err, errBusy) {
		t.Errorf("%v", err)
	}
	_ = one.Close()
	if err := g.enter(one); !errors.Is(err, net.ErrClosed) || len(g.slots) != 0 {
		t.Errorf("%v, %d slots", err, len(g.slots))
	}
	if err := g.enter(two); err != nil {
		t.Error(err)
	}
	_ = two.Close()
	if len(g.slots) != 0 {
		t.Error("a slot is left")
	}
}
