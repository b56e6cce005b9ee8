//go:build integration

package postgres_test

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/test/pgtest"
)

func TestServers(t *testing.T) {
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			c := pgtest.New(t, major, pgtest.SegmentSize(1), pgtest.Set("archive_mode", "on"), pgtest.Set("archive_command", "true"))
			c.Start(t)
			space := pgtest.MkdirNobody(t, pgtest.WorkDir(t), "space")
			c.Exec(t, "CREATE TABLESPACE space LOCATION '"+space+"'", "ALTER ROLE postgres SET statement_timeout = '1s'", "ALTER ROLE postgres SET search_path = 'elsewhere'")
			if major >= 14 {
				c.Exec(t, "ALTER ROLE postgres SET idle_session_timeout = '1s'")
			}
			conn := connect(t, c)
			t.Run("facts", func(t *testing.T) { testFacts(t, c, conn, major) })
			t.Run("committed", func(t *testing.T) { testCommitted(t, c, conn) })
			t.Run("backup", func(t *testing.T) { testBackup(t, c, conn) })
			t.Run("end", func(t *testing.T) { testEnd(t, c) })
		})
	}
}

func connect(t *testing.T, c *pgtest.Cluster) *postgres.Conn {
	t.Helper()
	conn, err := postgres.Connect(t.Context(), c.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have ended it
	return conn
}

func testFacts(t *testing.T, c *pgtest.Cluster, conn *postgres.Conn, major pgtest.Major) {
	f, err := conn.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.Version/10000 != int(major) || f.SegmentSize != 1<<20 || f.DataDirectory != c.DataDir || f.InRecovery || f.WALLevel != "replica" {
		t.Errorf("the facts are %+v", f)
	}
	if !f.Archiving() || f.ArchiveCommand != "true" || f.ConfigFile != filepath.Join(c.DataDir, "postgresql.conf") || f.HBAFile == "" || f.IdentFile == "" {
		t.Errorf("the facts are %+v", f)
	}
	if want := c.SQL(t, "SELECT system_identifier FROM pg_control_system()"); want != strconv.FormatUint(f.SystemID, 10) {
		t.Errorf("the system identifier is %d, want %s", f.SystemID, want)
	}
	spaces, err := conn.Tablespaces(t.Context())
	if err != nil || len(spaces) != 1 || spaces[0].Name != "space" {
		t.Errorf("the tablespaces are %v (%v)", spaces, err)
	}
}

// testCommitted asks for transactions that ended in each way, run and are to
// come.
func testCommitted(t *testing.T, c *pgtest.Cluster, conn *postgres.Conn) {
	xid := func(query string) uint32 {
		t.Helper()
		n, err := strconv.ParseUint(c.SQL(t, query), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	running := c.Conn(t, "postgres")
	var own uint32
	if _, err := running.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	if err := running.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&own); err != nil {
		t.Fatal(err)
	}
	in := xid("SELECT pg_current_xact_id()")
	for what, xid := range map[string]uint32{"committed": in, "running": own, "to come": in + 1000} {
		committed, known, err := conn.Committed(t.Context(), xid)
		if err != nil || !known || committed != (xid == in) {
			t.Errorf("%s: committed %v, known %v, %v", what, committed, known, err)
		}
	}
	if _, err := running.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if committed, known, err := conn.Committed(t.Context(), own); err != nil || !known || committed {
		t.Errorf("rolled back: committed %v, known %v, %v", committed, known, err)
	}
}

// testBackup starts and stops a backup, although the role's own timeouts would
// have ended the session in between.
func testBackup(t *testing.T, c *pgtest.Cluster, conn *postgres.Conn) {
	start, err := conn.StartBackup(t.Context(), "nightly", true)
	if err != nil {
		t.Fatal(err)
	}
	var idle string
	pgtest.WaitFor(t, "two idle seconds", func() bool {
		idle = c.SQL(t, "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), -1) > 2 FROM pg_stat_activity WHERE application_name = 'walship'")
		return idle == "t"
	})
	stop, err := conn.StopBackup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	label := string(stop.Label)
	if stop.LSN <= start.LSN || !strings.HasPrefix(label, "START WAL LOCATION: "+start.LSN.String()) || !strings.Contains(label, "\nLABEL: nightly\n") {
		t.Errorf("started at %s, stopped at %s with the label %q", start.LSN, stop.LSN, label)
	}
	if !strings.HasSuffix(strings.TrimSpace(string(stop.TablespaceMap)), "/space") {
		t.Errorf("the tablespace map is %q", stop.TablespaceMap)
	}
	if gap := stop.Time.Sub(start.Time); gap < 2*time.Second || gap > 10*time.Minute || strings.Count(stop.Snapshot, ":") != 2 {
		t.Errorf("%s passed by the server's clock, and the snapshot is %q", gap, stop.Snapshot)
	}
	if _, err := conn.StopBackup(t.Context()); err == nil {
		t.Error("a backup could be stopped twice")
	}
}

// testEnd ends sessions that hold a backup, in two ways.
func testEnd(t *testing.T, c *pgtest.Cluster) {
	sessions := func() bool {
		return c.SQL(t, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walship' AND query LIKE '%ended%'") == "0"
	}
	conn := connect(t, c)
	if _, err := conn.StartBackup(t.Context(), "ended", true); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	pgtest.WaitFor(t, "the end of the session", sessions)

	conn = connect(t, c)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("ended by the user")
	c.Exec(t, "CREATE TABLE public.dirty AS SELECT g, repeat('x', 1000) AS x FROM generate_series(1, 5000) g")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if _, err := conn.StartBackup(ctx, "ended", false); !errors.Is(err, why) {
		t.Errorf("a spread checkpoint that was cut short: %v", err)
	}
	pgtest.WaitFor(t, "the end of the session", sessions)
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the session goes on after its context ended")
	}
}
