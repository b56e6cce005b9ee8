//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// restless is what goes on in a cluster all the time: each list of statements
// is carried out again and again, by a session of its own. %d is the number of
// the round.
func restless(major pgtest.Major) map[string][]string {
	all := map[string][]string{
		"relations come and go": {
			"CREATE TABLE come_%[1]d AS SELECT g AS id, repeat('x', 300) AS x FROM generate_series(1, 3000) g",
			"CREATE INDEX ON come_%[1]d (id)", "CREATE UNLOGGED TABLE light_%[1]d AS SELECT g FROM generate_series(1, 1000) g",
			"DROP TABLE come_%[1]d", "DROP TABLE light_%[1]d",
		},
		"a relation grows and shrinks": {
			"INSERT INTO tide SELECT g, repeat('y', 400) FROM generate_series(1, 6000) g",
			"DELETE FROM tide WHERE ctid > '(20,0)'", "VACUUM tide", // cuts off its end
		},
		"relations are rewritten": {
			"TRUNCATE emptied", "INSERT INTO emptied SELECT g FROM generate_series(1, 2000) g",
			"VACUUM FULL rewritten", "REINDEX TABLE rewritten", "ALTER TABLE rewritten ALTER id TYPE bigint", "ALTER TABLE rewritten ALTER id TYPE int",
		},
		"databases come and go": {"CREATE DATABASE fleeting", "DROP DATABASE fleeting"},
		"checkpoints":           {"CHECKPOINT"},
	}
	if major >= 15 {
		all["databases come and go"] = []string{
			"CREATE DATABASE fleeting STRATEGY wal_log", "DROP DATABASE fleeting", "CREATE DATABASE fleeting STRATEGY file_copy", "DROP DATABASE fleeting",
		}
	}
	return all
}

// disturb carries out what restless says until stop, and counts how often each
// list was gone through.
func disturb(t *testing.T, c *pgtest.Cluster) (counts map[string]*atomic.Int64, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	counts = make(map[string]*atomic.Int64)
	for what, statements := range restless(c.Major) {
		count := new(atomic.Int64)
		counts[what] = count
		conn := c.Conn(t, "postgres")
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				for _, statement := range statements {
					if strings.Contains(statement, "%[1]d") {
						statement = fmt.Sprintf(statement, i)
					}
					if _, err := conn.Exec(context.WithoutCancel(ctx), statement); err != nil {
						t.Errorf("%s: %v", statement, err)
						return
					}
				}
				count.Add(1)
			}
		})
	}
	return counts, func() {
		cancel()
		all.Wait()
	}
}

// TestRestlessCluster takes backups of a cluster in which pgbench is at work
// while relations and databases come, go, grow, shrink and are rewritten, and
// has PostgreSQL's own programs look at what each restores to. With --full it does
// so thirty times with each major, three times with a cluster: so much WAL comes
// of it that more would fill a disk.
func TestRestlessCluster(t *testing.T) { // faults 33 and 35, rule 24
	t.Parallel()
	majors, clusters, rounds := []pgtest.Major{15}, 1, 1
	if full() {
		majors, clusters, rounds = pgtest.Majors(), 10, 3
	}
	for _, major := range majors {
		for n := range clusters {
			t.Run(fmt.Sprintf("%s/%d", major, n), func(t *testing.T) {
				s := newSite(t, major, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.Checksums(true), pgtest.Set("max_wal_size", "256MB")}})
				s.cluster.Exec(t, "CREATE TABLE tide (id int, y text)", "CREATE TABLE emptied (id int)",
					"CREATE TABLE rewritten AS SELECT g AS id, md5(g::text) AS m FROM generate_series(1, 5000) g", "CREATE INDEX ON rewritten (m)")
				for round := range rounds {
					backupOfRestless(t, s, fmt.Sprintf("restored-%d", round))
				}
			})
		}
	}
}

func backupOfRestless(t *testing.T, s *site, name string) {
	t.Helper()
	stopBench := pgbench(t, s.cluster)
	counts, stop := disturb(t, s.cluster)
	before := make(map[string]int64)
	for what, count := range counts {
		before[what] = count.Load()
	}
	// The rate is low enough for all of it to happen meanwhile.
	s.walship(t, "backup", "push", "--backup-max-rate", "40MB")
	for what, count := range counts {
		if count.Load() == before[what] {
			t.Errorf("while the backup was taken: not once %s", what)
		}
	}
	stop()
	stopBench()
	restored := s.restore(t, name, "--immediate", "--target-action", "promote")
	restored.Start(t)
	restored.WaitPromoted(t)
	// A transaction of pgbench's adds one number to three balances and to the
	// history.
	sums := `SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
		(SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)`
	if same := restored.SQL(t, "SELECT a = b AND b = c AND c = d FROM ("+sums+") AS s(a, b, c, d)"); same != "t" {
		t.Errorf("the sums differ: %s", restored.SQL(t, "SELECT s::text FROM ("+sums+") s"))
	}
	if got := restored.SQL(t, "SELECT count(DISTINCT m) FROM rewritten"); got != "5000" {
		t.Errorf("the rewritten table has %s rows, want 5000", got)
	}
	s.amcheck(t, restored)
	restored.Stop(t, pgtest.Fast)
	if err := os.RemoveAll(restored.DataDir); err != nil {
		t.Error(err)
	}
}
