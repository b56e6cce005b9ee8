package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

func walCommand(e *environment) *cli.Command {
	return &cli.Command{
		Name:  "wal",
		Usage: "archive and fetch WAL, as PostgreSQL asks for it, and look at it",
		Subcommands: []*cli.Command{
			{
				Name:      "push",
				Usage:     "archive one file: archive_command = 'walship wal push %p'",
				ArgsUsage: "PATH",
				Flags: append([]cli.Flag{
					clusterFlag(),
					&cli.BoolFlag{Name: "strict", Usage: "refuse a segment whose WAL is damaged, instead of archiving it with a loud message"},
				}, e.settingFlags("wal.push_deadline", "postgres.data_directory")...),
				Action: func(c *cli.Context) error {
					args, err := arguments(c, "PATH")
					if err != nil {
						return err
					}
					return e.pushWAL(c, args[0])
				},
			},
			{
				Name:      "fetch",
				Usage:     "get one file: restore_command = 'walship wal fetch %f %p'",
				ArgsUsage: "NAME DEST",
				Flags:     append([]cli.Flag{clusterFlag()}, e.settingFlags("wal.fetch_deadline", "postgres.data_directory")...),
				Action: func(c *cli.Context) error {
					args, err := arguments(c, "NAME", "DEST")
					if err != nil {
						return err
					}
					return e.fetchWAL(c, args[0], args[1])
				},
			},
			{
				Name:  "list",
				Usage: "list the archived WAL: runs of segments without a gap, and history files",
				Flags: []cli.Flag{
					systemIDFlag(),
					&cli.BoolFlag{Name: "files", Usage: "list every file by its name"},
					jsonFlag(),
				},
				Action: func(c *cli.Context) error {
					if _, err := arguments(c); err != nil {
						return err
					}
					return e.listWAL(c)
				},
			},
			{
				Name:      "show",
				Usage:     "print what the header of an archived file says; needs no identity, so nothing of it is verified",
				ArgsUsage: "NAME",
				Flags:     []cli.Flag{systemIDFlag(), jsonFlag()},
				Action: func(c *cli.Context) error {
					args, err := arguments(c, "NAME")
					if err != nil {
						return err
					}
					return e.showWAL(c, args[0])
				},
			},
		},
	}
}

func clusterFlag() cli.Flag {
	return &cli.StringFlag{Name: "system-id", Usage: "the cluster's system `IDENTIFIER`, where its pg_control can't be found or is another's"}
}

// server is the cluster that a WAL file belongs to.
type server struct {
	systemID      uint64
	dataDirectory string // "" when it wasn't found
}

// findServer finds the cluster of the WAL file at path: by --system-id, else
// by the control file.
func (e *environment) findServer(c *cli.Context, path string, settings *config.Config) (server, error) {
	control, dir, err := pgdata.FindControlFile(path, settings.Postgres.DataDirectory)
	text := c.String("system-id")
	if text == "" {
		if err != nil {
			return server{}, withHint(err, "run walship in the data directory, or set postgres.data_directory or --system-id")
		}
		return server{control.SystemID, dir}, nil
	}
	id, parseErr := parseSystemID(text)
	if parseErr != nil {
		return server{}, parseErr
	}
	if err != nil {
		dir = ""
	}
	return server{id, dir}, nil
}

func parseSystemID(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return 0, &usageError{fmt.Sprintf("--system-id=%s isn't a system identifier: pg_controldata prints it", text)}
	}
	return id, nil
}

// pushWAL archives one file.
func (e *environment) pushWAL(c *cli.Context, path string) error {
	settings, err := e.config()
	if err != nil {
		return err
	}
	ctx, cancel := e.deadline(c.Context, settings.WAL.PushDeadline.Duration)
	defer cancel()
	if _, err := wal.ParseFileName(filepath.Base(path)); err != nil {
		return &usageError{err.Error()}
	}
	s, err := e.findServer(c, path, settings)
	if err != nil {
		return err
	}
	repository, err := e.repository(ctx, false)
	if err != nil {
		return err
	}
	done, err := archive.Push(ctx, repository, path, archive.PushOptions{SystemID: s.systemID, Strict: c.Bool("strict"), Log: e.logger()})
	if err != nil {
		return err
	}
	e.logger().Debug("archived", "file", done.Name.String(), "key", done.Key, "already", done.Already, "stored", done.StoredSize)
	return nil
}

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
