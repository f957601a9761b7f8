package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"quinto/internal/certs"
)

// openDeclared starts the receivers of webhooks in metadata, which are HTTPS only, and
// returns the settings for them: one is declared by the bucket, the other by each of its
// collections, which makes a notifier for each.
func (w *world) openDeclared(dir string) (settings []string, err error) {
	dir = filepath.Join(dir, "certs")
	if _, err := certs.InitCA(dir, 1); err != nil {
		return nil, err
	}
	const name = "receiver"
	if _, err := certs.IssueNode(dir, certs.NodeRequest{Name: name, Addresses: []string{"127.0.0.1"}, Days: 1}); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	var ports []string
	for _, to := range []struct {
		title string
		hook  **hook
	}{{"webhook of a bucket", &w.ofBucket}, {"webhooks of collections", &w.ofCollections}} {
		if *to.hook, err = newHook(to.title, "", config, w.chance); err != nil {
			return nil, err
		}
		w.ills, w.channels = append(w.ills, *to.hook), append(w.channels, *to.hook)
		_, port, err := net.SplitHostPort((*to.hook).addr)
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return []string{"webhooks.allow_networks = 127.0.0.0/8", "webhooks.ca_file = " + filepath.Join(dir, certs.CAFile),
		"webhooks.ports = " + strings.Join(ports, " "), fmt.Sprintf("webhooks.timeout_seconds = %d", hookTimeout)}, nil
}

// metadata is the data of an object that declares a webhook to h, if there is one, and
// has more beside it.
func (h *hook) metadata(more map[string]any) ([]byte, error) {
	data := map[string]any{}
	for name, value := range more {
		data[name] = value
	}
	if h != nil {
		data["quinto"] = map[string]any{"webhooks": map[string]any{"all": map[string]any{
			"url": "https://" + h.addr + "/", "secret": h.secret, "resources": []string{"record"}}}}
	}
	return json.Marshal(map[string]any{"data": data})
}

// declared are the names of the notifiers that metadata declares for h.
func (w *world) declared(ctx context.Context, h *hook) (names []string, err error) {
	out, err := w.hooks(ctx, "list", "--json")
	if err != nil {
		return nil, err
	}
	var all struct {
		Listeners []struct {
			Name     string
			Declared *struct{ URL string }
		}
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, err
	}
	for _, l := range all.Listeners {
		if l.Declared == nil {
			continue
		}
		if u, err := url.Parse(l.Declared.URL); err == nil && u.Host == h.addr {
			names = append(names, l.Name)
		}
	}
	if len(names) == 0 {
		err = fmt.Errorf("%s: not in the list of hooks: %s", h.title, out)
	}
	return names, err
}
