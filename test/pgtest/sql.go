package pgtest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// ConnString is how a client on this machine connects to a database of the
// cluster as its superuser, in libpq's form.
func (c *Cluster) ConnString(database string) string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable", c.SocketDir, c.Port, connValue(database))
}

func connValue(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

func (c *Cluster) tryConnect(ctx context.Context, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(c.ConnString(database))
	if err != nil {
		return nil, err
	}
	// Everything travels as text, in one message, as psql sends it.
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(ctx, config)
}

// Conn opens a connection to a database, which is closed at the end of the
// test, before the server is stopped.
func (c *Cluster) Conn(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	conn, err := c.tryConnect(t.Context(), database)
	if err != nil {
		t.Fatalf("connect to %s: %v", database, err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server may be gone
	return conn
}

// SQL runs one query in the database postgres and returns its rows as psql -At
// prints them: a line for each, values joined by "|", NULL as "\N", no newline
// at the end.
func (c *Cluster) SQL(t testing.TB, query string, args ...any) string {
	t.Helper()
	return c.SQLIn(t, "postgres", query, args...)
}

// SQLIn is SQL in another database.
func (c *Cluster) SQLIn(t testing.TB, database, query string, args ...any) string {
	t.Helper()
	text, err := c.query(t.Context(), database, query, args...)
	if err != nil {
		t.Fatalf("query %s: %v", query, err)
	}
	return text
}

// Exec runs statements in the database postgres, each in a transaction of its
// own.
func (c *Cluster) Exec(t testing.TB, statements ...string) {
	t.Helper()
	c.ExecIn(t, "postgres", statements...)
}

// ExecIn is Exec in another database.
func (c *Cluster) ExecIn(t testing.TB, database string, statements ...string) {
	t.Helper()
	conn, err := c.tryConnect(t.Context(), database)
	if err != nil {
		t.Fatalf("connect to %s: %v", database, err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("execute %s: %v", statement, err)
		}
	}
}

// Configure sets a parameter with ALTER SYSTEM and has the server read it.
func (c *Cluster) Configure(t testing.TB, name, value string) {
	t.Helper()
	c.Exec(t, "ALTER SYSTEM SET "+pgx.Identifier{name}.Sanitize()+" = '"+strings.ReplaceAll(value, "'", "''")+"'", "SELECT pg_reload_conf()")
}

func (c *Cluster) query(ctx context.Context, database, query string, args ...any) (string, error) {
	conn, err := c.tryConnect(ctx, database)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	return queryText(ctx, conn, query, args...)
}

func queryText(ctx context.Context, conn *pgx.Conn, query string, args ...any) (string, error) {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		values := make([]string, len(rows.RawValues()))
		for i, value := range rows.RawValues() {
			if values[i] = string(value); value == nil {
				values[i] = `\N`
			}
		}
		lines = append(lines, strings.Join(values, "|"))
	}
	return strings.Join(lines, "\n"), rows.Err()
}
