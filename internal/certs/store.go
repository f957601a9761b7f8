package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	pollInterval  = 5 * time.Second // files are looked at
	freshFor      = time.Second     // a handshake looks at them only when that has passed
	warnAgain     = Day             // an expiry that comes near is said again
	warnBefore    = 30 * Day        // … and from when, or a third of the validity if that is less
	warnShare     = 3
	othersMayRead = 0o004
)

// Files are where credentials are.
type Files struct {
	// CA is a bundle of authorities that vouch for the other side, PEM; empty: the
	// other side is not asked for a certificate.
	CA string
	// Cert is the certificate, PEM, with intermediate ones behind it, if any.
	Cert string
	// Key is its private key, PEM.
	Key string
}

// Logger takes what a Store has to say; hclog.Logger is one.
type Logger interface {
	// Info takes what is normal, with names and values in turn.
	Info(msg string, args ...any)
	// Warn takes what the operator should look at.
	Warn(msg string, args ...any)
	// Error takes what does not work.
	Error(msg string, args ...any)
}

// Options say how a Store behaves.
type Options struct {
	// Name is the node whose certificate it has to be; empty: any.
	Name string
	// What names the credentials in the log.
	What string
	// Log gets changes, refused files and an expiry that comes near.
	Log Logger
	// Poll is how often files are looked at; 0: five seconds.
	Poll time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Material is one state of the files. It is only read.
type Material struct {
	// Certificate is what this side shows.
	Certificate *tls.Certificate
	// Leaf is its first certificate.
	Leaf *x509.Certificate
	// Authorities vouch for the other side; nil without Files.CA.
	Authorities *x509.CertPool
}

// Store holds credentials and follows their files. Its methods may be called from
// any goroutine.
type Store struct {
	files Files
	opts  Options

	now     atomic.Pointer[Material]
	looked  atomic.Int64 // unix nanoseconds
	mu      sync.Mutex   // one reload at a time
	seen    []stamp
	bad     []stamp // could not be used at the last look
	warned  time.Time
	changed []func()

	closed chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
}

// stamp tells one state of a file from another.
type stamp struct {
	size  int64
	mtime time.Time
	info  os.FileInfo
}

func (s stamp) same(o stamp) bool {
	return (s.info == nil) == (o.info == nil) && s.size == o.size && s.mtime.Equal(o.mtime) && (s.info == nil || os.SameFile(s.info, o.info))
}

// Open reads files, which must be whole, belong together and be valid now, and
// follows them until Close. Errors wrap ErrInvalid or are the system's.
func Open(files Files, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Poll == 0 {
		o.Poll = pollInterval
	}
	s := &Store{files: files, opts: o, closed: make(chan struct{})}
	s.seen = s.stamps()
	m, err := s.load()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.What, err)
	}
	s.now.Store(m)
	s.looked.Store(o.Now().UnixNano())
	if info := s.seen[2].info; info != nil && info.Mode().Perm()&othersMayRead != 0 {
		o.Log.Warn("everybody on this machine may read the private key", "what", o.What, "file", files.Key)
	}
	s.mu.Lock()
	s.warn()
	s.mu.Unlock()
	s.wg.Go(s.poll)
	return s, nil
}

// Close ends the watch; the credentials stay usable.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.mu.Lock() // look begins nothing afterwards
		defer s.mu.Unlock()
		close(s.closed)
	})
	s.wg.Wait()
	return nil
}

// OnChange calls f after each change of the credentials, on a goroutine of the
// Store's. Call it before the Store is used by others.
func (s *Store) OnChange(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = append(s.changed, f)
}

// Current returns the credentials for a handshake. It looks at the files if that is
// long ago.
func (s *Store) Current() *Material {
	if s.opts.Now().UnixNano()-s.looked.Load() > int64(freshFor) {
		s.look()
	}
	return s.now.Load()
}

// Expires returns when the certificate ends.
func (s *Store) Expires() time.Time { return s.now.Load().Leaf.NotAfter }

func (s *Store) poll() {
	tick := time.NewTicker(s.opts.Poll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.look()
		case <-s.closed:
			return
		}
	}
}

// look reads the files again if they have changed. What cannot be used leaves
// things as they are, with one warning for each change.
func (s *Store) look() {
	if !s.mu.TryLock() { // another is at it
		return
	}
	defer s.mu.Unlock()
	s.looked.Store(s.opts.Now().UnixNano())
	if stamps := s.stamps(); !slices.EqualFunc(stamps, s.seen, stamp.same) {
		m, err := s.load()
		switch {
		case err != nil && !slices.EqualFunc(stamps, s.bad, stamp.same):
			s.bad = stamps // files are replaced one after another: the next look decides
		case err != nil:
			s.seen = stamps
			s.opts.Log.Warn("new certificate files cannot be used; the old ones stay in force", "what", s.opts.What, "error", err)
		default:
			s.seen = stamps
			s.now.Store(m)
			s.warned = time.Time{}
			s.opts.Log.Info("certificates read again", "what", s.opts.What, "serial", m.Leaf.SerialNumber.Text(16), "until", m.Leaf.NotAfter.Format(time.RFC3339))
			s.notify()
		}
	}
	s.warn()
}

// notify tells of a change, beside the handshake that has found it. The caller holds s.mu.
func (s *Store) notify() {
	select {
	case <-s.closed:
		return
	default:
	}
	for _, f := range s.changed {
		s.wg.Go(f)
	}
}

func (s *Store) stamps() []stamp {
	all := make([]stamp, 3)
	for i, path := range []string{s.files.CA, s.files.Cert, s.files.Key} {
		all[i] = stampOf(path)
	}
	return all
}

// load reads and checks all files.
func (s *Store) load() (*Material, error) {
	certText, err := readFile(s.files.Cert)
	if err != nil {
		return nil, err
	}
	keyText, err := readFile(s.files.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w: %w", s.files.Cert, s.files.Key, ErrInvalid, err)
	}
	m := &Material{Certificate: &pair, Leaf: pair.Leaf}
	if now := s.opts.Now(); now.After(m.Leaf.NotAfter) || now.Before(m.Leaf.NotBefore) {
		return nil, fmt.Errorf("%s: %w: valid from %s until %s", s.files.Cert, ErrInvalid,
			m.Leaf.NotBefore.Format(time.RFC3339), m.Leaf.NotAfter.Format(time.RFC3339))
	}
	if names := NodeNames(m.Leaf); s.opts.Name != "" && !slices.Contains(names, s.opts.Name) {
		return nil, fmt.Errorf("%s: %w: it is of %q, this node is %q", s.files.Cert, ErrInvalid, names, s.opts.Name)
	}
	if s.files.CA == "" {
		return m, nil
	}
	all, err := ReadCertificates(s.files.CA)
	if err != nil {
		return nil, err
	}
	m.Authorities = x509.NewCertPool()
	for _, ca := range all {
		m.Authorities.AddCert(ca)
	}
	chain := make([]*x509.Certificate, 0, len(pair.Certificate))
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", s.files.Cert, ErrInvalid, err)
		}
		chain = append(chain, c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := Verify(chain, m.Authorities, usage, s.opts.Now()); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", s.files.Cert, ErrInvalid, err)
		}
	}
	return m, nil
}

// Verify checks a chain, the leaf first, against authorities, for a usage at a time;
// names are the caller's to check.
func Verify(chain []*x509.Certificate, authorities *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	o := x509.VerifyOptions{Roots: authorities, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	return err
}

// warn says once a day that the certificate ends soon, or has ended. The caller
// holds s.mu.
func (s *Store) warn() {
	leaf, now := s.now.Load().Leaf, s.opts.Now()
	left := leaf.NotAfter.Sub(now)
	if left > min(warnBefore, leaf.NotAfter.Sub(leaf.NotBefore)/warnShare) || now.Sub(s.warned) < warnAgain {
		return
	}
	s.warned = now
	if left <= 0 {
		s.opts.Log.Error("the certificate has expired", "what", s.opts.What, "file", s.files.Cert, "until", leaf.NotAfter.Format(time.RFC3339))
		return
	}
	s.opts.Log.Warn("the certificate expires soon", "what", s.opts.What, "file", s.files.Cert,
		"until", leaf.NotAfter.Format(time.RFC3339), "days", int(left/Day))
}

// ServerConfig is TLS for a public port: 1.2 or newer, with the certificate of the moment.
func (s *Store) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Current().Certificate, nil },
	}
}
