package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"quinto/internal/config"
	"quinto/plugins"
)

// iniName is the file in the data folder that a first start writes.
const iniName = "quinto.ini"

// startFlags are the flags of `quinto start`.
type startFlags struct {
	ini, data, http, cluster, gossip, name string
	join                                   []string
	port, expect                           int
	verbose                                bool
}

func startCommand() *cobra.Command {
	var f startFlags
	c := &cobra.Command{
		Use:   "start",
		Short: "Run a node",
		Long: "Run a node. Without --join and --expect it is a single node that starts a cluster of one.\n" +
			"Without --ini, settings are read from " + iniName + " in the data folder, which the first start writes.\n" +
			"A flag wins over the environment, and that over the file.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return f.run(c.Context(), c.Flags().Changed, os.Environ(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.ini, "ini", "", "read settings from `FILE` (Kinto's INI format)")
	flags.StringVar(&f.data, "data", "", "keep everything in the folder `DIR` (default \"data\")")
	flags.IntVar(&f.port, "port", 0, "listen for HTTP on port `N` (default 8888)")
	flags.StringVar(&f.http, "http", "", "listen for HTTP on `HOST:PORT`")
	flags.StringVar(&f.cluster, "cluster", "", "talk to other nodes on `HOST:PORT`")
	flags.StringVar(&f.gossip, "gossip", "", "discover other nodes on `HOST:PORT` (UDP and TCP)")
	flags.StringVar(&f.name, "name", "", "be called `NAME`, for ever, within the cluster")
	flags.StringSliceVar(&f.join, "join", nil, "find the cluster through these gossip addresses, `HOST:PORT[,…]`")
	flags.IntVar(&f.expect, "expect", 0, "begin a cluster once `N` empty nodes have met")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log what happens, to stderr")
	c.MarkFlagsMutuallyExclusive("port", "http")
	return c
}

// settings are the flags that were given, by the names of the settings.
func (f *startFlags) settings(given func(string) bool) (map[string]string, error) {
	s := map[string]string{}
	for flag, setting := range map[string]struct{ name, value string }{
		"data": {"quinto.data_dir", f.data}, "cluster": {"quinto.cluster", f.cluster}, "gossip": {"quinto.gossip", f.gossip},
		"name": {"quinto.name", f.name}, "join": {"quinto.join", strings.Join(f.join, ",")},
		"expect": {"quinto.expect", strconv.Itoa(f.expect)}, "port": {config.PortKey, strconv.Itoa(f.port)},
	} {
		if given(flag) {
			s[setting.name] = setting.value
		}
	}
	if given("http") {
		host, port, err := net.SplitHostPort(f.http)
		if err != nil {
			return nil, fmt.Errorf("--http %q: not HOST:PORT", f.http)
		}
		if host == "" {
			host = "0.0.0.0"
		}
		s[config.HostKey], s[config.PortKey] = host, port
	}
	return s, nil
}

// run loads the settings and serves until ctx ends.
func (f *startFlags) run(ctx context.Context, given func(string) bool, environ []string, stdout, stderr io.Writer) error {
	settings, err := f.settings(given)
	if err != nil {
		return err
	}
	known := plugins.Registered()
	c, first, err := loadConfig(config.Options{Path: f.ini, Environ: environ, Flags: settings,
		Policies: known.Policies(), Plugins: known.Plugins(), Effective: known.SettingPatterns()})
	if err != nil {
		return err
	}
	if first {
		fmt.Fprintf(stderr, "quinto: wrote %s with a random secret\n", c.Path)
	}
	for _, line := range c.Warnings() {
		fmt.Fprintln(stderr, "quinto: warning:", line)
	}
	level := hclog.Warn
	if f.verbose {
		level = hclog.Debug
	}
	node, err := OpenNode(ctx, NodeOptions{Config: c, Logger: hclog.New(&hclog.LoggerOptions{Name: "quinto", Level: level, Output: stderr})})
	if err != nil {
		return err
	}
	return serve(ctx, node, func() {
		fmt.Fprintf(stderr, "quinto: node %s is ready: %s\n", node.Name(), node.URL())
		if first {
			fmt.Fprintf(stdout, "Try it:\n  curl -u alice:secret -X PUT %sbuckets/first\n", node.URL())
		}
	})
}

// serve runs node until ctx ends or it fails, then closes it. It calls ready once
// the node serves.
func serve(ctx context.Context, node *Node, ready func()) error {
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if node.WaitReady(serving) == nil {
			ready()
		}
	}()
	var failed error
	select {
	case <-ctx.Done():
	case <-node.Failed():
		failed = node.Err()
	}
	cancel()
	if err := errors.Join(failed, node.Close()); err != nil {
		return failure{err}
	}
	return nil
}

// loadConfig loads the named file, else the one in the data folder, which it
// writes on a first start.
func loadConfig(o config.Options) (c *config.Config, first bool, err error) {
	if o.Path != "" {
		c, err = config.Load(o)
		return c, false, err
	}
	if c, err = config.Load(o); err != nil { // for the data folder
		return nil, false, err
	}
	o.Path = filepath.Join(c.Cluster.DataDir, iniName)
	if _, err := os.Stat(o.Path); errors.Is(err, fs.ErrNotExist) {
		if !c.Cluster.Alone() && c.Auth.UserIDSecret == "" {
			return nil, false, errors.New("--join and --expect need --ini: all nodes must have the same secrets in their settings, " +
				"or a user is somebody else on each (`quinto start --data DIR` alone writes a file to copy)")
		}
		if err := config.WriteDefault(o.Path); err != nil {
			return nil, false, fmt.Errorf("data folder %q: %w", c.Cluster.DataDir, err)
		}
		first = true
	}
	// The file says where its folder is, but only this one was looked at.
	flags := map[string]string{"quinto.data_dir": c.Cluster.DataDir}
	for name, text := range o.Flags {
		flags[name] = text
	}
	o.Flags = flags
	c, err = config.Load(o)
	return c, first, err
}

// oneLine is the text of err without line ends: errors.Join makes several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
