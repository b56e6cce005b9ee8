//go:build integration

// Package integration runs walship as a user does: the built command, a real
// PostgreSQL, a directory or a real S3 server.
package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// scenario is one way through the main job: archive, back up, drop a table,
// be back at the second before.
type scenario struct {
	major     pgtest.Major
	store     string // "file" or a make of S3 server
	encrypted bool
	target    string // of targets
}

func (s scenario) String() string {
	encryption := "plain"
	if s.encrypted {
		encryption = "age"
	}
	return fmt.Sprintf("%d-%s-%s-%s", s.major, s.store, encryption, s.target)
}

// targets are the ways to say where recovery ends. Each notes, right before
// the accident, what its flags are; "before" ones are known only behind it.
var targets = map[string]func(t *testing.T, c *pgtest.Cluster) (flags func(accident string) []string){
	"time": func(t *testing.T, c *pgtest.Cluster) func(string) []string {
		at := c.SQL(t, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')")
		return func(string) []string { return []string{"--to-time", at} }
	},
	"lsn": func(t *testing.T, c *pgtest.Cluster) func(string) []string {
		at := c.SQL(t, "SELECT pg_current_wal_insert_lsn()")
		return func(string) []string { return []string{"--to-lsn", at, "--exclusive"} }
	},
	"xid": func(t *testing.T, c *pgtest.Cluster) func(string) []string {
		return func(accident string) []string { return []string{"--to-xid", accident, "--exclusive"} }
	},
	"name": func(t *testing.T, c *pgtest.Cluster) func(string) []string {
		c.SQL(t, "SELECT pg_create_restore_point('before it')")
		return func(string) []string { return []string{"--to-name", "before it"} }
	},
}

var targetNames = []string{"time", "lsn", "xid", "name"}

func storeNames() []string {
	names := []string{"file"}
	for _, make := range s3test.Makes() {
		names = append(names, string(make))
	}
	return names
}

// product is every scenario, for a full run.
func product() []scenario {
	var all []scenario
	for _, major := range pgtest.Majors() {
		for _, store := range storeNames() {
			for _, encrypted := range []bool{false, true} {
				for _, target := range targetNames {
					all = append(all, scenario{major, store, encrypted, target})
				}
			}
		}
	}
	return all
}

// choice is what a daily run takes of the product: each target at each store,
// in turn with and without encryption, through the majors.
func choice() []scenario {
	var some []scenario
	majors := pgtest.Majors()
	for _, target := range targetNames {
		for _, store := range storeNames() {
			n := len(some)
			some = append(some, scenario{majors[n%len(majors)], store, n%2 == 0, target})
		}
	}
	return some
}

// full says whether the tests run everything there is, not the daily choice.
func full() bool { return os.Getenv("WALSHIP_TEST_FULL") != "" }

// daily is the daily choice, and with what is left out of it where everything runs.
func daily[T any](choice []T, rest ...T) []T {
	if full() {
		return append(choice, rest...)
	}
	return choice
}

func TestStory(t *testing.T) {
	t.Parallel()
	servers := make(map[string]*s3test.Server)
	for _, make := range s3test.Makes() {
		servers[string(make)] = s3test.Start(t, make)
	}
	scenarios := choice()
	if full() {
		scenarios = product()
	}
	for _, s := range scenarios {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			tell(t, s, servers[s.store])
		})
	}
}

// tell runs one scenario and holds the restored rows against those of the
// moment before the accident.
func tell(t *testing.T, s scenario, server *s3test.Server) {
	site := newSite(t, s.major, siteOptions{server: server, encrypted: s.encrypted})
	c := site.cluster
	c.Exec(t, schema...)
	site.walship(t, "backup", "push", "--label", "nightly")

	c.Exec(t,
		"INSERT INTO orders (customer, amount) SELECT 'later ' || i, i FROM generate_series(1, 500) AS i",
		"UPDATE orders SET amount = amount + 1 WHERE id % 7 = 0",
		"DELETE FROM customers WHERE id % 11 = 0")
	want := c.Dump(t, "postgres")
	flags := targets[s.target](t, c)
	accident := dropOrders(t, c)
	c.Exec(t, "INSERT INTO customers (name) VALUES ('too late')")
	c.Archive(t)

	target := filepath.Join(site.dir, "restored")
	args := append(flags(accident), "--target-directory", target)
	plan := site.walship(t, append([]string{"restore", "plan"}, args...)...)
	if !strings.Contains(plan.Stdout, "000000010000000000000") {
		t.Errorf("the plan names no segment:\n%s", plan.Stdout)
	}
	if _, err := os.Lstat(target); err == nil {
		t.Fatal("the plan made the target directory")
	}
	site.walship(t, append([]string{"restore", "run"}, args...)...)
	site.verify(t, target)

	restored := pgtest.Open(t, s.major, target, pgtest.Env(site.env...))
	restored.Start(t)
	restored.WaitPaused(t)
	// The accident's transaction is still open here, and holds its locks.
	if got := restored.SQL(t, "SELECT count(*) FROM customers WHERE name = 'too late'"); got != "0" {
		t.Errorf("the paused database has %s rows of after the accident", got)
	}
	restored.Promote(t)
	if got := restored.SQL(t, "SHOW archive_mode"); got != "off" {
		t.Errorf("archive_mode of the clone is %s", got)
	}
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
	site.amcheck(t, restored)
}

// dropOrders is the accident; it returns its transaction's id.
func dropOrders(t *testing.T, c *pgtest.Cluster) (xid string) {
	t.Helper()
	conn := c.Conn(t, "postgres")
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "DROP TABLE orders CASCADE"); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(t.Context(), "SELECT pg_current_xact_id()::xid::text").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return xid
}

// schema makes tables of several kinds, with rows.
var schema = []string{
	"CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL)",
	"CREATE TABLE orders (id bigserial PRIMARY KEY, customer text, amount numeric, placed timestamptz DEFAULT now(), note text)",
	"CREATE INDEX ON orders (customer)",
	"CREATE INDEX ON orders USING hash (amount)",
	"CREATE VIEW large_orders AS SELECT * FROM orders WHERE amount > 900",
	"CREATE FUNCTION double(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n'",
	"CREATE UNLOGGED TABLE sessions (id int PRIMARY KEY)",
	"INSERT INTO customers (name) SELECT 'customer ' || i FROM generate_series(1, 1000) AS i",
	"INSERT INTO orders (customer, amount, note) SELECT 'customer ' || i, i, repeat(md5(i::text), 100) FROM generate_series(1, 2000) AS i",
	"INSERT INTO sessions SELECT generate_series(1, 100)",
}
