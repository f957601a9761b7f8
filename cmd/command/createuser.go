package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"quinto/fsm"
	"quinto/plugins/accounts"
)

// The exit codes of Kinto's create-user.
const (
	exitReadOnly = 51
	exitNoPlugin = 52
	exitAborted  = 53
)

// userRequest asks for an account. The hash is made by the command, so that the
// password stays with whoever typed it.
type userRequest struct {
	Name string `json:"name"`
	Hash string `json:"hash"`
}

func createUserCommand() *cobra.Command {
	var f adminFlags
	var name, password string
	c := &cobra.Command{
		Use: "create-user", Short: "Create an account, or give it another password",
		Long: "Create an account, or give an existing one another password: what else its data holds is\n" +
			"dropped, its permissions stay. Name and password are asked for when they are not given.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := f.load(c)
			switch {
			case err != nil:
				return err
			case settings.ReadOnly:
				return exit{exitReadOnly, errors.New("cannot create a user with a readonly server")}
			case !slices.Contains(settings.Includes, accounts.ModuleName):
				return exit{exitNoPlugin, errors.New("cannot create a user when the accounts plugin is not installed: add " + accounts.ModuleName + " to includes")}
			}
			p := &prompt{in: c.InOrStdin(), out: c.ErrOrStderr()}
			if name, err = p.name(name, c.Flags().Changed("username")); err == nil {
				password, err = p.password(name, password, c.Flags().Changed("password"))
			}
			if err != nil {
				return err
			}
			hash, err := accounts.Hash(password)
			if err != nil {
				return err
			}
			if err := f.say(c, "Creating user '%s'", name); err != nil {
				return err
			}
			return f.call(c.Context(), settings, createUserCall.name, userRequest{name, hash}, nil)
		},
	}
	f.add(c)
	c.Flags().StringVarP(&name, "username", "u", "", "`NAME` of the account")
	c.Flags().StringVarP(&password, "password", "p", "", "its `PASSWORD`, which others on this machine may see in the list of processes")
	return c
}

var createUserCall = adminCall{name: "create-user", run: func(ctx context.Context, n *Node, in io.Reader, _ io.Writer) error {
	var q userRequest
	if err := readAdmin(in, &q); err != nil {
		return err
	}
	if !accounts.ValidName(q.Name) || q.Hash == "" {
		return fmt.Errorf("%q is not a valid username", q.Name)
	}
	if _, ok := n.kind("account"); !ok {
		return errors.New("the running node was started without the accounts plugin: restart it with the settings that this command read")
	}
	_, err := n.adminWrite(ctx, func(v *fsm.View) ([]fsm.Op, error) {
		op, err := accounts.Upsert(v, q.Name, q.Hash)
		return []fsm.Op{op}, err
	})
	return err
}}

// prompt asks whoever runs a command.
type prompt struct {
	in    io.Reader
	out   io.Writer
	lines *bufio.Reader
}

// line reads a line; the end of the input aborts.
func (p *prompt) line(question string) (string, error) {
	fmt.Fprint(p.out, question)
	if p.lines == nil {
		p.lines = bufio.NewReader(p.in)
	}
	text, err := p.lines.ReadString('\n')
	if err != nil && text == "" {
		return "", aborted(p.out)
	}
	return strings.TrimRight(text, "\r\n"), nil
}

// secret reads a line without showing it, if a terminal would.
func (p *prompt) secret(question string) (string, error) {
	file, ok := p.in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return p.line(question)
	}
	fmt.Fprint(p.out, question)
	text, err := term.ReadPassword(int(file.Fd()))
	fmt.Fprintln(p.out)
	if err != nil {
		return "", aborted(p.out)
	}
	return string(text), nil
}

func aborted(out io.Writer) error {
	fmt.Fprintln(out)
	return exit{exitAborted, errors.New("user creation aborted")}
}

// name asks until the name can be one.
func (p *prompt) name(name string, given bool) (string, error) {
	var err error
	if !given {
		name, err = p.line("Username: ")
	}
	for err == nil && !accounts.ValidName(name) {
		fmt.Fprintf(p.out, "%q is not a valid username.\nUsername should match %s, please try again.\n", name, accounts.NamePattern)
		name, err = p.line("Username: ")
	}
	return name, err
}

// password asks until the same was given twice.
func (p *prompt) password(name, password string, given bool) (string, error) {
	if given {
		return password, nil
	}
	for {
		password, err := p.secret(fmt.Sprintf("Please enter a password for %s: ", name))
		if err != nil {
			return "", err
		}
		again, err := p.secret("Please confirm the password: ")
		if err != nil {
			return "", err
		}
		if again == password {
			return password, nil
		}
		fmt.Fprintln(p.out, "Sorry, passwords do not match, please try again.")
	}
}
