package rescue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/restore"
)

// carrier takes the objects from the scratch server to where they are wanted.
type carrier struct {
	request  Request
	server   *restore.Started
	programs string
	scratch  string
	log      *slog.Logger
	result   *Result
}

// check refuses what can be seen to go wrong before the restore.
func (q Request) check(ctx context.Context) error {
	if q.File != "" {
		if _, err := os.Lstat(q.File); err == nil {
			return &ExistsError{fmt.Sprintf("%s is there already: give the name of a new file", q.File)}
		}
		return nil
	}
	target, err := q.connect(ctx)
	if err != nil {
		return err
	}
	return errors.Join(q.checkTarget(ctx, target, q.landing(q.Tables)), target.Close())
}

// landing is what tables are called where they are loaded.
func (q Request) landing(tables []Name) []Name {
	var all []Name
	for _, t := range tables {
		if q.IntoSchema != "" {
			t.Schema = q.IntoSchema
		}
		all = append(all, t)
	}
	return all
}

// checkTarget refuses to load over anything.
func (q Request) checkTarget(ctx context.Context, target *postgres.Conn, tables []Name) error {
	for _, t := range tables {
		rows, err := target.Exec(ctx, "SELECT to_regclass($1) IS NOT NULL", t.String())
		if err != nil {
			return fmt.Errorf("look for table %s where it is to be loaded: %w", t, err)
		}
		if string(rows[0][0]) == "t" {
			return &ExistsError{fmt.Sprintf("there is a table %s already where it is to be loaded, and nothing is loaded over it: rename it, load into another schema with --into-schema, or write it to a file", t)}
		}
	}
	for _, schema := range q.Schemas {
		rows, err := target.Exec(ctx, "SELECT to_regnamespace($1) IS NOT NULL", quoteIdentifier(schema))
		if err != nil {
			return fmt.Errorf("look for schema %q where it is to be loaded: %w", schema, err)
		}
		if string(rows[0][0]) == "t" && schema != "public" {
			return &ExistsError{fmt.Sprintf("there is a schema %q already where it is to be loaded, and nothing is loaded over it: rename it, load single tables, or write it to a file", schema)}
		}
	}
	return nil
}

func (c *carrier) carry(ctx context.Context) (err error) {
	source, err := postgres.Connect(ctx, c.server.Conninfo(c.request.Database))
	if postgres.NoDatabase(err) {
		return fmt.Errorf("the cluster had no database %q at that moment: say with --database which one the tables were in", c.request.Database)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	if err := c.checkDatabase(ctx, source); err != nil {
		return err
	}
	tables, err := c.tables(ctx, source)
	if err != nil {
		return err
	}
	if err := c.note(ctx, source, tables); err != nil {
		return err
	}
	if err := c.move(ctx, source); err != nil {
		return err
	}
	tables = c.request.landing(tables)
	if err := c.count(ctx, source, tables); err != nil {
		return err
	}
	if c.request.File != "" {
		return c.write(ctx)
	}
	return c.load(ctx, tables)
}

// checkDatabase refuses to take tables of one database for those that were dropped
// in another: the moment isn't theirs.
func (c *carrier) checkDatabase(ctx context.Context, source *postgres.Conn) error {
	if c.request.dropped == 0 {
		return nil
	}
	rows, err := source.Exec(ctx, "SELECT d.datname, d.datname = current_database() FROM pg_catalog.pg_database d WHERE d.oid = $1", strconv.FormatUint(uint64(c.request.dropped), 10))
	if err != nil || len(rows) == 1 && string(rows[0][1]) == "t" {
		return err
	}
	name := "one that isn't there any more"
	if len(rows) == 1 {
		name = strconv.Quote(string(rows[0][0]))
	}
	return fmt.Errorf("the last drop of a table of that name was in another database than %q: in %s, with the OID %d; say with --database that this one is meant, or choose a moment with --to-time", c.request.Database, name, c.request.dropped)
}

// tables lists the tables that are asked for, by name or by schema. Each must
// be in the restored database. From then on the request has by name all that
// inherits from those that it had, partitions above all: pg_dump leaves them
// behind.
func (c *carrier) tables(ctx context.Context, source *postgres.Conn) ([]Name, error) {
	var named []Name
	for _, t := range c.request.Tables {
		rows, err := source.Exec(ctx, "SELECT to_regclass($1) IS NOT NULL", t.String())
		if err != nil {
			return nil, err
		}
		if string(rows[0][0]) != "t" {
			return nil, fmt.Errorf("database %q had no table %s at that moment", c.request.Database, t)
		}
		heirs, err := family(ctx, source, t)
		if err != nil {
			return nil, err
		}
		for _, heir := range heirs {
			if !slices.Contains(named, heir) {
				named = append(named, heir)
			}
		}
	}
	c.request.Tables = named
	all := slices.Clone(named)
	for _, schema := range c.request.Schemas {
		rows, err := source.Exec(ctx, `SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY 1`, schema)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			return nil, fmt.Errorf("database %q had no tables in schema %q at that moment", c.request.Database, schema)
		}
		for _, row := range rows {
			if t := (Name{schema, string(row[0])}); !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
	}
	return all, nil
}

// family returns a table and what inherits from it, the table first.
func family(ctx context.Context, source *postgres.Conn, t Name) ([]Name, error) {
	rows, err := source.Exec(ctx, `WITH RECURSIVE family(oid, depth) AS (
			SELECT $1::regclass::oid, 0
			UNION SELECT inhrelid, depth + 1 FROM pg_catalog.pg_inherits JOIN family ON inhparent = family.oid)
		SELECT n.nspname, c.relname FROM family JOIN pg_catalog.pg_class c USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		GROUP BY 1, 2 ORDER BY min(depth), 1, 2`, t.String())
	if err != nil {
		return nil, fmt.Errorf("look for the partitions of %s: %w", t, err)
	}
	var all []Name
	for _, row := range rows {
		all = append(all, Name{string(row[0]), string(row[1])})
	}
	return all, nil
}

// note says which foreign keys of other tables and which views depended on the
// tables: they went with them, and belong to others.
func (c *carrier) note(ctx context.Context, source *postgres.Conn, tables []Name) error {
	var names []string
	for _, t := range tables {
		names = append(names, t.String())
	}
	list := "{" + strings.Join(quoteElements(names), ",") + "}"
	rows, err := source.Exec(ctx, `SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
		FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0
			AND confrelid = ANY ($1::text[]::regclass[]) AND conrelid <> ALL ($1::text[]::regclass[])
		UNION ALL
		SELECT DISTINCT format('CREATE %s %s AS %s', CASE v.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END, v.oid::regclass, pg_get_viewdef(v.oid))
		FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
		JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind IN ('m', 'v')
		WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1::text[]::regclass[]::oid[]) AND r.ev_class <> d.refobjid
		ORDER BY 1`, list)
	if err != nil {
		return fmt.Errorf("look for what depended on the tables: %w", err)
	}
	for _, row := range rows {
		c.result.Notes = append(c.result.Notes, "not brought back, because it is another's: "+strings.TrimSuffix(string(row[0]), ";"))
	}
	return nil
}

// quoteElements quotes the elements of an array's text.
func quoteElements(texts []string) []string {
	var all []string
	for _, text := range texts {
		all = append(all, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text)+`"`)
	}
	return all
}

// move moves the tables into another schema, on the scratch server, with their
// indexes, constraints and the sequences that they own.
func (c *carrier) move(ctx context.Context, source *postgres.Conn) error {
	if c.request.IntoSchema == "" {
		return nil
	}
	schema := quoteIdentifier(c.request.IntoSchema)
	if _, err := source.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+schema); err != nil {
		return fmt.Errorf("make schema %s: %w", schema, err)
	}
	for _, t := range c.request.Tables {
		if t.Schema == c.request.IntoSchema {
			continue
		}
		if _, err := source.Exec(ctx, "ALTER TABLE "+t.String()+" SET SCHEMA "+schema); err != nil {
			return fmt.Errorf("move table %s into schema %s: %w", t, schema, err)
		}
	}
	return nil
}

func (c *carrier) count(ctx context.Context, source *postgres.Conn, tables []Name) error {
	for _, t := range tables {
		n, err := countRows(ctx, source, t)
		if err != nil {
			return err
		}
		c.result.Tables = append(c.result.Tables, RescuedTable{t.String(), n})
	}
	return nil
}

func countRows(ctx context.Context, conn *postgres.Conn, t Name) (int64, error) {
	rows, err := conn.Exec(ctx, "SELECT count(*) FROM "+t.String())
	if err != nil {
		return 0, fmt.Errorf("count the rows of %s: %w", t, err)
	}
	return strconv.ParseInt(string(rows[0][0]), 10, 64)
}

// dump runs pg_dump for the objects.
func (c *carrier) dump(ctx context.Context, format string, to *os.File) error {
	args := []string{"--format=" + format, "--dbname=" + c.server.Conninfo(c.request.Database)}
	for _, t := range c.request.landing(c.request.Tables) {
		args = append(args, "--table="+t.String())
	}
	for _, schema := range c.request.Schemas {
		args = append(args, "--schema="+quoteIdentifier(schema))
	}
	return c.program(ctx, to, "pg_dump", args...)
}

func (c *carrier) program(ctx context.Context, to *os.File, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.programs, name), args...)
	// They end their sessions when they are interrupted, but not when killed.
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, interruptTimeout
	var said bytes.Buffer
	cmd.Stderr = &said
	if to != nil {
		cmd.Stdout = to
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(said.String()))
	}
	return nil
}

// write writes the objects into a new file: SQL where it is called so, else
// pg_dump's own format, for pg_restore.
func (c *carrier) write(ctx context.Context) error {
	format := "custom"
	if strings.HasSuffix(c.request.File, ".sql") {
		format = "plain"
	}
	file, err := os.OpenFile(c.request.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = c.dump(ctx, format, file)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(c.request.File))
	}
	return nil
}

// load loads the objects in one transaction, and counts their rows there.
func (c *carrier) load(ctx context.Context, tables []Name) (err error) {
	archive, err := os.Create(filepath.Join(c.scratch, "dump"))
	if err != nil {
		return err
	}
	if err := errors.Join(c.dump(ctx, "custom", archive), archive.Close()); err != nil {
		return err
	}
	target, err := postgres.Connect(ctx, c.request.Into)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := c.request.checkTarget(ctx, target, tables); err != nil {
		return err
	}
	for _, t := range c.request.landing(c.request.Tables) {
		schema := quoteIdentifier(t.Schema)
		rows, err := target.Exec(ctx, "SELECT to_regnamespace($1) IS NOT NULL", schema)
		if err == nil && string(rows[0][0]) != "t" {
			_, err = target.Exec(ctx, "CREATE SCHEMA "+schema)
		}
		if err != nil {
			return fmt.Errorf("make schema %s where it is to be loaded: %w", schema, err)
		}
	}
	if err := c.program(ctx, nil, "pg_restore", "--exit-on-error", "--single-transaction", "--dbname="+c.request.Into, archive.Name()); err != nil {
		return err
	}
	for i, t := range tables {
		n, err := countRows(ctx, target, t)
		if err != nil {
			return err
		}
		if want := c.result.Tables[i].Rows; n != want {
			return fmt.Errorf("table %s was loaded, and has %d rows now; it had %d", t, n, want)
		}
	}
	return nil
}
