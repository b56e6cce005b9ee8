package rescue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/search"
	"github.com/walship/walship/pkg/wal"
)

// BeforeDrop aims a restore at the moment right before the first of the tables
// was dropped last, along the path to a timeline (0: the latest). It looks through
// the archived WAL from the newest backup back to the oldest, and notes in the
// request in which database that was. The error is a *search.AmbiguousError where
// a name stands for tables of several databases.
func BeforeDrop(ctx context.Context, r *repo.Repository, q *Request, aim *restore.Request, timeline wal.TimelineID, log *slog.Logger) error {
	database, err := q.databaseOID(ctx, aim.SystemID)
	if err != nil {
		return err
	}
	history, err := search.Path(ctx, r, aim.SystemID, timeline)
	if err != nil {
		return fmt.Errorf("look for the drop: %w", err)
	}
	var tables []search.Table
	for _, t := range q.Tables {
		tables = append(tables, search.Table{Schema: t.Schema, Name: t.Table})
	}
	query := search.Query{SystemID: aim.SystemID, History: history}
	found, report, err := search.Lost(ctx, r, query, search.Options{Log: log},
		search.Missing{Tables: tables, Change: search.ChangeDrop, Database: database, Backup: aim.Backup})
	if err != nil {
		return fmt.Errorf("look for the drop: %w", err)
	}
	for _, text := range report.Warnings {
		log.Warn(text)
	}
	var first search.Event
	for i, table := range tables {
		losses, sure, err := search.Settle(table, found[i])
		if err != nil {
			return fmt.Errorf("look for the drop: %w", err)
		}
		if len(losses) == 0 {
			where := ""
			if database != 0 {
				where = fmt.Sprintf(" in database %q, whose OID is %d,", q.Database, database)
			}
			return fmt.Errorf("look for the drop: the WAL on the way to timeline %d has none of table %s%s since the oldest backup "+
				"(nor can it have one of a view, or of a partitioned table without partitions, which have no files): walship wal search --dropped lists what it has; choose a moment with --to-time", history.Timeline, table, where)
		}
		last := losses[len(losses)-1]
		if q.dropped != 0 && last.Database() != 0 && last.Database() != q.dropped {
			return fmt.Errorf("look for the drop: the tables were dropped in several databases, whose OIDs are %d and %d: bring them back one by one", q.dropped, last.Database())
		}
		q.dropped = cmp.Or(q.dropped, last.Database())
		if !sure {
			log.Warn(fmt.Sprintf("the WAL doesn't say what schema %d is called: it is taken for %q", last.Relation.SchemaOID, table.Schema))
		}
		if first.LSN == 0 || last.Event.LSN < first.LSN {
			first = last.Event
		}
	}
	log.Info("found the drop", "xid", first.XID, "lsn", first.LSN.String(), "time", first.Time)
	aim.Target = restore.Target{Kind: restore.TargetLSN, LSN: first.LSN, Exclusive: true}
	aim.Timeline = strconv.FormatUint(uint64(history.Timeline), 10)
	return nil
}

// databaseOID asks the server that the tables are to be loaded into, if that is
// the cluster itself, for the OID of the database that they were in. 0 is one
// that isn't known.
func (q Request) databaseOID(ctx context.Context, systemID uint64) (oid uint32, err error) {
	if q.Into == "" {
		return 0, nil
	}
	target, err := q.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	rows, err := target.Exec(ctx, `SELECT d.oid FROM pg_catalog.pg_database d, pg_catalog.pg_control_system() c
		WHERE d.datname = $1 AND c.system_identifier::text = $2`, q.Database, strconv.FormatInt(int64(systemID), 10))
	if err != nil {
		return 0, fmt.Errorf("look for database %q where it is to be loaded: %w", q.Database, err)
	}
	if len(rows) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(string(rows[0][0]), 10, 32)
	return uint32(n), err
}

// connect opens a session where the tables are to be loaded.
func (q Request) connect(ctx context.Context) (*postgres.Conn, error) {
	target, err := postgres.Connect(ctx, q.Into)
	if postgres.NoDatabase(err) {
		return nil, fmt.Errorf("there is no such database to load into: create it, or name another one in --into; --database says which one the tables were in: %w", err)
	}
	return target, err
}
