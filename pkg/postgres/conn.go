// Package postgres talks to a running PostgreSQL server, 13 or later: it
// connects as libpq would, asks for the facts that a backup depends on, and
// starts and stops a base backup in a session of its own. A backup that isn't
// stopped ends with its connection, without a trace on the server.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// OldestVersion is the oldest server, as server_version_num says it, that
// this package works with.
const OldestVersion = 130000

// Conn is one session. Its methods may be called from several goroutines;
// they run one after the other. A call whose context ends closes the session.
type Conn struct {
	mu      sync.Mutex
	pg      *pgconn.PgConn
	user    string
	version int
}

// closeTimeout bounds the goodbye to a server that may no longer answer.
const closeTimeout = 3 * time.Second

// Connect opens a session by a conninfo string or a URL. What it leaves open
// is taken from libpq's environment variables, service and password files, as
// psql does; the database is "postgres" when nothing names one. The session is
// made ready for a long backup: no timeout of the server's applies to it and
// no schema but pg_catalog is searched.
func Connect(ctx context.Context, conninfo string) (*Conn, error) {
	config, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return nil, parseError(conninfo, err)
	}
	if config.Database == "" {
		config.Database = "postgres"
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "walship"
	}
	// Bytes as the server has them: a backup's label is kept byte for byte.
	config.RuntimeParams["client_encoding"] = "SQL_ASCII"
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	c := &Conn{pg: pg, user: config.User}
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// parseError says what is wrong with conninfo without repeating a secret.
func parseError(conninfo string, err error) error {
	if strings.Contains(strings.ToLower(conninfo), "pass") || strings.Contains(conninfo, "://") {
		return errors.New("parse the PostgreSQL connection: it is neither a valid conninfo string (host=… user=…) nor a valid URL (postgres://…), or a file that it names can't be read")
	}
	return fmt.Errorf("parse the PostgreSQL connection: %w", err)
}

// prepare sets the session up and learns the server's version.
func (c *Conn) prepare(ctx context.Context) error {
	// Which of these settings exist depends on the major.
	const quiet = `SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
		WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout',
			'idle_session_timeout', 'idle_in_transaction_session_timeout')`
	rows, err := c.query(ctx, `SELECT pg_catalog.set_config('search_path', '', false),
		pg_catalog.current_setting('server_version_num')`)
	if err != nil {
		return fmt.Errorf("set up the session: %w", err)
	}
	if c.version, err = number[int](rows[0][1]); err != nil {
		return fmt.Errorf("read server_version_num: %w", err)
	}
	if c.version < OldestVersion {
		return fmt.Errorf("the server is PostgreSQL %s: walship needs %d or later", VersionString(c.version), OldestVersion/10000)
	}
	if _, err := c.query(ctx, quiet); err != nil {
		return fmt.Errorf("set up the session: %w", err)
	}
	return nil
}

// VersionString writes a server_version_num as people do: 150018 is 15.18.
func VersionString(num int) string {
	if num < 100000 {
		return fmt.Sprintf("%d.%d.%d", num/10000, num/100%100, num%100)
	}
	return fmt.Sprintf("%d.%d", num/10000, num%10000)
}

// Version is the server's server_version_num: 150018 for 15.18.
func (c *Conn) Version() int { return c.version }

// Ping asks the server for an answer. An error means that the session, and
// with it a backup that it started, is gone.
func (c *Conn) Ping(ctx context.Context) error {
	_, err := c.query(ctx, "SELECT 1")
	return err
}

// Close ends the session, and aborts a backup that wasn't stopped.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.pg.Close(ctx)
}

// query runs one statement and returns its rows as text; a NULL is nil. A
// statement that is expected to return a row always does.
func (c *Conn) query(ctx context.Context, sql string, args ...string) ([][][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	params := make([][]byte, len(args))
	for i, arg := range args {
		params[i] = []byte(arg)
	}
	result := c.pg.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	if result.Err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return result.Rows, result.Err
}

// code returns the SQLSTATE of a server's error, or "".
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// NoDatabase tells whether a connection was refused because there is no
// database of that name.
func NoDatabase(err error) bool { return code(err) == "3D000" }

const insufficientPrivilege = "42501"
