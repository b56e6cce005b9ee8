//go:build integration

package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestAccidents runs pgbench, and in the middle of it one session drops a table
// and another truncates one. The search names both transactions, and restoring
// to just before each brings the rows back.
func TestAccidents(t *testing.T) {
	t.Parallel()
	for _, major := range []pgtest.Major{15, 18} { // that have pgbench
		t.Run(major.String(), func(t *testing.T) {
			s := newSite(t, major, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.Set("track_commit_timestamp", "on")}})
			c := s.cluster
			c.Exec(t, "CREATE TABLE precious (id int PRIMARY KEY, note text)", "CREATE TABLE ledger (id int PRIMARY KEY, note text)",
				"INSERT INTO precious SELECT g, md5(g::text) FROM generate_series(1, 3000) g",
				"INSERT INTO ledger SELECT g, md5((-g)::text) FROM generate_series(1, 2000) g")
			pgtest.MustRun(t, c.Tool(t.Context(), t, "pgbench", "--initialize", "--quiet"))
			s.walship(t, "backup", "push")

			bench := c.Tool(t.Context(), t, "pgbench", "--no-vacuum", "--client=2", "--time=600")
			if err := bench.Start(); err != nil {
				t.Fatal(err)
			}
			transactions := func() string { return c.SQL(t, "SELECT count(*) > 100 FROM pgbench_history") }
			pgtest.WaitFor(t, "pgbench to be at work", func() bool { return transactions() == "t" })
			oracle := map[string]string{}
			xids := map[string]string{}
			for table, statement := range map[string]string{"precious": "DROP TABLE precious", "ledger": "TRUNCATE ledger"} {
				oracle[table] = c.SQL(t, "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM "+table+" AS t")
				xids[table] = s.transact(t, []string{statement})
			}
			c.Exec(t, "TRUNCATE pgbench_history") // pgbench goes on behind it
			pgtest.WaitFor(t, "pgbench to go on", func() bool { return transactions() == "t" })
			if err := bench.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = bench.Wait() // it was killed
			c.Archive(t)

			found := s.dropped(t)
			for table, change := range map[string]string{"precious": "drop", "ledger": "truncate"} {
				event, ok := found[xids[table]]
				named := slices.ContainsFunc(event.Relations, func(r foundRelation) bool {
					return r.Change == change && r.Kind == "table" && r.Name == table
				})
				if !ok || !named {
					t.Fatalf("%s: found is %+v", table, event)
				}
				at := c.SQL(t, "SELECT to_char(pg_xact_commit_timestamp($1::text::xid) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')", xids[table])
				if got := event.Time.UTC().Format("2006-01-02 15:04:05.000000"); got != at {
					t.Errorf("%s: the time is %s, the server says %s", table, got, at)
				}
				directory := filepath.Join(s.dir, "before-"+table)
				s.walship(t, "restore", "run", "--target-directory", directory, "--to-xid", fmt.Sprint(event.XID), "--exclusive")
				restored := pgtest.Open(t, major, directory, pgtest.Env(s.env...))
				restored.Start(t)
				restored.WaitPaused(t)
				restored.Promote(t)
				if got := restored.SQL(t, "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM "+table+" AS t"); got != oracle[table] {
					t.Errorf("%s: restored are %s, there were %s", table, got, oracle[table])
				}
				restored.Stop(t, pgtest.Fast)
			}
		})
	}
}
