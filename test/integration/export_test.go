//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestExport writes a backup as a plain data directory. It passes
// pg_verifybackup with the WAL in it, and starts without a setting of walship's.
func TestExport(t *testing.T) {
	t.Parallel()
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			site := newSite(t, major, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
			c := site.cluster
			old := pgtest.MkdirNobody(t, site.dir, "space")
			c.Exec(t, append(schema, "CREATE TABLESPACE space LOCATION '"+old+"'",
				"CREATE TABLE moved TABLESPACE space AS SELECT generate_series(1, 1000) AS id")...)
			want := c.Dump(t, "postgres")
			id := site.backup(t, c)
			c.Exec(t, "DROP TABLE moved")

			target := filepath.Join(site.dir, "exported")
			args := []string{"backup", "export", "--to-dir", target, "--tablespace-map", old + "=" + filepath.Join(site.dir, "new"), id}
			if result := site.try(t, "backup", "export", "--to-dir", c.DataDir, id); result.Code != 4 {
				t.Errorf("over a running cluster: exit code %d, %s", result.Code, result.Stderr)
			}
			site.walship(t, args...)
			if _, err := os.Lstat(target + ".walship"); err == nil {
				t.Error("something lies beside the export")
			}
			for _, name := range []string{"recovery.signal", "tablespace_map"} {
				if _, err := os.Lstat(filepath.Join(target, name)); err == nil {
					t.Errorf("the export has a %s", name)
				}
			}
			if c.HasTool("pg_verifybackup") {
				pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_verifybackup", target))
			}
			c.Stop(t, pgtest.Fast)
			exported := pgtest.Open(t, major, target)
			exported.Start(t)
			if got := exported.Dump(t, "postgres"); got != want {
				t.Errorf("the exported database differs:\n%s", diff(t, want, got))
			}
			if got := exported.SQL(t, "SELECT pg_is_in_recovery(), current_setting('archive_mode'), current_setting('restore_command')"); got != "f|off|" {
				t.Errorf("recovery, archive_mode and restore_command are %s", got)
			}
			site.amcheck(t, exported)
			if result := site.try(t, args...); result.Code != 4 || !strings.Contains(result.Stderr, "server runs in") {
				t.Errorf("a second time: exit code %d, %s", result.Code, result.Stderr)
			}
		})
	}
}
