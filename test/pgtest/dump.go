package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Dump writes down everything that a database holds, as text: two databases
// are equal if their dumps are. It is pg_dump's text where the major has it,
// else the definitions from the catalogues and an ordered COPY of every table.
//
// Two things are left out, because no recovery brings them back: the rows of
// unlogged tables, and how far sequences have counted. PostgreSQL logs a
// sequence up to 32 values ahead, so after a recovery it may continue behind
// a gap; Sequences returns the values for a test to compare by order.
func (c *Cluster) Dump(t testing.TB, database string) string {
	t.Helper()
	if c.HasTool("pg_dump") {
		cmd := c.Tool(t.Context(), t, "pg_dump", "--no-unlogged-table-data", "--no-sync", "--dbname="+c.ConnString(database))
		return stable(MustRun(t, cmd))
	}
	conn := c.Conn(t, database)
	text, err := dump(t.Context(), conn)
	if err != nil {
		t.Fatalf("dump %s: %v", database, err)
	}
	return text
}

// Sequences returns the last value of every sequence of a database, by its
// qualified name. One that was never used is left out.
func (c *Cluster) Sequences(t testing.TB, database string) map[string]int64 {
	t.Helper()
	rows, err := c.Conn(t, database).Query(t.Context(), `SELECT format('%I.%I', schemaname, sequencename), last_value
		FROM pg_sequences WHERE last_value IS NOT NULL`)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]int64{}
	var name string
	var value int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error { values[name] = value; return nil }); err != nil {
		t.Fatalf("read the sequences of %s: %v", database, err)
	}
	return values
}

// stable drops the lines of pg_dump's text that differ between two dumps of
// equal databases: the random key of \restrict, and setval.
func stable(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, `\restrict `) && !strings.HasPrefix(line, `\unrestrict `) &&
			!strings.HasPrefix(line, "SELECT pg_catalog.setval(") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// notSystem restricts a catalogue's rows to those of users' schemas.
const notSystem = `n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`

// definitions are queries whose rows together define a database's objects.
var definitions = []struct{ what, query string }{
	{"database", `SELECT pg_encoding_to_char(encoding), datcollate, datctype, datacl FROM pg_database WHERE datname = current_database()`},
	{"settings", `SELECT setdatabase = 0, setrole::regrole, setconfig FROM pg_db_role_setting
		WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1, 2`},
	{"roles", `SELECT rolname, rolsuper, rolcanlogin, rolreplication, rolconnlimit FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1`},
	{"schemas", `SELECT nspname, nspowner::regrole, nspacl FROM pg_namespace n WHERE ` + notSystem + ` ORDER BY 1`},
	{"extensions", `SELECT extname, extversion FROM pg_extension ORDER BY 1`},
	{"relations", `SELECT n.nspname, c.relname, c.relkind, c.relpersistence, c.relowner::regrole, c.relacl, c.reloptions, c.relrowsecurity,
			s.spcname, pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
			(SELECT array_agg(inhparent::regclass ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
		WHERE ` + notSystem + ` ORDER BY 1, 2`},
	{"columns", `SELECT n.nspname, c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
			a.attgenerated, a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid), a.attacl
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attnum > 0 AND NOT a.attisdropped AND ` + notSystem + ` ORDER BY 1, 2, 3`},
	{"indexes", `SELECT n.nspname, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisclustered, i.indisreplident
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE ` + notSystem + ` ORDER BY 1, 2`},
	{"constraints", `SELECT n.nspname, o.conrelid::regclass, o.contypid::regtype, o.conname, pg_get_constraintdef(o.oid)
		FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace WHERE ` + notSystem + ` ORDER BY 1, 2::text, 3::text, 4`},
	{"views", `SELECT n.nspname, c.relname, pg_get_viewdef(c.oid), c.relispopulated
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND ` + notSystem + ` ORDER BY 1, 2`},
	{"functions", `SELECT n.nspname, p.oid::regprocedure, pg_get_functiondef(p.oid), p.proacl
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind IN ('f', 'p', 'w') AND ` + notSystem + ` ORDER BY 1, 2::text`},
	{"triggers", `SELECT g.tgrelid::regclass, pg_get_triggerdef(g.oid), g.tgenabled FROM pg_trigger g WHERE NOT g.tgisinternal ORDER BY 1::text, 2`},
	{"rules", `SELECT n.nspname, c.relname, pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ` + notSystem + ` ORDER BY 1, 2, 3`},
	{"types", `SELECT n.nspname, y.typname, y.typtype, format_type(y.typbasetype, y.typtypmod),
			(SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = y.oid)
		FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace WHERE y.typtype IN ('e', 'd', 'c', 'r') AND ` + notSystem + ` ORDER BY 1, 2`},
	{"sequences", `SELECT schemaname, sequencename, data_type, start_value, min_value, max_value, increment_by, cycle, cache_size
		FROM pg_sequences ORDER BY 1, 2`},
	{"comments", `SELECT classoid::regclass, pg_describe_object(classoid, objoid, objsubid), description
		FROM pg_description WHERE objoid >= 16384 ORDER BY 1::text, 2`},
	{"large objects", `SELECT loid, pageno, encode(data, 'hex') FROM pg_largeobject ORDER BY 1, 2`},
}

func dump(ctx context.Context, conn *pgx.Conn) (string, error) {
	var text strings.Builder
	for _, d := range definitions {
		rows, err := queryText(ctx, conn, d.query)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", d.what, err)
		}
		fmt.Fprintf(&text, "-- %s\n%s\n", d.what, rows)
	}
	tables, err := conn.Query(ctx, `SELECT format('%I.%I', n.nspname, c.relname)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND c.relpersistence = 'p' AND `+notSystem+` ORDER BY 1`)
	if err != nil {
		return "", fmt.Errorf("list tables: %w", err)
	}
	names, err := pgx.CollectRows(tables, pgx.RowTo[string])
	if err != nil {
		return "", fmt.Errorf("list tables: %w", err)
	}
	for _, name := range names {
		var rows bytes.Buffer
		// Sorted by the whole row's text, because not every table has a key.
		copied := `COPY (SELECT * FROM ` + name + ` AS whole ORDER BY whole::text COLLATE "C") TO STDOUT`
		if _, err := conn.PgConn().CopyTo(ctx, &rows, copied); err != nil {
			return "", fmt.Errorf("copy table %s: %w", name, err)
		}
		fmt.Fprintf(&text, "-- rows of %s\n%s", name, rows.Bytes())
	}
	return text.String(), nil
}
