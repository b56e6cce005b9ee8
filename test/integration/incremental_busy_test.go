//go:build integration

package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
	"golang.org/x/sync/errgroup"
)

// TestIncrementalBusy takes a chain, of five in a full run, while the server is busy with all
// that moves files: what the chain recovers to must be what the full backup
// recovers to, and what the server had.
func TestIncrementalBusy(t *testing.T) {
	t.Parallel()
	majors, rounds := []pgtest.Major{15}, 2
	if full() {
		majors, rounds = pgtest.Majors(), 4
	}
	for _, major := range majors {
		t.Run(major.String(), func(t *testing.T) {
			site := newSite(t, major, siteOptions{encrypted: true, cluster: []pgtest.Option{
				pgtest.Set("checkpoint_timeout", "30s"), pgtest.Set("max_prepared_transactions", "10"),
			}})
			c := site.cluster
			c.Exec(t, schema...)
			begin(t, c)
			oldest := site.backup(t, c)
			newest := oldest
			stop := keepBusy(t, c)
			for range rounds {
				newest = site.incremental(t, newest)
			}
			stop()
			c.Archive(t)
			want := dumpAll(t, c)

			for _, id := range []string{oldest, newest} {
				target := filepath.Join(site.dir, "from-"+id)
				site.walship(t, "restore", "run", "--target-directory", target, "--backup", id, "--tablespace-map", c.Dir+"/space="+site.dir+"/space-"+id)
				if c.HasTool("pg_verifybackup") {
					pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_verifybackup", "--no-parse-wal", target))
				}
				restored := pgtest.Open(t, major, target)
				restored.Start(t)
				restored.WaitPromoted(t)
				if got := dumpAll(t, restored); got != want {
					t.Errorf("from backup %s the restored databases differ:\n%s", id, diff(t, want, got))
				}
				site.amcheck(t, restored)
				restored.Stop(t, pgtest.Fast)
			}
		})
	}
}

// keepBusy changes everything without a pause, until the function is called
// that it returns.
func keepBusy(t *testing.T, c *pgtest.Cluster) (stop func()) {
	t.Helper()
	strategy := func(n int) string {
		if c.Major < 15 {
			return ""
		}
		return " STRATEGY " + []string{"wal_log", "file_copy"}[n%2]
	}
	workers := []func(n int) []string{
		func(n int) []string {
			return []string{fmt.Sprintf("UPDATE large SET n = n + 1, filler = filler || 'x' WHERE id %% 500 = %d", n%500),
				fmt.Sprintf("DELETE FROM large WHERE id %% 5000 = %d", n%5000)}
		},
		func(n int) []string {
			return []string{"CREATE TABLE passing AS SELECT g, md5(g::text) FROM generate_series(1, 500) g", "CREATE INDEX ON passing (g)",
				"TRUNCATE passing", "INSERT INTO passing SELECT g, 'again' FROM generate_series(1, 500) g",
				"BEGIN; ALTER TABLE passing ADD COLUMN n int DEFAULT random() * 10; ROLLBACK", "DROP TABLE passing"}
		},
		func(n int) []string {
			return []string{"DELETE FROM shrinking WHERE g > 500", "VACUUM shrinking",
				"INSERT INTO shrinking SELECT g, repeat('s', 400) FROM generate_series(501, 1500) g", "VACUUM FULL wandering",
				"ALTER TABLE wandering SET TABLESPACE " + []string{"space", "pg_default"}[n%2]}
		},
		func(n int) []string {
			return []string{"CREATE DATABASE passing" + strategy(n), "DROP DATABASE passing", "CHECKPOINT"}
		},
		func(n int) []string {
			return []string{"BEGIN; CREATE TABLE prepared AS SELECT g FROM generate_series(1, 300) g; PREPARE TRANSACTION 'p'",
				[]string{"COMMIT", "ROLLBACK"}[n%2] + " PREPARED 'p'", "DROP TABLE IF EXISTS prepared"}
		},
	}
	done := make(chan struct{})
	var group errgroup.Group
	rounds := make([]int, len(workers))
	for i, work := range workers {
		conn := c.Conn(t, "postgres")
		group.Go(func() error {
			for n := 0; ; n++ {
				select {
				case <-done:
					rounds[i] = n
					return nil
				default:
				}
				for _, statement := range work(n) {
					for part := range strings.SplitSeq(statement, "; ") {
						if _, err := conn.Exec(t.Context(), part); err != nil {
							return fmt.Errorf("%s: %w", part, err)
						}
					}
				}
			}
		})
	}
	return func() {
		t.Helper()
		close(done)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		for i, n := range rounds {
			if n < 2 {
				t.Errorf("worker %d came round %d times only", i, n)
			}
		}
	}
}
