//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestCreatedTablespace is fault 44. A tablespace that was created since the
// backup is made in the same place by the recovery: beside the original, that
// would write into the original's files.
func TestCreatedTablespace(t *testing.T) {
	t.Parallel()
	site := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	c := site.cluster
	site.backup(t, c)
	place := pgtest.MkdirNobody(t, site.dir, "created since")
	before := c.SQL(t, "SELECT pg_current_wal_lsn()")
	c.Exec(t,
		"CREATE TABLESPACE since LOCATION '"+place+"'",
		"CREATE TABLE in_since TABLESPACE since AS SELECT generate_series(1, 1000) AS id")
	want := c.Dump(t, "postgres")
	c.Archive(t)

	target := filepath.Join(site.dir, "restored")
	if got := site.walship(t, "restore", "plan", "--target-directory", target).Stdout; !strings.Contains(got, "tablespace in "+place) {
		t.Errorf("the plan doesn't name the tablespace: %s", got)
	}
	result := site.try(t, "restore", "run", "--target-directory", target)
	if result.Code != 4 || !strings.Contains(result.Stderr, place+", as the original did since the backup began, and that isn't empty") {
		t.Errorf("restore run ended with %d and said %s", result.Code, result.Stderr)
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("the refused restore made the target directory")
	}
	earlier := site.restore(t, "earlier", "--exclusive", "--to-lsn", before, "--target-action", "promote")
	earlier.Start(t)
	earlier.WaitPromoted(t)

	// Where the place is free, the recovery makes the tablespace.
	c.Stop(t, pgtest.Fast)
	if err := os.Rename(place, place+" of the original"); err != nil {
		t.Fatal(err)
	}
	pgtest.MkdirNobody(t, place)
	restored := site.restore(t, "restored")
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
}
