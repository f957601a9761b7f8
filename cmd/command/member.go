package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"quinto/api"
	"quinto/cluster"
	"quinto/fsm"
	"quinto/internal/config"
)

// Exit codes of the commands that change a cluster, beside those of Main.
const (
	// ExitQuorum is returned when a change was refused because no living majority
	// would be left.
	ExitQuorum = 3
	// ExitUnknown is returned when nobody knows whether a change was made: look with
	// `quinto cluster members`, and ask again.
	ExitUnknown = 4
)

// memberFlags are the flags of the commands that reach a node by its data folder.
type memberFlags struct {
	adminFlags
	asJSON, force bool
}

// memberCommands are the subcommands of `quinto cluster` that any member carries to
// the leader.
func memberCommands() []*cobra.Command {
	var f memberFlags
	act := func(action cluster.Action, use, short, long string, args cobra.PositionalArgs) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Long: long, Args: args, RunE: func(c *cobra.Command, args []string) error {
			change := cluster.Change{Action: action, Force: f.force}
			if len(args) > 0 {
				change.Name = args[0]
			}
			return f.change(c, change)
		}}
	}
	one := cobra.ExactArgs(1)
	commands := []*cobra.Command{
		{Use: "members", Short: "List the members, and the names that are taken", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return f.members(c) }},
		act(cluster.ActionRemove, "remove NAME", "Take a member out of the cluster, for ever",
			"Take a member out of the cluster, for ever. A leader hands over first. The removed node ends, and its folder is\n"+
				"never admitted again; to use the machine, empty the folder and join under another name.", one),
		act(cluster.ActionPromote, "promote NAME", "Give a vote now to a member that has none",
			"Give a vote now to a member that has none, instead of when it has kept up for a while.", one),
		act(cluster.ActionDemote, "demote NAME", "Take the vote of a member", "Take the vote of a member, which goes on to follow, until it is promoted.", one),
		act(cluster.ActionTransfer, "transfer [NAME]", "Hand leadership to a member", "Hand leadership to a member, or to the best one.", cobra.MaximumNArgs(1)),
		act(cluster.ActionForget, "forget NAME", "Give the name of a removed member free", "Give the name of a removed member free for a node with another folder.", one),
	}
	for _, c := range commands {
		f.add(c)
		c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	}
	for _, c := range commands[1:4] {
		c.Flags().BoolVar(&f.force, "force", false, "also if no living majority is left, or the node does not keep up")
	}
	return commands
}

// dial reaches the running node of the data folder. Unlike connect it never opens one.
func (f *adminFlags) dial(ctx context.Context, c *config.Config) (*socketConn, error) {
	if c.Memory {
		return nil, errors.New("storage_backend is memory: such a node is always alone")
	}
	conn, err := dialAdmin(c.Cluster.DataDir)
	if err != nil {
		return nil, failure{fmt.Errorf("no process serves data folder %q: run the command where a node runs, with its --data (%w)", c.Cluster.DataDir, err)}
	}
	return conn.alive(ctx)
}

// ask makes one call to the running node and decodes its answer.
func (f *adminFlags) ask(ctx context.Context, c *config.Config, name string, in, out any) error {
	conn, err := f.dial(ctx, c)
	if err != nil {
		return err
	}
	err = adminJSON(ctx, conn, name, in, out)
	return errors.Join(err, conn.close())
}

// memberList is what `quinto cluster members --json` prints. Its form is stable.
type memberList struct {
	Members []cluster.KnownNode `json:"members"`
	// Former are names that are taken by nodes that are no members any more.
	Former []cluster.KnownNode `json:"former"`
}

func (f *memberFlags) members(c *cobra.Command) error {
	settings, err := f.load(c)
	if err != nil {
		return err
	}
	var list memberList
	if err := f.ask(c.Context(), settings, clusterMembersCall.name, struct{}{}, &list); err != nil {
		return err
	}
	out := c.OutOrStdout()
	if f.asJSON {
		return printJSON(out, list)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSUFFRAGE\tCLUSTER\tID")
	for _, m := range list.Members {
		suffrage := m.Suffrage
		if m.Held {
			suffrage += " (demoted)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", m.Name, suffrage, m.Cluster, m.ID)
	}
	for _, m := range list.Former {
		fmt.Fprintf(t, "%s\tremoved\t\t%s\n", m.Name, m.ID)
	}
	return t.Flush()
}

// changeStep is one line of the answer to a change; the last has Done or Error.
type changeStep struct {
	Step  string `json:"step,omitempty"`
	Done  string `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"` // exit code of the command
}

func (f *memberFlags) change(c *cobra.Command, change cluster.Change) error {
	settings, err := f.load(c)
	if err != nil {
		return err
	}
	conn, err := f.dial(c.Context(), settings)
	if err != nil {
		return err
	}
	body, w := io.Pipe()
	go func() { w.CloseWithError(json.NewEncoder(w).Encode(change)) }()
	var last changeStep
	err = conn.do(c.Context(), clusterChangeCall.name, body, func(answer io.Reader) error {
		d := json.NewDecoder(answer)
		for last.Done == "" && last.Error == "" {
			last = changeStep{}
			if err := d.Decode(&last); err != nil {
				return fmt.Errorf("%w: the node broke off: %w", fsm.ErrUnknownOutcome, err)
			}
			if last.Step != "" && !f.quiet {
				fmt.Fprintln(c.ErrOrStderr(), "quinto:", last.Step)
			}
		}
		return nil
	})
	if err = errors.Join(err, conn.close()); err != nil {
		return changeError(err)
	}
	if last.Error != "" {
		return exit{last.Code, errors.New(last.Error)}
	}
	if f.asJSON {
		return printJSON(c.OutOrStdout(), changeStep{Done: last.Done})
	}
	return f.say(c, "%s", last.Done)
}

func changeError(err error) error {
	if errors.Is(err, fsm.ErrUnknownOutcome) {
		return exit{ExitUnknown, err}
	}
	return failure{err}
}

// changeCode is the exit code for what ChangeMember returned.
func changeCode(err error) int {
	switch {
	case errors.Is(err, cluster.ErrQuorum):
		return ExitQuorum
	case errors.Is(err, fsm.ErrUnknownOutcome):
		return ExitUnknown
	default:
		return ExitFailure
	}
}

var clusterStatusCall = adminCall{name: "cluster-status", run: func(ctx context.Context, n *Node, _ io.Reader, out io.Writer) error {
	status, err := api.StatusOf(ctx, n.cluster, n.cluster.SettingsDiffer)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(status)
}}

var clusterMembersCall = adminCall{name: "cluster-members", run: func(ctx context.Context, n *Node, _ io.Reader, out io.Writer) error {
	if v, err := n.cluster.View(ctx, fsm.Freshness{}); err == nil { // else as far as this node knows
		v.Close()
	}
	members, former, err := n.cluster.KnownNodes()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(memberList{members, former})
}}

var clusterChangeCall = adminCall{name: "cluster-change", run: func(ctx context.Context, n *Node, in io.Reader, out io.Writer) error {
	var change cluster.Change
	if err := readAdmin(in, &change); err != nil {
		return err
	}
	var broken error
	tell := func(s changeStep) {
		if broken = errors.Join(broken, json.NewEncoder(out).Encode(s)); broken == nil {
			if f, ok := out.(interface{ Flush() }); ok {
				f.Flush()
			}
		}
	}
	// The command may be interrupted: that is no reason to stop half way.
	done, err := n.cluster.ChangeMember(context.WithoutCancel(ctx), change, func(text string) { tell(changeStep{Step: text}) })
	if err != nil {
		tell(changeStep{Error: oneLine(err), Code: changeCode(err)})
	} else {
		tell(changeStep{Done: done})
	}
	return broken
}}
