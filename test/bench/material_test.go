//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
)

// major is the PostgreSQL that everything is measured with: Debian's own.
const major = pgtest.Major(15)

// recipe is part of the name of what is kept: another one, other WAL.
const recipe = 1

// material is what is measured with: real WAL, and two states of the cluster
// that wrote it.
type material struct {
	base     string   // data directory from before the WAL, without pg_wal's files
	cluster  string   // data directory from after it, with all of the WAL
	segments []string // names, in order
}

// newMaterial unpacks WAL of at least that many segments into a directory of
// the test, making it first if the tests' cache has none.
func newMaterial(ctx context.Context, t *testing.T, segments int) material {
	t.Helper()
	archive := filepath.Join(cacheDir(t), fmt.Sprintf("wal-%d-%d.tar.zst", segments, recipe))
	if _, err := os.Stat(archive); errors.Is(err, fs.ErrNotExist) {
		progress("making %d segments of WAL with pgbench, once", segments)
		makeMaterial(ctx, t, archive, segments)
	} else if err != nil {
		t.Fatal(err)
	}
	dir := pgtest.WorkDir(t)
	tar(t, "--use-compress-program=zstd", "-xf", archive, "-C", dir)
	list, err := os.ReadFile(filepath.Join(dir, "segments"))
	if err != nil {
		t.Fatal(err)
	}
	return material{filepath.Join(dir, "base"), filepath.Join(dir, "cluster"), strings.Fields(string(list))[:segments]}
}

func cacheDir(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("WALSHIP_TEST_CACHE")
	if cache == "" {
		t.Fatal("WALSHIP_TEST_CACHE isn't set: scripts/bench does that")
	}
	dir := filepath.Join(cache, "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// makeMaterial runs pgbench on a new cluster with PostgreSQL's default
// checkpoints, and keeps what comes of it.
func makeMaterial(ctx context.Context, t *testing.T, archive string, segments int) {
	t.Helper()
	c := pgtest.New(t, major, pgtest.Set("shared_buffers", "128MB"), pgtest.Set("max_connections", "20"),
		pgtest.Set("archive_mode", "on"), pgtest.Set("wal_keep_size", "1TB"))
	c.Start(t)
	pgtest.MustRun(t, c.Tool(t.Context(), t, "pgbench", "-i", "-q", "-s", "20"))
	c.Exec(t, "CHECKPOINT")
	c.SwitchWAL(t)
	c.Stop(t, pgtest.Fast)
	first := redoFile(t, c)
	base := filepath.Join(c.Dir, "base")
	pgtest.MustRun(t, pgtest.Command(t.Context(), t, major, "cp", "-a", c.DataDir, base))
	pgtest.MustRun(t, pgtest.Command(t.Context(), t, major, "find", base+"/pg_wal", "-type", "f", "-delete"))

	c.Start(t)
	load, stop := context.WithCancel(ctx)
	defer stop()
	pgbench := c.Tool(load, t, "pgbench", "-n", "-c", "4", "-j", "2", "-T", "3600")
	if err := pgbench.Start(); err != nil {
		t.Fatal(err)
	}
	enough := fmt.Sprintf("SELECT count(*) FROM pg_ls_waldir() WHERE name >= '%s' AND name <= pg_walfile_name(pg_current_wal_insert_lsn())", first)
	poll(ctx, t, 30*time.Minute, "pgbench to write WAL", func() bool {
		var written int
		_, err := fmt.Sscan(c.SQL(t, enough), &written)
		return err == nil && written > segments
	})
	stop()
	_ = pgbench.Wait() // it was killed
	c.Stop(t, pgtest.Fast)

	names := segmentsFrom(t, c.DataDir, first)
	pgtest.WriteNobody(t, filepath.Join(c.Dir, "segments"), strings.Join(names[:segments], "\n")+"\n")
	if err := os.Rename(c.DataDir, filepath.Join(c.Dir, "cluster")); err != nil {
		t.Fatal(err)
	}
	unfinished := archive + ".tmp"
	defer os.Remove(unfinished)
	tar(t, "--use-compress-program=zstd -T0", "-cf", unfinished, "-C", c.Dir, "base", "cluster", "segments")
	if err := os.Rename(unfinished, archive); err != nil {
		t.Fatal(err)
	}
}

func tar(t *testing.T, args ...string) {
	t.Helper()
	if output, err := exec.CommandContext(t.Context(), "tar", args...).CombinedOutput(); err != nil {
		t.Fatalf("tar %s: %v\n%s", strings.Join(args, " "), err, output)
	}
}

// redoFile is the segment in which a recovery of the stopped cluster starts.
func redoFile(t *testing.T, c *pgtest.Cluster) string {
	t.Helper()
	const label = "Latest checkpoint's REDO WAL file:"
	for line := range strings.Lines(pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_controldata", c.DataDir))) {
		if name, ok := strings.CutPrefix(line, label); ok {
			return strings.TrimSpace(name)
		}
	}
	t.Fatalf("pg_controldata prints no %q", label)
	return ""
}

var segmentName = regexp.MustCompile(`[0-9A-F]{24}`)

// segmentsFrom lists the segments of a data directory from a name on.
func segmentsFrom(t *testing.T, dataDir, first string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dataDir, "pg_wal"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if name := entry.Name(); segmentName.MatchString(name) && len(name) == 24 && name >= first {
			names = append(names, name)
		}
	}
	return names
}
