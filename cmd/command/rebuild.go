package command

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"quinto/api"
	"quinto/cluster"
	"quinto/internal/config"
)

func rebuildCommand() *cobra.Command {
	var f adminFlags
	var r remote
	c := &cobra.Command{
		Use: "rebuild --http URL", Short: "Empty this stopped node, so that it gets everything from the others", Args: cobra.NoArgs,
		Long: "Drop the state and the log of the stopped node of the data folder. It keeps its name, its id and its vote,\n" +
			"and at its next start the leader sends it everything. --http is any other node: it has to know a leader, and a\n" +
			"majority of the voters has to be ready without this node, or nothing is touched.",
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			if r.base, err = baseURL(r.rootFlag); err != nil {
				return err
			}
			if r.client, err = clientTrusting(r.ca); err != nil {
				return err
			}
			defer r.client.CloseIdleConnections()
			name, err := r.rebuild(c.Context(), settings)
			if err != nil {
				return failure{err}
			}
			return f.say(c, "%s is empty now: start node %s as usual, the leader sends it everything.", settings.Cluster.DataDir, name)
		},
	}
	c.Flags().StringVar(&r.rootFlag, "http", "", "`URL` of another node")
	c.Flags().StringVar(&r.user, "auth", "", "authenticate as `USER:PASSWORD`")
	c.Flags().StringVar(&r.ca, "ca", "", "for https, trust the authorities in `FILE`")
	_ = c.MarkFlagRequired("http") // the flag exists
	f.add(c)
	return c
}

// rebuild checks that the node of c's data folder is not needed, and empties it.
func (r *remote) rebuild(ctx context.Context, c *config.Config) (string, error) {
	dir := c.Cluster.DataDir
	name, err := cluster.StoredName(dir)
	if err == nil && name == "" {
		err = fmt.Errorf("data folder %q is of no node", dir)
	}
	if err != nil {
		return "", err
	}
	if conn, err := dialAdmin(dir); err == nil {
		return "", errors.Join(fmt.Errorf("a process serves data folder %q: stop it first", dir), conn.close())
	}
	var s api.ClusterStatus
	if err := r.get(ctx, r.base, api.ClusterPath, statusTimeout, &s); err != nil {
		return "", err
	}
	if err := canSpare(name, &s); err != nil {
		return "", err
	}
	return name, cluster.Rebuild(cluster.Config{Name: name, DataDir: dir, LogStore: c.Store.Log}, filepath.Join(dir, storeFolder))
}

// canSpare returns why a node cannot be emptied.
func canSpare(name string, s *api.ClusterStatus) error {
	known, voters, ready := false, 0, 0
	for _, m := range s.Members {
		known = known || m.Name == name
		if m.Suffrage != "voter" {
			continue
		}
		voters++
		if m.Name != name && m.Ready {
			ready++
		}
	}
	switch {
	case !known:
		return fmt.Errorf("%s is no member of the cluster that was asked", name)
	case s.Leader == "" || s.Leader == name:
		return errors.New("no other node leads: nobody could send the state")
	case ready <= voters/2:
		return fmt.Errorf("only %d of %d voters are ready without %s: it may hold what the others lack", ready, voters, name)
	}
	return nil
}
