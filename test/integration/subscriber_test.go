//go:build integration

package integration

import (
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestSubscriber is fault 45 for logical replication: a clone of a subscriber
// doesn't take the original's place at the publisher, where it would use up
// the changes that the original hasn't got yet.
func TestSubscriber(t *testing.T) {
	t.Parallel()
	publisher := pgtest.New(t, 15, pgtest.Set("wal_level", "logical"))
	publisher.Start(t)
	publisher.Exec(t, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE PUBLICATION p FOR TABLE t", "INSERT INTO t VALUES (1)")
	site := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	original := site.cluster
	original.Exec(t, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE SUBSCRIPTION s CONNECTION '"+strings.ReplaceAll(publisher.ConnString("postgres"), "'", "''")+"' PUBLICATION p")
	const ids = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM t"
	pgtest.WaitFor(t, "the first row", func() bool { return original.SQL(t, ids) == "1" })
	site.backup(t, original)
	original.Archive(t)
	original.Stop(t, pgtest.Fast)

	clone := site.restore(t, "clone")
	clone.Start(t)
	clone.WaitPromoted(t)
	if got := clone.SQL(t, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'logical replication launcher'"); got != "0" {
		t.Error("the clone's subscriptions are active")
	}
	publisher.Exec(t, "INSERT INTO t VALUES (2)")
	original.Start(t)
	pgtest.WaitFor(t, "the second row", func() bool { return original.SQL(t, ids) == "1 2" })
	if got := clone.SQL(t, ids); got != "1" {
		t.Errorf("the clone has %s", got)
	}
}
