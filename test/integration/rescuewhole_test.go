//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/walship/walship/pkg/rescue"
	"github.com/walship/walship/test/pgtest"
)

// TestRescueWhole brings back what isn't a single table: a schema, and a
// partitioned table, which is found dropped with its partitions, with a view. It
// is interrupted, too, and given databases that aren't there, and a name that
// tables of two databases had.
func TestRescueWhole(t *testing.T) {
	t.Parallel()
	s := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	c := s.cluster
	c.Exec(t, "CREATE SCHEMA shop", "CREATE TYPE shop.colour AS ENUM ('red', 'blue')",
		"CREATE TABLE shop.things (id serial PRIMARY KEY, colour shop.colour)", "CREATE TABLE shop.parts (of int REFERENCES shop.things)",
		"CREATE VIEW shop.blue AS SELECT * FROM shop.things WHERE colour = 'blue'",
		"CREATE TABLE measures (at int, what text) PARTITION BY RANGE (at)", "CREATE INDEX ON measures (at)",
		`CREATE SCHEMA "Old"`, `CREATE TABLE "Old".measures PARTITION OF measures FOR VALUES FROM (0) TO (100)`,
		"CREATE TABLE measures_new PARTITION OF measures FOR VALUES FROM (100) TO (300) PARTITION BY RANGE (at)",
		"CREATE TABLE measures_1 PARTITION OF measures_new FOR VALUES FROM (100) TO (200)",
		"CREATE VIEW high AS SELECT * FROM measures WHERE at >= 50")
	s.backup(t, c)
	c.Exec(t, "INSERT INTO shop.things (colour) SELECT (CASE WHEN i % 4 = 0 THEN 'blue' ELSE 'red' END)::shop.colour FROM generate_series(1, 400) i",
		"INSERT INTO shop.parts SELECT id FROM shop.things", "INSERT INTO measures SELECT i, 'measure ' || i FROM generate_series(0, 199) i")
	moment := c.SQL(t, `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`)
	c.Exec(t, "DROP SCHEMA shop CASCADE", "DROP TABLE measures CASCADE", `DROP SCHEMA "Old"`)
	c.Archive(t)
	work := pgtest.MkdirNobody(t, s.dir, "work")
	into := fmt.Sprintf("host=%s user=postgres dbname=postgres", c.SocketDir)
	args := func(more ...string) []string {
		return append([]string{"rescue", "--work-directory", work, "--to-time", moment}, more...)
	}
	t.Run("schema", func(t *testing.T) {
		s.walship(t, args("--schema", "shop", "--into", into)...)
		if got := c.SQL(t, "SELECT (SELECT count(*) FROM shop.things) || ' ' || (SELECT count(*) FROM shop.blue) || ' ' || (SELECT count(*) FROM shop.parts)"); got != "400 100 400" {
			t.Errorf("rows: %s", got)
		}
		if result := s.try(t, args("--schema", "shop", "--into", into)...); result.Code != 4 || !strings.Contains(result.Stderr, `there is a schema "shop" already`) {
			t.Errorf("over a schema that is there: exit code %d\n%s", result.Code, result.Stderr)
		}
	})
	t.Run("interrupted", func(t *testing.T) { testRescueInterrupted(t, s, work, args("--table", "measures", "--into", into)) })
	t.Run("partitions", func(t *testing.T) {
		testRescuePartitions(t, s, into, args("--table", "measures", "--table", "high", "--json", "--into", into))
	})
	t.Run("databases", func(t *testing.T) {
		result := s.try(t, args("--table", "measures", "--into", strings.Replace(into, "dbname=postgres", "dbname=nowhere", 1))...)
		if result.Code != 1 || !strings.Contains(result.Stderr, "no such database to load into: create it") || !strings.Contains(result.Stderr, `"nowhere"`) {
			t.Errorf("into a database that isn't there: exit code %d\n%s", result.Code, result.Stderr)
		}
		result = s.try(t, args("--table", "measures", "--database", "nowhere", "--to-file", filepath.Join(s.dir, "never.sql"))...)
		if result.Code != 1 || !strings.Contains(result.Stderr, `the cluster had no database "nowhere" at that moment: say with --database`) {
			t.Errorf("from a database that wasn't there: exit code %d\n%s", result.Code, result.Stderr)
		}
	})
	t.Run("name", func(t *testing.T) { testRescueAmbiguous(t, s, into) })
	if entries, err := os.ReadDir(work); err != nil || len(entries) > 0 {
		t.Errorf("left in the work directory: %v, %v", entries, err)
	}
}

// testRescueAmbiguous drops tables of one name in two databases. The server that
// they are loaded into tells them apart; without it, that is asked.
func testRescueAmbiguous(t *testing.T, s *site, into string) {
	c := s.cluster
	c.Exec(t, "CREATE TABLE stock AS SELECT 1 AS id", "CREATE DATABASE elsewhere")
	c.SQLIn(t, "elsewhere", "CREATE TABLE stock AS SELECT generate_series(1, 7) AS id")
	c.Exec(t, "DROP TABLE stock")
	c.SQLIn(t, "elsewhere", "DROP TABLE stock")
	c.Archive(t)
	for _, args := range [][]string{
		{"rescue", "--table", "stock", "--before-drop", "--to-file", filepath.Join(s.dir, "never.sql")},
		{"restore", "plan", "--before-drop", "stock"},
	} {
		result := s.try(t, args...)
		if result.Code != 4 || strings.Count(result.Stderr, "dropped stock in schema 2200")+strings.Count(result.Stderr, "dropped public.stock") != 2 || !strings.Contains(result.Stderr, "choose one of these transactions with --") {
			t.Errorf("%v: exit code %d\n%s", args, result.Code, result.Stderr)
		}
	}
	s.walship(t, "rescue", "--table", "stock", "--before-drop", "--into", into)
	if got := c.SQL(t, "SELECT count(*) FROM stock"); got != "1" {
		t.Errorf("the table of this database had 1 row, it has %s", got)
	}

	// The newest drop of that name is in the other database.
	c.Exec(t, "DROP TABLE stock")
	s.backup(t, c)
	c.SQLIn(t, "elsewhere", "CREATE TABLE stock AS SELECT 1 AS id")
	c.SQLIn(t, "elsewhere", "DROP TABLE stock")
	c.Archive(t)
	result := s.try(t, "rescue", "--table", "stock", "--before-drop", "--to-file", filepath.Join(s.dir, "never.sql"))
	if result.Code != 1 || !strings.Contains(result.Stderr, `was in another database than "postgres": in "elsewhere"`) {
		t.Errorf("before a drop in another database: exit code %d\n%s", result.Code, result.Stderr)
	}
	if _, err := os.Lstat(filepath.Join(s.dir, "never.sql")); err == nil {
		t.Error("it wrote a file all the same")
	}
	s.walship(t, "rescue", "--table", "stock", "--before-drop", "--into", into)
	if got := c.SQL(t, "SELECT count(*) FROM stock"); got != "1" {
		t.Errorf("the older drop's table had 1 row, it has %s", got)
	}
}

func testRescuePartitions(t *testing.T, s *site, into string, args []string) {
	result := s.try(t, "rescue", "--table", "high", "--before-drop", "--into", into)
	if result.Code != 1 || !strings.Contains(result.Stderr, "--to-time") {
		t.Errorf("before the drop of a view: exit code %d\n%s", result.Code, result.Stderr)
	}
	s.walship(t, "rescue", "--table", "measures", "--before-drop", "--into", into)
	if got := s.cluster.SQL(t, "SELECT count(*) FROM measures"); got != "200" {
		t.Errorf("before the drop, the partitioned table had %s rows", got)
	}
	s.cluster.Exec(t, "DROP TABLE measures") // behind what is archived
	var out rescue.Result
	if err := json.Unmarshal([]byte(s.walship(t, args...).Stdout), &out); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, table := range out.Tables {
		rows = append(rows, fmt.Sprintf("%s %d", table.Name, table.Rows))
	}
	if got := strings.Join(rows, ", "); got != `"public"."measures" 200, "Old"."measures" 100, "public"."measures_new" 100, "public"."measures_1" 100, "public"."high" 150` {
		t.Errorf("the tables are %s", got)
	}
	c := s.cluster
	if got := c.SQL(t, "SELECT count(*) || ' ' || min(what) FROM high"); got != "150 measure 100" {
		t.Errorf("the view has %s", got)
	}
	if got := c.SQL(t, "SELECT string_agg(relid::text, ' ' ORDER BY level, relid::text) FROM pg_partition_tree('measures')"); got != `measures "Old".measures measures_new measures_1` {
		t.Errorf("the partitions are %s", got)
	}
	if got := c.SQL(t, "SELECT string_agg(relid::text, ' ' ORDER BY level, relid::text) FROM pg_partition_tree('measures_at_idx')"); strings.Count(got, "_at_idx") != 4 {
		t.Errorf("the indexes are %s", got)
	}
}

// testRescueInterrupted sends SIGINT while pg_restore waits for another
// session: its own session, the scratch server and the files are gone then.
func testRescueInterrupted(t *testing.T, s *site, work string, args []string) {
	c := s.cluster
	other := c.Conn(t, "postgres")
	if _, err := other.Exec(t.Context(), "BEGIN; CREATE TABLE measures (id int)"); err != nil {
		t.Fatal(err)
	}
	cmd := s.command(t, args...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pgtest.WaitFor(t, "pg_restore to wait", func() bool {
		return c.SQL(t, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_restore' AND wait_event_type = 'Lock'") == "1"
	})
	files, err := filepath.Glob(filepath.Join(work, "walship-rescue-*", "data", "postmaster.pid"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the scratch server's files: %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // ProcessState says how it ended
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said.String(), "stopped by signal: interrupt") {
		t.Errorf("interrupted: exit code %d\n%s", code, said.String())
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the scratch server, process %d: %v", pid, err)
	}
	if entries, err := os.ReadDir(work); err != nil || len(entries) > 0 {
		t.Errorf("left in the work directory: %v, %v", entries, err)
	}
	pgtest.WaitFor(t, "pg_restore's session to end", func() bool {
		return c.SQL(t, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_restore'") == "0"
	})
	if _, err := other.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
}
