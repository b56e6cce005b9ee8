package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/done"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
)

// environment is what commands share: the surroundings, and what settings
// open, each loaded when it is first asked for.
type environment struct {
	stdio
	args       []string          // of the call
	configFile string            // --config
	flags      map[string]string // settings given as flags, by key
	overdue    chan struct{}     // a command hangs behind its deadline

	settings *config.Config
	log      *slog.Logger
}

func newEnvironment(io stdio) *environment {
	return &environment{
		stdio:   io,
		flags:   make(map[string]string),
		overdue: make(chan struct{}, 1),
		log:     slog.New(slog.NewTextHandler(io.err, nil)),
	}
}

// config loads the settings, and sets up the logger by them.
func (e *environment) config() (*config.Config, error) {
	if e.settings != nil {
		return e.settings, nil
	}
	c, err := config.Load(config.Sources{File: e.configFile, Lookup: e.lookup, Names: e.variables, Home: userHome, Flags: e.flags})
	if err != nil {
		return nil, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		return nil, fmt.Errorf("read log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		e.log = slog.New(slog.NewJSONHandler(e.err, options))
	} else {
		e.log = slog.New(slog.NewTextHandler(e.err, options))
	}
	e.settings = c
	return c, nil
}

// variables lists the names of the environment's variables.
func (e *environment) variables() []string {
	if e.environ == nil {
		return nil
	}
	var names []string
	for _, pair := range e.environ() {
		name, _, _ := strings.Cut(pair, "=")
		names = append(names, name)
	}
	return names
}

// userHome is the home directory that the password database names.
func userHome() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.HomeDir, nil
}

// logger is the one that the settings ask for.
func (e *environment) logger() *slog.Logger { return e.log }

// repository opens the configured repository. With needIdentity its content
// can be read, not only written.
func (e *environment) repository(ctx context.Context, needIdentity bool) (*repo.Repository, error) {
	store, err := e.openStore(ctx)
	if err != nil {
		return nil, err
	}
	info, err := openInfo(ctx, store)
	if err != nil {
		return nil, err
	}
	return e.assemble(store, info, needIdentity)
}

// openInfo reads what the repository in a store is.
func openInfo(ctx context.Context, store storage.Store) (repo.Info, error) {
	info, err := repo.Open(ctx, store)
	if errors.Is(err, repo.ErrNotInitialised) {
		return info, withHint(fmt.Errorf("open repository: %w", err), "walship init creates it")
	}
	return info, err
}

// assemble adds to a repository the means to write to it, and with
// needIdentity those to read from it.
func (e *environment) assemble(store storage.Store, info repo.Info, needIdentity bool) (*repo.Repository, error) {
	c, err := e.config()
	if err != nil {
		return nil, err
	}
	keys, err := e.keys(c)
	if err != nil {
		return nil, err
	}
	if needIdentity && info.Encrypted() {
		if keys.Identities, err = e.identities(c); err != nil {
			return nil, err
		}
	}
	r, err := repo.New(store, info, keys)
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	return r, nil
}

// keys are the means to write: recipients and the level of compression.
func (e *environment) keys(c *config.Config) (repo.Keys, error) {
	var keys repo.Keys
	var err error
	if keys.Level, err = compress.ParseLevel(c.Compression.Level); err != nil {
		return keys, fmt.Errorf("%w: compression.level: %w", config.ErrInvalid, err)
	}
	if len(c.Encryption.Recipients) > 0 {
		if keys.Recipients, err = crypto.ParseRecipients(c.Encryption.Recipients); err != nil {
			return keys, fmt.Errorf("%w: encryption.recipients: %w", config.ErrInvalid, err)
		}
	}
	return keys, nil
}

// identities loads the means to read.
func (e *environment) identities(c *config.Config) (*crypto.Identities, error) {
	if len(c.Encryption.IdentityFiles) == 0 {
		return nil, withHint(fmt.Errorf("%w: the repository is encrypted, and encryption.identity_files is empty", config.ErrInvalid),
			"name the file with the age identity, for example with --encryption-identity-files=FILE")
	}
	ids, err := crypto.LoadIdentities(c.Encryption.IdentityFiles, askPassphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: encryption.identity_files: %w", config.ErrInvalid, err)
	}
	return ids, nil
}

// deadline ends ctx after d. A command that goes on nevertheless, stuck in a
// system call for example, is left behind a little later.
func (e *environment) deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	hung := time.AfterFunc(d+grace, func() { e.overdue <- struct{}{} })
	return ctx, func() {
		hung.Stop()
		cancel()
	}
}

// place is the repository's URL, and what else may lead to another storage: an
// endpoint that the URL doesn't name comes from these variables of the AWS SDK.
func (e *environment) place() string {
	place := e.settings.Repository
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_PROFILE", "AWS_CONFIG_FILE"} {
		if value, _ := e.lookup(name); value != "" {
			place += "\n" + name + "=" + value
		}
	}
	return place
}

// state opens the private folder in which walship remembers things about one
// server: a cluster in one data directory. It makes the folder if need be,
// and refuses one that others can change.
func (e *environment) state(systemID uint64, dataDirectory string) (*os.Root, error) {
	dataDirectory, err := filepath.Abs(dataDirectory)
	if err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	digest := sha256.Sum256([]byte(dataDirectory))
	return e.stateFolder(fmt.Sprintf("%d-%x", systemID, digest[:8]))
}

// stateFolder opens a private folder of the state directory.
func (e *environment) stateFolder(name string) (*os.Root, error) {
	c, err := e.config()
	if err != nil {
		return nil, err
	}
	if c.StateDirectory == "" {
		return nil, errors.New("open state folder: neither state_directory, XDG_STATE_HOME nor HOME is set, and the user has no home directory")
	}
	dir := filepath.Join(c.StateDirectory, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	if err := done.CheckPrivate(root); err != nil {
		return nil, errors.Join(fmt.Errorf("open state folder %s: %w", dir, err), root.Close())
	}
	return root, nil
}

// report says on standard error how a command ended, if it didn't end well.
func (e *environment) report(err error, g group) {
	if err == nil {
		return
	}
	if g == groupFetch && exitCode(g, err) == 1 && errors.Is(err, archive.ErrAbsent) {
		e.log.Info(err.Error()) // which is normal
		return
	}
	hint := ""
	if h, has := errors.AsType[*hintError](err); has {
		hint = h.hint
	}
	if e.settings != nil && e.settings.Log.Format == "json" {
		e.log.Error(err.Error(), "hint", hint)
		return
	}
	fmt.Fprintf(e.err, "walship: %s\n", strings.TrimRight(err.Error(), "\n"))
	if hint != "" {
		fmt.Fprintf(e.err, "walship: hint: %s\n", hint)
	}
}

// hintError is an error with a line of advice.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

// withHint adds what to do next to an error.
func withHint(err error, hint string) error { return &hintError{err, hint} }
