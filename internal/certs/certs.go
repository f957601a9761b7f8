// Package certs makes and keeps what nodes prove themselves with: a private
// authority, certificates for nodes, keys of gossip; and watches the files, so that
// they can be replaced while a node runs.
//
// A node's certificate has its name in a URI (NodeURI): names of nodes are not
// names of hosts, they tell upper from lower case and outlive addresses.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// The files of an authority in its folder. A node's are its name with .pem and .key.
const (
	CAFile    = "ca.pem"
	CAKeyFile = "ca.key"
	certExt   = ".pem"
	keyExt    = ".key"
)

const (
	// Day is the unit of validity.
	Day = 24 * time.Hour
	// CADays is how long an authority lasts unless said otherwise.
	CADays = 3650
	// NodeDays is how long a node's certificate lasts unless said otherwise.
	NodeDays = 365
	// MaxDays bounds both.
	MaxDays = 36500
	// MaxFileBytes bounds a file of certificates or keys.
	MaxFileBytes = 1 << 20

	backdated   = time.Hour // clocks of other machines may be behind
	serialBytes = 16
)

// ErrExists is returned when a file would be replaced that nobody said to replace.
var ErrExists = errors.New("exists already")

// ErrInvalid is wrapped by every error about the content of a file.
var ErrInvalid = errors.New("cannot be used")

const (
	uriScheme = "quinto"
	uriHost   = "node"
)

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// NodeURI is the name of a node as its certificate has it: quinto://node/NAME.
func NodeURI(name string) string { return uriScheme + "://" + uriHost + "/" + name }

// NodeNames returns the nodes that a certificate speaks for: those of its URIs, or,
// in one of an authority that cannot write such URIs, its DNS names. A certificate
// with a node's URI speaks for no DNS name, which may be another node's.
func NodeNames(c *x509.Certificate) []string {
	var names []string
	for _, u := range c.URIs {
		if u.Scheme == uriScheme && u.Host == uriHost {
			if name := strings.TrimPrefix(u.Path, "/"); nodeName.MatchString(name) && u.String() == NodeURI(name) {
				names = append(names, name)
			}
		}
	}
	if len(names) > 0 {
		return names
	}
	for _, name := range c.DNSNames {
		if nodeName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// InitCA makes a private authority in dir, which is made if needed: CAFile for all
// nodes, CAKeyFile (mode 0600) to be kept away from them. It returns ErrExists
// rather than replace one.
func InitCA(dir string, days int) (*x509.Certificate, error) {
	if err := checkDays(days); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{CAFile, CAKeyFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), ErrExists)
		}
	}
	mark := make([]byte, 4) // two authorities of a rotation have two names
	rand.Read(mark)
	c := template(days)
	c.Subject = pkix.Name{CommonName: "quinto CA " + hex.EncodeToString(mark)}
	c.IsCA, c.BasicConstraintsValid, c.MaxPathLenZero = true, true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := writePair(filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile), der, key); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// NodeRequest says what a node's certificate is to be.
type NodeRequest struct {
	// Name of the node.
	Name string
	// Addresses are host names and IP addresses under which clients call it, for the public port.
	Addresses []string
	// Days of validity.
	Days int
	// Replace an older certificate and key of the name.
	Replace bool
}

// IssueNode makes NAME.pem and NAME.key (mode 0600) in dir, signed by the authority
// there. The certificate is for both ends of a connection. It ends with its
// authority at the latest. Errors: ErrExists, ErrInvalid, or the system's.
func IssueNode(dir string, r NodeRequest) (*x509.Certificate, error) {
	if !nodeName.MatchString(r.Name) || r.Name == "ca" {
		return nil, fmt.Errorf("%w: node name %q: up to 63 letters, digits, '.', '_' and '-', the first a letter or digit, and not \"ca\"", ErrInvalid, r.Name)
	}
	if err := checkDays(r.Days); err != nil {
		return nil, err
	}
	ca, caKey, err := loadAuthority(dir)
	if err != nil {
		return nil, err
	}
	certFile, keyFile := filepath.Join(dir, r.Name+certExt), filepath.Join(dir, r.Name+keyExt)
	if _, err := os.Lstat(certFile); !errors.Is(err, fs.ErrNotExist) && !r.Replace {
		return nil, fmt.Errorf("%s: %w", certFile, ErrExists)
	}
	c := template(r.Days)
	c.Subject = pkix.Name{CommonName: r.Name}
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	c.URIs = []*url.URL{{Scheme: uriScheme, Host: uriHost, Path: "/" + r.Name}}
	for _, a := range r.Addresses {
		if ip := net.ParseIP(a); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else if a == "" || len(a) > 253 || strings.ContainsAny(a, "/:@ \t\r\n") {
			return nil, fmt.Errorf("%w: address %q: a host name or an IP address, without a port", ErrInvalid, a)
		} else {
			c.DNSNames = append(c.DNSNames, a)
		}
	}
	if c.NotAfter.After(ca.NotAfter) {
		c.NotAfter = ca.NotAfter
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	if err := writePair(certFile, keyFile, der, key); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func checkDays(days int) error {
	if days < 1 || days > MaxDays {
		return fmt.Errorf("%w: %d days of validity: 1 to %d", ErrInvalid, days, MaxDays)
	}
	return nil
}

func template(days int) *x509.Certificate {
	serial := make([]byte, serialBytes)
	rand.Read(serial)
	serial[0] &= 0x7f // positive (RFC 5280 §4.1.2.2)
	now := time.Now().UTC().Truncate(time.Second)
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		NotBefore:    now.Add(-backdated), NotAfter: now.Add(time.Duration(days) * Day),
	}
}

func loadAuthority(dir string) (*x509.Certificate, crypto.Signer, error) {
	all, err := ReadCertificates(filepath.Join(dir, CAFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w (quinto certs init makes an authority)", err)
	}
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir, CAKeyFile)
	text, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, nil, fmt.Errorf("%s: %w: no PEM", path, ErrInvalid)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%s: %w: a key that cannot sign", path, ErrInvalid)
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	for _, ca := range all { // of a bundle, the one of the key
		if ok && ca.IsCA && public.Equal(ca.PublicKey) {
			return ca, signer, nil
		}
	}
	return nil, nil, fmt.Errorf("%s: %w: it is not the key of a certificate in %s", path, ErrInvalid, CAFile)
}

// ReadCertificates reads all certificates of a PEM file, at least one.
func ReadCertificates(path string) ([]*x509.Certificate, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: %w: no certificate in PEM", path, ErrInvalid)
	}
	return all, nil
}

// readFile reads a file of bounded size.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxFileBytes || info.IsDir() {
		return nil, fmt.Errorf("%s: %w: a folder, or larger than %d bytes", path, ErrInvalid, MaxFileBytes)
	}
	return os.ReadFile(path)
}

// writePair replaces certificate and key. Between the two renames a reader may see
// a pair that does not match; Store then keeps what it has and looks again.
func writePair(certFile, keyFile string, der []byte, key crypto.PrivateKey) error {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	err = WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600)
	if err != nil {
		return err
	}
	return WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// WriteFile replaces a file by rename, synced, so that a reader sees the old or the
// new one whole.
func WriteFile(path string, text []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
