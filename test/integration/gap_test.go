//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestGap is fault 43: a restore to the end of the WAL doesn't end before a gap
// unasked; where it says that it would end, it does.
func TestGap(t *testing.T) {
	t.Parallel()
	site := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	c := site.cluster
	c.Exec(t, "CREATE TABLE t (id serial, name text)")
	site.backup(t, c)
	names := segments(t, c, "row", 3)
	c.Archive(t)
	objects, err := filepath.Glob(filepath.Join(site.dir, "repository", "*", "wal", "*", names[1]+".zst"))
	if err != nil || len(objects) != 1 {
		t.Fatalf("the object of %s: %v, %v", names[1], objects, err)
	}
	if err := os.Remove(objects[0]); err != nil {
		t.Fatal(err)
	}
	never := filepath.Join(site.dir, "never")
	result := site.try(t, "restore", "run", "--target-directory", never)
	advice := regexp.MustCompile(`(?m)^walship: .*WAL segment ` + names[1] + ` isn't in the repository, though later ones .*; else (--to-latest) ends before it, and (--to-lsn \S+) right behind that commit`).FindStringSubmatch(result.Stderr)
	if _, err := os.Lstat(never); result.Code != 4 || advice == nil || err == nil {
		t.Fatalf("restore run: exit code %d, directory made: %v\n%s", result.Code, err == nil, result.Stderr)
	}
	if n := strings.Count(result.Stdout+result.Stderr, names[1]+" isn't in the repository"); n != 1 {
		t.Errorf("restore run gives the reason %d times, not once\n%s%s", n, result.Stdout, result.Stderr)
	}
	for i, flags := range advice[1:] {
		restored := site.restore(t, []string{"latest", "commit"}[i], strings.Fields(flags)...)
		restored.Start(t)
		if i == 0 {
			restored.WaitPromoted(t)
		} else {
			restored.WaitPaused(t)
		}
		if got := restored.SQL(t, rows); got != "row0" {
			t.Errorf("%s: rows %q, want row0", flags, got)
		}
		restored.Stop(t, pgtest.Fast)
	}
}
