//go:build integration

package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestPlaces is fault 40 and rules 1 and 7, from a cluster whose pg_wal is a
// link: tablespaces go where they are mapped, every directory is there again,
// and nothing is left over that would undo the mapping.
func TestPlaces(t *testing.T) {
	t.Parallel()
	const major = pgtest.Major(18)
	elsewhere := pgtest.WorkDir(t)
	site := newSite(t, major, siteOptions{encrypted: true, cluster: []pgtest.Option{
		pgtest.SegmentSize(1), pgtest.InitArgs("--waldir", filepath.Join(elsewhere, "wal")), pgtest.Set("allow_in_place_tablespaces", "on")}})
	c := site.cluster
	if info, err := os.Lstat(filepath.Join(c.DataDir, "pg_wal")); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Fatalf("pg_wal of the source isn't a link: %v, %v", info, err)
	}
	places := map[string]string{} // old to new
	for _, name := range []string{"first", "second with = and space"} {
		places[pgtest.MkdirNobody(t, elsewhere, name)] = filepath.Join(elsewhere, "new "+name)
	}
	pgtest.MkdirNobody(t, c.DataDir, "empty")
	pgtest.MkdirNobody(t, c.DataDir, "empty", "in it")
	c.Exec(t, schema...)
	for old := range places {
		name := filepath.Base(old)[:5]
		c.Exec(t,
			"CREATE TABLESPACE "+name+" LOCATION '"+old+"'",
			"CREATE TABLE in_"+name+" TABLESPACE "+name+" AS SELECT generate_series(1, 1000) AS id",
			"CREATE INDEX ON in_"+name+" (id) TABLESPACE "+name,
			"CREATE UNLOGGED TABLE fleeting_"+name+" TABLESPACE "+name+" AS SELECT generate_series(1, 1000) AS id")
	}
	c.Exec(t,
		"CREATE TABLESPACE in_place LOCATION ''",
		"CREATE TABLE in_in_place TABLESPACE in_place AS SELECT generate_series(1, 1000) AS id")
	site.backup(t, c)
	c.Exec(t, "DELETE FROM in_first WHERE id % 2 = 0", "INSERT INTO in_in_place VALUES (0)")
	want, directories := c.Dump(t, "postgres"), directoriesOf(t, c.DataDir)
	c.Archive(t)

	var flags []string
	for old, to := range places {
		flags = append(flags, "--tablespace-map", strings.ReplaceAll(old, "=", `\=`)+"="+strings.ReplaceAll(to, "=", `\=`))
	}
	restored := site.restore(t, "restored", flags...)
	for _, gone := range []string{"tablespace_map", "tablespace_map.old"} {
		if _, err := os.Lstat(filepath.Join(restored.DataDir, gone)); err == nil {
			t.Errorf("%s is in the restored directory", gone)
		}
	}
	there := directoriesOf(t, restored.DataDir)
	for _, dir := range directories {
		if !slices.Contains(there, dir) {
			t.Errorf("directory %s isn't in the restored cluster", dir)
		}
	}
	// The old places are gone: what works without them doesn't use them.
	c.Stop(t, pgtest.Fast)
	for old := range places {
		if err := os.Rename(old, old+" gone"); err != nil {
			t.Fatal(err)
		}
	}
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
	located := restored.SQL(t, "SELECT string_agg(pg_tablespace_location(oid), '|' ORDER BY spcname) FROM pg_tablespace WHERE spcname IN ('first', 'secon')")
	if wanted := filepath.Join(elsewhere, "new first") + "|" + filepath.Join(elsewhere, "new second with = and space"); located != wanted {
		t.Errorf("the tablespaces are in %s, want %s", located, wanted)
	}
	if got := restored.SQL(t, "SELECT (SELECT count(*) FROM fleeting_first) + (SELECT count(*) FROM fleeting_secon) + (SELECT count(*) FROM sessions)"); got != "0" {
		t.Errorf("the unlogged tables have %s rows", got)
	}
	site.amcheck(t, restored)
	restored.Exec(t, "CREATE TABLE new TABLESPACE in_place AS SELECT 1", "INSERT INTO fleeting_first VALUES (1)", "CHECKPOINT")
}

// directoriesOf lists the directories of a cluster, those behind links too,
// without the ones that sort and hash for a query.
func directoriesOf(t *testing.T, dataDir string) []string {
	t.Helper()
	var all []string
	var walk func(name string)
	walk = func(name string) {
		entries, err := os.ReadDir(filepath.Join(dataDir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			path := filepath.Join(name, entry.Name())
			// Links are those of tablespaces and of pg_wal.
			if info, err := os.Stat(filepath.Join(dataDir, path)); err == nil && info.IsDir() && entry.Name() != "pgsql_tmp" {
				all = append(all, path)
				walk(path)
			}
		}
	}
	walk("")
	return all
}
