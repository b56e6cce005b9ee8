package main

import (
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/pgdata"
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
				}, e.settingFlags("wal.push_deadline", "wal.concurrency", "postgres.data_directory")...),
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
				Flags:     append([]cli.Flag{clusterFlag()}, e.settingFlags("wal.fetch_deadline", "wal.prefetch", "postgres.data_directory")...),
				Action: func(c *cli.Context) error {
					args, err := arguments(c, "NAME", "DEST")
					if err != nil {
						return err
					}
					return e.fetchWAL(c, args[0], args[1])
				},
			},
			e.prefetchCommand(),
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
				Flags: append([]cli.Flag{
					systemIDFlag(),
					&cli.BoolFlag{Name: "records", Usage: "print every record of a segment, a line each; needs an identity where the repository is encrypted"},
					jsonFlag(),
				}, e.settingFlags("encryption.identity_files")...),
				Action: func(c *cli.Context) error {
					args, err := arguments(c, "NAME")
					if err != nil {
						return err
					}
					if c.Bool("records") {
						return e.showRecords(c, args[0])
					}
					return e.showWAL(c, args[0])
				},
			},
			walSearchCommand(e),
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
	segmentSize   uint64 // bytes; of the control file, 0 when that wasn't found
}

// findServer finds the cluster of the WAL file at path: by --system-id, else
// by the control file.
func (e *environment) findServer(systemID, path string, settings *config.Config) (server, error) {
	control, dir, err := pgdata.FindControlFile(path, settings.Postgres.DataDirectory)
	if systemID == "" {
		if err != nil {
			return server{}, withHint(err, "run walship in the data directory, or set postgres.data_directory or --system-id")
		}
		return server{control.SystemID, dir, uint64(control.WALSegmentSize)}, nil
	}
	id, parseErr := parseSystemID(systemID)
	if parseErr != nil {
		return server{}, parseErr
	}
	if err != nil {
		return server{systemID: id}, nil
	}
	return server{id, dir, uint64(control.WALSegmentSize)}, nil
}

func parseSystemID(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return 0, &usageError{fmt.Sprintf("--system-id=%s isn't a system identifier: pg_controldata prints it", text)}
	}
	return id, nil
}
