package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// Facts is what a server says of itself.
type Facts struct {
	Version       int    // server_version_num: 150018 for 15.18
	SystemID      uint64 // as pg_control_system() says
	SegmentSize   uint64 // bytes
	DataDirectory string // on the server's host
	InRecovery    bool

	WALLevel       string
	ArchiveMode    string // off, on or always
	ArchiveCommand string
	ArchiveLibrary string // "" before 15

	ConfigFile string
	HBAFile    string
	IdentFile  string
	// SourceFiles are the files that some setting in force came from.
	SourceFiles []string
}

// Archiving says whether the server hands its finished segments to anything.
func (f Facts) Archiving() bool {
	return f.ArchiveMode != "off" && (f.ArchiveLibrary != "" || f.ArchiveCommand != "" && f.ArchiveCommand != "(disabled)")
}

// Facts asks the server for what a backup depends on. It needs the role
// pg_read_all_settings; the error says so when that is missing.
func (c *Conn) Facts(ctx context.Context) (Facts, error) {
	rows, err := c.query(ctx, `SELECT system_identifier, pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_control_system()`)
	if err != nil {
		return Facts{}, c.denied("read the system identifier", err, "EXECUTE ON FUNCTION pg_control_system()")
	}
	f := Facts{Version: c.version, InRecovery: string(rows[0][1]) == "t"}
	if f.SystemID, err = systemID(rows[0][0]); err != nil {
		return Facts{}, err
	}
	if err := c.settings(ctx, &f); err != nil {
		return Facts{}, err
	}
	rows, err = c.query(ctx, `SELECT DISTINCT sourcefile FROM pg_catalog.pg_settings WHERE sourcefile IS NOT NULL ORDER BY 1`)
	if err != nil {
		return Facts{}, fmt.Errorf("read the server's settings: %w", err)
	}
	for _, row := range rows {
		f.SourceFiles = append(f.SourceFiles, string(row[0]))
	}
	return f, nil
}

func (c *Conn) settings(ctx context.Context, f *Facts) error {
	text := map[string]*string{
		"data_directory": &f.DataDirectory, "wal_level": &f.WALLevel, "archive_mode": &f.ArchiveMode,
		"archive_command": &f.ArchiveCommand, "config_file": &f.ConfigFile, "hba_file": &f.HBAFile, "ident_file": &f.IdentFile,
	}
	rows, err := c.query(ctx, `SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ('wal_segment_size',
		'data_directory', 'wal_level', 'archive_mode', 'archive_command', 'archive_library', 'config_file', 'hba_file', 'ident_file')`)
	if err != nil {
		return fmt.Errorf("read the server's settings: %w", err)
	}
	for _, row := range rows {
		name, value := string(row[0]), string(row[1])
		switch name {
		case "wal_segment_size":
			if f.SegmentSize, err = number[uint64](row[1]); err != nil || !wal.ValidSegmentSize(f.SegmentSize) {
				return fmt.Errorf("the server's wal_segment_size %q isn't a power of two from 1 MiB to 1 GiB", value)
			}
		case "archive_library":
			f.ArchiveLibrary = value
		default:
			*text[name] = value
			delete(text, name)
		}
	}
	// pg_settings leaves out what the role may not see.
	if _, missing := text["data_directory"]; missing {
		return fmt.Errorf("read the server's settings: the user %q may not see data_directory: GRANT pg_read_all_settings TO %s", c.user, quoteIdentifier(c.user))
	}
	for name := range text {
		return fmt.Errorf("read the server's settings: the server didn't say what %s is", name)
	}
	return nil
}

// Tablespace is a tablespace other than pg_default and pg_global.
type Tablespace struct {
	OID  uint32
	Name string
}

// Tablespaces lists the tablespaces that pg_tablespace shows, without the two
// that every cluster has.
func (c *Conn) Tablespaces(ctx context.Context) ([]Tablespace, error) {
	rows, err := c.query(ctx, `SELECT oid, spcname FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid`)
	if err != nil {
		return nil, fmt.Errorf("list tablespaces: %w", err)
	}
	var list []Tablespace
	for _, row := range rows {
		oid, err := number[uint32](row[0])
		if err != nil {
			return nil, fmt.Errorf("list tablespaces: %w", err)
		}
		list = append(list, Tablespace{OID: oid, Name: string(row[1])})
	}
	return list, nil
}

// Now is the server's clock, in UTC, to the microsecond.
func (c *Conn) Now(ctx context.Context) (time.Time, error) {
	now, _, err := c.moment(ctx)
	return now, err
}

// moment returns the server's clock and pg_current_snapshot(). The time of a
// transaction that a standby replayed is by another clock, which may be ahead.
func (c *Conn) moment(ctx context.Context) (time.Time, string, error) {
	rows, err := c.query(ctx, `SELECT pg_catalog.to_char(greatest(pg_catalog.clock_timestamp(), pg_catalog.pg_last_xact_replay_timestamp()) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE pg_catalog.pg_current_snapshot()::pg_catalog.text END`)
	if err != nil {
		return time.Time{}, "", fmt.Errorf("read the server's clock: %w", err)
	}
	now, err := time.Parse(time.RFC3339Nano, string(rows[0][0]))
	if err != nil {
		return time.Time{}, "", fmt.Errorf("read the server's clock: %w", err)
	}
	return now.UTC(), string(rows[0][1]), nil
}

// denied explains a lack of privilege by the grant that ends it.
func (c *Conn) denied(what string, err error, grants ...string) error {
	if code(err) != insufficientPrivilege {
		return fmt.Errorf("%s: %w", what, err)
	}
	for i, grant := range grants {
		grants[i] = "GRANT " + grant + " TO " + quoteIdentifier(c.user)
	}
	return fmt.Errorf("%s: the user %q may not do that (%w): as a superuser run %s, in the database that walship connects to", what, c.user, err, strings.Join(grants, "; "))
}

func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// systemID reads a system identifier, which SQL shows as a signed number.
func systemID(text []byte) (uint64, error) {
	id, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the system identifier: %w", err)
	}
	return uint64(id), nil
}

func number[T int | uint32 | uint64](text []byte) (T, error) {
	n, err := strconv.ParseUint(string(text), 10, 63)
	if err != nil || uint64(T(n)) != n {
		return 0, fmt.Errorf("%q isn't a number in range", text)
	}
	return T(n), nil
}
