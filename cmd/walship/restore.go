package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/storage"
)

func restoreCommand(e *environment) *cli.Command {
	return &cli.Command{
		Name:  "restore",
		Usage: "restore a cluster to an exact moment",
		Subcommands: []*cli.Command{
			{
				Name:  "plan",
				Usage: "say what a restore would do, and whether the WAL that it needs is there; change nothing",
				Flags: append(append(restoreFlags(), deepFlag(), probeFlag(), jsonFlag(), svgFlag()), e.settingFlags("encryption.identity_files")...),
				Action: func(c *cli.Context) error {
					if _, err := arguments(c); err != nil {
						return err
					}
					return restoreError(e.planRestore(c))
				},
			},
			{
				Name:  "run",
				Usage: "restore into a new data directory, and print the command that starts it",
				Flags: append(append(restoreFlags(), runFlags()...), e.settingFlags("restore.concurrency", "encryption.identity_files", "postgres.bin_directory")...),
				Action: func(c *cli.Context) error {
					if _, err := arguments(c); err != nil {
						return err
					}
					return restoreError(e.runRestore(c))
				},
			},
		},
	}
}

// restoreFlags are the same for the plan and the run.
func restoreFlags() []cli.Flag {
	const target = "TARGET (at most one; without any, the end of the archived WAL)"
	return []cli.Flag{
		&cli.StringFlag{Name: "target-directory", Usage: "the new data `DIRECTORY`, empty or not there yet (but see --reuse of restore run)"},
		&cli.StringFlag{Name: "backup", Usage: "start from the backup with this `ID`; without, from the newest one before the target"},
		systemIDFlag(),
		&cli.StringFlag{Name: "to-time", Usage: "recover up to `TIME`, with its zone: 2026-11-20T14:25:00Z", Category: target},
		&cli.StringFlag{Name: "to-lsn", Usage: "recover up to `LSN`", Category: target},
		&cli.StringFlag{Name: "to-xid", Usage: "recover up to the end of the transaction with this `XID`", Category: target},
		&cli.StringFlag{Name: "to-name", Usage: "recover up to the restore point `NAME`", Category: target},
		&cli.StringFlag{Name: "before-drop", Usage: "recover up to right before `TABLE` was dropped, the last time", Category: target},
		&cli.StringFlag{Name: "before-truncate", Usage: "recover up to right before `TABLE` was truncated, the last time", Category: target},
		&cli.StringFlag{Name: "before-xid", Usage: "recover up to right before the end of the transaction with this `XID`", Category: target},
		&cli.BoolFlag{Name: "to-latest", Usage: "recover all archived WAL; before a gap in it, if there is one", Category: target},
		&cli.BoolFlag{Name: "immediate", Usage: "recover up to the end of the backup", Category: target},
		&cli.BoolFlag{Name: "exclusive", Usage: "stop before the target, not behind it (time, LSN and XID)"},
		&cli.StringFlag{Name: "timeline", Usage: "`TIMELINE` to follow: latest, current (the backup's), or a number; without, the latest, unless the target lies on several"},
		&cli.StringFlag{Name: "target-action", Usage: "`ACTION` of the server at the target: pause, promote or shutdown", Value: string(restore.ActionPause)},
		&cli.BoolFlag{Name: "replace", Usage: "the restored cluster takes the place of the original: keep its archiving settings"},
		&cli.BoolFlag{Name: "standby", Usage: "make a standby of the original: it keeps primary_conninfo and its archiving settings"},
		&cli.GenericFlag{Name: "tablespace-map", Usage: "restore the tablespace at OLD (or with that OID) to NEW: `OLD=NEW`; may be given several times", Value: &mappingValue{}},
		&cli.StringFlag{Name: "waldir", Usage: "put pg_wal into this `DIRECTORY`, and a link to it into the data directory"},
	}
}

func deepFlag() cli.Flag {
	return &cli.BoolFlag{Name: "deep", Usage: "download all WAL that the restore needs, and verify it"}
}

// runFlags are those of the run alone.
func runFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "reuse", Usage: "overwrite the stopped cluster in the target directory, if it is a copy of the same one: files that agree with the backup stay, all else in it is removed"},
		&cli.BoolFlag{Name: "start", Usage: "start the restored cluster, reachable by this user alone, and wait until it is at the target"},
		progressFlag(),
		jsonFlag(),
	}
}

// restoreError gives the errors of pkg/restore their exit codes.
func restoreError(err error) error {
	if usage, is := errors.AsType[*restore.UsageError](err); is {
		return &usageError{usage.Error()}
	}
	if _, is := errors.AsType[*restore.RefusedError](err); is {
		return fmt.Errorf("%w: %w", errUnsafe, err)
	}
	if wraps(object.ErrCorrupt, object.ErrMismatch, storage.ErrNotExist)(err) {
		return withHint(err, "look for a copy of that object (in another bucket, among the storage's versions, a segment in a server's pg_wal too), or restore without it: a target before it, or another --backup")
	}
	return err
}

func (e *environment) planRestore(c *cli.Context) error {
	request, _, err := e.restoreRequest(c)
	if err != nil {
		return err
	}
	settings, err := e.config()
	if err != nil {
		return err
	}
	reads := len(settings.Encryption.IdentityFiles) > 0 || c.IsSet("before-drop") || c.IsSet("before-truncate") || c.Bool("deep")
	repository, err := e.repository(c.Context, reads)
	if err != nil {
		return err
	}
	request.Deep = c.Bool("deep")
	plan, err := e.makePlan(c, repository, request)
	if err != nil {
		return err
	}
	e.estimate(c, repository, plan)
	if c.IsSet("svg") {
		if err := e.drawPlan(c.Context, c.String("svg"), plan); err != nil {
			return err
		}
	}
	if err := e.printResult(c, plan, func(w io.Writer) { writePlan(w, plan) }); err != nil {
		return err
	}
	return plan.Err()
}

// restoreOutput is what restore run prints with --json.
type restoreOutput struct {
	Plan   *restore.Plan   `json:"plan"`
	Result *restore.Result `json:"result"`
	// Started is missing without --start.
	Started *restore.Started `json:"started,omitempty"`
}

func (e *environment) runRestore(c *cli.Context) error {
	if c.String("target-directory") == "" {
		return &usageError{"--target-directory is missing: it says where to restore to"}
	}
	if c.Bool("start") && os.Geteuid() == 0 {
		return &usageError{"--start: PostgreSQL doesn't run as root: run walship as the user that is to run the server, for example with sudo -u postgres"}
	}
	request, private, err := e.restoreRequest(c)
	if err != nil {
		return err
	}
	meter, err := e.meter(c, "restore")
	if err != nil {
		return err
	}
	settings, err := e.config()
	if err != nil {
		return err
	}
	repository, err := e.repository(c.Context, true)
	if err != nil {
		return err
	}
	plan, err := e.makePlan(c, repository, request)
	if err != nil {
		return err
	}
	e.useRates(repository, plan)
	if !c.Bool("json") {
		writePlan(e.out, plan)
	}
	result, err := restore.Run(c.Context, repository, plan, restore.Options{
		Concurrency: settings.Restore.Concurrency, Settings: private, Reuse: c.Bool("reuse"), Log: e.logger(),
		Progress: meter.ofRestore(plan.Backup.ID),
	})
	meter.end()
	if err != nil {
		return err
	}
	if strings.HasPrefix(settings.Repository, "s3:") {
		result.Next = append(result.Next, "the server fetches WAL itself: its environment needs the storage's credentials, as the AWS SDK finds them")
	}
	var started *restore.Started
	if c.Bool("start") {
		if started, err = e.startRestored(c, plan, result); err != nil {
			return err
		}
	}
	e.rememberRates(repository, plan, result, started)
	err = e.printResult(c, restoreOutput{plan, result, started}, func(w io.Writer) {
		writeRestored(w, result)
		if started != nil {
			writeStarted(w, started)
		}
	})
	if err == nil && started != nil && !started.AsPromised {
		err = fmt.Errorf("%w: %s", errDegraded, strings.Join(started.Differences, "; "))
	}
	return err
}

// startRestored starts what was restored, and waits for the target.
func (e *environment) startRestored(c *cli.Context, plan *restore.Plan, result *restore.Result) (*restore.Started, error) {
	settings, err := e.config()
	if err != nil {
		return nil, err
	}
	user, err := postgres.User(settings.Postgres.Connection)
	if err != nil {
		return nil, err
	}
	started, err := restore.Start(c.Context, plan, result, restore.StartOptions{
		Programs: settings.Postgres.BinDirectory, Users: []string{user, "postgres"}, Log: e.logger(),
	})
	if err != nil {
		return nil, withHint(err, "the directory is restored: mend what the server says, and start it with: "+result.Start)
	}
	return started, nil
}

// writeStarted prints for people how the recovery ended.
func writeStarted(w io.Writer, s *restore.Started) {
	fmt.Fprintf(w, "\nstarted: the server is %s\n", s.State)
	if s.Stopped != "" {
		fmt.Fprintf(w, "it said: %s\n", s.Stopped)
	}
	if s.Replayed != "" {
		fmt.Fprintf(w, "replayed to LSN %s", s.Replayed)
		if !s.LastEnding.IsZero() {
			fmt.Fprintf(w, ", the last transaction ended %s", restore.FormatTime(s.LastEnding))
		}
		if s.Promised == s.Replayed {
			fmt.Fprint(w, ": as planned")
		}
		fmt.Fprintln(w)
	}
	if s.LastIn != nil {
		fmt.Fprintf(w, "last in: %s of transaction %d at %s, LSN %s: as planned\n", s.LastIn.Kind, s.LastIn.XID, restore.FormatTime(s.LastIn.Time), s.LastIn.LSN)
	}
	if s.PID == 0 {
		return
	}
	fmt.Fprintf(w, "process %d, for this user alone: psql -h %s -p %d -U %s\n", s.PID, pgdata.ShellWord(s.Socket), s.Port, pgdata.ShellWord(s.User))
	fmt.Fprintln(w, "to let others in, stop it and start it with the command above")
}

// restoreRequest reads the flags. private is the content of the restored
// cluster's own settings file, nil where it can use the one that is in use.
func (e *environment) restoreRequest(c *cli.Context) (request restore.Request, private []byte, err error) {
	request = restore.Request{
		Backup: c.String("backup"), Timeline: c.String("timeline"), Action: restore.Action(c.String("target-action")),
		Replace: c.Bool("replace"), Standby: c.Bool("standby"), AcceptGap: c.Bool("to-latest"), Tablespaces: c.Generic("tablespace-map").(*mappingValue).places,
	}
	if id := c.String("system-id"); id != "" {
		if request.SystemID, err = strconv.ParseUint(id, 10, 64); err != nil || request.SystemID == 0 {
			return request, nil, &usageError{fmt.Sprintf("--system-id=%s isn't a system identifier: pg_controldata prints it", id)}
		}
	}
	if request.Target, err = restoreTarget(c); err != nil {
		return request, nil, err
	}
	if err := checkAction(c, request.Target); err != nil {
		return request, nil, err
	}
	for flag, field := range map[string]*string{"target-directory": &request.Directory, "waldir": &request.WALDirectory} {
		if *field = c.String(flag); *field == "" {
			continue
		}
		if *field, err = filepath.Abs(*field); err != nil {
			return request, nil, fmt.Errorf("find --%s: %w", flag, err)
		}
	}
	settings, err := e.config()
	if err != nil {
		return request, nil, err
	}
	binary, err := os.Executable()
	if err != nil {
		return request, nil, fmt.Errorf("find this program: %w", err)
	}
	file := settings.File()
	if file == "" || !fromFile(settings) {
		if private, err = privateSettings(settings); err != nil {
			return request, nil, err
		}
		file = restore.SettingsFile(request.Directory)
	}
	request.OwnSettings = private != nil
	request.RestoreCommand = restore.RestoreCommand(binary, file)
	return request, private, nil
}

// checkAction refuses an action that would do nothing: PostgreSQL takes it at a
// target only, and promotes at the end of the WAL.
func checkAction(c *cli.Context, target restore.Target) error {
	action := restore.Action(c.String("target-action"))
	switch {
	case !c.IsSet("target-action") || target.Kind != restore.TargetLatest || c.IsSet("before-drop") || c.IsSet("before-truncate"):
		return nil
	case c.Bool("standby"):
		return &usageError{"--target-action is for a target, and a standby has none: it follows its primary"}
	case action == restore.ActionPause || action == restore.ActionShutdown:
		return &usageError{fmt.Sprintf("--target-action %s is for a target: at the end of the archived WAL PostgreSQL promotes itself; restore plan says which transaction is the last one in, and --to-xid with that one stops there", action)}
	}
	return nil
}

// fetchSettings are the settings that wal fetch depends on.
func fetchSettings() []string {
	return []string{"repository", "encryption.identity_files", "wal.fetch_deadline", "state_directory"}
}

// fromFile tells whether a fetch that only knows the settings file does the
// same as one that knows all of the present settings.
func fromFile(settings *config.Config) bool {
	for _, key := range fetchSettings() {
		if kind := settings.Origin(key).Kind; kind == config.OriginEnvironment || kind == config.OriginFlag {
			return false
		}
	}
	return true
}

// privateSettings are the contents of a settings file of the restored
// cluster's own.
func privateSettings(settings *config.Config) ([]byte, error) {
	if u, err := url.Parse(settings.Repository); err == nil && u.User != nil {
		return nil, &usageError{"the repository's URL has credentials in it, which would be written to the restored cluster's settings: leave them to the AWS SDK's conventions"}
	}
	keys := fetchSettings()
	if settings.Origin("state_directory").Kind == config.OriginDefault {
		keys = keys[:len(keys)-1] // the server's own default, not this user's
	}
	return append([]byte("# Settings of this restored cluster's restore_command, written by walship restore run.\n"), settings.Format(keys...)...), nil
}
