package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"quinto/internal/testcluster"
)

// wires stands for a cluster on the default log store whose nodes prove themselves
// with certificates; what is harmed are these, and the key of gossip.
const wires = "tls"

const (
	keptLine  = "stay in force" // what a node says of new files that it cannot use
	takenLine = "read again"    // … and can
	hotLimit  = 30 * time.Second
)

// certify makes an authority, and a folder for each node with what it needs.
func (w *world) certify(binary string) error {
	if w.wires == "" {
		return nil
	}
	authority := filepath.Join(w.wires, "authority")
	quinto := func(args ...string) error {
		if out, err := exec.Command(binary, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("quinto %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	err := errors.Join(quinto("certs", "init", "--dir", authority), quinto("certs", "gossip-key", filepath.Join(authority, "gossip.key")))
	for _, n := range w.cluster.Nodes {
		own := filepath.Join(w.wires, n.Name)
		err = errors.Join(err, quinto("certs", "node", n.Name, "--dir", authority), os.MkdirAll(own, 0o700))
		for _, name := range []string{"ca.pem", "gossip.key", n.Name + ".pem", n.Name + ".key"} {
			err = errors.Join(err, exec.Command("cp", "-p", filepath.Join(authority, name), own).Run())
		}
	}
	return err
}

func (w *world) wireFlags(n *testcluster.Node) []string {
	file := func(name string) string { return filepath.Join(w.wires, n.Name, name) }
	return []string{"-v", "--cluster-tls-ca", file("ca.pem"), "--cluster-tls-cert", file(n.Name + ".pem"),
		"--cluster-tls-key", file(n.Name + ".key"), "--gossip-key-file", file("gossip.key")}
}

// hot harms a file while the victim runs: it has to say that it keeps what it has, or
// that it read the file, and to serve on either way.
func (w *world) hot(ctx context.Context, r *rand.Rand, res *result) error {
	if err := w.save(); err != nil {
		return err
	}
	before := len(w.victim.Log())
	var err error
	if res.Harm, err = mutate(r, filepath.Join(w.folder(), res.File)); err != nil {
		return err
	}
	res.Harm, res.Outcome = "running: "+res.Harm, equal
	said := func(what string) bool { return strings.Contains(w.victim.Log()[before:], what) }
	for end := time.Now().Add(hotLimit); !said(keptLine) && !said(takenLine) && w.victim.Running(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			res.Fault = errors.New("nothing is said of a file that changed")
			break
		}
	}
	if said(keptLine) {
		res.Outcome = kept
	}
	if !w.victim.Running() {
		res.Fault = errors.New("ended since a file changed")
	} else {
		res.Fault = errors.Join(res.Fault, w.compare(ctx))
	}
	// The whole file is another change, which has to be read before the next harm.
	if err := w.restore(); err != nil || res.Fault != nil {
		return err
	}
	before = len(w.victim.Log())
	for end := time.Now().Add(hotLimit); !said(takenLine) && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if !said(takenLine) {
		res.Fault = errors.New("the whole file is not read again")
	}
	return nil
}
