package config

import (
	"fmt"
	"net"
)

// Wires is how the traffic between nodes is protected.
type Wires struct {
	// CA is a PEM file of the authorities that vouch for nodes, Cert and Key the
	// node's own; all or none. With them the cluster port is mutual TLS 1.3.
	CA, Cert, Key string
	// GossipKeys is a file of keys that encrypt gossip; empty: plaintext.
	GossipKeys string
	// Label keeps the gossip of several clusters apart.
	Label string
	// InsecurePlaintext lets cluster and gossip addresses lie off loopback without all that.
	InsecurePlaintext bool
}

const insecureWarning = "--insecure-plaintext-cluster: whoever reaches the cluster or gossip port can read and change all data"

func wireSettings() []Setting {
	return []Setting{
		{Name: "quinto.cluster_tls_ca", Doc: "PEM file of the authorities that vouch for nodes (`quinto certs init`); with `…_cert` and `…_key` the cluster port is mutual TLS 1.3.",
			field: func(c *Config) any { return &c.Cluster.Wires.CA }},
		{Name: "quinto.cluster_tls_cert", Doc: "PEM file of this node's certificate, with its name in it (`quinto certs node`).",
			field: func(c *Config) any { return &c.Cluster.Wires.Cert }},
		{Name: "quinto.cluster_tls_key", Doc: "PEM file of its private key.",
			field: func(c *Config) any { return &c.Cluster.Wires.Key }},
		{Name: "quinto.gossip_key_file", Doc: "File of keys that encrypt gossip (`quinto certs gossip-key`), the same on all nodes.",
			field: func(c *Config) any { return &c.Cluster.Wires.GossipKeys }},
		{Name: "quinto.cluster_label", Doc: "Keeps the gossip of clusters apart that could meet by mistake; the same on all nodes.",
			check: func(text string) (string, bool) {
				return "up to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit", text == "" || nodeName.MatchString(text)
			}, field: func(c *Config) any { return &c.Cluster.Wires.Label }},
		{Name: "quinto.insecure_plaintext_cluster", Default: "false", Doc: "Let cluster and gossip addresses lie off loopback without certificates and keys: whoever reaches these ports can then read and change all data.",
			field: func(c *Config) any { return &c.Cluster.Wires.InsecurePlaintext }},
		{Name: "quinto.http_tls_cert", Doc: "PEM file of the public port's certificate, with intermediate ones behind it; with `…_key` the port is HTTPS (TLS 1.2 or newer).",
			field: func(c *Config) any { return &c.HTTP.TLSCert }},
		{Name: "quinto.http_tls_key", Doc: "PEM file of its private key.",
			field: func(c *Config) any { return &c.HTTP.TLSKey }},
	}
}

// peerAddress is what other nodes can dial.
func peerAddress(text string) (string, bool) {
	const allowed = "HOST:PORT, the host as other nodes reach it"
	if text == "" {
		return allowed, true
	}
	host, port, err := net.SplitHostPort(text)
	ip := net.ParseIP(host)
	return allowed, err == nil && port != "" && host != "" && (ip == nil || !ip.IsUnspecified())
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// wireChecks are the rules about the protection of the wires (design D14): what
// leaves the machine is encrypted and authenticated, unless the operator says that
// it is not to be.
func (l *loader) wireChecks(c *Config) error {
	w := c.Cluster.Wires
	for _, group := range []map[string]string{
		{"quinto.cluster_tls_ca": w.CA, "quinto.cluster_tls_cert": w.Cert, "quinto.cluster_tls_key": w.Key},
		{"quinto.http_tls_cert": c.HTTP.TLSCert, "quinto.http_tls_key": c.HTTP.TLSKey},
	} {
		if err := l.together(group); err != nil {
			return err
		}
	}
	protected := w.InsecurePlaintext || w.CA != "" && w.GossipKeys != ""
	check := func(name, address string) error {
		if allowed, ok := peerAddress(address); !ok {
			return l.value(name).fail(fmt.Sprintf("%q cannot be used", address), allowed)
		}
		if address == "" || protected || loopback(address) {
			return nil
		}
		return l.value(name).fail(fmt.Sprintf("%q lies off this machine, in plaintext", address), "127.0.0.1, ::1 or localhost; "+
			"elsewhere quinto.cluster_tls_ca, …_cert, …_key and quinto.gossip_key_file are needed: quinto certs makes them")
	}
	if err := check("quinto.cluster", c.Cluster.Address); err != nil {
		return err
	}
	if err := check("quinto.gossip", c.Cluster.Gossip); err != nil {
		return err
	}
	for _, address := range c.Cluster.Join {
		if err := check("quinto.join", address); err != nil {
			return err
		}
	}
	return nil
}

// together refuses a group of settings of which only some are given.
func (l *loader) together(group map[string]string) error {
	var given, missing string
	for name, text := range group {
		if text == "" {
			missing = max(missing, name)
		} else {
			given = max(given, name)
		}
	}
	if given == "" || missing == "" {
		return nil
	}
	return l.value(given).fail("is given without "+missing, "all that belong together, or none")
}
