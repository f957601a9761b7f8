package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"quinto/fsm"
	"quinto/plugins"
)

// cachePrefix begins the names of replicated settings that are a cache in Kinto's
// sense: whatever keeps one there can do without it.
const cachePrefix = plugins.CachePrefix

// deletionsPerWrite bounds the operations of one transaction of flush-cache.
const deletionsPerWrite = 1000

func flushCacheCommand() *cobra.Command {
	var f adminFlags
	c := &cobra.Command{
		Use: "flush-cache", Short: "Forget what is cached: sessions and states of logins", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			if err := f.call(c.Context(), settings, flushCacheCall.name, struct{}{}, nil); err != nil {
				return err
			}
			return f.say(c, "Cache has been cleared.")
		},
	}
	f.add(c)
	return c
}

// say prints what a command has to report, unless -q was given.
func (f *adminFlags) say(c *cobra.Command, format string, args ...any) error {
	if f.quiet {
		return nil
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), format+"\n", args...)
	return err
}

var flushCacheCall = adminCall{name: "flush-cache", run: func(ctx context.Context, n *Node, _ io.Reader, _ io.Writer) error {
	for {
		var ops []fsm.Op
		_, err := n.adminWrite(ctx, func(v *fsm.View) ([]fsm.Op, error) {
			ops = ops[:0]
			err := v.Settings(cachePrefix, func(name string, _ []byte) bool {
				ops = append(ops, fsm.Op{Type: fsm.OpSetSetting, Name: name})
				return len(ops) < deletionsPerWrite
			})
			return ops, err
		})
		if err != nil || len(ops) < deletionsPerWrite {
			return err
		}
	}
}}

// purgeRequest asks to keep the newest tombstones of each list only.
type purgeRequest struct {
	Resources []string `json:"resources"`
	Keep      int      `json:"keep"`
}

// purgeAnswer says what was done.
type purgeAnswer struct {
	Deleted int64    `json:"deleted"`
	Unknown []string `json:"unknown"` // resources that the node has no kind of
}

func purgeDeletedCommand() *cobra.Command {
	var f adminFlags
	c := &cobra.Command{
		Use: "purge-deleted RESOURCE... MAX_RETAINED", Short: "Drop old tombstones",
		Long: "Drop old tombstones: of each list of these resources (record, collection, group, bucket, …)\n" +
			"the newest MAX_RETAINED are kept. A client whose last synchronisation is older than a dropped\n" +
			"tombstone does not learn of that deletion.",
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			keep, err := strconv.Atoi(args[len(args)-1])
			if err != nil || keep < 0 {
				return fmt.Errorf("MAX_RETAINED %q: not a whole number from 0", args[len(args)-1])
			}
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			var answer purgeAnswer
			if err := f.call(c.Context(), settings, purgeDeletedCall.name, purgeRequest{args[:len(args)-1], keep}, &answer); err != nil {
				return err
			}
			if len(answer.Unknown) > 0 {
				fmt.Fprintf(c.ErrOrStderr(), "quinto: warning: no such resource: %s\n", strings.Join(answer.Unknown, ", "))
			}
			return f.say(c, "%d tombstone(s) deleted.", answer.Deleted)
		},
	}
	f.add(c)
	return c
}

var purgeDeletedCall = adminCall{name: "purge-deleted", run: func(ctx context.Context, n *Node, in io.Reader, out io.Writer) error {
	var q purgeRequest
	if err := readAdmin(in, &q); err != nil {
		return err
	}
	answer := purgeAnswer{Unknown: []string{}}
	plurals := map[string]bool{}
	for _, name := range q.Resources {
		kind, ok := n.kind(name)
		if !ok {
			answer.Unknown = append(answer.Unknown, name)
			continue
		}
		plurals[kind.Plural] = true
	}
	lists, err := n.listsOf(ctx, func(list fsm.Path, l fsm.ListInfo) bool {
		return plurals[list.ID()] && l.Tombstones > int64(q.Keep)
	})
	if err != nil {
		return err
	}
	for _, list := range lists {
		dropped, err := n.purgeList(ctx, list, q.Keep)
		if err != nil {
			return err
		}
		answer.Deleted += dropped
	}
	return json.NewEncoder(out).Encode(answer)
}}

// listsOf returns the lists that want says yes to.
func (n *Node) listsOf(ctx context.Context, want func(fsm.Path, fsm.ListInfo) bool) ([]fsm.Path, error) {
	v, err := n.cluster.View(ctx, fsm.Freshness{Level: fsm.Linearizable})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	var lists []fsm.Path
	err = v.Lists(func(list fsm.Path, l fsm.ListInfo) bool {
		if want(list, l) {
			lists = append(lists, list)
		}
		return true
	})
	return slices.Clip(lists), err
}

// purgeList drops all but the newest keep tombstones of a list and returns how many.
func (n *Node) purgeList(ctx context.Context, list fsm.Path, keep int) (int64, error) {
	var dropped int64
	_, err := n.adminWrite(ctx, func(v *fsm.View) ([]fsm.Op, error) {
		dropped = 0
		var cutoff fsm.Timestamp
		seen := 0
		err := v.Scan(list, fsm.ScanOptions{Reverse: true, Tombstones: true}, func(o *fsm.Object) bool {
			if o.Deleted {
				seen++
			}
			cutoff = o.LastModified
			return seen <= keep
		})
		if err != nil || seen <= keep {
			return nil, err
		}
		l, err := v.List(list)
		dropped = l.Tombstones - int64(keep)
		return []fsm.Op{{Type: fsm.OpPurgeTombstones, Path: list, LastModified: cutoff, HasTime: true}}, err
	})
	return dropped, err
}
