package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"quinto/fsm"
	"quinto/plugins/dispatch"
)

// hooksOrder is what a command asks about event listeners.
type hooksOrder struct {
	Do       string       `json:"do"`
	Name     string       `json:"name,omitempty"`
	Revision fsm.Revision `json:"revision,omitempty"`
	Reason   string       `json:"reason,omitempty"`
}

// hooksAnswer is what the node says. Its form is stable: `--json` prints it.
type hooksAnswer struct {
	Leads      bool                  `json:"leads"` // this node: attempts and errors are its own
	Revision   fsm.Revision          `json:"revision"`
	From       fsm.Revision          `json:"from,omitempty"` // of a replay: the first that the store still has
	Listeners  []dispatch.Report     `json:"listeners,omitempty"`
	Dead       []dispatch.DeadLetter `json:"dead,omitempty"`
	Deliveries []dispatch.Attempt    `json:"deliveries,omitempty"`
}

const (
	hooksShow       = "show"
	hooksDead       = "dead"
	hooksDeliveries = "deliveries"
	hooksTest       = "test"
	hooksPause      = "pause"
	hooksResume     = "resume"
	hooksReplay     = "replay"
	hooksRedeliver  = "redeliver"
	hooksForget     = "forget"
)

var hooksCall = adminCall{"hooks", func(ctx context.Context, n *Node, in io.Reader, out io.Writer) error {
	var o hooksOrder
	if err := readAdmin(in, &o); err != nil {
		return err
	}
	answer, err := n.hooks(ctx, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer)
}}

// hooks does one order on this node.
func (n *Node) hooks(ctx context.Context, o hooksOrder) (hooksAnswer, error) {
	var a hooksAnswer
	if o.Do == hooksTest {
		return a, n.hooksTest(ctx, o.Name)
	}
	if plan := n.hooksPlan(o, &a); plan != nil {
		revision, err := n.adminWrite(ctx, plan)
		a.Revision = revision
		return a, err
	}
	v, err := n.cluster.View(ctx, fsm.Freshness{Level: fsm.Linearizable})
	if err != nil {
		return a, err
	}
	defer v.Close()
	a.Leads, a.Revision = n.cluster.IsLeader(), v.Revision()
	if a.Listeners, err = n.dispatcher.Report(v); err != nil {
		return a, err
	}
	if o.Name != "" {
		var one []dispatch.Report
		for _, r := range a.Listeners {
			if r.Name == o.Name {
				one = append(one, r)
			}
		}
		if a.Listeners = one; one == nil {
			return a, fmt.Errorf("%w: %q", dispatch.ErrNoNotifier, o.Name)
		}
	}
	switch o.Do {
	case hooksShow:
	case hooksDead:
		a.Dead, err = dispatch.Dead(v, o.Name)
	case hooksDeliveries:
		a.Deliveries = n.dispatcher.Deliveries(o.Name)
	default:
		err = fmt.Errorf("request of another version: %q", o.Do)
	}
	return a, err
}

// hooksPlan is what an order writes, and tells in a; nil: nothing.
func (n *Node) hooksPlan(o hooksOrder, a *hooksAnswer) func(v *fsm.View) ([]fsm.Op, error) {
	switch o.Do {
	case hooksPause:
		now := n.cluster.Now()
		return func(v *fsm.View) ([]fsm.Op, error) { return dispatch.Pause(v, o.Name, o.Reason, now) }
	case hooksResume:
		return func(v *fsm.View) ([]fsm.Op, error) { return dispatch.Resume(v, o.Name) }
	case hooksReplay:
		return func(v *fsm.View) (ops []fsm.Op, err error) {
			ops, a.From, err = dispatch.Replay(v, o.Name, o.Revision)
			return ops, err
		}
	case hooksRedeliver:
		return func(v *fsm.View) ([]fsm.Op, error) { return dispatch.Redeliver(v, o.Name, o.Revision) }
	case hooksForget:
		return func(v *fsm.View) ([]fsm.Op, error) { return n.dispatcher.Forget(v, o.Name) }
	}
	return nil
}

// hooksFlags are those of `quinto hooks`.
type hooksFlags struct {
	adminFlags
	asJSON, all bool
	from        uint64
	reason      string
}

func hooksCommand() *cobra.Command {
	f := new(hooksFlags)
	c := &cobra.Command{Use: "hooks", Short: "Look at event listeners and what they deliver, and steer them"}
	sub := func(use, short string, args cobra.PositionalArgs, run func(c *cobra.Command, args []string) error) *cobra.Command {
		s := &cobra.Command{Use: use, Short: short, Args: args, RunE: run}
		f.add(s)
		s.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
		c.AddCommand(s)
		return s
	}
	order := func(do string) func(c *cobra.Command, args []string) error {
		return func(c *cobra.Command, args []string) error { return f.order(c, hooksOrder{Do: do, Name: args[0]}) }
	}
	one := cobra.ExactArgs(1)
	sub("list", "List the listeners: state, lag, failures, dead letters", cobra.NoArgs, func(c *cobra.Command, _ []string) error { return f.show(c, hooksOrder{Do: hooksShow}) })
	sub("state NAME", "Show one with its last errors", one, func(c *cobra.Command, args []string) error {
		return f.show(c, hooksOrder{Do: hooksShow, Name: args[0]})
	})
	sub("deliveries NAME", "Show the newest attempts (on the leader's machine)", one, func(c *cobra.Command, args []string) error {
		return f.show(c, hooksOrder{Do: hooksDeliveries, Name: args[0]})
	})
	sub("dead NAME", "List the changes that were given up", one, func(c *cobra.Command, args []string) error {
		return f.show(c, hooksOrder{Do: hooksDead, Name: args[0]})
	})
	replay := sub("replay NAME --from REVISION", "Deliver again what the event log has from a revision on", one, func(c *cobra.Command, args []string) error {
		return f.order(c, hooksOrder{Do: hooksReplay, Name: args[0], Revision: fsm.Revision(f.from)})
	})
	replay.Flags().Uint64Var(&f.from, "from", 0, "begin with the change at `REVISION`")
	cobra.CheckErr(replay.MarkFlagRequired("from"))
	redeliver := sub("redeliver NAME [REVISION]", "Send a dead letter once more", cobra.RangeArgs(1, 2), f.redeliver)
	redeliver.Flags().BoolVar(&f.all, "all", false, "all of them")
	pause := sub("pause NAME", "Hold deliveries back, until they are resumed", one, func(c *cobra.Command, args []string) error {
		return f.order(c, hooksOrder{Do: hooksPause, Name: args[0], Reason: f.reason})
	})
	pause.Flags().StringVar(&f.reason, "reason", "paused by the operator", "`TEXT` that is shown with the state")
	sub("resume NAME", "Go on with deliveries", one, order(hooksResume))
	sub("test NAME", "Send a test, which is no change, from this node and wait for the answer", one, order(hooksTest))
	sub("forget NAME", "Forget a listener that no settings name any more, with its progress and dead letters", one, order(hooksForget))
	return c
}

func (f *hooksFlags) redeliver(c *cobra.Command, args []string) error {
	o := hooksOrder{Do: hooksRedeliver, Name: args[0]}
	if f.all == (len(args) == 2) {
		return errors.New("either a REVISION or --all is needed")
	}
	if len(args) == 2 {
		n, err := strconv.ParseUint(args[1], 10, 64)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is no revision", args[1])
		}
		o.Revision = fsm.Revision(n)
	}
	return f.order(c, o)
}

// order has the running node do something and says so.
func (f *hooksFlags) order(c *cobra.Command, o hooksOrder) error {
	answer, err := f.askHooks(c, o)
	if err != nil {
		return err
	}
	if f.asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(answer)
	}
	said := map[string]string{hooksTest: "the receiver has taken the test", hooksForget: "forgotten", hooksPause: "paused", hooksResume: "resumed",
		hooksReplay: "the leader delivers again; see `quinto hooks list`", hooksRedeliver: "the leader sends it; what fails stays in `quinto hooks dead`"}
	if answer.From > max(o.Revision, 1) {
		said[o.Do] = fmt.Sprintf("what lies before revision %d is not kept any more; from there on %s", answer.From, said[o.Do])
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", o.Name, said[o.Do])
	return err
}

func (f *hooksFlags) askHooks(c *cobra.Command, o hooksOrder) (a hooksAnswer, err error) {
	settings, err := f.load(c)
	if err != nil {
		return a, err
	}
	return a, f.ask(c.Context(), settings, hooksCall.name, o, &a)
}

// show prints what an order only looks at.
func (f *hooksFlags) show(c *cobra.Command, o hooksOrder) error {
	a, err := f.askHooks(c, o)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	if f.asJSON {
		return json.NewEncoder(out).Encode(a)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	switch o.Do {
	case hooksDead:
		fmt.Fprintln(w, "REVISION\tACTION\tPATH\tATTEMPTS\tGIVEN UP\tERROR")
		for _, l := range a.Dead {
			fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\n", l.Revision, l.Action, l.Path, l.Attempts, clock(l.Buried), oneLine(errors.New(l.Error)))
		}
	case hooksDeliveries:
		fmt.Fprintln(w, "ENDED\tREVISION\tACTION\tPATH\tATTEMPT\tOUTCOME")
		for _, d := range a.Deliveries {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%s\n", d.Ended.UTC().Format(time.RFC3339), d.Revision, d.Action, d.Path, d.Attempt, cmp.Or(oneLine(errors.New(d.Error)), "taken"))
		}
	default:
		printListeners(w, a.Listeners, o.Name != "")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !a.Leads {
		_, err = fmt.Fprintln(out, "This node does not lead: attempts and last errors are with the leader (quinto cluster status).")
	}
	return err
}

func printListeners(w io.Writer, all []dispatch.Report, whole bool) {
	fmt.Fprintln(w, "NAME\tSTATE\tCURSOR\tLAG\tLANES\tFAILING\tDELIVERED\tFAILED\tDEAD")
	for _, r := range all {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", r.Name, r.State, r.Cursor, r.Lag, r.Lanes, r.Failing, r.Delivered, r.Failed, r.Letters)
	}
	for _, r := range all {
		if d := r.Declared; d != nil {
			fmt.Fprintf(w, "%s is %q of %s, to %s\n", r.Name, d.Hook, d.Of, d.URL)
		}
		if r.Paused != nil {
			fmt.Fprintf(w, "%s is paused since %s: %s\n", r.Name, clock(r.Paused.Time), oneLine(errors.New(r.Paused.Reason)))
		}
		if r.Lagged != nil {
			fmt.Fprintf(w, "%s has lost the changes from revision %d to %d: it lagged beyond the retention\n", r.Name, r.Lagged.From+1, r.Lagged.To)
		}
		if !whole {
			continue
		}
		for _, l := range r.Worst {
			fmt.Fprintf(w, "%s waits at revision %d after %d failures, next attempt %s: %s\n", l.Lane, l.Revision, l.Failures, l.Next.UTC().Format(time.RFC3339), oneLine(errors.New(l.Error)))
		}
	}
}

func clock(t fsm.Timestamp) string { return time.UnixMilli(int64(t)).UTC().Format(time.RFC3339) }
