//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestRestoreByHand restores with age, zstd, tar and a shell: the promise that
// a backup outlives the tool. walship isn't called again once it has archived.
func TestRestoreByHand(t *testing.T) {
	const major = pgtest.Major(15)
	for name, encrypted := range map[string]bool{"plain": false, "age": true} {
		t.Run(name, func(t *testing.T) {
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
			if result := byHand(end, "-T", filepath.Join(site.dir, "tablespaces")); result.Code != 0 {
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
