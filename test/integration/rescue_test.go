//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/rescue"
	"github.com/walship/walship/test/pgtest"
)

// TestRescue brings a dropped table back into the server that it was dropped
// from, which keeps running: with its rows, indexes, sequence and privileges.
func TestRescue(t *testing.T) {
	t.Parallel()
	for _, major := range []pgtest.Major{15, 17, 18} {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, major, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
			testRescue(t, s)
		})
	}
}

func testRescue(t *testing.T, s *site) {
	c := s.cluster
	space := pgtest.MkdirNobody(t, s.dir, "space")
	c.Exec(t, "CREATE TABLESPACE fast LOCATION '"+space+"'", "CREATE ROLE clerk",
		`CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "what's" text) TABLESPACE fast`,
		`CREATE INDEX orders_what ON orders (lower("what's"))`, "GRANT SELECT ON orders TO clerk",
		"CREATE TABLE items (of bigint REFERENCES orders)", "CREATE TABLE other (id int)")
	s.backup(t, c)
	c.Exec(t, `INSERT INTO orders ("what's") SELECT 'thing ' || i FROM generate_series(1, 1000) i`)
	described := func(schema string) string {
		return c.SQL(t, `SELECT string_agg(pg_get_indexdef(indexrelid), ' ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = $1::regclass`, schema+".orders") +
			c.SQL(t, `SELECT has_table_privilege('clerk', $1, 'SELECT')::text || (SELECT sum(hashtext(o::text)) FROM orders o)`, schema+".orders")
	}
	want := described("public")
	c.Exec(t, "DROP TABLE orders CASCADE", "INSERT INTO other VALUES (1)")
	c.Archive(t)
	work := pgtest.MkdirNobody(t, s.dir, "work")
	call := func(args ...string) pgtest.Result {
		t.Helper()
		return s.try(t, append([]string{"rescue", "--table", "public.orders", "--before-drop", "--work-directory", work}, args...)...)
	}
	into := fmt.Sprintf("host=%s user=postgres dbname=postgres", c.SocketDir)
	result := call("--into", into, "--json")
	if result.Code != 0 {
		t.Fatalf("rescue: exit code %d\n%s", result.Code, result.Stderr)
	}
	var out rescue.Result
	if err := json.Unmarshal([]byte(result.Stdout), &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Tables) != 1 || out.Tables[0].Rows != 1000 || !strings.Contains(strings.Join(out.Notes, "\n"), "ALTER TABLE public.items ADD CONSTRAINT items_of_fkey") {
		t.Errorf("result %+v", out)
	}
	if got := described("public"); got != want {
		t.Errorf("the table is %q, was %q", got, want)
	}
	// WAL has a sequence up to 32 values ahead of what was taken.
	if got := c.SQL(t, `INSERT INTO orders ("what's") VALUES ('next') RETURNING id BETWEEN 1001 AND 1033`); got != "t" && got != "true" {
		t.Errorf("the sequence gives a value from 1001 to 1033: %s", got)
	}
	// Nothing is loaded over what is there, but into another schema, or a file.
	if result := call("--into", into); result.Code != 4 || !strings.Contains(result.Stderr, "nothing is loaded over it") {
		t.Errorf("rescue over a table: exit code %d\n%s", result.Code, result.Stderr)
	}
	if result := call("--into", into, "--into-schema", "rescued"); result.Code != 0 {
		t.Errorf("rescue into another schema: exit code %d\n%s", result.Code, result.Stderr)
	}
	if got := c.SQL(t, "SELECT count(*) FROM rescued.orders") + " " + c.SQL(t, "SELECT count(*) FROM orders"); got != "1000 1001" {
		t.Errorf("rows: %s", got)
	}
	if entries, err := os.ReadDir(work); err != nil || len(entries) > 0 {
		t.Errorf("left in the work directory: %v, %v", entries, err)
	}
	if s.cluster.Major != 15 {
		return
	}
	file := filepath.Join(s.dir, "orders.sql")
	if result := call("--to-file", file); result.Code != 0 {
		t.Errorf("rescue into a file: exit code %d\n%s", result.Code, result.Stderr)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "thing 1000") {
		t.Errorf("the file has %d bytes, %v", len(text), err)
	}
	if result := s.try(t, "rescue", "--table", "never", "--before-drop", "--into", into); result.Code != 1 || !strings.Contains(result.Stderr, "none of table public.never") {
		t.Errorf("rescue of what was never dropped: exit code %d\n%s", result.Code, result.Stderr)
	}
}
