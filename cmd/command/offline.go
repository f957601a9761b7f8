package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"quinto/cluster"
	"quinto/internal/config"
	"quinto/plugins"
)

// offlineWait bounds how long a node that is alone needs to lead.
const offlineWait = 30 * time.Second

// errSeveral is why a stopped member is not opened alone.
var errSeveral = errors.New("one of several")

// openOffline opens the node of c's data folder in this process, for a command: it
// has no HTTP port, finds nobody and delivers nothing. A folder that is still empty
// becomes a cluster of one, as with `quinto start`. It is refused while another
// process serves the folder, and for a node that is one of several: those decide
// together. release closes it.
func openOffline(ctx context.Context, c *config.Config, log hclog.Logger) (*Node, error) {
	alone := *c
	alone.Cluster.Join, alone.Cluster.Expect, alone.Cluster.Gossip, alone.Cluster.Address = nil, 0, "", ""
	n := &Node{config: &alone, log: log, failed: make(chan struct{}), stopped: make(chan struct{})}
	if err := n.openAlone(ctx, c.Cluster.Alone()); err != nil {
		return nil, errors.Join(err, n.release())
	}
	return n, nil
}

// openAlone opens n; mayFound says whether an empty folder may become a cluster.
func (n *Node) openAlone(ctx context.Context, mayFound bool) error {
	dir := n.config.Cluster.DataDir
	if _, err := os.Stat(filepath.Join(dir, storeFolder)); errors.Is(err, fs.ErrNotExist) && !mayFound {
		return fmt.Errorf("data folder %q is empty, and its settings make it one of several nodes: start it first", dir)
	}
	var err error
	if n.name, err = nodeName(n.config); err != nil {
		return err
	}
	known := plugins.Registered()
	if n.plugins, err = known.Open(ctx, n.pluginSettings(known)); err != nil {
		return err
	}
	events := new(cluster.StoreEvents)
	if err := n.openState(events); err != nil {
		return err
	}
	if n.cluster, err = cluster.Open(n.clusterConfig(events), n.state, n.store); err != nil {
		return err
	}
	members, err := n.cluster.StoredMembers()
	if err != nil {
		return err
	}
	if len(members) > 1 || len(members) == 1 && members[0] != n.name {
		slices.Sort(members)
		return fmt.Errorf("no process serves data folder %q, and its node is %w (%s): run the command where a node runs", dir, errSeveral, strings.Join(members, ", "))
	}
	if err := n.cluster.Start(); err != nil {
		n.cluster = nil // a node that did not start has cleaned up
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, offlineWait)
	defer cancel()
	return n.cluster.WaitReady(ctx)
}
