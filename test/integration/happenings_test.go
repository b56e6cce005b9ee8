//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
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
			name:  "altered, then truncated",
			setup: []string{"CREATE TABLE emptied (id int)", "INSERT INTO emptied VALUES (1)"},
			do:    []string{"ALTER TABLE emptied ALTER id TYPE bigint", "TRUNCATE emptied"}, want: []string{"truncate table emptied"}, rows: "SELECT count(*) FROM emptied",
		}, {
			name:  "truncated, then altered",
			setup: []string{"CREATE TABLE cleared (id int)", "INSERT INTO cleared VALUES (1)"},
			do:    []string{"TRUNCATE cleared", "ALTER TABLE cleared ALTER id TYPE bigint"}, want: []string{"truncate table cleared"}, rows: "SELECT count(*) FROM cleared",
		}, {
			name:  "refresh",
			setup: []string{"CREATE MATERIALIZED VIEW seen AS SELECT id FROM customers"},
			do:    []string{"REFRESH MATERIALIZED VIEW seen"}, want: []string{"rewrite materialized view seen"},
		}, {
			name: "drop schema",
			setup: []string{"CREATE SCHEMA shop", `CREATE TABLE shop."Wares" (id serial PRIMARY KEY, note text)`, "CREATE TABLE shop.parts (id int) PARTITION BY LIST (id)",
				"CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES IN (1)", `INSERT INTO shop."Wares" (note) SELECT 'x' FROM generate_series(1, 50)`, "CHECKPOINT"},
			do:      []string{"DROP SCHEMA shop CASCADE"},
			want:    []string{"drop partitioned table shop.parts", "drop sequence shop.Wares_id_seq", "drop table shop.Wares", "drop table shop.parts_1"},
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
