package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// PrivateServer is a server that nobody but its own user can reach: it has no
// TCP port, and its socket lies in a private folder, where whoever gets there
// is let in as whom they say.
type PrivateServer struct {
	Socket string // the folder of its socket; the port is PrivatePort
	PID    int
	exited chan struct{}
}

// PrivatePort is the port of private servers: a part of their socket's name.
const PrivatePort = 5432

// PrivateOptions say how a private server is started.
type PrivateOptions struct {
	Programs      string // the folder of PostgreSQL's programs
	DataDirectory string
	Socket        string   // an existing folder with a path of at most MaxSocket bytes
	Log           string   // the file that gets what it says
	Settings      []string // name=value, over those of its files
}

// MaxSocket is the longest path of a folder for sockets, in bytes: the kernel
// takes 107 for a socket, whose own name is short.
const MaxSocket = 90

// The pg_hba.conf of a private server, beside its socket, and the names of the
// folders where those lie.
const (
	privateAccessName = "pg_hba.conf"
	privateAccess     = "local all all trust\n"

	PrivateFolder       = "socket"          // in a restore's state directory
	PrivateFolderPrefix = "walship-socket-" // in the temporary folder
)

// IsPrivateAccess tells, by its place and its content, whether a file is the
// pg_hba.conf of a private server. It makes sense beside such a socket only:
// where others get to, it lets everybody in.
func IsPrivateAccess(name string, content []byte) bool {
	folder := filepath.Base(filepath.Dir(name))
	return filepath.Base(name) == privateAccessName && string(content) == privateAccess &&
		(folder == PrivateFolder || strings.HasPrefix(folder, PrivateFolderPrefix))
}

// StartPrivate starts a server, and leaves it to the caller to wait until it
// takes connections. It goes on when this process ends. Its messages are in
// English and unabridged, whatever its files say.
func StartPrivate(o PrivateOptions) (*PrivateServer, error) {
	if os.Geteuid() == 0 {
		return nil, errors.New("start PostgreSQL: it doesn't run as root: run walship as the user that is to run the server")
	}
	hba := filepath.Join(o.Socket, privateAccessName)
	if err := os.WriteFile(hba, []byte(privateAccess), 0o600); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	log, err := os.OpenFile(o.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	defer log.Close()
	args := []string{"-D", o.DataDirectory}
	// The last of several settings of one name counts.
	for _, setting := range append(slices.Clone(o.Settings),
		"listen_addresses=", "port="+strconv.Itoa(PrivatePort), "unix_socket_directories="+o.Socket, "unix_socket_permissions=0700",
		"hba_file="+hba, "ssl=off", "logging_collector=off", "log_destination=stderr", "log_min_messages=warning",
		"lc_messages=C", "log_line_prefix=%m [%p] ", "restart_after_crash=off") {
		args = append(args, "-c", setting)
	}
	cmd := exec.Command(filepath.Join(o.Programs, "postgres"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = o.DataDirectory, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is for walship
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	s := &PrivateServer{Socket: o.Socket, PID: cmd.Process.Pid, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(s.exited)
	}()
	return s, nil
}

// Exited is closed when the server has ended.
func (s *PrivateServer) Exited() <-chan struct{} { return s.exited }

// Conninfo is how to connect to the server.
func (s *PrivateServer) Conninfo(user, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", conninfoValue(s.Socket), PrivatePort, conninfoValue(user), conninfoValue(database))
}

// conninfoValue quotes a value of a conninfo string.
func conninfoValue(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// Stop stops the server: at once, without a checkpoint, where nobody is going
// to use its data directory any more.
func (s *PrivateServer) Stop(ctx context.Context, atOnce bool) error {
	signal := syscall.SIGINT
	if atOnce {
		signal = syscall.SIGQUIT
	}
	select {
	case <-s.exited:
		return nil
	default:
	}
	if err := syscall.Kill(s.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop PostgreSQL (process %d): %w", s.PID, err)
	}
	select {
	case <-s.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop PostgreSQL (process %d): %w", s.PID, context.Cause(ctx))
	}
}

// Programs returns the folder of a major's programs: the given one, or, where
// that is empty, the usual place, or where they are found by PATH. The server
// there must be of that major.
func Programs(ctx context.Context, major int, folder string) (string, error) {
	tries := []string{folder}
	if folder == "" {
		tries = []string{fmt.Sprintf("/usr/lib/postgresql/%d/bin", major), fmt.Sprintf("/usr/pgsql-%d/bin", major)}
		if path, err := exec.LookPath("postgres"); err == nil {
			tries = append(tries, filepath.Dir(path))
		}
	}
	var found []string
	for _, dir := range tries {
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		version := strings.TrimSpace(string(out)) // postgres (PostgreSQL) 15.18 (Debian …)
		if _, rest, ok := strings.Cut(version, "(PostgreSQL) "); ok && strings.HasPrefix(rest, strconv.Itoa(major)) && !strings.HasPrefix(rest[len(strconv.Itoa(major)):], "0") {
			return dir, nil
		}
		found = append(found, fmt.Sprintf("%s has %s", dir, version))
	}
	why := "none was found in " + strings.Join(tries, ", ")
	if len(found) > 0 {
		why = strings.Join(found, ", ")
	}
	return "", fmt.Errorf("find the programs of PostgreSQL %d: %s: set postgres.bin_directory", major, why)
}

// User is whom a connection with this conninfo string or URL is made as.
func User(conninfo string) (string, error) {
	config, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return "", parseError(conninfo, err)
	}
	return config.User, nil
}

// Database is the database that a conninfo string or URL, or libpq's
// environment, names; "" if none does.
func Database(conninfo string) (string, error) {
	config, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return "", parseError(conninfo, err)
	}
	return config.Database, nil
}

// Recovery is how far a server's recovery is.
type Recovery struct {
	Running    bool // it is in recovery
	Paused     bool
	Replayed   string    // LSN behind the last record that was replayed; "" if none was
	LastEnding time.Time // of the last transaction that was replayed, committed or not; zero if there was none
}

// Recovery asks how far the recovery is.
func (c *Conn) Recovery(ctx context.Context) (Recovery, error) {
	paused := "pg_catalog.pg_get_wal_replay_pause_state() = 'paused'"
	if c.version < 140000 {
		paused = "pg_catalog.pg_is_wal_replay_paused()"
	}
	rows, err := c.query(ctx, `SELECT pg_catalog.pg_is_in_recovery(),
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN `+paused+` ELSE false END,
		pg_catalog.pg_last_wal_replay_lsn(),
		extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp())`)
	if err != nil {
		return Recovery{}, fmt.Errorf("ask how far recovery is: %w", err)
	}
	row := rows[0]
	r := Recovery{Running: string(row[0]) == "t", Paused: string(row[1]) == "t", Replayed: string(row[2])}
	if len(row[3]) > 0 {
		seconds, fraction, _ := strings.Cut(string(row[3]), ".")
		whole, err := number[uint64]([]byte(seconds))
		if err != nil {
			return Recovery{}, fmt.Errorf("ask how far recovery is: %w", err)
		}
		micro, _ := strconv.Atoi((fraction + "000000")[:6])
		r.LastEnding = time.Unix(int64(whole), int64(micro)*1000).UTC()
	}
	return r, nil
}

// Committed tells whether a transaction is committed, in recovery too; known is
// false if it is so old that the server has forgotten. Of all transactions with
// this xid it is the one that is nearest to the server's next.
func (c *Conn) Committed(ctx context.Context, xid uint32) (committed, known bool, err error) {
	rows, err := c.query(ctx, "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())")
	if err != nil {
		return false, false, fmt.Errorf("ask for the next transaction: %w", err)
	}
	next, err := number[uint64](rows[0][0])
	if err != nil {
		return false, false, fmt.Errorf("ask for the next transaction: %w", err)
	}
	full := fullXID(next, xid)
	if full >= next {
		return false, true, nil // PostgreSQL refuses to be asked of the future
	}
	rows, err = c.query(ctx, "SELECT pg_catalog.pg_xact_status($1)", strconv.FormatUint(full, 10))
	if err != nil {
		return false, false, fmt.Errorf("ask for the status of transaction %d: %w", xid, err)
	}
	return string(rows[0][0]) == "committed", rows[0][0] != nil, nil
}

// fullXID completes an xid with the epoch that takes it nearest to next.
func fullXID(next uint64, xid uint32) uint64 {
	distance := int32(xid - uint32(next))
	return next + uint64(int64(distance))
}

// Promote ends the recovery where it is, and returns when that is done.
func (c *Conn) Promote(ctx context.Context) error {
	if _, err := c.query(ctx, "SELECT pg_catalog.pg_promote(true, 3600)"); err != nil {
		return fmt.Errorf("promote the server: %w", err)
	}
	return nil
}

// Exec runs one statement, and returns the rows that it has as text; a NULL is
// nil.
func (c *Conn) Exec(ctx context.Context, sql string, args ...string) ([][][]byte, error) {
	return c.query(ctx, sql, args...)
}
