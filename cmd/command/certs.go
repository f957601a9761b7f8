package command

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quinto/internal/certs"
)

const certsDir = "certs" // the folder unless --dir says otherwise

func certsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "certs", Short: "Make what nodes prove themselves with",
		Long: "Make a private authority, certificates for nodes, and keys for gossip. Nothing is asked of a\n" +
			"running node: nodes look at their files every few seconds and take new ones.",
	}
	c.AddCommand(certsInitCommand(), certsNodeCommand(), gossipKeyCommand(), certsShowCommand())
	return c
}

func addDir(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "dir", certsDir, "keep the files in the folder `DIR`")
}

func certsInitCommand() *cobra.Command {
	var dir string
	var days int
	c := &cobra.Command{
		Use: "init", Short: "Make a private authority: ca.pem and ca.key", Args: cobra.NoArgs,
		Long: "Make a private authority: ca.pem for all nodes, and ca.key, which signs certificates and should\n" +
			"stay off the nodes. An authority is never replaced: a new one goes into another folder.",
		RunE: func(c *cobra.Command, _ []string) error {
			ca, err := certs.InitCA(dir, days)
			if err != nil {
				return madeError(err)
			}
			return wrote(c.OutOrStdout(), ca, filepath.Join(dir, certs.CAFile), filepath.Join(dir, certs.CAKeyFile))
		},
	}
	addDir(c, &dir)
	c.Flags().IntVar(&days, "days", certs.CADays, "valid for `N` days")
	return c
}

func certsNodeCommand() *cobra.Command {
	var dir string
	r := certs.NodeRequest{}
	c := &cobra.Command{
		Use: "node NAME", Short: "Make a certificate for a node: NAME.pem and NAME.key", Args: cobra.ExactArgs(1),
		Long: "Make a certificate for the node NAME, signed by the authority in the folder. Other nodes look at\n" +
			"the name in it, not at addresses; --address is for clients, if the public port shows it too.",
		RunE: func(c *cobra.Command, args []string) error {
			r.Name = args[0]
			cert, err := certs.IssueNode(dir, r)
			if err != nil {
				return madeError(err)
			}
			return wrote(c.OutOrStdout(), cert, filepath.Join(dir, r.Name+".pem"), filepath.Join(dir, r.Name+".key"))
		},
	}
	addDir(c, &dir)
	c.Flags().StringSliceVar(&r.Addresses, "address", nil, "valid for clients that call `HOST[,…]`, names or IP addresses")
	c.Flags().IntVar(&r.Days, "days", certs.NodeDays, "valid for `N` days, and not longer than its authority")
	c.Flags().BoolVar(&r.Replace, "renew", false, "replace the node's certificate and key")
	return c
}

func gossipKeyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "gossip-key [new|" + certs.KeysAdd + "|" + certs.KeysUse + "|" + certs.KeysDrop + "] FILE", Short: "Make a file of gossip keys, or do a step of a rotation in it",
		Long: "Without a step, or with new, make FILE with one key, for all nodes. A rotation has three steps; give\n" +
			"the file to all nodes, and wait until they have read it (five seconds), before the next:\n\n" +
			"  add   a new key that decrypts only\n" +
			"  use   the newest key encrypts\n" +
			"  drop  the older keys are forgotten",
		Args:      cobra.RangeArgs(1, 2),
		ValidArgs: []string{"new", certs.KeysAdd, certs.KeysUse, certs.KeysDrop},
		RunE: func(c *cobra.Command, args []string) error {
			path := args[len(args)-1]
			var err error
			if len(args) == 1 || args[0] == "new" {
				err = certs.InitKeys(path)
			} else {
				err = certs.RotateKeys(path, args[0])
			}
			if err != nil {
				return madeError(err)
			}
			keys, err := certs.ReadKeys(path)
			if err == nil {
				_, err = fmt.Fprintf(c.OutOrStdout(), "wrote %s: keys: %d, the first encrypts\n", path, len(keys))
			}
			return err
		},
	}
	return c
}

func certsShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show FILE...", Short: "Show what certificates say, and how long they are valid", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			for _, path := range args {
				all, err := certs.ReadCertificates(path)
				if err != nil {
					return err
				}
				for _, cert := range all {
					fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", path, describeCertificate(cert, time.Now()))
				}
			}
			return nil
		},
	}
}

// wrote tells which files were made, and how long they are good for.
func wrote(out io.Writer, c *x509.Certificate, certFile, keyFile string) error {
	_, err := fmt.Fprintf(out, "wrote %s: %s\nwrote %s: keep it secret\n", certFile, describeCertificate(c, time.Now()), keyFile)
	return err
}

func describeCertificate(c *x509.Certificate, now time.Time) string {
	parts := []string{c.Subject.CommonName}
	if c.IsCA {
		parts[0] = "authority " + c.Subject.CommonName
	} else if names := certs.NodeNames(c); len(names) > 0 {
		parts[0] = "node " + strings.Join(names, ", ")
	}
	addresses := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		addresses = append(addresses, ip.String())
	}
	if len(addresses) > 0 {
		parts = append(parts, "addresses "+strings.Join(addresses, " "))
	}
	state := fmt.Sprintf("%d days left", int(c.NotAfter.Sub(now)/certs.Day))
	if now.After(c.NotAfter) {
		state = "EXPIRED"
	} else if now.Before(c.NotBefore) {
		state = "NOT YET VALID"
	}
	sum := sha256.Sum256(c.Raw)
	return strings.Join(append(parts, "by "+c.Issuer.CommonName,
		fmt.Sprintf("valid %s to %s (%s)", c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly), state),
		"sha256 "+hex.EncodeToString(sum[:8])), "; ")
}

// madeError says that a file is in the way, or what else is wrong, by its exit code.
func madeError(err error) error {
	var path *os.PathError
	if errors.Is(err, certs.ErrExists) || errors.As(err, &path) {
		return failure{err}
	}
	return err
}
