package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
	s, err := e.findServer(c, dest, settings)
	if err != nil {
		return err
	}
	o := archive.FetchOptions{SystemID: s.systemID, Log: e.logger()}
	if o.Standby, err = isStandby(s.dataDirectory); err != nil {
		return err
	}
	if o.Standby {
		o.Unknown = e.unknownRecord(s)
		if o.Unknown != nil {
			defer o.Unknown.State.Close()
		}
	}
	open := func(ctx context.Context) (*repo.Repository, error) {
		r, err := e.repository(ctx, true)
		if err != nil && (isUsage(err) || wraps(repo.ErrNotInitialised, repo.ErrUnexpectedRecipients)(err)) {
			err = fmt.Errorf("%w: %w", archive.ErrRefused, err)
		}
		return r, err
	}
	return archive.Fetch(ctx, open, name, dest, o)
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

// unknownRecord is what this recovery run remembers between calls; nil where
// there is no place for it.
func (e *environment) unknownRecord(s server) *archive.UnknownRecord {
	state, err := e.state(s.systemID, s.dataDirectory)
	if err != nil {
		e.logger().Warn("there is no state folder, so that the standby can't be told to wait in an outage", "error", err)
		return nil
	}
	return &archive.UnknownRecord{State: state, Run: recoveryRun(s.dataDirectory)}
}

// recoveryRun tells one run of a server from the next: by its process and the
// time of its start, which are the first and third line of postmaster.pid.
func recoveryRun(dataDirectory string) string {
	data, err := os.ReadFile(filepath.Join(dataDirectory, "postmaster.pid"))
	if err != nil {
		return ""
	}
	lines := strings.SplitN(string(data), "\n", 4)
	if len(lines) < 3 {
		return ""
	}
	return lines[0] + " " + lines[2]
}
