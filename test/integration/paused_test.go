//go:build integration

package integration

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/walship/walship/test/pgtest"
)

// TestPausedLock is rule 29: a recovery that pauses right before the commit of
// a TRUNCATE holds its lock, other tables can be read, and resuming gives the
// rows free. What the restore prints says so.
func TestPausedLock(t *testing.T) {
	t.Parallel()
	site := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	c := site.cluster
	c.Exec(t, schema...)
	site.backup(t, c)
	at := targets["time"](t, c)("")
	c.Exec(t, "TRUNCATE orders")
	c.Archive(t)

	args := append([]string{"restore", "run", "--target-directory", site.dir + "/restored"}, at...)
	if out := site.walship(t, args...).Stdout; !strings.Contains(out, "can be locked") || !strings.Contains(out, "pg_wal_replay_resume()") {
		t.Errorf("the restore doesn't speak of the lock:\n%s", out)
	}
	restored := pgtest.Open(t, c.Major, site.dir+"/restored")
	restored.Start(t)
	restored.WaitPaused(t)
	if got := restored.SQL(t, "SELECT count(*) FROM customers"); got != "1000" {
		t.Errorf("customers has %s rows while the recovery is paused", got)
	}
	conn := restored.Conn(t, "postgres")
	if _, err := conn.Exec(t.Context(), "SET lock_timeout = '500ms'"); err != nil {
		t.Fatal(err)
	}
	const lockNotAvailable = "55P03"
	_, err := conn.Exec(t.Context(), "SELECT count(*) FROM orders")
	if refused, is := errors.AsType[*pgconn.PgError](err); !is || refused.Code != lockNotAvailable {
		t.Errorf("a query of the truncated table while the recovery is paused: %v, want a lock that isn't given", err)
	}
	restored.SQL(t, "SELECT pg_wal_replay_resume()")
	restored.WaitPromoted(t)
	if got := restored.SQL(t, "SELECT count(*) FROM orders"); got != "2000" {
		t.Errorf("orders has %s rows behind the recovery", got)
	}
}
