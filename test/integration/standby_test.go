//go:build integration

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// standbyOf restores the site's newest backup as a standby that follows its
// cluster.
func standbyOf(t *testing.T, site *site) *pgtest.Cluster {
	t.Helper()
	c := site.cluster
	site.walship(t, "restore", "run", "--target-directory", filepath.Join(site.dir, "standby"), "--to-latest")
	standby := pgtest.Open(t, c.Major, filepath.Join(site.dir, "standby"), pgtest.Env(site.env...),
		pgtest.Set("primary_conninfo", "host="+c.SocketDir+" user=postgres"))
	pgtest.WriteNobody(t, filepath.Join(standby.DataDir, "standby.signal"), "")
	standby.Start(t)
	pgtest.WaitFor(t, "the standby to stream", func() bool {
		return c.SQL(t, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
	})
	return standby
}

// TestStandby is rule 23: backups of a standby whose primary is busy, read from
// its data directory and sent by it, restore to the primary's rows.
func TestStandby(t *testing.T) {
	t.Parallel()
	majors := []pgtest.Major{14, 18}
	if full() {
		majors = pgtest.Majors()
	}
	for _, major := range majors {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			site := newSite(t, major, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1), pgtest.Checksums(true)}})
			c := site.cluster
			c.Exec(t, append(schema, carrier)...)
			site.backup(t, c)
			standby := standbyOf(t, site)
			stop := pgbench(t, c)
			primary := c.ConnString("postgres")
			ways := map[string][]string{
				"of its files": {"backup", "push", "--primary", primary, "--json"},
				"sent":         remotely(standby, "--primary", primary, "--json"),
				"with its WAL": remotely(standby, "--primary", primary, "--with-wal", "--json"),
			}
			ids := map[string]string{}
			for name, args := range ways {
				ids[name] = backupID(t, pgtest.MustRun(t, site.commandOn(t, standby, args...)))
			}
			stop()
			want := c.Dump(t, "postgres")
			c.Archive(t)
			standby.Stop(t, pgtest.Fast)
			for name, id := range ids {
				restored := site.restore(t, name, "--backup", id, "--to-latest")
				restored.Start(t)
				restored.WaitPromoted(t)
				if got := restored.Dump(t, "postgres"); got != want {
					t.Errorf("the database restored from a backup %s differs:\n%s", name, diff(t, want, got))
				}
				site.amcheck(t, restored)
				restored.Stop(t, pgtest.Fast)
			}
		})
	}
}

// TestStandbyPromoted is fault 39: a standby that is promoted during a backup
// from it, and the backup of one whose primary ends no segment.
func TestStandbyPromoted(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"of its files", "sent"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			site := newSite(t, 17, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
			c := site.cluster
			c.Exec(t, append(schema, carrier)...)
			first := site.backup(t, c)
			standby := standbyOf(t, site)
			c.Exec(t, "INSERT INTO customers (name) VALUES ('waits in the current segment')", "CHECKPOINT")
			standby.Exec(t, "CHECKPOINT")
			begin := func(more ...string) *exec.Cmd {
				args := []string{"backup", "push"}
				if way == "sent" {
					args = remotely(standby)
				}
				return site.commandOn(t, standby, append(args, more...)...)
			}
			result := pgtest.Run(t, begin("--wal-timeout", "1s"))
			if result.Code != 1 || !strings.Contains(result.Stderr, "pg_switch_wal()") {
				t.Errorf("without the primary: exit code %d, %s", result.Code, result.Stderr)
			}

			cmd := begin("--backup-max-rate", "5MB")
			var said strings.Builder
			cmd.Stderr = &said
			folders := func() int {
				all, _ := filepath.Glob(filepath.Join(site.dir, "repository", "*", "parts", "*", "start.json"))
				return len(all)
			}
			before := folders()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pgtest.WaitFor(t, "the backup to begin", func() bool { return folders() > before })
			standby.Promote(t)
			if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said.String(), "promoted") {
				t.Errorf("a backup during a promotion: %v, %s", err, said.String())
			}
			if list := site.walship(t, "backup", "list", "--json").Stdout; strings.Count(list, `"id"`) != 1 || !strings.Contains(list, first) {
				t.Errorf("the backups are %s", list)
			}
		})
	}
}
