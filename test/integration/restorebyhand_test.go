//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestRestoreByHand restores with age, zstd, tar and a shell: the promise that
// a backup outlives the tool. walship isn't called again once it has archived.
func TestRestoreByHand(t *testing.T) {
	t.Parallel()
	const major = pgtest.Major(15)
	for name, encrypted := range map[string]bool{"plain": false, "age": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			site := newSite(t, major, siteOptions{encrypted: encrypted, cluster: []pgtest.Option{
				pgtest.SegmentSize(1), pgtest.Set("allow_in_place_tablespaces", "on")}})
			c := site.cluster
			c.Exec(t, schema...)
			c.Exec(t,
				"CREATE TABLESPACE outside LOCATION '"+pgtest.MkdirNobody(t, site.dir, "tablespace")+"'",
				"CREATE TABLESPACE inside LOCATION ''",
				"CREATE TABLE placed TABLESPACE outside AS SELECT generate_series(1, 1000) AS id",
				"CREATE TABLE placed_inside TABLESPACE inside AS SELECT generate_series(1, 10) AS id",
				"ALTER SYSTEM SET recovery_min_apply_delay = '1d'")
			site.walship(t, "backup", "push")
			c.Exec(t, "INSERT INTO customers (name) SELECT 'later ' || i FROM generate_series(1, 500) AS i", "DELETE FROM placed WHERE id % 3 = 0")
			want := c.Dump(t, "postgres")
			at := c.SQL(t, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00')")
			dropOrders(t, c)
			c.Archive(t)
			site.walship(t, "backup", "push") // too late for the target
			c.Exec(t, "CREATE TABLE last AS SELECT 1 AS id")
			site.walship(t, "backup", "push", "--incremental") // 15 can't combine it
			latest := c.Dump(t, "postgres")
			c.Archive(t)
			c.Stop(t, pgtest.Fast)

			script := filepath.Join(site.dir, "restore-by-hand")
			text, err := os.ReadFile("../../scripts/restore-by-hand")
			if err != nil {
				t.Fatal(err)
			}
			write(t, script, string(text))
			byHand := func(target string, args ...string) pgtest.Result {
				args = append([]string{script}, args...)
				if encrypted {
					args = append(args, "-i", filepath.Join(site.dir, "identity.txt"))
				}
				return pgtest.Run(t, c.Command(t.Context(), t, "/bin/bash", append(args, filepath.Join(site.dir, "repository"), target)...))
			}

			target := filepath.Join(site.dir, "by-hand")
			if result := byHand(target, "-t", at); result.Code != 0 {
				t.Fatalf("restore-by-hand: exit code %d\n%s", result.Code, result.Stderr)
			}
			pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_verifybackup", "--no-parse-wal", target))
			restored := pgtest.Open(t, major, target)
			restored.Start(t)
			restored.WaitPaused(t)
			restored.Promote(t)
			if got := restored.Dump(t, "postgres"); got != want {
				t.Errorf("the restored database differs:\n%s", diff(t, want, got))
			}
			site.amcheck(t, restored)
			restored.Stop(t, pgtest.Fast)

			end := filepath.Join(site.dir, "by-hand-latest")
			if result := byHand(end, "-T", filepath.Join(site.dir, "tablespaces")); result.Code != 0 || !strings.Contains(result.Stderr, "PostgreSQL 15 has no pg_combinebackup: the full backup before it") {
				t.Fatalf("restore-by-hand: exit code %d\n%s", result.Code, result.Stderr)
			}
			restored = pgtest.Open(t, major, end)
			restored.Start(t)
			restored.WaitPromoted(t)
			if got := restored.Dump(t, "postgres"); got != latest {
				t.Errorf("the restored database differs:\n%s", diff(t, latest, got))
			}
			restored.Stop(t, pgtest.Fast)

			for _, args := range [][]string{
				{"-t", "2026-11-20 14:25:00"}, // no zone
				{"-t", "2026-11-20"},
				{"-t", "2020-01-01T00:00:00Z"}, // before all backups
				{"-b", "20200101T000000Z"},
				{"-s", "42"},
			} {
				never := filepath.Join(site.dir, "never")
				if result := byHand(never, args...); result.Code == 0 {
					t.Errorf("restore-by-hand %v succeeded:\n%s", args, result.Stderr)
				}
				if _, err := os.Lstat(never); err == nil {
					t.Fatalf("restore-by-hand %v made the directory", args)
				}
			}
			if result := byHand(target); result.Code == 0 {
				t.Error("restore-by-hand wrote into a directory that isn't empty")
			}
			site.damageParts(t)
			if result := byHand(filepath.Join(site.dir, "never")); result.Code == 0 {
				t.Error("restore-by-hand restored a damaged part")
			}
		})
	}
}

// TestRestoreByHandChain restores a chain of incremental backups with
// pg_combinebackup, with no WAL but that of its newest backup.
func TestRestoreByHandChain(t *testing.T) {
	t.Parallel()
	const major = pgtest.Major(17)
	site := newSite(t, major, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1), pgtest.Set("summarize_wal", "on")}})
	c := site.cluster
	c.Exec(t, schema...)
	c.Exec(t,
		"CREATE TABLESPACE outside LOCATION '"+pgtest.MkdirNobody(t, site.dir, "tablespace")+"'",
		"CREATE TABLE placed TABLESPACE outside AS SELECT generate_series(1, 20000) AS id")
	site.walship(t, "backup", "push")
	for n := range 2 {
		c.Exec(t, fmt.Sprintf("DELETE FROM placed WHERE id = %d", n+1), fmt.Sprintf("CREATE TABLE new%d AS SELECT generate_series(1, 1000) AS id", n))
		site.walship(t, "backup", "push", "--incremental")
	}
	want := c.Dump(t, "postgres")
	c.Stop(t, pgtest.Fast)
	records, err := filepath.Glob(filepath.Join(site.dir, "repository/*/backups/*.json"))
	if err != nil || len(records) != 3 {
		t.Fatalf("the backups are %v (%v)", records, err)
	}
	site.removeWALBefore(t, strings.Split(filepath.Base(records[2]), "-")[1])

	// The major's own root has neither of these.
	bin := pgtest.MkdirNobody(t, site.dir, "bin")
	for _, tool := range []string{"age", "zstd"} {
		if output, err := exec.Command("cp", "/usr/bin/"+tool, bin).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v\n%s", tool, err, output)
		}
	}
	path := "PATH=" + bin + ":/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	text, err := os.ReadFile("../../scripts/restore-by-hand")
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(site.dir, "restore-by-hand")
	write(t, script, string(text))
	byHand := func(target string) pgtest.Result {
		cmd := c.Command(t.Context(), t, "/bin/bash", script, "-i", filepath.Join(site.dir, "identity.txt"), filepath.Join(site.dir, "repository"), target)
		cmd.Env = append(cmd.Env, path)
		return pgtest.Run(t, cmd)
	}
	target := filepath.Join(site.dir, "by-hand")
	if result := byHand(target); result.Code != 0 || !strings.Contains(result.Stderr, "putting 3 backups together") {
		t.Fatalf("restore-by-hand: exit code %d\n%s", result.Code, result.Stderr)
	}
	if left, err := filepath.Glob(target + ".chain"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_verifybackup", "--no-parse-wal", target))
	restored := pgtest.Open(t, major, target, pgtest.Env(path))
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
	site.amcheck(t, restored)

	if err := os.Remove(records[0]); err != nil {
		t.Fatal(err)
	}
	if result := byHand(filepath.Join(site.dir, "never")); result.Code != 1 || !strings.Contains(result.Stderr, "which isn't in the repository") {
		t.Errorf("without the full backup: exit code %d\n%s", result.Code, result.Stderr)
	}
}

// removeWALBefore removes the archived segments before the one of an LSN in
// sixteen digits, of segments of 1 MiB.
func (s *site) removeWALBefore(t *testing.T, lsn string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(s.dir, "repository/*/wal/*/*"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("find segments: %d, %v", len(segments), err)
	}
	start, err := strconv.ParseUint(lsn, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	first, removed := fmt.Sprintf("%08X%08X%08X", 1, start>>32, start&0xffffffff>>20), 0
	for _, segment := range segments {
		if filepath.Base(segment) < first {
			removed++
			if err := os.Remove(segment); err != nil {
				t.Fatal(err)
			}
		}
	}
	if removed == 0 {
		t.Errorf("no segment is before %s", first)
	}
}

// damageParts flips a byte in the middle of every part in a directory.
func (s *site) damageParts(t *testing.T) {
	t.Helper()
	parts, err := filepath.Glob(filepath.Join(s.dir, "repository/*/parts/*/*.tar.zst*"))
	if err != nil || len(parts) == 0 {
		t.Fatalf("find parts: %d, %v", len(parts), err)
	}
	for _, part := range parts {
		data, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.Chmod(part, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(part, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
