//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
)

// happening is something that someone did, and what a search must say of it.
type happening struct {
	name  string
	setup []string
	do    []string // in one transaction
	// relation is one whose row in pg_class has the transaction's id, where
	// the statement can't stand in a transaction block.
	relation string
	want     []string // change, kind and name of what lost its file, apart from indexes
	indexes  []string // change and name
	rows     string   // a query of what must be there right before; "" where nothing is lost

	xid, time, before string // as it was recorded
}

// happenings are done in this order.
func happenings() []*happening {
	return []*happening{
		{
			name:  "drop",
			setup: []string{"CREATE TABLE orders (id int PRIMARY KEY, note text)", "CREATE INDEX orders_note ON orders (note)", "INSERT INTO orders SELECT g, md5(g::text) FROM generate_series(1, 300) g"},
			do:    []string{"DROP TABLE orders"}, want: []string{"drop table orders"}, rows: "SELECT count(*), sum(id) FROM orders",
		}, {
			name:  "truncate",
			setup: []string{"CREATE TABLE customers (id int PRIMARY KEY, note text)", "INSERT INTO customers SELECT g, repeat('x', 50) FROM generate_series(1, 200) g"},
			do:    []string{"TRUNCATE customers", "INSERT INTO customers VALUES (1, 'new')"}, want: []string{"truncate table customers"},
			rows: "SELECT count(*), sum(id) FROM customers",
		}, {
			name:  "vacuum full",
			setup: []string{"CREATE TABLE swollen (id int PRIMARY KEY, note text)", "INSERT INTO swollen SELECT g, 'x' FROM generate_series(1, 200) g", "DELETE FROM swollen"},
			do:    []string{"VACUUM FULL swollen"}, relation: "swollen", want: []string{"rewrite table swollen"}, indexes: []string{"rewrite swollen_pkey"},
		}, {
			name: "cluster",
			do:   []string{"CLUSTER customers USING customers_pkey"}, want: []string{"rewrite table customers"}, indexes: []string{"rewrite customers_pkey"},
		}, {
			name: "reindex",
			do:   []string{"REINDEX INDEX customers_pkey"}, indexes: []string{"rewrite customers_pkey"},
		}, {
			name:  "alter table",
			setup: []string{"CREATE TABLE typed (id int)", "INSERT INTO typed VALUES (1)"},
			do:    []string{"ALTER TABLE typed ALTER id TYPE bigint"}, want: []string{"rewrite table typed"},
		}, {
			name:  "refresh",
			setup: []string{"CREATE MATERIALIZED VIEW seen AS SELECT id FROM customers"},
			do:    []string{"REFRESH MATERIALIZED VIEW seen"}, want: []string{"rewrite materialized view seen"},
		}, {
			name: "drop schema",
			setup: []string{"CREATE SCHEMA shop", `CREATE TABLE shop."Wares" (id serial PRIMARY KEY, note text)`, "CREATE TABLE shop.parts (id int) PARTITION BY LIST (id)",
				"CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES IN (1)", `INSERT INTO shop."Wares" (note) SELECT 'x' FROM generate_series(1, 50)`, "CHECKPOINT"},
			do:      []string{"DROP SCHEMA shop CASCADE"},
			want:    []string{"drop sequence shop.Wares_id_seq", "drop table shop.Wares", "drop table shop.parts_1"},
			indexes: []string{"drop Wares_pkey"},
			rows:    `SELECT count(*) FROM shop."Wares"`,
		}, {
			name:  "subtransactions",
			setup: []string{"CREATE TABLE sub_1 (id int)", "CREATE TABLE sub_2 (id int)", "INSERT INTO sub_1 VALUES (1)"},
			do:    []string{"SAVEPOINT a", "DROP TABLE sub_1", "RELEASE a", "SAVEPOINT b", "DROP TABLE sub_2", "ROLLBACK TO b"},
			want:  []string{"drop table sub_1"}, rows: "SELECT count(*) FROM sub_1",
		}, {
			name:  "rolled back",
			setup: []string{"CREATE TABLE kept (id int)"},
			do:    []string{"DROP TABLE kept", "ROLLBACK"},
		}, {
			name: "temporary",
			do:   []string{"CREATE TEMP TABLE scratch (id int)", "INSERT INTO scratch VALUES (1)", "DROP TABLE scratch"},
		}, {
			name: "made and dropped",
			do:   []string{"CREATE TABLE fleeting (id int)", "DROP TABLE fleeting"},
		}, {
			name:  "renamed before",
			setup: []string{"CREATE TABLE former (id int)", "INSERT INTO former VALUES (1)", "ALTER TABLE former RENAME TO latter"},
			do:    []string{"DROP TABLE latter"}, want: []string{"drop table latter"}, rows: "SELECT count(*) FROM latter",
		}, {
			name:  "prepared",
			setup: []string{"CREATE TABLE promised (id int)", "INSERT INTO promised VALUES (1)"},
			do:    []string{"DROP TABLE promised", "PREPARE TRANSACTION 'promise'"}, want: []string{"drop table promised"}, rows: "SELECT count(*) FROM promised",
		}, {
			name:  "slow",
			setup: []string{"CREATE TABLE waited (id int)", "INSERT INTO waited VALUES (1)"},
			do:    []string{"DROP TABLE waited", "-- checkpoints"}, want: []string{"drop table waited"}, rows: "SELECT count(*) FROM waited",
		}, {
			name: "vacuum full of pg_class",
			do:   []string{"VACUUM FULL pg_class"}, want: []string{"rewrite  "},
		}, {
			name:  "drop after that",
			setup: []string{"CREATE TABLE after_it (id int)", "INSERT INTO after_it VALUES (1)", "CHECKPOINT"},
			do:    []string{"DROP TABLE after_it"}, want: []string{"drop table after_it"}, rows: "SELECT count(*) FROM after_it",
		}, {
			name:  "drop database",
			setup: []string{"CREATE DATABASE elsewhere"},
			do:    []string{"DROP DATABASE elsewhere"}, want: []string{"drop database "},
			rows: "SELECT count(*) FROM pg_database WHERE datname = 'elsewhere'",
		},
	}
}

// busySite is a site where others are at work.
type busySite struct {
	*site
	quiet sync.RWMutex // held by whoever wants them to pause
}

// TestSearch tells who dropped what, on every major, and goes back to right
// before it with the flags that the search prints.
func TestSearch(t *testing.T) {
	settings := map[pgtest.Major][]pgtest.Option{
		14: {pgtest.Set("wal_compression", "on")},
		15: {pgtest.Set("wal_compression", "lz4")},
		16: {pgtest.Set("wal_level", "logical"), pgtest.Set("wal_compression", "pglz")},
		17: {pgtest.Set("wal_compression", "zstd")},
		18: {pgtest.Checksums(true)},
	}
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			options := append(settings[major], pgtest.SegmentSize(1), pgtest.Set("track_commit_timestamp", "on"), pgtest.Set("max_prepared_transactions", "5"))
			s := &busySite{site: newSite(t, major, siteOptions{encrypted: major%2 == 1, cluster: options})}
			s.walship(t, "backup", "push")
			done := happenings()
			stop := s.work(t)
			for _, h := range done {
				s.do(t, h)
			}
			stop()
			s.cluster.Exec(t, "CREATE TABLE last (id int)", "SELECT pg_create_restore_point('at the end')")
			s.cluster.Exec(t, "CHECKPOINT")
			s.cluster.Archive(t)
			found := s.dropped(t)
			compareSearch(t, found, done)
			s.checkSpans(t, found, done)
			s.checkControl(t)
			s.checkRecords(t)
			for i, h := range done {
				// One each, and all of them once.
				if h.rows != "" && (major == 15 || full() || i == int(major)%2) {
					s.goBack(t, h, found)
				}
			}
		})
	}
}

// work does what others do all the time, several transactions at once, until
// it is told to stop.
func (s *busySite) work(t *testing.T) (stop func()) {
	s.cluster.Exec(t, "CREATE TABLE counters (id int PRIMARY KEY, n int)", "INSERT INTO counters SELECT g, 0 FROM generate_series(1, 50) g")
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range 2 {
		conn := s.cluster.Conn(t, "postgres")
		group.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				s.quiet.RLock()
				_, err := conn.Exec(t.Context(), fmt.Sprintf("UPDATE counters SET n = n + 1 WHERE id = %d", n%50+1))
				s.quiet.RUnlock()
				if err != nil {
					t.Errorf("work: %v", err)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		group.Wait()
	}
}

// do does it, and notes its transaction and time.
func (s *busySite) do(t *testing.T, h *happening) {
	t.Helper()
	c := s.cluster
	c.Exec(t, h.setup...)
	c.Exec(t, "CREATE TABLE IF NOT EXISTS load (id int, note text)", "INSERT INTO load SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 2500) g")
	if h.rows != "" {
		h.before = c.SQL(t, h.rows)
	}
	if h.relation != "" || len(h.do) == 1 && (strings.HasPrefix(h.do[0], "VACUUM") || strings.HasPrefix(h.do[0], "DROP DATABASE")) {
		s.quiet.Lock()
		defer s.quiet.Unlock()
		next := c.SQL(t, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
		c.Exec(t, h.do...)
		h.xid = next
		if h.relation != "" {
			h.xid = c.SQL(t, "SELECT xmin FROM pg_class WHERE relname = $1", h.relation)
		}
	} else {
		h.xid = s.transact(t, h.do)
	}
	if len(h.want)+len(h.indexes) > 0 {
		h.time = c.SQL(t, "SELECT to_char(pg_xact_commit_timestamp($1::text::xid) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')", h.xid)
	}
}

// transact runs statements in one transaction and returns its id.
func (s *site) transact(t *testing.T, statements []string) (xid string) {
	t.Helper()
	conn := s.cluster.Conn(t, "postgres")
	exec := func(statement string) {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("execute %s: %v", statement, err)
		}
	}
	exec("BEGIN")
	if err := conn.QueryRow(t.Context(), "SELECT pg_current_xact_id()::xid::text").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	for _, statement := range statements {
		if statement == "-- checkpoints" {
			for range 2 {
				s.cluster.Exec(t, "INSERT INTO load SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 5000) g", "CHECKPOINT")
			}
			continue
		}
		exec(statement)
	}
	if conn.PgConn().TxStatus() == 'T' {
		exec("COMMIT")
	}
	if last := statements[len(statements)-1]; strings.HasPrefix(last, "PREPARE") {
		s.cluster.Exec(t, "INSERT INTO load SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 5000) g", "CHECKPOINT")
		exec(strings.Replace(last, "PREPARE TRANSACTION", "COMMIT PREPARED", 1))
	}
	return xid
}

type foundEvent struct {
	Kind      string
	Time      time.Time
	XID       uint32
	LSN       string
	Redo      string `json:"redo_lsn"`
	Name      string
	Relations []foundRelation
	Restore   []string `json:"restore_flags"`
}

type foundRelation struct {
	Change, Kind, Schema, Name string
	Parts                      []foundRelation
}

// search runs walship wal search and returns its events by their xid.
func (s *site) search(t *testing.T, args ...string) []foundEvent {
	t.Helper()
	result := s.walship(t, append([]string{"wal", "search", "--json"}, args...)...)
	var output struct{ Events []foundEvent }
	if err := json.Unmarshal([]byte(result.Stdout), &output); err != nil {
		t.Fatalf("%v in\n%s", err, result.Stdout)
	}
	return output.Events
}

func (s *site) dropped(t *testing.T, args ...string) map[string]foundEvent {
	t.Helper()
	found := map[string]foundEvent{}
	for _, event := range s.search(t, append([]string{"--dropped"}, args...)...) {
		xid := fmt.Sprint(event.XID)
		if _, twice := found[xid]; twice {
			t.Errorf("transaction %s is there twice", xid)
		}
		found[xid] = event
	}
	return found
}

// compareSearch holds what was found against what was done.
func compareSearch(t *testing.T, found map[string]foundEvent, done []*happening) {
	t.Helper()
	for _, h := range done {
		if len(h.want)+len(h.indexes) == 0 {
			if event, ok := found[h.xid]; ok {
				t.Errorf("%s: transaction %s dropped nothing, found is %+v", h.name, h.xid, event)
			}
			continue
		}
		event, ok := found[h.xid]
		if !ok {
			t.Errorf("%s: transaction %s isn't found", h.name, h.xid)
			continue
		}
		if got := event.Time.Format("2006-01-02T15:04:05.000000"); got != h.time {
			t.Errorf("%s: the time is %s, want %s", h.name, got, h.time)
		}
		var relations, indexes []string
		var collect func(list []foundRelation)
		collect = func(list []foundRelation) {
			for _, r := range list {
				name := r.Name
				if r.Schema != "" && r.Schema != "public" && r.Schema != "pg_toast" {
					name = r.Schema + "." + name
				}
				switch r.Kind {
				case "index":
					if !strings.HasPrefix(r.Name, "pg_toast_") {
						indexes = append(indexes, r.Change+" "+r.Name)
					}
				case "TOAST table":
				default:
					relations = append(relations, r.Change+" "+r.Kind+" "+name)
				}
				collect(r.Parts)
			}
		}
		collect(event.Relations)
		slices.Sort(relations)
		slices.Sort(indexes)
		if h.name == "vacuum full of pg_class" {
			relations = slices.Compact(relations) // its indexes too
		}
		if !slices.Equal(relations, h.want) {
			t.Errorf("%s: found is %q, want %q\n%+v", h.name, relations, h.want, event)
		}
		if h.indexes != nil && !slices.Equal(indexes, h.indexes) {
			t.Errorf("%s: indexes found are %q, want %q", h.name, indexes, h.indexes)
		}
		if (h.rows != "") != (event.Restore != nil) {
			t.Errorf("%s: restore flags are %q", h.name, event.Restore)
		}
		delete(found, h.xid)
		defer func() { found[h.xid] = event }()
	}
	for xid, event := range found {
		t.Errorf("transaction %s is found: %+v", xid, event)
	}
}

// checkSpans searches around one transaction only, and for all by themselves.
func (s *site) checkSpans(t *testing.T, found map[string]foundEvent, done []*happening) {
	t.Helper()
	for _, h := range done {
		event, ok := found[h.xid]
		if !ok {
			continue
		}
		at := event.Time.Format(time.RFC3339Nano)
		for _, span := range [][]string{{"--from-time", at, "--to-time", at}, {"--from-lsn", event.LSN, "--to-lsn", event.LSN}, {"--xid", h.xid}} {
			one := s.dropped(t, span...)
			if got, want := one[h.xid], event; len(one) != 1 || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: a search in %q finds %+v, want %+v", h.name, span, one, want)
			}
		}
		if h.name == "vacuum full" {
			break // the others are alike
		}
	}
	commits := map[string]bool{}
	previous := ""
	for _, event := range s.search(t) {
		if strings.HasPrefix(event.Kind, "commit") {
			commits[fmt.Sprint(event.XID)] = true
		}
		if lsn := paddedLSN(event.LSN); lsn <= previous {
			t.Errorf("%s comes after %s", event.LSN, previous)
		} else {
			previous = lsn
		}
	}
	for _, h := range done {
		if h.time != "" && !commits[h.xid] {
			t.Errorf("%s: the commit of %s isn't found", h.name, h.xid)
		}
	}
}

// checkControl finds the last checkpoint and the restore point.
func (s *site) checkControl(t *testing.T) {
	t.Helper()
	var found []string
	for _, event := range s.search(t, "--checkpoints") {
		found = append(found, event.LSN+"|"+event.Redo)
	}
	if last := s.cluster.SQL(t, "SELECT checkpoint_lsn, redo_lsn FROM pg_control_checkpoint()"); !slices.Contains(found, last) {
		t.Errorf("checkpoint %s isn't among %q", last, found)
	}
	if points := s.search(t, "--restore-points"); len(points) != 1 || points[0].Name != "at the end" {
		t.Errorf("restore points: %+v", points)
	}
}

// waldump takes the columns of a line of pg_waldump's that walship has too.
var waldump = regexp.MustCompile(`^rmgr: (\S+) +len \(rec/tot\): +(\d+)/ *(\d+), tx: +(\d+), lsn: (\S+), prev (\S+),`)

// checkRecords holds the records of a segment against pg_waldump's.
func (s *site) checkRecords(t *testing.T) {
	t.Helper()
	if !s.cluster.HasTool("pg_waldump") {
		return
	}
	const name = "000000010000000000000008"
	columns := func(text string) (lines []string) {
		for line := range strings.Lines(text) {
			if m := waldump.FindStringSubmatch(line); m != nil {
				m[5], m[6] = paddedLSN(m[5]), paddedLSN(m[6])
				lines = append(lines, strings.Join(m[1:], " ")+fmt.Sprint(strings.Count(line, "blkref"), strings.Count(line, "FPW")))
			}
		}
		return lines
	}
	file := filepath.Join(pgtest.MkdirNobody(t, s.dir, "waldump"), name)
	s.walship(t, "wal", "fetch", "--postgres-data-directory", s.cluster.DataDir, name, file)
	// It fails where the last record goes on in the next segment.
	want := columns(pgtest.Run(t, s.cluster.Tool(t.Context(), t, "pg_waldump", file)).Stdout)
	got := columns(s.walship(t, "wal", "show", "--records", name).Stdout)
	if len(got) < 100 || !slices.Equal(got, want) {
		t.Errorf("records of %s: %d, pg_waldump has %d\n%s", name, len(got), len(want), diff(t, strings.Join(want, "\n"), strings.Join(got, "\n")))
	}
}

// paddedLSN makes LSNs comparable as strings.
func paddedLSN(lsn string) string {
	high, low, _ := strings.Cut(lsn, "/")
	return fmt.Sprintf("%8s/%8s", strings.TrimLeft(high, "0"), strings.TrimLeft(low, "0"))
}

// goBack restores to right before it, by the flags that the search says.
func (s *site) goBack(t *testing.T, h *happening, found map[string]foundEvent) {
	t.Helper()
	target := filepath.Join(s.dir, "before-"+strings.ReplaceAll(h.name, " ", "-"))
	s.walship(t, append([]string{"restore", "run", "--target-directory", target, "--target-action", "promote"}, found[h.xid].Restore...)...)
	restored := pgtest.Open(t, s.cluster.Major, target, pgtest.Env(s.env...))
	restored.Start(t)
	restored.WaitPromoted(t)
	if h.name == "prepared" {
		restored.Exec(t, "ROLLBACK PREPARED 'promise'") // still pending, with its locks
	}
	if got := restored.SQL(t, h.rows); got != h.before {
		t.Errorf("%s: right before it there are %s, restored are %s", h.name, h.before, got)
	}
	if h.name == "drop database" {
		restored.SQLIn(t, "elsewhere", "SELECT count(*) FROM pg_class")
	}
	restored.Stop(t, pgtest.Immediate)
}

// TestSearchMemory: what a search holds of segments doesn't follow their size.
func TestSearchMemory(t *testing.T) {
	s := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(64)}})
	for range 8 {
		s.cluster.Exec(t, "CREATE TABLE IF NOT EXISTS things (id int)", "TRUNCATE things")
		s.cluster.SwitchWAL(t)
	}
	s.cluster.Archive(t)
	for _, args := range [][]string{{"--dropped"}, {"--checkpoints"}, {}} {
		cmd := s.command(t, append([]string{"wal", "search"}, args...)...)
		if output, err := cmd.CombinedOutput(); err != nil || len(output) < 100 {
			t.Fatalf("search %q: %v\n%s", args, err, output)
		}
		const most = 256 << 10 // KiB
		if got := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss; got > most {
			t.Errorf("search %q of eight segments of 64 MiB takes %d KiB, more than %d", args, got, most)
		} else {
			t.Logf("search %q takes %d KiB", args, got)
		}
	}
}
