package command

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"quinto/api"
	"quinto/api/auth"
	"quinto/api/live"
	"quinto/api/resource"
	"quinto/cluster"
	"quinto/fsm"
	"quinto/fsm/store"
	"quinto/internal/config"
	"quinto/plugins"
	"quinto/plugins/dispatch"
)

const (
	storeFolder = "db"   // in the data folder
	nameFile    = "name" // in the data folder: the name of a node that was given none
	memoryName  = "memory"
)

// NodeOptions say what OpenNode wires together.
type NodeOptions struct {
	Config *config.Config
	// Logger gets what the parts have to say; nil: silent.
	Logger hclog.Logger
	// Plugins are those that the configuration may name; nil: plugins.Registered().
	Plugins *plugins.Registry
	// Stdout and Stderr get the lines of the log of requests; nil: they are dropped.
	Stdout, Stderr io.Writer
}

// Node is a running node: its state, its part in the cluster, its plugins and its
// HTTP port.
type Node struct {
	config     *config.Config
	name       string
	log        hclog.Logger
	listener   net.Listener
	store      *store.Store
	state      *fsm.FSM
	cluster    *cluster.Node
	plugins    *plugins.Set
	meter      *plugins.Meter
	dispatcher *dispatch.Dispatcher
	server     *api.Server
	admin      *adminServer // nil with the memory backend
	wires      wires
	backups    *scheduler // nil without a schedule
	archive    *archiver  // nil unless the log is archived

	failed    chan struct{}
	failOnce  sync.Once
	err       error // set before failed is closed
	stopped   chan struct{}
	wg        sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// OpenNode opens a node and begins to serve. On an error, which is about a
// setting, a port or a directory, nothing is left behind. ctx bounds the start
// only.
func OpenNode(ctx context.Context, o NodeOptions) (*Node, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Plugins == nil {
		o.Plugins = plugins.Registered()
	}
	n := &Node{config: o.Config, log: o.Logger, failed: make(chan struct{}), stopped: make(chan struct{})}
	if err := n.open(ctx, o); err != nil {
		if n.listener != nil {
			err = errors.Join(err, n.listener.Close())
		}
		return nil, errors.Join(err, n.release())
	}
	n.wg.Go(n.watch)
	n.wg.Go(func() {
		if err := n.server.Serve(n.wires.gated(n.listener)); err != nil {
			n.fail(fmt.Errorf("HTTP port: %w", err))
		}
	})
	return n, nil
}

func (n *Node) open(ctx context.Context, o NodeOptions) error {
	c := o.Config
	address := net.JoinHostPort(c.HTTP.Host, strconv.Itoa(c.HTTP.Port))
	var err error
	// The port first: it is what most often is wrong, and cheap to give back.
	if n.listener, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("HTTP address %s: %w", address, err)
	}
	if n.name, err = nodeName(c); err != nil {
		return err
	}
	if n.wires, err = openWires(c, n.name, n.log); err != nil {
		return err
	}
	if err := n.openPlugins(ctx, o.Plugins); err != nil {
		return err
	}
	events := new(cluster.StoreEvents)
	if err := n.openState(events); err != nil {
		return err
	}
	if n.cluster, err = cluster.Open(n.clusterConfig(events), n.state, n.store); err != nil {
		return err
	}
	service, err := n.service()
	if err == nil {
		n.dispatcher, err = n.newDispatcher()
	}
	if err == nil {
		n.backups, err = newScheduler(n, n.log.Named("backup"))
		n.archive = newArchiver(n.backups, n.log.Named("archive"))
	}
	if err != nil { // not for any setting: openPlugins has tried them
		return errors.Join(err, n.cluster.Start())
	}
	hub := live.New(live.Options{Service: service, State: n.state, Streams: c.Limits.Streams, PerUser: c.Limits.UserStreams, Log: n.log.Named("live")})
	n.server = api.New(api.Options{Service: service, Node: n.cluster, State: n.state, Config: c, Name: n.name, Live: hub,
		Version: api.BuildVersion(Release), Meter: n.meter, RequestLog: requestLog(&o), Logger: n.log.Named("api"),
		TLS: n.wires.serverTLS(), SettingsDiffer: n.cluster.SettingsDiffer})
	n.cluster.Handle(service.Serve)
	if err := n.cluster.Start(); err != nil {
		n.cluster = nil // a node that did not start has cleaned up
		hub.Close(ctx)
		return err
	}
	n.dispatcher.Start()
	if !c.Memory {
		if n.admin, err = serveAdmin(n, c.Cluster.DataDir, n.log.Named("admin")); err != nil { // the file system may have no sockets
			n.log.Error("no admin channel: commands on this node will not work", "error", err)
		}
	}
	n.backups.start()
	n.archive.start()
	n.meter.Figures(n.figures)
	return nil
}

// openPlugins loads what the settings name, and tries what depends on nothing else,
// so that a bad setting is found before anything is written.
func (n *Node) openPlugins(ctx context.Context, known *plugins.Registry) error {
	var err error
	if n.plugins, err = known.Open(ctx, n.pluginSettings(known)); err != nil {
		return err
	}
	n.meter = plugins.NewMeter(n.plugins.Metrics)
	if err := n.addPolicies(ctx, known); err != nil {
		return err
	}
	if _, err := n.kinds(); err != nil {
		return err
	}
	_, err = n.newDispatcher()
	return err
}

// addPolicies makes the authentication policies, in their order.
func (n *Node) addPolicies(ctx context.Context, known *plugins.Registry) error {
	for _, p := range n.config.Auth.Policies {
		if p.Use == config.BasicAuthPolicy {
			n.plugins.Add(auth.NewBasic(p.Name, n.config.Auth.UserIDSecret))
			continue
		}
		s := n.settings(p.Name, p.Use)
		s.Params = p.Params
		policy, err := known.Load(ctx, s)
		if err != nil {
			return err
		}
		n.plugins.Add(policy)
	}
	return nil
}

// kinds are the rows of the table of resources.
func (n *Node) kinds() ([]*resource.Kind, error) {
	all := resource.Kinds()
	for _, p := range n.plugins.Kinds {
		for _, k := range p.Kinds() {
			all = append(all, resource.FromPlugin(&k))
		}
	}
	return all, resource.CheckKinds(all)
}

func (n *Node) openState(events *cluster.StoreEvents) error {
	options := store.Options{Dir: storeFolder, FS: vfs.NewMem(), CacheBytes: n.config.Store.CacheBytes, OnEvent: events.On, Prepare: fsm.CheckReceived}
	if !n.config.Memory {
		if err := checkRestored(n.config.Cluster.DataDir); err != nil {
			return err
		}
		options.FS, options.Dir = nil, filepath.Join(n.config.Cluster.DataDir, storeFolder)
	}
	var err error
	if n.store, err = store.Open(options); err != nil {
		return fmt.Errorf("data folder %q: %w", n.config.Cluster.DataDir, err)
	}
	n.state, err = fsm.Open(n.store)
	return err
}

func (n *Node) clusterConfig(events *cluster.StoreEvents) cluster.Config {
	c := n.config
	return cluster.Config{
		Name: n.name, DataDir: c.Cluster.DataDir, Memory: c.Memory, LogStore: c.Store.Log,
		ClusterAddr: c.Cluster.Address, GossipAddr: c.Cluster.Gossip, HTTPAddr: n.httpAddr(),
		Join: c.Cluster.Join, Expect: c.Cluster.Expect,
		HeartbeatTimeout: c.Raft.HeartbeatTimeout, ElectionTimeout: c.Raft.ElectionTimeout,
		LeaderLease: c.Raft.LeaseTimeout, CommitTimeout: c.Raft.CommitTimeout,
		SnapshotBytes: c.Raft.SnapshotLogBytes, TrailingBytes: c.Raft.TrailingLogBytes,
		SnapshotEntries: uint64(c.Raft.SnapshotEntries), TrailingEntries: uint64(c.Raft.TrailingEntries),
		PendingWrites: c.Limits.PendingWrites, Events: events, Logger: n.log, Now: nodeClock(n.name),
		TLS: n.wires.cluster, GossipKeys: n.wires.gossip, GossipLabel: c.Cluster.Wires.Label,
		InsecurePlaintext: c.Cluster.Wires.InsecurePlaintext, SettingMarks: c.Marks,
		StallTimeout: c.Health.StallTimeout, StallExit: c.Health.StallExit, StuckAfter: c.Health.StuckAfter,
		ClockWarn: c.Health.ClockWarn, ClockMax: c.Health.ClockMax, MinFreeBytes: c.Health.MinFreeBytes,
		RemoveDead: c.Health.RemoveDead, DeadAfter: c.Health.DeadAfter, MinVoters: c.Health.MinVoters,
		ArchiveHoldBytes: holdBytes(c),
	}
}

// httpAddr is what other nodes show as this one's API; empty without a port.
func (n *Node) httpAddr() string {
	if n.listener == nil {
		return ""
	}
	return advertised(n.listener.Addr(), n.config.Cluster.Address)
}

func (n *Node) service() (*resource.Service, error) {
	kinds, err := n.kinds()
	if err != nil {
		return nil, err
	}
	return resource.New(resource.Options{
		Config: n.withGrants(kinds), Node: n.cluster, Kinds: kinds,
		Authenticators: n.plugins.Authenticators,
		Hooks:          n.meter.TimeHooks(n.plugins.BeforeCommit),
		Meter:          n.meter,
		Providers:      n.plugins.Capabilities,
		Users:          n.plugins.Users,
		Endpoints:      n.routes(),
		Aliases:        n.plugins.Aliases,
		Version:        api.BuildVersion(Release).Version,
		ConfigInfo:     configInfo(n.config.Path),
		Logger:         n.log.Named("resource"),
		Other: func(ctx context.Context, r *resource.Request) *resource.Response {
			return n.server.BatchPart(ctx, r) // made before the first request comes
		},
	})
}

func (n *Node) pluginSettings(known *plugins.Registry) []plugins.Settings {
	var all []plugins.Settings
	for _, name := range n.config.Includes {
		if slices.Contains(known.Plugins(), name) {
			all = append(all, n.settings(name, name))
		}
	}
	for _, l := range n.config.Listeners {
		s := n.settings(l.Name, l.Use)
		s.Actions, s.Resources, s.URL, s.Secret, s.Params = l.Actions, l.Resources, l.URL, l.Secret, l.Params
		s.Log = s.Log.With("listener", l.Name)
		all = append(all, s)
	}
	return all
}

// settings are what every plugin gets.
func (n *Node) settings(name, use string) plugins.Settings {
	return plugins.Settings{Name: name, Use: use, Log: n.slog("plugins"), Lookup: n.config.Lookup, ReadOnly: n.config.ReadOnly}
}

// requestLog is what the settings ask for; nil: nothing.
func requestLog(o *NodeOptions) *api.RequestLog {
	to := o.Stderr
	if o.Config.Logging.Stdout {
		to = o.Stdout
	}
	if to == nil {
		return nil
	}
	return api.NewRequestLog(o.Config, to)
}

func (n *Node) newDispatcher() (*dispatch.Dispatcher, error) {
	s := n.config.Store
	hidden := map[string][]string{}
	for _, p := range n.plugins.Kinds {
		for _, k := range p.Kinds() {
			hidden[k.Plural] = k.Hidden
		}
	}
	return dispatch.New(dispatch.Options{
		Hidden: hidden,
		Leader: n.cluster, State: n.state, Notifiers: n.plugins.Notifiers, Declaring: n.plugins.Declaring, Observers: n.plugins.Observers,
		Log: n.slog("dispatch"), Meter: n.meter,
		Retention: dispatch.Retention{Keep: uint64(s.EventsRetained), HardCap: uint64(s.EventsMaximum), Age: s.EventsAge},
		HandOver:  func(reason string) error { return n.cluster.TransferLeadership(reason) },
	})
}

// slog is the node's logger as package plugins knows loggers.
func (n *Node) slog(name string) *slog.Logger { return slog.New(&handler{log: n.log.Named(name)}) }

func (n *Node) routes() []plugins.Route {
	all := append(n.hooksRoutes(), n.ownHooksRoutes()...)
	for _, p := range n.plugins.Routes {
		all = append(all, p.Routes()...)
	}
	return all
}

// watch waits for the node's part in the cluster, or its state, to fail.
func (n *Node) watch() {
	select {
	case <-n.cluster.Failed():
		n.fail(n.cluster.Err())
	case <-n.state.Halted():
		n.fail(n.state.HaltError())
	case <-n.stopped:
	}
}

func (n *Node) fail(err error) {
	n.failOnce.Do(func() {
		n.err = err
		close(n.failed)
	})
}

// Failed is closed when the node is out of service for good; Err says why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Err returns why the node failed. Call it only after Failed is closed.
func (n *Node) Err() error { return n.err }

// Name is the node's name in the cluster.
func (n *Node) Name() string { return n.name }

// URL is the root of the API as a client on this machine reaches it.
func (n *Node) URL() string {
	scheme := "http://"
	if n.wires.public != nil {
		scheme = "https://"
	}
	return scheme + reachable(n.listener.Addr()) + "/v1/"
}

// WaitReady returns once the node serves linearizable reads, or with ctx's error.
func (n *Node) WaitReady(ctx context.Context) error { return n.cluster.WaitReady(ctx) }

// Close stops the node: it hands leadership over, lets running requests end within
// the configured time, and gives port and folder free. It may be called again.
func (n *Node) Close() error {
	n.closeOnce.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

// failedGrace is how long a node that is out of service for good, removed say, waits for
// running requests: nothing can come of them here, and their clients may ask another.
const failedGrace = 2 * time.Second

func (n *Node) close() error {
	close(n.stopped)
	limit := n.config.Timeouts.Shutdown
	select {
	case <-n.cluster.Failed():
		limit = min(limit, failedGrace)
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	n.archive.close()
	n.backups.close()
	closing := n.admin.close(ctx)
	n.dispatcher.Close() // while this node may still lead, so that its cursors are kept
	if n.cluster.IsLeader() {
		if err := n.cluster.TransferLeadership("shutdown"); err != nil {
			n.log.Debug("no other node takes the lead", "error", err)
		}
	}
	err := n.server.Shutdown(ctx) // running writes go to the new leader
	if err != nil {
		n.log.Warn("requests were cut off", "error", err)
	}
	n.wg.Wait()
	return errors.Join(closing, n.release())
}

// release closes what is open, in the order of its use.
func (n *Node) release() error {
	var errs []error
	if n.cluster != nil {
		ctx, cancel := context.WithTimeout(context.Background(), n.config.Timeouts.Shutdown)
		defer cancel()
		errs = append(errs, n.cluster.Shutdown(ctx))
	}
	if n.plugins != nil {
		errs = append(errs, n.plugins.Close())
	}
	if n.store != nil {
		select {
		case <-n.failed: // a full or hanging disk may be why
		default: // in order: the next start begins where this one ended
			errs = append(errs, n.store.Flush())
		}
		errs = append(errs, n.store.Close())
	}
	return errors.Join(append(errs, n.wires.close())...)
}

// nodeName is the configured name, else that of the data folder, else the one that an
// earlier start has made.
func nodeName(c *config.Config) (string, error) {
	switch {
	case c.Cluster.Name != "":
		return c.Cluster.Name, nil
	case c.Memory:
		return memoryName, nil
	}
	if name, err := cluster.NameOf(c.Cluster.DataDir); err != nil || name != "" {
		return name, err
	}
	path := filepath.Join(c.Cluster.DataDir, nameFile)
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("data folder: %w", err)
	}
	if name, err := cluster.StoredName(c.Cluster.DataDir); err != nil || name != "" {
		return name, err // it was given one on the command line
	}
	random := make([]byte, 4)
	rand.Read(random) // never fails: crypto/rand ends the program instead
	name := "node-" + hex.EncodeToString(random)
	return name, writeName(c.Cluster.DataDir, name)
}

// writeName notes the name of the node in its data folder.
func writeName(dir, name string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, nameFile), []byte(name+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	return nil
}

// reachable is addr as others on this machine can dial it.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
}

// configInfo is what Kinto's hello view says of the settings file: path, SHA-256
// and time; nil without one.
func configInfo(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(text)
	b, err := json.Marshal(struct {
		Path     string `json:"path"`
		Hash     string `json:"hash"`
		Modified string `json:"modified"`
	}{path, hex.EncodeToString(sum[:]), info.ModTime().Format("2006-01-02T15:04:05.000000")})
	if err != nil {
		return nil
	}
	return b
}
