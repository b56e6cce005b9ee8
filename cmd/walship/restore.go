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
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/wal"
)

func restoreCommand(e *environment) *cli.Command {
	return &cli.Command{
		Name:  "restore",
		Usage: "restore a cluster to an exact moment",
		Subcommands: []*cli.Command{
			{
				Name:  "plan",
				Usage: "say what a restore would do, and whether the WAL that it needs is there; change nothing",
				Flags: append(append(restoreFlags(), deepFlag(), jsonFlag(), svgFlag()), e.settingFlags("encryption.identity_files")...),
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
		&cli.BoolFlag{Name: "to-latest", Usage: "recover all archived WAL", Category: target},
		&cli.BoolFlag{Name: "immediate", Usage: "recover up to the end of the backup", Category: target},
		&cli.BoolFlag{Name: "exclusive", Usage: "stop before the target, not behind it (time, LSN and XID)"},
		&cli.StringFlag{Name: "timeline", Usage: "`TIMELINE` to follow: latest, current (the backup's), or a number; without, the latest, unless the time lies on several"},
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
	request, private, err := e.restoreRequest(c)
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
	if !c.Bool("json") {
		writePlan(e.out, plan)
	}
	if c.Bool("start") && os.Geteuid() == 0 {
		return &usageError{"--start: PostgreSQL doesn't run as root: run walship as the user that is to run the server, for example with sudo -u postgres"}
	}
	meter, err := e.meter(c, "restore")
	if err != nil {
		return err
	}
	result, err := restore.Run(c.Context, repository, plan, restore.Options{
		Concurrency: settings.Restore.Concurrency, Settings: private, Reuse: c.Bool("reuse"), Log: e.logger(),
		Progress: func(p restore.Progress) { meter.show(plan.Backup.ID, p.Done, p.Total) },
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
			fmt.Fprintf(w, ", the last transaction ended %s", timeText(s.LastEnding))
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
		Replace: c.Bool("replace"), Standby: c.Bool("standby"), Tablespaces: c.Generic("tablespace-map").(*mappingValue).places,
	}
	if id := c.String("system-id"); id != "" {
		if request.SystemID, err = strconv.ParseUint(id, 10, 64); err != nil || request.SystemID == 0 {
			return request, nil, &usageError{fmt.Sprintf("--system-id=%s isn't a system identifier: pg_controldata prints it", id)}
		}
	}
	if request.Target, err = restoreTarget(c); err != nil {
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

// restoreTarget reads the flags of the target.
func restoreTarget(c *cli.Context) (restore.Target, error) {
	target := restore.Target{Kind: restore.TargetLatest, Exclusive: c.Bool("exclusive")}
	var given []string
	for _, t := range []struct {
		flag  string
		kind  restore.TargetKind
		parse func(value string) error
	}{
		{"to-time", restore.TargetTime, func(s string) (err error) { target.Time, err = restore.ParseTime(s, time.Local); return err }},
		{"to-lsn", restore.TargetLSN, func(s string) (err error) { target.LSN, err = wal.ParseLSN(s); return err }},
		{"to-xid", restore.TargetXID, func(s string) (err error) { target.XID, err = restore.ParseXID(s); return err }},
		{"before-xid", restore.TargetXID, func(s string) (err error) {
			target.XID, err = restore.ParseXID(s)
			target.Exclusive = true
			return err
		}},
		{"before-drop", restore.TargetLatest, settledLater},
		{"before-truncate", restore.TargetLatest, settledLater},
		{"to-name", restore.TargetName, func(s string) error { target.Name = s; return nil }},
		{"to-latest", restore.TargetLatest, nil},
		{"immediate", restore.TargetImmediate, nil},
	} {
		if !c.IsSet(t.flag) || t.parse == nil && !c.Bool(t.flag) {
			continue
		}
		given = append(given, "--"+t.flag)
		target.Kind = t.kind
		if t.parse != nil {
			if err := t.parse(c.String(t.flag)); err != nil {
				return target, &usageError{fmt.Sprintf("--%s: %v", t.flag, err)}
			}
		}
	}
	if len(given) > 1 {
		return target, &usageError{strings.Join(given, " and ") + " are given: a restore has one target"}
	}
	return target, target.Validate()
}

// settledLater reads the flag of a target that is looked for in the WAL.
func settledLater(string) error { return nil }

// mappingValue is the value of --tablespace-map, which may come several times.
type mappingValue struct{ places map[string]string }

// Set reads OLD=NEW. As in pg_basebackup, \= stands for a = in a path.
func (v *mappingValue) Set(text string) error {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == '=':
			i++
			part.WriteByte('=')
		case text[i] == '=':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(text[i])
		}
	}
	parts = append(parts, part.String())
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return fmt.Errorf("%q isn't of the form OLD=NEW", text)
	}
	if _, twice := v.places[parts[0]]; twice {
		return fmt.Errorf("%s is mapped twice", parts[0])
	}
	if v.places == nil {
		v.places = map[string]string{}
	}
	v.places[parts[0]] = parts[1]
	return nil
}

func (v *mappingValue) String() string { return "" }

// writePlan prints a plan for people.
func writePlan(w io.Writer, p *restore.Plan) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) { fmt.Fprintf(table, key+"\t"+format+"\n", args...) }
	line("cluster", "%d", p.SystemID)
	line("target", "%s", targetText(p))
	line("backup", "%s (PostgreSQL %s on %s), ended %s at LSN %s", p.Backup.ID,
		postgres.VersionString(p.Backup.ServerVersion), p.Backup.Host, timeText(p.Backup.StopTime), p.Backup.StopLSN)
	objects := p.Backup.Objects
	for i, b := range p.Backup.BasedOn {
		key := ""
		if i == 0 {
			key = "based on"
		}
		line(key, "%s, %s stored", b.ID, sizeText(b.StoredSize))
		objects += b.Objects
	}
	for i, s := range p.Path {
		key := ""
		if i == 0 {
			key = "timelines"
		}
		switch {
		case s.End == "":
			line(key, "%d from %s on", uint32(s.Timeline), s.Start)
		case s.Reason == "":
			line(key, "%d from %s to %s", uint32(s.Timeline), s.Start, s.End)
		default:
			line(key, "%d from %s to %s (%s)", uint32(s.Timeline), s.Start, s.End, s.Reason)
		}
	}
	line("WAL", "%d segments, %s to %s: usable until %s", p.WAL.Needed, p.WAL.First, p.WAL.Last, p.WAL.Until)
	if p.WAL.Verified > 0 {
		line("", "%d segments verified", p.WAL.Verified)
	}
	for _, name := range p.WAL.Missing {
		line("", "missing: %s", name)
	}
	for _, name := range p.WAL.Partial {
		line("", "partial, not used: %s", name)
	}
	writePromise(line, p)
	line("replay", "%s of WAL", sizeText(p.WAL.ReplaySize))
	line("download", "%s in %d objects and the WAL", sizeText(p.DownloadSize), objects)
	directory := p.Directory
	if directory == "" {
		directory = "the data directory"
	}
	line("space", "%s in %d files, in %s", sizeText(p.DataSize), p.Files, directory)
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			line("", "%s of tablespace %d in %s (was in %s)", sizeText(t.Size), t.OID, t.RestoreTo, t.Location)
		}
	}
	if e := p.Estimate; e != nil {
		line("time", "%s for the files, if it goes as fast as backup %s did (%s/s); the replay comes in addition", durationText(e.Duration()), e.MeasuredBy, sizeText(int64(e.Rate)))
	}
	for i, s := range p.Settings {
		key := ""
		if i == 0 {
			key = "settings"
		}
		line(key, "%s = %s", s.Name, pgdata.QuoteSetting(s.Value))
	}
	for i, written := range p.Writes {
		key := ""
		if i == 0 {
			key = "writes"
		}
		line(key, "%s: %s", written.Path, written.What)
	}
	_ = table.Flush() // w remembers an error
	for _, list := range []struct {
		key   string
		texts []string
	}{{"note", p.Notes}, {"warning", p.Warnings}, {"problem", p.Problems}} {
		for _, text := range list.texts {
			fmt.Fprintf(w, "%s: %s\n", list.key, text)
		}
	}
}

// writePromise prints what the restore is going to end with.
func writePromise(line func(key, format string, args ...any), p *restore.Plan) {
	if p.Stop != nil {
		side := "behind"
		if p.Stop.Before {
			side = "before"
		}
		line("stops", "%s %s at LSN %s", side, stopText(p.Stop), p.Stop.LSN)
	}
	ending := func(key string, e *restore.Ending) {
		if e != nil {
			line(key, "%s of transaction %d at %s, LSN %s", e.Kind, e.XID, restore.FormatTime(e.Time), e.LSN)
		}
	}
	ending("last in", p.LastIn)
	ending("first out", p.FirstOut)
	for _, t := range p.PendingPrepared {
		line("prepared", "transaction %d %q, neither committed nor rolled back", t.XID, t.GID)
	}
	if p.EndsAt != 0 && p.Reachable {
		line("ends at", "LSN %s", p.EndsAt)
	}
}

// durationText rounds a duration that is an estimate.
func durationText(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than 1 s"
	case d < time.Minute:
		return fmt.Sprintf("about %.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("about %.0f min", d.Minutes())
	}
	return fmt.Sprintf("about %.1f h", d.Hours())
}

func stopText(s *restore.Stop) string {
	switch {
	case s.XID != 0:
		return fmt.Sprintf("the %s of transaction %d, %s,", s.Kind, s.XID, restore.FormatTime(s.Time))
	case s.Name != "":
		return fmt.Sprintf("the restore point %q", s.Name)
	case s.Kind == "consistency":
		return "the end of the backup"
	}
	return "the record"
}

func targetText(p *restore.Plan) string {
	text := string(p.Target.Kind)
	if p.Target.Kind != restore.TargetLatest && p.Target.Kind != restore.TargetImmediate {
		text += " " + p.Target.Value
		if !p.Target.Inclusive {
			text += ", exclusive"
		}
	}
	if p.Target.Kind == restore.TargetLatest {
		return text + ", then promote"
	}
	return text + ", then " + string(p.Target.Action)
}

// writeRestored prints for people what is to be done now.
func writeRestored(w io.Writer, r *restore.Result) {
	fmt.Fprintf(w, "\nrestored into %s\n", r.Directory)
	if r.KeptSize > 0 {
		fmt.Fprintf(w, "note: %s were there already and stayed\n", sizeText(r.KeptSize))
	}
	for _, text := range r.Next {
		fmt.Fprintf(w, "note: %s\n", text)
	}
	fmt.Fprintf(w, "start it with:\n  %s\n", r.Start)
}
