package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// fetchWAL gets one file.
func (e *environment) fetchWAL(c *cli.Context, file, dest string) error {
	settings, err := e.config()
	if err != nil {
		return err
	}
	ctx, cancel := e.deadline(c.Context, settings.WAL.FetchDeadline.Duration)
	defer cancel()
	name, err := wal.ParseFileName(file)
	if err != nil {
		return &usageError{err.Error()}
	}
	s, err := e.findServer(c.String("system-id"), dest, settings)
	if err != nil {
		return err
	}
	o := archive.FetchOptions{SystemID: s.systemID, Log: e.logger()}
	if o.Standby, err = isStandby(s.dataDirectory); err != nil {
		return err
	}
	open := archive.Opener(e.openToRead)
	if state := e.recoveryState(&o, s, name, dest); state != nil {
		defer state.Close()
		open = e.rememberRepository(&o, archive.Known{State: state, Place: e.place()})
	}
	return archive.Fetch(ctx, open, name, dest, o)
}

// rememberRepository has a fetch go by what another call has read of the
// repository, and remember what it reads itself. A directory is asked each
// time: it costs nothing.
func (e *environment) rememberRepository(o *archive.FetchOptions, known archive.Known) archive.Opener {
	if isDirectory(e.settings.Repository) {
		return e.openToRead
	}
	o.Remembered = func(ctx context.Context) *repo.Repository { return e.remembered(ctx, known) }
	return func(ctx context.Context) (*repo.Repository, error) {
		asked := time.Now()
		r, err := e.openToRead(ctx)
		if err != nil {
			return nil, err
		}
		if err := known.Remember(r.Info, asked); err != nil {
			e.logger().Debug("the next fetch will ask again", "error", err)
		}
		return r, nil
	}
}

// remembered opens the repository for reading as another call has seen it;
// nil if that isn't known, or can't be opened, which opening it again tells.
func (e *environment) remembered(ctx context.Context, known archive.Known) *repo.Repository {
	info, _, is := known.Info()
	if !is || isDirectory(e.settings.Repository) {
		return nil
	}
	store, err := e.openStore(ctx)
	if err != nil {
		return nil
	}
	r, err := e.assemble(store, info, true)
	if err != nil {
		return nil
	}
	return r
}

// recoveryState gives a fetch what other calls for the same server left for it,
// and returns the folder where that is; nil where there is none.
func (e *environment) recoveryState(o *archive.FetchOptions, s server, name wal.FileName, dest string) *os.Root {
	run := archive.RecoveryRun(s.dataDirectory)
	ahead := e.settings.WAL.Prefetch > 0 && run != "" && s.segmentSize > 0 &&
		name.Kind == wal.KindSegment && filepath.Base(dest) == archive.RecoveryFile
	if !o.Standby && !ahead && (isDirectory(e.settings.Repository) || !ownedByCaller(s.dataDirectory)) {
		return nil
	}
	state, err := e.state(s.systemID, s.dataDirectory)
	switch {
	case err == nil:
	case o.Standby:
		e.logger().Warn("there is no state folder, so that the standby can't be told to wait in an outage", "error", err)
		return nil
	case ahead:
		e.logger().Info("there is no state folder, so that nothing is fetched ahead", "error", err)
		return nil
	default:
		e.logger().Debug("there is no state folder, so that every fetch asks what the repository is", "error", err)
		return nil
	}
	if o.Standby {
		o.Unknown = &archive.UnknownRecord{State: state, Run: run}
	}
	if ahead {
		o.Ahead = e.ahead(s, run, dest, state)
	}
	return state
}

// ownedByCaller tells whether a data directory is the caller's own, as a
// server's is. Whoever else fetches a file leaves no state folder of his own in
// that server's way.
func ownedByCaller(dataDirectory string) bool {
	info, err := os.Stat(dataDirectory)
	if err != nil {
		return false
	}
	stat, known := info.Sys().(*syscall.Stat_t)
	return known && int(stat.Uid) == os.Geteuid()
}

func isDirectory(url string) bool { return strings.HasPrefix(url, "file:") }

// openToRead opens the repository for reading, and says when no further try
// will help.
func (e *environment) openToRead(ctx context.Context) (*repo.Repository, error) {
	r, err := e.repository(ctx, true)
	if err != nil && (isUsage(err) || wraps(repo.ErrNotInitialised, repo.ErrUnexpectedRecipients)(err)) {
		err = fmt.Errorf("%w: %w", archive.ErrRefused, err)
	}
	return r, err
}

// isStandby says whether the server in a data directory is a standby, or
// about to be one.
func isStandby(dataDirectory string) (bool, error) {
	if dataDirectory == "" {
		return false, nil
	}
	root, err := os.OpenRoot(dataDirectory)
	if err != nil {
		return false, fmt.Errorf("open data directory: %w", err)
	}
	defer root.Close()
	return pgdata.IsStandby(root)
}
