package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"quinto/internal/config"
	"quinto/plugins"
)

// iniName is the file in the data folder that a first start writes.
const iniName = "quinto.ini"

// kintoINI is where Kinto's commands look for their settings.
const kintoINI = "config/kinto.ini"

// startFlags are the flags of `quinto start`.
type startFlags struct {
	ini, data, http, cluster, gossip, name string
	join                                   []string
	port, expect                           int
	quiet, verbose, reload                 bool
	wires                                  wireFlags
}

func startCommand() *cobra.Command {
	var f startFlags
	c := &cobra.Command{
		Use:   "start",
		Short: "Run a node",
		Long: "Run a node. Without --join and --expect it is a single node that starts a cluster of one.\n" +
			"Without --ini, settings are read from $KINTO_INI, else from " + iniName + " in the data folder, else, unless\n" +
			"--data is given, from " + kintoINI + "; if there is none, the first start writes " + iniName + ".\n" +
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
	flags.BoolVar(&f.reload, "reload", false, "accepted as Kinto's; a node reads its settings at its start only")
	f.wires.add(flags)
	addVerbosity(c, &f.quiet, &f.verbose)
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
	f.wires.settings(given, s)
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
	if !f.quiet {
		for _, line := range f.warnings(c) {
			fmt.Fprintln(stderr, "quinto: warning:", line)
		}
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "quinto", Level: logLevel(f.quiet, f.verbose), Output: stderr})
	tuneCollector()
	node, err := OpenNode(ctx, NodeOptions{Config: c, Stdout: stdout, Stderr: stderr, Logger: log})
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

func (f *startFlags) warnings(c *config.Config) []string {
	lines := c.Warnings()
	if f.reload {
		lines = append(lines, "--reload has no effect: start the node again after a change")
	}
	return lines
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
	closed := make(chan error, 1)
	go func() { closed <- node.Close() }()
	if failed == nil {
		if err := <-closed; err != nil {
			return failure{err}
		}
		return nil
	}
	select {
	case err := <-closed:
		return failure{errors.Join(failed, err)}
	case <-time.After(closeLimit): // a hung disk, perhaps: the end of the process is what is left
		return failure{failed}
	}
}

// closeLimit bounds the closing of a node that failed.
const closeLimit = 30 * time.Second

// settingsFile finds the INI file as every command does: the named one, else
// $KINTO_INI as for Kinto, else the one of the data folder, else config/kinto.ini,
// which is Kinto's place; the last only if nobody named a data folder. Empty: there
// is none. It sets the data folder among o's flags if the file lies in it.
func settingsFile(o *config.Options, dataGiven bool) (string, error) {
	if o.Path != "" {
		return o.Path, nil
	}
	for _, pair := range o.Environ {
		if path, ok := strings.CutPrefix(pair, "KINTO_INI="); ok && path != "" {
			return path, nil
		}
		dataGiven = dataGiven || strings.HasPrefix(pair, "QUINTO_DATA_DIR=") || strings.HasPrefix(pair, "KINTO_QUINTO_DATA_DIR=")
	}
	c, err := config.Load(*o) // for the data folder
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.Cluster.DataDir, iniName)
	_, err = os.Stat(path)
	switch {
	case err == nil:
		// The file says where its folder is, but only this one was looked at.
		flags := map[string]string{"quinto.data_dir": c.Cluster.DataDir}
		maps.Copy(flags, o.Flags)
		o.Flags = flags
		return path, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("data folder: %w", err)
	}
	if _, err := os.Stat(kintoINI); err == nil && !dataGiven {
		return kintoINI, nil
	}
	return "", nil
}

// loadConfig loads the file that settingsFile finds, else writes one in the data
// folder: a first start.
func loadConfig(o config.Options) (c *config.Config, first bool, err error) {
	_, dataGiven := o.Flags["quinto.data_dir"]
	if o.Path, err = settingsFile(&o, dataGiven); err != nil {
		return nil, false, err
	}
	if c, err = config.Load(o); err != nil || o.Path != "" {
		return c, false, err
	}
	if !c.Cluster.Alone() && c.Auth.UserIDSecret == "" {
		return nil, false, errors.New("--join and --expect need --ini: all nodes must have the same secrets in their settings, " +
			"or a user is somebody else on each (`quinto start --data DIR` alone writes a file to copy)")
	}
	if err := config.WriteDefault(filepath.Join(c.Cluster.DataDir, iniName)); err != nil {
		return nil, false, fmt.Errorf("data folder %q: %w", c.Cluster.DataDir, err)
	}
	if o.Path, err = settingsFile(&o, true); err != nil {
		return nil, false, err
	}
	c, err = config.Load(o)
	return c, true, err
}

// oneLine is the text of err without line ends: errors.Join makes several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
