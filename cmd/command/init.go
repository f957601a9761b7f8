package command

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"quinto/internal/config"
)

// initFlags are Kinto's, with the backends that there are.
type initFlags struct {
	ini, host, backend, cacheBackend string
	quiet, verbose                   bool
}

func initCommand() *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use: "init", Short: "Write a commented settings file", Args: cobra.NoArgs,
		Long: "Write a commented settings file with random secrets and Kinto's choices: accounts and the\n" +
			"default bucket. A file that exists is never replaced: exit code 1.",
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	flags := c.Flags()
	flags.StringVar(&f.ini, "ini", "", "write `FILE` (default $KINTO_INI, else "+kintoINI+")")
	flags.StringVar(&f.host, "host", "127.0.0.1", "listen on `ADDRESS`")
	flags.StringVar(&f.backend, "backend", "durable", "`durable` or memory: nothing outlives the process, a single node only")
	flags.StringVar(&f.cacheBackend, "cache-backend", "", "`memory`, as Kinto's; what it would cache is replicated")
	addVerbosity(c, &f.quiet, &f.verbose)
	return c
}

func (f *initFlags) run(c *cobra.Command) error {
	o := config.InitOptions{Host: f.host}
	switch f.backend {
	case "durable", "":
	case "memory":
		o.Memory = true
	default:
		return fmt.Errorf("--backend %s: quinto has its own replicated and durable store and needs no database: leave it out; "+
			"bring the data over with: quinto import --from postgresql://… or http://…/v1", f.backend)
	}
	if f.cacheBackend != "" && f.cacheBackend != "memory" {
		return fmt.Errorf("--cache-backend %s: what Kinto would cache is in quinto's replicated store: leave it out", f.cacheBackend)
	}
	path := f.ini
	if path == "" {
		path = os.Getenv("KINTO_INI")
	}
	if path == "" {
		path = filepath.FromSlash(kintoINI)
	}
	switch err := config.WriteInit(path, o); {
	case errors.Is(err, fs.ErrExist):
		return exit{ExitFailure, fmt.Errorf("%s already exists", path)}
	case err != nil:
		return err
	case f.quiet:
		return nil
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "wrote %s\nNext:\n  quinto create-user --ini %s -u admin\n  quinto start --ini %s\n", path, path, path)
	return err
}

func migrateCommand() *cobra.Command {
	var f adminFlags
	var dry bool
	c := &cobra.Command{
		Use: "migrate", Short: "Say what there is to migrate", Args: cobra.NoArgs,
		Long: "Say what there is to migrate. There is no schema: a newer program reads what an older one wrote,\n" +
			"and the nodes raise the format together once all of them can. The command is here for scripts that\n" +
			"call it as Kinto's, and to say what is left of a move from Kinto.",
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			if err != nil {
				return err // a backend of Kinto's that holds data says so, and what to do
			}
			if err := f.say(c, "nothing to migrate: quinto has no schema, and its nodes raise their format themselves"); err != nil {
				return err
			}
			for _, name := range []string{"storage_url", "permission_url"} {
				if url, ok := settings.Lookup(name); ok && url != "" && !settings.Memory {
					if err := f.say(c, "%s names a database that quinto does not use: quinto import --from %s brings its data over", name, redacted(url)); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "accepted as Kinto's; the command never changes anything")
	f.add(c)
	return c
}

// redacted is a URL without its password.
func redacted(text string) string {
	if u, err := url.Parse(text); err == nil && u.User != nil {
		return u.Redacted()
	}
	return text
}
