package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// BackupStart is the server's answer to the start of a base backup.
type BackupStart struct {
	LSN  wal.LSN   // the redo point of the backup's checkpoint
	Time time.Time // the server's clock at or before the start, UTC
}

// BackupStop is the server's answer to the end of a base backup.
type BackupStop struct {
	LSN           wal.LSN
	Label         []byte // backup_label, byte for byte
	TablespaceMap []byte // tablespace_map; empty without tablespaces
	// Time is the server's clock at or after the end of the backup, UTC, on a
	// standby at least the time of the last transaction that it replayed, by
	// its primary's clock. Snapshot is pg_current_snapshot() of that time; ""
	// on a standby.
	Time     time.Time
	Snapshot string
}

// firstWithBackupStart is the first version with pg_backup_start; before, a
// non-exclusive backup was one kind of pg_start_backup.
const firstWithBackupStart = 150000

// StartBackup begins a base backup that lives as long as this session. fast
// asks for an immediate checkpoint, otherwise it is spread over time, which
// may take as long as checkpoint_timeout.
func (c *Conn) StartBackup(ctx context.Context, label string, fast bool) (BackupStart, error) {
	now, err := c.Now(ctx)
	if err != nil {
		return BackupStart{}, fmt.Errorf("start backup: %w", err)
	}
	sql, grant := `SELECT pg_catalog.pg_backup_start($1, $2)`, "EXECUTE ON FUNCTION pg_backup_start(text, boolean)"
	if c.version < firstWithBackupStart {
		sql, grant = `SELECT pg_catalog.pg_start_backup($1, $2, false)`, "EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean)"
	}
	_, stopGrant := c.stopFunction()
	rows, err := c.query(ctx, sql, label, fmt.Sprint(fast))
	if err != nil {
		return BackupStart{}, c.denied("start backup", err, grant, stopGrant)
	}
	lsn, err := wal.ParseLSN(string(rows[0][0]))
	if err != nil {
		return BackupStart{}, fmt.Errorf("start backup: %w", err)
	}
	return BackupStart{LSN: lsn, Time: now}, nil
}

// StopBackup ends the backup that StartBackup began. It doesn't wait for the
// archiver. The server switches to a new segment by itself, unless it is a
// standby.
func (c *Conn) StopBackup(ctx context.Context) (BackupStop, error) {
	call, grant := c.stopFunction()
	rows, err := c.query(ctx, `SELECT lsn, labelfile, spcmapfile FROM `+call)
	if err != nil {
		return BackupStop{}, c.denied("stop backup", err, grant)
	}
	stop := BackupStop{Label: rows[0][1], TablespaceMap: rows[0][2]}
	if stop.LSN, err = wal.ParseLSN(string(rows[0][0])); err != nil {
		return BackupStop{}, fmt.Errorf("stop backup: %w", err)
	}
	if len(stop.Label) == 0 {
		return BackupStop{}, errors.New("stop backup: the server gave no backup_label: the backup was ended by someone else")
	}
	if stop.Time, stop.Snapshot, err = c.moment(ctx); err != nil {
		return BackupStop{}, fmt.Errorf("stop backup: %w", err)
	}
	return stop, nil
}

// SwitchWAL ends the current segment of a primary, unless nothing was written
// to it, and returns where the next WAL goes. It returns an error if the server
// is of another cluster or a standby.
func (c *Conn) SwitchWAL(ctx context.Context, cluster uint64) (wal.LSN, error) {
	if err := c.CheckPrimary(ctx, cluster); err != nil {
		return 0, err
	}
	rows, err := c.query(ctx, `SELECT pg_catalog.pg_switch_wal()`)
	if err != nil {
		return 0, c.denied("switch WAL on the primary", err, "EXECUTE ON FUNCTION pg_switch_wal()")
	}
	return wal.ParseLSN(string(rows[0][0]))
}

// CheckPrimary returns an error if this isn't a server of that cluster that
// takes writes.
func (c *Conn) CheckPrimary(ctx context.Context, cluster uint64) error {
	rows, err := c.query(ctx, `SELECT system_identifier, pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_control_system()`)
	if err != nil {
		return c.denied("read the system identifier of the primary", err, "EXECUTE ON FUNCTION pg_control_system()")
	}
	id, err := systemID(rows[0][0])
	switch {
	case err != nil:
		return err
	case id != cluster:
		return fmt.Errorf("the primary: that server is of cluster %d, not of %d", id, cluster)
	case string(rows[0][1]) == "t":
		return errors.New("the primary: that server is a standby itself")
	}
	return nil
}

func (c *Conn) stopFunction() (call, grant string) {
	if c.version < firstWithBackupStart {
		return "pg_catalog.pg_stop_backup(false, false)", "EXECUTE ON FUNCTION pg_stop_backup(boolean, boolean)"
	}
	return "pg_catalog.pg_backup_stop(false)", "EXECUTE ON FUNCTION pg_backup_stop(boolean)"
}
