package outbound

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Limits of a client.
const (
	MaxHeaderBytes = 64 << 10 // of an answer
	MaxConnections = 64       // to one host
	dialTimeout    = 5 * time.Second
	idleTimeout    = 30 * time.Second
)

// ErrTooLong is returned by Read for an answer beyond its limit.
var ErrTooLong = errors.New("the answer is too long")

// ErrProtocol is returned for an answer with 101.
var ErrProtocol = errors.New("the answer changes to another protocol (101)")

// NewClient returns a client that follows no redirect, since that would leave the
// address that was meant, and asks no proxy of the environment. guard nil: any
// address is called.
func NewClient(guard *Guard) *http.Client {
	dialer := &net.Dialer{Timeout: dialTimeout}
	if guard != nil {
		dialer.ControlContext = guard.control
	}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: Transport{&http.Transport{
			Proxy:                  nil,
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    dialTimeout,
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        MaxConnections,
			MaxIdleConnsPerHost:    MaxConnections,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: MaxHeaderBytes,
			DisableCompression:     true,
		}},
	}
}

// Transport is an http.Transport for requests that ask for no other protocol: an answer
// with one, 101, is ErrProtocol. Its body would be the bare connection, which no end of
// a context interrupts.
type Transport struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close() // with the connection
		return nil, ErrProtocol
	}
	return resp, err
}

// Trust has a client of NewClient trust the authorities in a file of PEM blocks beside
// the system's.
func Trust(c *http.Client, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s has no certificate", file)
	}
	if t, ok := c.Transport.(Transport); ok {
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return nil
}

// ParseURL reads the address of a receiver. The error does not quote it: it may hold
// a token.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("url: http://HOST/PATH or https://HOST/PATH is needed")
	}
	u.Fragment = ""
	return u, nil
}

// Plain is the error of a call without the URL that net/http quotes, which may hold a token.
func Plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Brief is Plain for those who may not learn the addresses of this network: without that
// of the peer, of this node and of the name server.
func Brief(err error) error {
	err = Plain(err)
	var name *net.DNSError
	if errors.As(err, &name) {
		return fmt.Errorf("lookup: %s", name.Err)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}

// Read returns the body of an answer, or ErrTooLong beyond limit bytes.
func Read(body io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
	}
	return b, err
}
