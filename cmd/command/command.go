// Package command is the program quinto as a function, with all its wiring.
//
// A binary with plugins of its own is a main package that imports them, so that
// their init functions register them, and calls Main as cmd/quinto does.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"quinto/api"
	_ "quinto/plugins/webhook" // the notifier that every binary has
)

// Exit codes of Main.
const (
	// ExitOK is returned when all went well, also after a graceful stop.
	ExitOK = 0
	// ExitFailure is returned when something failed while running.
	ExitFailure = 1
	// ExitUsage is returned when nothing was begun: a bad flag, setting, port or
	// directory.
	ExitUsage = 2
)

// Release is the version of a released binary, set by the linker; empty otherwise.
var Release string

// failure is an error that happened after the program had begun its work.
type failure struct{ error }

// Unwrap gives what failed.
func (f failure) Unwrap() error { return f.error }

// Main runs the command line args, without the program's name, and returns the
// exit code. Errors are one line on stderr. SIGTERM, SIGINT or the end of ctx stops
// a server gracefully; a second signal ends the process at once.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return mainWith(ctx, args, os.Stdin, stdout, stderr)
}

func mainWith(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := withSignals(ctx, stderr)
	defer cancel()
	root := &cobra.Command{
		Use:           "quinto",
		Short:         "A server with Kinto's API that runs as a cluster of nodes",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(startCommand(), clusterCommand(), versionCommand(), initCommand(), migrateCommand(), createUserCommand(), flushCacheCommand(),
		purgeDeletedCommand(), importCommand(), exportCommand(), certsCommand(), backupCommand(), restoreCommand(), hooksCommand())
	refuseUnknown(root)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	fmt.Fprintln(stderr, "quinto:", oneLine(err))
	var e exit
	if errors.As(err, &e) {
		return e.code
	}
	var f failure
	if errors.As(err, &f) {
		return ExitFailure
	}
	return ExitUsage
}

// refuseUnknown makes a command that only has subcommands fail at one that it does not
// know, where cobra would show the help and end with 0.
func refuseUnknown(c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.HasSubCommands() && !sub.Runnable() {
			sub.Args, sub.RunE = cobra.NoArgs, func(c *cobra.Command, _ []string) error { return c.Help() }
		}
		refuseUnknown(sub)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := api.BuildVersion(Release)
			if v.Commit == "" {
				v.Commit = "unknown"
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s %s (commit %s)\n", v.Name, v.Version, v.Commit)
			return err
		},
	}
}

// withSignals ends the returned context at the first signal and the process at the
// second.
func withSignals(ctx context.Context, stderr io.Writer) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan struct{})
	go func() {
		defer signal.Stop(signals)
		for first := true; ; first = false {
			select {
			case s := <-signals:
				if !first {
					fmt.Fprintln(stderr, "quinto: second signal: ending at once")
					os.Exit(ExitFailure)
				}
				fmt.Fprintf(stderr, "quinto: %s: stopping\n", s)
				cancel()
			case <-ended:
				return
			}
		}
	}()
	return ctx, func() { cancel(); close(ended) }
}
