//go:build integration

package restore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/test/pgtest"
)

// origin is a cluster that archives into a directory repository of its own.
type origin struct {
	*pgtest.Cluster
	work, binary, config string
	env                  []string // settings from the environment, beside or without the file
}

const testMajor = pgtest.Major(15)

func newOrigin(t *testing.T, options ...pgtest.Option) *origin {
	t.Helper()
	o := &origin{work: pgtest.WorkDir(t), binary: pgtest.BuildWalship(t)}
	o.config = pgtest.WriteNobody(t, filepath.Join(o.work, "walship.toml"),
		fmt.Sprintf("repository = \"file://%s/repository\"\nstate_directory = \"%[1]s/state\"\n", o.work))
	o.Cluster = pgtest.New(t, testMajor, append([]pgtest.Option{
		pgtest.SegmentSize(1), pgtest.Set("archive_mode", "on"),
		pgtest.Set("archive_command", o.binary+" --config "+o.config+" wal push %p"),
	}, options...)...)
	o.walship(t, "init", "--no-encryption")
	o.Start(t)
	return o
}

// command calls walship with the settings file, or with the environment.
func (o *origin) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if len(o.env) == 0 {
		args = append([]string{"--config", o.config}, args...)
	}
	cmd := o.Command(t.Context(), t, o.binary, args...)
	cmd.Env = append(cmd.Env, o.env...)
	return cmd
}

func (o *origin) walship(t *testing.T, args ...string) string {
	t.Helper()
	return pgtest.MustRun(t, o.command(t, args...))
}

// backup takes a backup and returns its id.
func (o *origin) backup(t *testing.T, of *pgtest.Cluster) string {
	t.Helper()
	cmd := of.Command(t.Context(), t, o.binary, "--config", o.config, "backup", "push", "--json")
	var record struct{ ID string }
	if err := json.Unmarshal([]byte(pgtest.MustRun(t, cmd)), &record); err != nil {
		t.Fatal(err)
	}
	return record.ID
}

type output struct {
	Plan   restore.Plan
	Result restore.Result
}

// restore runs a restore into a new directory.
func (o *origin) restore(t *testing.T, name string, args ...string) (directory string, out output) {
	t.Helper()
	directory = filepath.Join(o.work, name)
	text := o.walship(t, append([]string{"restore", "run", "--json", "--target-directory", directory}, args...)...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return directory, out
}

// verify runs pg_verifybackup on a directory that wasn't started yet. Recovery
// itself checks the WAL.
func (o *origin) verify(t *testing.T, directory string) {
	t.Helper()
	pgtest.MustRun(t, o.Tool(t.Context(), t, "pg_verifybackup", "--no-parse-wal", directory))
}

const rows = "SELECT coalesce(string_agg(name, ' ' ORDER BY id), '') FROM t"

// TestForks is fault 31 and rule 14: timelines three deep, each promoted from
// a restore that replaces its original.
func TestForks(t *testing.T) {
	o := newOrigin(t)
	o.Exec(t, "CREATE TABLE t (id serial, name text)", "INSERT INTO t (name) VALUES ('one')")
	first := o.backup(t, o.Cluster)
	o.Exec(t, "INSERT INTO t (name) VALUES ('one-more')")
	o.Archive(t)

	current, backups := o.Cluster, []string{first}
	for _, name := range []string{"two", "three", "four"} {
		current.Stop(t, pgtest.Fast)
		directory, out := o.restore(t, name, "--backup", first, "--replace", "--target-action", "promote")
		if len(out.Plan.Path) != len(backups) {
			t.Errorf("path to %s: %v, want %d timelines", name, out.Plan.Path, len(backups))
		}
		o.verify(t, directory)
		current = pgtest.Open(t, testMajor, directory)
		current.Start(t)
		current.WaitPromoted(t)
		current.Exec(t, fmt.Sprintf("INSERT INTO t (name) VALUES ('%s')", name))
		backups = append(backups, o.backup(t, current))
		current.Exec(t, fmt.Sprintf("INSERT INTO t (name) VALUES ('%s-more')", name))
		current.Archive(t)
	}
	current.Stop(t, pgtest.Fast)

	all := "one one-more two two-more three three-more four four-more"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"latest", nil, all},
		{"latest of the first backup", []string{"--backup", first}, all},
		{"third timeline of the second backup", []string{"--backup", backups[1], "--timeline", "3"}, "one one-more two two-more three three-more"},
		{"first timeline", []string{"--timeline", "1"}, "one one-more"},
		{"current of the third backup", []string{"--backup", backups[2], "--timeline", "current", "--immediate", "--target-action", "promote"}, "one one-more two two-more three"},
	} {
		directory, out := o.restore(t, "fork-"+strings.ReplaceAll(c.name, " ", "-"), c.args...)
		restored := pgtest.Open(t, testMajor, directory)
		restored.Start(t)
		restored.WaitPromoted(t)
		if got := restored.SQL(t, rows); got != c.want {
			t.Errorf("%s (timeline %d): rows %q, want %q", c.name, out.Plan.Timeline, got, c.want)
		}
		restored.Stop(t, pgtest.Fast)
	}
	for _, args := range [][]string{
		{"--backup", backups[3], "--timeline", "2"}, // of the future
		{"--backup", first, "--timeline", "7"},      // without a history file
	} {
		result := pgtest.Run(t, o.command(t, append([]string{"restore", "plan"}, args...)...))
		if result.Code != 4 {
			t.Errorf("restore plan %v: exit code %d, want 4\n%s", args, result.Code, result.Stderr)
		}
	}
}

// TestPlaces is faults 40 and 45 and rules 1, 4 and 7: tablespaces elsewhere,
// by location and by OID, one in place, a linked pg_wal, unlogged tables, and
// settings of the original that must not stay. The settings come from the
// environment, so the clone needs a settings file of its own.
func TestPlaces(t *testing.T) {
	o := newOrigin(t, pgtest.Set("allow_in_place_tablespaces", "on"), pgtest.Set("max_connections", "40"))
	first, second := pgtest.MkdirNobody(t, o.work, "first"), pgtest.MkdirNobody(t, o.work, "my second")
	o.Exec(t,
		"CREATE TABLESPACE first LOCATION '"+first+"'",
		"CREATE TABLESPACE second LOCATION '"+second+"'",
		"CREATE TABLESPACE inplace LOCATION ''",
		"CREATE TABLE a TABLESPACE first AS SELECT generate_series(1, 1000) AS id",
		"CREATE TABLE b TABLESPACE second AS SELECT generate_series(1, 100) AS id",
		"CREATE TABLE c TABLESPACE inplace AS SELECT generate_series(1, 10) AS id",
		"CREATE UNLOGGED TABLE u TABLESPACE first AS SELECT generate_series(1, 5) AS id",
	)
	o.Configure(t, "archive_cleanup_command", "touch "+o.work+"/cleaned")
	o.Configure(t, "recovery_end_command", "touch "+o.work+"/ended")
	o.Configure(t, "recovery_min_apply_delay", "1d")
	o.Configure(t, "synchronous_standby_names", "*")
	o.Configure(t, "synchronous_commit", "local")
	o.AppendConf(t, "recovery_target_name = 'of the original'")
	o.Stop(t, pgtest.Fast)
	o.Start(t)
	o.backup(t, o.Cluster)
	o.Exec(t, "INSERT INTO a VALUES (1001)", "INSERT INTO b VALUES (101)", "INSERT INTO c VALUES (11)")
	want := o.Dump(t, "postgres")
	lsn := o.SQL(t, "SELECT pg_current_wal_insert_lsn()")
	o.Exec(t, "DELETE FROM a", "DROP TABLE b")
	o.Archive(t)
	oid := o.SQL(t, "SELECT oid FROM pg_tablespace WHERE spcname = 'second'")
	archived := len(o.archived(t))

	// The original's tablespaces are where they were: unmapped they refuse.
	result := pgtest.Run(t, o.command(t, "restore", "run", "--to-lsn", lsn, "--exclusive", "--target-directory", filepath.Join(o.work, "clone")))
	if result.Code != 4 || !strings.Contains(result.Stderr, "isn't empty") {
		t.Errorf("unmapped tablespaces: exit code %d, %s", result.Code, result.Stderr)
	}
	o.env = []string{"WALSHIP_REPOSITORY=file://" + filepath.Join(o.work, "repository")}
	directory, out := o.restore(t, "clone", "--to-lsn", lsn, "--exclusive", "--waldir", filepath.Join(o.work, "clone-wal"),
		"--tablespace-map", first+"="+filepath.Join(o.work, "clone-first"), "--tablespace-map", oid+"="+filepath.Join(o.work, "clone second"))
	o.verify(t, directory)
	settings, err := os.ReadFile(filepath.Join(out.Result.StateDirectory, "walship.toml"))
	if err != nil || !strings.Contains(string(settings), "repository = ") {
		t.Errorf("the clone's settings file: %v\n%s", err, settings)
	}
	o.Stop(t, pgtest.Fast)
	if err := os.Rename(first, first+".away"); err != nil { // the clone must not use it
		t.Fatal(err)
	}

	clone := pgtest.Open(t, testMajor, directory)
	clone.Start(t)
	clone.WaitPaused(t)
	if got := clone.Dump(t, "postgres"); got != want {
		t.Errorf("the clone has\n%s\nwant\n%s", got, want)
	}
	clone.Promote(t)
	if got := clone.SQL(t, "SELECT count(*) FROM u"); got != "0" {
		t.Errorf("the unlogged table has %s rows", got)
	}
	for name, want := range map[string]string{"archive_mode": "off", "recovery_min_apply_delay": "0", "synchronous_standby_names": "",
		"archive_cleanup_command": "", "recovery_end_command": "", "max_connections": "40"} {
		if got := clone.SQL(t, "SHOW "+name); got != want {
			t.Errorf("%s of the clone is %q, want %q", name, got, want)
		}
	}
	clone.Exec(t, "CREATE TABLE d TABLESPACE second AS SELECT 1", "SELECT pg_switch_wal()", "CHECKPOINT")
	clone.Stop(t, pgtest.Fast)
	if got := len(o.archived(t)); got != archived {
		t.Errorf("%d files are in the archive after the clone ran, %d before", got, archived)
	}
	for _, trace := range []string{"cleaned", "ended"} {
		if _, err := os.Lstat(filepath.Join(o.work, trace)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the original's command ran in the clone: %v", err)
		}
	}
}

// archived lists the repository's WAL.
func (o *origin) archived(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(filepath.Join(o.work, "repository"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.Contains(path, "/wal/") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestConfigurationElsewhere is rule 6, configuration as Debian keeps it: the
// printed command starts the clone with its own copy, in its own directory.
func TestConfigurationElsewhere(t *testing.T) {
	o := newOrigin(t)
	etc := pgtest.MkdirNobody(t, o.work, "etc")
	pgtest.MkdirNobody(t, etc, "conf.d")
	o.Exec(t, "CREATE TABLE t (id serial, name text)", "INSERT INTO t (name) VALUES ('one')")
	o.Stop(t, pgtest.Fast)
	conf := filepath.Join(o.DataDir, "postgresql.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	pgtest.WriteNobody(t, filepath.Join(etc, "postgresql.conf"), string(text)+"\ndata_directory = '"+o.DataDir+"'\ninclude_dir = 'conf.d'\nwork_mem = '7MB'\n"+
		"unix_socket_directories = '"+o.SocketDir+"'\nlisten_addresses = ''\n")
	if err := errors.Join(os.Remove(conf), os.Symlink(filepath.Join(etc, "postgresql.conf"), conf)); err != nil {
		t.Fatal(err)
	}
	pgtest.MkdirNobody(t, o.DataDir, "conf.d")
	o.Start(t)
	o.backup(t, o.Cluster)
	o.Archive(t)
	o.Stop(t, pgtest.Fast)

	directory, out := o.restore(t, "clone")
	o.verify(t, directory)
	if _, err := os.Lstat(filepath.Join(directory, "postgresql.conf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("postgresql.conf was restored into the data directory: %v", err)
	}
	start := pgtest.Run(t, o.Command(t.Context(), t, "/bin/sh", "-c", out.Result.Start))
	defer func() {
		pgtest.Run(t, o.Tool(t.Context(), t, "pg_ctl", "-D", directory, "-m", "immediate", "stop"))
	}()
	log, err := os.ReadFile(filepath.Join(out.Result.StateDirectory, "server.log"))
	if start.Code != 0 || err != nil {
		t.Fatalf("%s: exit code %d: %s%s%s, %v", out.Result.Start, start.Code, start.Stdout, start.Stderr, log, err)
	}
	if strings.Contains(string(log), "could not") {
		t.Errorf("%s said:\n%s", out.Result.Start, log)
	}
	pgtest.WaitFor(t, "the end of recovery", func() bool { return o.SQL(t, "SELECT pg_is_in_recovery()") == "f" })
	for name, want := range map[string]string{"data_directory": directory, "work_mem": "7MB", "archive_mode": "off"} {
		if got := o.SQL(t, "SHOW "+name); got != want {
			t.Errorf("%s of the clone is %q, want %q", name, got, want)
		}
	}
	if got := o.SQL(t, rows); got != "one" {
		t.Errorf("rows %q", got)
	}
}

// TestDataDirectoryNamed: a postgresql.conf that names the original's data
// directory doesn't make the printed command start the original.
func TestDataDirectoryNamed(t *testing.T) {
	o := newOrigin(t)
	o.Exec(t, "CREATE TABLE t (id serial, name text)")
	o.AppendConf(t, "data_directory = '"+o.DataDir+"'\nunix_socket_directories = '"+o.SocketDir+"'\nlisten_addresses = ''\n")
	o.Restart(t)
	o.backup(t, o.Cluster)
	o.Archive(t)
	o.Stop(t, pgtest.Fast)
	directory, out := o.restore(t, "clone")
	start := pgtest.Run(t, o.Command(t.Context(), t, "/bin/sh", "-c", out.Result.Start))
	defer func() {
		for _, dir := range []string{directory, o.DataDir} {
			pgtest.Run(t, o.Tool(t.Context(), t, "pg_ctl", "-D", dir, "-m", "immediate", "stop"))
		}
	}()
	if start.Code != 0 {
		t.Fatalf("%s: exit code %d: %s%s", out.Result.Start, start.Code, start.Stdout, start.Stderr)
	}
	if got := o.SQL(t, "SHOW data_directory"); got != directory {
		t.Errorf("the server runs in %s, want %s", got, directory)
	}
	if !strings.Contains(strings.Join(out.Result.Next, "\n"), "names the original's data directory") {
		t.Errorf("what to do next doesn't say so: %q", out.Result.Next)
	}
}

// TestRaisedSettings is rule 5: settings that were raised behind the backup,
// and lowered again, don't stop recovery before its target.
func TestRaisedSettings(t *testing.T) {
	o := newOrigin(t, pgtest.Set("max_prepared_transactions", "0"))
	o.Exec(t, "CREATE TABLE t (id serial, name text)", "INSERT INTO t (name) VALUES ('one')")
	o.backup(t, o.Cluster)
	change := func(connections, prepared, row string) {
		o.Configure(t, "max_connections", connections)
		o.Configure(t, "max_prepared_transactions", prepared)
		o.Restart(t)
		o.SQL(t, "INSERT INTO t (name) VALUES ($1)", row)
	}
	change("300", "7", "raised")
	change("40", "0", "lowered")
	o.Archive(t)

	directory, out := o.restore(t, "latest")
	if len(out.Plan.Warnings) > 0 {
		t.Errorf("warnings %q", out.Plan.Warnings)
	}
	r := pgtest.Open(t, testMajor, directory)
	r.Start(t)
	r.WaitPromoted(t)
	if got := r.SQL(t, rows); got != "one raised lowered" {
		t.Errorf("rows %q", got)
	}
	for name, want := range map[string]string{"max_connections": "300", "max_prepared_transactions": "7"} {
		if got := r.SQL(t, "SHOW "+name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// TestHalfRestored is rule 2: without pg_control a directory isn't a cluster.
// A primary's backup doesn't start without its label either (fault 36).
func TestHalfRestored(t *testing.T) {
	o := newOrigin(t)
	o.Exec(t, "CREATE TABLE t (id serial, name text)")
	o.backup(t, o.Cluster)
	o.Archive(t)
	for _, c := range []struct{ name, without, log string }{
		{"control", "global/pg_control", "pg_control"},
		{"label", "backup_label", "could not locate"},
	} {
		directory, _ := o.restore(t, c.name)
		if err := os.Remove(filepath.Join(directory, c.without)); err != nil {
			t.Fatal(err)
		}
		log, code := pgtest.Open(t, testMajor, directory, pgtest.Set("restore_command", "false")).StartToEnd(t)
		if code == 0 || !strings.Contains(log, c.log) {
			t.Errorf("without %s the server ended with %d:\n%s", c.without, code, log)
		}
	}
}

// TestTargets stops at each kind of target, inclusive and exclusive.
func TestTargets(t *testing.T) {
	o := newOrigin(t)
	o.Exec(t, "CREATE TABLE t (id serial, name text)")
	o.backup(t, o.Cluster)
	var xids, names []string
	for _, name := range []string{"a", "b", "c", "d"} {
		xids = append(xids, o.SQL(t, "INSERT INTO t (name) VALUES ($1) RETURNING pg_current_xact_id()", name))
		o.SQL(t, "SELECT pg_create_restore_point($1)", "behind "+name)
		names = append(names, o.SQL(t, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')"))
	}
	o.Archive(t)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"a b", []string{"--to-xid", xids[1]}},
		{"a", []string{"--to-xid", xids[1], "--exclusive"}},
		{"a b c", []string{"--to-name", "behind c"}},
		{"a b", []string{"--to-time", names[1]}},
		{"a b c", []string{"--to-time", strings.Replace(names[2], " ", "T", 1), "--exclusive"}},
		{"", []string{"--immediate"}},
		{"a b c d", []string{"--to-latest"}},
	} {
		directory, out := o.restore(t, strings.NewReplacer(" ", "-", ":", "").Replace(strings.Join(c.args, "")), append(c.args, "--target-action", "promote")...)
		in := strings.Fields(c.want)
		for _, side := range []struct {
			what    string
			ending  *restore.Ending
			present bool
			at      int
		}{{"last in", out.Plan.LastIn, len(in) > 0, len(in) - 1}, {"first out", out.Plan.FirstOut, len(in) < len(xids), len(in)}} {
			if side.present && (side.ending == nil || fmt.Sprint(side.ending.XID) != xids[side.at]) || !side.present && side.what == "first out" && side.ending != nil {
				t.Errorf("%v: %s is %+v, want transaction %d of %v", c.args, side.what, side.ending, side.at, xids)
			}
		}
		if !out.Plan.Reachable || !out.Plan.Certified || !out.Plan.PreparedKnown || len(out.Plan.PendingPrepared) > 0 {
			t.Errorf("%v: promise %+v", c.args, out.Plan.Promise)
		}
		restored := pgtest.Open(t, testMajor, directory)
		restored.Start(t)
		restored.WaitPromoted(t)
		if got := restored.SQL(t, rows); got != c.want {
			t.Errorf("%v: rows %q, want %q", c.args, got, c.want)
		}
		restored.Stop(t, pgtest.Fast)
	}
	for _, args := range [][]string{{"--to-xid", "3"}, {"--to-time", "2020-01-01T00:00:00Z"}, {"--to-lsn", "FF/0"}} {
		result := pgtest.Run(t, o.command(t, slices.Concat([]string{"restore", "run", "--target-directory", filepath.Join(o.work, "never")}, args)...))
		if _, err := os.Lstat(filepath.Join(o.work, "never")); result.Code != 4 || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: exit code %d, want 4; directory %v\n%s", args, result.Code, err, result.Stderr)
		}
	}
}

// TestBeforeLoss restores to right before a table was dropped, and truncated:
// the last time each, without what came behind.
func TestBeforeLoss(t *testing.T) {
	o := newOrigin(t)
	o.Exec(t, "CREATE TABLE t (id serial, name text)", "INSERT INTO t (name) VALUES ('one')", "CREATE TABLE other (id int)")
	o.backup(t, o.Cluster)
	o.Exec(t, "INSERT INTO t (name) VALUES ('two')", "TRUNCATE t", "INSERT INTO t (name) VALUES ('three')",
		"TRUNCATE t", "INSERT INTO t (name) VALUES ('four')", "DROP TABLE other", "DROP TABLE t", "CREATE TABLE t (id serial, name text)")
	o.Archive(t)
	for _, c := range []struct{ flag, value, want string }{
		{"--before-drop", "public.t", "four"},
		{"--before-truncate", "T", "three"},
	} {
		directory, out := o.restore(t, strings.Trim(c.flag, "-"), c.flag, c.value, "--target-action", "promote")
		if !out.Plan.Certified || out.Plan.Stop == nil || !out.Plan.Stop.Before || out.Plan.FirstOut == nil || out.Plan.FirstOut.XID != out.Plan.Stop.XID {
			t.Errorf("%s: promise %+v", c.flag, out.Plan.Promise)
		}
		r := pgtest.Open(t, testMajor, directory)
		r.Start(t)
		r.WaitPromoted(t)
		if got := r.SQL(t, rows); got != c.want {
			t.Errorf("%s: rows %q, want %q", c.flag, got, c.want)
		}
		r.Stop(t, pgtest.Fast)
	}
	for args, code := range map[string]int{"--before-drop=nothing": 1, "--before-truncate=a.b.c": 2, "--before-drop=t --to-latest": 2} {
		result := pgtest.Run(t, o.command(t, append([]string{"restore", "plan"}, strings.Fields(args)...)...))
		if result.Code != code {
			t.Errorf("%s: exit code %d, want %d\n%s", args, result.Code, code, result.Stderr)
		}
	}
}
