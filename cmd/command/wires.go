package command

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strconv"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/pflag"

	"quinto/internal/certs"
	"quinto/internal/config"
	"quinto/plugins"
)

// wires are the certificates and keys of a node; nil: that wire is plaintext.
type wires struct {
	cluster, public *certs.Store
	gate            *certs.Gate // of the public port's handshakes
	gossip          *certs.KeyStore
}

// openWires reads the files that the settings name and begins to follow them. On an
// error nothing is left open.
func openWires(c *config.Config, name string, log hclog.Logger) (w wires, err error) {
	log = log.Named("certs")
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
			w = wires{}
		}
	}()
	if f := c.Cluster.Wires; f.CA != "" {
		w.cluster, err = certs.Open(certs.Files{CA: f.CA, Cert: f.Cert, Key: f.Key}, certs.Options{Name: name, What: "cluster port", Log: log})
		if err != nil {
			return w, err
		}
	}
	if c.HTTP.TLSCert != "" {
		w.public, err = certs.Open(certs.Files{Cert: c.HTTP.TLSCert, Key: c.HTTP.TLSKey}, certs.Options{What: "public port", Log: log})
		if err != nil {
			return w, err
		}
	}
	if path := c.Cluster.Wires.GossipKeys; path != "" {
		w.gossip, err = certs.OpenKeys(path, 0, log)
	}
	return w, err
}

func (w wires) close() error {
	var errs []error
	for _, s := range []*certs.Store{w.cluster, w.public} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if w.gossip != nil {
		errs = append(errs, w.gossip.Close())
	}
	return errors.Join(errs...)
}

// gated returns the public port with its handshakes bounded; call it after serverTLS.
func (w *wires) gated(ln net.Listener) net.Listener {
	if w.gate == nil {
		return ln
	}
	return w.gate.Listener(ln)
}

// serverTLS is what the public port speaks; nil: HTTP.
func (w *wires) serverTLS() *tls.Config {
	if w.public == nil {
		return nil
	}
	w.gate = certs.NewGate()
	return w.gate.Config(w.public.ServerConfig())
}

func (w wires) figures() (all []plugins.Figure) {
	for what, s := range map[string]*certs.Store{"cluster": w.cluster, "public": w.public} {
		if s != nil {
			all = append(all, gauge("tls.certificate_expiry_seconds", "When the port's certificate ends, in seconds since 1970.",
				float64(s.Expires().Unix()), plugins.Label{Name: "port", Value: what}))
		}
	}
	return all
}

// wireFlags are the flags of `quinto start` about the protection of the wires, by
// the names of their settings.
type wireFlags struct {
	texts    map[string]*string
	insecure bool
}

// wireSettings has the setting of each flag, and what the flag is for.
var wireSettings = map[string]struct{ setting, doc string }{
	"cluster-tls-ca":   {"quinto.cluster_tls_ca", "trust nodes with certificates of the authorities in `FILE`"},
	"cluster-tls-cert": {"quinto.cluster_tls_cert", "show other nodes the certificate in `FILE`"},
	"cluster-tls-key":  {"quinto.cluster_tls_key", "the certificate's private key is in `FILE`"},
	"gossip-key-file":  {"quinto.gossip_key_file", "encrypt gossip with the keys in `FILE`"},
	"http-tls-cert":    {"quinto.http_tls_cert", "serve HTTPS with the certificate in `FILE`"},
	"http-tls-key":     {"quinto.http_tls_key", "the certificate's private key is in `FILE`"},
}

const insecureFlag = "insecure-plaintext-cluster"

func (f *wireFlags) add(flags *pflag.FlagSet) {
	f.texts = map[string]*string{}
	for flag, s := range wireSettings {
		f.texts[flag] = flags.String(flag, "", s.doc)
	}
	flags.BoolVar(&f.insecure, insecureFlag, false, "let nodes talk in plaintext across the network: whoever reaches the ports can read and change all data")
}

// settings adds the flags that were given to all.
func (f *wireFlags) settings(given func(string) bool, all map[string]string) {
	for flag, s := range wireSettings {
		if given(flag) {
			all[s.setting] = *f.texts[flag]
		}
	}
	if given(insecureFlag) {
		all["quinto.insecure_plaintext_cluster"] = strconv.FormatBool(f.insecure)
	}
}

// clientTrusting is an HTTP client that also trusts the authorities in the file
// caFile; empty: only the system's.
func clientTrusting(caFile string) (*http.Client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if caFile == "" {
		return &http.Client{Transport: transport}, nil
	}
	all, err := certs.ReadCertificates(caFile)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, c := range all {
		pool.AddCert(c)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	return &http.Client{Transport: transport}, nil
}

// advertised is the public port as other nodes show it: one that listens on all
// addresses is called as the cluster port is, whose address others can reach.
func advertised(public net.Addr, cluster string) string {
	tcp, ok := public.(*net.TCPAddr)
	host, _, err := net.SplitHostPort(cluster)
	if !ok || !tcp.IP.IsUnspecified() || err != nil {
		return reachable(public)
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}
