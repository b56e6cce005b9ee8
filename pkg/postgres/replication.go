package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walship/walship/pkg/wal"
)

// OldestReplication is the oldest server, as server_version_num says it, whose
// replication protocol this package speaks.
const OldestReplication = 140000

// keepAlive is how often the network is asked whether the server's host is
// still there, while it is silent: a spread checkpoint takes minutes.
const keepAlive = 30 * time.Second

// senderTimeout replaces wal_sender_timeout for the session, in milliseconds:
// what is received waits while the repository's storage is away.
const senderTimeout = "3600000"

// Replication is a session of the physical replication protocol
// (src/backend/replication/walsender.c). It needs a role with the attribute
// REPLICATION, an entry for "replication" in pg_hba.conf, and no more. It is
// for one goroutine at a time. A call whose context ends, or that fails in the
// middle, leaves a session that can only be closed.
type Replication struct {
	pg      *pgconn.PgConn
	version int
	notices notices
}

// notices gathers what the server warns of.
type notices struct {
	mu   sync.Mutex
	list []string
	more int
}

// maxNotices bounds how many warnings of one command are kept.
const maxNotices = 100

func (n *notices) add(notice *pgconn.Notice) {
	if notice.SeverityUnlocalized != "WARNING" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.list) == maxNotices {
		n.more++
		return
	}
	n.list = append(n.list, notice.Message)
}

func (n *notices) take() (list []string, more int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list, more = n.list, n.more
	n.list, n.more = nil, 0
	return list, more
}

// ConnectReplication opens a session of the replication protocol by the same
// conninfo as Connect. What that says of a database doesn't matter.
func ConnectReplication(ctx context.Context, conninfo string) (*Replication, error) {
	config, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return nil, parseError(conninfo, err)
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "walship"
	}
	config.RuntimeParams["replication"] = "true"
	config.RuntimeParams["client_encoding"] = "SQL_ASCII"
	config.RuntimeParams["wal_sender_timeout"] = senderTimeout
	config.DialFunc = (&net.Dialer{KeepAlive: keepAlive}).DialContext
	r := &Replication{}
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { r.notices.add(notice) }
	if r.pg, err = pgconn.ConnectConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL for replication: %w", err)
	}
	if err := r.checkVersion(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Replication) checkVersion(ctx context.Context) error {
	text, err := r.Show(ctx, "server_version_num")
	if err != nil {
		return err
	}
	if r.version, err = number[int]([]byte(text)); err != nil {
		return fmt.Errorf("read server_version_num: %w", err)
	}
	if r.version < OldestReplication {
		return fmt.Errorf("the server is PostgreSQL %s: through the replication protocol walship needs %d or later", VersionString(r.version), OldestReplication/10000)
	}
	return nil
}

// Version is the server's server_version_num.
func (r *Replication) Version() int { return r.version }

// Close ends the session. A backup that is going on ends with it, and a
// temporary slot is dropped.
func (r *Replication) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return r.pg.Close(ctx)
}

// command runs one command whose answer is rows of text.
func (r *Replication) command(ctx context.Context, text string) ([][][]byte, error) {
	results, err := r.pg.Exec(ctx, text).ReadAll()
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	if len(results) == 0 || len(results[0].Rows) == 0 {
		return nil, fmt.Errorf("the server answered %s with nothing", text)
	}
	return results[0].Rows, nil
}

// System is the answer to IDENTIFY_SYSTEM.
type System struct {
	SystemID uint64
	Timeline wal.TimelineID // on a standby, the one that is replayed
	LSN      wal.LSN        // end of what is flushed; on a standby, of what is replayed
}

// IdentifySystem asks which cluster the server is of.
func (r *Replication) IdentifySystem(ctx context.Context) (System, error) {
	rows, err := r.command(ctx, "IDENTIFY_SYSTEM")
	if err != nil {
		return System{}, fmt.Errorf("identify the server: %w", err)
	}
	if len(rows[0]) < 3 {
		return System{}, errors.New("identify the server: its answer has too few columns")
	}
	var s System
	id, err1 := strconv.ParseUint(string(rows[0][0]), 10, 64)
	timeline, err2 := number[uint32](rows[0][1])
	lsn, err3 := wal.ParseLSN(string(rows[0][2]))
	if err := errors.Join(err1, err2, err3); err != nil {
		return System{}, fmt.Errorf("identify the server: %w", err)
	}
	s.SystemID, s.Timeline, s.LSN = id, wal.TimelineID(timeline), lsn
	return s, nil
}

// Show reads a setting, as SHOW prints it.
func (r *Replication) Show(ctx context.Context, name string) (string, error) {
	rows, err := r.command(ctx, "SHOW "+name)
	if err != nil {
		return "", fmt.Errorf("read the setting %s: %w", name, err)
	}
	return string(rows[0][0]), nil
}

// DataDirectoryMode reads the permissions of the server's data directory.
func (r *Replication) DataDirectoryMode(ctx context.Context) (fs.FileMode, error) {
	text, err := r.Show(ctx, "data_directory_mode")
	if err != nil {
		return 0, err
	}
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("read the setting data_directory_mode: %w", err)
	}
	return fs.FileMode(mode).Perm(), nil
}

// Facts asks for what Conn.Facts asks for, but for the server's paths: they
// would need a further privilege, and nothing at them can be read from here.
func (r *Replication) Facts(ctx context.Context) (Facts, error) {
	system, err := r.IdentifySystem(ctx)
	if err != nil {
		return Facts{}, err
	}
	f := Facts{Version: r.version, SystemID: system.SystemID}
	var segment, standby string
	settings := []struct {
		name string
		to   *string
	}{
		{"wal_segment_size", &segment}, {"in_hot_standby", &standby}, {"wal_level", &f.WALLevel},
		{"archive_mode", &f.ArchiveMode}, {"archive_command", &f.ArchiveCommand}, {"archive_library", &f.ArchiveLibrary},
	}
	if r.version < firstWithArchiveLibrary {
		settings = settings[:len(settings)-1]
	}
	for _, s := range settings {
		if *s.to, err = r.Show(ctx, s.name); err != nil {
			return Facts{}, err
		}
	}
	f.InRecovery = standby == "on"
	if f.SegmentSize, err = sizeInBytes(segment); err != nil || !wal.ValidSegmentSize(f.SegmentSize) {
		return Facts{}, fmt.Errorf("the server's wal_segment_size %q isn't a power of two from 1 MiB to 1 GiB", segment)
	}
	return f, nil
}

const firstWithArchiveLibrary = 150000

// sizeInBytes reads a size as SHOW prints it: 16MB.
func sizeInBytes(text string) (uint64, error) {
	for unit, factor := range map[string]uint64{"MB": 1 << 20, "GB": 1 << 30} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseUint(digits, 10, 32)
			return n * factor, err
		}
	}
	return 0, fmt.Errorf("%q has no unit", text)
}

// TimelineHistory reads the history file of a timeline, byte for byte.
func (r *Replication) TimelineHistory(ctx context.Context, timeline wal.TimelineID) ([]byte, error) {
	rows, err := r.command(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", uint32(timeline)))
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", uint32(timeline), err)
	}
	if len(rows[0]) < 2 {
		return nil, fmt.Errorf("read the history of timeline %d: the answer has too few columns", uint32(timeline))
	}
	return rows[0][1], nil
}

// guard makes reading from the session end when ctx does, without the cost of
// watching ctx for each message.
func (r *Replication) guard(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = r.pg.Conn().SetDeadline(time.Unix(1, 0)) })
}

// begin sends a command whose answer isn't just rows.
func (r *Replication) begin(text string) error {
	r.notices.take()
	r.pg.Frontend().SendQuery(&pgproto3.Query{String: text})
	return r.pg.Frontend().Flush()
}

// receive returns the next message that isn't about the session itself. An
// error of the server's comes back as *pgconn.PgError.
func (r *Replication) receive(ctx context.Context) (pgproto3.BackendMessage, error) {
	for {
		// The context of the call is watched by guard.
		message, err := r.pg.ReceiveMessage(context.Background())
		if err != nil && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
			continue
		}
		return message, nil
	}
}

// rows reads one result of a command: its rows, up to CommandComplete.
func (r *Replication) rows(ctx context.Context) ([][][]byte, error) {
	var rows [][][]byte
	for {
		message, err := r.receive(ctx)
		if err != nil {
			return nil, err
		}
		switch m := message.(type) {
		case *pgproto3.RowDescription:
		case *pgproto3.DataRow:
			row := make([][]byte, len(m.Values))
			for i, value := range m.Values {
				if value != nil {
					row[i] = append([]byte{}, value...)
				}
			}
			rows = append(rows, row)
		case *pgproto3.CommandComplete:
			return rows, nil
		default:
			return nil, fmt.Errorf("the server sent %T where a result was expected", message)
		}
	}
}

// position reads a result of one row: an LSN and a timeline.
func (r *Replication) position(ctx context.Context) (wal.LSN, wal.TimelineID, error) {
	rows, err := r.rows(ctx)
	if err != nil {
		return 0, 0, err
	}
	if len(rows) != 1 || len(rows[0]) < 2 {
		return 0, 0, errors.New("the server's answer isn't an LSN and a timeline")
	}
	lsn, err1 := wal.ParseLSN(string(rows[0][0]))
	timeline, err2 := number[uint32](rows[0][1])
	return lsn, wal.TimelineID(timeline), errors.Join(err1, err2)
}

// ready reads to the end of a command.
func (r *Replication) ready(ctx context.Context) error {
	for {
		message, err := r.receive(ctx)
		if err != nil {
			return err
		}
		switch message.(type) {
		case *pgproto3.ReadyForQuery:
			return nil
		case *pgproto3.CommandComplete:
		default:
			return fmt.Errorf("the server sent %T where the end of the command was expected", message)
		}
	}
}

// literal quotes text for a replication command.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
