package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"quinto/internal/backup"
	"quinto/internal/config"
)

// listed is what `quinto backup list --json` prints. Its form is stable.
type listed struct {
	Place    string          `json:"place"`
	Archives []backup.Row    `json:"archives"`
	Segments int             `json:"segments"`
	Windows  []backup.Window `json:"windows"`
}

func backupListCommand() *cobra.Command {
	var f adminFlags
	var asJSON bool
	c := &cobra.Command{
		Use: "list FOLDER|s3://BUCKET/PREFIX", Short: "Show the archives of a place, and which times can be restored", Args: cobra.ExactArgs(1),
		Long: "Show the archives of a place, the segments of the log behind them, what is missing between, and which\n" +
			"times can be restored. Only heads and names are read: quinto backup verify checks every byte.",
		RunE: func(c *cobra.Command, args []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err
			}
			all, err := listPlace(c.Context(), args[0], settings)
			if err != nil {
				return failure{err}
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), all)
			}
			return f.say(c, "%s", all)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	f.add(c)
	return c
}

func listPlace(ctx context.Context, address string, settings *config.Config) (*listed, error) {
	place, name, err := openArchive(address, settings)
	if err != nil {
		return nil, err
	}
	if name != "" {
		return nil, fmt.Errorf("%s: not a folder or an S3 prefix", address)
	}
	rows, segments, err := backup.List(ctx, place)
	if err != nil {
		return nil, err
	}
	return &listed{place.String(), rows, len(segments), backup.Windows(rows)}, nil
}

// String is the list for people.
func (l *listed) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d archives, %d segments of the log", l.Place, len(l.Archives), l.Segments)
	for _, r := range l.Archives {
		if r.Problem != "" {
			fmt.Fprintf(&b, "\n%s: unusable: %s", r.Name, r.Problem)
			continue
		}
		fmt.Fprintf(&b, "\n%s: revision %d, of %s; %d segments lead on to %s", r.Name, r.Revision, backup.TimeText(r.Clock), r.Segments, backup.TimeText(r.To))
	}
	return b.String() + l.reach()
}

// reach says which times can be restored, and what is missing.
func (l *listed) reach() string {
	var b strings.Builder
	for _, w := range l.Windows {
		if w.To > w.From {
			fmt.Fprintf(&b, "\nany moment from %s to %s can be restored (cluster %s)", backup.TimeText(w.From), backup.TimeText(w.To), w.Cluster)
		}
	}
	last := ""
	for _, r := range l.Archives {
		if r.Gap != nil && r.Gap.String() != last {
			last = r.Gap.String()
			fmt.Fprintf(&b, "\ngap in the log: %s", last)
		}
	}
	return b.String()
}

// verifyLog checks the segments of a place; "" for the address of a single archive, and
// where there are none.
func verifyLog(ctx context.Context, address string, settings *config.Config) (string, error) {
	if address == "-" {
		return "", nil
	}
	place, name, err := openArchive(address, settings)
	if err != nil || name != "" {
		return "", err
	}
	count, entries, err := backup.VerifySegments(ctx, place)
	if err != nil || count == 0 {
		return "", err
	}
	all, err := listPlace(ctx, address, settings)
	if err != nil {
		return "", err
	}
	for _, r := range all.Archives {
		if r.Problem != "" {
			err = errors.Join(err, errors.New(r.Problem))
		}
	}
	return fmt.Sprintf("\nsound: %d segments of the log with %d entries%s", count, entries, all.reach()), err
}
