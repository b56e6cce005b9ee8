package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/file"
)

func initCommand(e *environment) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "create the repository: probe the storage, and print the lines for postgresql.conf",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-encryption", Usage: "store everything readable by whoever can read the storage"},
			&cli.BoolFlag{Name: "unsafe-single-writer", Usage: "accept a storage that overwrites objects; two servers that archive into it can then destroy each other's backups"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.initRepository(c)
		},
	}
}

// initResult is what init made, and what to write where.
type initResult struct {
	Repository     repo.Info `json:"repository"`
	ArchiveCommand string    `json:"archive_command"`
	RestoreCommand string    `json:"restore_command"`
	SettingsFile   string    `json:"settings_file,omitempty"`
}

func (e *environment) initRepository(c *cli.Context) error {
	settings, err := e.config()
	if err != nil {
		return err
	}
	if err := checkEncryption(settings, c.Bool("no-encryption")); err != nil {
		return err
	}
	if _, err := e.keys(settings); err != nil {
		return err // before anything is made
	}
	store, err := e.createStore(c.Context, settings)
	if err != nil {
		return err
	}
	info, err := repo.Init(c.Context, store, repo.InitOptions{
		Encrypted:          !c.Bool("no-encryption"),
		UnsafeSingleWriter: c.Bool("unsafe-single-writer"),
		Now:                time.Now(),
	})
	switch {
	case errors.Is(err, repo.ErrInitialised):
		return fmt.Errorf("%w: %w, on %s, with encryption %s", errUnsafe, err, timeText(info.Created), info.Encryption)
	case errors.Is(err, repo.ErrUnconditional):
		return withHint(err, "use a storage with conditional writes (If-None-Match), or accept the danger with --unsafe-single-writer")
	case err != nil:
		return err
	}
	result := initResult{Repository: info, SettingsFile: settings.File()}
	if result.ArchiveCommand, err = commandLine(settings, "push", "%p"); err != nil {
		return err
	}
	if result.RestoreCommand, err = commandLine(settings, "fetch", "%f", "%p"); err != nil {
		return err
	}
	return e.printResult(c, result, func(w io.Writer) { result.write(w, settings) })
}

// checkEncryption wants a clear word: recipients, or none on purpose.
func checkEncryption(settings *config.Config, none bool) error {
	recipients := len(settings.Encryption.Recipients) > 0
	switch {
	case none && recipients:
		return &usageError{"--no-encryption: encryption.recipients is set; unset it, or leave the flag out"}
	case !none && !recipients:
		return withHint(&usageError{"encryption.recipients is empty, so that nothing could be encrypted"},
			"walship key new --output=FILE makes an identity and prints its recipient; or say --no-encryption")
	}
	return nil
}

// createStore opens the storage, and makes the directory that it is.
func (e *environment) createStore(ctx context.Context, settings *config.Config) (storage.Store, error) {
	if !strings.HasPrefix(settings.Repository, "file:") {
		return e.openStore(ctx)
	}
	dir, err := file.ParseURL(settings.Repository)
	if err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	store, err := file.Create(dir)
	if err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	return store, nil
}

// commandLine is the line with which PostgreSQL calls walship.
func commandLine(settings *config.Config, verb string, placeholders ...string) (string, error) {
	binary, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find walship's own program file: %w", err)
	}
	if binary, err = filepath.EvalSymlinks(binary); err != nil {
		return "", fmt.Errorf("find walship's own program file: %w", err)
	}
	words := []string{binary}
	if settings.File() != "" && settings.File() != config.DefaultFile {
		words = append(words, "--config", settings.File())
	}
	return pgdata.ShellCommand(append(words, "wal", verb), placeholders...), nil
}

// write prints what to do next.
func (r initResult) write(w io.Writer, settings *config.Config) {
	fmt.Fprintf(w, "repository %s is ready: encryption %s\n", r.Repository.ID, r.Repository.Encryption)
	probe := r.Repository.Probe
	if probe.ConditionalWrites {
		fmt.Fprintln(w, "the storage refuses to overwrite, also with 16 writers at once and in parts")
	} else {
		fmt.Fprintf(w, "WARNING: the storage overwrites objects (%s): make sure that one server writes\n", probe.Detail)
	}
	if !probe.Delete {
		fmt.Fprintln(w, "these credentials may not delete: good for archiving, and the probe's objects stay")
	}
	const tolerable = 60
	if s := probe.ClockSkewSeconds; s > tolerable || s < -tolerable {
		fmt.Fprintf(w, "WARNING: this machine's clock is %d s from the storage's\n", s)
	}
	if r.Repository.Encryption != "none" && len(settings.Encryption.IdentityFiles) > 0 {
		fmt.Fprintln(w, "keep a copy of the identity elsewhere: without it no backup can be read")
	}
	fmt.Fprintf(w, "\nfor postgresql.conf:\n\narchive_mode = on\narchive_command = %s\n", pgdata.QuoteSetting(r.ArchiveCommand))
	if r.SettingsFile == "" {
		fmt.Fprintf(w, "\nthe server's environment doesn't have your settings: write them to %s\n", config.DefaultFile)
	}
	fmt.Fprintln(w, "\nthen take a first backup: walship backup push")
}
