//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// clusterRecipe is part of the name of what is kept: another one, another
// cluster.
const clusterRecipe = 1

// smallRelations is how many tables of one page the cluster has beside the
// large ones.
const smallRelations = 20_000

// sample is a cluster to take backups of, and where its tablespaces are.
type sample struct {
	cluster     *pgtest.Cluster
	tablespaces map[string]string // directory by name
	changes     int64             // how often a part of it was changed
}

// spaces are the cluster's tablespaces: pgbench's tables, and their indexes.
func spaces() []string { return []string{"tables", "indexes"} }

// newSample unpacks a cluster of that many GiB, making it first if the tests'
// cache has none, and starts it.
func newSample(ctx context.Context, t *testing.T, gibibytes int, options ...pgtest.Option) *sample {
	t.Helper()
	archive := filepath.Join(cacheDir(t), fmt.Sprintf("cluster-%d-%d.tar.zst", gibibytes, clusterRecipe))
	if _, err := os.Stat(archive); errors.Is(err, fs.ErrNotExist) {
		progress("making a cluster of %d GiB with pgbench, once", gibibytes)
		makeSample(ctx, t, archive, gibibytes)
	} else if err != nil {
		t.Fatal(err)
	}
	dir := pgtest.WorkDir(t)
	tar(t, "--use-compress-program=zstd", "-xf", archive, "-C", dir)
	s := &sample{tablespaces: map[string]string{}}
	relink(t, dir, s.tablespaces)
	s.cluster = pgtest.Open(t, major, filepath.Join(dir, "data"), options...)
	s.cluster.Start(t)
	return s
}

// relink makes the links to tablespaces, which were archived without.
func relink(t *testing.T, dir string, locations map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "spaces"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		oid, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		link := filepath.Join(dir, "data/pg_tblspc", oid)
		locations[name] = filepath.Join(dir, name)
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.Symlink(locations[name], link); err != nil {
			t.Fatal(err)
		}
	}
}

// makeSample fills a cluster with data checksums with pgbench's tables, has
// pgbench work on them, and adds the small relations.
func makeSample(ctx context.Context, t *testing.T, archive string, gibibytes int) {
	t.Helper()
	c := pgtest.New(t, major, pgtest.Checksums(true), pgtest.Set("shared_buffers", "512MB"), pgtest.Set("max_wal_size", "2GB"),
		pgtest.Set("min_wal_size", "80MB"), pgtest.Set("wal_recycle", "off"))
	c.Start(t)
	for _, name := range spaces() {
		c.Exec(t, "CREATE TABLESPACE "+name+" LOCATION '"+pgtest.MkdirNobody(t, c.Dir, name)+"'")
	}
	const scaleOfGibibyte = 68 // with indexes
	pgtest.MustRun(t, c.Tool(ctx, t, "pgbench", "-i", "-q", "-s", fmt.Sprint(gibibytes*scaleOfGibibyte), "--tablespace=tables", "--index-tablespace=indexes"))
	pgtest.MustRun(t, c.Tool(ctx, t, "pgbench", "-n", "-c", "4", "-j", "2", "-t", "10000"))
	const atOnce = 1000 // in a transaction, each takes a lock
	for from := range smallRelations / atOnce {
		c.Exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
			EXECUTE format('CREATE TABLE small_%%s AS SELECT g, random() FROM generate_series(1, 50) g', %d + i);
		END LOOP; END $$`, atOnce, from*atOnce))
	}
	list := c.SQL(t, "SELECT string_agg(oid || ' ' || spcname, E'\n') FROM pg_tablespace WHERE spcname NOT LIKE 'pg%'")
	pgtest.WriteNobody(t, filepath.Join(c.Dir, "spaces"), list+"\n")
	c.Exec(t, "VACUUM FREEZE", "CHECKPOINT")
	c.SwitchWAL(t)
	c.Exec(t, "CHECKPOINT")
	c.Stop(t, pgtest.Fast)
	unfinished := archive + ".tmp"
	defer os.Remove(unfinished)
	tar(t, append([]string{"--use-compress-program=zstd -T0", "-cf", unfinished, "-C", c.Dir, "data", "spaces"}, spaces()...)...)
	if err := os.Rename(unfinished, archive); err != nil {
		t.Fatal(err)
	}
}
