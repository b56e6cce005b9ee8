package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/rescue"
	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/search"
)

func rescueCommand(e *environment) *cli.Command {
	const target = "MOMENT (one)"
	return &cli.Command{
		Name:  "rescue",
		Usage: "bring single tables or schemas back, as they were at some moment",
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "table", Usage: "bring back this `TABLE`, as schema.table; may be given several times"},
			&cli.StringSliceFlag{Name: "schema", Usage: "bring back this whole `SCHEMA`; may be given several times"},
			&cli.StringFlag{Name: "database", Usage: "the `DATABASE` that they were in; without, the one of --into, else postgres"},
			&cli.StringFlag{Name: "into", Usage: "load them into the database at `CONNINFO`, as libpq reads it, without a password"},
			&cli.StringFlag{Name: "into-schema", Usage: "load the tables into this `SCHEMA` instead of their own"},
			&cli.StringFlag{Name: "to-file", Usage: "write them to a new `FILE` instead: SQL if its name ends in .sql, else for pg_restore"},
			&cli.BoolFlag{Name: "before-drop", Usage: "as they were before they were dropped", Category: target},
			&cli.StringFlag{Name: "to-time", Usage: "as they were at `TIME`, with its zone: 2026-11-20T14:25:00Z", Category: target},
			&cli.StringFlag{Name: "to-lsn", Usage: "as they were at `LSN`", Category: target},
			&cli.StringFlag{Name: "to-xid", Usage: "as they were at the end of the transaction with this `XID`", Category: target},
			&cli.StringFlag{Name: "to-name", Usage: "as they were at the restore point `NAME`", Category: target},
			&cli.BoolFlag{Name: "to-latest", Usage: "as they are at the end of the archived WAL", Category: target},
			&cli.BoolFlag{Name: "exclusive", Usage: "stop before the target, not behind it (time, LSN and XID)"},
			&cli.StringFlag{Name: "backup", Usage: "start from the backup with this `ID`; without, from the newest one before the moment"},
			&cli.StringFlag{Name: "timeline", Usage: "`TIMELINE` to follow: latest, or a number; without, the latest, unless the moment lies on several"},
			&cli.StringFlag{Name: "work-directory", Usage: "an existing `DIRECTORY` with room for the whole cluster, which is restored into a folder of it for a while", Value: os.TempDir()},
			systemIDFlag(), progressFlag(), jsonFlag(),
		}, e.settingFlags("restore.concurrency", "encryption.identity_files", "postgres.bin_directory")...),
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return rescueError(restoreError(e.rescue(c)))
		},
	}
}

// rescueError gives the errors of pkg/rescue their exit codes.
func rescueError(err error) error {
	if _, is := errors.AsType[*rescue.ExistsError](err); is {
		return fmt.Errorf("%w: %w", errUnsafe, err)
	}
	if _, is := errors.AsType[*search.AmbiguousError](err); is {
		return withHint(fmt.Errorf("%w: %w", errUnsafe, err), "choose one of these transactions with --to-xid and --exclusive, instead of --before-drop")
	}
	return err
}

// rescueRequest reads the flags that say what is brought back, and where to.
func rescueRequest(c *cli.Context) (rescue.Request, error) {
	q := rescue.Request{Database: c.String("database"), Schemas: c.StringSlice("schema"), Into: c.String("into"), IntoSchema: c.String("into-schema"), File: c.String("to-file")}
	for _, text := range c.StringSlice("table") {
		name, err := rescue.ParseName(text)
		if err != nil {
			return q, &usageError{fmt.Sprintf("--table: %v", err)}
		}
		q.Tables = append(q.Tables, name)
	}
	switch {
	case len(q.Tables)+len(q.Schemas) == 0:
		return q, &usageError{"what is to be brought back isn't said: give --table or --schema"}
	case (q.Into == "") == (q.File == ""):
		return q, &usageError{"where to isn't said, or twice: give --into or --to-file"}
	case q.IntoSchema != "" && len(q.Schemas) > 0:
		return q, &usageError{"--into-schema is for single tables, not for a whole --schema"}
	case c.Bool("before-drop") && len(q.Schemas) > 0:
		return q, &usageError{"--before-drop is for tables: choose the moment of a --schema otherwise; walship wal search --dropped lists what was dropped"}
	case hasPassword(q.Into):
		return q, &usageError{"--into has a password in it, which others could see: leave it to ~/.pgpass"}
	}
	if q.Database != "" {
		return q, nil
	}
	q.Database = "postgres"
	if q.Into != "" {
		database, err := postgres.Database(q.Into)
		if err != nil {
			return q, err
		}
		if database != "" {
			q.Database = database
		}
	}
	return q, nil
}

// hasPassword tells whether a conninfo string or URL may have a password.
func hasPassword(conninfo string) bool {
	if strings.Contains(strings.ToLower(conninfo), "password") {
		return true
	}
	_, rest, isURL := strings.Cut(conninfo, "://")
	user, _, hasUser := strings.Cut(rest, "@")
	return isURL && hasUser && strings.Contains(user, ":")
}

func (e *environment) rescue(c *cli.Context) error {
	q, err := rescueRequest(c)
	if err != nil {
		return err
	}
	target, err := restoreTarget(c)
	if err != nil {
		return err
	}
	moments := c.IsSet("to-time") || c.IsSet("to-lsn") || c.IsSet("to-xid") || c.IsSet("to-name") || c.Bool("to-latest")
	if moments == c.Bool("before-drop") {
		return &usageError{"the moment isn't said, or twice: give --before-drop or one of --to-time, --to-lsn, --to-xid, --to-name and --to-latest"}
	}
	if os.Geteuid() == 0 {
		return &usageError{"rescue starts PostgreSQL, which doesn't run as root: run walship as another user, for example with sudo -u postgres"}
	}
	repository, err := e.repository(c.Context, true)
	if err != nil {
		return err
	}
	request := restore.Request{Backup: c.String("backup"), Timeline: c.String("timeline"), Target: target, AcceptGap: c.Bool("to-latest")}
	clusters, err := chosenClusters(c.Context, repository, c.String("system-id"))
	if err != nil {
		return err
	}
	if len(clusters) != 1 {
		return oneCluster(clusters)
	}
	request.SystemID = clusters[0]
	if c.Bool("before-drop") {
		timeline, err := searchTimeline(request.Timeline)
		if err != nil {
			return err
		}
		if err := rescue.BeforeDrop(c.Context, repository, &q, &request, timeline, e.logger()); err != nil {
			return absentIf(err)
		}
	}
	return e.runRescue(c, repository, q, request)
}

func (e *environment) runRescue(c *cli.Context, repository *repo.Repository, q rescue.Request, request restore.Request) error {
	settings, err := e.config()
	if err != nil {
		return err
	}
	user, err := postgres.User(settings.Postgres.Connection)
	if err != nil {
		return err
	}
	meter, err := e.meter(c, "restore")
	if err != nil {
		return err
	}
	result, err := rescue.Run(c.Context, repository, q, rescue.Options{
		Work: c.String("work-directory"), Request: request, Programs: settings.Postgres.BinDirectory, Users: []string{user, "postgres"}, Log: e.logger(),
		Private: func(directory string) ([]byte, string, error) { return scratchRestoreCommand(settings, directory) },
		Restore: restore.Options{Concurrency: settings.Restore.Concurrency, Log: e.logger(),
			Progress: func(p restore.Progress) { meter.show("", p.Done, p.Total) }},
	})
	meter.end()
	if err != nil {
		return err
	}
	return e.printResult(c, result, func(w io.Writer) { writeRescued(w, result) })
}

// scratchRestoreCommand returns the restore_command of a cluster that is
// restored for a while, with settings of its own.
func scratchRestoreCommand(settings *config.Config, directory string) ([]byte, string, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, "", fmt.Errorf("find this program: %w", err)
	}
	private, err := privateSettings(settings)
	return private, restore.RestoreCommand(binary, restore.SettingsFile(directory)), err
}

// writeRescued prints for people what was brought back.
func writeRescued(w io.Writer, r *rescue.Result) {
	where := "loaded"
	if r.File != "" {
		where = "written to " + r.File
	}
	for _, t := range r.Tables {
		fmt.Fprintf(w, "%s: %s rows, %s\n", t.Name, strconv.FormatInt(t.Rows, 10), where)
	}
	stop := r.Plan.Promise
	if stop.LastIn != nil {
		fmt.Fprintf(w, "as of transaction %d, committed %s\n", stop.LastIn.XID, restore.FormatTime(stop.LastIn.Time))
	}
	for _, text := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", text)
	}
}
