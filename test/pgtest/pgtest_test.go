//go:build integration

package pgtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// each runs a test on every major.
func each(t *testing.T, test func(t *testing.T, major Major)) {
	for _, major := range Majors() {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			test(t, major)
		})
	}
}

var schema = []string{
	`CREATE TABLE "odd name" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, UNIQUE (body))`,
	`INSERT INTO "odd name" (body) SELECT 'row ' || i FROM generate_series(1, 100) i`,
	`CREATE VIEW few AS SELECT * FROM "odd name" WHERE id < 10`,
	`CREATE UNLOGGED TABLE lost AS SELECT 1 AS one`,
	`CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * i'`,
	`CREATE TYPE colour AS ENUM ('red', 'green')`,
}

func TestCluster(t *testing.T) {
	each(t, func(t *testing.T, major Major) {
		c := New(t, major, SegmentSize(1), Checksums(false), Set("wal_level", "logical"))
		c.Start(t)
		if got := c.SQL(t, "SHOW server_version_num"); !strings.HasPrefix(got, major.String()) {
			t.Errorf("server_version_num = %s", got)
		}
		for name, want := range map[string]string{"wal_segment_size": "1MB", "data_checksums": "off", "wal_level": "logical", "fsync": "off", "listen_addresses": ""} {
			if got := c.SQL(t, "SHOW "+name); got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
		if got := c.SQL(t, "SELECT $1::int + 1, NULL, 'a'", 41); got != `42|\N|a` {
			t.Errorf("SQL = %q", got)
		}
		if info, err := os.Stat(c.DataDir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the data directory: %v, %v", info, err)
		}
		if c.HasTool("pg_dump") != (major == 15 || major >= 17) {
			t.Errorf("HasTool(pg_dump) = %v", c.HasTool("pg_dump"))
		}
		if c.HasTool("pg_dump") {
			out := MustRun(t, c.Tool(t.Context(), t, "psql", "-AtX", "-c", "SELECT current_user"))
			if out != "postgres\n" {
				t.Errorf("psql printed %q", out)
			}
		}
	})
}

// Each cluster has a system identifier of its own, which its WAL has, too.
func TestIdentifiers(t *testing.T) {
	each(t, func(t *testing.T, major Major) {
		seen := map[string]bool{}
		for range 2 {
			c := New(t, major, SegmentSize(1))
			c.Start(t)
			id := c.SQL(t, "SELECT system_identifier FROM pg_control_system()")
			if seen[id] {
				t.Errorf("two clusters have the system identifier %s", id)
			}
			seen[id] = true
			c.Stop(t, Fast)
		}
	})
}

// A dump has to differ whenever anything differs that a restore brings back,
// and must not otherwise.
func TestDump(t *testing.T) {
	each(t, func(t *testing.T, major Major) {
		c := New(t, major)
		c.Start(t)
		c.Exec(t, schema...)
		before := c.Dump(t, "postgres")
		for _, text := range []string{"odd name", "row 100", "few", "lost", "twice", "colour"} {
			if !strings.Contains(before, text) {
				t.Errorf("the dump doesn't mention %q:\n%s", text, before)
			}
		}
		// A killed server loses unlogged rows and skips values of sequences.
		c.Kill(t)
		c.Start(t)
		if got := c.Dump(t, "postgres"); got != before {
			t.Errorf("after a crash, the dump is\n%s\nbefore, it was\n%s", got, before)
		}
		if got := c.SQL(t, "SELECT count(*) FROM lost"); got != "0" {
			t.Errorf("the unlogged table has %s rows after a crash", got)
		}
		if got := c.Sequences(t, "postgres"); len(got) != 1 || got[`public."odd name_id_seq"`] < 100 {
			t.Errorf("Sequences = %v", got)
		}
		last := before
		for _, change := range []string{
			`UPDATE "odd name" SET body = 'other' WHERE id = 50`,
			`DELETE FROM "odd name" WHERE id = 100`,
			`CREATE OR REPLACE VIEW few AS SELECT * FROM "odd name" WHERE id < 11`,
			`ALTER TABLE "odd name" ALTER body SET NOT NULL`,
			`CREATE INDEX ON "odd name" (id, body)`,
			`ALTER TABLE "odd name" ADD CHECK (id > 0)`,
			`CREATE OR REPLACE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i + i'`,
			`ALTER TYPE colour ADD VALUE 'blue'`,
			`GRANT SELECT ON few TO PUBLIC`,
			`COMMENT ON TABLE "odd name" IS 'about it'`,
			`CREATE SEQUENCE counter INCREMENT 7`,
			`SELECT lo_from_bytea(0, 'large')`,
			`DROP VIEW few`,
		} {
			c.Exec(t, change)
			now := c.Dump(t, "postgres")
			if now == last {
				t.Errorf("the dump doesn't show: %s", change)
			}
			last = now
		}
	})
}

func TestArchive(t *testing.T) {
	each(t, func(t *testing.T, major Major) {
		store := MkdirNobody(t, WorkDir(t), "wal")
		c := New(t, major, Env("WAL_STORE="+store), Set("archive_mode", "on"), Set("archive_command", `cp %p "$WAL_STORE/%f"`))
		c.Start(t)
		for range 2 {
			c.Exec(t, "SELECT txid_current()")
			name := c.Archive(t)
			if got, err := os.ReadFile(filepath.Join(store, name)); err != nil || len(got) != 16<<20 {
				t.Errorf("archived segment %s: %d bytes, %v", name, len(got), err)
			}
		}
		c.Configure(t, "archive_command", "exit 3")
		WaitFor(t, "a failure", func() bool {
			c.SwitchWAL(t)
			c.Exec(t, "SELECT txid_current()")
			return c.SQL(t, "SELECT failed_count > 0 FROM pg_stat_archiver") == "t"
		})
		c.WaitLog(t, "exit code 3")
	})
}

// A copy of the stopped server is opened, recovers from the original's WAL,
// pauses at its target, and is promoted.
func TestOpen(t *testing.T) {
	each(t, func(t *testing.T, major Major) {
		c := New(t, major)
		c.Start(t)
		c.Exec(t, "CREATE TABLE t AS SELECT 1 AS one")
		c.Stop(t, Fast)
		copied := filepath.Join(c.Dir, "copy")
		MustRun(t, c.Command(t.Context(), t, "/bin/cp", "-a", c.DataDir, copied))
		WriteNobody(t, filepath.Join(copied, "recovery.signal"), "")
		c.Start(t)
		c.Exec(t, "SELECT pg_create_restore_point('here')", "DROP TABLE t")
		c.Stop(t, Fast)

		restored := Open(t, major, copied,
			Set("restore_command", "cp "+c.DataDir+"/pg_wal/%f %p"), Set("recovery_target_name", "here"))
		restored.Start(t)
		restored.WaitPaused(t)
		if got := restored.SQL(t, "SELECT one FROM t"); got != "1" {
			t.Errorf("the copy has %q", got)
		}
		restored.Promote(t)
		restored.Exec(t, "INSERT INTO t VALUES (2)")
		restored.Restart(t)
		if got := restored.SQL(t, "SELECT timeline_id FROM pg_control_checkpoint()"); got != "2" {
			t.Errorf("the timeline is %s", got)
		}

		// A target that never comes is fatal, and PostgreSQL says so.
		c.AppendConf(t, "hot_standby = 'off'\nrestore_command = 'false'\nrecovery_target_name = 'never'\n")
		WriteNobody(t, filepath.Join(c.DataDir, "recovery.signal"), "")
		log, code := c.StartToEnd(t)
		if code == 0 || !strings.Contains(log, "recovery ended before configured recovery target was reached") {
			t.Errorf("exit code %d, and it printed:\n%s", code, log)
		}
		if c.Running() {
			t.Error("Running after the end")
		}
	})
}

func TestCommand(t *testing.T) {
	t.Setenv("SECRET_OF_THE_TEST", "x")
	each(t, func(t *testing.T, major Major) {
		dir := WorkDir(t)
		cmd := Command(t.Context(), t, major, "/bin/sh", "-c", `id -u; pwd; echo "$SECRET_OF_THE_TEST$EXTRA"; touch made; echo oops >&2; exit 7`)
		cmd.Dir = dir
		cmd.Env = append(cmd.Env, "EXTRA=more")
		got := Run(t, cmd)
		want := Result{Stdout: "65534\n" + dir + "\nmore\n", Stderr: "oops\n", Code: 7}
		if got != want {
			t.Errorf("Run = %+v, want %+v", got, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "made")); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(mounts, []byte(major.cacheDir())) || bytes.Contains(mounts, []byte(major.mountPoint())) {
			t.Errorf("something stayed mounted:\n%s", mounts)
		}
	})
}

func TestStragglers(t *testing.T) {
	each(t, func(t *testing.T, major Major) {
		dir := WorkDir(t)
		cmd := Command(t.Context(), t, major, "/bin/sleep", "60")
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var found []process
		WaitFor(t, "the command", func() bool {
			found = runningIn(dir)
			return len(found) == 1 && strings.Contains(found[0].command(), "sleep 60") && !strings.Contains(found[0].command(), "setpriv")
		})
		if found[0].pid != cmd.Process.Pid {
			t.Errorf("found process %d, started %d", found[0].pid, cmd.Process.Pid)
		}
		found[0].kill()
		if err := cmd.Wait(); err == nil {
			t.Error("the killed command succeeded")
		}
		start := time.Now()
		if left := stragglers(dir); len(left) != 0 || time.Since(start) > time.Second {
			t.Errorf("stragglers = %v after %v", left, time.Since(start))
		}
	})
}

func TestBuildWalship(t *testing.T) {
	walship := BuildWalship(t)
	each(t, func(t *testing.T, major Major) {
		if out := MustRun(t, Command(t.Context(), t, major, walship, "--help")); !strings.Contains(out, "walship") {
			t.Errorf("walship --help printed %q", out)
		}
	})
	if again := BuildWalship(t); again != walship {
		t.Errorf("built %s, then %s", walship, again)
	}
}
