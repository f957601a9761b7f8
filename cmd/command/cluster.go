package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"quinto/api"
	"quinto/fsm"
)

const (
	statusTimeout = 10 * time.Second
	hashTimeout   = 5 * time.Minute // a full hash reads all data of a node
	maxAnswer     = 1 << 20         // bytes of an answer that are read
	hashAttempts  = 6               // until no entry falls between two nodes' hashes
	hashPause     = 500 * time.Millisecond
	versionPrefix = "/v1"
)

// errDiffer is returned when nodes at one revision have different content.
var errDiffer = errors.New("the nodes differ after the same entries: one of them is damaged")

// errMissing is returned when those that answered are equal and some did not.
var errMissing = errors.New("not all members answered: the others may differ")

// remote is a node as its public port shows it.
type remote struct {
	adminFlags        // where the node's folder is, if it is asked through that
	base       string // without a slash at the end
	user       string // "name:password", or empty
	asJSON     bool
	rootFlag   string
	ca         string // a PEM file of authorities to trust beside the system's; empty: none
	client     *http.Client
}

func clusterCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{Use: "cluster", Short: "Look at a cluster and change its members"}
	status := &cobra.Command{
		Use: "status", Short: "Show the leader and the members", Args: cobra.NoArgs,
		Long: "Show the leader and the members. With --data, or if a node serves the default folder, it is asked through that\n" +
			"folder; with --http, or if there is none, over HTTP.",
		RunE: func(c *cobra.Command, _ []string) error {
			if s, ok, err := r.localStatus(c); err != nil {
				return err
			} else if ok {
				return r.printStatus(c.OutOrStdout(), s)
			}
			return r.run(c, r.status)
		},
	}
	hash := &cobra.Command{
		Use: "hash", Short: "Compare the content of all nodes", Args: cobra.NoArgs,
		Long: "Compare the content of all nodes at one revision. Each reads all of its data for it.",
		RunE: func(c *cobra.Command, _ []string) error { return r.run(c, r.hash) },
	}
	for _, sub := range []*cobra.Command{status, hash} {
		sub.Flags().StringVar(&r.rootFlag, "http", "http://127.0.0.1:8888", "`URL` of any node")
		sub.Flags().StringVar(&r.user, "auth", "", "authenticate as `USER:PASSWORD`")
		sub.Flags().StringVar(&r.ca, "ca", "", "for https, trust the authorities in `FILE`")
		sub.Flags().BoolVar(&r.asJSON, "json", false, "print JSON")
		c.AddCommand(sub)
	}
	r.add(status)
	c.AddCommand(memberCommands()...)
	c.AddCommand(recoverCommand(), rebuildCommand())
	return c
}

// localStatus asks the node of the data folder; false when the node is to be asked
// over HTTP.
func (r *remote) localStatus(c *cobra.Command) (s api.ClusterStatus, ok bool, err error) {
	given := c.Flags().Changed("data") || c.Flags().Changed("ini")
	if c.Flags().Changed("http") && !given {
		return s, false, nil
	}
	settings, err := r.load(c)
	if err != nil && given {
		return s, false, err
	}
	if !given {
		if err != nil || settings.Memory {
			return s, false, nil
		}
		conn, err := dialAdmin(settings.Cluster.DataDir)
		if err != nil {
			return s, false, nil
		}
		if err := conn.close(); err != nil {
			return s, false, err
		}
	}
	ctx, cancel := context.WithTimeout(c.Context(), statusTimeout)
	defer cancel()
	err = r.ask(ctx, settings, clusterStatusCall.name, struct{}{}, &s)
	return s, err == nil, err
}

func (r *remote) run(c *cobra.Command, f func(context.Context, io.Writer) error) error {
	base, err := baseURL(r.rootFlag)
	if err != nil {
		return err
	}
	r.base = base
	if r.client, err = clientTrusting(r.ca); err != nil {
		return err
	}
	defer r.client.CloseIdleConnections()
	if err := f(c.Context(), c.OutOrStdout()); err != nil {
		return failure{err}
	}
	return nil
}

// baseURL accepts a node's URL with or without scheme and version.
func baseURL(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("--http %q: not the URL of a node, such as http://127.0.0.1:8888", text)
	}
	return strings.TrimSuffix(strings.TrimRight(u.Scheme+"://"+u.Host+u.Path, "/"), versionPrefix), nil
}

// get asks the node at base and decodes its answer into v.
func (r *remote) get(ctx context.Context, base, path string, timeout time.Duration, v any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+versionPrefix+path, nil)
	if err != nil {
		return err
	}
	if user, password, ok := strings.Cut(r.user, ":"); ok {
		request.SetBasicAuth(user, password)
	}
	answer, err := r.client.Do(request)
	if err != nil {
		var u *url.Error // its text repeats the URL
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("%s does not answer: %w", base, err)
	}
	defer func() { _ = answer.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", base, err)
	}
	switch {
	case answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%s does not tell: ask from the same machine, or with --auth as one of quinto.cluster_status_principals", base)
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %s: %s", base, answer.Status, body[:min(len(body), 200)])
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%s is not a quinto node: %w", base, err)
	}
	return nil
}

func (r *remote) status(ctx context.Context, out io.Writer) error {
	var s api.ClusterStatus
	if err := r.get(ctx, r.base, api.ClusterPath, statusTimeout, &s); err != nil {
		return err
	}
	return r.printStatus(out, s)
}

func (r *remote) printStatus(out io.Writer, s api.ClusterStatus) error {
	if r.asJSON {
		return printJSON(out, s)
	}
	leader := s.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(out, "leader %s, term %d, revision %d\n\n", leader, s.Term, s.Revision)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tROLE\tSUFFRAGE\tHTTP\tCLUSTER\tREVISION\tLAG\tREADY")
	for _, m := range s.Members {
		ready := "no"
		if m.Ready {
			ready = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", m.Name, m.Role, m.Suffrage, m.HTTP, m.Cluster, m.Revision, m.Lag, ready)
	}
	for _, name := range slices.Sorted(maps.Keys(s.SettingsDiffer)) {
		fmt.Fprintf(t, "\nsettings of %s are not the leader's: %s\n", name, strings.Join(s.SettingsDiffer[name], ", "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	line := "\n" // before the first
	for _, m := range s.Members {
		for _, text := range m.Alarms {
			fmt.Fprintf(out, "%s%s: %s\n", line, m.Name, text)
			line = ""
		}
	}
	return nil
}

// hashReport is what `quinto cluster hash --json` prints.
type hashReport struct {
	// Equal says that all nodes that answered have the same hashes, after the same entries.
	Equal    bool           `json:"equal"`
	Revision fsm.Revision   `json:"revision"` // the one at which all were asked
	Nodes    []api.NodeHash `json:"nodes"`
	Missing  []string       `json:"missing"` // members that did not answer

	apart bool // they stood at different entries of the log
}

// hash asks all nodes for their hashes. While somebody writes, and for moments
// after (cursors of notifiers are entries that make no revision), nodes stand at
// different entries of the log; so a difference counts only if it stays.
func (r *remote) hash(ctx context.Context, out io.Writer) error {
	var report hashReport
	for attempt := range hashAttempts {
		var err error
		if report, err = r.hashes(ctx); err != nil {
			return err
		}
		if report.Equal || attempt == hashAttempts-1 {
			break
		}
		select {
		case <-time.After(hashPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := r.printHashes(out, report); err != nil {
		return err
	}
	switch {
	case report.apart:
		return errors.New("the nodes were never at one entry of the log: compare when nobody writes")
	case !report.Equal:
		return errDiffer
	case len(report.Missing) > 0:
		return errMissing
	}
	return nil
}

func (r *remote) hashes(ctx context.Context) (hashReport, error) {
	var s api.ClusterStatus
	if err := r.get(ctx, r.base, api.ClusterPath, statusTimeout, &s); err != nil {
		return hashReport{}, err
	}
	nodes := make([]api.NodeHash, len(s.Members))
	errs := make([]error, len(s.Members))
	scheme, _, _ := strings.Cut(r.base, "://") // members are alike
	var wg sync.WaitGroup
	for i, m := range s.Members {
		if m.HTTP == "" {
			errs[i] = errors.New("no answer")
			continue
		}
		wg.Go(func() {
			errs[i] = r.get(ctx, scheme+"://"+m.HTTP, fmt.Sprintf("%s?revision=%d", api.HashPath, s.Revision), hashTimeout, &nodes[i])
		})
	}
	wg.Wait()
	report := hashReport{Equal: true, Revision: s.Revision, Missing: []string{}}
	for i, m := range s.Members {
		if errs[i] != nil {
			report.Missing = append(report.Missing, m.Name)
		} else {
			report.Nodes = append(report.Nodes, nodes[i])
		}
	}
	if len(report.Nodes) == 0 {
		return report, fmt.Errorf("no node answers: %w", errors.Join(errs...))
	}
	first := report.Nodes[0]
	for _, n := range report.Nodes {
		report.apart = report.apart || n.Applied != first.Applied
		report.Equal = report.Equal && n.Applied == first.Applied && n.ClusterID == first.ClusterID && n.State == first.State && n.Full == first.Full
		report.Revision = max(report.Revision, n.Revision)
	}
	return report, nil
}

func (r *remote) printHashes(out io.Writer, report hashReport) error {
	if r.asJSON {
		return printJSON(out, report)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tREVISION\tSTATE\tFULL")
	for _, n := range report.Nodes {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", n.Name, n.Revision, n.State, n.Full)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, name := range report.Missing {
		fmt.Fprintf(out, "%s did not answer and was not compared\n", name)
	}
	if report.Equal {
		fmt.Fprintf(out, "\nall nodes that answered are equal at revision %d\n", report.Revision)
	}
	return nil
}

func printJSON(out io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(out, "%s\n", b)
	}
	return err
}
