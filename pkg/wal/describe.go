package wal

import (
	"fmt"
	"strings"
)

// Describe says in words, close to pg_waldump's, what the record says of
// transactions, files, checkpoints and the like; "" if it says nothing that
// walship looks into. c is the record's contents.
func (r *Record) Describe(c *Contents) (string, error) {
	if _, ok := r.TransactionAction(); ok {
		t, err := r.Transaction(c)
		return t.String(), err
	}
	if _, ok := r.StorageKind(); ok {
		s, err := r.Storage(c)
		return s.String(), err
	}
	kind, _ := r.ControlKind()
	switch kind {
	case ControlCheckpointOnline, ControlCheckpointShutdown:
		p, err := r.Checkpoint(c)
		return fmt.Sprintf("%s redo %s; timeline %d; previous timeline %d", kind, p.Redo, p.Timeline, p.PreviousTimeline), err
	case ControlSwitch:
		return kind.String(), nil
	case ControlParameterChange:
		p, err := r.ParameterChange(c)
		return kind.String() + " " + p.String(), err
	case ControlRestorePoint:
		p, err := r.RestorePoint(c)
		return fmt.Sprintf("%s %q at %s", kind, p.Name, p.Time), err
	case ControlEndOfRecovery:
		e, err := r.EndOfRecovery(c)
		return fmt.Sprintf("%s timeline %d; previous timeline %d; %s", kind, e.Timeline, e.PreviousTimeline, e.Time), err
	case ControlOverwriteContRecord:
		lsn, err := r.OverwrittenContRecord(c)
		return fmt.Sprintf("%s of the record at %s", kind, lsn), err
	}
	return "", nil
}

// String names a kind as pg_waldump does.
func (k ControlKind) String() string {
	switch k {
	case ControlCheckpointShutdown:
		return "CHECKPOINT_SHUTDOWN"
	case ControlCheckpointOnline:
		return "CHECKPOINT_ONLINE"
	case ControlSwitch:
		return "SWITCH"
	case ControlParameterChange:
		return "PARAMETER_CHANGE"
	case ControlRestorePoint:
		return "RESTORE_POINT"
	case ControlEndOfRecovery:
		return "END_OF_RECOVERY"
	case ControlOverwriteContRecord:
		return "OVERWRITE_CONTRECORD"
	}
	return ""
}

// String writes the parameters by their names in postgresql.conf.
func (p Parameters) String() string {
	level := "unknown"
	if names := [...]string{"minimal", "replica", "logical"}; p.WALLevel >= 0 && int(p.WALLevel) < len(names) {
		level = names[p.WALLevel]
	}
	return fmt.Sprintf("max_connections=%d max_worker_processes=%d max_wal_senders=%d max_prepared_transactions=%d "+
		"max_locks_per_transaction=%d wal_level=%s wal_log_hints=%t track_commit_timestamp=%t",
		p.MaxConnections, p.MaxWorkerProcesses, p.MaxWALSenders, p.MaxPreparedTransactions,
		p.MaxLocksPerTransaction, level, p.WALLogHints, p.TrackCommitTimestamp)
}

// String says what happened to which transaction, and when.
func (t Transaction) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %d at %s", t.Action, t.XID, t.Time)
	if t.GID != "" {
		fmt.Fprintf(&text, "; gid %q", t.GID)
	}
	writeList(&text, "removes", t.Dropped)
	writeList(&text, "removes on abort", t.DroppedOnAbort)
	writeList(&text, "subtransactions", t.Subtransactions)
	return text.String()
}

// writeList appends the items of a list that isn't empty.
func writeList[T any](text *strings.Builder, title string, items []T) {
	if len(items) == 0 {
		return
	}
	text.WriteString("; " + title)
	for _, item := range items {
		fmt.Fprintf(text, " %v", item)
	}
}

// String says what happened to which file, database or tablespace.
func (s Storage) String() string {
	switch s.Kind {
	case StorageCreate:
		return fmt.Sprintf("CREATE %s %s", s.Relation, s.Fork)
	case StorageTruncate:
		return fmt.Sprintf("TRUNCATE %s to %d blocks, parts %d", s.Relation, s.Blocks, s.Parts)
	case StorageCreateDatabaseCopy:
		return fmt.Sprintf("CREATE DATABASE %d in tablespace %d from %d in tablespace %d",
			s.Database, first(s.Tablespaces), s.TemplateDatabase, s.TemplateTablespace)
	case StorageCreateDatabaseLog:
		return fmt.Sprintf("CREATE DATABASE %d in tablespace %d", s.Database, first(s.Tablespaces))
	case StorageDropDatabase:
		var text strings.Builder
		fmt.Fprintf(&text, "DROP DATABASE %d", s.Database)
		writeList(&text, "tablespaces", s.Tablespaces)
		return text.String()
	case StorageCreateTablespace:
		return fmt.Sprintf("CREATE TABLESPACE %d %q", first(s.Tablespaces), s.Path)
	case StorageDropTablespace:
		return fmt.Sprintf("DROP TABLESPACE %d", first(s.Tablespaces))
	}
	return ""
}

// first returns a list's first item, 0 of an empty one.
func first(list []uint32) uint32 {
	if len(list) == 0 {
		return 0
	}
	return list[0]
}
