//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestTwin is fault 25: of two copies of a cluster that archive into one
// repository, the second one is told, and can't take a backup with the WAL of
// the first.
func TestTwin(t *testing.T) {
	t.Parallel()
	site := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	first := site.cluster
	first.Exec(t, "CREATE TABLE t (id int)")
	first.Archive(t)
	first.Stop(t, pgtest.Fast)
	dir := filepath.Join(site.dir, "twin")
	pgtest.MustRun(t, pgtest.Command(t.Context(), t, 15, "cp", "-a", first.DataDir, dir))
	twin := pgtest.Open(t, 15, dir)
	first.Start(t)
	twin.Start(t)

	for range 8 { // far enough for all that a backup of the twin needs
		first.Exec(t, "INSERT INTO t VALUES (1)")
		first.Archive(t)
	}
	twin.Exec(t, "INSERT INTO t VALUES (2)")
	segment := twin.SwitchWAL(t)
	result := pgtest.Run(t, site.commandOn(t, twin, "backup", "push", "--wal-timeout", "3s"))
	if result.Code != 1 || !strings.Contains(result.Stderr, "this server's archive_command hasn't succeeded for it") {
		t.Errorf("a backup of the twin ended with %d and said %s", result.Code, result.Stderr)
	}
	twin.WaitLog(t, "exit code 20")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	twin.WaitLog(t, fmt.Sprintf("another server, on a host of this name (%q), archives timeline 1", host))
	if list := site.walship(t, "backup", "list", "--json").Stdout; strings.Contains(list, `"id"`) {
		t.Errorf("a backup is listed: %s", list)
	}
	if got := twin.SQL(t, "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name = $1", segment+".ready"); got != "1" {
		t.Errorf("segment %s of the twin doesn't wait to be archived", segment)
	}
}
