//go:build integration

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// carrier is a role that may do nothing but replicate.
const carrier = "CREATE ROLE carrier LOGIN REPLICATION"

// remotely are the arguments of a backup through the replication protocol, as
// that role.
func remotely(c *pgtest.Cluster, more ...string) []string {
	conninfo := strings.Replace(c.ConnString("postgres"), "user=postgres", "user=carrier", 1)
	return append([]string{"backup", "push", "--remote", "--postgres-connection", conninfo}, more...)
}

// TestRemote takes a backup of a busy server that doesn't archive, from a
// place that can't see its data directory. Restored, it starts with the WAL
// that was streamed along, and nothing else.
func TestRemote(t *testing.T) {
	t.Parallel()
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			site := newSite(t, major, siteOptions{encrypted: major%2 == 0, cluster: []pgtest.Option{
				pgtest.SegmentSize(1), pgtest.Checksums(true), pgtest.Set("archive_mode", "off")}})
			c := site.cluster
			old := pgtest.MkdirNobody(t, site.dir, "space")
			c.Exec(t, append(schema, carrier, "CREATE TABLESPACE space LOCATION '"+old+"'",
				"CREATE TABLE moved TABLESPACE space AS SELECT generate_series(1, 1000) AS id",
				"CREATE UNLOGGED TABLE fleeting TABLESPACE space AS SELECT generate_series(1, 1000) AS id")...)
			want := c.SQL(t, "SELECT md5(string_agg(o::text, '|' ORDER BY id)) FROM orders o")
			stop := pgbench(t, c)
			refused := site.try(t, remotely(c)...)
			if refused.Code != 1 || !strings.Contains(refused.Stderr, "--with-wal") {
				t.Errorf("without WAL: exit code %d, %s", refused.Code, refused.Stderr)
			}
			result := site.walship(t, remotely(c, "--with-wal", "--manifest-checksums", "SHA256")...)
			stop()
			if strings.Contains(result.Stderr, "WARN") {
				t.Errorf("the backup warns: %s", result.Stderr)
			}
			if left, _ := filepath.Glob(filepath.Join(site.dir, "state", "streams", "*")); len(left) > 0 {
				t.Errorf("the stream left %v", left)
			}
			if n := c.SQL(t, "SELECT count(*) FROM pg_replication_slots"); n != "0" {
				t.Errorf("%s slots are left", n)
			}
			c.Stop(t, pgtest.Fast)

			restored := site.restore(t, "restored", "--to-latest", "--tablespace-map", old+"="+filepath.Join(site.dir, "new"))
			restored.Start(t)
			restored.WaitPromoted(t)
			if got := restored.SQL(t, "SELECT md5(string_agg(o::text, '|' ORDER BY id)) FROM orders o"); got != want {
				t.Error("the restored rows differ")
			}
			// pgbench adds the same to one row of each of these.
			if got := restored.SQL(t, `SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
				AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history), count(*) > 0 FROM pgbench_history`); got != "t|t" {
				t.Errorf("the restored database is inconsistent: %s", got)
			}
			if got := restored.SQL(t, "SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM fleeting), (SELECT count(*) FROM sessions)"); got != "1000|0|0" {
				t.Errorf("the tables have %s rows", got)
			}
			site.amcheck(t, restored)
		})
	}
}

// TestRemoteArchived takes the backup's WAL from the archive, in several parts'
// size of data, and says what the server finds of bad pages (fault 35).
func TestRemoteArchived(t *testing.T) {
	t.Parallel()
	site := newSite(t, 16, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1), pgtest.Checksums(true)}})
	c := site.cluster
	c.Exec(t, append(schema, carrier, "CREATE TABLE damaged AS SELECT generate_series(1, 1000) AS id", "CHECKPOINT")...)
	site.walship(t, remotely(c)...)
	c.Exec(t, "DELETE FROM customers WHERE id % 3 = 0")
	want := c.Dump(t, "postgres")
	c.Archive(t)
	restored := site.restore(t, "restored", "--to-latest")
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
	site.amcheck(t, restored)

	c.Exec(t, "CHECKPOINT") // or what the queries marked would be written over it
	file := c.SQL(t, "SELECT pg_relation_filepath('damaged')")
	flip(t, filepath.Join(c.DataDir, file), 2*8192+4321)
	result := site.try(t, remotely(c)...)
	if result.Code != 3 || !strings.Contains(result.Stdout, file+`", block 2`) {
		t.Errorf("a bad page: exit code %d\n%s%s", result.Code, result.Stdout, result.Stderr)
	}
	if result = site.try(t, remotely(c, "--no-verify-checksums")...); result.Code != 0 {
		t.Errorf("without verification: exit code %d\n%s", result.Code, result.Stderr)
	}
}

// TestRemoteEnds is faults 10 and 37 for a backup that the server sends: what
// is killed in the middle, walship or the server, leaves nothing that is
// listed, and no slot.
func TestRemoteEnds(t *testing.T) {
	t.Parallel()
	site := newSite(t, 18, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1), pgtest.Set("archive_mode", "off")}})
	c := site.cluster
	c.Exec(t, append(schema, carrier)...)
	begin := func() *exec.Cmd {
		cmd := site.command(t, remotely(c, "--with-wal", "--backup-max-rate", "1MB")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pgtest.WaitFor(t, "the backup to be sent", func() bool {
			return c.SQL(t, "SELECT count(*) FROM pg_stat_progress_basebackup WHERE phase = 'streaming database files'") == "1"
		})
		return cmd
	}
	cmd := begin()
	// walship is the program that the command has become.
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a backup that was killed succeeded")
	}
	pgtest.WaitFor(t, "the server to give up", func() bool {
		return c.SQL(t, "SELECT (SELECT count(*) FROM pg_stat_replication) + (SELECT count(*) FROM pg_replication_slots)") == "0"
	})
	cmd = begin()
	c.Kill(t)
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("a backup whose server was killed ended with %v", err)
	}
	if list := site.walship(t, "backup", "list", "--json").Stdout; strings.Contains(list, `"id"`) {
		t.Errorf("a backup is listed: %s", list)
	}
}
