package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"quinto/cluster"
	"quinto/fsm"
	"quinto/internal/config"
)

// recovery is what `quinto cluster recover --json` prints. Its form is stable.
type recovery struct {
	cluster.Survivor
	Recovered bool     `json:"recovered"`
	Removed   []string `json:"removed"` // names of the nodes that may not come back
	// Next is where revisions go on; 0: nothing was recovered.
	Next fsm.Revision `json:"next_revision"`
}

func recoverCommand() *cobra.Command {
	var f memberFlags
	yes := false
	c := &cobra.Command{
		Use: "recover", Short: "Make a stopped node the only member, after a majority was lost for ever", Args: cobra.NoArgs,
		Long: "Make a stopped node the only member of its cluster, after a majority of the members was lost for ever.\n" +
			"Without --yes it only says what the folder has: compare all survivors, and take the one with the highest\n" +
			"term, then the highest last_index. What the lost nodes had acknowledged and this one never received is lost.\n" +
			"All other nodes are noted as removed: they refuse to come back with their old folders.",
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			log := hclog.New(&hclog.LoggerOptions{Name: "quinto", Level: logLevel(f.quiet, f.verbose), Output: f.stderr})
			r, err := recoverOffline(c.Context(), settings, log, yes)
			if err != nil {
				return failure{err}
			}
			if f.asJSON {
				return printJSON(c.OutOrStdout(), r)
			}
			return f.sayRecovery(c, r)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

func (f *memberFlags) sayRecovery(c *cobra.Command, r recovery) error {
	about := fmt.Sprintf("node %s of cluster %s (members %s): its log ends in term %d at index %d, its state is at revision %d",
		r.Name, r.Cluster, strings.Join(r.Members, ", "), r.Term, r.Index, r.Revision)
	if !r.Recovered {
		return f.say(c, "%s\nnothing was changed; with --yes this node becomes the only member", about)
	}
	gone := "nobody"
	if len(r.Removed) > 0 {
		gone = strings.Join(r.Removed, ", ")
	}
	return f.say(c, "%s\n%s is now the only member; start it as usual, and let new nodes join. Refused from now on: %s\nrevisions go on from %d: tokens of writes that were lost are told so", about, r.Name, gone, r.Next)
}

// recoverOffline looks at the node of c's data folder, which no process may serve, and
// with yes makes it the only member of its cluster.
func recoverOffline(ctx context.Context, c *config.Config, log hclog.Logger, yes bool) (r recovery, err error) {
	r.Removed = []string{}
	if c.Memory {
		return r, errors.New("storage_backend is memory: there is nothing to recover")
	}
	dir := c.Cluster.DataDir
	if conn, err := dialAdmin(dir); err == nil {
		return r, errors.Join(fmt.Errorf("a process serves data folder %q: stop it first", dir), conn.close())
	}
	if _, err := os.Stat(filepath.Join(dir, storeFolder)); errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("data folder %q is empty", dir)
	}
	alone := *c
	alone.Cluster.Join, alone.Cluster.Expect, alone.Cluster.Gossip, alone.Cluster.Address = nil, 0, "", ""
	n := &Node{config: &alone, log: log, failed: make(chan struct{}), stopped: make(chan struct{})}
	defer func() { err = errors.Join(err, n.release()) }()
	if n.name, err = nodeName(n.config); err != nil {
		return r, err
	}
	events := new(cluster.StoreEvents)
	if err = n.openState(events); err != nil {
		return r, err
	}
	settings := n.clusterConfig(events)
	settings.Recover = true
	if n.cluster, err = cluster.Open(settings, n.state, n.store); err != nil {
		return r, err
	}
	if r.Survivor, err = n.cluster.Survivor(); err != nil || !yes {
		return r, err
	}
	return r, n.recover(ctx, &r)
}

func (n *Node) recover(ctx context.Context, r *recovery) error {
	if err := n.cluster.Recover(); err != nil {
		return err
	}
	if err := n.cluster.Start(); err != nil {
		n.cluster = nil // a node that did not start has cleaned up
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, offlineWait)
	defer cancel()
	if err := n.cluster.WaitReady(ctx); err != nil {
		return err
	}
	removed, err := n.cluster.EndRecovery(ctx)
	if err == nil {
		r.Recovered, r.Removed, r.Next = true, append(r.Removed, removed...), n.state.Revision()
	}
	return err
}
