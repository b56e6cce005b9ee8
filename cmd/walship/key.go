package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/durable"
	"golang.org/x/term"
)

func keyCommand(e *environment) *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "make and look at age identities",
		Subcommands: []*cli.Command{
			{
				Name:  "new",
				Usage: "make an identity, and print the recipient that belongs to it",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "post-quantum", Usage: "make one that quantum computers don't break; opening it by hand needs age 1.3 or later"},
					&cli.StringFlag{Name: "output", Usage: "write the identity to `FILE`, which mustn't exist yet, instead of standard output"},
					jsonFlag(),
				},
				Action: func(c *cli.Context) error {
					if _, err := arguments(c); err != nil {
						return err
					}
					return e.newKey(c, c.Bool("post-quantum"), c.String("output"))
				},
			},
			{
				Name:      "show",
				Usage:     "print the recipients of the identities in a file",
				ArgsUsage: "FILE",
				Flags:     []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error {
					args, err := arguments(c, "FILE")
					if err != nil {
						return err
					}
					return e.showKey(c, args[0])
				},
			},
		},
	}
}

type newKeyResult struct {
	Recipient   string `json:"recipient"`
	Fingerprint string `json:"fingerprint"`
	File        string `json:"file,omitempty"`
}

// newKey makes an identity. Without a file it goes to standard output, in the
// form of age-keygen, and there is no other output.
func (e *environment) newKey(c *cli.Context, postQuantum bool, output string) error {
	if output == "" && c.Bool("json") {
		return &usageError{"--json needs --output=FILE: an identity isn't printed as JSON"}
	}
	secret, recipient, err := crypto.NewIdentity(postQuantum)
	if err != nil {
		return fmt.Errorf("make identity: %w", err)
	}
	content := fmt.Appendf(nil, "# created: %s\n# public key: %s\n%s\n", time.Now().UTC().Format(time.RFC3339), recipient, secret)
	if output == "" {
		if _, err := e.out.Write(content); err != nil {
			return fmt.Errorf("print identity: %w", err)
		}
		return nil
	}
	if err := writeNewFile(output, content); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	result := newKeyResult{recipient, crypto.Fingerprint(recipient), output}
	return e.printResult(c, result, func(w io.Writer) {
		fmt.Fprintln(w, result.Recipient)
	})
}

// writeNewFile makes a file with mode 0600, durable, unless there is one of
// that name.
func writeNewFile(name string, content []byte) (err error) {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	f, err := durable.Create(root, filepath.Base(name))
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := io.Copy(f, bytes.NewReader(content)); err != nil {
		return err
	}
	err = f.Link()
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s is there already, and is never overwritten", errUnsafe, name)
	}
	return err
}

type showKeyResult struct {
	Recipients []keyResult `json:"recipients"`
}

type keyResult struct {
	Recipient   string `json:"recipient"`
	Fingerprint string `json:"fingerprint"`
}

func (e *environment) showKey(c *cli.Context, file string) error {
	ids, err := crypto.LoadIdentities([]string{file}, askPassphrase)
	if err != nil {
		return fmt.Errorf("load identities: %w", err)
	}
	var result showKeyResult
	for _, recipient := range ids.Recipients() {
		result.Recipients = append(result.Recipients, keyResult{recipient, crypto.Fingerprint(recipient)})
	}
	return e.printResult(c, result, func(w io.Writer) {
		for _, k := range result.Recipients {
			fmt.Fprintln(w, k.Recipient)
		}
	})
}

// askPassphrase asks at the terminal for the passphrase of a file with
// identities.
func askPassphrase(file string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("identity file %s is protected by a passphrase, and there is no terminal to ask for it", file)
	}
	defer tty.Close()
	fmt.Fprintf(tty, "Passphrase for %s: ", file)
	passphrase, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	if err != nil {
		return "", fmt.Errorf("read passphrase: %w", err)
	}
	return string(passphrase), nil
}
